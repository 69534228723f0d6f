//! Clients behind hostile firewalls: each situation is named, and the letter asks for what is missing.

use crate::examination::{Examination, codes, letter, rung};
use crate::support::beside_others;
use crate::support::files::Directory;
use crate::support::namespace::{CLIENT, Lab, PEER, SERVER};
use crate::support::plan::Plan;
use crate::support::server::Server;
use crate::support::tool::run_ok;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

const NAME: &str = "relay.test";
/// Ports for UDP, TCP and TLS.
const PORTS: [u16; 3] = [3478, 80, 443];
/// Documentation and benchmark ranges, which the policy refuses unless they are allowed.
const RANGE: &str = "198.18.0.0/15";
const URLS: [&str; 3] = ["turn:relay.test:3478", "turn:relay.test:80?transport=tcp", "turns:relay.test:443"];

const MIDDLEBOX: &str = include_str!("../lab/middlebox.py");
const PROXY: &str = include_str!("../lab/proxy.py");
const INSPECTOR: &str = include_str!("inspector.py");
const FORWARD: &str = "filter hook forward priority 0";

/// A school with a firewall, and a relay outside.
struct School {
    lab: Lab,
    server: Server,
}

impl School {
    fn new() -> School {
        let lab = Lab::new();
        lab.client_knows(NAME, SERVER.into());
        let mut plan = Plan::on(&[SERVER.into()], &[RANGE]);
        plan.namespace = Some(lab.server.clone());
        plan.ports = Some(PORTS);
        plan.name = Some(NAME);
        let server = Server::start(&plan);
        School { lab, server }
    }

    fn doctor(&self) -> Examination {
        Examination::new().inside(&self.lab.client).trusting(&self.server.files().path("ca.pem"))
    }

    /// Runs the doctor with all URLs of the relay.
    fn examine(&self, more: &[&str]) -> Value {
        self.doctor().json(&[&URLS[..], &["--exact"], more].concat())
    }
}

/// The router's address on the client's side.
fn gateway() -> Ipv4Addr {
    let [a, b, c, _] = CLIENT.octets();
    Ipv4Addr::new(a, b, c, 1)
}

#[test]
fn an_open_network() {
    let _turn = beside_others();
    let school = School::new();
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["works"], "{json:#}");
    for (transport, port) in ["udp", "tcp", "tls"].iter().zip(PORTS) {
        assert_eq!(rung(&json, transport, port, "direct")["reached"], "data", "{json:#}");
    }
}

#[test]
fn two_families_and_an_address_without_a_relay() {
    let _turn = beside_others();
    let lab = Lab::new();
    lab.add_ipv6();
    let v6: IpAddr = "2001:db8:2::2".parse().expect("an address");
    // The peer's namespace has no relay.
    lab.knows(
        &lab.client,
        &[(NAME, &SERVER.to_string()), (NAME, &PEER.to_string()), (NAME, &v6.to_string())],
    );
    let mut plan = Plan::on(&[SERVER.into(), v6], &[RANGE, "2001:db8::/32"]);
    (plan.namespace, plan.ports, plan.name) = (Some(lab.server.clone()), Some(PORTS), Some(NAME));
    let school = School { server: Server::start(&plan), lab };
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["works", "address_silent"], "{json:#}");
    assert!(json["findings"][1]["text"].as_str().expect("a text").contains("at 198.18.3.2."), "{json:#}");
    for (transport, port) in ["udp", "tcp", "tls"].iter().zip(PORTS) {
        assert_eq!(rung(&json, transport, port, "direct")["reached"], "data", "{json:#}");
        let over_v6 = rung(&json, transport, port, "ipv6");
        assert_eq!(
            (&over_v6["reached"], &over_v6["address"]),
            (&"data".into(), &v6.to_string().into()),
            "{json:#}"
        );
    }
    assert_eq!(json["rungs"].as_array().map(Vec::len), Some(9), "{json:#}");
}

#[test]
fn without_udp() {
    let _turn = beside_others();
    let school = School::new();
    school.lab.firewall(FORWARD, &["meta l4proto udp drop"]);
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["works_without_udp"], "{json:#}");
    let udp = rung(&json, "udp", 3478, "direct");
    assert_eq!((&udp["reached"], &udp["fault"]["stage"]), (&"name".into(), &"stun".into()), "{json:#}");
    let letter = letter(&json);
    for part in ["relay.test (198.18.2.2)", "UDP port 3478: the best way", "(198.18.1.2)"] {
        assert!(letter.contains(part), "{part} in {letter}");
    }
    assert_eq!(json["letter_for"], "network");
}

#[test]
fn only_port_443() {
    let _turn = beside_others();
    let school = School::new();
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["works_without_udp"], "{json:#}");
    assert!(json["findings"][0]["text"].as_str().expect("a text").contains("over TLS 443."), "{json:#}");
    assert_eq!(rung(&json, "tcp", 80, "direct")["fault"]["code"], "no_answer", "{json:#}");
}

#[test]
fn only_port_443_and_the_usual_ports_of_a_single_url() {
    let _turn = beside_others();
    let school = School::new();
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    let json = school.doctor().json(&["turns:relay.test:443"]);
    assert_eq!(codes(&json), ["works_without_udp"], "{json:#}");
    assert!(letter(&json).contains("UDP port 3479 (only if the administrator of the relay says"));
}

#[test]
fn an_http_proxy_as_the_only_way_out() {
    let _turn = beside_others();
    let school = School::new();
    let _proxy = school.lab.start_in_router(PROXY, &[&gateway().to_string(), &SERVER.to_string()]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let url = format!("http://{}:3128", gateway());
    let json = school.examine(&["--proxy", &url]);
    assert_eq!(codes(&json), ["works_only_through_proxy"], "{json:#}");
    for (transport, port) in [("tcp", 80), ("tls", 443)] {
        assert_eq!(rung(&json, transport, port, "proxy")["reached"], "data", "{json:#}");
        assert_eq!(rung(&json, transport, port, "direct")["reached"], "name", "{json:#}");
    }
    assert!(letter(&json).contains(&format!("web proxy {url}: please allow CONNECT")));
    // The same from the environment, where the name is not even known; and a port that the proxy refuses.
    school.lab.client_knows("other.test", SERVER.into());
    let doctor = school.doctor().with_variable("HTTPS_PROXY", &url);
    let json = doctor.json(&["turns:relay.test:443", "turn:relay.test:3478?transport=tcp", "--exact"]);
    assert_eq!(json["verdict"], "works_only_through_proxy", "{json:#}");
    let refused = rung(&json, "tcp", 3478, "proxy");
    assert_eq!(refused["fault"]["code"], "proxy_refuses", "{json:#}");
    assert_eq!(rung(&json, "tls", 443, "direct")["fault"]["code"], "name_unknown", "{json:#}");
}

/// Writes cert.pem and key.pem: a certificate for the relay from an authority that nobody trusts.
fn make_foreign_certificate(files: &Directory) {
    let path = |name: &str| files.path(name).display().to_string();
    let openssl = |further: &[&str]| {
        let always =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"];
        run_ok("openssl", &[&always[..], further].concat(), std::time::Duration::from_secs(20));
    };
    let (ca, ca_key) = (path("filter.pem"), path("filter.key"));
    openssl(&["-subj", "/O=School/CN=Filter CA", "-keyout", &ca_key, "-out", &ca]);
    let (cert, key, names) = (path("cert.pem"), path("key.pem"), format!("subjectAltName=DNS:{NAME}"));
    let subject = format!("/CN={NAME}");
    let no_ca = "basicConstraints=critical,CA:FALSE";
    let issued = ["-CA", &ca, "-CAkey", &ca_key, "-subj", &subject, "-addext", &names, "-addext", no_ca];
    openssl(&[&issued[..], &["-keyout", &key, "-out", &cert]].concat());
}

#[test]
fn inspection_with_a_foreign_authority() {
    let _turn = beside_others();
    let school = School::new();
    let files = Directory::new("inspector");
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    make_foreign_certificate(&files);
    let paths = [&cert, &key].map(|path| path.display().to_string());
    let inspector = school.lab.start_in_router(INSPECTOR, &["9000", &paths[0], &paths[1]]);
    let redirect = "iifname client tcp dport 443 redirect to :9000";
    school.lab.firewall("nat hook prerouting priority -100", &[redirect]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let json = school.examine(&[]);
    assert!(inspector.output().contains("opened"), "{}", inspector.output());
    assert_eq!(codes(&json), ["intercepted"], "{json:#}");
    let text = json["findings"][0]["text"].as_str().expect("a text");
    assert!(text.contains("is from \"Filter CA (School)\", not from a public authority"), "{text}");
    assert_eq!(rung(&json, "tls", 443, "direct")["certificate"]["verdict"], "unknown_issuer", "{json:#}");
    assert!(letter(&json).contains("TCP port 443 (TLS), exempt from TLS inspection"));
}

#[test]
fn a_firewall_that_knows_names() {
    let _turn = beside_others();
    let school = School::new();
    // It resets TLS for all names but one.
    let _middlebox = school.lab.start_in_router(MIDDLEBOX, &["9000", "allowed.test"]);
    let redirect = "iifname client meta l4proto tcp redirect to :9000";
    school.lab.firewall("nat hook prerouting priority -100", &[redirect]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let json = school.examine(&[]);
    assert_eq!(json["works"], false, "{json:#}");
    let tls = rung(&json, "tls", 443, "direct");
    assert_eq!((&tls["reached"], &tls["fault"]["stage"]), (&"tcp".into(), &"tls".into()), "{json:#}");
    assert_eq!(codes(&json), ["reset"], "{json:#}");
    let text = json["findings"][0]["text"].as_str().expect("a text");
    assert!(text.contains("hallpass top") && text.contains("a firewall of this network"), "{text}");
    assert_eq!(json["letter_for"], "network", "{json:#}");
}

#[test]
fn wrong_answers_of_the_name_service() {
    let _turn = beside_others();
    let school = School::new();
    let at = |name: &str, address: IpAddr| {
        school.lab.client_knows(name, address);
        let json = school.examine(&[]);
        (json["verdict"].as_str().expect("a verdict").to_owned(), json)
    };
    let (verdict, json) = at("other.test", SERVER.into());
    assert_eq!(verdict, "name_unknown", "{json:#}");
    assert!(letter(&json).contains("name service (DNS)"));
    let (verdict, json) = at(NAME, Ipv4Addr::LOCALHOST.into());
    assert_eq!(verdict, "wrong_address", "{json:#}");
    // Another computer, which has no such ports.
    let (verdict, json) = at(NAME, PEER.into());
    assert_eq!(verdict, "refused", "{json:#}");
    assert!(json["findings"][0]["text"].as_str().expect("a text").contains("198.18.3.2"), "{json:#}");
}

#[test]
fn a_silent_name_server() {
    let _turn = beside_others();
    let school = School::new();
    let files = Path::new("/etc/netns").join(&school.lab.client);
    std::fs::write(files.join("resolv.conf"), format!("nameserver {SERVER}\n")).expect("the client's files");
    std::fs::write(files.join("nsswitch.conf"), "hosts: dns\n").expect("the client's files");
    let _proxy = school.lab.start_in_router(PROXY, &[&gateway().to_string(), &SERVER.to_string()]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let json = school.examine(&["--no-proxy"]);
    assert_eq!(codes(&json), ["no_name_server"], "{json:#}");
    // The proxy looks the name up itself.
    let json = school.examine(&["--proxy", &format!("http://{}:3128", gateway())]);
    assert_eq!(codes(&json), ["works_only_through_proxy"], "{json:#}");
}

#[test]
fn everything_is_blocked() {
    let _turn = beside_others();
    let school = School::new();
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    // The router drops what is for itself, too, so that the proxy is silent.
    school.lab.firewall("filter hook input priority 0", &["iifname client drop"]);
    let json = school.examine(&["--proxy", &format!("http://{}:3128", gateway())]);
    assert_eq!(codes(&json), ["blocked", "no_proxy"], "{json:#}");
    let letter = letter(&json);
    for part in
        ["UDP port 3478", "TCP port 80", "TCP port 443 (TLS)", "TCP 80 to 198.18.2.2: TCP: no answer in 5 s"]
    {
        assert!(letter.contains(part), "{part} in {letter}");
    }
}

#[test]
fn connections_that_open_and_then_stay_silent() {
    let _turn = beside_others();
    let school = School::new();
    // Lets handshakes through and drops everything after them, so that each stage waits for its limit.
    let silent = "iifname client tcp flags & (syn | ack) == ack tcp flags & psh == psh drop";
    school.lab.firewall(FORWARD, &[silent, "iifname client meta l4proto udp drop"]);
    let json = school.examine(&[]);
    assert_eq!(json["works"], false, "{json:#}");
    assert_eq!(rung(&json, "tcp", 80, "direct")["reached"], "tcp", "{json:#}");
    let tls = rung(&json, "tls", 443, "direct");
    assert_eq!((&tls["reached"], &tls["fault"]["stage"]), (&"tcp".into(), &"tls".into()), "{json:#}");
    assert_eq!(codes(&json), ["cut_off"], "{json:#}");
}

#[test]
fn a_client_with_ipv6_alone_and_a_relay_with_ipv4_alone() {
    let _turn = beside_others();
    let school = School::new();
    let _ = school.lab.only_ipv6_for_the_client();
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["other_family"], "{json:#}");
    let text = json["findings"][0]["text"].as_str().expect("a text");
    assert!(
        text.contains("this computer has IPv6 alone, and relay.test (198.18.2.2) has only an IPv4"),
        "{text}"
    );
    assert_eq!(json["letter_for"], "relay");
}

#[test]
fn a_computer_without_a_network() {
    let _turn = beside_others();
    let school = School::new();
    crate::support::namespace::inside(&school.lab.client, &["ip", "link", "set", "up0", "down"]);
    let json = school.examine(&[]);
    assert_eq!(codes(&json), ["offline"], "{json:#}");
}
