//! What happened in each second of a run.

use super::latency::Latency;

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// Seconds that are kept: a day.
const SECONDS_MAX: usize = 86_400;

/// The packets of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Packets that were due in it.
    pub sent: u64,
    /// Those of them that arrived, also later.
    pub received: u64,
    /// Payload bytes that arrived in it.
    pub bytes: u64,
    /// Median and 99 % of the latencies of the packets that arrived in it, in microseconds.
    pub latency: Option<(f64, f64)>,
}

/// All seconds since a start.
pub struct Timeline {
    start: u64,
    seconds: Vec<Second>,
    /// The second that `latency` belongs to.
    current: usize,
    latency: Latency,
}

impl Timeline {
    /// Begins at `start`, in nanoseconds.
    pub fn new(start: u64) -> Self {
        Self { start, seconds: Vec::new(), current: 0, latency: Latency::default() }
    }

    /// Counts a packet that is due at `at`.
    pub fn sent(&mut self, at: u64) {
        if let Some(second) = self.second(at) {
            second.sent += 1;
        }
    }

    /// Counts a packet with `len` bytes of payload that was due at `at` and arrives `now`.
    pub fn received(&mut self, at: u64, len: usize, now: u64) {
        let Some(second) = self.second(at) else { return };
        second.received += 1;
        let index = self.index(now);
        if index > self.current {
            self.close(index);
        }
        if let Some(second) = self.second(now) {
            second.bytes += len as u64;
            self.latency.record(now.saturating_sub(at));
        }
    }

    /// Returns the seconds until `now`, the last one incomplete.
    pub fn finish(mut self, now: u64) -> Vec<Second> {
        self.close(self.index(now) + 1);
        self.seconds
    }

    /// Stores the latencies of the current second and begins another one.
    fn close(&mut self, next: usize) {
        let quantiles = self.latency.quantile(0.5).zip(self.latency.quantile(0.99));
        if let Some(second) = self.seconds.get_mut(self.current) {
            second.latency = quantiles;
        }
        self.latency.clear();
        self.current = next;
    }

    fn index(&self, at: u64) -> usize {
        (at.saturating_sub(self.start) / SECOND) as usize
    }

    /// Returns the second of `at`; `None` before the start and after the last one that is kept.
    fn second(&mut self, at: u64) -> Option<&mut Second> {
        let index = self.index(at);
        if at < self.start || index >= SECONDS_MAX {
            return None;
        }
        if index >= self.seconds.len() {
            self.seconds.resize(index + 1, Second::default());
        }
        self.seconds.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_packet_counts_for_the_second_in_which_it_was_due() {
        let mut timeline = Timeline::new(5 * SECOND);
        for at in [0, 1, 2] {
            timeline.sent(5 * SECOND + at);
        }
        timeline.sent(7 * SECOND);
        // One arrives at once and one in the next second; the third never.
        timeline.received(5 * SECOND, 100, 5 * SECOND + 1_000_000);
        timeline.received(5 * SECOND + 1, 100, 6 * SECOND + 1);
        timeline.received(7 * SECOND, 50, 7 * SECOND + 3_000_000);
        timeline.received(0, 50, 7 * SECOND + 3_000_000);
        let seconds = timeline.finish(7 * SECOND + 4_000_000);
        let counts: Vec<_> = seconds.iter().map(|second| (second.sent, second.received)).collect();
        assert_eq!(counts, [(3, 2), (0, 0), (1, 1)]);
        assert_eq!(seconds.iter().map(|second| second.bytes).collect::<Vec<_>>(), [100, 100, 50]);
        for (second, expected) in seconds.iter().zip([1e3, 1e6, 3e3]) {
            let (median, _) = second.latency.expect("packets arrived");
            assert!((median / expected - 1.0).abs() < 0.001, "{median} us instead of {expected}");
        }
    }

    #[test]
    fn seconds_without_packets_have_no_latency() {
        let mut timeline = Timeline::new(0);
        timeline.received(0, 1, 10);
        timeline.received(3 * SECOND, 1, 3 * SECOND + 10);
        let seconds = timeline.finish(9 * SECOND);
        let known: Vec<bool> = seconds.iter().map(|second| second.latency.is_some()).collect();
        assert_eq!(known, [true, false, false, true]);
        assert!(Timeline::new(0).finish(9 * SECOND).is_empty());
    }
}
