//! Signals: certificate changes, reload and shutdown.

use crate::certificates::{shown, wait_for_other};
use crate::support::beside_others;
use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link};
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

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
    wait_for_other(&server, &old);
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
    let old = shown(&server);
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
    assert_eq!(shown(&server), old);
    assert_eq!(client.refresh(600), 0);
    // A valid certificate is loaded afterwards.
    certs::write(Kind::Good, "second.test", cert, key);
    server.signal("HUP");
    wait_for_other(&server, &old);
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
    // The files are followed, so the line may come before the signal.
    let before = server.log().len();
    certs::write(Kind::Good, "second.test", cert, key);
    said("HUP");
    assert!(is_new(&server.log()[before..]), "{}", server.log());
}

/// For example from a backup restored by mistake, or after a failed renewal. With it, every client would fail at once.
#[test]
fn an_expired_certificate_does_not_replace_a_valid_one() {
    let _turn = beside_others();
    if skip_on_coturn("keeping a valid certificate") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let valid = shown(&server);
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Expired, "first.test", cert, key);
    for signal in ["USR2", "HUP"] {
        let before = server.log().len();
        server.signal(signal);
        let told = |log: &str| log[before..].contains(" ago, and the certificate in use is still valid");
        assert!(server.wait_log(LIMIT, told), "SIG{signal}: {}", server.log());
        assert_eq!(shown(&server), valid);
    }
    let path = server.files().path("hallpass.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("[tls]\n", "[tls]\naccept_expired = true\n")).unwrap();
    server.signal("HUP");
    wait_for_other(&server, &valid);
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

/// SIGUSR1: a user with an allocation keeps it and may make another, as an ICE restart does; others are refused.
#[test]
fn sigusr1_drains_and_the_server_keeps_running() {
    let _turn = beside_others();
    if skip_on_coturn("drain by SIGUSR1") {
        return;
    }
    let mut server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let mut running = client(&server, Transport::Udp, "running");
    running.allocate().expect("an allocation");
    assert_eq!(running.permit(peer.address()), 0);
    server.signal("USR1");
    wait_for_refusal(&server);
    running.echo(peer.address(), 100);
    assert_eq!(running.refresh(600), 0);
    for transport in [Transport::Udp, Transport::Tls] {
        client(&server, transport, "running").allocate().expect("another allocation of the user");
    }
    assert_eq!(running.refresh(0), 0);
    assert!(server.is_running(), "{}", server.log());
}

fn client(server: &Server, transport: Transport, user: &str) -> Client {
    Client::log_in(Link::open(transport, server.v4(transport)), server.credentials(user))
}

/// Allocates until the server refuses with 508. Until it has handled the signal, an Allocate may succeed; it is released.
fn wait_for_refusal(server: &Server) {
    let end = Instant::now() + LIMIT;
    loop {
        let mut late = client(server, Transport::Udp, "late");
        match late.allocate() {
            Err(code) => return assert_eq!(code, 508, "a new client of a draining server"),
            Ok(_) => assert_eq!(late.refresh(0), 0),
        }
        assert!(Instant::now() < end, "no drain:\n{}", server.log());
    }
}

/// The end of a stream, as a browser sees it: `Ok(0)` after a close_notify, or after the FIN of a plain connection.
fn end_of_stream(mut client: Client) -> std::io::Result<usize> {
    let mut buffer = [0; 4096];
    loop {
        // Media on its way to a server that closes its socket would be answered by a reset.
        let _ = client.link.send(&[0x40, 0, 0, 4, 1, 2, 3, 4]);
        let read = match &mut client.link {
            Link::Tls(stream) => stream.read(&mut buffer),
            Link::Tcp(stream) => stream.read(&mut buffer),
            Link::Udp(_) => unreachable!("a stream"),
        };
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            end => return end,
        }
    }
}

#[test]
fn sigterm_and_sigint_end_within_a_second_and_tell_stream_clients() {
    let _turn = beside_others();
    if skip_on_coturn("an orderly end") {
        return;
    }
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&Plan::loopback());
        let mut on_udp = client(&server, Transport::Udp, "running");
        let relayed = on_udp.allocate().expect("an allocation");
        let streams = [Transport::Tcp, Transport::Tls].map(|transport| {
            let mut client = client(&server, transport, "running");
            client.allocate().expect("an allocation");
            client.link.wait_at_most(Duration::from_millis(5));
            client
        });
        let ends = streams.map(|client| thread::spawn(|| end_of_stream(client)));
        let start = Instant::now();
        server.signal(signal);
        let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still there:\n{}", server.log()));
        let took = start.elapsed();
        println!("SIG{signal}: ended after {took:.0?}");
        assert!(exit.success(), "{exit}:\n{}", server.log());
        assert!(took < Duration::from_secs(1), "{took:?}:\n{}", server.log());
        for end in ends {
            let end = end.join().expect("no panic");
            assert!(matches!(end, Ok(0)), "SIG{signal}: {end:?}");
        }
        assert!(UdpSocket::bind(relayed).is_ok(), "the relayed address is free");
    }
}

/// Clients that do not answer the end of their connection delay the end of the server by half a second, not longer.
#[test]
fn silent_clients_do_not_hold_up_the_end() {
    let _turn = beside_others();
    if skip_on_coturn("an orderly end") {
        return;
    }
    let mut server = Server::start(&Plan::loopback());
    let mut silent = client(&server, Transport::Tls, "silent");
    silent.allocate().expect("an allocation");
    let start = Instant::now();
    server.signal("TERM");
    let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still there:\n{}", server.log()));
    let took = start.elapsed();
    assert!(exit.success() && took > Duration::from_millis(400), "{exit} after {took:?}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let Link::Tls(stream) = &mut silent.link else { unreachable!("TLS") };
    assert!(matches!(stream.read(&mut [0; 10]), Ok(0)), "a close_notify");
}

#[test]
fn a_second_signal_ends_at_once() {
    let _turn = beside_others();
    if skip_on_coturn("an orderly end") {
        return;
    }
    // With another server, newcomers are answered for two seconds.
    let tables = "[drain]\nalternate_server = [\"203.0.113.11:3478\"]".to_owned();
    let mut server = Server::start(&Plan { tables, ..Plan::loopback() });
    let start = Instant::now();
    server.signal("TERM");
    assert!(server.wait_log(LIMIT, |log| log.contains("stopping (SIGTERM)")), "{}", server.log());
    assert!(server.is_running(), "{}", server.log());
    server.signal("INT");
    let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still there:\n{}", server.log()));
    assert!(exit.success() && start.elapsed() < Duration::from_millis(1500), "{exit} {:?}", start.elapsed());
}
