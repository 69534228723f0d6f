//! How much is read of a client before its first authenticated request.

use crate::net::counters::CloseReason;

/// Bytes read at once: more than a login takes, and a flood of small requests is taken in parts.
pub const READ_MAX: usize = 4 << 10;
/// Bytes in all: many times what a login takes.
const BYTES_MAX: u32 = 512 << 10;

/// What was read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unproven {
    bytes: u32,
}

impl Unproven {
    /// Counts what was read; `TooMany` if it is more than a login takes.
    pub fn count(&mut self, len: usize) -> Option<CloseReason> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_add(len);
        (self.bytes > BYTES_MAX).then_some(CloseReason::TooMany)
    }
}
