//! Another server that answers in the place of the relay, with the relay's own certificate.

use super::finding::{Finding, finding};
use super::outcome::Outcome;
use super::rung::Route;
use super::stage::Cause;
use super::tls::Verdict;

/// The finding that the relay itself has a fault: a server with its certificate answers, but not in TURN. Only the relay's machine
/// has that certificate, so no device in the network is to blame. No outcome has reached the relay.
pub(super) fn other_server(outcomes: &[Outcome]) -> Option<Finding> {
    // An authority that was added to this computer may belong to the network.
    let has_own =
        |outcome: &&Outcome| outcome.certificate.as_ref().is_some_and(|seen| seen.verdict == Verdict::Public);
    let cause = |outcome: &Outcome| outcome.fault.as_ref().map(|fault| fault.cause.clone());
    let mut others = outcomes.iter().filter(|one| one.route != Route::Proxy && !has_own(one)).peekable();
    let are_refused = others.peek().is_some() && others.all(|one| cause(one) == Some(Cause::Refused));
    let found = outcomes.iter().filter(has_own).find(|outcome| match cause(outcome) {
        // A relay may share its name with a web server on a port that no URL names.
        Some(Cause::NotTurn(_) | Cause::BadAnswer(_)) => outcome.rung.is_given || are_refused,
        // A firewall may cut this connection, but it would not refuse all others and let TLS through.
        Some(_) => are_refused,
        None => false,
    })?;
    let what = match cause(found) {
        Some(Cause::NotTurn(what)) => what,
        _ => "another server",
    };
    let refused = if are_refused { ", and all other ports refuse connections" } else { "" };
    let text = format!(
        "Calls will not work: on {}, {what} answers in place of the relay, with the relay's own certificate{refused}. The relay \
         is probably not running, or another program such as nginx holds its port. `hallpass doctor` on the relay names it. \
         The network is fine as far as this could be tested.",
        found.rung
    );
    Some(finding("other_server", text))
}
