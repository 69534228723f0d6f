//! Signals: certificate changes, reload and shutdown.

use crate::support::beside_others;
use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link};
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use std::fs;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn shown_certificate(server: &Server) -> Vec<u8> {
    tls::certificate(&tls::connect(server.v4(Transport::Tls)).conn)
}

/// Reconnects until a certificate other than `old` is shown.
fn wait_for_other_certificate(server: &Server, old: &[u8]) {
    let end = Instant::now() + LIMIT;
    while shown_certificate(server) == old {
        assert!(Instant::now() < end, "still the old certificate:\n{}", server.log());
    }
}

#[test]
fn sigusr2_swaps_certificates_and_keeps_connections() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let stream = tls::connect(server.v4(Transport::Tls));
    let old = tls::certificate(&stream.conn);
    let mut client = Client::log_in(Link::Tls(Box::new(stream)), server.credentials("connected"));
    let peer = Echo::start(LOCAL_V4);
    client.allocate().expect("an allocation");
    assert_eq!(client.permit(peer.address()), 0);
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Good, "second.test", cert, key);
    server.signal("USR2");
    wait_for_other_certificate(&server, &old);
    client.echo(peer.address(), 100);
    assert_eq!(client.refresh(600), 0);
}

#[test]
fn sighup_with_a_broken_certificate_keeps_the_old_one() {
    let _turn = beside_others();
    if skip_on_coturn("reload by SIGHUP") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let old = shown_certificate(&server);
    let mut client = Client::log_in(
        Link::open(Transport::Tcp, server.v4(Transport::Tcp)),
        server.credentials("connected"),
    );
    client.allocate().expect("an allocation");
    let (cert, key) = server.certificate_files();
    fs::write(cert, "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n").unwrap();
    let before = server.log().len();
    server.signal("HUP");
    let told = server.wait_log(LIMIT, |log| log[before..].contains(cert.to_str().unwrap()));
    assert!(told, "the log does not name the broken file:\n{}", server.log());
    assert_eq!(shown_certificate(&server), old);
    assert_eq!(client.refresh(600), 0);
    // A valid certificate is loaded afterwards.
    certs::write(Kind::Good, "second.test", cert, key);
    server.signal("HUP");
    wait_for_other_certificate(&server, &old);
    assert_eq!(client.refresh(600), 0);
}

#[test]
fn a_reload_logs_a_certificate_only_if_it_changed() {
    let _turn = beside_others();
    if skip_on_coturn("what the log says of a reload") {
        return;
    }
    let tables = "[log]\nlevel = \"debug\"".to_owned();
    let server = Server::start(&Plan { tables, ..Plan::loopback() });
    let said = |signal: &str| {
        let before = server.log().len();
        server.signal(signal);
        let last =
            |log: &str| log[before..].contains("the certificate that is in use") || is_new(&log[before..]);
        assert!(server.wait_log(LIMIT, last), "{}", server.log());
        server.log()[before..].to_owned()
    };
    for signal in ["HUP", "USR2"] {
        let said = said(signal);
        let line =
            said.lines().find(|line| line.contains("the certificate that is in use")).unwrap_or_default();
        assert!(line.contains("DEBUG") && !is_new(&said), "SIG{signal}: {said}");
    }
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Good, "second.test", cert, key);
    assert!(is_new(&said("HUP")), "{}", server.log());
}

/// For example from a backup restored by mistake, or after a failed renewal. With it, every client would fail at once.
#[test]
fn an_expired_certificate_does_not_replace_a_valid_one() {
    let _turn = beside_others();
    if skip_on_coturn("keeping a valid certificate") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let valid = shown_certificate(&server);
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Expired, "first.test", cert, key);
    for signal in ["USR2", "HUP"] {
        let before = server.log().len();
        server.signal(signal);
        let told = |log: &str| log[before..].contains("days ago, and the certificate in use is still valid");
        assert!(server.wait_log(LIMIT, told), "SIG{signal}: {}", server.log());
        assert_eq!(shown_certificate(&server), valid);
    }
    let path = server.files().path("hallpass.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("[tls]\n", "[tls]\naccept_expired = true\n")).unwrap();
    server.signal("HUP");
    wait_for_other_certificate(&server, &valid);
}

fn is_new(log: &str) -> bool {
    log.contains("new certificate in use")
}

#[test]
fn a_reload_that_fails_logs_warnings_as_warnings() {
    let _turn = beside_others();
    if skip_on_coturn("what the log says of a reload") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let path = server.files().path("hallpass.toml");
    let text = fs::read_to_string(&path).unwrap();
    // A short lifetime is a warning, an unknown key an error.
    fs::write(&path, text.replace("[limits]\n", "[limits]\nlifetime_max_seconds = 60\nunknown_key = 1\n"))
        .unwrap();
    let before = server.log().len();
    server.signal("HUP");
    assert!(server.wait_log(LIMIT, |log| log[before..].contains("the configuration in use stays")));
    let log = server.log()[before..].to_owned();
    let level = |part: &str| {
        let line =
            log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part:?} in {log}"));
        ["ERROR", "WARN"].into_iter().find(|level| line.contains(level))
    };
    assert_eq!(level("warning: limits.lifetime_max_seconds"), Some("WARN"), "{log}");
    assert_eq!(level("write 600 or more"), Some("WARN"), "{log}");
    assert_eq!(level("error: limits.unknown_key"), Some("ERROR"), "{log}");
    assert_eq!(level("the configuration in use stays"), Some("ERROR"), "{log}");
}

#[test]
fn sigterm_drains() {
    let _turn = beside_others();
    if skip_on_coturn("drain by SIGTERM") {
        return;
    }
    let mut server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let mut running =
        Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), server.credentials("running"));
    running.allocate().expect("an allocation");
    assert_eq!(running.permit(peer.address()), 0);
    server.signal("TERM");
    wait_for_refusal(&server);
    running.echo(peer.address(), 100);
    assert_eq!(running.refresh(600), 0);
    assert!(server.is_running(), "ended under a running allocation:\n{}", server.log());
    assert_eq!(running.refresh(0), 0);
    let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still there:\n{}", server.log()));
    assert!(exit.success(), "{exit}:\n{}", server.log());
}

/// Allocates until the server refuses with 508. Until it has handled the signal, an Allocate may succeed; it is released.
fn wait_for_refusal(server: &Server) {
    let end = Instant::now() + LIMIT;
    loop {
        let mut late =
            Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), server.credentials("late"));
        match late.allocate() {
            Err(code) => return assert_eq!(code, 508, "a new client of a draining server"),
            Ok(_) => assert_eq!(late.refresh(0), 0),
        }
        assert!(Instant::now() < end, "no drain after SIGTERM:\n{}", server.log());
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let _turn = beside_others();
    if skip_on_coturn("drain by SIGTERM") {
        return;
    }
    let mut server = Server::start(&Plan::loopback());
    let mut running =
        Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), server.credentials("running"));
    running.allocate().expect("an allocation");
    server.signal("TERM");
    wait_for_refusal(&server);
    assert!(server.is_running(), "ended under a running allocation:\n{}", server.log());
    server.signal("TERM");
    let exit = server.wait_exit(Duration::from_secs(2));
    assert!(exit.is_some(), "still there after the second signal:\n{}", server.log());
}
