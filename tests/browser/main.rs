//! A real headless Chromium: two peers that can reach each other only through the relay, with data and video; and the
//! dashboard.
#![allow(clippy::disallowed_methods, reason = "external programs run on the real clock")]

mod check;
mod dashboard;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::alone;
use support::chromium::Chromium;
use support::plan::{LOCAL_V4, Plan, Transport};
use support::server::Server;

/// Makes a relayed call between two peers of one page. Returns the browser's statistics of both ends.
fn call(transport: Transport) -> Value {
    let _turn = alone();
    let server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let address = server.v4(transport);
    let credentials = server.credentials("w_browser");
    let url = match transport {
        Transport::Udp => format!("turn:{address}?transport=udp"),
        Transport::Tcp => format!("turn:{address}?transport=tcp"),
        Transport::Tls => format!("turns:localhost:{}?transport=tcp", address.port()),
    };
    let ice = json!([{ "urls": url, "username": credentials.username, "credential": credentials.password }]);
    let mut browser = Chromium::start(server.files());
    let result = browser.run(&format!("{}\ncall({ice})", include_str!("../support/call.js")));
    assert_eq!(result["error"], Value::Null, "the call failed: {result:#}\nserver:\n{}", server.log());
    result
}

fn assert_relayed(transport: Transport) {
    let result = call(transport);
    let protocol = format!("{transport:?}").to_lowercase();
    for end in ["caller", "callee"] {
        let stats = &result[end];
        assert_eq!(stats["localType"], "relay", "{end}: {result:#}");
        assert_eq!(stats["remoteType"], "relay", "{end}: {result:#}");
        assert_eq!(stats["relayProtocol"], protocol, "{end}: {result:#}");
        assert!(stats["bytesReceived"].as_u64() > Some(0), "{end}: {result:#}");
    }
    assert_eq!(result["echo"], "round trip", "{result:#}");
    assert!(result["callee"]["framesDecoded"].as_u64() >= Some(30), "{result:#}");
}

#[test]
fn a_call_over_udp() {
    assert_relayed(Transport::Udp);
}

#[test]
fn a_call_over_tcp() {
    assert_relayed(Transport::Tcp);
}

#[test]
fn a_call_over_tls() {
    assert_relayed(Transport::Tls);
}
