//! Readiness: the server is ready when all latches are dropped and no drain is running.

use std::sync::{Arc, Mutex};

use crate::base::lock::lock;

/// Whether the server is ready for clients, for load balancers. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The names of the latches that have not been dropped yet.
    awaited: Vec<&'static str>,
    draining: bool,
}

/// A step that must complete before the server is ready. Dropping the latch completes it.
#[derive(Debug)]
#[must_use = "dropping the latch completes its step"]
pub struct Latch {
    of: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Delays readiness until the latch is dropped.
    pub fn latch(&self, name: &'static str) -> Latch {
        lock(&self.state).awaited.push(name);
        Latch { of: self.clone(), name }
    }

    /// Sets whether the server drains. While it does, it is not ready.
    pub fn set_draining(&self, draining: bool) {
        lock(&self.state).draining = draining;
    }

    /// Returns `Ok` if the server is ready.
    ///
    /// # Errors
    /// Why the server is not ready, as text for the operator.
    pub fn check(&self) -> Result<(), String> {
        let state = lock(&self.state);
        if state.draining {
            Err("draining".to_owned())
        } else if state.awaited.is_empty() {
            Ok(())
        } else {
            Err(format!("waiting for {}", state.awaited.join(", ")))
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut state = lock(&self.of.state);
        if let Some(at) = state.awaited.iter().position(|&name| name == self.name) {
            state.awaited.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_is_dropped_and_not_in_a_drain() {
        let readiness = Readiness::default();
        let first = readiness.latch("worker");
        let second = readiness.latch("worker");
        let listeners = readiness.latch("listeners");
        assert_eq!(readiness.check(), Err("waiting for worker, worker, listeners".into()));
        drop((first, listeners));
        assert_eq!(readiness.check(), Err("waiting for worker".into()));
        drop(second);
        assert_eq!(readiness.check(), Ok(()));
        readiness.clone().set_draining(true);
        assert_eq!(readiness.check(), Err("draining".into()));
        readiness.set_draining(false);
        assert_eq!(readiness.check(), Ok(()));
    }
}
