//! Relaying across a router, in network namespaces: TTL, fragments and path MTU, which loopback cannot show.
#![allow(clippy::disallowed_methods, reason = "third-party programs are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod host;
mod matrix;
mod neighbours;

use support::alone;
use support::namespace::{self, Lab};
use support::plan::{Plan, Transport};
use support::server::{Server, skip_on_coturn};
use support::uclient::Uclient;

/// Runs four sessions of 25 messages of `length` bytes through the router, with a peer in its own network.
fn relays(lab: &Lab, transport: Transport, length: u32) {
    let _turn = alone();
    let mut plan = Plan::on(&[namespace::SERVER.into()], &[namespace::PEER_NET]);
    plan.namespace = Some(lab.server.clone());
    let server = Server::start(&plan);
    let peer = lab.start_peer();
    let client = Uclient::new(server.v4(transport), transport, 4, 25);
    let client = client.inside(&lab.client).options(&["-c", "-l", &length.to_string()]);
    client.peer(peer).must_lose_nothing(&server);
}

#[test]
fn udp_crosses_a_router() {
    relays(&Lab::new(), Transport::Udp, 160);
}

#[test]
fn tcp_crosses_a_router() {
    relays(&Lab::new(), Transport::Tcp, 160);
}

#[test]
fn tls_crosses_a_router() {
    relays(&Lab::new(), Transport::Tls, 160);
}

/// Datagrams to clients are sent without DF. With DF, the router would drop those larger than the MTU of its link, and
/// the server would not learn why, because the router's ICMP errors are lost.
#[test]
fn large_udp_packets_cross_a_narrow_link_without_icmp() {
    if skip_on_coturn("datagrams without DF") {
        return;
    }
    let lab = Lab::new();
    lab.narrow_client_link(1280);
    relays(&lab, Transport::Udp, 1400);
}
