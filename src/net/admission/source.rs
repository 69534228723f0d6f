//! Counts the streams of one source. IPv6 is counted at three prefix lengths, because a customer of a provider has more
//! than one address.

use std::net::IpAddr;
use std::sync::Arc;

use super::state::Admission;
use crate::base::network::networks;
use crate::net::counters::Refusal;

/// Capacity kept when no source is left.
const SOURCES_KEPT: usize = 1024;

/// A stream counted for its source, until dropped.
#[derive(Debug)]
pub(super) struct Counted {
    admission: Arc<Admission>,
    source: IpAddr,
    /// How many of its networks, from the smallest on, count the stream.
    levels: usize,
}

impl Counted {
    /// Counts one more stream of `source`; returns `None` if the source has no limit.
    ///
    /// # Errors
    /// `Source` if one of its networks is at its limit.
    pub fn take(admission: &Arc<Admission>, source: IpAddr) -> Result<Option<Self>, Refusal> {
        let limit = admission.rules.load().streams_per_source;
        if limit == 0 || admission.is_exempt(source) {
            return Ok(None);
        }
        // A refusal drops it, which uncounts the levels counted so far.
        let mut counted = Self { admission: Arc::clone(admission), source, levels: 0 };
        for (network, share) in networks(source) {
            let mut held = admission.sources.entry(network).or_insert(0);
            if *held >= limit.saturating_mul(share) {
                return Err(Refusal::Source);
            }
            *held += 1;
            counted.levels += 1;
        }
        Ok(Some(counted))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let sources = &self.admission.sources;
        for (network, _) in networks(self.source).take(self.levels) {
            sources.remove_if_mut(&network, |_, held| {
                *held = held.saturating_sub(1);
                *held == 0
            });
        }
        if sources.is_empty() && sources.capacity() > SOURCES_KEPT {
            sources.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admission::Rules;

    fn admission(streams_per_source: u32) -> Arc<Admission> {
        Arc::new(Admission::new(Rules { streams_per_source, ..Rules::default() }, 100))
    }

    fn take(admission: &Arc<Admission>, source: &str) -> Option<Counted> {
        let source = source.parse().expect("an address");
        Counted::take(admission, source).ok().map(|counted| counted.expect("limited"))
    }

    #[test]
    fn limits_grow_with_the_size_of_an_ipv6_network() {
        let admission = admission(10);
        let held = |networks: &mut dyn Iterator<Item = String>| -> Vec<Counted> {
            networks
                .flat_map(|source| (0..20).map_while(|_| take(&admission, &source)).collect::<Vec<_>>())
                .collect()
        };
        let network = held(&mut (1..20).map(|n| format!("2001:db8::{n:x}")));
        assert_eq!(network.len(), 10, "one /64");
        let home = held(&mut (1..256).map(|n| format!("2001:db8:0:{n:x}::1")));
        assert_eq!(network.len() + home.len(), 20, "one /56");
        let site = held(&mut (1..256).map(|n| format!("2001:db8:0:{n:x}00::1")));
        assert_eq!(network.len() + home.len() + site.len(), 40, "one /48");
        assert_eq!(held(&mut ["2001:db8:1::1".to_owned()].into_iter()).len(), 10, "another site");
        drop((network, home, site));
        assert!(admission.sources.is_empty(), "no source is remembered");
    }

    #[test]
    fn a_refusal_counts_nothing_and_an_ipv4_address_is_a_source() {
        let admission = admission(1);
        let held = take(&admission, "2001:db8::1").expect("free");
        assert!(take(&admission, "2001:db8::2").is_none());
        let _second = take(&admission, "2001:db8:0:1::1").expect("the second of the /56");
        assert!(take(&admission, "2001:db8:0:2::1").is_none(), "a third");
        drop(held);
        let again = take(&admission, "2001:db8:0:2::1").expect("a place came back");
        let (_v4, _other) = (take(&admission, "192.0.2.1"), take(&admission, "192.0.2.2"));
        assert!(take(&admission, "192.0.2.1").is_none());
        drop(again);
        assert_eq!(admission.sources.len(), 3 + 2);
    }
}
