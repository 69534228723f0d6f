//! A computer with one address family, and a relay with the other one.

use std::net::SocketAddr;

use super::link::has_route;
use super::outcome::Outcome;
use super::rung::Route;
use super::stage::Cause;
use crate::base::family::Family;
use crate::system::local_addresses::outside;

/// Any port: no packet is sent.
const PORT: u16 = 9;

/// Replaces the cause if no address of the relay has a route, all are of one family, and this computer has a route to the Internet
/// in the other family alone.
pub async fn recognize(outcomes: &mut [Outcome]) {
    let mut direct = outcomes.iter().filter_map(|outcome| Some((outcome.route.family()?, outcome)));
    let Some((family, _)) = direct.clone().next() else { return };
    let is_unreachable = |(of, outcome): (Family, &Outcome)| {
        of == family && outcome.fault.as_ref().is_some_and(|fault| fault.cause == Cause::Unreachable)
    };
    if !direct.all(is_unreachable) {
        return;
    }
    for known in Family::ALL {
        if has_route(SocketAddr::new(outside(known), PORT)).await == (known == family) {
            return;
        }
    }
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.route != Route::Proxy) {
        if let Some(fault) = &mut outcome.fault {
            fault.cause = Cause::OtherFamily;
        }
    }
}
