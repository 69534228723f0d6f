//! Requests in flight: their ids, and when they are sent again (RFC 8489 section 6.2).

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::event::{Discard, Exchange};
use super::login::Login;
use super::request::Request;
use crate::base::time::Instant;

/// The first wait for an answer over UDP; it doubles with every repetition (section 6.2.1: RTO).
const RTO: Duration = Duration::from_millis(500);
/// Times that a request is sent over UDP (section 6.2.1: Rc).
const TRIES_MAX: u32 = 7;
/// The wait after the last repetition, as a multiple of the RTO (section 6.2.1: Rm).
const LAST_WAIT: u32 = 16;
/// The wait for an answer over TCP and TLS (section 6.2.2: Ti).
const STREAM_WAIT: Duration = Duration::from_millis(39_500);
/// Requests in flight at once.
pub(super) const IN_FLIGHT_MAX: usize = 8;
/// Largest capacity of an ended transaction's buffer that is kept for the next request.
const SPARE_MAX: usize = 2048;

/// Makes transaction ids: a keyed hash of a counter, so an off-path host cannot guess them.
#[derive(Debug)]
pub(super) struct Ids {
    key: [u64; 2],
    tag: Option<u32>,
    next: u64,
}

impl Ids {
    pub(super) fn new(key: [u64; 2], tag: Option<u32>) -> Self {
        Self { key, tag, next: 0 }
    }

    pub(super) fn next(&mut self) -> [u8; 12] {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(self.next);
        self.next += 1;
        let mut id = [0; 12];
        id.copy_from_slice(&hasher.finish128().as_bytes()[..12]);
        if let Some(tag) = self.tag {
            id[..4].copy_from_slice(&tag.to_be_bytes());
        }
        id
    }
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: [u8; 12],
    pub(super) request: Request,
    /// The encoded request.
    pub(super) bytes: Vec<u8>,
    /// The login that signed it. If there is one, the answer must be protected.
    pub(super) login: Option<Arc<Login>>,
    /// How many times a signed copy of it was signed again after a challenge.
    pub(super) retries: u32,
    /// When it was first sent.
    pub(super) started: Instant,
    /// Why the last response was discarded.
    pub(super) discarded: Option<Discard>,
    deadline: Instant,
    tries: u32,
}

/// What a request needs at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// The request is to be sent again.
    Again,
    /// The request has failed.
    Over,
}

impl Transaction {
    pub(super) fn new(now: Instant, id: [u8; 12], request: Request, bytes: Vec<u8>, is_stream: bool) -> Self {
        let wait = if is_stream { STREAM_WAIT } else { RTO };
        Self {
            id,
            request,
            bytes,
            login: None,
            retries: 0,
            started: now,
            discarded: None,
            deadline: now + wait,
            tries: 1,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the request needs at `now`. [`Due::Again`] counts as sent.
    pub(super) fn due(&mut self, now: Instant, is_stream: bool) -> Due {
        if now < self.deadline {
            return Due::Nothing;
        }
        if is_stream || self.tries >= TRIES_MAX {
            return Due::Over;
        }
        let wait = if self.tries + 1 == TRIES_MAX { RTO * LAST_WAIT } else { RTO * (1 << self.tries) };
        self.tries += 1;
        self.deadline = now + wait;
        Due::Again
    }

    pub(super) fn exchange(&self, now: Instant) -> Exchange {
        Exchange { request: self.request, tries: self.tries, duration: now.since(self.started) }
    }
}

/// All requests in flight of one client, at most [`IN_FLIGHT_MAX`].
#[derive(Debug, Default)]
pub(super) struct Transactions {
    live: Vec<Transaction>,
    spare: Vec<u8>,
}

impl Transactions {
    pub(super) fn is_full(&self) -> bool {
        self.live.len() >= IN_FLIGHT_MAX
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Transaction> {
        self.live.iter()
    }

    pub(super) fn get(&self, id: &[u8; 12]) -> Option<&Transaction> {
        self.live.iter().find(|transaction| transaction.id == *id)
    }

    pub(super) fn get_mut(&mut self, id: &[u8; 12]) -> Option<&mut Transaction> {
        self.live.iter_mut().find(|transaction| transaction.id == *id)
    }

    /// The id of a request that is due, and what is due.
    pub(super) fn next_due(&mut self, now: Instant, is_stream: bool) -> Option<([u8; 12], Due)> {
        self.live.iter_mut().find_map(|transaction| match transaction.due(now, is_stream) {
            Due::Nothing => None,
            due => Some((transaction.id, due)),
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.live.iter().map(Transaction::deadline).min()
    }

    pub(super) fn insert(&mut self, transaction: Transaction) {
        // Most clients have one request in flight, and a process can have thousands of clients.
        self.live.reserve_exact(1);
        self.live.push(transaction);
    }

    pub(super) fn remove(&mut self, id: &[u8; 12]) -> Option<Transaction> {
        let place = self.live.iter().position(|transaction| transaction.id == *id)?;
        Some(self.live.swap_remove(place))
    }

    /// Removes any transaction.
    pub(super) fn pop(&mut self) -> Option<Transaction> {
        self.live.pop()
    }

    /// A buffer for the next request.
    pub(super) fn take_spare(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Keeps a buffer for the next request.
    pub(super) fn keep_spare(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_MAX && bytes.capacity() > self.spare.capacity() {
            self.spare = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// The times of section 6.2.1: 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, and failure at 39500.
    #[test]
    fn the_times_of_the_rfc() {
        let mut transaction = Transaction::new(at(0), [1; 12], Request::Binding, Vec::new(), false);
        for millis in [500, 1500, 3500, 7500, 15_500, 31_500] {
            assert_eq!(transaction.due(at(millis - 1), false), Due::Nothing);
            assert_eq!(transaction.deadline(), at(millis));
            assert_eq!(transaction.due(at(millis), false), Due::Again);
        }
        assert_eq!(transaction.due(at(39_499), false), Due::Nothing);
        assert_eq!(transaction.due(at(39_500), false), Due::Over);
        assert_eq!(transaction.exchange(at(39_500)).tries, 7);
        assert_eq!(transaction.exchange(at(39_500)).round_trip(), None);
    }

    #[test]
    fn nothing_is_repeated_on_a_stream() {
        let mut transaction = Transaction::new(at(7), [1; 12], Request::Binding, Vec::new(), true);
        assert_eq!(transaction.due(at(39_506), true), Due::Nothing);
        assert_eq!(transaction.due(at(39_507), true), Due::Over);
        assert_eq!(transaction.exchange(at(1007)).round_trip(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn ids_differ_and_can_carry_a_tag() {
        let mut seen = std::collections::HashSet::new();
        let (mut ids, mut others) = (Ids::new([1, 2], None), Ids::new([1, 3], None));
        for _ in 0..1000 {
            assert!(seen.insert(ids.next()) && seen.insert(others.next()));
        }
        let mut tagged = Ids::new([1, 2], Some(0x0102_0304));
        let (one, two) = (tagged.next(), tagged.next());
        assert_eq!((one[..4].to_vec(), two[..4].to_vec()), (vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
        assert_ne!(one, two);
    }
}
