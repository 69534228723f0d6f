//! How long the turns of a worker's loop take.

use std::time::Duration;

use crate::turn::counters::Counter;

/// Upper bounds of the buckets. An idle turn takes some microseconds. A call notices nothing below 5 ms, and a gap from 50 ms
/// on.
const BOUNDS: [Duration; 9] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
];

/// Turns by their duration, from waking up until everything that was to do then is done.
#[derive(Debug, Default)]
pub struct Turns {
    /// Turns up to each of [`BOUNDS`], and the longer ones.
    buckets: [Counter; BOUNDS.len() + 1],
    nanos: Counter,
}

impl Turns {
    /// Counts a turn. Only the owning worker may call this.
    pub fn add(&self, took: Duration) {
        // Most turns belong to the first bucket, so a search takes longer than going through them.
        let bucket = BOUNDS.iter().position(|&bound| took <= bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1);
        // 2^64 ns are 584 years.
        self.nanos.add(took.as_nanos() as u64);
    }

    /// Returns each bound with the number of turns that took at most as long.
    pub fn cumulative(&self) -> [(Duration, u64); BOUNDS.len()] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].get();
            (BOUNDS[bucket], sum)
        })
    }

    /// Returns the number of turns that took longer than the last bound.
    pub fn longer(&self) -> u64 {
        self.buckets[BOUNDS.len()].get()
    }

    /// Returns the duration of all turns together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_in_the_first_bucket_that_it_does_not_exceed() {
        let turns = Turns::default();
        for micros in [3, 100, 101, 5000, 5001, 250_000, 250_001] {
            turns.add(Duration::from_micros(micros));
        }
        let counts = turns.cumulative().map(|(_, count)| count);
        assert_eq!(counts, [2, 3, 3, 3, 3, 4, 5, 5, 6]);
        assert_eq!((turns.longer(), turns.total()), (1, Duration::from_micros(510_206)));
        assert!(BOUNDS.is_sorted());
    }
}
