//! `hallpass doctor`: tests from a client's network whether calls will work, and says why not.
//!
//! [`run`] climbs every [`rung`] (a transport and a port of a relay) directly and through a proxy, all at once: `climb`
//! goes from [`stage`] to stage, over a `link` with the TURN client of [`crate::client`] on it (`end`), until two allocations
//! exchange data (`exchange`). [`diagnosis`] says what the outcomes mean, [`letter`] what to ask the administrator for.
//!
//! Texts from the network are cleaned before they are stored. No secret and no password is stored in a report.

#![forbid(unsafe_code)]

mod certificate_note;
pub mod check;
mod climb;
pub mod diagnosis;
mod drive;
mod end;
pub mod exchange;
pub mod finding;
pub mod firewall;
mod in_place;
pub mod inspection;
pub mod json;
pub mod letter;
mod link;
pub mod login;
mod login_note;
pub mod markdown;
pub mod name;
mod other_family;
pub mod outcome;
mod problem;
pub mod proxy;
mod quality;
pub mod report;
pub mod rung;
pub mod stage;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod time_source;
pub mod tls;
mod unreached;
mod watch;
pub mod web;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use climb::{LOOKUP, Shared, climb};
use diagnosis::diagnose;
use drive::Tasks;
pub use drive::{Progress, Status};
use login::Login;
use name::{Lookup, look_up};
use outcome::Outcome;
use proxy::Proxy;
use report::Report;
use rung::{Route, Rung};
use stage::Cause;
use tls::Trust;
use watch::now;

use crate::base::family::Family;
use crate::system::clock;

/// When all rungs must end. Together with the release of allocations the run stays below 20 s.
const TOTAL: Duration = Duration::from_secs(17);
/// How long after that rungs are awaited that release their allocations.
const GRACE: Duration = Duration::from_secs(2);
/// Addresses of each family that are tried of one relay.
const ADDRESSES_EACH: usize = 2;

/// What to test, and with what.
#[derive(Debug)]
pub struct Options {
    /// The rungs.
    pub rungs: Vec<Rung>,
    /// The login.
    pub login: Login,
    /// An HTTP proxy to try as well.
    pub proxy: Option<Proxy>,
}

/// Tests everything at once and reports it. Takes less than 20 s.
///
/// # Errors
/// The runtime cannot be started.
pub fn run(options: Options, progress: &mut dyn Progress) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(examine(options, progress));
    // A lookup of a name may still wait on its thread.
    runtime.shutdown_background();
    Ok(report)
}

/// What a task of a run ends with.
enum Ended {
    Named(Lookup),
    Climbed(Box<Outcome>),
}

async fn examine(options: Options, progress: &mut dyn Progress) -> Report {
    let begun = clock::unix_seconds();
    let proxy = options.proxy.as_ref().map(ToString::to_string);
    let left = options.login.valid_for(begun);
    let trust = Trust::of_this_computer();
    let shared = Arc::new(Shared::new(options.login, trust, options.proxy, now() + TOTAL));
    let mut run = Run { rungs: options.rungs, shared, tasks: Tasks::new(TOTAL + GRACE) };
    run.start(proxy.is_some());
    let (mut lookups, mut outcomes) = (Vec::new(), Vec::new());
    while let Some(ended) = run.tasks.next(progress).await {
        match ended {
            Ended::Named(lookup) => {
                outcomes.extend(run.start_direct(&lookup));
                lookups.push(lookup);
            }
            Ended::Climbed(outcome) => outcomes.push(*outcome),
        }
    }
    leave_out_missing_family(&mut outcomes);
    outcomes.sort_by(|a, b| (&a.rung, a.route, a.address).cmp(&(&b.rung, b.route, b.address)));
    lookups.sort_by(|a, b| a.name.cmp(&b.name));
    other_family::recognize(&mut outcomes).await;
    let mut diagnosis = diagnose(&lookups, &outcomes, proxy.as_deref());
    login_note::add_note(&mut diagnosis, left);
    Report { relay: None, lookups, proxy, outcomes, diagnosis, begun, took: run.tasks.elapsed() }
}

struct Run {
    rungs: Vec<Rung>,
    shared: Arc<Shared>,
    tasks: Tasks<Ended>,
}

impl Run {
    /// Starts the lookup of every relay, and the rungs through the proxy, which looks names up itself.
    fn start(&mut self, has_proxy: bool) {
        let mut hosts: Vec<String> = self.rungs.iter().map(|rung| rung.host.clone()).collect();
        hosts.dedup();
        for host in hosts {
            self.tasks.spawn(None, async move { Ended::Named(look_up(&host, LOOKUP).await) });
        }
        self.tasks.of = self.rungs.len();
        for rung in self.rungs.clone() {
            if has_proxy && rung.transport.is_stream() {
                self.tasks.of += 1;
                self.climb(rung, Route::Proxy, None);
            }
        }
    }

    /// Starts the direct rungs of a relay for its addresses. Returns the outcomes if it has none.
    fn start_direct(&mut self, lookup: &Lookup) -> Vec<Outcome> {
        let rungs: Vec<Rung> = self.rungs.iter().filter(|rung| rung.host == lookup.name).cloned().collect();
        let addresses = match &lookup.addresses {
            Ok(addresses) => addresses,
            Err(cause) => {
                self.tasks.done += rungs.len();
                return rungs.into_iter().map(|rung| without_address(rung, cause)).collect();
            }
        };
        self.tasks.of -= rungs.len();
        for family in Family::ALL {
            let of_family = addresses.iter().filter(|ip| Family::of(**ip) == family);
            for (ip, rung) in
                of_family.take(ADDRESSES_EACH).flat_map(|ip| rungs.iter().map(move |rung| (ip, rung)))
            {
                self.tasks.of += 1;
                let address = SocketAddr::new(*ip, rung.port);
                self.climb(rung.clone(), Route::Direct(family), Some(address));
            }
        }
        Vec::new()
    }

    fn climb(&mut self, rung: Rung, route: Route, address: Option<SocketAddr>) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(Some(label_of(&rung, route)), async move {
            Ended::Climbed(Box::new(climb(&shared, rung, route, address, b"").await))
        });
    }
}

fn label_of(rung: &Rung, route: Route) -> String {
    match route {
        Route::Direct(Family::V4) => rung.to_string(),
        other => format!("{rung} ({})", other.name()),
    }
}

fn without_address(rung: Rung, cause: &Cause) -> Outcome {
    let mut outcome = Outcome::new(rung, Route::Direct(Family::V4), None);
    outcome.fault = Some(stage::Fault { stage: stage::Stage::Name, cause: cause.clone() });
    outcome
}

/// Removes the outcomes of an address family that this computer does not have, if it has the other one.
fn leave_out_missing_family(outcomes: &mut Vec<Outcome>) {
    let is_missing =
        |outcome: &Outcome| outcome.fault.as_ref().is_some_and(|fault| fault.cause == Cause::Unreachable);
    for family in Family::ALL {
        let route = Route::Direct(family);
        let mut of_family = outcomes.iter().filter(|outcome| outcome.route == route);
        let mut others = outcomes
            .iter()
            .filter(|outcome| !matches!(outcome.route, Route::Proxy) && outcome.route != route);
        if others.any(|outcome| !is_missing(outcome)) && of_family.all(is_missing) {
            outcomes.retain(|outcome| outcome.route != route);
        }
    }
}
