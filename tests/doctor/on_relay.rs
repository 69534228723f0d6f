//! `hallpass doctor` on the relay itself: a good host, and hosts with several faults at once, each of which must be named.
//!
//! The server keeps running with its good configuration; the doctor reads another one, as after a careless edit.

use crate::examination::{Examination, codes};
use crate::support::beside_others;
use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::namespace::{Lab, SERVER, inside};
use crate::support::nginx::Nginx;
use crate::support::plan::{Plan, SECRET};
use crate::support::process::Process;
use crate::support::server::Server;
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAME: &str = "relay.test";
/// Ports for UDP, TCP and TLS.
const PORTS: [u16; 3] = [3478, 3478, 443];
/// Above the kernel's ephemeral range, and not BigBlueButton's.
const RELAY_PORTS: (u16, u16) = (61000, 65000);
/// A name that leads to a router with NAT, and the address behind it.
const NAT_NAME: &str = "nat.test";
const NAT_OUTSIDE: &str = "203.0.113.9";
const NAT_INSIDE: &str = "10.0.0.5";
/// The router's address on the server's side, where a clock that is right can be asked.
const CLOCK: &str = "http://198.18.2.1";
const LIMIT: Duration = Duration::from_secs(20);
/// Findings about the machine that the tests run on.
const MACHINE: [&str; 4] = ["kernel", "few_descriptors", "conntrack_small", "conntrack_full"];

/// Answers every request with an error, and a Date.
const DATE: &str = "\
import http.server, sys
server = http.server.HTTPServer((sys.argv[1], 80), http.server.BaseHTTPRequestHandler)
print('bound', flush=True)
server.serve_forever()
";

/// A web server that takes the port that it listens on for the one of the browser.
const REDIRECT: &str = "\
import socket
server = socket.create_server(('127.0.0.1', 83))
print('bound', flush=True)
while True:
    client, _ = server.accept()
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        head += client.recv(4096)
    client.sendall(b'HTTP/1.1 302 Found\\r\\nLocation: http://relay.test:82/b/\\r\\nContent-Length: 0\\r\\n\\r\\n')
    client.close()
";

/// A relay in a namespace of its own, with nginx behind its TLS port, and BigBlueButton's list.
struct Relay {
    lab: Lab,
    server: Option<Server>,
    _nginx: Nginx,
    _date: Process,
    files: Directory,
}

impl Relay {
    fn new() -> Relay {
        let lab = Lab::new();
        lab.knows(&lab.server, &[(NAME, &SERVER.to_string()), (NAT_NAME, NAT_OUTSIDE)]);
        let nginx = Nginx::start_in(Some(&lab.server), 1);
        let mut plan = Plan::on(&[SERVER.into()], &[]);
        plan.namespace = Some(lab.server.clone());
        (plan.ports, plan.relay_ports, plan.name) = (Some(PORTS), RELAY_PORTS, Some(NAME));
        plan.tls = "web = true".to_owned();
        plan.tables =
            format!("[web]\nhttp1 = \"{}\"\nh2 = \"{}\"\nproxy_protocol = \"v1\"\n", nginx.http1, nginx.h2);
        let server = Some(Server::start(&plan));
        let date = lab.start_in_router(DATE, &["198.18.2.1"]);
        let relay = Relay { lab, server, _nginx: nginx, _date: date, files: Directory::new("relay") };
        relay.trust(&certs::made(Kind::Good, NAME).ca);
        relay.config("good.toml", |text| text);
        relay.write_xml(NAME);
        relay
    }

    /// The configuration of the server, changed, as a file that only root can read.
    fn config(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.files.path(name);
        if let Some(server) = &self.server {
            let text = fs::read_to_string(server.files().path("hallpass.toml")).expect("the configuration");
            self.files.write(name, &change(text));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
        }
        path
    }

    /// BigBlueButton's list, which user nobody can read, as the administrator makes it.
    fn write_xml(&self, name: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.args(["bbb-xml", "--public-name", name, "--config"]).arg(self.files.path("good.toml"));
        let output = command.output().expect("hallpass runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.files.write("servers.xml", &String::from_utf8(output.stdout).expect("text"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our file");
        chown(&path, Some(0), Some(65534)).expect("root may do that");
    }

    fn change_xml(&self, change: impl FnOnce(String) -> String) {
        let path = self.files.path("servers.xml");
        let text = fs::read_to_string(&path).expect("the list");
        fs::write(&path, change(text)).expect("our file");
    }

    /// Adds an authority to those that the doctor trusts.
    fn trust(&self, authority: &str) {
        let known = fs::read_to_string(self.files.path("authorities.pem")).unwrap_or_default();
        self.files.write("authorities.pem", &format!("{known}{authority}"));
    }

    /// Another certificate in place of the one in a configuration.
    fn certificate(&self, text: &str, kind: Kind, name: &str) -> String {
        let (cert, key) = (self.files.path("cert.pem"), self.files.path("key.pem"));
        certs::write(kind, name, &cert, &key);
        self.trust(&certs::made(kind, name).ca);
        let lines = text.lines().map(|line| match line.split(' ').next() {
            Some("cert") => format!("cert = {cert:?}"),
            Some("key") => format!("key = {key:?}"),
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn doctor(&self) -> Examination {
        let authorities = self.files.path("authorities.pem");
        Examination::without_login().inside(&self.lab.server).trusting(&authorities)
    }

    /// The arguments of a whole examination.
    fn whole<'a>(&'a self, config: &'a Path, name: &'a str) -> Vec<&'a str> {
        let xml = self.files.path("servers.xml").display().to_string().leak();
        let config = config.to_str().expect("text");
        let all = [
            "--config",
            config,
            "--public-name",
            name,
            "--clock",
            CLOCK,
            "--bbb-xml",
            xml,
            "--bbb-user",
            "nobody",
        ];
        all.to_vec()
    }

    fn examine(&self, config: &Path, name: &str, more: &[&str]) -> Value {
        self.doctor().json(&[&self.whole(config, name)[..], more].concat())
    }
}

/// The codes of what is wrong with the relay, sorted.
fn faults(json: &Value) -> Vec<&str> {
    let all = json["findings"].as_array().expect("findings");
    let wrong = all.iter().skip(1).filter(|one| one["severity"] != "note");
    let codes = wrong.map(|one| one["code"].as_str().expect("a code"));
    let mut codes: Vec<&str> = codes.filter(|code| !MACHINE.contains(code)).collect();
    codes.sort_unstable();
    codes
}

/// What is said about a fault, and what to do.
#[track_caller]
fn said(json: &Value, code: &str) -> String {
    let mut all = json["findings"].as_array().expect("findings").iter();
    let one = all.find(|one| one["code"] == code).unwrap_or_else(|| panic!("no {code} in {json:#}"));
    format!("{} -> {}", one["text"].as_str().expect("a text"), one["remedy"].as_str().expect("a remedy"))
}

#[track_caller]
fn names(json: &Value, code: &str, parts: &[&str]) {
    let said = said(json, code);
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} in {said}");
}

#[test]
fn a_good_host_and_its_faults() {
    let _turn = beside_others();
    let relay = Relay::new();
    a_good_host(&relay);
    a_clock_that_cannot_be_asked(&relay);
    faults_of_the_web_and_the_files(&relay);
    faults_of_names_and_ports(&relay);
    behind_nat(&relay);
    a_wrong_clock_and_a_changed_secret(&relay);
    a_firewall(&relay);
    a_server_that_does_not_run(relay);
}

fn a_good_host(relay: &Relay) {
    let config = relay.files.path("good.toml");
    let json = relay.examine(&config, NAME, &[]);
    assert_eq!(faults(&json), [""; 0], "{json:#}");
    assert_eq!(json["works"], true, "{json:#}");
    let notes: Vec<_> = codes(&json).into_iter().skip(1).filter(|code| !MACHINE.contains(code)).collect();
    // This server has no control socket.
    assert_eq!(notes, ["not_compared"], "{json:#}");
    let rungs = json["rungs"].as_array().expect("rungs");
    assert!(rungs.len() == 3 && rungs.iter().all(|rung| rung["reached"] == "data"), "{json:#}");
    let facts = json["relay"]["checks"].to_string();
    for fact in [
        "has 3 of 3 listeners open",
        "announces 198.18.2.2 (in [relay] addresses)",
        "relay.test is 198.18.2.2",
        "for relay.test, localhost, 127.0.0.1 and ::1; from Hallpass test intermediate",
        "web.http1 127.0.0.1:81 answers 200",
        "web.h2 127.0.0.1:82 answers 200",
        "servers.xml lists relay.test",
        "3 of 3 ways carry data with the login of host test",
        "agrees with that of 198.18.2.1",
        "user root can read 3 of 3 files",
    ] {
        assert!(facts.contains(fact), "{fact} in {json:#}");
    }
    // With what can be found out alone, and for people.
    let output = relay.doctor().run(&["--config", config.to_str().expect("text")]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ok  UDP 3478  direct  data") && text.contains("The relay works"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

fn faults_of_the_web_and_the_files(relay: &Relay) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &relay.lab.server, "/usr/bin/python3", "-c", REDIRECT]);
    let redirect = Process::spawn(command);
    assert!(redirect.wait_output(LIMIT, |log| log.contains("bound")), "{}", redirect.output());
    // The pair is swapped: this machine's address stands for the public one.
    let config = relay.config("web.toml", |text| {
        let text = relay.certificate(&text, Kind::LeafOnly, NAME);
        let text = text.replace("external_ip = []", "external_ip = ['198.18.2.2/203.0.113.9']");
        let text = text.replace("http1 = \"127.0.0.1:81\"", "http1 = \"127.0.0.1:83\"");
        format!("{text}\n[drain]\nalternate_server = ['198.18.2.3:3478']\n")
    });
    fs::set_permissions(relay.files.path("servers.xml"), fs::Permissions::from_mode(0o600))
        .expect("our file");
    let json = relay.examine(&config, NAME, &["--user", "nobody"]);
    let expected = [
        "addresses",
        "certificate_not_loaded",
        "certificate_without_chain",
        "configuration",
        "file_unreadable",
        "file_unreadable",
        "web_inner_port",
        "xml_lacks_relay",
        "xml_unreadable",
    ];
    assert_eq!(faults(&json), expected, "{json:#}");
    names(&json, "addresses", &["the pair is swapped", "\"203.0.113.9/198.18.2.2\""]);
    names(&json, "certificate_without_chain", &["no intermediate certificate", "fullchain.pem"]);
    names(
        &json,
        "web_inner_port",
        &["web.http1 127.0.0.1:83", "http://relay.test:82/b/", "port_in_redirect off"],
    );
    names(&json, "xml_lacks_relay", &["no TURN server at 198.18.2.3"]);
    names(
        &json,
        "xml_unreadable",
        &["user nobody cannot read", "servers.xml", "mode 600", "chgrp nogroup", "&& chmod 640"],
    );
    names(
        &json,
        "file_unreadable",
        &["user nobody cannot read", "web.toml", "chgrp nogroup", "&& chmod 640"],
    );
    let all = json["findings"].to_string();
    assert!(all.contains("key.pem (root:root, mode 600): Permission denied"), "{json:#}");
    fs::set_permissions(relay.files.path("servers.xml"), fs::Permissions::from_mode(0o640))
        .expect("our file");
}

fn faults_of_names_and_ports(relay: &Relay) {
    let config = relay.config("ports.toml", |text| {
        let text = relay.certificate(&text, Kind::OtherName, NAME);
        let listeners = "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:8443'\n\
            [[listen]]\ntransport = 'udp'\naddress = '198.18.2.2:6000'\n[relay]";
        let text = text.replace("proxy_protocol = \"v1\"", "proxy_protocol = \"none\"");
        text.replace("[relay]", listeners).replace("127.0.0.1:81", "127.0.0.1:9")
    });
    relay.change_xml(|text| text.replace(SECRET, "the secret of another relay"));
    let json = relay.examine(&config, NAME, &["--other-relay", "second.test"]);
    let expected = [
        "certificate_for_other_name",
        "certificate_not_loaded",
        "configuration",
        "configuration",
        "listener_closed",
        "port_taken",
        "web_away",
        "web_proxy_header",
        "xml_lacks_relay",
        "xml_lacks_url",
        "xml_other_secret",
    ];
    assert_eq!(faults(&json), expected, "{json:#}");
    names(
        &json,
        "certificate_for_other_name",
        &["is for other.test, not for relay.test", "get a certificate that has"],
    );
    names(&json, "configuration", &["ports.toml:", "browsers refuse TURN servers on port 6000", "write 443"]);
    names(&json, "port_taken", &["listen tls 0.0.0.0:8443: nginx (pid ", "move nginx to 127.0.0.1:81"]);
    names(&json, "listener_closed", &["listen udp 198.18.2.2:6000", "systemctl reload hallpass"]);
    names(&json, "web_proxy_header", &["web.h2 127.0.0.1:82", "expects a PROXY header", "\"v1\" in [web]"]);
    names(&json, "web_away", &["web.http1 127.0.0.1:9", "refused"]);
    names(
        &json,
        "xml_other_secret",
        &["servers.xml", "turns:relay.test:443", "the one of host test", "bbb-xml"],
    );
    names(&json, "xml_lacks_relay", &["second.test"]);
    relay.change_xml(|text| text.replace("the secret of another relay", SECRET));
}

fn behind_nat(relay: &Relay) {
    inside(&relay.lab.server, &["ip", "addr", "add", &format!("{NAT_INSIDE}/32"), "dev", "up0"]);
    let config = relay.config("nat.toml", |text| {
        let text = relay.certificate(&text, Kind::Expired, NAT_NAME);
        text.replace("addresses = [\"198.18.2.2\"]", &format!("addresses = [\"{NAT_INSIDE}\"]"))
    });
    relay.write_xml(NAT_NAME);
    let json = relay.examine(&config, NAT_NAME, &[]);
    let expected = ["certificate_expired_in_files", "no_external_ip", "relayed_elsewhere"];
    assert_eq!(faults(&json), expected, "{json:#}");
    names(
        &json,
        "certificate_expired_in_files",
        &[
            "expired 1 day ago",
            "The running server still has a valid one",
            "renew it",
            "do not restart before",
        ],
    );
    names(
        &json,
        "no_external_ip",
        &["nat.test is at 203.0.113.9", "announces 10.0.0.5", "external_ip = [\"203.0.113.9/10.0.0.5\"]"],
    );
    // As advised; and the router sends packets to its outer address back inside.
    let config = relay.config("as-advised.toml", |text| {
        let text = text.replace("addresses = [\"198.18.2.2\"]", &format!("addresses = [\"{NAT_INSIDE}\"]"));
        text.replace("external_ip = []", &format!("external_ip = [\"{NAT_OUTSIDE}/{NAT_INSIDE}\"]"))
    });
    let rules = format!(
        "table ip hairpin {{ \
         chain before {{ type nat hook prerouting priority -100; ip daddr {NAT_OUTSIDE} dnat to {SERVER}; }}; \
         chain after {{ type nat hook postrouting priority 100; oifname server ip daddr {SERVER} masquerade; }}; }}"
    );
    inside(&relay.lab.router, &["nft", &rules]);
    let json = relay.examine(&config, NAT_NAME, &[]);
    assert_eq!(faults(&json), ["certificate_for_other_name", "relayed_elsewhere"], "{json:#}");
    // The server runs with the file as it was before.
    names(
        &json,
        "relayed_elsewhere",
        &["relayed addresses at 198.18.2.2", "it would announce 203.0.113.9", "hallpass reload"],
    );
    let facts = json["relay"]["checks"].to_string();
    for fact in ["announces 203.0.113.9 (external_ip for 10.0.0.5)", "203.0.113.9 leads back to this relay"] {
        assert!(facts.contains(fact), "{fact} in {json:#}");
    }
    inside(&relay.lab.router, &["nft", "delete", "table", "ip", "hairpin"]);
    relay.write_xml(NAME);
}

/// Told as a warning with the reason: it was asked for. Calls work, so the status is 0.
fn a_clock_that_cannot_be_asked(relay: &Relay) {
    let config = relay.files.path("good.toml");
    let mut arguments = relay.whole(&config, NAME);
    let clock = arguments.iter_mut().find(|argument| **argument == CLOCK).expect("the clock");
    *clock = "http://198.18.2.1:9";
    let json = relay.doctor().json(&arguments);
    assert_eq!(faults(&json), ["clock_not_compared"], "{json:#}");
    names(
        &json,
        "clock_not_compared",
        &["was not compared: no time came from http://198.18.2.1:9: refused", "try another machine"],
    );
    assert!(!said(&json, "clock_not_compared").contains("--clock http://HOST"), "{json:#}");
}

fn a_wrong_clock_and_a_changed_secret(relay: &Relay) {
    let config = relay.config("secret.toml", |text| text.replace(SECRET, "a secret that is not loaded"));
    let library = crate::logins::library().display().to_string();
    let doctor = relay
        .doctor()
        .with_variable("LD_PRELOAD", &library)
        // Half an hour more than a day, because times are rounded down.
        .with_variable("FAKETIME", "+88200s")
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let json = doctor.json(&relay.whole(&config, NAME));
    assert_eq!(faults(&json), ["clock_off", "secret_not_loaded", "xml_other_secret"], "{json:#}");
    names(&json, "clock_off", &["this machine's clock is 1 day ahead of that of 198.18.2.1", "set-ntp"]);
    names(
        &json,
        "secret_not_loaded",
        &["host test", "UDP 3478, TCP 3478 and TLS 443 at 198.18.2.2", "systemctl reload hallpass"],
    );
}

fn a_firewall(relay: &Relay) {
    let rules = "table inet guard { \
        chain input { type filter hook input priority 0; ct state established accept; udp dport 61000-65000 drop; }; \
        chain output { type filter hook output priority 0; udp sport 61000-65000 drop; }; }";
    inside(&relay.lab.server, &["nft", rules]);
    let json = relay.examine(&relay.files.path("good.toml"), NAME, &[]);
    assert_eq!(faults(&json), ["relay_ports_blocked_in", "relay_ports_blocked_out"], "{json:#}");
    let input = [
        "61000-65000 are dropped by the rule with handle",
        "nft -a list chain inet guard input",
        "`nft insert rule inet guard input udp dport 61000-65000 accept`",
    ];
    names(&json, "relay_ports_blocked_in", &input);
    let output =
        ["nft -a list chain inet guard output", "`ufw allow out proto udp from any port 61000:65000`"];
    names(&json, "relay_ports_blocked_out", &output);
    assert!(json["rungs"].as_array().expect("rungs").iter().all(|rung| rung["works"] == false), "{json:#}");
    inside(&relay.lab.server, &["nft", "flush", "ruleset"]);
    // Every listener in one run, and the command as printed lets them through.
    let rules = "table ip guard { \
        chain input { type filter hook input priority 0; policy drop; iif lo accept; ct state established accept; udp dport 61000-65000 accept; }; }";
    inside(&relay.lab.server, &["nft", rules]);
    let json = relay.examine(&relay.files.path("good.toml"), NAME, &[]);
    assert_eq!(faults(&json), ["listener_blocked"], "{json:#}");
    let said = said(&json, "listener_blocked");
    assert!(
        said.contains("udp 3478, tcp 3478 and tls 443 are dropped by the policy of chain input"),
        "{said}"
    );
    let commands = said.split('`').filter(|part| part.starts_with("nft insert rule"));
    for command in commands {
        inside(&relay.lab.server, &command.split(' ').collect::<Vec<_>>());
    }
    let json = relay.examine(&relay.files.path("good.toml"), NAME, &[]);
    assert_eq!(faults(&json), [""; 0], "{json:#}");
    inside(&relay.lab.server, &["nft", "flush", "ruleset"]);
}

fn a_server_that_does_not_run(mut relay: Relay) {
    let doctor = relay.doctor();
    let server = relay.server.take();
    // The certificate stays in the server's directory.
    if let Some(mut server) = server {
        server.signal("INT");
        assert!(server.wait_exit(LIMIT).is_some(), "{}", server.log());
        let json = doctor.json(&relay.whole(&relay.files.path("good.toml"), NAME));
        assert_eq!(faults(&json), ["not_running"], "{json:#}");
        names(&json, "not_running", &["systemctl start hallpass", "journalctl"]);
    }
}

/// Strict rules let only loopback addresses talk over `lo`. Then the machine does not reach its own address, and clients do.
#[test]
fn strict_rules_for_loopback_are_no_fault_of_the_relay() {
    let _turn = beside_others();
    let lab = Lab::new();
    let mut plan = Plan::on(&[Ipv4Addr::UNSPECIFIED.into()], &[]);
    plan.relay = vec![SERVER.into()];
    plan.namespace = Some(lab.server.clone());
    (plan.ports, plan.relay_ports) = (Some(PORTS), RELAY_PORTS);
    let server = Server::start(&plan);
    let config = server.files().path("hallpass.toml").display().to_string();
    let doctor = || {
        let ca = server.files().path("ca.pem");
        Examination::without_login().inside(&lab.server).trusting(&ca).json(&["--config", &config])
    };
    assert_eq!(errors(&doctor()), [""; 0]);
    let rules = "table inet strict { chain input { type filter hook input priority 0; policy drop; \
        iif lo ip saddr 127.0.0.0/8 accept; iif lo ip6 saddr ::1 accept; iifname != lo accept; }; }";
    inside(&lab.server, &["nft", rules]);
    let json = doctor();
    assert_eq!(errors(&json), [""; 0], "{json:#}");
    names(&json, "own_packets_dropped", &["strict rules for the interface lo", "keeps no client away"]);
    let rungs = json["rungs"].as_array().expect("rungs");
    assert!(rungs.len() == 3 && rungs.iter().all(|rung| rung["works"] == true), "{json:#}");
}

/// The codes of errors, without the verdict.
fn errors(json: &Value) -> Vec<&str> {
    let all = json["findings"].as_array().expect("findings").iter().skip(1);
    all.filter(|one| one["severity"] == "error").filter_map(|one| one["code"].as_str()).collect()
}
