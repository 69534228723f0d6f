//! Who may still come in: connections in all and from one source, and what this process may have of descriptors and
//! memory. One for all workers, asked when a stream or a socket is opened and never for a packet.
//!
//! When descriptors or memory run low, newcomers are refused first, then queues are cut; whoever is served stays served.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ipnet::IpNet;

use super::counters::Refusal;

/// Streams leave this part of all descriptors to the relays of those who are in already.
const KEPT_FOR_RELAYS: u32 = 8;
/// Room for sources that stays when all are gone.
const SOURCES_KEPT: usize = 1024;

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

/// One address of IPv4, one /64 of IPv6: what one customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        })
    }
}

/// What is open, and what may be.
#[derive(Debug)]
pub struct Admission {
    rules: ArcSwap<Rules>,
    streams: AtomicU32,
    sources: DashMap<Source, u32>,
    /// Sockets open for clients, peers and web servers.
    descriptors: AtomicU32,
    descriptors_max: u32,
    pressure: AtomicU8,
}

/// One stream's place. Given back when dropped.
#[derive(Debug)]
pub struct Entry {
    descriptor: Descriptor,
    source: Option<Source>,
}

/// One socket's place. Given back when dropped.
#[derive(Debug)]
pub struct Descriptor(Arc<Admission>);

impl Admission {
    /// Nothing open. `descriptors_max` is how many sockets there may be, listeners and the process's own aside.
    pub fn new(rules: Rules, descriptors_max: u32) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            streams: AtomicU32::new(0),
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

    /// A place for one more stream from `source`; `None` when it is not known yet who that is.
    ///
    /// # Errors
    /// What there is none left of.
    pub fn stream(self: &Arc<Self>, source: Option<IpAddr>) -> Result<Entry, Refusal> {
        if self.pressure() != Pressure::None {
            return Err(Refusal::Memory);
        }
        let left = self.descriptors_max - self.descriptors_max / KEPT_FOR_RELAYS;
        let descriptor = self.take_below(left).ok_or(Refusal::Descriptors)?;
        let total = self.rules.load().streams;
        let one_more = |n| (total == 0 || n < total).then_some(n + 1);
        if self.streams.fetch_update(Relaxed, Relaxed, one_more).is_err() {
            return Err(Refusal::Total);
        }
        // From here on dropping the entry gives everything back.
        let mut entry = Entry { descriptor, source: None };
        match source {
            Some(source) => entry.name(source).map(|()| entry),
            None => Ok(entry),
        }
    }

    /// A place for one more relayed address.
    ///
    /// # Errors
    /// What there is none left of.
    pub fn relay(self: &Arc<Self>) -> Result<Descriptor, Refusal> {
        match self.pressure() {
            Pressure::None => self.socket(),
            Pressure::Full | Pressure::Tight => Err(Refusal::Memory),
        }
    }

    /// A place for one more socket on behalf of somebody who is in.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn socket(self: &Arc<Self>) -> Result<Descriptor, Refusal> {
        self.take_below(self.descriptors_max).ok_or(Refusal::Descriptors)
    }

    fn take_below(self: &Arc<Self>, limit: u32) -> Option<Descriptor> {
        let one_more = |n| (n < limit).then_some(n + 1);
        let taken = self.descriptors.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        taken.then(|| Descriptor(Arc::clone(self)))
    }
}

impl Entry {
    /// Says whose stream it is, once that is known.
    ///
    /// # Errors
    /// That source has all it may have.
    pub fn name(&mut self, source: IpAddr) -> Result<(), Refusal> {
        let admission = &self.descriptor.0;
        let rules = admission.rules.load();
        if rules.streams_per_source == 0 || rules.exempt.iter().any(|exempt| exempt.contains(&source)) {
            return Ok(());
        }
        let source = Source::of(source);
        let mut held = admission.sources.entry(source).or_insert(0);
        if *held >= rules.streams_per_source {
            return Err(Refusal::Source);
        }
        *held += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let admission = &self.descriptor.0;
        if let Some(source) = self.source.take() {
            let gone = admission.sources.remove_if_mut(&source, |_, held| {
                *held = held.saturating_sub(1);
                *held == 0
            });
            if gone.is_some() && admission.sources.is_empty() && admission.sources.capacity() > SOURCES_KEPT {
                admission.sources.shrink_to_fit();
            }
        }
        // Last, so that a place that is seen to be free is free in every respect.
        admission.streams.fetch_sub(1, Relaxed);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.descriptors.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(rules: Rules, descriptors: u32) -> Arc<Admission> {
        Arc::new(Admission::new(rules, descriptors))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_source_has_its_share_and_others_have_theirs() {
        let rules =
            Rules { streams: 5, streams_per_source: 2, exempt: vec!["10.0.0.0/8".parse().expect("net")] };
        let door = admission(rules, 100);
        let first = door.stream(ip("192.0.2.1")).expect("free");
        let _second = door.stream(ip("192.0.2.1")).expect("free");
        assert_eq!(door.stream(ip("192.0.2.1")).err(), Some(Refusal::Source));
        assert_eq!((door.streams(), door.descriptors()), (2, (2, 100)), "a refusal holds nothing");
        let _exempt = [(); 3].map(|()| door.stream(ip("10.1.2.3")).expect("exempt"));
        assert_eq!(door.stream(ip("10.1.2.3")).err(), Some(Refusal::Total), "but not from the total");
        drop(first);
        let _again = door.stream(ip("192.0.2.1")).expect("a place came back");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_nobody_is_remembered() {
        let door = admission(Rules { streams_per_source: 1, ..Rules::default() }, 100);
        let held = door.stream(ip("2001:db8::1")).expect("free");
        assert_eq!(door.stream(ip("2001:db8::ffff:2")).err(), Some(Refusal::Source));
        let _other = door.stream(ip("2001:db8:0:1::1")).expect("another network");
        drop(held);
        assert_eq!(door.sources.len(), 1);
    }

    #[test]
    fn a_proxied_stream_is_counted_once_it_has_a_name() {
        let door = admission(Rules { streams_per_source: 1, ..Rules::default() }, 100);
        let mut first = door.stream(None).expect("free");
        let mut second = door.stream(None).expect("free");
        first.name("192.0.2.1".parse().expect("address")).expect("free");
        assert_eq!(second.name("192.0.2.1".parse().expect("address")), Err(Refusal::Source));
        drop(second);
        assert_eq!((door.streams(), door.sources.len()), (1, 1));
    }

    #[test]
    fn streams_leave_descriptors_to_relays() {
        let door = admission(Rules::default(), 16);
        let streams: Vec<_> = (0..20).map_while(|_| door.stream(None).ok()).collect();
        assert_eq!(streams.len(), 14);
        assert_eq!(door.stream(None).err(), Some(Refusal::Descriptors));
        let relays: Vec<_> = (0..20).map_while(|_| door.relay().ok()).collect();
        assert_eq!(relays.len(), 2);
        assert_eq!(door.relay().err(), Some(Refusal::Descriptors));
        drop((streams, relays));
        assert_eq!((door.streams(), door.descriptors()), (0, (0, 16)));
    }

    #[test]
    fn without_memory_nobody_new_comes_in() {
        let door = admission(Rules::default(), 16);
        for pressure in [Pressure::Full, Pressure::Tight] {
            door.set_pressure(pressure);
            assert_eq!(door.pressure(), pressure);
            assert_eq!(door.stream(None).err(), Some(Refusal::Memory));
            assert_eq!(door.relay().err(), Some(Refusal::Memory));
            door.socket().expect("who is in stays served");
        }
        door.set_pressure(Pressure::None);
        door.relay().expect("memory came back");
    }

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
