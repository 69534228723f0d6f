//! The state of a drain: its deadline, and reports about the clients that remain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Interval of the reports in the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Value of [`DrainProgress`] without a drain.
const NOT_DRAINING: u64 = u64::MAX;
/// Value of [`DrainProgress`] during a drain without a deadline.
const NO_DEADLINE: u64 = u64::MAX - 1;

/// The seconds until the deadline of the drain, shared with the metrics.
#[derive(Clone, Debug)]
pub struct DrainProgress(Arc<AtomicU64>);

impl Default for DrainProgress {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NOT_DRAINING)))
    }
}

impl DrainProgress {
    /// Whether a drain is running.
    pub fn is_draining(&self) -> bool {
        self.0.load(Relaxed) != NOT_DRAINING
    }

    /// Seconds until the drain closes remaining clients; `None` without a deadline.
    pub fn seconds_left(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|&seconds| seconds < NO_DEADLINE)
    }
}

/// The clients that a drain waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Users with at least one allocation.
    pub clients: usize,
    /// Allocations.
    pub allocations: u64,
    /// Open streams, with or without an allocation.
    pub connections: u32,
}

/// The state of a drain. By default no drain is running.
#[derive(Default)]
pub struct DrainState {
    progress: DrainProgress,
    begun: bool,
    deadline: Option<Instant>,
    reported: Option<Instant>,
}

impl DrainState {
    /// Returns the handle for the metrics.
    pub fn progress(&self) -> DrainProgress {
        self.progress.clone()
    }

    /// Begins a drain, or adds a deadline to the running one. The first deadline stays.
    pub fn begin(&mut self, deadline: Option<Instant>) {
        self.begun = true;
        self.deadline = self.deadline.or(deadline);
        self.reported = None;
    }

    /// Whether the process exits at the end of the drain.
    pub fn exits_at_end(&self) -> bool {
        self.deadline.is_some()
    }

    /// The reason to exit now; `None` while the drain continues.
    pub fn exit_reason(&self, remaining: Remaining, now: Instant) -> Option<&'static str> {
        match self.deadline {
            Some(_) if remaining.allocations == 0 => Some("drained"),
            Some(deadline) if now >= deadline => Some("drain_seconds have elapsed"),
            _ => None,
        }
    }

    /// Updates the metrics and returns a status text. The flag is true when a report in the log is due. `None` without a
    /// drain.
    pub fn report(&mut self, remaining: Remaining, now: Instant) -> Option<(String, bool)> {
        if !self.begun {
            return None;
        }
        let seconds = self.deadline.map(|deadline| deadline.saturating_duration_since(now).as_secs());
        self.progress.0.store(seconds.unwrap_or(NO_DEADLINE), Relaxed);
        let Remaining { clients, allocations, connections } = remaining;
        let mut text =
            format!("draining: {clients} clients, {allocations} allocations, {connections} connections");
        if let Some(seconds) = seconds {
            text += &format!(", {} left", clock(seconds));
        }
        let due =
            self.reported.is_none_or(|reported| now.saturating_duration_since(reported) >= REPORT_INTERVAL);
        if due {
            self.reported = Some(now);
        }
        Some((text, due))
    }
}

/// Formats seconds as `minutes:seconds` or `hours:minutes:seconds`.
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

    const SOME: Remaining = Remaining { clients: 2, allocations: 5, connections: 3 };
    const NONE: Remaining = Remaining { clients: 0, allocations: 0, connections: 3 };

    #[test]
    fn a_drain_reports_remaining_clients_and_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut drain = DrainState::default();
        assert_eq!((drain.report(SOME, start), drain.progress().is_draining()), (None, false));
        drain.begin(Some(after(3725)));
        let said = "draining: 2 clients, 5 allocations, 3 connections, 1:02:05 left";
        assert_eq!(drain.report(SOME, start), Some((said.to_owned(), true)));
        assert_eq!(drain.progress().seconds_left(), Some(3725));
        let quiet = |said: Option<(String, bool)>| said.is_some_and(|(_, due)| !due);
        assert!(quiet(drain.report(SOME, after(9))));
        assert!(
            drain.report(SOME, after(10)).is_some_and(|(text, due)| due && text.ends_with("1:01:55 left"))
        );
        assert_eq!(drain.exit_reason(SOME, after(3724)), None);
        assert_eq!(drain.exit_reason(SOME, after(3725)), Some("drain_seconds have elapsed"));
        assert_eq!(
            drain.exit_reason(NONE, after(1)),
            Some("drained"),
            "a drain does not wait for connections without an allocation"
        );
    }

    #[test]
    fn without_a_deadline_the_server_keeps_running() {
        let start = Instant::now();
        let mut drain = DrainState::default();
        drain.begin(None);
        assert_eq!(drain.exit_reason(NONE, start + Duration::from_secs(100_000)), None);
        assert!(drain.report(NONE, start).is_some_and(|(text, due)| due && !text.contains("left")));
        assert_eq!((drain.progress().is_draining(), drain.progress().seconds_left()), (true, None));
        drain.begin(Some(start));
        assert_eq!(drain.exit_reason(NONE, start), Some("drained"));
        assert_eq!(clock(59), "0:59");
    }
}
