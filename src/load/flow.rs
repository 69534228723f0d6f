//! The packets of the load: when the next is due, and what became of them.

use hdrhistogram::Histogram;

use super::media::{Direction, Stamp};

/// Latencies are kept from here, in nanoseconds...
const LATENCY_MIN: u64 = 1;
/// ...to here; longer ones count as this.
const LATENCY_MAX: u64 = 60_000_000_000;
/// How long the packets of one bin may be on their way: bins make room for others when they are twice as old.
const BIN: u64 = 250_000_000;
/// Bins in use: this one, two that may still arrive, and one that is being given up.
const BINS: usize = 4;

/// Times, from the shortest to the longest.
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Three digits: 0.1 %. The bounds are the crate's rules: 1 or more, and twice as much above.
        Self(Histogram::new_with_bounds(LATENCY_MIN, LATENCY_MAX, 3).expect("bounds in order"))
    }
}

impl Latency {
    /// Takes one in, in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.clamp(LATENCY_MIN, LATENCY_MAX));
    }

    /// Microseconds that this share of them did not exceed; `None` when there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e3)
    }
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Sent in the time that is measured, and arrived of them.
    sent: u64,
    received: u64,
    /// On their way, as far as they are not given up.
    in_flight: u64,
    bins: [(u64, u64); BINS],
}

/// All packets.
#[derive(Default)]
pub struct Flow {
    /// What is measured: packets sent from here...
    from: u64,
    /// ...to here.
    until: u64,
    ways: [Way; 2],
    bin: u64,
    /// Packets that arrived while it was measured.
    delivered: u64,
    /// One way through the relay.
    pub latency: Latency,
    /// The longest that a packet was sent after it was due, in nanoseconds.
    pub late: u64,
}

impl Flow {
    /// Measures packets sent in this time.
    pub fn measure(&mut self, from: u64, until: u64) {
        (self.from, self.until) = (from, until);
    }

    /// A packet is sent at `now`.
    pub fn sent(&mut self, direction: Direction, now: u64) {
        let counts = self.counts(now);
        let way = &mut self.ways[direction as usize];
        way.in_flight += 1;
        way.bins[bin(now)].0 += 1;
        way.sent += u64::from(counts);
    }

    /// A packet that was counted as sent could not be.
    pub fn refused(&mut self, direction: Direction, now: u64, count: u64) {
        let way = &mut self.ways[direction as usize];
        way.in_flight = way.in_flight.saturating_sub(count);
        way.bins[bin(now)].1 += count;
    }

    /// A packet arrived.
    pub fn received(&mut self, stamp: Stamp, now: u64) {
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
        self.delivered += u64::from(self.counts(now));
    }

    /// Gives up what has been on its way for too long.
    pub fn give_up(&mut self, now: u64) {
        while self.bin < now / BIN {
            // After a pause all are old.
            self.bin = (self.bin + 1).max((now / BIN).saturating_sub(BINS as u64));
            // This one is used for the next packets; all in it are at least half a second old.
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

    /// Packets on their way.
    pub fn in_flight(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].in_flight
    }

    /// Packets sent in the time that is measured.
    pub fn sent_count(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].sent
    }

    /// Of these, those that arrived.
    pub fn received_count(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].received
    }

    /// Packets that arrived while it was measured, in both directions.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets not arrived, of those sent in the time that is measured.
    pub fn missing(&self) -> u64 {
        self.ways.iter().map(|way| way.sent.saturating_sub(way.received)).sum()
    }
}

fn bin(at: u64) -> usize {
    (at / BIN % BINS as u64) as usize
}

/// When the packets of one direction are due. Every allocation sends its bursts at its own pace, and nothing ties
/// their beginnings together: as with people who talk, packets of different ones may come close to each other.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: u64,
    /// Nanoseconds between two bursts of one allocation.
    period: f64,
    /// Where in the period each allocation's burst is, in order; and whose it is.
    phases: Vec<(f64, usize)>,
    next: u64,
}

impl Schedule {
    /// `rate` packets per second and allocation, in bursts; `None` when there are none. The phases follow from
    /// `seed` alone, so that every run of the same options is the same.
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

    /// When the next burst is due.
    pub fn due(&self) -> u64 {
        let (round, place) = self.position();
        // 2^53 ns of a run are 104 days.
        self.start + (round as f64 * self.period + self.phases[place].0) as u64
    }

    /// Whose burst is next, if it is due.
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

/// The next number from 0 to 1 (splitmix64).
fn fraction(state: &mut u64) -> f64 {
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
            flow.received(stamp(at), SECOND + 5_000);
        }
        assert_eq!(flow.sent_count(Direction::FromClient), 2);
        assert_eq!((flow.received_count(Direction::FromClient), flow.missing()), (1, 1));
        assert_eq!(flow.delivered(), 2);
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
        // One that comes after all is no credit.
        flow.sent(Direction::FromPeer, 11 * SECOND);
        flow.received(Stamp { direction: Direction::FromPeer, ..stamp(10 * SECOND) }, 11 * SECOND + 9);
        assert_eq!(flow.in_flight(Direction::FromPeer), 1);
    }

    #[test]
    fn every_allocation_keeps_its_pace_and_begins_somewhere() {
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
