//! Deadlines in order: a heap with lazy entries.
//!
//! A refresh to a later time does not touch the heap: when an entry is due and its owner now lives longer, the owner is pushed
//! back. Entries that are not in effect (their owner is gone or has an earlier one) are skipped, and removed when they
//! outnumber the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::time::Instant;

/// Stale entries tolerated before a sweep.
const SLACK: usize = 1024;

/// A heap of deadlines of `T`s.
#[derive(Debug)]
pub struct Deadlines<T> {
    heap: BinaryHeap<Reverse<(Instant, T)>>,
}

impl<T: Ord> Default for Deadlines<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<T: Ord + Copy> Deadlines<T> {
    /// Adds a deadline.
    pub fn push(&mut self, at: Instant, owner: T) {
        self.heap.push(Reverse((at, owner)));
    }

    /// The next deadline; its owner may be gone or may have been refreshed.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes one owner whose deadline has passed, and returns it with that deadline.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }

    /// Removes the entries that are not in effect, if there are many more entries than `living` owners. An owner has one entry
    /// in effect, so at least half of the entries go.
    pub fn sweep(&mut self, living: usize, is_in_effect: impl Fn(Instant, &T) -> bool) {
        if self.heap.len() > 2 * living + SLACK {
            self.heap.retain(|Reverse((at, owner))| is_in_effect(*at, owner));
            self.heap.shrink_to(living + SLACK);
        }
    }

    /// Owners of all entries, in no order; some may be gone.
    pub fn owners(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|Reverse((_, owner))| owner)
    }

    /// The number of entries, including stale ones.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn deadlines_come_up_in_order_and_not_before_their_time() {
        let mut deadlines = Deadlines::default();
        for nanos in [30, 10, 20] {
            deadlines.push(at(nanos), nanos);
        }
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(20)), Some((at(10), 10)));
        assert_eq!(deadlines.pop_due(at(20)), Some((at(20), 20)));
        assert_eq!(deadlines.pop_due(at(20)), None);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut deadlines = Deadlines::default();
        for owner in 0..100_000u64 {
            deadlines.push(at(owner), owner);
            deadlines.sweep(10, |_, &other| other + 10 > owner);
            assert!(deadlines.len() <= 20 + SLACK + 1);
        }
        assert!(!deadlines.is_empty());
    }
}
