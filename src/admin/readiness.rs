//! Ready means that every latch was dropped and no drain began.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of the server as load balancers see it; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What is still awaited, by name.
    awaited: Vec<&'static str>,
    draining: bool,
}

/// Something that must happen before the server is ready. It has happened when this is dropped.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing back"]
pub struct Latch {
    of: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Holds readiness back until the latch is dropped.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.lock().awaited.push(name);
        Latch { of: self.clone(), name }
    }

    /// The drain begins; there is no way back.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// `Err` says what is in the way, in words for an operator.
    pub fn check(&self) -> Result<(), String> {
        let state = self.lock();
        if state.draining {
            Err("draining".to_owned())
        } else if state.awaited.is_empty() {
            Ok(())
        } else {
            Err(format!("waiting for {}", state.awaited.join(", ")))
        }
    }

    /// A panic elsewhere leaves the state whole: each change is one statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        if let Some(at) = state.awaited.iter().position(|&name| name == self.name) {
            state.awaited.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_is_dropped_and_never_again_after_a_drain() {
        let readiness = Readiness::default();
        let first = readiness.latch("worker");
        let second = readiness.latch("worker");
        let listeners = readiness.latch("listeners");
        assert_eq!(readiness.check(), Err("waiting for worker, worker, listeners".into()));
        drop((first, listeners));
        assert_eq!(readiness.check(), Err("waiting for worker".into()));
        drop(second);
        assert_eq!(readiness.check(), Ok(()));
        readiness.clone().drain();
        assert_eq!(readiness.check(), Err("draining".into()));
    }
}
