//! The text to send to the administrator who can change what was found.

use std::fmt::Write;

use super::finding::Addressee;
use super::name::Lookup;
use super::outcome::Outcome;
use super::problem::problem;
use super::report::Report;
use super::rung::Route;
use super::stage::{Cause, Stage};
use super::text::{date_and_time, list, wrap};
use crate::base::browser_ports::browsers_use;
use crate::base::transport::Transport;

/// Width of the lines in characters, as in mail.
const WIDTH: usize = 72;

/// Said of a port that no URL names.
const UNKNOWN: &str =
    " (only if the administrator of the relay says that it offers this: the test had no address with it)";

/// Returns the text, or `None` if there is nothing to ask for.
pub fn letter(report: &Report) -> Option<String> {
    let addressee = report.diagnosis.addressee?;
    let mut text = String::new();
    match addressee {
        Addressee::Network => ask_network(report, &mut text),
        Addressee::Relay => ask_relay(report, &mut text),
        Addressee::Either => {
            ask_relay(report, &mut text);
            text.push_str("\n---- Text for the administrator of this network instead ----\n\n");
            ask_network(report, &mut text);
        }
    }
    seen(report, &mut text);
    Some(text)
}

/// To whom the text goes, for its heading.
pub fn heading(addressee: Addressee) -> &'static str {
    match addressee {
        Addressee::Network => "Text for the administrator of this network",
        Addressee::Relay | Addressee::Either => "Text for the administrator of the relay",
    }
}

fn paragraph(out: &mut String, text: &str) {
    out.push_str(&wrap(text, "", WIDTH));
    out.push('\n');
}

fn item(out: &mut String, text: &str) {
    let wrapped = wrap(text, "  ", WIDTH);
    // The first line begins with a hyphen, the others below its text.
    out.push_str(&wrapped.replacen("  ", "- ", 1));
}

/// The relays with their addresses: `relay.example.org (192.0.2.1)`.
fn relays(report: &Report) -> String {
    list(&report.lookups.iter().map(Lookup::with_addresses).collect::<Vec<_>>())
}

fn ask_network(report: &Report, out: &mut String) {
    let relays = relays(report);
    paragraph(out, &format!("Subject: video calls: please allow connections to {relays}"));
    paragraph(
        out,
        "Video calls in the browser (WebRTC) from this network need a media relay (TURN). All connections go out from \
         the browsers; nothing has to be opened towards this network.",
    );
    let code = report.diagnosis.findings.first().map_or("", |verdict| verdict.code);
    // Without a name service, nothing is known about ports.
    let requests = if code == "no_name_server" { Vec::new() } else { requests(report) };
    if !requests.is_empty() {
        paragraph(out, &format!("Please allow connections from all computers to {relays}:"));
        requests.iter().for_each(|request| item(out, request));
        out.push('\n');
    }
    if matches!(code, "name_unknown" | "no_name_server" | "wrong_address") {
        paragraph(
            out,
            &format!(
                "Please let the name service (DNS) of this network return the public addresses of {relays}."
            ),
        );
    }
    if let Some(proxy) = &report.proxy {
        paragraph(
            out,
            &format!(
                "If connections must go through the web proxy {proxy}: please allow CONNECT to {relays} on the TCP ports \
                 above, without opening them and without a time limit."
            ),
        );
    }
}

/// Whether a firewall dropped the first packets.
fn is_silent(outcome: &Outcome) -> bool {
    let first = if outcome.rung.transport == Transport::Udp { Stage::Stun } else { Stage::Tcp };
    matches!(outcome.cause_at(first), Some(Cause::NoAnswer(_)))
}

/// What to allow, the best first: rungs that browsers use, those that the relay answers on, and of a transport that has none of
/// these, the most useful ones that the relay may offer.
fn requests(report: &Report) -> Vec<String> {
    let mut ports: Vec<(Transport, u16, bool)> = Vec::new();
    for outcome in &report.outcomes {
        let known = outcome.rung.is_given || outcome.is_relay();
        let is_worth_it = outcome.rung.transport == Transport::Udp || outcome.rung.port == 443;
        if !(known || is_worth_it && is_silent(outcome)) || !browsers_use(outcome.rung.port) {
            continue;
        }
        let wanted = (outcome.rung.transport, outcome.rung.port, known);
        match ports.iter_mut().find(|(transport, port, _)| (*transport, *port) == (wanted.0, wanted.1)) {
            Some((_, _, is_known)) => *is_known |= known,
            None => ports.push(wanted),
        }
    }
    let is_offered =
        |wanted: Transport| ports.iter().any(|&(transport, _, known)| transport == wanted && known);
    let offered: Vec<Transport> = Transport::ALL.into_iter().filter(|&one| is_offered(one)).collect();
    ports.retain(|(transport, _, known)| *known || !offered.contains(transport));
    ports.sort();
    let inspected = report.outcomes.iter().any(|outcome| {
        outcome.certificate.as_ref().is_some_and(super::tls::Certificate::may_be_interception)
    });
    ports
        .into_iter()
        .map(|(transport, port, known)| (transport, port, if known { "" } else { UNKNOWN }))
        .map(|(transport, port, offered)| match transport {
            Transport::Udp => format!("UDP port {port}{offered}: the best way for sound and video"),
            Transport::Tcp => format!("TCP port {port}: instead of UDP where that is not possible"),
            Transport::Tls if inspected => format!(
                "TCP port {port} (TLS){offered}, exempt from TLS inspection: what it carries is no HTTP, and browsers refuse the \
                 inspector's certificate"
            ),
            Transport::Tls => format!(
                "TCP port {port} (TLS){offered}: the last resort; the firewall must not expect HTTP in it, nor cut it off after a time"
            ),
        })
        .collect()
}

fn ask_relay(report: &Report, out: &mut String) {
    paragraph(out, &format!("Subject: TURN relay {}: clients cannot use it", relays(report)));
    for finding in &report.diagnosis.findings {
        paragraph(out, &finding.text);
    }
}

/// What the test saw, as facts.
fn seen(report: &Report, out: &mut String) {
    let mut addresses: Vec<String> = Vec::new();
    for outcome in &report.outcomes {
        let (local, mapped) =
            (outcome.local.map(|local| local.ip()), outcome.mapped.map(|mapped| mapped.ip()));
        let text = match (local, mapped) {
            (Some(local), Some(mapped)) if local != mapped => {
                format!("{local}, seen by the relay as {mapped}")
            }
            (Some(local), _) => local.to_string(),
            _ => continue,
        };
        if outcome.route != Route::Proxy && !addresses.contains(&text) {
            addresses.push(text);
        }
    }
    // An address alone says less than the same one with what the relay sees.
    let longer: Vec<String> = addresses
        .iter()
        .filter(|text| !addresses.iter().any(|other| other.starts_with(&format!("{text},"))))
        .cloned()
        .collect();
    let from = if longer.is_empty() { String::new() } else { format!(" ({})", list(&longer)) };
    let when = date_and_time(report.begun);
    paragraph(out, &format!("What a test from one of the computers{from} saw at {when}:"));
    // That the relay does not offer what nobody asked for is no fact about the network.
    let facts = report.outcomes.iter().filter(|one| one.rung.is_given || one.is_relay() || is_silent(one));
    facts.for_each(|outcome| item(out, &fact(outcome)));
    let _ = write!(out, "\n(hallpass doctor {})\n", env!("CARGO_PKG_VERSION"));
}

fn fact(outcome: &Outcome) -> String {
    let to = match outcome.address {
        Some(address) => format!("{} to {}", outcome.rung, address.ip()),
        None => format!("{} to {}", outcome.rung, outcome.rung.host),
    };
    let via = if outcome.route == Route::Proxy { " through the proxy" } else { "" };
    format!("{to}{via}: {}", problem(outcome).unwrap_or_else(|| "works".to_owned()))
}
