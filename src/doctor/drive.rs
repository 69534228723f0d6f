//! Runs the tasks of a test at once, and shows which ones are not done yet.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Interval, interval};

use super::watch::Watch;

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(100);

/// The state of a run, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Tests that have ended.
    pub done: usize,
    /// All tests.
    pub of: usize,
    /// Time since the run began.
    pub elapsed: Duration,
    /// The tests that have not ended.
    pub waiting: Vec<String>,
}

/// Receives the state of a run several times a second.
pub trait Progress {
    /// Displays `status`.
    fn update(&mut self, status: &Status);
}

/// The tasks of a run. Dropping it ends them.
pub struct Tasks<T> {
    set: JoinSet<(Option<String>, T)>,
    /// Labels of the tests that have not ended.
    waiting: Vec<String>,
    ticks: Interval,
    watch: Watch,
    limit: Duration,
    /// Tests that have ended.
    pub done: usize,
    /// All tests, also those that are not started yet.
    pub of: usize,
}

impl<T: Send + 'static> Tasks<T> {
    /// Starts a run that ends after `limit`, whatever its tasks do.
    pub fn new(limit: Duration) -> Self {
        Self {
            set: JoinSet::new(),
            waiting: Vec::new(),
            ticks: interval(PROGRESS),
            watch: Watch::start(),
            limit,
            done: 0,
            of: 0,
        }
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Starts a task. One without a label is not a test by itself.
    pub fn spawn(&mut self, label: Option<String>, task: impl Future<Output = T> + Send + 'static) {
        self.waiting.extend(label.clone());
        self.set.spawn(async move { (label, task.await) });
    }

    /// Waits for the next task to end. `None` if there are no more, or no more time.
    pub async fn next(&mut self, progress: &mut dyn Progress) -> Option<T> {
        loop {
            tokio::select! {
                // A task that panicked has no result.
                ended = self.set.join_next() => if let Ok((label, value)) = ended? {
                    if let Some(label) = label {
                        self.done += 1;
                        if let Some(at) = self.waiting.iter().position(|one| *one == label) {
                            self.waiting.remove(at);
                        }
                    }
                    return Some(value);
                },
                _ = self.ticks.tick() => {
                    let (done, of, elapsed) = (self.done, self.of, self.elapsed());
                    progress.update(&Status { done, of, elapsed, waiting: self.waiting.clone() });
                    if elapsed > self.limit {
                        return None;
                    }
                }
            }
        }
    }
}
