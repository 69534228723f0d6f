//! How many answers a stranger gets (UDP only, where a source address proves nothing).
//!
//! A fixed table of token buckets: strangers cost no memory, however many they are. Two sources may fall into one
//! bucket and then share it; a seeded hash keeps anybody from choosing whom he shares with.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use rustc_hash::FxSeededState;

use super::time::Instant;

/// Buckets; 16 bytes each. With 10,000 active sources a source shares its bucket with one other on average.
const BUCKETS: usize = 8192;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When the bucket would be full again, in nanoseconds (the "theoretical arrival time" of a leaky bucket).
    full_at: u64,
}

/// Token buckets by source.
pub struct Throttle {
    buckets: Vec<Bucket>,
    hasher: FxSeededState,
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Throttle(..)")
    }
}

impl Throttle {
    /// An empty table under this seed.
    pub fn new(seed: u64) -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS], hasher: FxSeededState::with_seed(seed as usize) }
    }

    /// Whether one more answer may go to `source`, at `rate` answers a second with bursts of one second's worth.
    /// A rate of 0 means no limit.
    pub fn allows(&mut self, now: Instant, source: IpAddr, rate: u32) -> bool {
        if rate == 0 {
            return true;
        }
        let mut hasher = self.hasher.build_hasher();
        match source {
            IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
            // One subscriber has a whole /64.
            IpAddr::V6(ip) => hasher.write_u64((ip.to_bits() >> 64) as u64),
        }
        let index = (hasher.finish() >> 32) as usize % BUCKETS;
        let bucket = &mut self.buckets[index];
        let cost = 1_000_000_000 / u64::from(rate);
        let full_at = bucket.full_at.max(now.as_nanos()) + cost;
        let allowed = full_at <= now.as_nanos() + 1_000_000_000;
        if allowed {
            bucket.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_source_gets_its_rate_and_recovers() {
        let mut throttle = Throttle::new(1);
        let source = "192.0.2.7".parse().expect("literal");
        let granted = (0..10_000).filter(|_| throttle.allows(at(0), source, 500)).count();
        assert_eq!(granted, 500);
        let granted = (0..1000).filter(|_| throttle.allows(at(100), source, 500)).count();
        assert_eq!(granted, 50);
        let granted = (0..10_000).filter(|_| throttle.allows(at(2100), source, 500)).count();
        assert_eq!(granted, 500, "nothing is owed two seconds later");
    }

    #[test]
    fn others_are_served_meanwhile_and_zero_is_no_limit() {
        let mut throttle = Throttle::new(1);
        let flooder = "192.0.2.7".parse().expect("literal");
        while throttle.allows(at(0), flooder, 500) {}
        assert!(throttle.allows(at(0), "192.0.2.8".parse().expect("literal"), 500));
        assert!(throttle.allows(at(0), flooder, 0));
        let (a, b) = ("2001:db8::1".parse().expect("literal"), "2001:db8::2".parse().expect("literal"));
        while throttle.allows(at(0), a, 500) {}
        assert!(!throttle.allows(at(0), b, 500), "one /64 is one source");
    }
}
