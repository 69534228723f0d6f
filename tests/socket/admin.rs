//! The admin address, asked over a plain socket.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::http::get;
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, only_hallpass};

#[test]
fn health_and_readiness() {
    let _turn = beside_others();
    if only_hallpass("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.admin(), path).0, 200, "{path}");
    }
    assert_eq!(get(server.admin(), "/no-such-page").0, 404);
}

#[test]
fn metrics_are_prometheus_text_without_names_of_users() {
    let _turn = beside_others();
    if only_hallpass("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut client = Client::log_in(
        Link::open(Transport::Udp, server.v4(Transport::Udp)),
        server.credentials("w_somebody"),
    );
    client.allocate().expect("an allocation");
    let (status, body) = get(server.admin(), "/metrics");
    assert_eq!(status, 200, "{body}");
    let mut samples = 0;
    for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some(), "not a sample: {line:?}");
        samples += 1;
    }
    assert!(samples > 0 && body.contains("# TYPE "), "{body}");
    assert!(!body.contains("w_somebody"), "a user id in the metrics:\n{body}");
}
