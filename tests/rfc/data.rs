//! RFC 8656 sections 11 to 15: Send and Data indications, ICMP, DONT-FRAGMENT.

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::DropReason;
use hallpass::turn::counters::{Counter, Request};

use crate::codec::*;
use crate::rig::*;

/// RFC 8656 section 11.2.
#[test]
fn s11_2_send_goes_from_the_relayed_address_to_the_peer_unchanged() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let from = rig.sockets[&rig.relay(true)];
    let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
    for data in [&payload[..], b"", b"x", b"\x00\x01\x00\x00"] {
        let sent = rig.send(&alice, "192.0.2.50:4242", data).expect("relayed");
        assert_eq!(sent, Sent { from, to: addr("192.0.2.50:4242"), data: data.into(), dont_fragment: false });
    }
}

/// Each stage of an allocation is counted once, no matter how often it is passed.
#[test]
fn stages_are_counted_once_for_each_allocation() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    for _ in 0..2 {
        assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER]), 0);
        assert!(rig.send(&alice, PEER, b"there").is_ok());
        assert!(rig.data_from_peer(PEER, b"back").is_ok());
    }
    let counters = rig.server.counters();
    let transport = alice.at.five_tuple.transport;
    let host = counters.host(HostId(0), transport);
    let stages = [counters.authenticated(transport), &host.permitted, &host.sent, &host.received];
    assert_eq!(stages.map(Counter::get), [1; 4]);
    assert_eq!(counters.error(transport, Request::Allocate, 401).get(), 1, "the challenge");
    assert_eq!(counters.errors(401), 1);
}

/// RFC 8656 section 11.2: a Send with a missing or malformed attribute is discarded and never answered.
#[test]
fn s11_2_incomplete_sends_are_discarded() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    for send in [
        Msg::send(),
        Msg::send().peer(PEER),
        Msg::send().attr(DATA, b"x"),
        Msg::send().attr(XOR_PEER_ADDRESS, &[0, 1, 2]).attr(DATA, b"x"),
        Msg::send().peer(PEER).attr(DATA, b"x").attr(DONT_FRAGMENT, b"oops"),
    ] {
        assert_eq!(rig.silent(&alice.at, &send.bytes()), DropReason::MalformedIndication);
    }
}

/// RFC 8656 sections 5 and 11.2: a Send without allocation, permission or relayed address of the family is discarded.
#[test]
fn s11_2_sends_that_are_not_permitted_are_discarded() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoAllocation));
    let alice = rig.allocated();
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(rig.send(&alice, PEER6, b"x"), Err(DropReason::NoFamily));
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    assert_eq!(rig.send(&alice, OTHER_PEER, b"x"), Err(DropReason::NoPermission));
    // Section 5: indications have no credentials; wrong ones are ignored.
    let mut user = alice.clone();
    user.password = "wrong".into();
    let send = user.seal(Msg::send().peer(PEER).attr(DATA, b"x")).bytes();
    assert!(rig.data(&alice.at, &send).is_ok());
}

/// RFC 8656 section 11.2: Send does not refresh the permission.
#[test]
fn s11_2_send_does_not_refresh_the_permission() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    for _ in 0..3 {
        assert!(rig.send(&alice, PEER, b"x").is_ok());
        rig.wait(100);
    }
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8656 sections 13 to 15: DONT-FRAGMENT sets DF from an IPv4 client over UDP to an IPv4 peer, and from every client on
/// a stream. Over UDP it is ignored between the families and between IPv6 and IPv6.
#[test]
fn s13_dont_fragment_counts_for_ipv4_and_streams_only() {
    for (transport, at, peer, expected) in [
        (Transport::Udp, "203.0.113.5:40000", PEER, true),
        (Transport::Udp, "203.0.113.5:40000", PEER6, false),
        (Transport::Udp, "[2001:db8:9::7]:40000", PEER, false),
        (Transport::Udp, "[2001:db8:9::7]:40000", PEER6, false),
        (Transport::Tcp, "203.0.113.5:40000", PEER, true),
        (Transport::Tls, "[2001:db8:9::7]:40000", PEER6, true),
    ] {
        let mut rig = Rig::new();
        let alice = rig.alice_at(client_at(transport, at));
        assert_eq!(rig.ask(&alice, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6)).code(), 0);
        assert_eq!(rig.permit(&alice, &[peer]), 0);
        let send = Msg::send().peer(peer).attr(DATA, b"x");
        let plain = rig.data(&alice.at, &send.clone().bytes()).expect("relayed");
        let marked = rig.data(&alice.at, &send.attr(DONT_FRAGMENT, b"").bytes()).expect("not discarded");
        assert_eq!((plain.dont_fragment, marked.dont_fragment), (false, expected), "{transport} {at} {peer}");
    }
}

/// RFC 8656 section 11.3; RFC 8489 sections 5 and 6.1: a Data indication, byte by byte.
#[test]
fn s11_3_peer_data_without_channel_is_a_data_indication() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.permit(&alice, &[PEER, PEER6]), 0);
    for peer in [PEER, PEER6, "192.0.2.50:9"] {
        for payload in [&b"hello"[..], b"", &[7; 1400]] {
            let (client, bytes) = rig.data_from_peer(peer, payload).expect("relayed");
            assert_eq!(client, alice.at, "on the allocation's five-tuple");
            assert_eq!(bytes[..2], [0x00, 0x17], "indication, Data");
            let data = Answer::decode(&bytes);
            assert_eq!((data.class, data.method, data.attrs.len()), (INDICATION, DATA_METHOD, 2));
            assert_eq!(data.address(XOR_PEER_ADDRESS), addr(peer));
            assert_eq!(data.get(DATA), Some(payload));
        }
    }
}

/// RFC 8489 section 5: the server's own transaction ids are random.
#[test]
fn s5_data_indications_have_fresh_transaction_ids() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let ids: Vec<[u8; 12]> =
        (0..64).map(|_| Answer::decode(&rig.data_from_peer(PEER, b"x").expect("relayed").1).tid).collect();
    let ones: u32 = ids.iter().flatten().map(|byte| byte.count_ones()).sum();
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 64);
    assert!((2700..3450).contains(&ones), "{ones} of 6144 bits");
}

/// The operator chooses whether ICMP errors are forwarded (RFC 8656 section 11.5), because some clients fail on a Data
/// indication without DATA.
#[test]
fn s11_5_icmp_is_forwarded_only_if_enabled() {
    let mut rig = Rig::with(|settings| settings.icmp_to_clients = false);
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    assert!(rig.icmp(PEER, 3, 3, 0).is_none());
    rig.reload(|settings| settings.icmp_to_clients = true);
    assert!(rig.icmp(PEER, 3, 3, 0).is_some());
}

/// RFC 8656 section 11.5: ICMP destination unreachable and time exceeded, and three types of ICMPv6; no others.
#[test]
fn s11_5_only_the_listed_icmp_types_are_forwarded() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.permit(&alice, &[PEER, PEER6]), 0);
    for kind in 0..=255 {
        assert_eq!(rig.icmp(PEER, kind, 1, 0).is_some(), matches!(kind, 3 | 11), "ICMP {kind}");
        assert_eq!(rig.icmp(PEER6, kind, 1, 0).is_some(), matches!(kind, 1..=3), "ICMPv6 {kind}");
    }
}

/// RFC 8656 sections 11.5 and 18.13: a Data indication with XOR-PEER-ADDRESS and ICMP. ICMP has one byte each for type and
/// code, then the MTU if there is one, else zero.
#[test]
fn s11_5_icmp_is_forwarded_with_type_code_and_mtu() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.permit(&alice, &[PEER, PEER6]), 0);
    for (peer, kind, code, data, value) in [
        (PEER, 3, 4, 1400, [0, 0, 3, 4, 0, 0, 0x05, 0x78]),
        (PEER, 3, 3, 0, [0, 0, 3, 3, 0, 0, 0, 0]),
        (PEER, 3, 1, 77, [0, 0, 3, 1, 0, 0, 0, 0]),
        (PEER, 11, 0, 77, [0, 0, 11, 0, 0, 0, 0, 0]),
        (PEER6, 2, 0, 1280, [0, 0, 2, 0, 0, 0, 0x05, 0]),
        (PEER6, 1, 4, 77, [0, 0, 1, 4, 0, 0, 0, 0]),
        (PEER6, 3, 1, 77, [0, 0, 3, 1, 0, 0, 0, 0]),
    ] {
        let (client, answer) = rig.icmp(peer, kind, code, data).expect("forwarded");
        assert_eq!((client, answer.class, answer.method), (alice.at, INDICATION, DATA_METHOD));
        assert_eq!(answer.address(XOR_PEER_ADDRESS), addr(peer));
        assert_eq!(answer.get(ICMP), Some(&value[..]), "{peer} {kind}/{code}");
        assert!(!answer.has(DATA));
    }
}

/// RFC 8656 section 11.5: the datagram's destination address needs a permission; port and channels do not matter.
#[test]
fn s11_5_icmp_needs_a_permission_for_the_destination() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert!(rig.icmp(PEER, 3, 3, 0).is_none());
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert!(rig.icmp(OTHER_PEER, 3, 3, 0).is_none());
    let (_, answer) = rig.icmp(PEER, 3, 3, 0).expect("forwarded");
    assert_eq!(answer.method, DATA_METHOD, "section 12.5: Data even if a channel is bound");
    // Section 11.5: 0 when the port is not known.
    let (_, answer) = rig.icmp("192.0.2.50:0", 3, 3, 0).expect("forwarded");
    assert_eq!(answer.address(XOR_PEER_ADDRESS), addr("192.0.2.50:0"));
    rig.wait(300);
    assert!(rig.icmp(PEER, 3, 3, 0).is_none());
}

/// Only relayed payload is counted.
#[test]
fn s11_payload_is_counted_in_the_session() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert!(rig.channel(&alice, 0x4000, b"12345").is_ok() && rig.send(&alice, PEER, b"123").is_ok());
    assert!(rig.data_from_peer(PEER, b"12").is_ok());
    assert!(rig.data_from_peer(OTHER_PEER, b"no").is_err());
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    let (beginning, session) = (rig.beginnings.pop().expect("began"), rig.sessions.pop().expect("ended"));
    assert!(rig.beginnings.is_empty() && beginning.five_tuple == session.five_tuple);
    assert_eq!((&*beginning.user, &beginning.relayed), ("alice", &session.relayed));
    assert_eq!((session.from_client.packets, session.from_client.bytes), (2, 8));
    assert_eq!((session.from_peer.packets, session.from_peer.bytes), (1, 2));
}
