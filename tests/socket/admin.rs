//! The admin address, over a plain socket.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::http::get;
use crate::support::plan::{Plan, Transport, lay_out_hallpass};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::run_ok;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn health_and_readiness() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.admin(), path).0, 200, "{path}");
    }
    assert_eq!(get(server.admin(), "/no-such-page").0, 404);
}

/// The server waits for its certificate, which is a pipe without a writer yet.
#[test]
fn not_ready_before_the_listeners_accept_nor_in_a_drain() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let files = Directory::new("starting");
    let layout = lay_out_hallpass(&Plan::loopback(), &files);
    let certificate = fs::read(&layout.cert).unwrap();
    fs::remove_file(&layout.cert).unwrap();
    run_ok("mkfifo", &[layout.cert.to_str().unwrap()], LIMIT);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["serve", "--config"]).arg(&layout.config);
    let mut server = Process::spawn(command);
    let end = Instant::now() + LIMIT;
    while TcpStream::connect(layout.admin).is_err() {
        assert!(server.is_running() && Instant::now() < end, "no admin address:\n{}", server.output());
    }
    let (status, reason) = get(layout.admin, "/readyz");
    assert_eq!((status, reason.as_str()), (503, "waiting for the certificate, the listeners, the workers\n"));
    assert_eq!(get(layout.admin, "/healthz").0, 200, "it is alive");
    let (status, metrics) = get(layout.admin, "/metrics");
    assert!(status == 200 && metrics.contains("\nhallpass_ready 0\n"), "{metrics}");
    assert!(!metrics.contains("hallpass_allocations"), "no metrics of the workers yet: {metrics}");
    let tcp = layout.listeners.iter().find(|(transport, _)| *transport == Transport::Tcp).unwrap().1;
    assert!(TcpStream::connect(tcp).is_err(), "a listener accepts before the server is ready");
    assert!(!server.output().contains("ready"), "{}", server.output());

    fs::write(&layout.cert, certificate).unwrap();
    assert!(server.wait_output(LIMIT, |log| log.contains("ready")), "{}", server.output());
    assert_eq!(get(layout.admin, "/readyz"), (200, "ready\n".to_owned()));
    assert!(TcpStream::connect(tcp).is_ok());
    let metrics = get(layout.admin, "/metrics").1;
    assert!(
        metrics.contains("\nhallpass_ready 1\n") && metrics.contains("\nhallpass_allocations{"),
        "{metrics}"
    );

    server.signal("USR1");
    assert!(server.wait_output(LIMIT, |log| log.contains("draining")), "{}", server.output());
    assert_eq!(get(layout.admin, "/readyz"), (503, "draining\n".to_owned()));
    assert!(get(layout.admin, "/metrics").1.contains("\nhallpass_ready 0\n"));
}

#[test]
fn metrics_are_prometheus_text_without_names_of_users() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
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
