//! The places of connections to the admin pages: a limit for all and one for each source.
//!
//! A connection that has not sent its request gives way to a newcomer, so that idle connections keep nobody out.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use crate::base::lock::lock;
use crate::base::network::Network;

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    all: usize,
    each: usize,
    /// The oldest first.
    taken: Arc<Mutex<Vec<Arc<Place>>>>,
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    source: Network,
    /// The head of the request has been read.
    asked: AtomicBool,
    /// A newcomer has the place now.
    lost: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Gives the place back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    place: Arc<Place>,
    places: Places,
}

impl Places {
    /// Makes places for `all` connections, at most `each` of one source: an IPv4 address or an IPv6 /64.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all, each, taken: Arc::default() }
    }

    /// Takes a place for a connection from `ip`.
    ///
    /// If the source has all of its own, or if none is left, the oldest connection without a request loses its place: one of
    /// the same source in the first case, one of the source with the most connections in the second. Returns `None` if each
    /// of these has sent its request.
    pub(super) fn take(&self, ip: IpAddr) -> Option<Ticket> {
        let source = Network::customer(ip);
        let mut taken = lock(&self.taken);
        let held = |source: Network| taken.iter().filter(|place| place.source == source).count();
        let mut idle = taken.iter().enumerate().filter(|(_, place)| !place.asked.load(Ordering::Relaxed));
        let loser = if held(source) >= self.each {
            Some(idle.find(|(_, place)| place.source == source)?.0)
        } else if taken.len() >= self.all {
            // Of equals, `max_by_key` returns the last.
            Some(idle.rev().max_by_key(|(_, place)| held(place.source))?.0)
        } else {
            None
        };
        if let Some(at) = loser {
            taken.remove(at).lose();
        }
        let place = Arc::new(Place {
            source,
            asked: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        taken.push(Arc::clone(&place));
        Some(Ticket { place, places: self.clone() })
    }
}

impl Place {
    /// Notes that the request has been read: its connection is not displaced any more.
    pub(super) fn request_read(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Tells whether the request has been read.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Tells whether a newcomer has the place. If not, the task is woken when that happens.
    pub(super) fn is_lost(&self, cx: &Context<'_>) -> bool {
        // Under the lock, so that the waker is either seen by `lose` or not needed.
        let mut waker = lock(&self.waker);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self) {
        let mut waker = lock(&self.waker);
        self.lost.store(true, Ordering::Relaxed);
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

impl Ticket {
    /// Returns the place.
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.places.taken).retain(|place| !Arc::ptr_eq(place, &self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    fn is_lost(ticket: &Ticket) -> bool {
        ticket.place().is_lost(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_oldest_without_a_request_gives_way_to_one_of_its_source() {
        let places = Places::new(8, 2);
        let other = places.take(ip("192.0.2.9")).unwrap();
        let first = places.take(ip("2001:db8::1")).unwrap();
        let second = places.take(ip("2001:db8::2")).unwrap();
        first.place().request_read();
        let third = places.take(ip("2001:db8::3")).unwrap();
        assert_eq!([&other, &first, &second, &third].map(is_lost), [false, false, true, false]);
        third.place().request_read();
        assert!(places.take(ip("2001:db8::4")).is_none(), "both of the source have asked");
        drop(first);
        assert!(places.take(ip("2001:db8::4")).is_some(), "a place was given back");
        assert!(!is_lost(&other));
    }

    #[test]
    fn when_none_is_left_the_source_with_the_most_loses_its_oldest() {
        let places = Places::new(4, 3);
        let honest = places.take(ip("192.0.2.9")).unwrap();
        let flood: Vec<_> = (0..3).map(|_| places.take(ip("192.0.2.1")).unwrap()).collect();
        let newcomer = places.take(ip("192.0.2.8")).unwrap();
        assert!(!is_lost(&honest) && !is_lost(&newcomer));
        assert_eq!(flood.iter().map(is_lost).collect::<Vec<_>>(), [true, false, false]);
        // The ticket of a lost place gives nothing back.
        drop(flood);
        let [_a, _b] = ["192.0.2.1", "192.0.2.2"].map(|source| places.take(ip(source)).unwrap());
        assert!(!is_lost(&honest) && !is_lost(&newcomer), "four places, four connections");
        for place in lock(&places.taken).iter() {
            place.request_read();
        }
        assert!(places.take(ip("192.0.2.7")).is_none());
    }

    #[test]
    fn a_lost_place_wakes_its_connection() {
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let places = Places::new(1, 1);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(!first.place().is_lost(&Context::from_waker(&waker)));
        let _second = places.take(ip("192.0.2.1")).unwrap();
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(first.place().is_lost(&Context::from_waker(&waker)));
    }
}
