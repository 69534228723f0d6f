//! The drain: whether one is running, its deadline, and reports about the clients that remain.

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

/// The clients that are left in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Users with at least one allocation.
    pub clients: usize,
    /// Allocations.
    pub allocations: u64,
    /// Open streams, with or without an allocation.
    pub connections: u32,
}

/// The drain. By default none is running.
#[derive(Default)]
pub struct DrainState {
    progress: DrainProgress,
    running: Option<Running>,
}

/// A running drain.
struct Running {
    /// When the remaining sessions end; `None` to wait for them without a limit.
    deadline: Option<Instant>,
    /// When its progress was last written to the log.
    reported: Option<Instant>,
}

impl DrainState {
    /// Returns the handle for the metrics.
    pub fn progress(&self) -> DrainProgress {
        self.progress.clone()
    }

    /// Whether a drain is running.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a drain, or replaces the deadline of the running one.
    pub fn begin(&mut self, deadline: Option<Instant>, now: Instant) {
        self.running = Some(Running { deadline, reported: None });
        self.show(now);
    }

    /// Ends the drain. Returns whether one was running.
    pub fn cancel(&mut self, now: Instant) -> bool {
        let was_running = self.running.take().is_some();
        self.show(now);
        was_running
    }

    /// Returns the time until the remaining sessions end; `None` without a deadline.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let deadline = self.running.as_ref()?.deadline?;
        Some(deadline.saturating_duration_since(now))
    }

    /// Returns whether the deadline has passed. The drain continues without one, so this is true only once.
    pub fn take_deadline(&mut self, now: Instant) -> bool {
        let Some(running) = &mut self.running else { return false };
        running.deadline.take_if(|deadline| now >= *deadline).is_some()
    }

    /// Updates the metrics and returns a status text. The flag is true when a report in the log is due. `None` without a
    /// drain.
    pub fn report(&mut self, remaining: Remaining, now: Instant) -> Option<(String, bool)> {
        self.show(now);
        let left = self.left(now);
        let running = self.running.as_mut()?;
        let Remaining { clients, allocations, connections } = remaining;
        let mut text =
            format!("draining: {clients} clients, {allocations} allocations, {connections} connections");
        if let Some(left) = left {
            text += &format!(", {} left", clock(left.as_secs()));
        }
        let due = running
            .reported
            .is_none_or(|reported| now.saturating_duration_since(reported) >= REPORT_INTERVAL);
        if due {
            running.reported = Some(now);
        }
        Some((text, due))
    }

    /// Updates the metrics.
    fn show(&self, now: Instant) {
        let shown = match (&self.running, self.left(now)) {
            (None, _) => NOT_DRAINING,
            (Some(_), None) => NO_DEADLINE,
            (Some(_), Some(left)) => left.as_secs(),
        };
        self.progress.0.store(shown, Relaxed);
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

    #[test]
    fn a_drain_reports_remaining_clients_and_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut drain = DrainState::default();
        assert_eq!((drain.report(SOME, start), drain.progress().is_draining()), (None, false));
        drain.begin(Some(after(3725)), start);
        assert_eq!(drain.progress().seconds_left(), Some(3725));
        let said = "draining: 2 clients, 5 allocations, 3 connections, 1:02:05 left";
        assert_eq!(drain.report(SOME, start), Some((said.to_owned(), true)));
        let quiet = |said: Option<(String, bool)>| said.is_some_and(|(_, due)| !due);
        assert!(quiet(drain.report(SOME, after(9))));
        assert!(
            drain.report(SOME, after(10)).is_some_and(|(text, due)| due && text.ends_with("1:01:55 left"))
        );
        assert!(!drain.take_deadline(after(3724)));
        assert!(drain.take_deadline(after(3725)) && !drain.take_deadline(after(3725)), "only once");
        assert!(drain.is_running());
        assert!(drain.report(SOME, after(3725)).is_some_and(|(text, _)| !text.contains("left")));
        assert_eq!((drain.progress().is_draining(), drain.progress().seconds_left()), (true, None));
        assert_eq!(clock(59), "0:59");
    }

    #[test]
    fn a_drain_can_be_cancelled_and_gets_another_deadline() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut drain = DrainState::default();
        assert!(!drain.cancel(start));
        drain.begin(None, start);
        assert_eq!((drain.progress().is_draining(), drain.progress().seconds_left()), (true, None));
        drain.begin(Some(after(60)), start);
        assert_eq!(drain.left(after(10)), Some(Duration::from_secs(50)));
        drain.begin(Some(after(600)), start);
        assert!(!drain.take_deadline(after(60)));
        assert!(drain.cancel(after(61)));
        assert!(!drain.progress().is_draining() && !drain.take_deadline(after(600)));
        assert_eq!(drain.report(SOME, after(61)), None);
    }
}
