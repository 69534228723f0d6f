//! The readings of the last minute, so that rare events are shown for longer than a moment.

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::Reading;

/// The span of the readings that are kept.
pub const SPAN: Duration = Duration::from_secs(60);
/// Most readings kept; the smallest interval is a second.
const READINGS_MAX: usize = 64;

/// Readings of one process, the oldest first.
#[derive(Debug, Default)]
pub struct History {
    readings: VecDeque<Reading>,
}

impl History {
    /// Adds a reading. Returns whether the server was restarted since the one before: its counters begin anew, so the older
    /// readings are forgotten.
    pub fn add(&mut self, reading: Reading) -> bool {
        // The time of the start is the same in every reading of one process.
        let is_restart = self.latest().is_some_and(|latest| latest.started != reading.started);
        if is_restart {
            self.readings.clear();
        }
        let is_old = |first: &Reading| reading.at.since(first.at) > SPAN;
        while self.readings.len() >= READINGS_MAX || self.readings.get(1).is_some_and(is_old) {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        is_restart
    }

    /// Returns the latest reading.
    pub fn latest(&self) -> Option<&Reading> {
        self.readings.back()
    }

    /// Returns the reading before the latest.
    pub fn previous(&self) -> Option<&Reading> {
        self.readings.len().checked_sub(2).and_then(|at| self.readings.get(at))
    }

    /// Returns the oldest reading, about [`SPAN`] older than the latest one, if there are two.
    pub fn oldest(&self) -> Option<&Reading> {
        self.readings.front().filter(|_| self.readings.len() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;

    fn reading(seconds: u64, started: u64) -> Reading {
        Reading { at: Instant::from_nanos(seconds * 1_000_000_000), started, ..Reading::default() }
    }

    #[test]
    fn a_minute_of_one_process_is_kept() {
        let mut history = History::default();
        assert!(!history.add(reading(100, 1)));
        assert!(history.oldest().is_none() && history.previous().is_none());
        for step in 1..=45 {
            history.add(reading(100 + 2 * step, 1));
        }
        let at = |reading: Option<&Reading>| reading.expect("a reading").at.as_secs();
        assert_eq!((at(history.oldest()), at(history.previous()), at(history.latest())), (128, 188, 190));
        assert!(history.add(reading(192, 2)), "a restart");
        assert_eq!((at(history.latest()), history.oldest()), (192, None));
        for _ in 0..1000 {
            history.add(reading(192, 2));
        }
        assert_eq!(history.readings.len(), READINGS_MAX);
    }
}
