//! Calls through firewalls and proxies.

use crate::school::{Browser, NAME, School, value};
use crate::support::alone;
use crate::support::namespace::CLIENT;
use crate::support::nginx::Nginx;
use crate::support::plan::Transport;
use crate::support::server::Server;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MIDDLEBOX: &str = include_str!("middlebox.py");
const PROXY: &str = include_str!("proxy.py");
const FORWARD: &str = "filter hook forward priority 0";

/// Redirects all TCP of the school to the middlebox and blocks everything else.
fn inspect_everything(school: &School) {
    school.lab.firewall(
        "nat hook prerouting priority -100",
        &["iifname client meta l4proto tcp redirect to :9000"],
    );
    school.lab.firewall(FORWARD, &["iifname client drop"]);
}

#[test]
fn an_open_network_uses_udp() {
    let _turn = alone();
    let school = School::new();
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Udp]);
}

#[test]
fn without_udp() {
    let _turn = alone();
    let school = School::new();
    school.lab.firewall(FORWARD, &["meta l4proto udp drop"]);
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Tcp, Transport::Tls]);
}

#[test]
fn only_the_ports_of_the_web() {
    let _turn = alone();
    let school = School::new();
    school.lab.firewall(FORWARD, &["iifname client tcp dport { 80, 443 } accept", "iifname client drop"]);
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Tcp, Transport::Tls]);
}

#[test]
fn only_tls_with_a_name_that_is_known() {
    only_tls(Browser::Chromium);
}

#[test]
fn only_tls_with_a_name_that_is_known_in_firefox() {
    only_tls(Browser::Firefox);
}

fn only_tls(browser: Browser) {
    let _turn = alone();
    let school = School { browser, ..School::new() };
    let middlebox = school.lab.start_in_router(MIDDLEBOX, &["9000", NAME]);
    inspect_everything(&school);
    let server = Server::start(&school.plan());
    school.call_over(&server, &[Transport::Tls]);
    let log = middlebox.output();
    assert!(log.contains("passed") && log.contains("refused"), "{log}");
}

#[test]
fn a_prober_that_wants_to_see_a_website() {
    let _turn = alone();
    let school = School::new();
    let middlebox = school.lab.start_in_router(MIDDLEBOX, &["9000", NAME, "prober"]);
    inspect_everything(&school);
    let mut plan = school.plan();
    plan.tls = "web = true".to_owned();
    let server = Server::start(&plan);
    school.call_over(&server, &[Transport::Tls]);
    assert!(middlebox.output().contains("passed"), "{}", middlebox.output());
}

#[test]
fn an_http_proxy_as_the_only_way_out() {
    only_a_proxy(Browser::Chromium);
}

#[test]
fn an_http_proxy_as_the_only_way_out_in_firefox() {
    only_a_proxy(Browser::Firefox);
}

fn only_a_proxy(browser: Browser) {
    let _turn = alone();
    let mut school = School { browser, ..School::new() };
    let [a, b, c, _] = CLIENT.octets();
    let gateway = format!("{a}.{b}.{c}.1");
    let server = Server::start(&school.plan());
    let proxy = school.lab.start_in_router(PROXY, &[&gateway, &school.address.to_string()]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    match browser {
        Browser::Chromium => school.flags.push(format!("--proxy-server=http://{gateway}:3128")),
        Browser::Firefox => school.flags.extend([
            "\"network.proxy.type\", 1".to_owned(),
            format!("\"network.proxy.ssl\", \"{gateway}\""),
            "\"network.proxy.ssl_port\", 3128".to_owned(),
            format!("\"network.proxy.http\", \"{gateway}\""),
            "\"network.proxy.http_port\", 3128".to_owned(),
        ]),
    }
    school.call_over(&server, &[Transport::Tcp, Transport::Tls]);
    assert!(proxy.output().contains("connected"), "{}", proxy.output());
}

#[test]
fn a_website_and_a_call_on_one_port() {
    on_one_port(Browser::Chromium);
}

#[test]
fn a_website_and_a_call_on_one_port_in_firefox() {
    on_one_port(Browser::Firefox);
}

fn on_one_port(browser: Browser) {
    let _turn = alone();
    let mut school = School { browser, ..School::new() };
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    let nginx = Nginx::start_in(Some(&school.lab.server), 100_000);
    let mut plan = school.plan();
    plan.tls = "web = true".to_owned();
    plan.tables =
        format!("[web]\nhttp1 = \"{}\"\nh2 = \"{}\"\nproxy_protocol = \"v1\"", nginx.http1, nginx.h2);
    let server = Server::start(&plan);
    school.call = json!({ "page": format!("https://{NAME}/big") });
    let result = school.call_over(&server, &[Transport::Tls]);
    assert_eq!((&result["fetched"], &result["fetchProblem"]), (&json!(20), &Value::Null), "{result:#}");
    let fetched = nginx.log().lines().filter(|line| line.starts_with(&CLIENT.to_string())).count();
    assert_eq!(fetched, 20, "with the browser's own address:\n{}", nginx.log());
    let metrics = school.metrics(&server);
    assert!(value(&metrics, "hallpass_shared_port_clients_total{client=\"turn\"}") >= 2, "{metrics}");
    assert!(value(&metrics, "hallpass_shared_port_clients_total{client=\"h2\"}") >= 1, "{metrics}");
}

#[test]
fn long_flows_are_reset_and_the_call_goes_on() {
    let _turn = alone();
    let mut school = School::new();
    let middlebox = school.lab.start_in_router(MIDDLEBOX, &["9000", NAME, "cut=6"]);
    inspect_everything(&school);
    let server = Server::start(&school.plan());
    school.call = json!({ "restarts": 1, "limit": 45000 });
    let result = school.call_over(&server, &[Transport::Tls]);
    assert!(middlebox.output().contains("reset"), "{}", middlebox.output());
    let resumed = result["resumed"][0].as_u64().expect("a time");
    assert!(resumed < 5000, "media came back after {resumed} ms: {result:#}");
    // The browser has exited, so all its allocations end now, before their lifetime expires.
    let end = Instant::now() + Duration::from_secs(5);
    let mut metrics = school.metrics(&server);
    while value(&metrics, "hallpass_allocations{host=\"test\",transport=\"tls\"}") > 0 {
        assert!(Instant::now() < end, "allocations remain:\n{metrics}");
        metrics = school.metrics(&server);
    }
    let made = value(&metrics, "hallpass_allocations_total{host=\"test\",transport=\"tls\"}");
    assert!(made >= 4, "two before the reset and two after it:\n{metrics}");
    // The browser closes some flows of an interrupted call itself, so not every flow counts as reset.
    let reset = "hallpass_connections_closed_total{transport=\"tls\",stage=\"allocated\",reason=\"reset\"}";
    assert!(value(&metrics, reset) >= 1, "{metrics}");
}
