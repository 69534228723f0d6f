//! `hallpass import-coturn`: each vector runs on coturn 4.6.1 and, imported, on Hallpass, in the same network and at the same
//! time. A client that coturn serves is served, and one that it refuses is refused, unless the report says otherwise.
#![allow(clippy::disallowed_methods, reason = "third-party programs are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod pair;

use pair::{Login, Pair, Port, tcp, tls, udp};

/// A peer that no list names.
const PUBLIC: &str = "11.22.33.44";
/// A private peer; most vectors do not name it.
const PRIVATE: &str = "10.20.0.50";
const BBB_SECRET: &str = "dG9wLXNlY3JldC1mb3ItdGVzdHMtb25seS0wMTIzNDU=";

#[test]
fn bbb_install() {
    let pair = Pair::start("01-bbb-install", &[]);
    let login = Login::rest(BBB_SECRET, "bbb.example.org");
    for port in [udp(3478), tcp(3478)] {
        pair.same(port, &login, "203.0.113.50", "relays as 10.20.0.5");
        pair.same(port, &login, PRIVATE, "relays as 10.20.0.5");
        for refused in ["198.51.100.20", PUBLIC, "127.0.0.1"] {
            pair.same(port, &login, refused, "403");
        }
    }
    // `cut -d= -f2` loses the padding.
    let cut = Login::rest(BBB_SECRET.trim_end_matches('='), "bbb.example.org");
    pair.same(udp(3478), &cut, "203.0.113.50", "401");
    pair.uclient(3478, &login, "203.0.113.50");
}

#[test]
fn jitsi() {
    let pair = Pair::start("02-jitsi", &[]);
    let login = Login::rest("JitsiTestSecret000", "meet.example.org");
    for port in [udp(443), udp(4445), tls(4445)] {
        pair.same(port, &login, PUBLIC, "relays as 203.0.113.10");
    }
    pair.same(tcp(443), &login, PUBLIC, "closed");
    pair.same(udp(443), &login, "127.0.0.1", "403");
    pair.same(udp(443), &Login::rest("JitsiTestSecret001", "meet.example.org"), PUBLIC, "401");
    pair.differ(udp(443), &login, PRIVATE, "relays as 203.0.113.10", "403", "private networks");
}

#[test]
fn nextcloud_talk() {
    let pair = Pair::start("04-nextcloud-talk", &[]);
    let login = Login::rest("1f2e3d4c5b6a79880011223344556677", "cloud.example.org");
    for port in [udp(3478), tcp(3478), udp(443), tcp(443), tls(443), tls(3478)] {
        pair.same(port, &login, PUBLIC, "relays as 10.20.0.5");
        pair.same(port, &login, "192.0.2.40", "relays as 10.20.0.5");
        pair.same(port, &login, "192.0.2.99", "403");
    }
    pair.differ(tcp(3479), &login, PUBLIC, "relays as 10.20.0.5", "closed", "tcp 3479");
}

#[test]
fn nextcloud_talk_with_its_second_ports() {
    let pair = Pair::start("04-nextcloud-talk", &["--alternative-ports"]);
    let login = Login::rest("1f2e3d4c5b6a79880011223344556677", "cloud.example.org");
    for port in [udp(3479), tcp(3479), udp(444), tls(444)] {
        pair.same(port, &login, PUBLIC, "relays as 10.20.0.5");
    }
}

#[test]
fn odd_syntax() {
    let pair = Pair::start("05-odd-syntax", &[]);
    let login = |secret| Login::rest(secret, "odd.example.org");
    for secret in ["quoted secret", "'single'", "plain # not a comment"] {
        pair.same(udp(3480), &login(secret), PUBLIC, "relays as 10.20.0.5");
    }
    for secret in ["\"quoted secret\"", "single", "plain", "fixed"] {
        pair.same(udp(3480), &login(secret), PUBLIC, "401");
    }
    pair.same(tcp(3480), &login("quoted secret"), PRIVATE, "403");
    pair.differ(
        udp(3480),
        &login("quoted secret"),
        "172.16.0.9",
        "relays as 10.20.0.5",
        "403",
        "ignores the line",
    );
}

#[test]
fn static_users() {
    let pair = Pair::start("07-static-users", &[]);
    let login = |name, password| Login::fixed(name, password, "north.example.org");
    let alice = login("alice", "correct horse");
    for port in [udp(3478), tcp(3478)] {
        pair.same(port, &login("carol", "pass:with:colons"), PUBLIC, "relays as 10.20.0.5");
        pair.same(port, &login("alice", "correct"), PUBLIC, "401");
        pair.same(port, &login("nobody", "x"), PUBLIC, "401");
    }
    pair.differ(udp(3478), &alice, PRIVATE, "relays as 10.20.0.5", "403", "private networks");
}

#[test]
fn a_quota_of_two() {
    let pair = Pair::start("07-static-users", &[]);
    pair.third_allocation(3478, &Login::fixed("carol", "pass:with:colons", "north.example.org"), 486);
}

#[test]
fn a_command_line() {
    let pair = Pair::start("10-command-line", &[]);
    for login in [("selkies", "s3cr3t"), ("other", "pw")] {
        let login = Login::fixed(login.0, login.1, "turn.example.org");
        for port in [udp(3478), tcp(3478)] {
            pair.same(port, &login, PUBLIC, "relays as 203.0.113.10");
            pair.same(port, &login, PRIVATE, "403");
            pair.same(port, &login, "127.0.0.1", "403");
        }
    }
    pair.same(udp(3478), &Login::fixed("selkies", "s3cr3t ", "turn.example.org"), PUBLIC, "401");
}

#[test]
fn open_relays_and_databases_are_refused() {
    for (vector, reason) in
        [("09-open-relay", "relays for everybody"), ("12-database-only", "turnadmin -S -b")]
    {
        let (output, code) = pair::import(&pair::vector(vector), &[]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(reason) && !output.contains("[[listen]]\n"), "{output}");
    }
}

#[test]
fn served_straight_from_the_file_of_coturn() {
    let pair = Pair::start_straight("01-bbb-install");
    let login = Login::rest(BBB_SECRET, "bbb.example.org");
    pair.same(udp(3478), &login, "203.0.113.50", "relays as 10.20.0.5");
    pair.same(Port::Tcp(3478), &login, PUBLIC, "403");
    // A reload imports the file again; what is refused changes nothing.
    pair.rewrite("realm=bbb.example.org\nno-auth\n");
    pair.reload("relays for everybody");
    pair.same(udp(3478), &login, "203.0.113.50", "relays as 10.20.0.5");
}
