//! Users that may only test the relay: each reaches nothing but its own relayed addresses, until its name expires.

use std::net::SocketAddr;

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::DropReason;
use hallpass::turn::settings::{Confined, Host, Rate, Rates, RelayAddress};

use crate::codec::*;
use crate::rig::*;

const SECRET: &str = "test-page-secret";
/// How long the logins are valid, in seconds.
const VALID: u64 = 120;

fn rates(kbit: u32) -> Rates {
    Rates { user: Rate { kbit, packets: 0 }, ..Rates::default() }
}

fn rig() -> Rig {
    Rig::with(|settings| {
        settings.hosts.push(Host {
            id: HostId(5),
            name: "test page".into(),
            secrets: vec![SECRET.to_owned()],
            revoked: Vec::new(),
            peers: None,
            confined: Some(Confined { allocations_per_user: 4, allocations: 7, rates: rates(1000) }),
        });
    })
}

/// A user of the test page with an allocation, and the relayed address.
fn allocated(rig: &mut Rig, port: u16, user: &str) -> (User, SocketAddr) {
    let name = format!("{}:{user}", UNIX + VALID);
    let user = rig.rest(client(port), SECRET, &name);
    let answer = rig.ask(&user, Msg::allocate());
    assert_eq!(answer.code(), 0);
    (user, answer.address(XOR_RELAYED_ADDRESS))
}

/// The relay with this relayed address.
fn at(rig: &Rig, address: SocketAddr) -> hallpass::turn::action::RelayId {
    *rig.sockets.iter().find(|(_, found)| **found == address).expect("a relay").0
}

#[test]
fn a_user_reaches_its_own_relayed_addresses() {
    let mut rig = rig();
    let (one, first) = allocated(&mut rig, 1, "page");
    let (other, second) = allocated(&mut rig, 2, "page");
    assert_eq!(rig.bind(&one, 0x4000, &second.to_string()), 0);
    assert_eq!(rig.permit(&other, &[&first.to_string()]), 0);
    assert_eq!(rig.channel(&one, 0x4000, b"there").expect("relayed").to, second);
    let relay = at(&rig, second);
    assert!(rig.at_relay(relay, first, b"there").is_ok());
    assert_eq!(rig.send(&other, &first.to_string(), b"back").expect("relayed").to, first);
    let relay = at(&rig, first);
    assert!(rig.at_relay(relay, second, b"back").is_ok());
}

#[test]
fn a_user_reaches_nothing_else() {
    let mut rig = rig();
    let (page, own) = allocated(&mut rig, 1, "page");
    // What other users reach, and what nobody does; services of the relay itself.
    let elsewhere = [
        PEER,
        OTHER_PEER,
        "8.8.8.8:53",
        "127.0.0.1:9641",
        "10.0.0.1:80",
        "192.0.2.51:5000",
        "169.254.169.254:80",
    ];
    for peer in elsewhere {
        assert_eq!((rig.permit(&page, &[peer]), rig.bind(&page, 0x4000, peer)), (403, 403), "{peer}");
    }
    assert_eq!(rig.bind(&page, 0x4000, &format!("{RELAY4}:3478")), 403, "a listener");
    assert_eq!(rig.bind(&page, 0x4000, &format!("{RELAY4}:50000")), 403, "no relayed address");
    // Relayed addresses of others: of another page, and of a host's user.
    let (stranger, theirs) = allocated(&mut rig, 2, "another");
    let alice = rig.alice_at(client(3));
    let of_alice = rig.ask(&alice, Msg::allocate()).address(XOR_RELAYED_ADDRESS);
    for peer in [theirs, of_alice] {
        assert_eq!(rig.bind(&page, 0x4000, &peer.to_string()), 403);
        // A permission is for an address, whatever the port: the port is judged for each packet.
        assert_eq!(rig.permit(&page, &[&peer.to_string()]), 0);
        assert_eq!(rig.send(&page, &peer.to_string(), b"x").err(), Some(DropReason::PeerDenied));
        let relay = at(&rig, own);
        assert_eq!(rig.at_relay(relay, peer, b"x").err(), Some(DropReason::PeerDenied));
    }
    // Nor do they reach it: a user of a host may send to any relayed address, but nothing arrives.
    assert_eq!(rig.permit(&alice, &[&own.to_string()]), 0);
    assert_eq!(rig.bind(&stranger, 0x4000, &own.to_string()), 403);
    // A reload changes none of that.
    rig.reload(|settings| settings.peers.allow.push("198.51.100.0/24".parse().expect("literal")));
    assert_eq!(rig.send(&page, &theirs.to_string(), b"x").err(), Some(DropReason::PeerDenied));
    assert_eq!(rig.permit(&page, &[PEER]), 403);
}

/// The port of an allocation that has ended belongs to whoever gets it next.
#[test]
fn an_address_that_ended_is_no_peer_any_more() {
    let mut rig = rig();
    let (one, _) = allocated(&mut rig, 1, "page");
    let (other, second) = allocated(&mut rig, 2, "page");
    assert_eq!(rig.bind(&one, 0x4000, &second.to_string()), 0);
    assert_eq!(rig.refresh(&other, 0).code(), 0);
    assert_eq!(rig.channel(&one, 0x4000, b"x").err(), Some(DropReason::PeerDenied));
    // Another user gets the same port.
    rig.reload(|settings| settings.relay_ports = second.port()..=second.port());
    let (_, again) = allocated(&mut rig, 3, "another");
    assert_eq!(again, second);
    assert_eq!(rig.channel(&one, 0x4000, b"x").err(), Some(DropReason::PeerDenied));
}

#[test]
fn allocations_end_with_the_login() {
    let mut rig = rig();
    let (page, _) = allocated(&mut rig, 1, "page");
    rig.wait(VALID / 2);
    let refreshed = rig.refresh(&page, 3600);
    assert_eq!(refreshed.code(), 0);
    assert_eq!(refreshed.secs(), (VALID / 2) as u32);
    rig.wait(VALID / 2 - 1);
    assert_eq!(rig.held().0, 1);
    rig.wait(1);
    assert_eq!(rig.held(), (0, 0, 0));
    // Nor does the login give a new one.
    let late = rig.rest(client(2), SECRET, &page.name);
    for (user, request) in [(&page, Msg::request(REFRESH)), (&late, Msg::allocate())] {
        let answer = rig.exchange(&user.at, &user.seal(request).bytes());
        assert_eq!(answer.expect("an answer").code(), 401);
    }
}

#[test]
fn users_of_the_page_have_limits_of_their_own() {
    let mut rig = rig();
    for port in 1..=4 {
        allocated(&mut rig, port, "page");
    }
    let name = format!("{}:page", UNIX + VALID);
    let fifth = rig.rest(client(5), SECRET, &name);
    assert_eq!(rig.ask(&fifth, Msg::allocate()).code(), 486);
    for port in 6..=8 {
        allocated(&mut rig, port, "another");
    }
    let third = rig.rest(client(9), SECRET, &format!("{}:third", UNIX + VALID));
    assert_eq!(rig.ask(&third, Msg::allocate()).code(), 508, "all users together");
    let alice = rig.alice_at(client(10));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "others are not affected");
}

#[test]
fn a_page_relays_at_its_own_rate() {
    let mut rig = rig();
    let (one, _) = allocated(&mut rig, 1, "page");
    let (_, second) = allocated(&mut rig, 2, "page");
    assert_eq!(rig.bind(&one, 0x4000, &second.to_string()), 0);
    let alice = rig.alice_at(client(3));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    // 1,000 kbit/s is a tenth of what is sent at once here.
    let mut relayed = [0; 2];
    for _ in 0..1250 {
        relayed[0] += usize::from(rig.channel(&one, 0x4000, &[0; 1000]).is_ok());
        relayed[1] += usize::from(rig.channel(&alice, 0x4000, &[0; 1000]).is_ok());
    }
    assert_eq!(relayed[1], 1250, "the host of others has no limit");
    assert!((50..=400).contains(&relayed[0]), "{relayed:?}");
}

/// Behind 1:1 NAT clients name the announced address.
#[test]
fn a_page_behind_nat_reaches_its_announced_address() {
    let mut rig = rig();
    let announced = "203.0.113.77";
    rig.reload(|settings| {
        settings.relay_addresses = vec![RelayAddress {
            local: RELAY4.parse().expect("literal"),
            announced: announced.parse().expect("literal"),
            only_local: false,
        }];
        settings.peers.own.push(format!("{announced}/32").parse().expect("literal"));
    });
    let (one, _) = allocated(&mut rig, 1, "page");
    let (_, second) = allocated(&mut rig, 2, "page");
    assert_eq!(second.ip().to_string(), announced);
    assert_eq!(rig.bind(&one, 0x4000, &second.to_string()), 0);
    let sent = rig.channel(&one, 0x4000, b"x").expect("relayed");
    assert_eq!((sent.to.ip().to_string(), sent.to.port()), (RELAY4.to_owned(), second.port()));
    let mut tcp = client(4);
    tcp.five_tuple.transport = Transport::Tcp;
    let stranger = rig.rest(tcp, SECRET, &format!("{}:other", UNIX + VALID));
    assert_eq!(rig.ask(&stranger, Msg::allocate()).code(), 0);
    assert_eq!(rig.bind(&stranger, 0x4000, &second.to_string()), 403);
}
