//! `hallpass checks`: what visitors of the test page found.

use std::process::ExitCode;

use serde_json::Value;

use super::args::ChecksArgs;
use super::running::{self, Failed};
use super::{output, table};
use crate::base::text::{counted, duration, or_dash};
use crate::system::clock;

/// What the verdicts mean, and the stages that ways reach, in the words of the page.
const VERDICTS: [(&str, &str); 8] = [
    ("good", "video lessons work"),
    ("weak", "video lessons work, but packets are lost, late or few"),
    ("no_udp", "video lessons work over TLS; UDP is blocked"),
    ("no_udp_weak", "video lessons may work; UDP is blocked, and the rest is poor"),
    ("only_tcp", "video lessons work over TCP; UDP and TLS are blocked"),
    ("blocked", "video lessons do not work: no way to the relay is open"),
    ("no_login", "the relay refused the login of the test"),
    ("no_webrtc", "the browser has no WebRTC"),
];
const STAGES: [(&str, &str); 8] = [
    ("none", "blocked: no answer"),
    ("refused", "refused by the relay"),
    ("allocation", "login accepted, nothing passes"),
    ("connection", "connected, packets do not come back"),
    ("round_trip", "works; throughput unknown"),
    ("throughput", "works; no pictures in time"),
    ("media", "works"),
    ("address", "answered"),
];

/// Asks the running server and prints the results.
pub(super) fn run(args: &ChecksArgs) -> ExitCode {
    let page = match running::ask(&args.server, "/checks", &[("code", &args.code)]) {
        Ok(page) => page,
        Err(Failed { message, next_step }) => return output::fail(&message, &next_step),
    };
    let checks = running::list(&page["checks"]);
    if let (Some(code), true) = (&args.code, checks.is_empty()) {
        return output::fail(
            &format!("there is no result with the code {code:?}"),
            "results are kept for a day and until the server restarts: hallpass checks lists them",
        );
    }
    let text = match (args.server.json, &args.code) {
        (true, _) => output::json(&page),
        (false, None) => all(checks, clock::unix_seconds()),
        (false, Some(_)) => checks.iter().map(|check| one(check, clock::unix_seconds())).collect(),
    };
    output::print_fitting(&text)
}

fn words<'a>(list: &'a [(&str, &str)], name: &'a str) -> &'a str {
    list.iter().find(|(known, _)| *known == name).map_or(name, |(_, words)| *words)
}

fn text<'a>(check: &'a Value, key: &str) -> &'a str {
    check[key].as_str().unwrap_or_default()
}

fn ago(check: &Value, now: u64) -> String {
    duration(now.saturating_sub(check["time"].as_u64().unwrap_or(now)))
}

/// A line for each result.
fn all(checks: &[Value], now: u64) -> String {
    if checks.is_empty() {
        return "nobody has used the test page in the last day\n".to_owned();
    }
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            let verdict = words(&VERDICTS, text(check, "verdict")).to_owned();
            let inspected = if check["intercepted"] == true { "; TLS is likely inspected" } else { "" };
            let cells = ["code", "network", "browser"].map(|key| or_dash(text(check, key)));
            [vec![ago(check, now)], cells.to_vec(), vec![verdict + inspected]].concat()
        })
        .collect();
    let lines = table::align(&["AGO", "CODE", "NETWORK", "BROWSER", "RESULT"], &rows).join("\n");
    format!("{lines}\n{}; hallpass checks CODE shows one\n", counted(checks.len(), "result"))
}

/// One result with its ways.
fn one(check: &Value, now: u64) -> String {
    let mut lines = vec![format!(
        "{}, {} ago, from {} with {}",
        or_dash(text(check, "code")),
        ago(check, now),
        or_dash(text(check, "network")),
        or_dash(text(check, "browser")),
    )];
    lines.push(words(&VERDICTS, text(check, "verdict")).to_owned());
    if check["intercepted"] == true {
        lines.push("a device there likely opens encrypted connections (TLS inspection)".to_owned());
    }
    let number = |way: &Value, key: &str, unit: &str| match way[key].as_f64() {
        Some(value) => format!("{value:.1}{unit}"),
        None => "-".to_owned(),
    };
    let rows: Vec<Vec<String>> = running::list(&check["rungs"])
        .iter()
        .map(|way| {
            let name = text(way, "id")
                .replace('-', " ")
                .replace("udp", "UDP")
                .replace("tcp", "TCP")
                .replace("tls", "TLS");
            let mbit = way["kbit"].as_f64().map_or("-".to_owned(), |kbit| format!("{:.1}", kbit / 1000.0));
            vec![
                or_dash(&name),
                words(&STAGES, text(way, "stage")).to_owned(),
                number(way, "rtt_ms", ""),
                number(way, "jitter_ms", ""),
                number(way, "loss_percent", " %"),
                mbit,
            ]
        })
        .collect();
    lines.extend(table::align(&["WAY", "REACHED", "MS", "JITTER", "LOST", "MBIT/S"], &rows));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_is_a_line_and_with_its_code_a_table() {
        let check = json!({
            "code": "K7QF", "time": 1000, "network": "192.0.2.0/24", "browser": "Firefox 153", "intercepted": true,
            "verdict": "no_udp",
            "rungs": [
                { "id": "udp-3479", "stage": "none", "rtt_ms": null },
                { "id": "tls-443", "stage": "media", "rtt_ms": 12.25, "jitter_ms": 1.0, "loss_percent": 0.5, "kbit": 4100 },
            ],
        });
        assert_eq!(
            all(std::slice::from_ref(&check), 1065),
            "\
AGO    CODE  NETWORK       BROWSER      RESULT
1m 5s  K7QF  192.0.2.0/24  Firefox 153  video lessons work over TLS; UDP is blocked; TLS is likely inspected
1 result; hallpass checks CODE shows one
"
        );
        assert_eq!(
            one(&check, 1065),
            "\
K7QF, 1m 5s ago, from 192.0.2.0/24 with Firefox 153
video lessons work over TLS; UDP is blocked
a device there likely opens encrypted connections (TLS inspection)
WAY       REACHED             MS    JITTER  LOST   MBIT/S
UDP 3479  blocked: no answer  -     -       -      -
TLS 443   works               12.2  1.0     0.5 %  4.1
"
        );
        assert_eq!(all(&[], 0), "nobody has used the test page in the last day\n");
    }
}
