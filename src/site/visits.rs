//! Counts the connections that the site serves, and chooses the one to close on a full site.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::base::lock::lock;
use crate::base::network::Network;

/// A source loses a visit to a newcomer only if it has at least this many more than the newcomer's source. Afterwards it
/// still has at least as many, so the two do not displace each other in turn.
const AHEAD: usize = 2;

/// Every visit of a site. A source is an IPv4 address or an IPv6 site (/48).
#[derive(Debug)]
pub(super) struct Visits {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// Numbers the arrivals and requests of all visits.
    last: u64,
    /// The visits of each source by the number of their last request, the least recent first.
    by_source: HashMap<Network, BTreeMap<u64, Arc<Notify>>>,
}

impl Open {
    fn add(&mut self, source: Network, displaced: Arc<Notify>) -> u64 {
        self.last += 1;
        self.count += 1;
        self.by_source.entry(source).or_default().insert(self.last, displaced);
        self.last
    }

    /// Removes a visit, unless it was displaced.
    fn remove(&mut self, source: Network, number: u64) -> Option<Arc<Notify>> {
        let visits = self.by_source.get_mut(&source)?;
        let displaced = visits.remove(&number)?;
        self.count -= 1;
        if visits.is_empty() {
            self.by_source.remove(&source);
        }
        Some(displaced)
    }

    /// Displaces the least recent visit of the source with the most, if it has [`AHEAD`] more than the newcomer's source.
    /// Returns whether it did.
    fn make_room_for(&mut self, newcomer: Network) -> bool {
        let own = self.by_source.get(&newcomer).map_or(0, BTreeMap::len);
        // A linear search is cheap enough: only on a full site, and there are never more sources than places.
        let largest = self.by_source.iter().max_by_key(|(_, visits)| visits.len());
        let Some((&source, visits)) = largest.filter(|(_, visits)| visits.len() >= own + AHEAD) else {
            return false;
        };
        let displaced = visits.keys().next().copied().and_then(|number| self.remove(source, number));
        displaced.is_some_and(|displaced| {
            displaced.notify_one();
            true
        })
    }
}

/// A place on the site, until dropped.
#[derive(Debug)]
pub(super) struct Visit {
    visits: Arc<Visits>,
    source: Network,
    number: Mutex<u64>,
    displaced: Arc<Notify>,
}

impl Visits {
    /// Creates a site with `max` places.
    pub fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    /// Takes a place for a client. On a full site, displaces a visit of the source with the most, so that one source
    /// cannot keep others out. Returns `None` if that source has fewer than [`AHEAD`] more than the client's own.
    pub fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Visit> {
        let source = Network::site(client);
        let displaced = Arc::new(Notify::new());
        let mut open = lock(&self.open);
        if open.count >= self.max && !open.make_room_for(source) {
            return None;
        }
        let number = Mutex::new(open.add(source, Arc::clone(&displaced)));
        Some(Visit { visits: Arc::clone(self), source, number, displaced })
    }

    /// Returns the number of visits.
    pub fn count(&self) -> usize {
        lock(&self.open).count
    }
}

impl Visit {
    /// Records a request: other visits of the same source are now displaced before this one.
    pub fn renew(&self) {
        let mut open = lock(&self.visits.open);
        let mut number = lock(&self.number);
        if let Some(displaced) = open.remove(self.source, *number) {
            *number = open.add(self.source, displaced);
        }
    }

    /// Completes when the visit is displaced. Another visit already has its place.
    pub async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        lock(&self.visits.open).remove(self.source, *lock(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(max: usize) -> Arc<Visits> {
        Arc::new(Visits::new(max))
    }

    fn enter(visits: &Arc<Visits>, client: &str) -> Option<Visit> {
        visits.enter(client.parse().expect("literal"))
    }

    fn is_displaced(visits: &Visits, visit: &Visit) -> bool {
        let open = lock(&visits.open);
        open.by_source.get(&visit.source).is_none_or(|all| !all.contains_key(&lock(&visit.number)))
    }

    #[test]
    fn the_source_with_the_most_makes_room_until_both_have_as_many() {
        let visits = visits(10);
        let mut greedy: Vec<_> = (0..10).map(|_| enter(&visits, "192.0.2.1").expect("free")).collect();
        assert!(enter(&visits, "192.0.2.1").is_none(), "its own source is the largest");
        // The first one has sent another request, so the second one is the least recent.
        greedy[0].renew();
        let others: Vec<_> = (0..10).map_while(|_| enter(&visits, "192.0.2.2")).collect();
        assert_eq!((others.len(), visits.count()), (5, 10));
        let gone: Vec<_> = greedy.iter().map(|visit| is_displaced(&visits, visit)).collect();
        assert_eq!(gone, [false, true, true, true, true, true, false, false, false, false]);
        assert!(others.iter().all(|visit| !is_displaced(&visits, visit)));
        // A displaced visit gets no place back by a request, and its end does not free another's place.
        greedy[1].renew();
        greedy.drain(1..3);
        assert_eq!(visits.count(), 10);
        drop((greedy, others));
        assert_eq!(visits.count(), 0);
        assert!(lock(&visits.open).by_source.is_empty());
    }

    #[test]
    fn an_ipv6_site_is_one_source() {
        let visits = visits(8);
        let _site: Vec<_> = (0..8).filter_map(|n| enter(&visits, &format!("2001:db8:0:{n:x}::1"))).collect();
        assert!(enter(&visits, "2001:db8:0:99::1").is_none());
        assert!(enter(&visits, "2001:db8:1::1").is_some());
    }
}
