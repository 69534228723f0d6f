//! Faults of network paths.

use crate::school::{PORTS, RANGE, School};
use crate::support::alone;
use crate::support::namespace::{SERVER, inside};
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use std::net::{IpAddr, Ipv4Addr};

const FORWARD: &str = "filter hook forward priority 0";
const LINE: &str = include_str!("line.py");

/// Gives the link between the firewall and the relay an MTU of 1280 that the relay cannot discover: its end of the link
/// has 1500, longer packets are dropped, and no ICMP is sent.
fn black_hole(school: &School) {
    let lab = &school.lab;
    inside(&lab.router, &["ip", "link", "set", "server", "mtu", "1280"]);
    // With offloading, a large write would cross a virtual link in one piece, unlike a real one.
    for (namespace, link) in [(&lab.server, "up0"), (&lab.client, "up0"), (&lab.router, "client")] {
        inside(namespace, &["ethtool", "-K", link, "tso", "off", "gso", "off", "gro", "off"]);
    }
    lab.firewall("filter hook output priority 0", &["icmp type destination-unreachable drop"]);
}

#[test]
fn a_narrow_path_without_icmp_over_udp() {
    let _turn = alone();
    let school = School::new();
    black_hole(&school);
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Udp]);
}

#[test]
fn a_narrow_path_without_icmp_over_tls() {
    let _turn = alone();
    let school = School::new();
    black_hole(&school);
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    let mut plan = school.plan();
    plan.limits = "mss = 1200".to_owned();
    let server = Server::start(&plan);
    school.call_over(&server, &[Transport::Tls]);
}

#[test]
fn two_percent_loss_and_100_ms_over_udp() {
    let _turn = alone();
    let school = School::new();
    let _line = school.lab.lengthen_client_link(LINE, 50, 2);
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Udp]);
}

#[test]
fn two_percent_loss_and_100_ms_over_tls() {
    let _turn = alone();
    let mut school = School::new();
    let _line = school.lab.lengthen_client_link(LINE, 50, 2);
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    school.call = serde_json::json!({ "limit": 60000 });
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Tls]);
}

#[test]
fn a_client_with_ipv6_alone_relays_over_ipv4() {
    let _turn = alone();
    let mut school = School::new();
    let server_v6 = school.lab.only_ipv6_for_the_client();
    school.address = server_v6;
    let mut plan = Plan::on(&[server_v6], &[RANGE]);
    plan.namespace = Some(school.lab.server.clone());
    plan.ports = Some(PORTS);
    plan.relay = vec![SERVER.into(), server_v6];
    let server = Server::start(&plan);
    let result = school.call_over(&server, &[Transport::Udp]);
    for end in ["caller", "callee"] {
        let relayed: IpAddr =
            result[end]["localAddress"].as_str().expect("an address").parse().expect("an IP");
        assert!(relayed.is_ipv4(), "{result:#}");
    }
}

#[test]
fn a_relay_behind_one_to_one_nat() {
    let _turn = alone();
    let mut school = School::new();
    let public = Ipv4Addr::new(198, 18, 9, 9);
    let rule = |rule: &str| rule.replace("PUBLIC", &public.to_string()).replace("OWN", &SERVER.to_string());
    school.lab.firewall("nat hook prerouting priority -100", &[&rule("ip daddr PUBLIC dnat to OWN")]);
    school.lab.firewall("nat hook postrouting priority 100", &[&rule("ip saddr OWN snat to PUBLIC")]);
    school.address = public.into();
    let mut plan = school.plan();
    plan.external = vec![public.into()];
    let server = Server::start(&plan);
    let result = school.call_over(&server, &[Transport::Udp]);
    assert_eq!(result["caller"]["localAddress"], public.to_string(), "{result:#}");
}
