//! `hallpass load` against the running server: every action over every transport that it supports.

use crate::support::plan::{Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use serde_json::Value;
use std::process::{Command, Output};

fn load(server: &Server, transport: Transport, args: &[&str]) -> Output {
    let name = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    };
    Command::new(env!("CARGO_BIN_EXE_hallpass"))
        .arg("load")
        .args(args)
        .args(["--server", &server.v4(transport).to_string(), "--transport", name, "--secret", SECRET])
        .args(["--insecure", "--tls-name", "relay.test", "--server-pid", &server.pid().to_string()])
        .args(["--quiet", "--warm-up", "0.1", "--duration", "0.5"])
        .output()
        .unwrap()
}

/// Returns the report of a run without errors.
fn report(server: &Server, transport: Transport, args: &[&str]) -> Value {
    let output = load(server, transport, &[args, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{args:?} over {transport:?}: {errors}{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["errors"].as_object().map(|errors| errors.len()), Some(0), "{report}");
    report
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn every_action_reports_plausible_figures() {
    if skip_on_coturn("the load generator") {
        return;
    }
    let limits = "unauthenticated_per_source = 0\nrequests_per_user = 0".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::loopback() });
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        for more in [&["--via", "channel"][..], &["--via", "indication"], &["--saturate", "--window", "8"]] {
            let traffic = report(&server, transport, &[&["traffic", "--allocations", "5"], more].concat());
            assert_eq!(traffic["allocations"], 5);
            assert!(number(&traffic["received"]["from_client"]) > 0.0, "{traffic}");
            assert!(number(&traffic["received"]["from_peer"]) > 0.0, "{traffic}");
            assert!(number(&traffic["latency_us"]["p50"]) <= number(&traffic["latency_us"]["max"]));
            assert!(number(&traffic["server"]["cpu_us_per_unit"]) > 0.0);
        }
        for action in ["setups", "bindings"] {
            let done = report(&server, transport, &[action, "--concurrency", "4"]);
            assert!(number(&done["operations"]) > 0.0, "{done}");
        }
        let idle = report(&server, transport, &["idle", "--allocations", "20"]);
        assert_eq!(idle["allocations"], 20);
        assert!(number(&idle["server"]["rss_during"]) > 0.0);
        let churn = report(&server, transport, &["churn", "--allocations", "20", "--total", "50"]);
        assert_eq!(churn["operations"], 50);
    }
    let handshakes = report(&server, Transport::Tls, &["handshakes", "--concurrency", "2"]);
    assert!(number(&handshakes["operations"]) > 0.0);
    let own = ["traffic", "--allocations", "3", "--own-sockets", "--burst", "4", "--trains"];
    assert_eq!(report(&server, Transport::Udp, &own)["allocations"], 3);
}

#[test]
fn failures_are_reported_and_set_the_exit_status() {
    if skip_on_coturn("the load generator") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let wrong = ["--username", "nobody", "--password", "x"];
    let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
        .args(["load", "traffic", "--allocations", "2", "--quiet", "--server"])
        .arg(server.v4(Transport::Udp).to_string())
        .args(wrong)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("2 x Allocate: 401"), "{text}");

    let no_process = load(&server, Transport::Udp, &["idle", "--server-pid", "4000000000"]);
    assert_eq!(no_process.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&no_process.stderr).contains("4000000000"));

    let readable = load(&server, Transport::Udp, &["traffic", "--allocations", "2"]);
    let text = String::from_utf8_lossy(&readable.stdout);
    assert!(text.contains("packets/s") && text.contains("server CPU"), "{text}");
}
