//! Relay addresses that appear and disappear, and which one a client gets (RFC 8656 sections 7.2 and 9).

use std::net::IpAddr;

use hallpass::base::transport::Transport;
use hallpass::turn::action::EndReason;
use hallpass::turn::settings::RelayAddress;

use crate::codec::*;
use crate::rig::*;

const OTHER4: &str = "198.51.100.9";

fn relay(local: &str, announced: &str) -> RelayAddress {
    let ip = |text: &str| -> IpAddr { text.parse().expect("literal") };
    RelayAddress { local: ip(local), announced: ip(announced), only_local: false }
}

fn relayed(rig: &mut Rig, user: &User) -> IpAddr {
    let answer = rig.ask(user, Msg::allocate());
    assert_eq!(answer.code(), 0);
    answer.address(XOR_RELAYED_ADDRESS).ip()
}

/// When an address is removed, its allocations end and those on other addresses go on; a new address is used at once.
#[test]
fn addresses_come_and_go_with_the_settings() {
    let mut rig = Rig::with(|settings| settings.relay_addresses.push(relay(OTHER4, OTHER4)));
    let reached = |port: u16, ip: &str| {
        let mut at = client(port);
        at.five_tuple.server.set_ip(ip.parse().expect("literal"));
        at
    };
    let (here, gone) = (rig.alice_at(reached(1, RELAY4)), rig.alice_at(reached(2, OTHER4)));
    assert_eq!(relayed(&mut rig, &here), RELAY4.parse::<IpAddr>().expect("literal"));
    assert_eq!(relayed(&mut rig, &gone), OTHER4.parse::<IpAddr>().expect("literal"));
    assert_eq!(rig.permit(&here, &[PEER]), 0);

    rig.reload(|settings| {
        settings.relay_addresses.pop();
    });
    assert_eq!(
        rig.sessions.iter().map(|session| session.reason).collect::<Vec<_>>(),
        [EndReason::AddressGone]
    );
    assert_eq!(rig.refresh(&gone, 600).code(), 437, "the client learns that its allocation ended");
    assert!(rig.send(&here, PEER, b"x").is_ok(), "untouched");
    assert_eq!(relayed(&mut rig, &gone), RELAY4.parse::<IpAddr>().expect("literal"), "and gets another one");
    assert_eq!(rig.held().0, 2);

    // The address returns.
    rig.reload(|settings| settings.relay_addresses.push(relay(OTHER4, OTHER4)));
    let back = rig.alice_at(reached(3, OTHER4));
    assert_eq!(relayed(&mut rig, &back), OTHER4.parse::<IpAddr>().expect("literal"));
    for user in [&here, &gone, &back] {
        assert_eq!(rig.refresh(user, 0).code(), 0);
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// When the address of one family is removed, a dual allocation continues with the other family.
#[test]
fn a_dual_allocation_survives_on_the_family_that_stays() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.reload(|settings| settings.relay_addresses.retain(|relay| relay.local.is_ipv4()));
    assert!(rig.send(&alice, PEER, b"x").is_ok());
    assert_eq!((rig.held(), rig.sessions.len()), ((1, 1, 1), 0));
    assert_eq!(rig.permit(&alice, &[PEER6]), 443);
    rig.reload(|settings| settings.relay_addresses.clear());
    assert_eq!((rig.held(), rig.sessions.len()), ((0, 0, 0), 1));
}

/// An Allocate whose address is removed while its socket is being opened.
#[test]
fn a_socket_of_an_address_that_is_gone_is_not_used() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.hold = true;
    let request = alice.seal(Msg::allocate());
    rig.feed(&alice.at, &request.bytes());
    rig.reload(|settings| settings.relay_addresses[0] = relay(OTHER4, OTHER4));
    rig.hold = false;
    assert!(rig.open_pending().is_none(), "no answer is due");
    assert_eq!((rig.held(), rig.sockets.len()), ((0, 0, 0), 0));
    assert_eq!(relayed(&mut rig, &alice), OTHER4.parse::<IpAddr>().expect("literal"));
}

/// A changed port range applies to new allocations; existing ones keep their ports.
#[test]
fn the_range_of_ports_changes_at_reload() {
    let mut rig = Rig::with(|settings| settings.relay_ports = 50_000..=50_000);
    let (alice, bob) = (rig.allocated(), rig.alice_at(client(7)));
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 508);
    rig.reload(|settings| settings.relay_ports = 50_000..=50_001);
    assert_eq!(rig.ask(&bob, Msg::allocate()).address(XOR_RELAYED_ADDRESS).port(), 50_001);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    rig.reload(|settings| settings.relay_ports = 60_000..=60_000);
    for user in [&alice, &bob] {
        assert_eq!(rig.refresh(user, 0).code(), 0);
    }
    assert_eq!(rig.held(), (0, 0, 0), "ports outside of the range are released, too");
}

/// Without any relay address the code is 508, not 440: the family is not the cause.
#[test]
fn without_any_address_it_is_508() {
    let mut rig = Rig::with(|settings| settings.relay_addresses.clear());
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 508);
}

/// Only clients on this machine are relayed from loopback, no matter which server address a proxy on it reports.
#[test]
fn loopback_is_for_local_clients() {
    let mut rig = Rig::with(|settings| {
        settings
            .relay_addresses
            .insert(0, RelayAddress { only_local: true, ..relay("127.0.0.1", "127.0.0.1") });
    });
    let relayed_for = |rig: &mut Rig, client: &str, server: &str| {
        let mut at = client_at(Transport::Tcp, client);
        at.five_tuple.server = addr(server);
        let user = rig.alice_at(at);
        relayed(rig, &user).to_string()
    };
    assert_eq!(relayed_for(&mut rig, "127.0.0.1:1000", "127.0.0.1:3478"), "127.0.0.1");
    assert_eq!(relayed_for(&mut rig, "127.0.0.9:1000", "127.0.0.2:3478"), "127.0.0.1");
    assert_eq!(relayed_for(&mut rig, "203.0.113.5:1000", "127.0.0.1:3478"), RELAY4, "behind a proxy");
    assert_eq!(relayed_for(&mut rig, "127.0.0.1:1000", "203.0.113.9:3478"), RELAY4);
    assert_eq!(relayed_for(&mut rig, "[2001:db8:9::7]:1", "[2001:db8:9::8]:2"), RELAY4);
}
