//! Budgets: what a user or a host may relay and hold, across all workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Nanoseconds in a second.
pub(super) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// GCRA: advances the theoretical arrival time `until` by `cost` and returns it. `burst` may come at once. All in nanoseconds.
///
/// # Errors
/// The earliest time to retry, when `cost` is more than the rate allows now.
pub(super) fn pay(until: u64, now: u64, cost: u64, burst: u64) -> Result<u64, u64> {
    let after = until.max(now).saturating_add(cost);
    if after <= now + burst { Ok(after) } else { Err(after - burst) }
}

/// Takes `units` at `rate` a second from the theoretical arrival time `until`. A second's worth may come at once.
///
/// # Errors
/// The earliest time to retry, in nanoseconds.
pub(super) fn draw(until: &AtomicU64, now: u64, units: u64, rate: u64) -> Result<(), u64> {
    let cost = u128::from(units) * u128::from(NANOS_PER_SECOND) / u128::from(rate);
    let cost = u64::try_from(cost).unwrap_or(u64::MAX);
    let pay = |until| pay(until, now, cost, NANOS_PER_SECOND);
    match until.fetch_update(Relaxed, Relaxed, |until| pay(until).ok()) {
        Ok(_) => Ok(()),
        Err(until) => pay(until).map(drop),
    }
}

/// The budget of one user or one host, shared by all workers.
#[derive(Debug, Default)]
pub struct Budget {
    /// Theoretical arrival time of the next bit, in nanoseconds.
    pub(super) bits_until: AtomicU64,
    /// Theoretical arrival time of the next datagram, in nanoseconds.
    pub(super) packets_until: AtomicU64,
    /// Permissions and channels that the user holds. Unused for a host.
    pub(super) entries: AtomicU32,
}
