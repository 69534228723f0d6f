//! The numbers of the screen: the latest reading, and what changed since earlier ones.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::history::History;
use super::reading::{Flow, HARMLESS, Reading, Rung, Use, Worker};

/// The share of a limit from which on it is near.
pub const NEAR: f64 = 0.8;

/// Rates of one direction; `None` until there are two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets per second.
    pub packets: Option<f64>,
    /// Bits of payload per second.
    pub bits: Option<f64>,
}

/// One row of traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Host and transport.
    pub rung: Rung,
    /// Sessions that exist.
    pub sessions: u64,
    /// New sessions per second, over the last minute.
    pub created: Option<f64>,
    /// From clients to peers.
    pub from_client: Rate,
    /// From peers to clients.
    pub from_peer: Rate,
}

impl Row {
    /// Returns the bits per second of both directions.
    pub fn bits(&self) -> f64 {
        self.from_client.bits.unwrap_or(0.0) + self.from_peer.bits.unwrap_or(0.0)
    }
}

/// How often something happened, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The reason, as in metrics.
    pub reason: String,
    /// Host and transport of refusals; empty for drops.
    pub rung: Rung,
    /// In the last minute.
    pub recent: u64,
    /// Since the start of the server.
    pub total: u64,
}

/// A duration that is known by its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most so many seconds.
    Below(f64),
    /// More than so many seconds.
    Above(f64),
}

/// The load of one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Its number.
    pub worker: u64,
    /// The share of the time that it was at work, since the reading before.
    pub busy: Option<f64>,
    /// Datagrams received per second.
    pub datagrams: Option<f64>,
    /// The bounds of half of the turns, of 99 in 100, and of all, over the last minute. `None` without turns.
    pub turns: Option<[Bound; 3]>,
    /// Restarts since the start of the server.
    pub restarts: u64,
}

/// A resource with its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limited {
    /// Its name.
    pub name: &'static str,
    /// Whether it is counted in bytes.
    pub is_bytes: bool,
    /// Use and limit.
    pub usage: Use,
}

impl Limited {
    /// Returns the used share; `None` without a limit.
    pub fn share(&self) -> Option<f64> {
        self.usage.limit.filter(|limit| *limit > 0.0).map(|limit| self.usage.used / limit)
    }
}

/// Everything that is computed from the readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// The latest reading.
    pub reading: Reading,
    /// Seconds between the last two readings; 0 with one.
    pub interval: f64,
    /// Seconds that "recent" covers; 0 with one reading.
    pub recent: f64,
    /// All rows together.
    pub sum: Row,
    /// Traffic by host and transport.
    pub rows: Vec<Row>,
    /// Refusals by reason, host and transport, without the harmless ones; the most frequent first.
    pub refusals: Vec<Count>,
    /// Drops by reason, the most frequent first.
    pub drops: Vec<Count>,
    /// Workers by number.
    pub workers: Vec<Load>,
    /// Cores used.
    pub cpu: Option<f64>,
    /// Limits.
    pub limits: Vec<Limited>,
}

impl Board {
    /// Computes the numbers; `None` without a reading.
    pub fn of(history: &History) -> Option<Self> {
        let now = history.latest()?;
        let before = history.previous().map(|before| Change::new(before, now));
        let minute = history.oldest().map(|before| Change::new(before, now));
        let rows: Vec<Row> =
            now.rungs.keys().map(|rung| row(rung, now, before.as_ref(), minute.as_ref())).collect();
        let refusals = now.refusals.iter().filter(|((reason, _), _)| !HARMLESS.contains(&reason.as_str()));
        let refusals = refusals.map(|((reason, rung), &total)| {
            let old =
                minute.as_ref().map(|change| get(&change.old.refusals, &(reason.clone(), rung.clone())));
            Count {
                reason: reason.clone(),
                rung: rung.clone(),
                recent: old.map_or(0, |old| total.saturating_sub(old)),
                total,
            }
        });
        let counts = |of: fn(&Reading) -> &BTreeMap<String, u64>| {
            let all = of(now).iter().map(|(reason, &total)| {
                let old = minute.as_ref().map(|change| get(of(change.old), reason));
                let recent = old.map_or(0, |old| total.saturating_sub(old));
                Count { reason: reason.clone(), rung: Rung::default(), recent, total }
            });
            sorted(all.collect())
        };
        Some(Self {
            interval: before.as_ref().map_or(0.0, |change| change.seconds),
            recent: minute.as_ref().map_or(0.0, |change| change.seconds),
            sum: sum(&rows),
            rows,
            refusals: sorted(refusals.collect()),
            drops: counts(|reading| &reading.drops),
            workers: now
                .workers
                .iter()
                .map(|(&number, worker)| load(number, worker, before.as_ref(), minute.as_ref()))
                .collect(),
            cpu: before.as_ref().map(|change| (now.cpu - change.old.cpu).max(0.0) / change.seconds),
            limits: limits(now),
            reading: now.clone(),
        })
    }

    /// Returns the share of the time that the busiest worker was at work.
    pub fn busiest(&self) -> Option<f64> {
        self.workers.iter().filter_map(|worker| worker.busy).max_by(f64::total_cmp)
    }
}

/// An earlier reading, and the time since.
struct Change<'a> {
    old: &'a Reading,
    seconds: f64,
}

impl<'a> Change<'a> {
    fn new(old: &'a Reading, now: &Reading) -> Self {
        // Two answers never arrive within the same millisecond; this avoids a division by zero all the same.
        Self { old, seconds: now.at.since(old.at).as_secs_f64().max(0.001) }
    }

    fn rate(&self, now: u64, before: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.seconds
    }
}

fn get<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or(0)
}

/// The most frequent first, without those that never occurred.
fn sorted(mut counts: Vec<Count>) -> Vec<Count> {
    counts.retain(|count| count.total > 0);
    counts.sort_by_key(|count| Reverse((count.recent, count.total)));
    counts
}

fn row(rung: &Rung, now: &Reading, before: Option<&Change<'_>>, minute: Option<&Change<'_>>) -> Row {
    let carried = &now.rungs[rung];
    let old = |change: &Change<'_>| change.old.rungs.get(rung).cloned().unwrap_or_default();
    let rate = |now: Flow, of: fn(&super::reading::Carried) -> Flow| Rate {
        packets: before.map(|change| change.rate(now.packets, of(&old(change)).packets)),
        bits: before.map(|change| change.rate(now.bytes, of(&old(change)).bytes) * 8.0),
    };
    Row {
        rung: rung.clone(),
        sessions: carried.sessions,
        created: minute.map(|change| change.rate(carried.created, old(change).created)),
        from_client: rate(carried.from_client, |old| old.from_client),
        from_peer: rate(carried.from_peer, |old| old.from_peer),
    }
}

fn sum(rows: &[Row]) -> Row {
    let add =
        |of: fn(&Row) -> Option<f64>| rows.iter().map(of).try_fold(0.0, |sum, one| one.map(|one| sum + one));
    Row {
        rung: Rung::default(),
        sessions: rows.iter().map(|row| row.sessions).sum(),
        created: add(|row| row.created),
        from_client: Rate {
            packets: add(|row| row.from_client.packets),
            bits: add(|row| row.from_client.bits),
        },
        from_peer: Rate { packets: add(|row| row.from_peer.packets), bits: add(|row| row.from_peer.bits) },
    }
}

fn load(number: u64, worker: &Worker, before: Option<&Change<'_>>, minute: Option<&Change<'_>>) -> Load {
    let old = |change: &Change<'_>| change.old.workers.get(&number).cloned().unwrap_or_default();
    let has_turns = !worker.buckets.is_empty();
    Load {
        worker: number,
        busy: before
            .filter(|_| has_turns)
            .map(|change| ((worker.busy - old(change).busy) / change.seconds).clamp(0.0, 1.0)),
        datagrams: before.map(|change| change.rate(worker.datagrams, old(change).datagrams)),
        turns: turns(worker, &minute.map(old).unwrap_or_default()),
        restarts: worker.restarts,
    }
}

/// Returns the bounds of half of the turns between two readings, of 99 in 100, and of all.
fn turns(now: &Worker, old: &Worker) -> Option<[Bound; 3]> {
    let before =
        |bound: f64| old.buckets.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count);
    let grown = now.buckets.iter().map(|&(bound, count)| (bound, count.saturating_sub(before(bound))));
    let grown: Vec<(f64, u64)> = grown.collect();
    let all = grown.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let longest = grown.iter().rev().map(|(bound, _)| *bound).find(|bound| bound.is_finite())?;
    let bound = |share: f64| {
        let needed = (all as f64 * share).ceil() as u64;
        let found = grown.iter().find(|(_, count)| *count >= needed).map(|(bound, _)| *bound);
        found.filter(|bound| bound.is_finite()).map_or(Bound::Above(longest), Bound::Below)
    };
    Some([0.5, 0.99, 1.0].map(bound))
}

fn limits(now: &Reading) -> Vec<Limited> {
    let limited = |name, usage| Limited { name, is_bytes: name == "memory", usage };
    vec![
        limited("descriptors", now.descriptors),
        limited("memory", now.memory),
        limited("relay ports", now.ports),
        limited("allocations", now.allocations),
        limited("connections", now.connections),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;

    fn history(texts: &[(u64, &str)]) -> History {
        let mut history = History::default();
        for (seconds, text) in texts {
            let text = format!("hallpass_build_info{{version=\"1\"}} 1\n{text}");
            let at = Instant::from_nanos(seconds * 1_000_000_000);
            history.add(Reading::of(&text, at).expect("a server"));
        }
        history
    }

    fn traffic(packets: u64, created: u64, refused: u64, busy: f64, fast: u64, slow: u64) -> String {
        let all = fast + slow;
        format!(
            "hallpass_allocations{{host=\"ping\",transport=\"udp\"}} 3
hallpass_allocations_total{{host=\"ping\",transport=\"udp\"}} {created}
hallpass_relayed_packets_total{{host=\"ping\",transport=\"udp\",direction=\"from_client\"}} {packets}
hallpass_relayed_bytes_total{{host=\"ping\",transport=\"udp\",direction=\"from_client\"}} {}
hallpass_refusals_total{{reason=\"wrong_password\",host=\"\",transport=\"udp\"}} {refused}
hallpass_refusals_total{{reason=\"first_request\",host=\"\",transport=\"udp\"}} 500
hallpass_worker_turn_seconds_bucket{{worker=\"0\",le=\"0.001\"}} {fast}
hallpass_worker_turn_seconds_bucket{{worker=\"0\",le=\"0.05\"}} {all}
hallpass_worker_turn_seconds_bucket{{worker=\"0\",le=\"+Inf\"}} {all}
hallpass_worker_turn_seconds_sum{{worker=\"0\"}} {busy}
hallpass_descriptors 9
hallpass_descriptors_max 10
",
            packets * 100
        )
    }

    #[test]
    fn rates_are_per_second_of_the_last_interval_or_minute() {
        let texts = [
            traffic(0, 10, 5, 1.0, 100, 0),
            traffic(1000, 20, 5, 2.0, 200, 1),
            traffic(1500, 40, 8, 2.5, 250, 1),
        ];
        let board =
            Board::of(&history(&[(100, &texts[0]), (110, &texts[1]), (112, &texts[2])])).expect("readings");
        assert_eq!((board.interval, board.recent), (2.0, 12.0));
        let row = &board.rows[0];
        assert_eq!((row.sessions, row.created), (3, Some(2.5)));
        assert_eq!(row.from_client, Rate { packets: Some(250.0), bits: Some(200_000.0) });
        assert_eq!(board.sum.from_client, row.from_client);
        let refused: Vec<_> =
            board.refusals.iter().map(|count| (count.reason.as_str(), count.recent, count.total)).collect();
        assert_eq!(refused, [("wrong_password", 3, 8)]);
        assert_eq!(board.busiest(), Some(0.25));
        let bounds = [Bound::Below(0.001), Bound::Below(0.001), Bound::Below(0.05)];
        assert_eq!(board.workers[0].turns, Some(bounds));
        assert_eq!(board.limits[0].share(), Some(0.9));
        assert_eq!(board.limits[3].share(), None, "no limit");
    }

    #[test]
    fn one_reading_has_no_rates_but_numbers() {
        let board = Board::of(&history(&[(100, &traffic(7, 1, 2, 1.0, 10, 0))])).expect("a reading");
        assert_eq!((board.rows[0].from_client.bits, board.rows[0].created, board.cpu), (None, None, None));
        assert_eq!((board.sum.sessions, board.sum.from_client.bits, board.refusals[0].recent), (3, None, 0));
        assert_eq!(Board::of(&History::default()), None);
    }

    #[test]
    fn a_turn_above_the_last_bucket_is_told_as_such() {
        let buckets = |slow: u64| vec![(0.05, 10), (f64::INFINITY, 10 + slow)];
        let worker = |slow| Worker { buckets: buckets(slow), ..Worker::default() };
        let found = turns(&worker(3), &Worker::default()).expect("turns");
        assert_eq!(found, [Bound::Below(0.05), Bound::Above(0.05), Bound::Above(0.05)]);
        assert_eq!(turns(&worker(3), &worker(3)), None, "no turn since");
    }
}
