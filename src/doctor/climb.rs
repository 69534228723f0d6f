//! Climbs one rung, stage by stage.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::end::End;
use super::exchange::exchange;
use super::link::{Opening, Target, Way, open};
use super::login::{LIFETIME, Login};
use super::name::{Lookup, look_up};
use super::outcome::{Outcome, Untested};
use super::proxy::Proxy;
use super::rung::{Route, Rung};
use super::stage::{Cause, Fault, Stage};
use super::text::clean;
use super::tls::Trust;
use super::watch::Watch;
use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::client::{Allocation, Credentials};
use crate::system::clock;

/// Rungs that have allocations at once, two each. Relays limit the allocations of a user, some to ten.
pub const PAIRS: usize = 3;
/// Limit for the lookup of a name.
pub const LOOKUP: Duration = Duration::from_secs(5);
const DAY: u64 = 86_400;
/// Lifetimes that are tried after a 401, in seconds, to find out whether the clocks differ.
const LONGER: [u64; 4] = [2 * DAY, 8 * DAY, 32 * DAY, 366 * DAY];
/// The longest of these lifetimes, tried first: if it is refused, the shorter ones are, too.
const LONGEST: u64 = 3660 * DAY;

/// What all rungs need.
pub struct Shared {
    login: Login,
    trust: Trust,
    proxy: Option<Proxy>,
    proxy_lookup: OnceCell<Lookup>,
    pairs: Arc<Semaphore>,
    /// All its permits.
    places: u32,
    /// The difference of the clocks in seconds, at least and at most, if that explains a 401.
    clock_gap: OnceCell<Option<(u64, u64)>>,
    until: Instant,
}

impl Shared {
    /// Everything ends at `until`.
    pub fn new(login: Login, trust: Trust, proxy: Option<Proxy>, until: Instant) -> Self {
        Self {
            login,
            trust,
            proxy,
            proxy_lookup: OnceCell::new(),
            pairs: Arc::new(Semaphore::new(PAIRS)),
            places: PAIRS as u32,
            clock_gap: OnceCell::new(),
            until,
        }
    }

    /// Has these permits for rungs with allocations, also those of other logins. None is in use yet.
    pub fn with_pairs(self, pairs: Arc<Semaphore>) -> Self {
        // At most PAIRS.
        let places = pairs.available_permits() as u32;
        Self { pairs, places, ..self }
    }
}

/// Climbs a rung as far as it goes. `address`: the relay's, for a direct route. `greeting` precedes everything on a stream.
pub async fn climb(
    shared: &Shared,
    rung: Rung,
    route: Route,
    address: Option<SocketAddr>,
    greeting: &'static [u8],
) -> Outcome {
    let mut outcome = Outcome::new(rung, route, address);
    outcome.fault = ascend(shared, &mut outcome, greeting).await.err();
    outcome
}

async fn ascend(shared: &Shared, outcome: &mut Outcome, greeting: &'static [u8]) -> Result<(), Fault> {
    let at = |stage| move |cause| Fault { stage, cause };
    let until = shared.until;
    let rung = outcome.rung.clone();
    let way = way(shared, outcome).await.map_err(at(Stage::Name))?;
    let target = Target { host: &rung.host, port: rung.port, transport: rung.transport, way, greeting };
    outcome.reached = Some(Stage::Name);

    let mut opening = Opening::default();
    let opened = open(&target, &shared.trust, until, &mut opening).await;
    (outcome.times.connect, outcome.times.handshake) = (opening.connect, opening.handshake);
    (outcome.certificate, outcome.local) = (opening.certificate, opening.local);
    if rung.transport.is_stream() && outcome.times.connect.is_some() {
        outcome.reached = Some(Stage::Tcp);
    }
    let link = opened?;
    if rung.transport == Transport::Tls {
        outcome.reached = Some(Stage::Tls);
    }

    let mut end = End::new(link, target.server()).map_err(at(Stage::Stun))?;
    let watch = Watch::start();
    outcome.mapped = end.probe(until).await.map_err(at(Stage::Stun))?;
    (outcome.times.stun, outcome.times.round_trip) = (Some(watch.elapsed()), end.round_trip());
    outcome.reached = Some(Stage::Stun);
    outcome.software = end.software().map(clean);

    // The semaphore is never closed.
    let closed = |_| at(Stage::Allocation)(Cause::Closed);
    let pair = shared.pairs.acquire().await.map_err(closed)?;
    let result = carry(shared, &target, end, outcome).await;
    drop(pair);
    if shared.places < 2 || !is_crowded(&result, outcome) {
        return result;
    }
    // The other rungs of this run may hold what the relay has for this user, so once more without them.
    let _all = shared.pairs.acquire_many(shared.places).await.map_err(closed)?;
    let link = open(&target, &shared.trust, until, &mut Opening::default()).await?;
    let end = End::new(link, target.server()).map_err(at(Stage::Stun))?;
    outcome.untested = None;
    carry(shared, &target, end, outcome).await
}

/// Whether the relay refused an allocation for want of room: 486 or 508.
fn is_crowded(result: &Result<(), Fault>, outcome: &Outcome) -> bool {
    match result {
        Ok(()) => outcome.untested == Some(Untested::OneAllocation),
        Err(fault) => matches!(fault.cause, Cause::Quota | Cause::Full),
    }
}

/// Logs in, and sends data through the relay.
async fn carry(
    shared: &Shared,
    target: &Target<'_>,
    mut end: End,
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let watch = Watch::start();
    let allocation = log_in(shared, target, &mut end, outcome).await;
    outcome.times.round_trip = end.round_trip().or(outcome.times.round_trip);
    let allocation = match allocation {
        // Unsigned, so it is the answer of a server that asks for no login: it has granted the probe's request.
        Err(Fault { stage: Stage::Credentials, cause: Cause::Refusal { code: 437, .. } }) => {
            (outcome.reached, outcome.untested) = (Some(Stage::Allocation), Some(Untested::NoLogin));
            return Ok(());
        }
        allocation => allocation?,
    };
    outcome.times.allocate = Some(watch.elapsed());
    outcome.reached = Some(Stage::Allocation);
    (outcome.relayed, outcome.mapped) = (Some(allocation.relayed), allocation.mapped.or(outcome.mapped));
    outcome.software = end.software().map(clean).or(outcome.software.take());
    relay(shared, target, end, allocation, outcome).await
}

/// Returns the way to the relay.
///
/// # Errors
/// The proxy's name has no address; or the relay's has none, which the caller knows already.
async fn way<'a>(shared: &'a Shared, outcome: &Outcome) -> Result<Way<'a>, Cause> {
    match (outcome.route, outcome.address, &shared.proxy) {
        (Route::Direct(_), Some(address), _) => Ok(Way::Direct(address)),
        (Route::Proxy, _, Some(proxy)) => {
            let found = shared.proxy_lookup.get_or_init(|| look_up(&proxy.host, LOOKUP)).await;
            let addresses: &[IpAddr] =
                found.addresses.as_ref().map_err(|cause| Cause::NoProxy(Box::new(cause.clone())))?;
            Ok(Way::Proxy(proxy, addresses))
        }
        _ => Err(Cause::NameUnknown),
    }
}

/// Allocates with credentials that are valid for a day.
async fn log_in(
    shared: &Shared,
    target: &Target<'_>,
    end: &mut End,
    outcome: &mut Outcome,
) -> Result<Allocation, Fault> {
    let fault = |stage, cause| Fault { stage, cause };
    let credentials = valid_for(&shared.login, LIFETIME).map_err(|cause| fault(Stage::Credentials, cause))?;
    end.log_in(credentials).map_err(|cause| fault(Stage::Credentials, cause))?;
    match end.allocate(shared.until).await {
        Ok(allocation) => Ok(allocation),
        Err((true, cause)) => {
            outcome.reached = Some(Stage::Credentials);
            Err(fault(Stage::Allocation, cause))
        }
        Err((false, Cause::WrongCredentials)) => {
            Err(fault(Stage::Credentials, why_refused(shared, target).await))
        }
        Err((false, cause)) => Err(fault(Stage::Credentials, cause)),
    }
}

/// Finds out why the relay answered 401: relays do not say it.
async fn why_refused(shared: &Shared, target: &Target<'_>) -> Cause {
    if let Some(ago) = shared.login.expired(clock::unix_seconds()) {
        return Cause::Expired(ago);
    }
    if let Login::Fixed { .. } = shared.login {
        return if shared.login.has_no_time() { Cause::NameWithoutTime } else { Cause::WrongCredentials };
    }
    // Once for all rungs: a relay may shut out a source that tries many passwords.
    match shared.clock_gap.get_or_init(|| clock_gap(shared, target)).await {
        Some((least, most)) => Cause::ClockBehind(*least, *most),
        None => Cause::WrongCredentials,
    }
}

/// Tries credentials that expire later and later. If the relay accepts some, the secret is right and the relay's clock is past
/// the expiry times that it refused. Each try has a connection of its own: coturn keeps the user of a connection.
async fn clock_gap(shared: &Shared, target: &Target<'_>) -> Option<(u64, u64)> {
    if !fits(shared, target, LONGEST).await? {
        return None;
    }
    let mut least = LIFETIME;
    for lifetime in LONGER {
        if fits(shared, target, lifetime).await? {
            return Some((least, lifetime));
        }
        least = lifetime;
    }
    Some((least, LONGEST))
}

/// Returns whether the relay accepts credentials that are valid for `lifetime` seconds; `None` if it does not say.
async fn fits(shared: &Shared, target: &Target<'_>, lifetime: u64) -> Option<bool> {
    let mut end = another(shared, target, lifetime).await.ok()?;
    match end.allocate(shared.until).await {
        Ok(_) => {
            end.release(shared.until).await;
            Some(true)
        }
        // Accepted, whatever else is wrong.
        Err((true, _)) => Some(true),
        Err((false, Cause::WrongCredentials)) => Some(false),
        Err((false, _)) => None,
    }
}

/// Opens another connection, with credentials that are valid for `lifetime` seconds.
async fn another(shared: &Shared, target: &Target<'_>, lifetime: u64) -> Result<End, Fault> {
    let at = |cause| Fault { stage: Stage::Allocation, cause };
    // What the first connection showed is what counts.
    let link = open(target, &shared.trust, shared.until, &mut Opening::default()).await?;
    let mut end = End::new(link, target.server()).map_err(at)?;
    end.log_in(valid_for(&shared.login, lifetime).map_err(at)?).map_err(at)?;
    Ok(end)
}

fn valid_for(login: &Login, lifetime: u64) -> Result<Credentials, Cause> {
    let expires = clock::unix_seconds().saturating_add(lifetime);
    login.credentials(expires).map_err(|error| Cause::System(error.to_string()))
}

/// Makes a second allocation on a connection of its own, sends data through both, and ends them.
async fn relay(
    shared: &Shared,
    target: &Target<'_>,
    mut first: End,
    allocation: Allocation,
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let (second, peer) = match second(shared, target).await {
        Ok(second) => second,
        Err(fault) => {
            first.release(shared.until).await;
            if matches!(fault.cause, Cause::Quota | Cause::Full) {
                outcome.untested = Some(Untested::OneAllocation);
                return Ok(());
            }
            return Err(fault);
        }
    };
    let mut ends = [first, second];
    let result = between(shared, &mut ends, [allocation.relayed, peer], outcome).await;
    outcome.times.round_trip = ends[0].round_trip();
    for end in &mut ends {
        end.release(shared.until).await;
    }
    result
}

/// Makes the second allocation.
async fn second(shared: &Shared, target: &Target<'_>) -> Result<(End, SocketAddr), Fault> {
    let mut end = another(shared, target, LIFETIME).await?;
    match end.allocate(shared.until).await {
        Ok(allocation) => Ok((end, allocation.relayed)),
        Err((_, cause)) => Err(Fault { stage: Stage::Allocation, cause }),
    }
}

async fn between(
    shared: &Shared,
    ends: &mut [End; 2],
    relayed: [SocketAddr; 2],
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let at = |stage| move |cause| Fault { stage, cause };
    for (from, to) in [(0, 1), (1, 0)] {
        if !ends[from].reach(relayed[to], shared.until).await.map_err(at(Stage::Permission))? {
            outcome.untested = Some(Untested::PeersLimited);
            return Ok(());
        }
    }
    outcome.reached = Some(Stage::Permission);
    let result = exchange(ends, relayed, shared.until).await.map_err(at(Stage::Data))?;
    outcome.exchange = Some(result);
    match result.fault() {
        Some(cause) => Err(at(Stage::Data)(cause)),
        None => {
            outcome.reached = Some(Stage::Data);
            Ok(())
        }
    }
}
