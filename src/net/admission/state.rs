//! The limits that all workers share, and their current use.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ipnet::IpNet;

use super::class::Class;
use crate::base::network::Network;

/// The operator's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Streams at once; 0: no limit.
    pub streams: u32,
    /// Streams at once from one source; 0: no limit.
    pub streams_per_source: u32,
    /// Sources exempt from that limit.
    pub exempt: Vec<IpNet>,
}

/// The memory pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Enough memory.
    #[default]
    None,
    /// Too little for new streams and relayed addresses, which are refused.
    Full,
    /// So little that output queues are shortened, too.
    Tight,
}

impl Pressure {
    /// Returns the word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Pressure::None => "none",
            Pressure::Full => "full",
            Pressure::Tight => "tight",
        }
    }

    /// Returns the state for `used` of `budget` bytes: `Full` from 90 % of the budget on, `Tight` from 100 % on. Each
    /// state is left 5 % below where it is entered, so that it does not flap.
    pub fn after(self, used: u64, budget: u64) -> Self {
        let enter = |state: Self, tenths: u64| {
            // 128 bits, because without a limit the budget is `u64::MAX`.
            let twentieths = u128::from(2 * tenths - u64::from(self >= state));
            u128::from(used) * 20 >= u128::from(budget) * twentieths
        };
        match () {
            () if enter(Self::Tight, 10) => Self::Tight,
            () if enter(Self::Full, 9) => Self::Full,
            () => Self::None,
        }
    }
}

/// Current use and limits.
#[derive(Debug)]
pub struct Admission {
    pub(super) rules: ArcSwap<Rules>,
    /// Open streams of all classes.
    pub(super) streams: AtomicU32,
    /// Open streams by class.
    pub(super) by_class: [AtomicU32; Class::ALL.len()],
    pub(super) sources: DashMap<Network, u32>,
    /// Open sockets to clients, peers and web servers.
    pub(super) descriptors: AtomicU32,
    pub(super) descriptors_max: u32,
    pressure: AtomicU8,
}

impl Admission {
    /// Creates a state with nothing open. `descriptors_max` limits the sockets to clients, peers and web servers;
    /// listeners and the process's own files do not count.
    pub fn new(rules: Rules, descriptors_max: u32) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            streams: AtomicU32::new(0),
            by_class: Default::default(),
            sources: DashMap::new(),
            descriptors: AtomicU32::new(0),
            descriptors_max,
            pressure: AtomicU8::new(0),
        }
    }

    /// Creates a state without limits, for tests.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self::new(Rules::default(), u32::MAX))
    }

    /// Replaces the rules. Open streams stay open.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Sets the memory pressure.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Relaxed);
    }

    /// Returns the memory pressure.
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Full,
            _ => Pressure::Tight,
        }
    }

    /// Returns the number of open sockets and their limit.
    pub fn descriptors(&self) -> (u32, u32) {
        (self.descriptors.load(Relaxed), self.descriptors_max)
    }

    /// Returns the number of open streams.
    pub fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Returns the number of open streams of this class.
    pub fn streams_of(&self, class: Class) -> u32 {
        self.by_class[class as usize].load(Relaxed)
    }

    /// Returns whether `source` is exempt from the limit per source.
    pub fn is_exempt(&self, source: IpAddr) -> bool {
        self.rules.load().exempt.iter().any(|exempt| exempt.contains(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_ends_5_percent_below_the_level_where_it_begins() {
        let states = [
            (Pressure::None, 899, Pressure::None),
            (Pressure::None, 900, Pressure::Full),
            (Pressure::Full, 850, Pressure::Full),
            (Pressure::Full, 849, Pressure::None),
            (Pressure::Full, 999, Pressure::Full),
            (Pressure::Full, 1000, Pressure::Tight),
            (Pressure::Tight, 950, Pressure::Tight),
            (Pressure::Tight, 949, Pressure::Full),
            (Pressure::Tight, 100, Pressure::None),
        ];
        for (before, used, then) in states {
            assert_eq!(before.after(used, 1000), then, "{before:?} with {used}");
        }
        assert_eq!(Pressure::None.after(u64::MAX / 2, u64::MAX), Pressure::None, "no limit");
    }
}
