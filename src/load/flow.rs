//! The packets of the load: schedules, counts and latencies.

use super::latency::Latency;
use super::media::{Direction, Stamp};
use super::timeline::Timeline;

/// Length of a bin, in nanoseconds. A bin counts the packets sent in one such span; it is reused when they are at least
/// three bin lengths old.
const BIN: u64 = 250_000_000;
/// Bins in use: the current one, two whose packets may still arrive, and one that is being given up.
const BINS: usize = 4;

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Packets sent in the measured interval, and those of them that arrived.
    sent: u64,
    received: u64,
    /// Packets in flight, except those given up.
    in_flight: u64,
    bins: [(u64, u64); BINS],
}

/// Counts and latencies of all packets.
#[derive(Default)]
pub struct Flow {
    /// Start of the measured interval.
    from: u64,
    /// End of the measured interval, exclusive.
    until: u64,
    ways: [Way; 2],
    bin: u64,
    /// Packets that arrived in the measured interval, and their payload.
    delivered: u64,
    delivered_bytes: u64,
    /// Latency of one way through the relay.
    pub latency: Latency,
    /// The longest delay between the due time of a packet and its sending, in nanoseconds.
    pub late: u64,
    /// Counts and latencies of every second, if somebody wants them.
    pub timeline: Option<Box<Timeline>>,
}

impl Flow {
    /// Sets the measured interval.
    pub fn measure(&mut self, from: u64, until: u64) {
        (self.from, self.until) = (from, until);
    }

    /// Forgets everything but the timeline, and sets another measured interval. Packets that were sent before it count
    /// no more.
    pub fn start_again(&mut self, from: u64, until: u64) {
        let timeline = self.timeline.take();
        *self = Self { timeline, from, until, ..Self::default() };
    }

    /// Counts a packet as sent at `now`.
    pub fn sent(&mut self, direction: Direction, now: u64) {
        let counts = self.counts(now);
        let way = &mut self.ways[direction as usize];
        way.in_flight += 1;
        way.bins[bin(now)].0 += 1;
        way.sent += u64::from(counts);
        if let Some(timeline) = &mut self.timeline {
            timeline.sent(now);
        }
    }

    /// Corrects the count for packets that the kernel refused.
    pub fn refused(&mut self, direction: Direction, now: u64, count: u64) {
        let way = &mut self.ways[direction as usize];
        way.in_flight = way.in_flight.saturating_sub(count);
        way.bins[bin(now)].1 += count;
    }

    /// Counts a packet with `len` bytes of payload as arrived.
    pub fn received(&mut self, stamp: Stamp, len: usize, now: u64) {
        let counts = self.counts(stamp.at);
        let way = &mut self.ways[stamp.direction as usize];
        if now.saturating_sub(stamp.at) < BIN * (BINS as u64 - 2) {
            way.in_flight = way.in_flight.saturating_sub(1);
            way.bins[bin(stamp.at)].1 += 1;
        }
        if counts {
            way.received += 1;
            self.latency.record(now.saturating_sub(stamp.at));
        }
        if self.counts(now) {
            self.delivered += 1;
            self.delivered_bytes += len as u64;
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.received(stamp.at, len, now);
        }
    }

    /// Gives up packets that have been in flight for too long.
    pub fn give_up(&mut self, now: u64) {
        while self.bin < now / BIN {
            // After a pause, all bins are old.
            self.bin = (self.bin + 1).max((now / BIN).saturating_sub(BINS as u64));
            // The bin is reused for the next packets; all packets in it are at least three bin lengths old.
            let old = (self.bin % BINS as u64) as usize;
            for way in &mut self.ways {
                let (sent, received) = std::mem::take(&mut way.bins[old]);
                way.in_flight = way.in_flight.saturating_sub(sent.saturating_sub(received));
            }
        }
    }

    fn counts(&self, at: u64) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Returns the number of packets in flight.
    pub fn in_flight(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].in_flight
    }

    /// Returns the number of packets sent in the measured interval.
    pub fn sent_count(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].sent
    }

    /// Returns the number of those that arrived.
    pub fn received_count(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].received
    }

    /// Returns the number of packets that arrived in the measured interval, in both directions.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns the payload bytes of those packets.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// Returns the number of packets sent in the measured interval that have not arrived.
    pub fn missing(&self) -> u64 {
        self.ways.iter().map(|way| way.sent.saturating_sub(way.received)).sum()
    }
}

fn bin(at: u64) -> usize {
    (at / BIN % BINS as u64) as usize
}

/// When the packets of one direction are due. Every allocation sends its bursts at its own phase, independent of the
/// others: as with people who talk, bursts of different allocations may coincide.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: u64,
    /// Nanoseconds between two bursts of one allocation.
    period: f64,
    /// The phase of each allocation's burst in the period, sorted, with the allocation's index.
    phases: Vec<(f64, usize)>,
    next: u64,
}

impl Schedule {
    /// Creates a schedule of `rate` packets per second and allocation, in bursts; `None` if the rate is 0. The phases
    /// depend only on `seed`, so runs with the same options are identical.
    pub fn new(start: u64, allocations: usize, rate: f64, burst: u32, seed: u64) -> Option<Self> {
        let bursts = rate / f64::from(burst);
        if allocations == 0 || bursts <= 0.0 {
            return None;
        }
        let period = 1e9 / bursts;
        let mut random = seed;
        let mut phases: Vec<(f64, usize)> =
            (0..allocations).map(|allocation| (fraction(&mut random) * period, allocation)).collect();
        phases.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Some(Self { start, period, phases, next: 0 })
    }

    /// Returns when the next burst is due.
    pub fn due(&self) -> u64 {
        let (round, place) = self.position();
        // The mantissa of 2^53 ns covers a run of 104 days.
        self.start + (round as f64 * self.period + self.phases[place].0) as u64
    }

    /// Returns the allocation whose burst is due, if any, and advances.
    pub fn take(&mut self, now: u64) -> Option<usize> {
        if self.due() > now {
            return None;
        }
        let (_, place) = self.position();
        self.next += 1;
        Some(self.phases[place].1)
    }

    fn position(&self) -> (u64, usize) {
        let count = self.phases.len() as u64;
        (self.next / count, (self.next % count) as usize)
    }
}

/// Returns the next pseudo-random number from 0 to 1 (splitmix64).
pub fn fraction(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stamp(at: u64) -> Stamp {
        Stamp { client: 0, at, direction: Direction::FromClient }
    }

    #[test]
    fn only_what_was_sent_in_the_measured_time_counts() {
        let mut flow = Flow::default();
        flow.measure(SECOND, 2 * SECOND);
        for at in [SECOND - 1, SECOND, 2 * SECOND - 1, 2 * SECOND] {
            flow.sent(Direction::FromClient, at);
        }
        for at in [SECOND - 1, SECOND] {
            flow.received(stamp(at), 100, SECOND + 5_000);
        }
        assert_eq!(flow.sent_count(Direction::FromClient), 2);
        assert_eq!((flow.received_count(Direction::FromClient), flow.missing()), (1, 1));
        assert_eq!((flow.delivered(), flow.delivered_bytes()), (2, 200));
        assert!(flow.latency.quantile(0.5).is_some_and(|us| (4.9..5.1).contains(&us)));
    }

    #[test]
    fn what_does_not_arrive_is_given_up_within_a_second() {
        let mut flow = Flow::default();
        flow.give_up(10 * SECOND);
        (0..9).for_each(|n| flow.sent(Direction::FromPeer, 10 * SECOND + n));
        flow.give_up(10 * SECOND + SECOND / 2 - 1);
        assert_eq!(flow.in_flight(Direction::FromPeer), 9);
        flow.give_up(11 * SECOND);
        assert_eq!(flow.in_flight(Direction::FromPeer), 0);
        // A packet that arrives after all does not increase the window.
        flow.sent(Direction::FromPeer, 11 * SECOND);
        flow.received(Stamp { direction: Direction::FromPeer, ..stamp(10 * SECOND) }, 100, 11 * SECOND + 9);
        assert_eq!(flow.in_flight(Direction::FromPeer), 1);
    }

    #[test]
    fn every_allocation_keeps_its_pace_and_its_own_phase() {
        // 4 allocations, 10 packets a second in bursts of 5: each has two bursts a second.
        let mut schedule = Schedule::new(SECOND, 4, 10.0, 5, 1).expect("a rate");
        let mut last = 0;
        let mut due = vec![Vec::new(); 4];
        for _ in 0..12 {
            let at = schedule.due();
            assert!(at >= last && schedule.take(at - 1).is_none());
            due[schedule.take(at).expect("due")].push(at);
            last = at;
        }
        for times in &due {
            assert_eq!(times.len(), 3);
            assert!((SECOND..SECOND * 3 / 2).contains(&times[0]));
            assert!(times.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(SECOND / 2) <= 1));
        }
        assert!(due.iter().any(|times| times[0].abs_diff(due[0][0]) > SECOND / 100), "phases differ");
        assert!(Schedule::new(0, 4, 0.0, 1, 1).is_none());
    }
}
