//! The report for a terminal, at most 80 columns wide.

use std::fmt::Write;
use std::time::Duration;

use super::finding::Finding;
use super::letter::{heading, letter};
use super::outcome::Outcome;
use super::problem::problem;
use super::report::{Relay, Report};
use super::rung::Route;
use super::stage::Stage;
use super::text::{date, millis, wrap};
use super::tls::{Verdict, shown};
use crate::base::turn_url::place;

/// Width of a terminal in characters.
pub const WIDTH: usize = 80;
/// Width of the column of subjects.
const TOPIC: usize = 15;

/// Returns the whole report.
pub fn table(report: &Report) -> String {
    let mut out = match &report.relay {
        Some(relay) => examined(relay),
        None => head(report),
    };
    if report.relay.is_none() || !report.outcomes.is_empty() {
        rungs(report, &mut out);
    }
    if report.relay.is_none() {
        certificates(report, &mut out);
    }
    for finding in &report.diagnosis.findings {
        out.push('\n');
        findings(finding, &mut out);
    }
    if let (Some(addressee), Some(letter)) = (report.diagnosis.addressee, letter(report)) {
        let _ = write!(out, "\n---- {} ----\n\n{letter}", heading(addressee));
    }
    out
}

/// What was examined on the relay itself: a line for each subject.
fn examined(relay: &Relay) -> String {
    let mut out = wrap(&format!("The relay of {}, examined on this machine.", relay.file), "", WIDTH);
    out.push('\n');
    for check in &relay.checks {
        let facts = match check.is_tested() {
            true if check.facts.is_empty() => "see below".to_owned(),
            true => check.facts.join("; "),
            false => "not tested".to_owned(),
        };
        // The first line begins with the subject, the others below its text.
        let indent = " ".repeat(TOPIC + 4);
        let wrapped = wrap(&facts, &indent, WIDTH);
        let first = format!("{:<3} {:<TOPIC$}", check.mark(), check.topic);
        out.push_str(&wrapped.replacen(&indent, &first, 1));
    }
    out
}

/// A finding, with what to do about it.
fn findings(finding: &Finding, out: &mut String) {
    let Some(remedy) = &finding.remedy else { return out.push_str(&wrap(&finding.text, "", WIDTH)) };
    out.push_str(&wrap(&format!("{}: {}.", finding.severity.name(), finding.text), "", WIDTH));
    out.push_str(&wrap(remedy, "    ", WIDTH));
}

/// The rungs with their times.
fn rungs(report: &Report, out: &mut String) {
    let _ = writeln!(
        out,
        "\n    {:<9} {:<7} {:<12}{:>8} {:>6} {:>6} {:>6} {:>6}",
        "rung", "way", "reached", "connect", "TLS", "STUN", "relay", "loss"
    );
    let several = report.relay.is_none() && report.lookups.len() > 1;
    let mut host = "";
    for outcome in &report.outcomes {
        if several && outcome.rung.host != host {
            host = &outcome.rung.host;
            let _ = writeln!(out, "{host}");
        }
        row(outcome, out);
        let same = |other: &&Outcome| (&other.rung, other.route) == (&outcome.rung, outcome.route);
        if let Some(address) = outcome.address.filter(|_| report.outcomes.iter().filter(same).count() > 1) {
            let _ = writeln!(out, "      at {}", address.ip());
        }
    }
    out.push_str("Times in milliseconds. relay: from here through the relay and back.\n");
    if report.outcomes.iter().any(|outcome| mark(outcome) == "-") {
        out.push_str("- fails, but no URL names it: the relay may not offer it.\n");
    }
}

/// The names, this computer, and the proxy.
fn head(report: &Report) -> String {
    let mut out = String::new();
    for lookup in &report.lookups {
        let text = match &lookup.addresses {
            Ok(addresses) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                if all == [lookup.name.as_str()] {
                    format!("The relay is {}.", lookup.name)
                } else {
                    format!("{} is {} (found in {} ms).", lookup.name, all.join(", "), millis(lookup.took))
                }
            }
            Err(cause) => format!("{} has no address: {cause}.", lookup.name),
        };
        out.push_str(&wrap(&text, "", WIDTH));
    }
    let direct = || report.outcomes.iter().filter(|outcome| outcome.route != Route::Proxy);
    if let Some(local) = direct().find_map(|outcome| outcome.local) {
        let seen = direct().find_map(|outcome| outcome.mapped).filter(|mapped| mapped.ip() != local.ip());
        let seen = seen.map_or_else(String::new, |mapped| format!(", and the relay sees {}", mapped.ip()));
        out.push_str(&wrap(&format!("This computer is {}{seen}.", local.ip()), "", WIDTH));
    }
    if let Some(proxy) = &report.proxy {
        out.push_str(&wrap(&format!("The web proxy is {proxy}."), "", WIDTH));
    }
    if let Some(software) = report.outcomes.iter().find_map(|outcome| outcome.software.as_ref()) {
        out.push_str(&wrap(&format!("The relay runs {software}."), "", WIDTH));
    }
    out
}

/// A relay need not offer a rung that no URL names.
fn mark(outcome: &Outcome) -> &'static str {
    match (outcome.works(), outcome.rung.is_given) {
        (true, _) => "ok",
        (false, true) => "no",
        (false, false) => "-",
    }
}

fn row(outcome: &Outcome, out: &mut String) {
    let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), millis);
    let exchange = outcome.exchange.as_ref();
    let trip = exchange.and_then(|exchange| exchange.trip).map(|[_, median, _]| median);
    let loss =
        exchange.map_or_else(|| "-".to_owned(), |exchange| format!("{:.0} %", exchange.loss() * 100.0));
    let _ = writeln!(
        out,
        "{:<3} {:<9} {:<7} {:<12}{:>8} {:>6} {:>6} {:>6} {:>6}",
        mark(outcome),
        outcome.rung.to_string(),
        outcome.route.name(),
        outcome.reached.map_or("nothing", Stage::name),
        time(outcome.times.connect),
        time(outcome.times.handshake),
        time(outcome.times.round_trip),
        time(trip),
        loss,
    );
    if let Some(problem) = problem(outcome) {
        out.push_str(&wrap(&problem, "      ", WIDTH));
    }
}

/// The different certificates that were seen.
fn certificates(report: &Report, out: &mut String) {
    let mut known = Vec::new();
    for outcome in &report.outcomes {
        let Some(certificate) = &outcome.certificate else { continue };
        let Some(leaf) = certificate.chain.first().filter(|_| !known.contains(&certificate)) else {
            continue;
        };
        known.push(certificate);
        let mut text = format!(
            "Certificate at {}: for {}, issued by {}, valid from {} to {}",
            place(&outcome.rung.host, outcome.rung.port),
            if leaf.names.is_empty() { shown(&leaf.subject) } else { leaf.names.join(", ") },
            certificate.issuer(),
            date(leaf.not_before),
            date(leaf.not_after),
        );
        text.push_str(match &certificate.verdict {
            Verdict::Public => "; a public authority vouches for it.",
            Verdict::Added => "; an authority vouches for it that was added to this computer.",
            Verdict::Unchecked => "; this computer has no list of authorities to check it.",
            _ => "; browsers refuse it.",
        });
        out.push('\n');
        out.push_str(&wrap(&text, "", WIDTH));
    }
}
