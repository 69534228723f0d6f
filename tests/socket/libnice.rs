//! libnice, GStreamer's ICE agent: two agents forced through the relay, data both ways.

use crate::support::beside_others;
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::tool::run;
use std::time::Duration;

fn two_agents(transport: Transport) {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let address = server.v4(transport);
    let credentials = server.credentials("libnice");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket/libnice.py");
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let kind = format!("{transport:?}").to_lowercase();
    let args = [script, &ip, &port, &kind, &credentials.username, &credentials.password];
    let ended = run("/usr/bin/python3", &args, Duration::from_secs(60));
    let remedy = "needs python3-gi, gir1.2-nice-0.1 and libnice10";
    assert!(ended.success, "libnice over {kind} ({remedy}):\n{}", ended.output);
}

#[test]
fn two_agents_over_udp() {
    two_agents(Transport::Udp);
}

#[test]
fn two_agents_over_tcp() {
    two_agents(Transport::Tcp);
}
