//! coturn's STUN client.

use crate::support::beside_others;
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::tool::run_ok;
use std::time::Duration;

#[test]
fn stunclient_learns_its_address() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    for (address, family) in [(server.v4(Transport::Udp), "IPv4"), (server.v6(Transport::Udp), "IPv6")] {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let printed = run_ok("turnutils_stunclient", &["-p", &port, &ip], Duration::from_secs(20));
        let mapped = format!("{family}. UDP reflexive addr: {ip}:");
        assert!(printed.contains(&mapped), "no {mapped:?} in:\n{printed}");
    }
}
