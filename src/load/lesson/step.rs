//! The measurement of one number of pupils, and whether it kept the bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limit::Limit;
use crate::load::cause::Cause;
use crate::load::report::Quantiles;

/// What is acceptable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The largest acceptable share of lost packets.
    pub loss: f64,
    /// The largest acceptable 99th percentile of the latency through the relay, one way.
    pub latency: Duration,
}

/// What one measurement showed.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Pupils.
    pub pupils: u32,
    /// Pupils and teachers.
    pub participants: u32,
    /// Allocations that should exist.
    pub allocations: u32,
    /// Whether this number was measured before.
    pub is_confirmation: bool,
    /// When the measured interval began, since the run began.
    pub began: Duration,
    /// Length of the measured interval.
    pub elapsed: Duration,
    /// Packets due in the measured interval.
    pub sent: u64,
    /// Those of them that arrived.
    pub received: u64,
    /// Packets that arrived in the measured interval, and their payload bytes.
    pub delivered: (u64, u64),
    /// Latency from the due time of a packet to its arrival.
    pub latency: Option<Quantiles>,
    /// Delay from the due time of a packet until the generator sent it.
    pub lateness: Option<Quantiles>,
    /// Allocations that joined, for this number of pupils and during the measurement.
    pub joined: u64,
    /// Allocations that did not, and those that ended by themselves, by cause.
    pub failed: BTreeMap<Cause, u64>,
    /// How long joins took.
    pub join_time: Option<Quantiles>,
    /// The server; `None` if it is not on this machine.
    pub server: Option<ServerUse>,
    /// The generator.
    pub generator: Generator,
    /// Limits of the server that took effect.
    pub limits: Vec<Limit>,
    /// Errors and how often each occurred.
    pub errors: BTreeMap<String, u64>,
    /// The judgement.
    pub verdict: Verdict,
}

/// What the server used in a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerUse {
    /// CPU, in cores.
    pub cores: f64,
    /// Time in which its threads could have run but had no CPU, in cores.
    pub waited: f64,
    /// Resident memory at the end, in bytes.
    pub rss: u64,
}

/// The state of the generator in a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Generator {
    /// The share of the time in which it was busy.
    pub busy: f64,
    /// Datagrams that the kernel dropped because a socket of the generator was full.
    pub dropped: u64,
    /// Sockets that could not be opened.
    pub unopened: u64,
}

/// Whether a measurement kept the bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verdict {
    /// It did.
    #[default]
    Good,
    /// It did not.
    Broken {
        /// Every bound that was not kept.
        breaks: Vec<Break>,
        /// What was measured.
        by: Culprit,
    },
}

/// A bound that was not kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Break {
    /// The share of lost packets.
    Loss(f64),
    /// The 99th percentile of the latency in microseconds.
    Latency(f64),
    /// Allocations that failed, of how many, and the most frequent cause.
    Joins(u64, u64, Cause),
    /// No packet was sent at all.
    Silence,
}

/// What kept a measurement from being good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The server, or the network on the way to it.
    Relay,
    /// Limits in the server's configuration; the first one is the most frequent.
    Limits(Vec<Limit>),
    /// This program or this machine: the reasons as sentences without their period.
    Machine(Vec<String>),
}

/// The generator is saturated if it is busy for more than this share of the time.
const BUSY: f64 = 0.95;
/// A server that waits for a processor this many times as long as it runs is slowed down by other programs, not by its own
/// work.
const WAITED: f64 = 1.5;
/// Lateness that makes up this share of a latency explains it.
const LATE: f64 = 0.5;
/// Datagrams that the generator's own sockets drop explain the loss if they are this share of it.
const DROPPED: f64 = 0.5;

impl Step {
    /// Returns the share of packets that did not arrive.
    pub fn loss(&self) -> f64 {
        self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64
    }

    /// Returns the megabits of payload that arrived in a second.
    pub fn mbit(&self) -> f64 {
        self.per_second(self.delivered.1) * 8.0 / 1e6
    }

    /// Returns the packets that arrived in a second.
    pub fn packets_per_second(&self) -> f64 {
        self.per_second(self.delivered.0)
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns whether the bounds were kept.
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }

    /// Judges the measurement.
    pub fn judge(&self, bounds: &Bounds) -> Verdict {
        let mut breaks = Vec::new();
        let failed: u64 = self.failed.values().sum();
        if let Some((&cause, _)) = self.failed.iter().max_by_key(|(_, count)| **count) {
            breaks.push(Break::Joins(failed, self.joined + failed, cause));
        }
        if self.sent == 0 {
            breaks.push(Break::Silence);
        }
        if self.loss() > bounds.loss {
            breaks.push(Break::Loss(self.loss()));
        }
        let p99 = self.latency.map_or(0.0, |latency| latency.p99);
        if p99 > bounds.latency.as_secs_f64() * 1e6 {
            breaks.push(Break::Latency(p99));
        }
        if breaks.is_empty() {
            return Verdict::Good;
        }
        let by = match (self.limits.is_empty(), self.bottlenecks(&breaks)) {
            (false, _) => Culprit::Limits(self.limits.clone()),
            (true, reasons) if !reasons.is_empty() => Culprit::Machine(reasons),
            _ => Culprit::Relay,
        };
        Verdict::Broken { breaks, by }
    }

    /// Returns why this program or this machine explains these breaks.
    fn bottlenecks(&self, breaks: &[Break]) -> Vec<String> {
        let Generator { busy, dropped, unopened } = self.generator;
        let mut reasons = Vec::new();
        if unopened > 0 {
            reasons.push(format!("the load generator could not open {unopened} sockets, see the errors"));
        }
        if busy > BUSY {
            reasons.push(format!("the load generator was busy {:.0} % of the time", busy * 100.0));
        }
        if let Some(server) = self.server.filter(|server| server.waited > server.cores * WAITED) {
            let times = server.waited / server.cores.max(0.001);
            reasons.push(format!("the relay waited for a processor {times:.1} times as long as it ran"));
        }
        for one in breaks {
            let late = self.lateness.map_or(0.0, |lateness| lateness.p99);
            match *one {
                Break::Latency(p99) if late > p99 * LATE => {
                    reasons.push(format!("the load generator sent packets {:.0} ms late (99 %)", late / 1e3));
                }
                Break::Loss(_)
                    if dropped as f64 > (self.sent - self.received.min(self.sent)) as f64 * DROPPED =>
                {
                    reasons.push(format!(
                        "the sockets of the load generator were full and dropped {dropped} packets"
                    ));
                }
                _ => {}
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { loss: 0.005, latency: Duration::from_millis(50) };

    fn all(us: f64) -> Option<Quantiles> {
        Some(Quantiles { p50: us, p90: us, p99: us, p999: us, max: us })
    }

    fn step() -> Step {
        Step {
            elapsed: Duration::from_secs(2),
            sent: 10_000,
            received: 9_990,
            delivered: (9_990, 2_000_000),
            latency: all(900.0),
            lateness: all(100.0),
            joined: 12,
            ..Step::default()
        }
    }

    fn culprit(step: &Step) -> Culprit {
        match step.judge(&BOUNDS) {
            Verdict::Broken { by, .. } => by,
            Verdict::Good => panic!("good"),
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(step().judge(&BOUNDS), Verdict::Good);
        assert_eq!(Step { received: 9_950, latency: all(50_000.0), ..step() }.judge(&BOUNDS), Verdict::Good);
        let lossy = Step { received: 9_949, ..step() };
        let Verdict::Broken { breaks, by } = lossy.judge(&BOUNDS) else { panic!("broken") };
        assert_eq!((breaks, by), (vec![Break::Loss(0.0051)], Culprit::Relay));
        let slow = Step { latency: all(50_001.0), ..step() };
        let Verdict::Broken { breaks, .. } = slow.judge(&BOUNDS) else { panic!("broken") };
        assert_eq!(breaks, [Break::Latency(50_001.0)]);
        assert_eq!((step().mbit(), step().packets_per_second()), (8.0, 4_995.0));
    }

    #[test]
    fn a_limit_is_named_before_anything_else_but_only_if_it_broke_a_bound() {
        let limit = Limit { sign: String::new(), count: 1, meaning: "", setting: "limits.packets_per_user" };
        let limited = Step { limits: vec![limit.clone()], ..step() };
        assert_eq!(limited.judge(&BOUNDS), Verdict::Good);
        let busy = Generator { busy: 1.0, ..Generator::default() };
        let lossy = Step { received: 0, generator: busy, ..limited };
        assert_eq!(culprit(&lossy), Culprit::Limits(vec![limit]));
    }

    #[test]
    fn the_generator_is_blamed_only_for_what_it_explains() {
        let lossy = Step { received: 9_000, ..step() };
        let with = |generator: Generator| Step { generator, ..lossy.clone() };
        assert_eq!(culprit(&with(Generator { dropped: 100, ..Generator::default() })), Culprit::Relay);
        let Culprit::Machine(reasons) = culprit(&with(Generator { dropped: 900, ..Generator::default() }))
        else {
            panic!("the generator dropped them");
        };
        assert!(reasons[0].contains("dropped 900 packets"));
        assert!(matches!(
            culprit(&with(Generator { busy: 0.97, ..Generator::default() })),
            Culprit::Machine(_)
        ));
        let slow = Step { latency: all(80_000.0), lateness: all(60_000.0), ..step() };
        assert_eq!(
            culprit(&slow),
            Culprit::Machine(vec!["the load generator sent packets 60 ms late (99 %)".to_owned()])
        );
        let slow = Step { lateness: all(10_000.0), ..slow };
        assert_eq!(culprit(&slow), Culprit::Relay);
        let waiting = |waited: f64| Some(ServerUse { cores: 0.2, waited, rss: 0 });
        assert_eq!(culprit(&Step { server: waiting(0.2), ..slow.clone() }), Culprit::Relay);
        let reason = "the relay waited for a processor 4.0 times as long as it ran".to_owned();
        assert_eq!(culprit(&Step { server: waiting(0.8), ..slow }), Culprit::Machine(vec![reason]));
    }

    #[test]
    fn a_run_without_packets_or_with_failed_joins_is_not_good() {
        let nothing = Step { sent: 0, received: 0, latency: None, ..step() };
        let Verdict::Broken { breaks, .. } = nothing.judge(&BOUNDS) else { panic!("broken") };
        assert_eq!(breaks, [Break::Silence]);
        let cause = Cause::Unanswered { request: "Allocate" };
        let failed = Step { failed: BTreeMap::from([(Cause::Other, 1), (cause, 3)]), ..step() };
        let Verdict::Broken { breaks, .. } = failed.judge(&BOUNDS) else { panic!("broken") };
        assert_eq!(breaks, [Break::Joins(4, 16, cause)]);
    }
}
