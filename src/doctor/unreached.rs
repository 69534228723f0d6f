//! The verdict if nothing answers, or connections end as soon as they begin.

use super::finding::{Addressee, Finding, finding};
use super::name::Lookup;
use super::outcome::Outcome;
use super::rung::Route;
use super::stage::{Cause, Stage};
use super::text::list;
use crate::base::family::Family;
use crate::base::transport::Transport;

/// The verdict if the relay is not reached.
pub fn unreached(lookups: &[Lookup], outcomes: &[Outcome]) -> (Finding, Option<Addressee>) {
    let network = Some(Addressee::Network);
    let all = |test: fn(&Cause) -> bool| {
        let mut causes = outcomes.iter().filter_map(|outcome| outcome.fault.as_ref());
        causes.all(|fault| test(&fault.cause))
    };
    let direct = || outcomes.iter().filter(|outcome| outcome.route != Route::Proxy);
    let hosts = hosts(lookups);
    if all(|cause| matches!(cause, Cause::Unreachable)) {
        let text = format!(
            "Calls will not work: this computer has no way to {hosts}. Is it connected to a network?"
        );
        return (finding("offline", text), network);
    }
    if all(|cause| matches!(cause, Cause::OtherFamily)) {
        let missing = direct().find_map(|outcome| outcome.route.family()).unwrap_or(Family::V4);
        let own = if missing == Family::V4 { Family::V6 } else { Family::V4 };
        let (own, missing) = (own.name(), missing.name());
        let text = format!(
            "Calls will not work here: this computer has {own} alone, and {hosts} has only an {missing} address. The \
             relay needs an {own} address, or this network a translation to {missing}."
        );
        return (finding("other_family", text), Some(Addressee::Relay));
    }
    if all(|cause| matches!(cause, Cause::Refused)) {
        let text = format!(
            "Calls will not work here: every connection to {hosts} is refused. Either the relay is not running or \
             has another address or other ports, or a firewall rejects them."
        );
        return (finding("refused", text), Some(Addressee::Relay));
    }
    let is_proxy_tested = outcomes.iter().any(|outcome| outcome.route == Route::Proxy);
    let proxy = match is_proxy_tested {
        true => "",
        false => " If browsers here use a web proxy, test it as well: --proxy http://HOST:PORT.",
    };
    let text = format!(
        "Calls will not work here: this network lets nothing through to {hosts}, {}. (Or the relay is away: a test from \
         another network, such as a phone's, tells.){proxy}",
        tried(direct())
    );
    (finding("blocked", text), network)
}

/// The verdict if connections are reset as soon as they open: the relay's limits do that as well as firewalls. `None` if UDP, as
/// browsers use it, gets no answer either: then it is the network.
pub fn reset(lookups: &[Lookup], outcomes: &[Outcome]) -> Option<(Finding, Option<Addressee>)> {
    let ends_at_once = |outcome: &&Outcome| {
        matches!(outcome.cause_at(Stage::Tcp), Some(Cause::Reset | Cause::Closed))
            && outcome.route != Route::Proxy
    };
    let is_silent = |outcome: &Outcome| {
        outcome.rung.is_given && outcome.rung.transport == Transport::Udp && !outcome.is_relay()
    };
    outcomes.iter().find(ends_at_once)?;
    if outcomes.iter().any(is_silent) {
        return None;
    }
    let text = format!(
        "Calls will not work here now: connections to {} ({}) are opened and reset at once. Either the relay does that: this \
         network has all connections that one address may have, or the relay expects a proxy in front of it; `hallpass top` there \
         says which limit refuses connections. Or a firewall resets them.",
        hosts(lookups),
        names(outcomes.iter().filter(ends_at_once))
    );
    Some((finding("reset", text), Some(Addressee::Relay)))
}

fn hosts(lookups: &[Lookup]) -> String {
    list(&lookups.iter().map(Lookup::with_addresses).collect::<Vec<_>>())
}

/// The transports that were tried: `neither UDP nor TCP nor TLS`, `not over TLS`.
fn tried<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let tried: Vec<Transport> = outcomes.map(|outcome| outcome.rung.transport).collect();
    let name = |transport: &Transport| transport.name().to_ascii_uppercase();
    let names: Vec<String> =
        Transport::ALL.iter().filter(|transport| tried.contains(transport)).map(name).collect();
    match &names[..] {
        [one] => format!("not over {one} (nothing else was tested)"),
        names => format!("neither {}", names.join(" nor ")),
    }
}

/// The rungs of these outcomes, each once: `UDP 3478 and TLS 443`.
pub fn names<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let mut names: Vec<String> = Vec::new();
    for outcome in outcomes {
        let name = outcome.rung.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    list(&names)
}
