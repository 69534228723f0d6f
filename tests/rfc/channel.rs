//! RFC 8656 section 12: channels.

use hallpass::turn::action::DropReason;

use crate::codec::*;
use crate::rig::*;

/// RFC 8656 sections 12.2, 12.4 to 12.6: a channel is bound and used both ways, checked as literal bytes.
#[test]
fn s12_a_channel_carries_data_both_ways() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let answer = rig.ask(&alice, Msg::request(CHANNEL_BIND).channel(0x4001).peer(PEER));
    assert_eq!((answer.code(), answer.method, answer.attrs.len()), (0, CHANNEL_BIND, 1));
    let sent = rig.data(&alice.at, b"\x40\x01\x00\x05hello").expect("relayed");
    let from = rig.sockets[&rig.relay(true)];
    assert_eq!(sent, Sent { from, to: addr(PEER), data: b"hello".into(), dont_fragment: false });
    // Over UDP any padding is accepted; the length field decides.
    assert_eq!(rig.data(&alice.at, b"\x40\x01\x00\x05hello\0\xff\0").expect("relayed").data, b"hello");
    assert_eq!(rig.data(&alice.at, b"\x40\x01\x00\x00").expect("relayed").data, b"", "an empty datagram");
    let (client, bytes) = rig.data_from_peer(PEER, b"world").expect("relayed");
    assert_eq!((client, &bytes[..]), (alice.at, &b"\x40\x01\x00\x05world"[..]));
    assert_eq!(rig.data_from_peer(PEER, b"").expect("relayed").1, b"\x40\x01\x00\x00");
}

/// RFC 8656 section 11.3: data from the bound port is ChannelData, data from other ports of that address is a Data indication.
#[test]
fn s11_3_a_channel_is_for_one_port() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    let (_, bytes) = rig.data_from_peer("192.0.2.50:7001", b"x").expect("permitted by the channel");
    let data = Answer::decode(&bytes);
    assert_eq!((data.class, data.method), (INDICATION, DATA_METHOD));
}

/// RFC 8656 section 12.6: malformed ChannelData and unbound numbers are silently discarded.
#[test]
fn s12_6_bad_channel_data_is_discarded() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    for (bytes, reason) in [
        (&b"\x40\x00\x00\x05hell"[..], DropReason::MalformedChannelData),
        (b"\x40\x00\x00", DropReason::MalformedChannelData),
        (b"\x40", DropReason::MalformedChannelData),
        (b"\x40\x02\x00\x01x", DropReason::NoChannel),
        (b"\x4f\xff\x00\x01x", DropReason::NoChannel),
        (b"\x50\x00\x00\x01x", DropReason::NoChannel),
        (b"\x80\x00\x00\x01x", DropReason::NotTurn),
        (b"\xff\xff\x00\x01x", DropReason::NotTurn),
        (b"\x3f\xff\x00\x01x", DropReason::NotTurn),
        (b"\x04\x00\x00\x01x", DropReason::NotTurn),
    ] {
        assert_eq!(rig.silent(&alice.at, bytes), reason, "{bytes:?}");
    }
    assert_eq!(rig.silent(&client(9), b"\x40\x00\x00\x01x"), DropReason::NoAllocation);
}

/// RFC 8656 section 12.2: without both attributes, well-formed, the answer is 400.
#[test]
fn s12_2_missing_or_malformed_attributes_are_400() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let bind = || Msg::request(CHANNEL_BIND);
    for request in [
        bind(),
        bind().channel(0x4000),
        bind().peer(PEER),
        bind().attr(CHANNEL_NUMBER, &[0x40, 0]).peer(PEER),
        bind().channel(0x4000).attr(XOR_PEER_ADDRESS, &[0, 1, 2, 3]),
    ] {
        assert_eq!(rig.ask(&alice, request).code(), 400);
    }
    // Section 18.1: RFFU is ignored.
    assert_eq!(rig.ask(&alice, bind().attr(CHANNEL_NUMBER, &[0x40, 0, 0xff, 0xff]).peer(PEER)).code(), 0);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
}

/// RFC 8656 section 12.2: the range of channel numbers with `strict_channels`; RFC 5766's range without.
#[test]
fn s12_2_channel_numbers_outside_the_range_are_400() {
    for (strict, last) in [(true, 0x4fff), (false, 0x7fff)] {
        let mut rig = Rig::with(|settings| settings.strict_channels = strict);
        let alice = rig.allocated();
        for number in [0, 1, 0x3fff, last + 1, 0xffff] {
            assert_eq!(rig.bind(&alice, number, PEER), 400, "{number:#x}");
        }
        for (number, peer) in [(0x4000, PEER), (last, OTHER_PEER)] {
            assert_eq!(rig.bind(&alice, number, peer), 0, "{number:#x}");
            assert!(rig.channel(&alice, number, b"x").is_ok());
        }
    }
}

/// RFC 8656 sections 12 and 12.2: one number, one peer; one peer, one number; the same pair again is fine.
#[test]
fn s12_2_rebinding_rules() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.bind(&alice, 0x4000, OTHER_PEER), 400);
    assert_eq!(rig.bind(&alice, 0x4000, "192.0.2.50:7001"), 400, "another port is another peer");
    assert_eq!(rig.bind(&alice, 0x4001, PEER), 400);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.bind(&alice, 0x4001, "192.0.2.50:7001"), 0);
    // Refused requests changed neither channels nor permissions.
    assert_eq!(rig.channel(&alice, 0x4000, b"x").expect("relayed").to, addr(PEER));
    assert_eq!(rig.data_from_peer(OTHER_PEER, b"x"), Err(DropReason::NoPermission));
    // Another allocation has numbers and peers of its own.
    let bob = rig.alice_at(client(2));
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
    assert_eq!((rig.bind(&bob, 0x4000, OTHER_PEER), rig.bind(&bob, 0x4001, PEER)), (0, 0));
    assert_eq!(rig.channel(&bob, 0x4000, b"x").expect("relayed").to, addr(OTHER_PEER));
}

/// RFC 8656 section 12.2: across the halves of a dual allocation a number is bound once.
#[test]
fn s12_2_a_number_is_bound_once_over_both_families() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER6), 400);
    assert_eq!(rig.bind(&alice, 0x4001, PEER6), 0);
    assert_eq!(rig.channel(&alice, 0x4001, b"x").expect("relayed").to, addr(PEER6));
    assert_eq!(rig.data_from_peer(PEER6, b"x").expect("relayed").1, b"\x40\x01\x00\x01x");
}

/// RFC 8656 section 12.2: family, policy, capacity.
#[test]
fn s12_2_refused_peers_are_443_403_and_508() {
    let mut rig = Rig::with(|settings| settings.limits.channels_per_allocation = 1);
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER6), 443);
    assert_eq!(rig.bind(&alice, 0x4000, DENIED), 403);
    assert_eq!(rig.server.counters().permissions.get(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.bind(&alice, 0x4001, OTHER_PEER), 508);
    assert_eq!(rig.data_from_peer(OTHER_PEER, b"x"), Err(DropReason::NoPermission), "no permission either");
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0, "a refresh needs no room");
    // 400 comes before 443 and 403.
    assert_eq!(rig.bind(&alice, 0x4000, PEER6), 400);
    assert_eq!(rig.bind(&alice, 0x4000, DENIED), 400);
    assert_eq!(rig.bind(&alice, 0x3000, PEER6), 400);
}

/// RFC 8656 section 12: a channel lasts 600 seconds from the last ChannelBind; then number and peer are free for others.
#[test]
fn s12_a_channel_lasts_600_seconds_and_is_free_afterwards() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    rig.wait(500);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    rig.wait(599);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
    assert_eq!(rig.data_from_peer(PEER, b"x").expect("relayed").1, b"\x40\x00\x00\x01x");
    rig.wait(1);
    assert_eq!(rig.channel(&alice, 0x4000, b"x"), Err(DropReason::NoChannel));
    assert_eq!(rig.data_from_peer(PEER, b"x").expect("the permission lives").1[..2], [0x00, 0x17], "Data");
    assert_eq!((rig.bind(&alice, 0x4000, OTHER_PEER), rig.bind(&alice, 0x4001, PEER)), (0, 0));
    assert_eq!(rig.channel(&alice, 0x4000, b"x").expect("relayed").to, addr(OTHER_PEER));
}

/// The same if no timer ran: lifetimes are checked at use.
#[test]
fn s12_an_expired_channel_is_free_even_if_no_timer_ran() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!((rig.bind(&alice, 0x4000, PEER), rig.bind(&alice, 0x4001, OTHER_PEER)), (0, 0));
    rig.skip(600);
    assert!(rig.channel(&alice, 0x4000, b"x").is_err());
    assert_eq!((rig.bind(&alice, 0x4001, PEER), rig.bind(&alice, 0x4000, OTHER_PEER)), (0, 0), "swapped");
    assert_eq!(rig.channel(&alice, 0x4001, b"x").expect("relayed").to, addr(PEER));
    assert_eq!(rig.data_from_peer(OTHER_PEER, b"x").expect("relayed").1[..2], [0x40, 0x00]);
    rig.wait(599);
    assert_eq!(rig.server.counters().channels.get(), 2);
    rig.wait(1);
    assert_eq!(rig.server.counters().channels.get(), 0);
}

/// RFC 8656 sections 9 and 12.6: data in either direction prolongs neither channel nor permission.
#[test]
fn s12_6_channel_data_refreshes_neither_channel_nor_permission() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    for _ in 0..3 {
        assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
        assert!(rig.send(&alice, PEER, b"x").is_ok());
        assert!(rig.data_from_peer(PEER, b"x").is_ok());
        rig.wait(100);
    }
    // The permission has expired. The channel is still bound, but carries nothing without a permission, which is stricter
    // than section 12.6.
    assert_eq!(rig.channel(&alice, 0x4000, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.bind(&alice, 0x4001, PEER), 400, "bound");
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok(), "a CreatePermission is enough");
    rig.wait(299);
    assert_eq!(rig.data_from_peer(PEER, b"x").expect("relayed").1, b"\x40\x00\x00\x01x");
    rig.wait(1);
    assert_eq!(
        rig.channel(&alice, 0x4000, b"x"),
        Err(DropReason::NoChannel),
        "600 seconds after ChannelBind"
    );
}

/// RFC 8656 sections 9 and 12: a permission outlives its channel only if it is refreshed separately.
#[test]
fn s9_a_permission_may_outlive_its_channel() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    rig.wait(590);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(100);
    assert_eq!(rig.channel(&alice, 0x4000, b"x"), Err(DropReason::NoChannel));
    assert!(rig.send(&alice, PEER, b"x").is_ok());
    rig.wait(200);
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (0, 0), "both are gone");
}

/// After a long pause of the machine, the server finds permission and channel expired at the same moment.
#[test]
fn s12_permission_and_channel_that_expired_together_go_together() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!((rig.bind(&alice, 0x4000, PEER), rig.bind(&alice, 0x4001, OTHER_PEER)), (0, 0));
    rig.skip(2000);
    rig.server.handle_timeout(rig.now);
    rig.drain();
    assert_eq!(rig.bind(&alice, 0x4000, OTHER_PEER), 0);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
    rig.wait(1000);
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (0, 0));
    assert_eq!(rig.server.allocations(), 1);
}

/// RFC 8656 sections 6 and 12: channels end with their allocation.
#[test]
fn s12_channels_end_with_their_allocation() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    rig.wait(500);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    rig.wait(100);
    assert_eq!(rig.channel(&alice, 0x4000, b"x"), Err(DropReason::NoAllocation));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    assert_eq!(rig.channel(&alice, 0x4000, b"x"), Err(DropReason::NoChannel));
    assert_eq!(rig.server.counters().channels.get(), 0);
}

/// RFC 8656 section 12.2: a repeated ChannelBind refreshes.
#[test]
fn s12_2_a_retransmission_refreshes_only() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let request = alice.seal(Msg::request(CHANNEL_BIND).channel(0x4000).peer(PEER));
    assert_eq!(rig.bare(&alice.at, &request).bytes, rig.bare(&alice.at, &request).bytes);
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (1, 1));
}
