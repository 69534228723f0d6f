//! Limits the bytes read from a client before its first authenticated request.

use crate::net::counters::CloseReason;

/// Bytes per read: more than a login takes, and few enough that a flood of small requests is read in parts.
pub const READ_MAX: usize = 4 << 10;
/// Total bytes: many times what a login takes.
const BYTES_MAX: u32 = 512 << 10;

/// The bytes read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unproven {
    bytes: u32,
}

impl Unproven {
    /// Counts `len` bytes read; returns `TooMany` above the limit.
    pub fn count(&mut self, len: usize) -> Option<CloseReason> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_add(len);
        (self.bytes > BYTES_MAX).then_some(CloseReason::TooMany)
    }
}
