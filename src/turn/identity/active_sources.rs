//! How many sources compete for a budget: each may use an equal share of it.
//!
//! Shares are equal in two steps, so that neither one provider's customers nor all of them together take the share of a source
//! elsewhere: first among providers (an IPv6 /32; an IPv4 address is one of its own), then among a provider's sites (/48).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::time::Instant;
use crate::turn::keyed_hash::KeyedState;

/// Providers that are told apart in one second. Later ones of that second share as if they were alone with the others.
const PROVIDERS: usize = 1024;

/// An IPv4 address, or an IPv6 /32.
type Provider = (bool, u32);

/// Sites of one provider in this second and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Sites {
    now: u32,
    before: u32,
}

/// Counts sources in this second and in the one before.
#[derive(Debug)]
pub struct ActiveSources {
    second: u64,
    /// How many of `providers` have a site in this second.
    fresh: u32,
    providers: HashMap<Provider, Sites, KeyedState>,
}

impl ActiveSources {
    /// None yet. `key` must come from a cryptographic random generator: sources choose the keys of the map.
    pub fn new(key: [u64; 2]) -> Self {
        Self { second: 0, fresh: 0, providers: HashMap::with_hasher(KeyedState::new(key)) }
    }

    /// Counts the site of a source, which the caller does once a second for each site.
    pub fn note(&mut self, now: Instant, source: IpAddr) {
        let second = second(now);
        if second != self.second {
            let is_next = second == self.second + 1;
            self.providers.retain(|_, sites| {
                *sites = Sites { now: 0, before: if is_next { sites.now } else { 0 } };
                sites.before > 0
            });
            (self.second, self.fresh) = (second, 0);
        }
        if self.providers.len() < PROVIDERS || self.providers.contains_key(&provider(source)) {
            let sites = self.providers.entry(provider(source)).or_default();
            self.fresh += u32::from(sites.now == 0);
            sites.now += 1;
        }
    }

    /// Returns in how many parts the budget is divided for this source, at least one.
    pub fn parts(&self, now: Instant, source: IpAddr) -> u32 {
        let sites = self.providers.get(&provider(source)).copied().unwrap_or_default();
        let (providers, sites) = match second(now).saturating_sub(self.second) {
            // At most `PROVIDERS`, so it fits.
            0 => (self.providers.len() as u32, sites.now.max(sites.before)),
            // What was noted last is the second before.
            1 => (self.fresh, sites.now),
            _ => (0, 0),
        };
        providers.max(1).saturating_mul(sites.max(1))
    }
}

fn second(now: Instant) -> u64 {
    now.as_nanos() / 1_000_000_000
}

fn provider(source: IpAddr) -> Provider {
    match source {
        IpAddr::V4(ip) => (false, ip.to_bits()),
        IpAddr::V6(ip) => (true, (ip.to_bits() >> 96) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn source(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    #[test]
    fn sources_of_this_second_and_the_last_one_count() {
        let mut active = ActiveSources::new([1, 2]);
        let parts = |active: &ActiveSources, millis| active.parts(at(millis), source("192.0.2.1"));
        assert_eq!(parts(&active, 5000), 1);
        (1..=3).for_each(|n| active.note(at(5100), source(&format!("192.0.2.{n}"))));
        assert_eq!([5900, 6900, 7000].map(|millis| parts(&active, millis)), [3, 3, 1]);
        (1..=2).for_each(|n| active.note(at(6500), source(&format!("192.0.2.{n}"))));
        assert_eq!([6900, 7100].map(|millis| parts(&active, millis)), [3, 2]);
        (1..=4).for_each(|n| active.note(at(7500), source(&format!("192.0.2.{n}"))));
        assert_eq!(parts(&active, 7600), 4);
        active.note(at(9000), source("192.0.2.1"));
        assert_eq!(parts(&active, 9100), 1);
    }

    #[test]
    fn sites_share_what_their_provider_has() {
        let mut active = ActiveSources::new([1, 2]);
        for site in 1..=8 {
            active.note(at(5100), source(&format!("2003:e5:{site}::1")));
        }
        active.note(at(5200), source("192.0.2.1"));
        active.note(at(5200), source("2003:e6:1::1"));
        let parts = |text| active.parts(at(5300), source(text));
        assert_eq!(["192.0.2.1", "2003:e6:1::1", "2003:e5:9::1"].map(parts), [3, 3, 24]);
    }

    #[test]
    fn the_number_of_providers_is_limited() {
        let mut active = ActiveSources::new([1, 2]);
        for n in 0..2 * PROVIDERS as u32 {
            active.note(at(5100), IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(active.providers.len(), PROVIDERS);
        assert_eq!(active.parts(at(5200), source("192.0.2.1")), PROVIDERS as u32);
        active.note(at(9000), source("192.0.2.1"));
        assert_eq!(active.providers.len(), 1);
    }
}
