//! `hallpass load` against the running server: every action over every transport that it supports.

use crate::support::plan::{Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use serde_json::Value;
use std::fs;
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

/// Runs lessons of four pupils and a teacher, with a share of each transport, and returns the exit status and the report.
fn lesson(server: &Server, args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
        .args(["load", "--scenario", "lesson", "--class-size", "4", "--pupils", "4", "--cameras", "1"])
        .args(["--server", &server.v4(Transport::Udp).to_string()])
        .args(["--tcp-server", &server.v4(Transport::Tcp).to_string()])
        .args(["--tls-server", &server.v4(Transport::Tls).to_string()])
        .args(["--insecure", "--tls-name", "relay.test", "--secret", SECRET, "--quiet", "--json"])
        .args(["--server-pid", &server.pid().to_string(), "--warm-up", "0.1", "--duration", "1"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text);
    let report = report.unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// Bounds that a test beside others on a busy machine keeps.
const WIDE: [&str; 4] = ["--max-loss", "20", "--max-latency", "10000"];

/// Also against coturn, which the command has to measure, too.
#[test]
fn lessons_say_how_many_pupils_a_relay_carries() {
    let server = Server::start(&Plan::loopback());
    let page = server.files().path("lesson.html");
    let more = ["--mix", "udp=60,tcp=20,tls=20", "--ramp", "--max-pupils", "8", "--rejoin", "4"];
    let (status, report) =
        lesson(&server, &[&more, &WIDE[..], &["--report", page.to_str().unwrap()]].concat());
    assert_eq!(status, Some(0), "{report}");
    let answer = &report["answer"];
    assert_eq!((&answer["pupils"], &answer["broken_at"]), (&8.into(), &Value::Null), "{answer}");
    assert!(
        answer["text"].as_str().unwrap().starts_with("This relay carries at least 8 pupils in 2 lessons")
    );
    let steps = report["steps"].as_array().unwrap();
    let pupils: Vec<_> = steps.iter().map(|step| number(&step["pupils"])).collect();
    assert_eq!(pupils, [4.0, 8.0, 8.0], "two steps and the confirmation");
    for step in steps {
        // 5 or 10 people talk and listen 50 times a second, see 2 cameras and a screen.
        let people = number(&step["participants"]);
        let rate = number(&step["sent"]) / number(&step["seconds"]);
        assert!((people * 100.0..people * 300.0).contains(&rate), "{step}");
        assert!(number(&step["latency_us"]["p50"]) > 0.0, "{step}");
        assert_eq!(step["joins"]["failed"], serde_json::json!({}), "{step}");
        assert!(number(&step["server"]["cpu_cores"]) > 0.0, "{step}");
    }
    // Four allocations for each of 5, then for 5 more; those who leave come back.
    assert_eq!(number(&steps[0]["allocations"]), 20.0);
    let joined = |step: usize| number(&steps[step]["joins"]["done"]);
    assert!(joined(0) >= 20.0 && joined(1) >= 20.0 && joined(0) + joined(1) + joined(2) > 40.0, "{report}");
    assert!(report["seconds"].as_array().unwrap().len() >= 3);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("carries at least 8 pupils") && page.matches("role=\"img\"").count() == 8);
}

#[test]
fn lessons_name_the_limit_that_stopped_them() {
    if skip_on_coturn("limits of Hallpass") {
        return;
    }
    let limits = "packets_per_user = 20\nallocations_per_user = 4".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::loopback() });
    // A participant sends and receives more than 20 packets a second. Only the server's counters show that it dropped them.
    let admin = server.admin().to_string();
    let (status, report) = lesson(&server, &["--admin", &admin, "--max-latency", "10000"]);
    let text = report["answer"]["text"].as_str().unwrap();
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("limits.packets_per_user") && text.starts_with("No answer"), "{text}");
    // Five allocations for each participant, where the server permits four.
    let (status, report) = lesson(&server, &["--teachers", "2"]);
    let text = report["answer"]["text"].as_str().unwrap();
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("limits.allocations_per_user") && text.contains("6 x error 486"), "{text}");

    let strict = Server::start(&Plan { allow: vec![], ..Plan::loopback() });
    let (status, report) = lesson(&strict, &[]);
    let text = report["answer"]["text"].as_str().unwrap();
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("[peers] allow") && text.contains("error 403"), "{text}");

    let other = load(&server, Transport::Udp, &["traffic", "--pupils", "3"]);
    assert_eq!(other.status.code(), Some(2));
}
