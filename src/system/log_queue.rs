//! A bounded queue of finished log lines and the thread that writes them out.
//!
//! The thread of a packet never waits for a terminal, a pipe or a disk: what the output does not take in time
//! is dropped and counted, and one line says so once it takes lines again. Write errors are swallowed. A part of the
//! room and of the rate is kept for warnings and errors, so that no number of other lines keeps them out.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;

/// Most bytes that wait for the output.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// What of it is kept for urgent lines.
const URGENT_BYTES: usize = MAX_QUEUED_BYTES / 4;
/// How many seconds' worth of lines may come at once, as at start and reload.
const BURST_SECONDS: u64 = 10;
/// How many seconds' worth of them are kept for urgent lines.
const URGENT_SECONDS: u64 = 1;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How much of the queue a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Everything but the reserve.
    Routine,
    /// All of it: warnings and errors.
    Urgent,
}

/// The sending end; clones share one queue.
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
    /// Starts the writer. `lines_per_second` 0 means no limit; `summary` words the line that tells how many
    /// were dropped. Fails when the thread cannot be started.
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

    /// Queues one finished line (with its line break), or drops and counts it. Never blocks on the output.
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

    /// Counts a line that was given up before it was queued.
    pub fn count_dropped(&self) {
        self.shared.lock().dropped += 1;
    }

    /// Waits until everything queued so far is written, `limit` at most. `false`: the output did not take it.
    pub fn flush(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let busy = |s: &mut State| s.writing || !s.lines.is_empty();
        let waited = self.shared.idle.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    /// A thread that panicked while it held the lock left the state whole: each change is one statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        // An error here means a closed pipe or a full disk: nobody is left to tell.
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
    /// Nanosecond-lines: one line costs a second's worth of nanoseconds, so that nothing is rounded away.
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

    /// An output that tells what it got, and waits for a permit before each line.
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
    fn a_stuck_output_blocks_nobody_and_the_loss_is_told() {
        let (permit, permits) = mpsc::sync_channel(16);
        let (seen, lines) = mpsc::sync_channel(16);
        let queue = LogQueue::start(Gate { permits, seen }, 0, summary).unwrap();
        queue.push(b"first\n".to_vec(), Priority::Routine);
        assert!(!queue.flush(Duration::from_millis(20)), "nobody takes lines yet");
        // The first line is in the writer's hands; a megabyte waits, a quarter of it urgent; the rest is dropped.
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
    fn a_broken_output_is_survived() {
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
            "the rate is whole"
        );
        assert_eq!((0..1000).filter(|_| budget.take(second, Priority::Urgent)).count(), 10);
        // Routine lines wait until the reserve is full again.
        assert_eq!((0..1000).filter(|_| budget.take(2 * second, Priority::Routine)).count(), 0);
        assert_eq!((0..1000).filter(|_| budget.take(3 * second, Priority::Routine)).count(), 10);
    }
}
