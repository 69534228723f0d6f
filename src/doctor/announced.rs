//! Whether the relay announces addresses that peers reach.

use std::net::IpAddr;

use super::finding::Finding;
use super::name::is_wrong;
use super::outcome::Outcome;
use super::rung::Route;

const REMEDY: &str =
    "on the relay: hallpass doctor --public-name NAME compares external_ip with where the name leads";

/// Compares the relayed addresses with those that clients reached. Only a relay at a public address is judged: within a network, any
/// other address of it may be right.
pub fn announced(outcomes: &[Outcome]) -> Option<Finding> {
    let direct = || outcomes.iter().filter(|outcome| outcome.route != Route::Proxy);
    let reached = || direct().filter_map(|outcome| outcome.address).map(|address| address.ip());
    let pairs = direct().filter_map(|outcome| Some((outcome.address?.ip(), outcome.relayed?.ip())));
    let (at, relayed): (IpAddr, IpAddr) = pairs.into_iter().find(|(at, relayed)| {
        at.is_ipv4() == relayed.is_ipv4() && !is_wrong(*at) && !reached().any(|known| known == *relayed)
    })?;
    if is_wrong(relayed) {
        let text = format!(
            "the relay announces {relayed}, which no computer outside its network reaches, and it is at {at}: sound and video may fail \
             although everything else works. external_ip is missing or wrong"
        );
        return Some(Finding::warning("announces_private", text, REMEDY));
    }
    let text = format!(
        "the relay announces {relayed}, and it was reached at {at}. That is right for a relay with several addresses, or behind a load \
         balancer. Otherwise external_ip is wrong, and sound and video may fail although everything else works"
    );
    Some(Finding::warning("announces_other", text, REMEDY))
}
