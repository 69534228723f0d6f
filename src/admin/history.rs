//! The recent past of a fixed set of figures, for the dashboard: an hour in points of ten seconds, a day in points of five
//! minutes. The memory is bounded: 650 points of about 165 bytes, and the readings of five minutes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::base::lock::lock;
use crate::base::transport::Transport;

/// Time between two readings.
pub const STEP: Duration = Duration::from_secs(10);
/// Points of one hour.
const HOUR_POINTS: usize = 360;
/// Points of one day.
const DAY_POINTS: usize = 288;
/// Points of the hour that make one point of the day.
const GATHERED: usize = 30;
/// Figures of one point.
const FIGURES: usize = 37;
/// Readings that are kept whole: five minutes.
const READINGS: usize = 31;
const NANOS: f64 = 1e9;
/// The figures since the last reading are shown from this length on: over a shorter time a rate says little.
const LIVE: Duration = Duration::from_secs(2);
/// The same before the first point.
const LIVE_AT_FIRST: Duration = Duration::from_millis(500);

/// Directions of traffic: from clients, from peers.
pub const DIRECTIONS: [&str; 2] = ["from_client", "from_peer"];
/// Kinds of refusals.
pub const REFUSALS: [&str; 6] = ["credentials", "peers", "limits", "capacity", "rate", "other"];
/// Kinds of drops.
pub const DROPS: [&str; 5] = ["malformed", "not_permitted", "throttled", "over_rate", "undelivered"];

/// Turns of the workers' loops that took longer than these times, in milliseconds, and no longer than the next one. A call notices
/// nothing below 5 ms, and a gap from 50 ms on.
pub const SLOW_TURNS: [u64; 3] = [5, 10, 50];

/// The figures at one moment: counters since the start, and levels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Payload bytes relayed, by transport and direction.
    pub bytes: [[u64; DIRECTIONS.len()]; Transport::ALL.len()],
    /// Datagrams relayed, by transport and direction.
    pub packets: [[u64; DIRECTIONS.len()]; Transport::ALL.len()],
    /// Allocations that exist, by transport.
    pub allocations: [u64; Transport::ALL.len()],
    /// Allocations made.
    pub allocated: u64,
    /// Those among them that `hallpass doctor` or `load` made on this machine, or a login that `hallpass credentials` prints.
    pub tested: u64,
    /// Users with an allocation.
    pub users: u64,
    /// Requests refused, by kind, without those after which the client continues by itself.
    pub refusals: [u64; REFUSALS.len()],
    /// Messages dropped, by kind.
    pub drops: [u64; DROPS.len()],
    /// Datagrams among these that the kernel refused to send.
    pub unsent: u64,
    /// Those for which there is no route.
    pub no_route: u64,
    /// Slow turns, by [`SLOW_TURNS`].
    pub slow_turns: [u64; SLOW_TURNS.len()],
    /// Processor time used by the process.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Sockets open.
    pub descriptors: u64,
    /// Streams open.
    pub connections: u64,
    /// Web clients whose back end was unreachable.
    pub web_unavailable: u64,
    /// Web clients that were handed to a back end or to the built-in site.
    pub web_clients: u64,
    /// Connections reset because they did not come from the proxy of their listener.
    pub untrusted: u64,
    /// Restarts of workers.
    pub restarts: u64,
    /// What the rules for problems read besides.
    pub detail: Detail,
}

/// Counters since the start by host, reason and worker, for the rules about problems.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Datagrams relayed by host, transport and direction.
    pub hosts: Vec<[[u64; DIRECTIONS.len()]; Transport::ALL.len()]>,
    /// Refused requests by reason, with the position of its kind in [`REFUSALS`].
    pub reasons: Vec<(&'static str, usize, u64)>,
    /// TLS handshakes that ended.
    pub handshakes: u64,
    /// Those that the client ended because it does not accept the certificate.
    pub distrusted: u64,
    /// Connections and relayed addresses refused, by exhausted resource.
    pub lacks: Vec<(&'static str, u64)>,
    /// The workers.
    pub workers: Vec<Work>,
}

/// The work of one worker since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Time in turns of its loop.
    pub busy: Duration,
    /// Turns.
    pub turns: u64,
    /// Turns of more than 50 ms.
    pub gaps: u64,
}

/// What becomes of a figure in a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The increase per second.
    Rate,
    /// The value itself.
    Level,
}

impl Reading {
    /// Returns each figure with its name in JSON, always in the same order.
    fn figures(&self) -> [(&'static str, Kind, f64); FIGURES] {
        use Kind::{Level, Rate};
        let [udp, tcp, tls] = &self.bytes;
        let [packets_udp, packets_tcp, packets_tls] = &self.packets;
        let bits = |bytes: u64| bytes as f64 * 8.0;
        let number = |value: u64| value as f64;
        [
            ("bits_udp_from_client", Rate, bits(udp[0])),
            ("bits_udp_from_peer", Rate, bits(udp[1])),
            ("bits_tcp_from_client", Rate, bits(tcp[0])),
            ("bits_tcp_from_peer", Rate, bits(tcp[1])),
            ("bits_tls_from_client", Rate, bits(tls[0])),
            ("bits_tls_from_peer", Rate, bits(tls[1])),
            ("packets_udp_from_client", Rate, number(packets_udp[0])),
            ("packets_udp_from_peer", Rate, number(packets_udp[1])),
            ("packets_tcp_from_client", Rate, number(packets_tcp[0])),
            ("packets_tcp_from_peer", Rate, number(packets_tcp[1])),
            ("packets_tls_from_client", Rate, number(packets_tls[0])),
            ("packets_tls_from_peer", Rate, number(packets_tls[1])),
            ("allocations_udp", Level, number(self.allocations[0])),
            ("allocations_tcp", Level, number(self.allocations[1])),
            ("allocations_tls", Level, number(self.allocations[2])),
            ("allocated", Rate, number(self.allocated)),
            ("users", Level, number(self.users)),
            ("refusals_credentials", Rate, number(self.refusals[0])),
            ("refusals_peers", Rate, number(self.refusals[1])),
            ("refusals_limits", Rate, number(self.refusals[2])),
            ("refusals_capacity", Rate, number(self.refusals[3])),
            ("refusals_rate", Rate, number(self.refusals[4])),
            ("refusals_other", Rate, number(self.refusals[5])),
            ("drops_malformed", Rate, number(self.drops[0])),
            ("drops_not_permitted", Rate, number(self.drops[1])),
            ("drops_throttled", Rate, number(self.drops[2])),
            ("drops_over_rate", Rate, number(self.drops[3])),
            ("drops_undelivered", Rate, number(self.drops[4])),
            ("turns_over_5ms", Rate, number(self.slow_turns[0])),
            ("turns_over_10ms", Rate, number(self.slow_turns[1])),
            ("turns_over_50ms", Rate, number(self.slow_turns[2])),
            // Processors in use.
            ("cpu", Rate, self.cpu.as_secs_f64()),
            ("memory", Level, number(self.memory)),
            ("descriptors", Level, number(self.descriptors)),
            ("connections", Level, number(self.connections)),
            ("web_unavailable", Rate, number(self.web_unavailable)),
            ("restarts", Rate, number(self.restarts)),
        ]
    }
}

/// The figures of one point.
#[derive(Clone, Debug)]
struct Point {
    /// Its end, in nanoseconds of the monotonic clock.
    at: u64,
    /// Its length in seconds.
    seconds: f32,
    values: [f32; FIGURES],
}

/// The last points, the oldest first.
#[derive(Debug)]
struct Ring {
    points: VecDeque<Point>,
    most: usize,
    /// Points since the start.
    seen: u64,
}

impl Ring {
    fn new(most: usize) -> Self {
        Self { points: VecDeque::with_capacity(most), most, seen: 0 }
    }

    fn push(&mut self, point: Point) {
        if self.points.len() == self.most {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.seen += 1;
    }
}

/// How much of the past is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Points of ten seconds.
    Hour,
    /// Points of five minutes.
    Day,
}

impl Span {
    /// Returns the span with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "hour" => Some(Self::Hour),
            "day" => Some(Self::Day),
            _ => None,
        }
    }
}

/// The recent past.
#[derive(Debug)]
pub struct History(Mutex<Recorded>);

#[derive(Debug)]
struct Recorded {
    /// The last reading and its time.
    last: Option<(u64, Reading)>,
    /// The last readings and their times, the oldest first.
    kept: VecDeque<(u64, Reading)>,
    hour: Ring,
    day: Ring,
    /// Points of the hour since the last point of the day.
    gathered: usize,
}

impl Default for History {
    fn default() -> Self {
        let (hour, day) = (Ring::new(HOUR_POINTS), Ring::new(DAY_POINTS));
        Self(Mutex::new(Recorded { last: None, kept: VecDeque::new(), hour, day, gathered: 0 }))
    }
}

impl History {
    /// Adds a reading at `now`, in nanoseconds of the monotonic clock. The first one makes no point.
    pub fn record(&self, now: u64, reading: Reading) {
        let mut recorded = lock(&self.0);
        let Some(point) = recorded.last.as_ref().map(|last| between(last, now, &reading)) else {
            recorded.kept.push_back((now, reading.clone()));
            recorded.last = Some((now, reading));
            return;
        };
        if point.seconds <= 0.0 {
            return;
        }
        if recorded.kept.len() == READINGS {
            recorded.kept.pop_front();
        }
        recorded.kept.push_back((now, reading.clone()));
        recorded.last = Some((now, reading));
        recorded.hour.push(point);
        recorded.gathered += 1;
        if recorded.gathered == GATHERED {
            recorded.gathered = 0;
            let point = mean(recorded.hour.points.iter().rev().take(GATHERED), now);
            recorded.day.push(point);
        }
    }

    /// Returns the points after the first `after` ones since the start as JSON, with the age of each in seconds, and as `live`
    /// the figures since the last reading. `reading` is that of `now`.
    pub fn json(&self, span: Span, after: u64, now: u64, reading: Option<&Reading>) -> Value {
        let recorded = lock(&self.0);
        let (ring, step) = match span {
            Span::Hour => (&recorded.hour, STEP),
            Span::Day => (&recorded.day, STEP * GATHERED as u32),
        };
        // A number from before a restart of the server may be too high.
        let after = if after > ring.seen { 0 } else { after };
        let wanted = usize::try_from(ring.seen - after).unwrap_or(usize::MAX).min(ring.points.len());
        let points = ring.points.iter().skip(ring.points.len() - wanted);
        let ages: Vec<Value> = points.clone().map(|point| age(point, now).into()).collect();
        let mut series = Map::new();
        for (at, (name, _, _)) in Reading::default().figures().into_iter().enumerate() {
            series.insert(name.to_owned(), points.clone().map(|point| short(point.values[at])).collect());
        }
        let least = if recorded.hour.points.is_empty() { LIVE_AT_FIRST } else { LIVE };
        let live = recorded.last.as_ref().zip(reading).map(|(last, reading)| between(last, now, reading));
        let live = live.filter(|point| point.seconds >= least.as_secs_f32()).map(|point| {
            let named = Reading::default().figures().into_iter().zip(point.values);
            named.map(|((name, _, _), value)| (name.to_owned(), short(value))).collect::<Map<_, _>>()
        });
        json!({ "step": step.as_secs(), "next": ring.seen, "age": ages, "series": series, "live": live })
    }

    /// Returns what has changed in about the last `period` until the reading of `now`: since the first kept reading, if that is
    /// later. `None` without an earlier reading.
    pub fn change(&self, period: Duration, now: u64, reading: &Reading) -> Option<Change> {
        let recorded = lock(&self.0);
        let since = now.saturating_sub(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
        let old = recorded.kept.iter().rev().find(|(at, _)| *at <= since).or(recorded.kept.front());
        let (at, old) = old.filter(|(at, _)| *at < now)?;
        Some(Change { old: old.clone(), new: reading.clone(), seconds: (now - at) as f64 / NANOS })
    }

    /// Returns the sum of each figure's increase over the points that ended in the last `period`.
    pub fn increases(&self, period: Duration, now: u64) -> Increases {
        let recorded = lock(&self.0);
        let since = now.saturating_sub(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
        let points = recorded.hour.points.iter().rev().take_while(|point| point.at > since);
        let mut sums = [0.0; FIGURES];
        for point in points {
            let increases = point.values.iter().map(|&value| f64::from(value) * f64::from(point.seconds));
            sums.iter_mut().zip(increases).for_each(|(sum, increase)| *sum += increase);
        }
        Increases(sums)
    }
}

/// Two readings.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The earlier one.
    pub old: Reading,
    /// The later one.
    pub new: Reading,
    /// Seconds between them.
    pub seconds: f64,
}

impl Change {
    /// Returns the increase of a counter. One that falls a little, because a datagram could not be sent, has not increased.
    pub fn of(&self, counter: impl Fn(&Reading) -> u64) -> u64 {
        counter(&self.new).saturating_sub(counter(&self.old))
    }

    /// Returns the increase of each counter of a list with names, without those that have none.
    pub fn named(&self, list: impl Fn(&Detail) -> Vec<(&'static str, u64)>) -> Vec<(&'static str, u64)> {
        let before = list(&self.old.detail);
        let old = |name: &str| before.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
        let grown = list(&self.new.detail).into_iter();
        grown
            .map(|(name, count)| (name, count.saturating_sub(old(name))))
            .filter(|(_, grown)| *grown > 0)
            .collect()
    }
}

/// By how much counters grew in a period.
#[derive(Clone, Debug)]
pub struct Increases([f64; FIGURES]);

impl Increases {
    /// Returns the sum of all counters whose names start with one of these, such as `drops_`.
    pub fn of(&self, prefixes: &[&str]) -> f64 {
        let figures = Reading::default().figures().into_iter().zip(self.0);
        let wanted = figures.filter(|((name, kind, _), _)| {
            *kind == Kind::Rate && prefixes.iter().any(|prefix| name.starts_with(prefix))
        });
        wanted.map(|(_, sum)| sum).sum()
    }
}

/// Returns the figures from the last reading to one at `now`.
fn between((before, earlier): &(u64, Reading), now: u64, reading: &Reading) -> Point {
    let seconds = now.saturating_sub(*before) as f64 / NANOS;
    let mut values = [0.0; FIGURES];
    let figures = reading.figures().into_iter().zip(earlier.figures());
    for (value, ((_, kind, new), (_, _, old))) in values.iter_mut().zip(figures) {
        *value = match kind {
            Kind::Level => new,
            // A packet that could not be sent is subtracted again, so a counter may fall a little.
            Kind::Rate if seconds > 0.0 => (new - old).max(0.0) / seconds,
            Kind::Rate => 0.0,
        } as f32;
    }
    Point { at: now, seconds: seconds as f32, values }
}

/// Returns the mean of points, which ends at `at`.
fn mean<'a>(points: impl Iterator<Item = &'a Point>, at: u64) -> Point {
    let (mut sums, mut seconds) = ([0.0; FIGURES], 0.0);
    for point in points {
        seconds += f64::from(point.seconds);
        for (sum, value) in sums.iter_mut().zip(point.values) {
            *sum += f64::from(value) * f64::from(point.seconds);
        }
    }
    // Each point is longer than zero.
    Point { at, seconds: seconds as f32, values: sums.map(|sum| (sum / seconds) as f32) }
}

/// Returns the age of a point in seconds, to a tenth.
fn age(point: &Point, now: u64) -> f64 {
    let seconds = now.saturating_sub(point.at) as f64 / NANOS;
    (seconds * 10.0).round() / 10.0
}

/// Shortens a number: whole from 100 on, else three digits after the point.
fn short(value: f32) -> Value {
    let value = f64::from(value);
    if value >= 100.0 { (value.round() as u64).into() } else { ((value * 1000.0).round() / 1000.0).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Records a reading every ten seconds, `count` times after the first.
    fn recorded(count: u64, reading: impl Fn(u64) -> Reading) -> History {
        let history = History::default();
        (0..=count).for_each(|at| history.record(at * 10 * SECOND, reading(at)));
        history
    }

    fn numbers(page: &Value, name: &str) -> Vec<f64> {
        let series = page["series"][name].as_array().expect("a list");
        series.iter().map(|value| value.as_f64().expect("a number")).collect()
    }

    #[test]
    fn counters_become_rates_and_levels_stay() {
        let history = recorded(2, |at| Reading {
            bytes: [[0, 0], [0, 0], [at * 1000, 0]],
            users: at * 3,
            cpu: Duration::from_secs(at * 5),
            refusals: [at, 0, 0, 0, 0, 0],
            ..Reading::default()
        });
        let page = history.json(Span::Hour, 0, 25 * SECOND, None);
        assert_eq!(page["age"], json!([15.0, 5.0]));
        assert_eq!((&page["step"], &page["next"]), (&json!(10), &json!(2)));
        assert_eq!(numbers(&page, "bits_tls_from_client"), [800.0, 800.0]);
        assert_eq!(numbers(&page, "users"), [3.0, 6.0]);
        assert_eq!(numbers(&page, "cpu"), [0.5, 0.5]);
        assert_eq!(numbers(&page, "refusals_credentials"), [0.1, 0.1]);
        assert_eq!(page["series"].as_object().expect("a map").len(), FIGURES);
    }

    #[test]
    fn a_counter_that_falls_is_no_negative_rate() {
        let packets = [100, 90, 95];
        let history = recorded(2, |at| Reading {
            packets: [[packets[at as usize], 0], [0, 0], [0, 0]],
            ..Reading::default()
        });
        let page = history.json(Span::Hour, 0, 0, None);
        assert_eq!(numbers(&page, "packets_udp_from_client"), [0.0, 0.5]);
    }

    #[test]
    fn the_rings_are_bounded_and_the_day_has_means() {
        let history =
            recorded(9000, |at| Reading { users: at % 2, allocated: at * 20, ..Reading::default() });
        let now = 90_000 * SECOND;
        let (hour, day) = (history.json(Span::Hour, 0, now, None), history.json(Span::Day, 0, now, None));
        assert_eq!(numbers(&hour, "users").len(), HOUR_POINTS, "the others are forgotten");
        assert_eq!(hour["next"], 9000);
        assert_eq!(numbers(&day, "users"), [0.5; DAY_POINTS]);
        assert_eq!(numbers(&day, "allocated"), [2.0; DAY_POINTS]);
        assert_eq!((&day["step"], &day["next"]), (&json!(300), &json!(300)));
        assert_eq!(day["age"][DAY_POINTS - 1], 0.0);
    }

    #[test]
    fn only_points_that_are_new_to_the_reader_are_returned() {
        let history = recorded(5, |at| Reading { users: at, ..Reading::default() });
        let users = |after| numbers(&history.json(Span::Hour, after, 0, None), "users");
        assert_eq!(users(3), [4.0, 5.0]);
        assert_eq!(users(5), [0.0; 0]);
        assert_eq!(users(77).len(), 5, "the reader saw another process");
        let later = recorded(400, |at| Reading { users: at, ..Reading::default() });
        assert_eq!(
            numbers(&later.json(Span::Hour, 1, 0, None), "users").len(),
            HOUR_POINTS,
            "some are forgotten"
        );
    }

    #[test]
    fn the_figures_since_the_last_reading_are_live() {
        let history = recorded(1, |at| Reading { allocated: at * 50, ..Reading::default() });
        let reading = Reading { allocated: 90, users: 4, ..Reading::default() };
        let live = |now| history.json(Span::Day, 0, now, Some(&reading))["live"].clone();
        assert_eq!(live(11 * SECOND), Value::Null, "too short for a rate");
        let four = live(14 * SECOND);
        assert_eq!((&four["allocated"], &four["users"]), (&json!(10.0), &json!(4.0)));
        let first = History::default();
        first.record(0, Reading::default());
        let live = &first.json(Span::Hour, 0, SECOND, Some(&reading))["live"];
        assert_eq!(live["allocated"], 90.0);
    }

    /// The last seconds count, although they are no point yet: a teacher calls at once.
    #[test]
    fn a_change_reaches_to_this_moment() {
        let history = recorded(60, |at| Reading { allocated: at * 10, ..Reading::default() });
        let reading = Reading { allocated: 607, ..Reading::default() };
        let change = |seconds| {
            let change =
                history.change(Duration::from_secs(seconds), 603 * SECOND, &reading).expect("readings");
            (change.of(|reading| reading.allocated), change.seconds.round() as u64)
        };
        assert_eq!([change(20), change(300), change(3000)], [(27, 23), (307, 303), (307, 303)]);
        assert!(History::default().change(Duration::from_secs(9), 1, &reading).is_none());
    }

    #[test]
    fn increases_are_summed_over_a_period() {
        let history =
            recorded(60, |at| Reading { drops: [at, 0, 0, 2 * at, 0], users: 7, ..Reading::default() });
        let of = |seconds, prefixes: &[&str]| {
            let sum = history.increases(Duration::from_secs(seconds), 600 * SECOND).of(prefixes);
            (sum * 1000.0).round() / 1000.0
        };
        assert_eq!(of(300, &["drops_"]), 90.0);
        assert_eq!(of(300, &["drops_over_rate", "users"]), 60.0, "a level has no increase");
        assert_eq!(of(100_000, &["drops_malformed"]), 60.0);
    }
}
