//! How many sources compete for a budget: each may use an equal share of it.
//!
//! Shares are equal in two steps, so that neither one provider's customers nor all of them together take the share of a source
//! elsewhere: first among providers (an IPv6 /32; an IPv4 address is one of its own), then among a provider's sites (/48). Where
//! equal shares among all sites are larger, they count instead.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::base::time::Instant;
use crate::turn::keyed_hash::KeyedState;

/// Sites that are told apart in two seconds. Later ones share as if they were alone with the others.
const SITES: usize = 2048;

/// An IPv4 address, or an IPv6 /32.
type Provider = (bool, u32);
/// Of an IPv6 address the rest of its /48.
type Site = (Provider, u16);

/// Counts the sources of this second and of the one before.
#[derive(Debug)]
pub struct ActiveSources {
    second: u64,
    /// The second in which each was noted last.
    sites: HashMap<Site, u64, KeyedState>,
    /// How many of `sites` each provider has.
    providers: HashMap<Provider, u32, KeyedState>,
}

impl ActiveSources {
    /// None yet. `key` must come from a cryptographic random generator: sources choose the keys of the maps.
    pub fn new(key: [u64; 2]) -> Self {
        let state = KeyedState::new(key);
        Self { second: 0, sites: HashMap::with_hasher(state.clone()), providers: HashMap::with_hasher(state) }
    }

    /// Counts the site of a source, which the caller does once a second for each site.
    pub fn note(&mut self, now: Instant, source: IpAddr) {
        self.forget(now);
        let site = site(source);
        if let Some(noted) = self.sites.get_mut(&site) {
            *noted = self.second;
        } else if self.sites.len() < SITES {
            self.sites.insert(site, self.second);
            *self.providers.entry(site.0).or_default() += 1;
        }
    }

    /// Returns in how many parts the budget is divided for this source, at least one.
    pub fn parts(&mut self, now: Instant, source: IpAddr) -> u32 {
        self.forget(now);
        let of_provider = self.providers.get(&site(source).0).copied().unwrap_or_default();
        // At most `SITES`, so it fits.
        let (providers, sites) = (self.providers.len() as u32, self.sites.len() as u32);
        (providers.max(1) * of_provider.max(1)).min(sites.max(1))
    }

    /// Forgets the sites that were noted before the last second.
    fn forget(&mut self, now: Instant) {
        let second = now.as_nanos() / 1_000_000_000;
        if second == self.second {
            return;
        }
        self.second = second;
        let Self { sites, providers, .. } = self;
        sites.retain(|(provider, _), noted| {
            let stays = *noted + 1 >= second;
            if !stays && let Some(count) = providers.get_mut(provider) {
                *count -= 1;
            }
            stays
        });
        providers.retain(|_, count| *count > 0);
    }
}

fn site(source: IpAddr) -> Site {
    match source {
        IpAddr::V4(ip) => ((false, ip.to_bits()), 0),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            ((true, (bits >> 96) as u32), (bits >> 80) as u16)
        }
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
        let parts = |active: &mut ActiveSources, millis| active.parts(at(millis), source("192.0.2.1"));
        assert_eq!(parts(&mut active, 5000), 1);
        (1..=3).for_each(|n| active.note(at(5100), source(&format!("192.0.2.{n}"))));
        assert_eq!([5900, 6900].map(|millis| parts(&mut active, millis)), [3, 3]);
        (1..=2).for_each(|n| active.note(at(6500), source(&format!("192.0.2.{n}"))));
        assert_eq!([6900, 7100].map(|millis| parts(&mut active, millis)), [3, 2]);
        (1..=4).for_each(|n| active.note(at(7500), source(&format!("192.0.2.{n}"))));
        assert_eq!(parts(&mut active, 7600), 4);
        active.note(at(9000), source("192.0.2.1"));
        assert_eq!(parts(&mut active, 9100), 1);
    }

    #[test]
    fn sites_share_what_their_provider_has() {
        let mut active = ActiveSources::new([1, 2]);
        for site in 1..=8 {
            active.note(at(5100), source(&format!("2003:e5:{site}::1")));
        }
        active.note(at(5200), source("192.0.2.1"));
        active.note(at(5200), source("2003:e6:1::1"));
        let mut parts = |text| active.parts(at(5300), source(text));
        assert_eq!(["192.0.2.1", "2003:e6:1::1", "2003:e5:9::1"].map(&mut parts), [3, 3, 10]);
        // Sites of one provider that take turns all count.
        (9..=16).for_each(|site| active.note(at(6100), source(&format!("2003:e5:{site:x}::1"))));
        assert_eq!(active.parts(at(6200), source("2003:e5:1::1")), 18);
    }

    #[test]
    fn the_number_of_sites_is_limited() {
        let mut active = ActiveSources::new([1, 2]);
        for n in 0..2 * SITES as u32 {
            active.note(at(5100), IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(active.sites.len(), SITES);
        assert_eq!(active.parts(at(5200), source("192.0.2.1")), SITES as u32);
        active.note(at(9000), source("192.0.2.1"));
        assert_eq!(active.sites.len(), 1);
    }
}
