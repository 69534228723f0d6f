//! Limits how often a source, and all sources together, may ask. A school is one source: a class opens the page at once.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::network::{Network, networks};

const SECOND: u64 = 1_000_000_000;

/// A rate with a burst.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Nanoseconds for one.
    each: u64,
    /// How many may come at once.
    burst: u64,
}

/// An IPv4 address or an IPv6 network (/64): two classes at once, then one a second.
const SOURCE: Rate = Rate { each: SECOND, burst: 60 };
/// All sources together.
const ALL: Rate = Rate { each: SECOND / 20, burst: 200 };

/// Token buckets (GCRA). The times are nanoseconds of the monotonic clock.
///
/// Only what is admitted is counted. So there are never more buckets than the limit on all sources admits within the minute
/// after which a bucket is full again: [`BUCKETS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Limiter {
    all: u64,
    /// When each bucket is full again.
    full_at: HashMap<Network, u64>,
}

/// Admitted in the time of a burst, in the three networks of an IPv6 address.
const BUCKETS_MAX: usize = ((ALL.burst + SOURCE.burst * SOURCE.each / ALL.each) * 3) as usize;

impl Limiter {
    /// Takes one for this source.
    ///
    /// # Errors
    /// Seconds until there is one again.
    pub fn take(&mut self, now: u64, ip: IpAddr) -> Result<(), u64> {
        let room = SOURCE.each * SOURCE.burst;
        let mut levels: Vec<(Network, u64)> = Vec::with_capacity(3);
        let mut over = 0;
        for (network, share) in networks(ip) {
            // A larger network has a multiple of the rate, and so of the burst.
            let next = self.full_at.get(&network).copied().unwrap_or_default().max(now)
                + SOURCE.each / u64::from(share);
            over = over.max(next.saturating_sub(now + room));
            levels.push((network, next));
        }
        let all = self.all.max(now) + ALL.each;
        over = over.max(all.saturating_sub(now + ALL.each * ALL.burst));
        if over > 0 {
            return Err(over.div_ceil(SECOND));
        }
        self.all = all;
        if self.full_at.len() + levels.len() > BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.extend(levels);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of 1,000 are admitted in a minute.
    fn admitted(limiter: &mut Limiter, source: impl Fn(u64) -> IpAddr) -> usize {
        let start = 7 * SECOND;
        (0..1000).filter(|&n| limiter.take(start + n * 60 * SECOND / 1000, source(n)).is_ok()).count()
    }

    #[test]
    fn a_thousand_in_a_minute_from_one_source_are_limited() {
        let mut limiter = Limiter::default();
        assert_eq!(admitted(&mut limiter, |_| ip("192.0.2.1")), 119);
        while limiter.take(67 * SECOND, ip("192.0.2.1")).is_ok() {}
        assert_eq!(limiter.take(67 * SECOND, ip("192.0.2.1")), Err(1));
        assert_eq!(limiter.take(67 * SECOND, ip("192.0.2.2")), Ok(()), "others are served");
        // A home with many networks has four times as much, not as many times as it has networks.
        let mut limiter = Limiter::default();
        let many = admitted(&mut limiter, |n| ip(&format!("2001:db8:0:{n:x}::1")));
        assert!((400..500).contains(&many), "{many}");
    }

    #[test]
    fn all_sources_together_are_limited_and_so_is_the_memory() {
        let mut limiter = Limiter::default();
        let source = |n: u64| ip(&format!("2001:db8:{n:x}::1"));
        assert_eq!((0..1000).filter(|&n| limiter.take(SECOND, source(n)).is_ok()).count(), 200);
        for n in 0..50_000_u64 {
            let _ = limiter.take(SECOND + n * SECOND / 100, source(n % 60_000));
        }
        assert!(limiter.full_at.len() <= BUCKETS_MAX, "{}", limiter.full_at.len());
        // The first source is as new as any other after a while.
        assert_eq!(limiter.take(700 * SECOND, source(0)), Ok(()));
    }
}
