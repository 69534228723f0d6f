//! What strangers can write into the log, what is never logged, and how the server copes with a blocked log.

use crate::call::Call;
use crate::support::client::{Client, Link, udp_from};
use crate::support::credentials::named;
use crate::support::plan::{Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, FINGERPRINT, MESSAGE_INTEGRITY, NONCE, REALM_ATTRIBUTE, Session, USERNAME, allocate_request,
    binding_request, message,
};
use crate::support::{alone, beside_others, tls};
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

/// Bad datagrams to send.
const BAD: usize = 20_000;
const LIMIT: Duration = Duration::from_secs(10);

fn forged() -> String {
    "2000000000:evil\r\n2026-01-01T00:00:00Z ERROR forged: yes\u{1b}[2J\u{7}\u{202e}".to_owned()
}

/// Creates an allocation and ends it, which logs a line. Returns the client, so that no other gets its port.
fn come_and_go(server: &Server, session: &Session, from: IpAddr) -> (u16, Client) {
    let mut client = Client::join(Link::Udp(udp_from(from, server.v4(Transport::Udp))), session);
    let code = client.allocate().err().unwrap_or(0);
    if code == 0 {
        assert_eq!(client.refresh(0), 0);
    }
    (code, client)
}

/// Row 20.
#[test]
fn a_bad_datagram_logs_at_most_forty_bytes() {
    let _turn = alone();
    let server = Server::start(&Plan::loopback());
    let forged = forged();
    let login: [(u16, &[u8]); 4] = [
        (USERNAME, forged.as_bytes()),
        (REALM_ATTRIBUTE, b"relay.test"),
        (NONCE, b"a\r\nb"),
        (MESSAGE_INTEGRITY, &[1; 20]),
    ];
    let mut cut = allocate_request(1);
    cut.truncate(22);
    let bad = [
        vec![0xFF; 60],
        cut,
        message(ALLOCATE, 1, &[(FINGERPRINT, &[0; 4])]),
        message(ALLOCATE, 1, &login),
        vec![0x40, 0, 0, 9, 1],
        message(0x0FFF & !0x0110, 1, &[]),
        message(ALLOCATE, 1, &[(USERNAME, &[0xFF; 600])]),
        b"\n\n\n2026 ERROR forged\n".to_vec(),
    ];
    let mut socket = udp_from([127, 0, 0, 1].into(), server.v4(Transport::Udp));
    let before = server.log().len();
    for number in 0..BAD {
        socket.send(&bad[number % bad.len()]).unwrap();
        if number % 64 == 63 {
            // Wait, so that no datagram is lost.
            fence(&mut socket);
        }
    }
    fence(&mut socket);
    let session = Session::new(server.credentials("after"), b"");
    assert_eq!(come_and_go(&server, &session, Ipv4Addr::new(127, 0, 0, 2).into()).0, 0);
    server.wait_log(Duration::from_secs(2), |log| log[before..].contains("user=\"after\""));
    let log = server.log();
    let grown = log.len() - before;
    println!("row 20: {grown} bytes of log for {BAD} bad datagrams, {:.2} each", grown as f64 / BAD as f64);
    assert!(grown <= 40 * BAD, "{grown} bytes");
    assert!(!log.lines().any(|line| line.starts_with("2026 ERROR forged")), "a datagram forged a line");
}

/// Waits for the answer to one more request, which the server handles after all others.
fn fence(socket: &mut std::net::UdpSocket) {
    socket.send(&binding_request(4711)).unwrap();
    let mut answer = [0; 2048];
    loop {
        let len = socket.recv(&mut answer).expect("an answer");
        if len >= 20 && answer[12..20] == 4711_u64.to_be_bytes() {
            return;
        }
    }
}

/// Row 20.
#[test]
fn a_user_name_cannot_forge_a_log_line() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let session = Session::new(named(SECRET, &forged()), b"");
    let (code, _) = come_and_go(&server, &session, [127, 0, 0, 1].into());
    let told = server.wait_log(Duration::from_secs(2), |log| log.contains("evil"));
    let log = server.log();
    println!("row 20: a name with line breaks: {code}, in the log: {told}");
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}';
    assert!(!log.contains(harmful), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
}

/// Row 20. A tool that reads `client=` from a line, for example to block addresses, finds only the true one.
#[test]
fn a_user_name_cannot_forge_a_field() {
    let _turn = beside_others();
    if skip_on_coturn("the fields of a log line") {
        return;
    }
    let name = "2000000000:x transport=udp client=203.0.113.9:1 reason=revoked";
    for (format, told) in [
        ("text", "user=\"x transport=udp client=203.0.113.9:1 reason=revoked\" "),
        ("json", "\"user\":\"x transport=udp client=203.0.113.9:1 reason=revoked\","),
    ] {
        let tables = format!("[log]\nformat = \"{format}\"");
        let server = Server::start(&Plan { tables, ..Plan::loopback() });
        let session = Session::new(named(SECRET, name), b"");
        assert_eq!(come_and_go(&server, &session, [127, 0, 0, 1].into()).0, 0);
        assert!(server.wait_log(LIMIT, |log| log.contains(told)), "{format}: {}", server.log());
    }
}

/// Row 20, at the most verbose level.
#[test]
fn no_secret_password_or_nonce_is_logged() {
    let _turn = beside_others();
    let plan = Plan {
        tables: "[log]\nlevel = \"trace\"".to_owned(),
        coturn: "Verbose\n".to_owned(),
        ..Plan::loopback()
    };
    let server = Server::start(&plan);
    let credentials = server.credentials("w_secretive");
    let session = Session::new(credentials.clone(), b"");
    let mut nonces = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut client = Client::join(Link::open(transport, server.v4(transport)), &session);
        nonces.push(String::from_utf8_lossy(client.session.nonce()).into_owned());
        client.allocate().expect("an allocation");
        assert_eq!(client.refresh(0), 0);
        client.session = client.session.guess(&format!("{}x", credentials.username));
        assert_ne!(client.allocate().err(), None);
    }
    server.signal("HUP");
    server.wait_log(Duration::from_secs(2), |log| log.contains("reload"));
    let log = server.log();
    let key: String = session.key().1.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut never = vec![SECRET.to_owned(), credentials.password, key];
    never.extend(nonces);
    let said: Vec<&String> = never.iter().filter(|text| log.contains(&***text)).collect();
    println!("row 20: {} bytes of log at level trace, secrets in it: {}", log.len(), said.len());
    assert!(said.is_empty(), "{said:?} in\n{log}");
}

/// Row 20.
#[test]
fn with_privacy_no_client_address_is_logged() {
    let _turn = beside_others();
    if skip_on_coturn("a log without addresses of clients") {
        return;
    }
    let log_of = |top: &str| {
        let server = Server::start(&Plan { top: top.to_owned(), ..Plan::loopback() });
        let session = Session::new(server.credentials("w_private"), b"");
        let from = Ipv4Addr::new(127, 77, 0, 77).into();
        assert_eq!(come_and_go(&server, &session, from).0, 0);
        assert!(server.wait_log(LIMIT, |log| log.contains("w_private")), "{}", server.log());
        server.log()
    };
    assert!(log_of("").contains("127.77.0.77"), "the test looks for the wrong address");
    let log = log_of("privacy = true");
    assert!(!log.contains("127.77.0.77"), "{log}");
}

/// Starts a server whose standard output is redirected by `shell`, waits until it is ready, and relays.
fn relays_without_a_log(what: &str, shell: &str, check: impl Fn(&Server)) {
    let _turn = alone();
    let mut plan = Plan::loopback();
    plan.wrapper = ["unshare", "-m", "sh", "-c", shell].map(str::to_owned).to_vec();
    let mut server = Server::start(&plan);
    let call = Call::start(&server, 200);
    let session = Session::new(server.credentials("w_loud"), b"");
    let mut gone = Vec::new();
    for _ in 0..200 {
        let (code, client) = come_and_go(&server, &session, [127, 0, 0, 1].into());
        assert_eq!(code, 0);
        gone.push(client);
    }
    let mut stream = tls::connect(server.v4(Transport::Tls));
    let _ = stream.write_all(&[0xFF; 100]);
    call.lasts(Duration::from_secs(1));
    check(&server);
    let report = call.end();
    println!("row 20: {what}: {report}");
    assert!(server.is_running(), "the server ended");
    assert!(report.loss() <= 0.01, "{report}");
}

/// Row 20.
#[test]
fn a_closed_log_pipe_does_not_stop_relaying() {
    // Lines are passed on up to the ready line; then nothing reads the pipe.
    let shell = "\"$0\" \"$@\" 2>&1 | sed -u -E '/ready|Total General servers/q'";
    relays_without_a_log("the log's pipe is closed", shell, |_| {});
}

/// Row 20.
#[test]
fn a_full_disk_does_not_stop_relaying() {
    // The test cannot read that log, so the shell prints the ready line for it.
    let shell = "mount -t tmpfs -o size=64k none /mnt && head -c 65536 /dev/zero >/mnt/full; \
                 echo ready; echo Total General servers; exec \"$0\" \"$@\" >/mnt/log 2>&1";
    relays_without_a_log("the log's disk is full", shell, |server| {
        let disk = Path::new("/proc").join(server.pid().to_string()).join("root").join("mnt");
        let full = fs::metadata(disk.join("full")).expect("the full disk").len();
        let log = fs::metadata(disk.join("log")).expect("the log").len();
        assert!(full > 0 && log == 0, "the disk took {log} bytes of log");
    });
}
