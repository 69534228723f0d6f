//! A bounded queue of complete log lines, and the thread that writes them.
//!
//! A worker never waits for a terminal, a pipe or a disk. Lines that the output does not accept in time are dropped and
//! counted; one line reports the number when the output accepts lines again. Write errors are ignored. Part of the queue
//! and of the rate is reserved for warnings and errors, so that a flood of other lines does not displace them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;
use crate::base::lock::lock;

/// Most bytes in the queue.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// Part of it that is reserved for urgent lines.
const URGENT_BYTES: usize = MAX_QUEUED_BYTES / 4;
/// Size of a burst in seconds of the rate, as at a start or a reload.
const BURST_SECONDS: u64 = 10;
/// Part of it that is reserved for urgent lines.
const URGENT_SECONDS: u64 = 1;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How much of the queue a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// All except the reserve.
    Routine,
    /// All of it; for warnings and errors.
    Urgent,
}

/// The sending end. Clones share one queue.
#[derive(Clone, Debug)]
pub struct LogQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when the writer has something to do.
    work: Condvar,
    /// Signalled when the writer has written everything.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    writing: bool,
    budget: Budget,
}

impl LogQueue {
    /// Starts the writer thread. `lines_per_second` 0 means no limit. `summary` formats the line about dropped lines.
    ///
    /// # Errors
    /// The error of starting the thread.
    pub fn start(
        mut output: impl Write + Send + 'static,
        lines_per_second: u32,
        summary: fn(u64) -> String,
    ) -> io::Result<Self> {
        let budget = Budget::new(lines_per_second, clock::monotonic_nanos());
        let state = State { lines: VecDeque::new(), bytes: 0, dropped: 0, writing: false, budget };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new() });
        let ours = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_forever(&ours, &mut output, summary))?;
        Ok(Self { shared })
    }

    /// Queues one complete line with its line break, or drops and counts it. Does not wait for the output.
    pub fn push(&self, line: Vec<u8>, priority: Priority) {
        let most = match priority {
            Priority::Routine => MAX_QUEUED_BYTES - URGENT_BYTES,
            Priority::Urgent => MAX_QUEUED_BYTES,
        };
        let mut state = self.shared.lock();
        let affordable = state.budget.take(clock::monotonic_nanos(), priority);
        if !affordable || state.bytes.saturating_add(line.len()) > most {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Counts a line that was dropped before it was queued.
    pub fn count_dropped(&self) {
        self.shared.lock().dropped += 1;
    }

    /// Waits until everything in the queue is written. `false` if the output does not accept it within `limit`.
    pub fn flush(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let busy = |s: &mut State| s.writing || !s.lines.is_empty();
        let waited = self.shared.idle.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn write_forever(shared: &Shared, output: &mut impl Write, summary: fn(u64) -> String) {
    loop {
        let mut state = shared.lock();
        while state.lines.is_empty() {
            state.writing = false;
            shared.idle.notify_all();
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        state.bytes = 0;
        let lines = std::mem::take(&mut state.lines);
        let dropped = std::mem::take(&mut state.dropped);
        drop(state);
        // An error means a closed pipe or a full disk, and there is nowhere to report it.
        if dropped > 0 {
            let _ = output.write_all(summary(dropped).as_bytes());
        }
        for line in lines {
            let _ = output.write_all(&line);
        }
        let _ = output.flush();
    }
}

/// A token bucket over lines; time is an argument.
#[derive(Debug)]
struct Budget {
    rate: u64,
    /// In lines times nanoseconds: one line costs 10^9, so nothing is lost by rounding.
    credit: u64,
    last: u64,
}

impl Budget {
    fn new(lines_per_second: u32, now: u64) -> Self {
        let rate = u64::from(lines_per_second);
        Self { rate, credit: rate.saturating_mul(BURST_SECONDS * NANOS_PER_SECOND), last: now }
    }

    fn take(&mut self, now: u64, priority: Priority) -> bool {
        if self.rate == 0 {
            return true;
        }
        let earned = now.saturating_sub(self.last).saturating_mul(self.rate);
        let most = self.rate.saturating_mul(BURST_SECONDS * NANOS_PER_SECOND);
        self.credit = self.credit.saturating_add(earned).min(most);
        self.last = now;
        let kept = match priority {
            Priority::Routine => self.rate.saturating_mul(URGENT_SECONDS * NANOS_PER_SECOND),
            Priority::Urgent => 0,
        };
        let enough = self.credit >= kept.saturating_add(NANOS_PER_SECOND);
        if enough {
            self.credit -= NANOS_PER_SECOND;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// An output that waits for a permit before each line and passes it to the test.
    struct Gate {
        permits: mpsc::Receiver<()>,
        seen: mpsc::SyncSender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            self.seen.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn summary(dropped: u64) -> String {
        format!("{dropped} dropped\n")
    }

    #[test]
    fn a_stuck_output_blocks_no_caller_and_the_loss_is_reported() {
        let (permit, permits) = mpsc::sync_channel(16);
        let (seen, lines) = mpsc::sync_channel(16);
        let queue = LogQueue::start(Gate { permits, seen }, 0, summary).unwrap();
        queue.push(b"first\n".to_vec(), Priority::Routine);
        assert!(!queue.flush(Duration::from_millis(20)), "the output accepts no lines yet");
        // The writer holds the first line, the queue holds a megabyte of which a quarter is urgent, the rest is dropped.
        let line = |letter: u8| vec![letter; URGENT_BYTES];
        (0..5).for_each(|_| queue.push(line(b'r'), Priority::Routine));
        (0..2).for_each(|_| queue.push(line(b'u'), Priority::Urgent));
        (0..6).for_each(|_| permit.send(()).unwrap());
        assert_eq!(lines.recv().unwrap(), b"first\n");
        assert_eq!(lines.recv().unwrap(), b"3 dropped\n");
        let waited: Vec<_> = (0..4).map(|_| lines.recv().unwrap()).collect();
        assert_eq!(waited, [line(b'r'), line(b'r'), line(b'r'), line(b'u')]);
        assert!(queue.flush(Duration::from_secs(10)));
    }

    #[test]
    fn write_errors_are_ignored() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let queue = LogQueue::start(Broken, 0, summary).unwrap();
        for _ in 0..100 {
            queue.push(b"lost\n".to_vec(), Priority::Routine);
            assert!(queue.flush(Duration::from_secs(10)));
        }
    }

    #[test]
    fn budget_allows_a_burst_and_then_the_rate() {
        use Priority::Urgent;
        let mut budget = Budget::new(10, 5);
        assert_eq!((0..1000).filter(|_| budget.take(5, Urgent)).count(), 100);
        // A tenth of a second earns one line, in however many steps it passes.
        assert_eq!((1..=100).filter(|ms| budget.take(5 + ms * 1_000_000, Urgent)).count(), 1);
        assert_eq!((0..1000).filter(|_| budget.take(u64::MAX, Urgent)).count(), 100);
        let mut unlimited = Budget::new(0, 0);
        assert!((0..10_000).all(|_| unlimited.take(0, Priority::Routine)));
    }

    #[test]
    fn a_flood_of_routine_lines_leaves_a_reserve_for_urgent_ones() {
        let mut budget = Budget::new(10, 0);
        assert_eq!((0..1000).filter(|_| budget.take(0, Priority::Routine)).count(), 90);
        let second = NANOS_PER_SECOND;
        assert_eq!(
            (0..1000).filter(|_| budget.take(second, Priority::Routine)).count(),
            10,
            "the reserve does not reduce the rate"
        );
        assert_eq!((0..1000).filter(|_| budget.take(second, Priority::Urgent)).count(), 10);
        // Routine lines wait until the reserve is full again.
        assert_eq!((0..1000).filter(|_| budget.take(2 * second, Priority::Routine)).count(), 0);
        assert_eq!((0..1000).filter(|_| budget.take(3 * second, Priority::Routine)).count(), 10);
    }
}
