//! coturn's TURN client over every transport, family and data path.

use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, LOCAL_V6, Plan, Transport};
use crate::support::server::Server;
use crate::support::uclient::Uclient;
use crate::support::{alone, beside_others};
use std::time::Duration;

/// Four sessions of 100 messages through channels, or by Send indications if requested.
fn relays(transport: Transport, options: &[&str]) {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let client = Uclient::new(server.v4(transport), transport, 4, 100);
    client.peer(peer.address()).options(options).must_lose_nothing(&server);
}

#[test]
fn channels_over_udp() {
    relays(Transport::Udp, &[]);
}

#[test]
fn channels_over_tcp() {
    relays(Transport::Tcp, &[]);
}

#[test]
fn channels_over_tls() {
    relays(Transport::Tls, &[]);
}

#[test]
fn send_indications_over_udp() {
    relays(Transport::Udp, &["-s"]);
}

#[test]
fn send_indications_over_tcp() {
    relays(Transport::Tcp, &["-s"]);
}

#[test]
fn send_indications_over_tls() {
    relays(Transport::Tls, &["-s"]);
}

#[test]
fn large_messages_over_every_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        relays(transport, &["-l", "1400"]);
    }
}

#[test]
fn messages_of_odd_length_over_every_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        relays(transport, &["-l", "173"]);
    }
}

#[test]
fn extra_requests_disturb_nothing() {
    relays(Transport::Udp, &["-G"]);
}

#[test]
fn one_allocation_without_rtcp() {
    relays(Transport::Udp, &["-c"]);
}

/// Both ends are relayed: the peer is a live relayed address of the same server.
fn relays_to_itself(transport: Transport, options: &[&str]) {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let client = Uclient::new(server.v4(transport), transport, 4, 100);
    client.options(&["-y", "-c"]).options(options).must_lose_nothing(&server);
}

#[test]
fn two_relayed_clients_over_udp() {
    relays_to_itself(Transport::Udp, &[]);
}

#[test]
fn two_relayed_clients_over_tcp() {
    relays_to_itself(Transport::Tcp, &["-s"]);
}

fn relays_ipv6(transport: Transport, options: &[&str]) {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V6);
    let client = Uclient::new(server.v6(transport), transport, 4, 100);
    // uclient's RTCP pair requests EVEN-PORT together with a family, so it is disabled.
    client.peer(peer.address()).options(&["-x", "-c"]).options(options).must_lose_nothing(&server);
}

#[test]
fn ipv6_over_udp() {
    relays_ipv6(Transport::Udp, &[]);
}

#[test]
fn ipv6_over_tcp() {
    relays_ipv6(Transport::Tcp, &["-s"]);
}

#[test]
fn ipv6_over_tls() {
    relays_ipv6(Transport::Tls, &[]);
}

#[test]
fn ipv6_relay_for_an_ipv4_client() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V6);
    let client = Uclient::new(server.v4(Transport::Udp), Transport::Udp, 2, 25);
    client.peer(peer.address()).options(&["-x", "-c"]).must_lose_nothing(&server);
}

#[test]
fn a_wrong_password_relays_nothing() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let client = Uclient::new(server.v4(Transport::Udp), Transport::Udp, 1, 5);
    // The later option overrides the right password.
    let (totals, output) = client.peer(peer.address()).options(&["-w", "wrong"]).run(&server);
    assert_eq!(totals, None, "a wrong password was accepted:\n{output}");
    assert!(output.contains("Cannot complete Allocation"), "it failed for another reason:\n{output}");
}

#[test]
fn two_hundred_sessions_over_udp() {
    many_sessions(Transport::Udp);
}

#[test]
fn two_hundred_sessions_over_tls() {
    many_sessions(Transport::Tls);
}

fn many_sessions(transport: Transport) {
    let _turn = alone();
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let client = Uclient::new(server.v4(transport), transport, 200, 100).limit(Duration::from_secs(120));
    client.peer(peer.address()).options(&["-l", "160"]).must_lose_nothing(&server);
}
