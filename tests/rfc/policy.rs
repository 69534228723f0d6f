//! RFC 8656 sections 10.2, 12.2 and 21: whom the relay reaches, as a client sees it on the wire.

use hallpass::turn::action::Drop;

use crate::codec::*;
use crate::rig::*;

/// Every special range, in every disguise: 403 to both requests, silence to data.
#[test]
fn s21_special_addresses_are_403_in_every_disguise() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    for peer in [
        "0.0.0.0:80",
        "10.0.0.1:80",
        "100.64.0.1:80",
        "127.0.0.1:80",
        "169.254.169.254:80",
        "172.16.0.1:80",
        "192.168.0.1:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[::]:80",
        "[::1]:80",
        "[fc00::1]:80",
        "[fe80::1]:80",
        "[ff02::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:10.0.0.1]:80",
        "[::127.0.0.1]:80",
        "[64:ff9b::a00:1]:80",
        "[64:ff9b:1::7f00:1]:80",
    ] {
        assert_eq!(rig.permit(&alice, &[peer]), 403, "{peer}");
        assert_eq!(rig.bind(&alice, 0x4000, peer), 403, "{peer}");
        assert!(rig.send(&alice, peer, b"x").is_err(), "{peer}");
        assert!(rig.data_from_peer(peer, b"x").is_err(), "{peer}");
    }
    assert_eq!(rig.dropped(Drop::NoPermission), 2 * 19, "each is counted");
    assert_eq!(rig.server.counters().permissions.get(), 0);
}

/// RFC 8656 section 21.4: Teredo and 6to4 peers, whatever address is inside.
#[test]
fn s21_4_tunnelled_peers_are_403() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    for peer in ["[2002:808:808::1]:80", "[2001:0:808:808::f7f7:f7f7]:80"] {
        assert_eq!(rig.bind(&alice, 0x4000, peer), 403, "{peer}");
        assert_eq!(rig.permit(&alice, &[peer]), 403, "{peer}");
        assert!(rig.send(&alice, peer, b"x").is_err());
    }
}

/// Our own addresses: only live relayed ports, both ways, and only while they live.
#[test]
fn own_addresses_are_reached_at_live_relayed_ports_only() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let a = rig.sockets[&rig.relay(true)];
    let relay_a = rig.relay(true);
    let bob = rig.alice_at(client(2));
    let b = rig.ask(&bob, Msg::allocate()).address(XOR_RELAYED_ADDRESS);
    for dead in ["198.51.100.1:22", "198.51.100.1:3478", "198.51.100.1:0"] {
        assert_eq!(rig.permit(&alice, &[dead]), 403, "{dead}");
        assert_eq!(rig.bind(&alice, 0x4000, dead), 403, "{dead}");
    }
    assert_eq!(rig.permit(&alice, &[&b.to_string()]), 0);
    assert_eq!(rig.send(&alice, &b.to_string(), b"x").expect("relayed").to, b);
    assert_eq!(rig.permit(&bob, &[&a.to_string()]), 0);
    assert!(rig.at_relay(relay_a, b, b"y").is_ok(), "and back");
    // The permission is for the address; still no other port of it is reached.
    assert_eq!(rig.send(&alice, "198.51.100.1:22", b"x"), Err(Drop::PeerDenied));
    assert_eq!(rig.send(&alice, "198.51.100.1:3478", b"x"), Err(Drop::PeerDenied));
    assert_eq!(rig.at_relay(relay_a, addr("198.51.100.1:22"), b"x"), Err(Drop::PeerDenied));
    assert_eq!(rig.dropped(Drop::PeerDenied), 3);
    assert_eq!(rig.refresh(&bob, 0).code(), 0);
    assert_eq!(rig.send(&alice, &b.to_string(), b"x"), Err(Drop::PeerDenied), "bob is gone");
}

/// Our own services: never, whatever the operator opened, and in no disguise.
#[test]
fn own_services_are_never_reached() {
    let nets = |texts: &[&str]| texts.iter().map(|net| net.parse().expect("literal")).collect::<Vec<_>>();
    let mut rig = Rig::with(|settings| {
        settings.peers.allow =
            nets(&["127.0.0.0/8", "198.51.100.1/32", "2001:db8:1::1/128", "::ffff:0:0/96"]);
    });
    let alice = rig.allocated_dual();
    for service in [
        "127.0.0.1:9641",
        "127.0.0.1:3478",
        "127.7.7.7:3478",
        "198.51.100.1:3478",
        "[2001:db8:1::1]:3478",
        "[::ffff:127.0.0.1]:9641",
        "[::ffff:127.0.0.1]:3478",
        "[::ffff:198.51.100.1]:3478",
        "[::127.0.0.1]:9641",
    ] {
        assert_eq!(rig.bind(&alice, 0x4000, service), 403, "{service}");
        // The address itself may be open, the port is not.
        rig.permit(&alice, &[service]);
        assert!(rig.send(&alice, service, b"x").is_err(), "{service}");
    }
    assert_eq!(rig.permit(&alice, &["127.0.0.1:5000"]), 0);
    assert!(rig.send(&alice, "127.0.0.1:5000", b"x").is_ok(), "another port is open");
    assert_eq!(rig.send(&alice, "127.0.0.1:9641", b"x"), Err(Drop::PeerDenied));
}

/// The longest prefix decides, on the wire.
#[test]
fn s10_2_the_operators_rules_are_403_or_success() {
    let nets = |texts: &[&str]| texts.iter().map(|net| net.parse().expect("literal")).collect::<Vec<_>>();
    let mut rig = Rig::with(|settings| {
        settings.peers.allow = nets(&["10.20.0.0/16", "0.0.0.0/0"]);
        settings.peers.deny = nets(&["10.20.30.0/24", "8.8.8.0/24"]);
    });
    let alice = rig.allocated();
    for (peer, code) in [
        ("10.20.1.1:1", 0),
        ("10.20.30.1:1", 403),
        ("10.21.0.1:1", 403),
        ("8.8.8.8:1", 403),
        ("8.8.4.4:1", 0),
        ("192.168.1.1:1", 403),
    ] {
        assert_eq!(rig.permit(&alice, &[peer]), code, "{peer}");
    }
}

/// Behind 1:1 NAT clients know the announced address, packets the local one; two of our relays find each other.
#[test]
fn announced_addresses_are_what_clients_see() {
    let mut rig = Rig::with(|settings| {
        settings.relay_addresses[0].announced = "198.51.100.77".parse().expect("literal");
        settings.peers.own.push("198.51.100.77/32".parse().expect("literal"));
    });
    let alice = rig.alice();
    let a = rig.ask(&alice, Msg::allocate()).address(XOR_RELAYED_ADDRESS);
    assert_eq!((a.ip().to_string(), rig.asked[0].ip().to_string()), ("198.51.100.77".into(), RELAY4.into()));
    let relay_a = rig.relay(true);
    let bob = rig.alice_at(client(2));
    let b = rig.ask(&bob, Msg::allocate()).address(XOR_RELAYED_ADDRESS);
    let local_b = rig.asked[1];
    assert_eq!(rig.permit(&alice, &[&b.to_string()]), 0);
    assert_eq!(rig.send(&alice, &b.to_string(), b"x").expect("relayed").to, local_b);
    let (_, bytes) = rig.at_relay(relay_a, local_b, b"y").expect("relayed");
    assert_eq!(Answer::decode(&bytes).address(XOR_PEER_ADDRESS), b, "as the client knows it");
}

/// A host that a reload took away permits nothing new.
#[test]
fn s10_2_a_host_that_is_gone_permits_nothing_new() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.reload(|settings| settings.hosts.clear());
    assert_eq!(rig.permit(&alice, &[OTHER_PEER]), 403);
    assert!(rig.send(&alice, PEER, b"x").is_ok(), "a running call goes on");
}
