//! Whether a disturbed call accuses the server: on a shared host, other machines take processors away for some time.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Pause of a witness between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(1);
/// A witness on a processor that the server and its attacker use fully wakes up within a few milliseconds.
const STEADY: Duration = Duration::from_millis(8);
/// Rounds on an unsteady machine before the test gives up.
const ROUNDS: usize = 8;

/// A thread on each processor that does nothing but wake up, and notes how late.
struct Witnesses {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Witnesses {
    fn start() -> Witnesses {
        let stop = Arc::new(AtomicBool::new(false));
        let allowed = sched_getaffinity(None).expect("the processors of this thread");
        let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let threads = cores.map(|core| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(core);
                sched_setaffinity(None, &only).expect("a thread may choose among its processors");
                watch(&stop)
            })
        });
        Witnesses { threads: threads.collect(), stop }
    }

    /// Returns by how much the witness of the worst processor was late, 99th percentile.
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let late = self.threads.into_iter().map(|thread| thread.join().expect("it only sleeps"));
        late.max().unwrap_or_default()
    }
}

fn watch(stop: &AtomicBool) -> Duration {
    let mut late = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::park_timeout(PAUSE);
        late.push(start.elapsed().saturating_sub(PAUSE));
    }
    late.sort_unstable();
    late.get(late.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}

/// Runs `round`, which tells whether the calls were undisturbed, until it says so. Fails after two disturbed rounds on
/// processors that ran their witnesses in time. A disturbed round in which a processor was away says nothing and is
/// repeated.
pub fn undisturbed(what: &str, round: impl FnMut() -> bool) {
    undisturbed_within(STEADY, what, round);
}

/// Does the same for promises of `steady` more: a processor whose witness wakes up later says nothing about them.
pub fn undisturbed_within(steady: Duration, what: &str, mut round: impl FnMut() -> bool) {
    let mut disturbed = 0;
    for _ in 0..ROUNDS {
        let witnesses = Witnesses::start();
        let fine = round();
        let late = witnesses.end();
        if fine {
            return;
        }
        println!("{what}: disturbed; a thread that does nothing woke up {late:.1?} late (99th percentile)");
        disturbed += usize::from(late <= steady);
        assert!(disturbed < 2, "{what}: the calls were disturbed");
    }
    panic!("{what}: this machine was too unsteady for {ROUNDS} rounds to tell whether calls are disturbed");
}
