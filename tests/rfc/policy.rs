//! RFC 8656 sections 10.2, 12.2 and 21: which peers a client can reach.

use std::net::SocketAddr;

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::{DropReason, EndReason, FromClient, Review};
use hallpass::turn::address::OnWire;
use hallpass::turn::five_tuple::{Client, FiveTuple, Link};
use hallpass::turn::settings::{Host, RelayAddress, Settings};

use crate::codec::*;
use crate::rig::*;

/// Addresses in special ranges, also embedded in others: both requests get 403, and data is dropped.
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
        "[64:ff9b:1:abcd:a:0:100:0]:80",
        "[::ffff:0:10.0.0.1]:80",
    ] {
        assert_eq!(rig.permit(&alice, &[peer]), 403, "{peer}");
        assert_eq!(rig.bind(&alice, 0x4000, peer), 403, "{peer}");
        assert!(rig.send(&alice, peer, b"x").is_err(), "{peer}");
        assert!(rig.data_from_peer(peer, b"x").is_err(), "{peer}");
    }
    assert_eq!(rig.dropped(DropReason::NoPermission), 2 * 21, "each is counted");
    assert_eq!(rig.server.counters().permissions.get(), 0);
}

/// RFC 8656 section 21.4: Teredo and 6to4 peers get 403, no matter which address is inside.
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

/// At the server's own addresses only relayed ports in use are reached, in both directions.
#[test]
fn own_addresses_are_reached_at_live_relayed_ports_only() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let relay_a = rig.relay(true);
    let bob = rig.alice_at(client(2));
    let b = rig.ask(&bob, Msg::allocate()).address(XOR_RELAYED_ADDRESS);
    for dead in ["198.51.100.1:22", "198.51.100.1:3478", "198.51.100.1:0"] {
        assert_eq!(rig.bind(&alice, 0x4000, dead), 403, "{dead}");
    }
    // A permission is for the address (RFC 8656 section 9), so a client may write port 0.
    assert_eq!(rig.permit(&alice, &["198.51.100.1:0"]), 0);
    assert_eq!(rig.send(&alice, &b.to_string(), b"x").expect("relayed").to, b);
    assert_eq!(rig.permit(&bob, &["198.51.100.1:0"]), 0);
    assert!(rig.at_relay(relay_a, b, b"y").is_ok(), "and back");
    // The permission is for the address; still no other port of it is reached.
    assert_eq!(rig.send(&alice, "198.51.100.1:22", b"x"), Err(DropReason::PeerDenied));
    assert_eq!(rig.send(&alice, "198.51.100.1:3478", b"x"), Err(DropReason::PeerDenied));
    assert_eq!(rig.at_relay(relay_a, addr("198.51.100.1:22"), b"x"), Err(DropReason::PeerDenied));
    assert_eq!(rig.dropped(DropReason::PeerDenied), 3);
    assert_eq!(rig.refresh(&bob, 0).code(), 0);
    assert_eq!(rig.send(&alice, &b.to_string(), b"x"), Err(DropReason::PeerDenied), "bob is gone");
}

/// The server's own services are never reached, no matter what the operator allows or how the address is written.
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
        // The address may be allowed, but not this port.
        rig.permit(&alice, &[service]);
        assert!(rig.send(&alice, service, b"x").is_err(), "{service}");
    }
    assert_eq!(rig.permit(&alice, &["127.0.0.1:5000"]), 0);
    assert!(rig.send(&alice, "127.0.0.1:5000", b"x").is_ok(), "another port is open");
    assert_eq!(rig.send(&alice, "127.0.0.1:9641", b"x"), Err(DropReason::PeerDenied));
}

/// The longest prefix decides, as clients see it.
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

/// Behind 1:1 NAT clients use the announced address and packets carry the local one. Two relayed addresses of the server
/// can reach each other.
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

/// A host removed by a reload permits nothing new.
#[test]
fn s10_2_a_host_that_is_gone_permits_nothing_new() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.reload(|settings| settings.hosts.clear());
    assert_eq!(rig.permit(&alice, &[OTHER_PEER]), 403);
    assert!(rig.send(&alice, PEER, b"x").is_ok(), "a running call goes on");
}

/// Traffic with a peer that a reload denies stops in both directions and on channels; other traffic continues.
#[test]
fn traffic_that_a_reload_denies_stops() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let relay = rig.relay(true);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.permit(&alice, &[OTHER_PEER]), 0);
    let channel = [0x40, 0, 0, 1, b'x', 0, 0, 0];
    assert!(matches!(rig.feed(&alice.at, &channel), FromClient::Relay { .. }));
    rig.reload(|settings| {
        settings.peers.deny = vec![format!("{}/32", addr(PEER).ip()).parse().expect("net")]
    });
    assert_eq!(rig.silent(&alice.at, &channel), DropReason::NoPermission);
    assert_eq!(rig.send(&alice, PEER, b"x").err(), Some(DropReason::NoPermission));
    assert!(rig.at_relay(relay, addr(PEER), b"y").is_err());
    assert!(rig.send(&alice, OTHER_PEER, b"x").is_ok());
    assert_eq!(rig.reviews, [Review { permissions: 1, allocations: 0 }]);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 403);
    // Opened again, it needs a new permission.
    rig.reload(|settings| settings.peers.deny.clear());
    assert_eq!(rig.silent(&alice.at, &channel), DropReason::NoPermission);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert!(matches!(rig.feed(&alice.at, &channel), FromClient::Relay { .. }));
}

/// An address that becomes this machine's own is blocked for existing permissions, too.
#[test]
fn an_address_that_becomes_our_own_stops() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &["8.8.8.8:3478"]), 0);
    assert!(rig.send(&alice, "8.8.8.8:3478", b"x").is_ok());
    rig.reload(|settings| settings.peers.own.push(addr("8.8.8.8:1").ip().into()));
    assert_eq!(rig.send(&alice, "8.8.8.8:3478", b"x").err(), Some(DropReason::PeerDenied));
    assert_eq!(rig.permit(&alice, &["8.8.8.8:3478"]), 403);
}

/// A request from one of the server's own relayed addresses is ignored.
#[test]
fn relayed_addresses_of_the_server_are_not_clients() {
    let mut rig = Rig::new();
    rig.allocated();
    let relayed = rig.asked[0];
    let mut inside = client(1);
    inside.five_tuple.client = relayed;
    for request in [Msg::request(BINDING), Msg::allocate()] {
        assert_eq!(rig.silent(&inside, &request.bytes()), DropReason::PeerDenied);
    }
}

/// A reserved port has no socket, so it cannot be reached as a relayed address.
#[test]
fn a_reserved_port_is_not_a_peer() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, &[0x80]));
    let even = answer.address(XOR_RELAYED_ADDRESS);
    let odd = SocketAddr::new(even.ip(), even.port() + 1);
    assert!(rig.shared.ports.is_taken(OnWire(odd)));
    assert_eq!(rig.permit(&alice, &[&odd.to_string()]), 0, "the address carries relayed addresses");
    assert_eq!(rig.bind(&alice, 0x4000, &odd.to_string()), 403);
    assert!(rig.send(&alice, &even.to_string(), b"x").is_ok(), "the allocated port is open");
    assert_eq!(rig.send(&alice, &odd.to_string(), b"x").err(), Some(DropReason::PeerDenied));
}

/// Users of a removed secret or an expired name keep their allocations and get nothing new; revoking a secret ends
/// them.
#[test]
fn a_withdrawn_credential_gets_nothing_new_and_a_revoked_one_ends() {
    let mut rig = Rig::new();
    let removed = rig.rest(client(1), "north-secret", &format!("{}:w_a", UNIX + 1000));
    let expired = rig.rest(client(2), "south-old", &format!("{}:w_b", UNIX + 10));
    for (user, peer) in [(&removed, PEER), (&expired, OTHER_PEER)] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
        assert_eq!(rig.permit(user, &[peer]), 0);
    }
    rig.reload(|settings| {
        settings.hosts[0].secrets = vec!["fresh".into()];
        settings.hosts[1].peers = None;
    });
    rig.wait(20);
    for (user, has, new) in [(&removed, PEER, OTHER_PEER), (&expired, OTHER_PEER, PEER)] {
        assert_eq!(rig.permit(user, &[has]), 0, "refreshed");
        assert_eq!(rig.bind(user, 0x4000, has), 0, "a channel to an address it has");
        assert_eq!(rig.permit(user, &[new]), 403);
        assert_eq!(rig.bind(user, 0x4001, new), 403);
        assert_eq!(rig.permit(user, &[has, new]), 403, "all or nothing");
        assert_eq!(rig.refresh(user, 600).code(), 0);
    }
    assert!(rig.sessions.is_empty());
    rig.reload(|settings| settings.hosts[0].revoked = vec!["north-secret".into()]);
    assert_eq!(rig.sessions.iter().map(|s| s.reason).collect::<Vec<_>>(), [EndReason::Revoked]);
    assert_eq!(rig.reviews.last(), Some(&Review { permissions: 0, allocations: 1 }));
    assert_eq!(rig.held().0, 1, "the other host's user stays");
    // Even if it is also listed as valid.
    rig.reload(|settings| settings.hosts[0].secrets.push("north-secret".into()));
    let again = rig.rest(client(3), "north-secret", &format!("{}:w_c", UNIX + 1000));
    assert_eq!(rig.exchange(&again.at, &again.seal(Msg::allocate()).bytes()).expect("an answer").code(), 401);
}

/// A secret is revoked for all hosts, even if its own host was renamed or removed.
#[test]
fn a_revoked_secret_is_revoked_for_every_host() {
    type Change = fn(&mut Settings);
    let changes: [(Change, &str); 3] = [
        (
            |settings| {
                settings.hosts[0] = Host {
                    id: HostId(2),
                    name: "renamed".into(),
                    secrets: vec!["fresh".into()],
                    revoked: vec!["north-secret".into()],
                    peers: None,
                    confined: None,
                }
            },
            "under a new name",
        ),
        (|settings| settings.hosts[1].revoked.push("north-secret".into()), "by another host"),
        (
            |settings| {
                settings.hosts.remove(0);
                settings.hosts[0].revoked.push("north-secret".into());
            },
            "after its host is gone",
        ),
    ];
    for (change, what) in changes {
        let mut rig = Rig::new();
        let revoked = rig.rest(client(1), "north-secret", &format!("{}:w_a", UNIX + 1000));
        let other = rig.rest(client(2), "south-old", &format!("{}:w_a", UNIX + 1000));
        for user in [&revoked, &other] {
            assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
        }
        rig.reload(change);
        assert_eq!(rig.sessions.iter().map(|s| s.reason).collect::<Vec<_>>(), [EndReason::Revoked], "{what}");
        assert_eq!(rig.refresh(&other, 600).code(), 0);
        let again = rig.rest(client(3), "north-secret", &format!("{}:w_b", UNIX + 1000));
        let answer = rig.exchange(&again.at, &again.seal(Msg::allocate()).bytes());
        assert_eq!(answer.expect("an answer").code(), 401, "{what}");
    }
}

/// A renamed host keeps its id: its calls go on, count in its quotas, and end when their secret is revoked.
#[test]
fn a_host_with_a_new_name_is_the_same_host() {
    let mut rig = Rig::with(|settings| settings.limits.allocations_per_user = 1);
    let name = format!("{}:w_a", UNIX + 1000);
    let user = rig.rest(client(1), "north-secret", &name);
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    assert_eq!(rig.permit(&user, &[PEER]), 0);
    rig.reload(|settings| settings.hosts[0].name = "renamed".into());
    assert_eq!(rig.refresh(&user, 600).code(), 0);
    assert_eq!(
        (rig.permit(&user, &[OTHER_PEER]), rig.bind(&user, 0x4000, PEER)),
        (0, 0),
        "nothing is withdrawn"
    );
    let again = rig.rest(client(2), "north-secret", &name);
    assert_eq!(rig.ask(&again, Msg::allocate()).code(), 486, "the place of the running call counts");
    rig.reload(|settings| {
        settings.hosts[0].revoked = std::mem::replace(&mut settings.hosts[0].secrets, vec!["fresh".into()]);
    });
    let ended: Vec<_> = rig.sessions.iter().map(|s| (&*s.host, s.reason)).collect();
    assert_eq!(ended, [("north", EndReason::Revoked)], "under the name at its start");
    assert_eq!(rig.held(), (0, 0, 0));
}

/// A host with a new name and new secrets is another host: the calls of the old one go on and get nothing new.
#[test]
fn a_host_with_a_new_name_and_secret_is_another_host() {
    let mut rig = Rig::new();
    let user = rig.rest(client(1), "north-secret", &format!("{}:w_a", UNIX + 1000));
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    assert_eq!(rig.permit(&user, &[PEER]), 0);
    rig.reload(|settings| {
        settings.hosts[0] = Host {
            id: HostId(2),
            name: "west".into(),
            secrets: vec!["fresh".into()],
            ..settings.hosts[0].clone()
        };
    });
    assert_eq!((rig.refresh(&user, 600).code(), rig.permit(&user, &[PEER])), (0, 0));
    assert_eq!((rig.permit(&user, &[OTHER_PEER]), rig.bind(&user, 0x4000, OTHER_PEER)), (403, 403));
    assert!(rig.sessions.is_empty());
}

/// A static user that is removed loses its calls; one with a new password keeps them and gets nothing new.
#[test]
fn a_static_user_that_is_removed_loses_its_calls() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let bob = rig.login(client(2), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.reload(|settings| settings.users[0].password = "fresh".into());
    assert_eq!((rig.permit(&alice, &[PEER]), rig.permit(&alice, &[OTHER_PEER])), (0, 403));
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    assert!(rig.sessions.is_empty());
    rig.reload(|settings| drop(settings.users.remove(0)));
    let ended: Vec<_> = rig.sessions.iter().map(|s| (&*s.user, s.reason)).collect();
    assert_eq!(ended, [("alice", EndReason::Revoked)]);
    assert_eq!(rig.reviews, [Review { permissions: 0, allocations: 1 }]);
    assert_eq!(rig.refresh(&bob, 600).code(), 0);
}

/// On a wildcard listener, clients on this machine are relayed from loopback. Only such clients can reach these relayed
/// addresses.
#[test]
fn relayed_addresses_of_local_clients_are_reached_by_local_clients_only() {
    let loopback = ["127.0.0.1", "::1"];
    let mut rig = Rig::with(|settings| {
        for ip in loopback.map(|ip| ip.parse().expect("literal")) {
            settings.relay_addresses.push(RelayAddress { local: ip, announced: ip, only_local: true });
            settings.peers.own.push(ip.into());
        }
    });
    let local = |transport, client: &str, server: &str| {
        let five_tuple = FiveTuple { transport, client: addr(client), server: addr(server) };
        Client { five_tuple, link: Link(7) }
    };
    let remote = rig.allocated_dual();
    for [client, server] in [["127.0.0.1:5000", "127.0.0.1:3478"], ["[::1]:5000", "[::1]:3478"]] {
        let inside = rig.alice_at(local(Transport::Udp, client, server));
        let family = if addr(client).is_ipv4() { V4 } else { V6 };
        let answer = rig.ask(&inside, Msg::allocate().attr(REQUESTED_FAMILY, &family));
        let relayed = answer.address(XOR_RELAYED_ADDRESS).to_string();
        assert!(relayed.starts_with(addr(client).ip().to_string().as_str()) || relayed.starts_with("[::1]"));
        assert_eq!(rig.permit(&remote, &[&relayed]), 403, "{relayed}");
        assert_eq!(rig.bind(&remote, 0x4000, &relayed), 403, "{relayed}");
        assert_eq!(rig.permit(&inside, &[&relayed]), 0, "{relayed}");
        assert!(rig.send(&inside, &relayed, b"x").is_ok());
    }
}
