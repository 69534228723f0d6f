//! Budgets: what a user or a host may relay and hold, across all workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Nanoseconds in a second.
pub(super) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate, and how much of it may come at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Units a second; not 0.
    pub rate: u64,
    /// Nanoseconds' worth that may come at once.
    pub burst: u64,
}

impl Pace {
    /// One second's worth may come at once: a full frame of a shared screen needs that in bits.
    pub fn second(rate: u64) -> Self {
        Self { rate, burst: NANOS_PER_SECOND }
    }

    /// `units` may come at once, or a hundredth of a second's worth if that is more, but no more than a second's worth.
    pub fn at_once(rate: u64, units: u64) -> Self {
        let worth = units.saturating_mul(NANOS_PER_SECOND) / rate.max(1);
        Self { rate, burst: worth.clamp(NANOS_PER_SECOND / 100, NANOS_PER_SECOND) }
    }
}

/// GCRA: advances the theoretical arrival time `until` by the time that `units` are worth, and returns it. All in nanoseconds.
///
/// # Errors
/// The earliest time to retry, when that is more than the pace allows now.
pub(super) fn pay(until: u64, now: u64, units: u64, pace: Pace) -> Result<u64, u64> {
    let cost = u128::from(units) * u128::from(NANOS_PER_SECOND) / u128::from(pace.rate);
    let after = until.max(now).saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
    if after <= now + pace.burst { Ok(after) } else { Err(after - pace.burst) }
}

/// Takes `units` from the theoretical arrival time `until`.
///
/// # Errors
/// The earliest time to retry, in nanoseconds.
pub(super) fn draw(until: &AtomicU64, now: u64, units: u64, pace: Pace) -> Result<(), u64> {
    match until.fetch_update(Relaxed, Relaxed, |until| pay(until, now, units, pace).ok()) {
        Ok(_) => Ok(()),
        Err(until) => pay(until, now, units, pace).map(drop),
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
