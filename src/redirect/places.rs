//! The limit on connections, in all and for each source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::base::lock::lock;
use crate::base::network::Network;

/// Connections at the same time, and from one source. Each lasts ten seconds at most.
const ALL: usize = 256;
const OF_SOURCE: usize = 8;

/// The open connections. Clones share them.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<Network, usize>>>);

/// The place of a connection, which is free when it is dropped.
pub struct Place {
    of: Places,
    source: Network,
}

impl Places {
    /// Returns a place for a client at this address; `None` if none is left.
    pub fn enter(&self, client: IpAddr) -> Option<Place> {
        let source = Network::customer(client.to_canonical());
        let mut open = lock(&self.0);
        if open.values().sum::<usize>() >= ALL {
            return None;
        }
        let count = open.entry(source).or_default();
        if *count >= OF_SOURCE {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.of.0);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn places_are_limited_for_each_source_and_in_all() {
        let places = Places::default();
        let mut of_one: Vec<_> = (0..20).filter_map(|_| places.enter(ip("192.0.2.1"))).collect();
        assert_eq!(of_one.len(), 8);
        assert!(places.enter(ip("::ffff:192.0.2.1")).is_none(), "the same source");
        of_one.pop();
        assert!(places.enter(ip("192.0.2.1")).is_some());
        let others: Vec<_> =
            (0..300).filter_map(|n| places.enter(ip(&format!("198.51.{}.{}", n / 256, n % 256)))).collect();
        assert_eq!(others.len(), 256 - 7);
        drop((of_one, others));
        assert!(lock(&places.0).is_empty());
    }
}
