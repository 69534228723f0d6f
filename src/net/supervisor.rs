//! Restarts a worker that failed: its calls end, calls on other workers continue.
//!
//! A panic or an error of the loop leaves the worker's state half-changed, so the successor starts empty: allocations
//! and streams are dropped, which frees their ports, places and descriptors. The listeners stay open meanwhile, so
//! the kernel does not move clients of other workers. A worker that fails too often is not restarted: the process
//! exits, and its service manager restarts it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::log;
use super::syscall::Offloads;
use super::worker::{Persistent, Worker};
use crate::base::time::{Instant, Now};
use crate::system::entropy;

/// Failures within [`PERIOD`] after which the worker is still restarted.
const FAILURES: usize = 3;
/// The interval over which failures are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// Runs one worker and its successors.
pub(super) struct Supervisor {
    pub number: usize,
    pub clock: fn() -> Now,
    pub offloads: Offloads,
}

impl Supervisor {
    /// Runs workers in succession until one is stopped or they fail too often; returns the last failure, if any. Sends to
    /// `started` when the first has all that it needs to serve clients, and drops it without a word if that one fails.
    pub fn run(self, mut persistent: Persistent, started: SyncSender<()>) -> Option<String> {
        let mut started = Some(started);
        let mut failures = Failures::default();
        loop {
            let mut worker = match Worker::new(persistent, self.clock, self.offloads) {
                Ok(worker) => worker,
                Err(error) => return Some(error.to_string()),
            };
            if let Some(started) = started.take() {
                // Fails only if another worker did not start: then the process exits.
                let _ = started.send(());
            }
            let failure = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => text(panic.as_ref()),
            };
            if failures.too_many((self.clock)().instant) {
                return Some(failure);
            }
            persistent = worker.into_persistent();
            let lost = persistent.controls.allocations.swap(0, Relaxed);
            persistent.controls.counters.restarts.add(1);
            persistent.controls.counters.forget_open();
            log::worker_failed(self.number, &failure, lost);
            let seed = match entropy::seed() {
                Ok(seed) => seed,
                Err(error) => return Some(error.to_string()),
            };
            persistent.server = persistent.server.successor(seed);
        }
    }
}

/// The times of failures within the last [`PERIOD`].
#[derive(Default)]
struct Failures(VecDeque<Instant>);

impl Failures {
    /// Records a failure at `now`; returns whether the limit is exceeded.
    fn too_many(&mut self, now: Instant) -> bool {
        self.0.retain(|&at| now.since(at) < PERIOD);
        self.0.push_back(now);
        self.0.len() > FAILURES
    }
}

/// Returns the message of a panic.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_kept() {
        let said = |panic: fn()| text(catch_unwind(panic).expect_err("a panic").as_ref());
        assert_eq!(said(|| panic!("number {}", 7)), "number 7");
        assert_eq!(said(|| panic!("plain")), "plain");
        assert_eq!(said(|| std::panic::panic_any(7)), "panic");
    }

    #[test]
    fn four_failures_within_a_minute_are_too_many() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut failures = Failures::default();
        assert!(![0, 10, 20].into_iter().any(|seconds| failures.too_many(at(seconds))));
        assert!(failures.too_many(at(59)), "the fourth in a minute");
        let mut failures = Failures::default();
        assert!(![0, 30, 60, 90, 120, 150].into_iter().any(|seconds| failures.too_many(at(seconds))));
    }
}
