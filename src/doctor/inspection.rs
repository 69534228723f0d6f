//! What a run on the relay itself tries over sockets: its listeners, its names, the web servers behind it, and a time source.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::climb::{LOOKUP, PAIRS, Shared, climb};
use super::drive::{Progress, Tasks};
use super::login::Login;
use super::name::{Lookup, look_up};
use super::outcome::Outcome;
use super::rung::{Route, Rung};
use super::stage::Cause;
use super::time_source::{Offset, TimeSource};
use super::tls::Trust;
use super::watch::now;
use super::web::{Visit, WebServer, visit};
use super::{GRACE, TOTAL};
use crate::base::family::Family;
use crate::base::transport::Transport;
use crate::system::clock;

/// Time for a door that may be silent for a harmless reason.
const SHORT: Duration = Duration::from_millis(2500);

/// A listener of the relay, and how it is reached from its own machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The rung; its host is the name in the ClientHello.
    pub rung: Rung,
    /// Where to connect.
    pub address: SocketAddr,
    /// Number of the login.
    pub login: usize,
    /// Whether the listener expects a PROXY header.
    pub is_proxied: bool,
    /// Whether this is an address outside of this machine, from which packets may not come back.
    pub is_outside: bool,
}

/// How many allocations the relay has room for. With few, the doors are tried one after another, so that they do not refuse each
/// other, nor anybody else. 0 stands for enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// For all logins together.
    pub all: usize,
    /// For each of them.
    pub each: usize,
}

/// What to try.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The logins, one for each host.
    pub logins: Vec<Login>,
    /// How many allocations are possible.
    pub room: Room,
    /// The listeners.
    pub doors: Vec<Door>,
    /// Names to look up.
    pub names: Vec<String>,
    /// Web servers behind the relay.
    pub web: Vec<WebServer>,
    /// Whose clock to compare with this machine's.
    pub time_source: Option<TimeSource>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The listeners, in the order of the inspection.
    pub doors: Vec<(Door, Outcome)>,
    /// The names, sorted.
    pub names: Vec<Lookup>,
    /// The web servers, in the order of the inspection.
    pub web: Vec<(WebServer, Visit)>,
    /// The difference of the clocks.
    pub clock: Option<Result<Offset, Cause>>,
    /// When the run began, in seconds since 1970.
    pub begun: u64,
    /// How long it took.
    pub took: Duration,
}

enum Ended {
    Door(usize, Box<Outcome>),
    Name(Lookup),
    Web(usize, Visit),
    Clock(Result<Offset, Cause>),
}

/// Tries everything at once. Takes less than 20 s.
///
/// # Errors
/// The runtime cannot be started.
pub fn inspect(inspection: &Inspection, progress: &mut dyn Progress) -> io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(all(inspection, progress));
    // A lookup of a name may still wait on its thread.
    runtime.shutdown_background();
    Ok(seen)
}

async fn all(inspection: &Inspection, progress: &mut dyn Progress) -> Seen {
    let mut seen = Seen { begun: clock::unix_seconds(), ..Seen::default() };
    let mut tasks = Tasks::new(TOTAL + GRACE);
    start(inspection, &mut tasks);
    let (mut doors, mut web) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.next(progress).await {
        match ended {
            Ended::Door(number, outcome) => doors.push((number, *outcome)),
            Ended::Name(lookup) => seen.names.push(lookup),
            Ended::Web(number, visit) => web.push((number, visit)),
            Ended::Clock(offset) => seen.clock = Some(offset),
        }
    }
    doors.sort_by_key(|(number, _)| *number);
    web.sort_by_key(|(number, _)| *number);
    seen.names.sort_by(|a, b| a.name.cmp(&b.name));
    let door = |(number, outcome): (usize, Outcome)| Some((inspection.doors.get(number)?.clone(), outcome));
    seen.doors = doors.into_iter().filter_map(door).collect();
    let server = |(number, visit): (usize, Visit)| Some((inspection.web.get(number)?.clone(), visit));
    seen.web = web.into_iter().filter_map(server).collect();
    seen.took = tasks.elapsed();
    seen
}

fn start(inspection: &Inspection, tasks: &mut Tasks<Ended>) {
    let trust = Trust::of_this_computer();
    let permits = |allocations: usize| Arc::new(Semaphore::new((allocations / 2).clamp(1, PAIRS)));
    let is_scarce = |allocations: usize, logins: usize| (1..2 * PAIRS * logins).contains(&allocations);
    let Room { all, each } = inspection.room;
    let of_all =
        is_scarce(all, inspection.logins.len()).then(|| permits(all.min(if each == 0 { all } else { each })));
    let shared = |login: &Login, limit: Duration| {
        let shared = Shared::new(login.clone(), trust.clone(), None, now() + limit);
        Arc::new(match &of_all {
            Some(pairs) => shared.with_pairs(Arc::clone(pairs)),
            None if is_scarce(each, 1) => shared.with_pairs(permits(each)),
            None => shared,
        })
    };
    let login =
        |limit: Duration| inspection.logins.iter().map(|login| shared(login, limit)).collect::<Vec<_>>();
    let (patient, short) = (login(TOTAL), login(SHORT));
    for (number, door) in inspection.doors.iter().enumerate() {
        let logins = if door.is_outside { &short } else { &patient };
        let Some(shared) = logins.get(door.login).map(Arc::clone) else { continue };
        let route = Route::Direct(Family::of(door.address.ip()));
        // Without addresses, the relay takes those of the connection.
        let is_greeted = door.is_proxied && door.rung.transport != Transport::Udp;
        let greeting: &[u8] = if is_greeted { b"PROXY UNKNOWN\r\n" } else { b"" };
        let (rung, address) = (door.rung.clone(), door.address);
        tasks.spawn(Some(rung.to_string()), async move {
            Ended::Door(number, Box::new(climb(&shared, rung, route, Some(address), greeting).await))
        });
    }
    for name in inspection.names.clone() {
        let label = format!("name {name}");
        tasks.spawn(Some(label), async move { Ended::Name(look_up(&name, LOOKUP).await) });
    }
    for (number, server) in inspection.web.iter().cloned().enumerate() {
        let label = format!("web server {}", server.address);
        tasks.spawn(Some(label), async move { Ended::Web(number, visit(&server).await) });
    }
    if let Some(source) = inspection.time_source.clone() {
        tasks.spawn(Some("clock".to_owned()), async move { Ended::Clock(source.offset().await) });
    }
    tasks.of = inspection.doors.len()
        + inspection.names.len()
        + inspection.web.len()
        + usize::from(inspection.time_source.is_some());
}
