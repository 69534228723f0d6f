//! Measures time.

use std::time::Duration;

use crate::base::time::Instant;
use crate::system::clock;

/// The time on CLOCK_MONOTONIC.
pub fn now() -> Instant {
    Instant::from_nanos(clock::monotonic_nanos())
}

/// Measures the time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Instant);

impl Watch {
    /// Starts it.
    pub fn start() -> Self {
        Self(now())
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        now().since(self.0)
    }
}
