//! A drain from its beginning to its end: how many are still there, and how long they have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How often the log says how far the drain is.
const TELL: Duration = Duration::from_secs(10);

/// Not draining, for [`Progress`].
const NO: u64 = u64::MAX;
/// Draining without an end.
const ENDLESS: u64 = u64::MAX - 1;

/// Seconds left, for the metrics.
#[derive(Clone, Debug)]
pub struct Progress(Arc<AtomicU64>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NO)))
    }
}

impl Progress {
    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.0.load(Relaxed) != NO
    }

    /// Seconds until whoever is left is cut off; `None` = nobody will be.
    pub fn seconds_left(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|&seconds| seconds < ENDLESS)
    }
}

/// What is left to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Users with an allocation.
    pub clients: usize,
    /// Allocations.
    pub allocations: u64,
    /// Streams open, with an allocation or without.
    pub connections: u32,
}

/// A drain, or none.
#[derive(Default)]
pub struct Drain {
    progress: Progress,
    begun: bool,
    until: Option<Instant>,
    told: Option<Instant>,
}

impl Drain {
    /// For the metrics.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Begins it, or gives it an end if `until` is one; an end that there is stays.
    pub fn begin(&mut self, until: Option<Instant>) {
        self.begun = true;
        self.until = self.until.or(until);
        self.told = None;
    }

    /// Whether the process ends with it.
    pub fn ends(&self) -> bool {
        self.until.is_some()
    }

    /// Why it is over now, if it is.
    pub fn over(&self, left: Left, now: Instant) -> Option<&'static str> {
        match self.until {
            Some(_) if left.allocations == 0 => Some("drained"),
            Some(until) if now >= until => Some("drain_seconds are over"),
            _ => None,
        }
    }

    /// How far it is, in words; with `true` when it is time for the log to say so. `None` when there is no drain.
    pub fn tell(&mut self, left: Left, now: Instant) -> Option<(String, bool)> {
        if !self.begun {
            return None;
        }
        let seconds = self.until.map(|until| until.saturating_duration_since(now).as_secs());
        self.progress.0.store(seconds.unwrap_or(ENDLESS), Relaxed);
        let Left { clients, allocations, connections } = left;
        let mut text =
            format!("draining: {clients} clients, {allocations} allocations, {connections} connections");
        if let Some(seconds) = seconds {
            text += &format!(", {} left", clock(seconds));
        }
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL);
        if due {
            self.told = Some(now);
        }
        Some((text, due))
    }
}

/// Hours, minutes and seconds as people write them.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Left = Left { clients: 2, allocations: 5, connections: 3 };
    const NONE: Left = Left { clients: 0, allocations: 0, connections: 3 };

    #[test]
    fn a_drain_says_who_is_left_and_for_how_long() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut drain = Drain::default();
        assert_eq!((drain.tell(SOME, start), drain.progress().is_draining()), (None, false));
        drain.begin(Some(after(3725)));
        let said = "draining: 2 clients, 5 allocations, 3 connections, 1:02:05 left";
        assert_eq!(drain.tell(SOME, start), Some((said.to_owned(), true)));
        assert_eq!(drain.progress().seconds_left(), Some(3725));
        let quiet = |said: Option<(String, bool)>| said.is_some_and(|(_, due)| !due);
        assert!(quiet(drain.tell(SOME, after(9))));
        assert!(drain.tell(SOME, after(10)).is_some_and(|(text, due)| due && text.ends_with("1:01:55 left")));
        assert_eq!(drain.over(SOME, after(3724)), None);
        assert_eq!(drain.over(SOME, after(3725)), Some("drain_seconds are over"));
        assert_eq!(
            drain.over(NONE, after(1)),
            Some("drained"),
            "whoever only has a connection is not waited for"
        );
    }

    #[test]
    fn without_an_end_the_server_stays() {
        let start = Instant::now();
        let mut drain = Drain::default();
        drain.begin(None);
        assert_eq!(drain.over(NONE, start + Duration::from_secs(100_000)), None);
        assert!(drain.tell(NONE, start).is_some_and(|(text, due)| due && !text.contains("left")));
        assert_eq!((drain.progress().is_draining(), drain.progress().seconds_left()), (true, None));
        drain.begin(Some(start));
        assert_eq!(drain.over(NONE, start), Some("drained"));
        assert_eq!(clock(59), "0:59");
    }
}
