//! What the operator sees of the renewal.

use std::sync::Mutex;

use crate::base::lock::lock;

/// The state of the renewal, for metrics and pages.
#[derive(Debug, Default)]
pub struct Status(Mutex<View>);

/// A copy of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether `[acme]` is configured.
    pub is_on: bool,
    /// Certificates that were issued since the start.
    pub issued: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// The next attempt in seconds since 1970.
    pub next: Option<u64>,
    /// Whether a reload changes nothing about that time: there were five failures within an hour.
    pub is_limited: bool,
    /// Why the last attempt failed; `None` if it succeeded.
    pub error: Option<String>,
}

impl Status {
    /// Returns the state of this moment.
    pub fn view(&self) -> View {
        lock(&self.0).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut View)) {
        change(&mut lock(&self.0));
    }
}
