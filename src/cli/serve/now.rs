//! The clock of the workers.

use crate::base::time::{Instant, Now};
use crate::system::clock;

/// Returns the time. Workers read it once per iteration of their loop.
pub fn now() -> Now {
    Now { instant: Instant::from_nanos(clock::monotonic_nanos()), unix: clock::unix_seconds() }
}
