//! Whether a client takes what is held for it.

use std::time::Duration;

use crate::base::time::Instant;

/// A client takes this much in [`STALLED`]. A line with 13 kbit/s does.
pub const STEP: u64 = 16 << 10;
const STALLED: Duration = Duration::from_secs(10);

/// The progress of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    since: Instant,
    /// Bytes that had arrived by then.
    arrived: u64,
}

impl Progress {
    /// Begins at `now`, when so many bytes have arrived.
    pub fn new(now: Instant, arrived: u64) -> Self {
        Self { since: now, arrived }
    }

    /// Takes the number of bytes that have arrived by now. At least [`STEP`] more is progress.
    pub fn follow(&mut self, now: Instant, arrived: u64) {
        if arrived >= self.arrived + STEP {
            *self = Self::new(now, arrived);
        }
    }

    /// Returns whether the last progress is too long ago.
    pub fn is_stalled(&self, now: Instant) -> bool {
        now.since(self.since) >= STALLED
    }
}
