//! RFC 8656 sections 9 and 10: permissions.

use hallpass::turn::action::DropReason;

use crate::codec::*;
use crate::rig::*;

/// RFC 8656 section 10.2: the success response has no attributes but integrity.
#[test]
fn s10_2_success_has_no_attributes_of_its_own() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let answer = rig.ask(&alice, Msg::request(CREATE_PERMISSION).peer(PEER));
    assert_eq!((answer.code(), answer.method), (0, CREATE_PERMISSION));
    assert_eq!(answer.attrs.len(), 1, "integrity");
}

/// RFC 8656 sections 9, 10.2 and 11.3: a permission covers an address with all ports.
#[test]
fn s9_a_permission_is_for_an_address_and_every_port() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.permit(&alice, &["192.0.2.50:0"]), 0);
    for port in ["192.0.2.50:7000", "192.0.2.50:1", "192.0.2.50:65535"] {
        assert!(rig.data_from_peer(port, b"x").is_ok());
        assert!(rig.send(&alice, port, b"x").is_ok());
    }
    assert_eq!(rig.data_from_peer(OTHER_PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.send(&alice, OTHER_PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 section 9: a permission lasts exactly 300 seconds, and a refresh restores the full time.
#[test]
fn s9_a_permission_lasts_300_seconds_from_its_last_refresh() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(299);
    assert!(rig.data_from_peer(PEER, b"x").is_ok());
    assert!(rig.send(&alice, PEER, b"x").is_ok(), "which refreshes nothing");
    rig.wait(1);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(200);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(299);
    assert!(rig.data_from_peer(PEER, b"x").is_ok());
    rig.wait(1);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.server.counters().permissions.get(), 0, "and it is gone");
}

/// The same if no timer ran: lifetimes are checked at use.
#[test]
fn s9_an_expired_permission_blocks_even_if_no_timer_ran() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.skip(300);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 section 9: CreatePermission and ChannelBind refresh each other's permission.
#[test]
fn s9_create_permission_and_channel_bind_may_be_mixed() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(200);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    rig.wait(200);
    assert!(rig.data_from_peer(PEER, b"x").is_ok());
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(150);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    assert!(rig.data_from_peer(PEER, b"x").is_ok());
    rig.wait(150);
    assert!(rig.data_from_peer(PEER, b"x").is_err(), "Refresh does not");
}

/// RFC 8656 section 9: a permission applies to one allocation only.
#[test]
fn s9_permissions_belong_to_one_allocation() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let relay = rig.relay(true);
    let bob = rig.alice_at(client(2));
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
    let (&other, _) = rig.sockets.iter().find(|(id, _)| **id != relay).expect("two relays");
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    assert!(rig.at_relay(relay, addr(PEER), b"x").is_ok());
    assert_eq!(rig.at_relay(other, addr(PEER), b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.send(&bob, PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 section 10.2: a request without peers, or with an invalid one, gets 400 and installs nothing.
#[test]
fn s10_2_missing_or_malformed_peers_are_400_and_install_nothing() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[]), 400);
    let mixed = Msg::request(CREATE_PERMISSION).peer(PEER).attr(XOR_PEER_ADDRESS, &[0, 1, 2]);
    assert_eq!(rig.ask(&alice, mixed).code(), 400);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 section 10.2: all peers of a request are installed.
#[test]
fn s10_2_several_peers_are_all_installed() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER, PEER6, PEER]), 0);
    for peer in [PEER, OTHER_PEER, PEER6] {
        assert!(rig.data_from_peer(peer, b"x").is_ok(), "{peer}");
        assert!(rig.send(&alice, peer, b"x").is_ok(), "{peer}");
    }
    assert_eq!(rig.server.counters().permissions.get(), 3);
}

/// RFC 8656 section 10.2: a family without relayed address gets 443, else a denied address 403; the rest of the request has no
/// effect either.
#[test]
fn s10_2_refused_peers_install_nothing_of_the_request() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER6]), 443);
    assert_eq!(rig.permit(&alice, &[PEER, PEER6]), 443);
    assert_eq!(rig.permit(&alice, &[PEER, DENIED]), 403);
    assert_eq!(rig.permit(&alice, &[DENIED, PEER6]), 443);
    assert_eq!(rig.permit(&alice, &[PEER6, DENIED]), 443);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.server.counters().permissions.get(), 0);
    // A refused request does not refresh existing permissions either.
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.wait(200);
    assert_eq!(rig.permit(&alice, &[PEER, DENIED]), 403);
    rig.wait(100);
    assert_eq!(rig.data_from_peer(PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 section 10.2: 508 without room. Existing permissions can always be refreshed, and ports do not count.
#[test]
fn s10_2_capacity_is_508() {
    let mut rig = Rig::with(|settings| settings.limits.permissions_per_allocation = 2);
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER, "192.0.2.52:1"]), 508);
    assert_eq!(rig.server.counters().permissions.get(), 0, "none of them");
    assert_eq!(rig.permit(&alice, &[PEER, "192.0.2.50:1", OTHER_PEER, "192.0.2.51:2"]), 0, "two addresses");
    assert_eq!(rig.permit(&alice, &["192.0.2.52:1"]), 508);
    assert_eq!(rig.bind(&alice, 0x4000, "192.0.2.52:1"), 508);
    assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER]), 0);
    rig.wait(300);
    assert_eq!(rig.permit(&alice, &["192.0.2.52:1"]), 0, "there is room again");
}

/// RFC 8656 section 10.2: a repeated request refreshes.
#[test]
fn s10_2_a_retransmission_refreshes_only() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let request = alice.seal(Msg::request(CREATE_PERMISSION).peer(PEER));
    assert_eq!(rig.bare(&alice.at, &request).bytes, rig.bare(&alice.at, &request).bytes);
    assert_eq!(rig.server.counters().permissions.get(), 1);
}

/// Behind 1:1 NAT a client may permit the relay's machine at its local address, which the operator opened. Neither a reload
/// without changes nor a permission for the announced address ends the call.
#[test]
fn a_reload_keeps_a_peer_at_the_local_address_of_a_nat() {
    let announced = "198.51.100.77";
    let only_local = || vec![format!("{RELAY4}/32").parse().expect("net")];
    for listed in [false, true] {
        let mut rig = Rig::with(|settings| {
            settings.relay_addresses[0].announced = announced.parse().expect("literal");
            settings.peers.own.push(format!("{announced}/32").parse().expect("net"));
            match listed {
                true => settings.hosts[0].peers = Some(only_local()),
                false => settings.peers.allow = only_local(),
            }
        });
        let alice = rig.allocated();
        let relay = rig.relay(true);
        let media = format!("{RELAY4}:16384");
        assert_eq!(rig.permit(&alice, &[&media]), 0);
        assert_eq!(rig.bind(&alice, 0x4000, &format!("{RELAY4}:16385")), 0);
        if !listed {
            let relayed = format!("{announced}:{}", rig.sockets[&relay].port());
            assert_eq!(rig.permit(&alice, &[&relayed]), 0, "its own relayed address");
        }
        for _ in 0..2 {
            assert!(rig.send(&alice, &media, b"x").is_ok(), "listed: {listed}");
            assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
            assert!(rig.at_relay(relay, addr(&media), b"y").is_ok());
            rig.reload(|_| {});
            assert!(rig.reviews.is_empty());
        }
        // Rules that open neither address end it.
        rig.reload(|settings| {
            settings.peers.allow.clear();
            settings.hosts[0].peers = Some(Vec::new());
        });
        assert_eq!(rig.send(&alice, &media, b"x"), Err(DropReason::NoPermission));
    }
}
