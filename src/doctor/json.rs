//! The report as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::Check;
use super::finding::{Addressee, Finding, Severity};
use super::letter::letter;
use super::outcome::Outcome;
use super::report::{Relay, Report};
use super::stage::Stage;
use super::tls::{Certificate, shown};

/// Returns the report as one JSON object. Times are in milliseconds, dates in seconds since 1970.
pub fn json(report: &Report) -> String {
    let diagnosis = &report.diagnosis;
    let findings: Vec<Value> = diagnosis.findings.iter().map(finding).collect();
    let names: Vec<Value> = report
        .lookups
        .iter()
        .map(|lookup| {
            json!({
                "name": lookup.name,
                "addresses": lookup.addresses.as_deref().unwrap_or_default(),
                "error": lookup.addresses.as_ref().err().map(|cause| cause.code()),
                "ms": ms(Some(lookup.took)),
            })
        })
        .collect();
    let all = json!({
        "works": diagnosis.works,
        "verdict": diagnosis.findings.first().map(|one| one.code),
        "findings": findings,
        "relay": report.relay.as_ref().map(relay),
        "names": names,
        "proxy": report.proxy,
        "rungs": report.outcomes.iter().map(rung).collect::<Vec<_>>(),
        "letter": letter(report),
        "letter_for": diagnosis.addressee.map(|addressee| match addressee {
            Addressee::Network => "network",
            Addressee::Relay => "relay",
            Addressee::Either => "either",
        }),
        "begun": report.begun,
        "ms": ms(Some(report.took)),
        "version": env!("CARGO_PKG_VERSION"),
    });
    format!("{all:#}\n")
}

fn finding(one: &Finding) -> Value {
    json!({ "code": one.code, "severity": one.severity.name(), "text": one.text, "remedy": one.remedy })
}

fn relay(relay: &Relay) -> Value {
    let check = |check: &Check| {
        json!({
            "topic": check.topic,
            "tested": check.is_tested(),
            "severity": check.severity().map(Severity::name),
            "facts": check.facts,
            "findings": check.findings.iter().map(|one| one.code).collect::<Vec<_>>(),
        })
    };
    json!({ "config": relay.file, "checks": relay.checks.iter().map(check).collect::<Vec<_>>() })
}

fn rung(outcome: &Outcome) -> Value {
    let fault = outcome.fault.as_ref().map(|fault| {
        json!({ "stage": fault.stage.code(), "code": fault.cause.code(), "text": fault.cause.to_string() })
    });
    let data = outcome.exchange.map(|exchange| {
        let [least, median, most] = exchange.trip.map_or([None; 3], |trips| trips.map(Some));
        json!({
            "sent": exchange.small[0], "received": exchange.small[1],
            "large_sent": exchange.large[0], "large_received": exchange.large[1],
            "loss_ratio": exchange.loss(),
            "trip_ms": { "min": ms(least), "median": ms(median), "max": ms(most) },
        })
    });
    json!({
        "host": outcome.rung.host,
        "transport": outcome.rung.transport.name(),
        "port": outcome.rung.port,
        "given": outcome.rung.is_given,
        "way": outcome.route.name().to_ascii_lowercase(),
        "address": outcome.address.map(|address| address.ip()),
        "works": outcome.works(),
        "reached": outcome.reached.map(Stage::code),
        "fault": fault,
        "untested": outcome.untested.map(super::outcome::Untested::code),
        "connect_ms": ms(outcome.times.connect),
        "tls_ms": ms(outcome.times.handshake),
        "stun_ms": ms(outcome.times.stun),
        "round_trip_ms": ms(outcome.times.round_trip),
        "allocate_ms": ms(outcome.times.allocate),
        "local": outcome.local,
        "mapped": outcome.mapped,
        "relayed": outcome.relayed,
        "software": outcome.software,
        "certificate": outcome.certificate.as_ref().map(certificate),
        "data": data,
    })
}

fn certificate(certificate: &Certificate) -> Value {
    let chain: Vec<Value> = certificate
        .chain
        .iter()
        .map(|one| {
            json!({
                "subject": shown(&one.subject), "issuer": shown(&one.issuer), "names": one.names,
                "not_before": one.not_before, "not_after": one.not_after,
            })
        })
        .collect();
    json!({
        "verdict": certificate.verdict.code(),
        "accepted": certificate.verdict.is_accepted(),
        "chain": chain,
    })
}

/// Milliseconds with three decimals.
fn ms(time: Option<Duration>) -> Option<f64> {
    time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3)
}
