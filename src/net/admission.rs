//! Who may still come in: streams in all, of each class and from one source, and what this process may use of
//! descriptors and memory. One for all workers, asked when a stream or a socket is opened and never for a packet.
//!
//! When descriptors or memory run low, newcomers are refused first, then queues are cut; whoever is served stays served.
//! A quarter of the streams and of the descriptors belongs to those who authenticate: see [`gate`].

pub mod gate;
mod source;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ipnet::IpNet;

pub use gate::{Class, Descriptor, Entry, Gate};
use source::Network;

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Streams at once; 0 = no limit.
    pub streams: u32,
    /// Streams at once from one source; 0 = no limit.
    pub streams_per_source: u32,
    /// Sources without that limit.
    pub exempt: Vec<IpNet>,
}

/// How much memory is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Enough.
    #[default]
    None,
    /// None for newcomers.
    Full,
    /// Less than that: queues are cut.
    Tight,
}

impl Pressure {
    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Pressure::None => "none",
            Pressure::Full => "full",
            Pressure::Tight => "tight",
        }
    }

    /// What follows from `used` of `budget` bytes. At nine tenths newcomers are refused, above all of it queues are cut;
    /// a state that was entered is left half a tenth lower, so that it does not flicker.
    pub fn after(self, used: u64, budget: u64) -> Self {
        let enter = |state: Self, tenths: u64| {
            // 128 bits: a budget of all there is means none.
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

/// What is open, and what may be.
#[derive(Debug)]
pub struct Admission {
    rules: ArcSwap<Rules>,
    /// Streams open, and by class.
    streams: AtomicU32,
    by_class: [AtomicU32; Class::ALL.len()],
    sources: DashMap<Network, u32>,
    /// Sockets open for clients, peers and web servers.
    descriptors: AtomicU32,
    descriptors_max: u32,
    pressure: AtomicU8,
}

impl Admission {
    /// Nothing open. `descriptors_max` is how many sockets there may be, listeners and the process's own aside.
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

    /// Whoever comes is let in: for tests, and for who counts otherwise.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self::new(Rules::default(), u32::MAX))
    }

    /// New rules. Who is in stays in.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Says how much memory is left.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Relaxed);
    }

    /// How much memory is left.
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Full,
            _ => Pressure::Tight,
        }
    }

    /// Sockets open, and how many there may be.
    pub fn descriptors(&self) -> (u32, u32) {
        (self.descriptors.load(Relaxed), self.descriptors_max)
    }

    /// Streams open.
    pub fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Streams of this class open.
    pub fn streams_of(&self, class: Class) -> u32 {
        self.by_class[class as usize].load(Relaxed)
    }

    /// Whether the limits of one source do not apply to `source`.
    pub fn is_exempt(&self, source: IpAddr) -> bool {
        self.rules.load().exempt.iter().any(|exempt| exempt.contains(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_left_lower_than_it_is_entered() {
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
        assert_eq!(Pressure::None.after(u64::MAX / 2, u64::MAX), Pressure::None, "no budget");
    }
}
