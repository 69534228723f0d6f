//! The result of a deadline check, and the epoll interest of a connection.

use std::time::Duration;

use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::syscall::ready;

/// The epoll interest of a connection that is read.
pub const INTEREST: u32 = ready::READ | ready::PEER_CLOSED;

/// Time without an authenticated request and without an allocation after which a connection is closed.
pub const IDLE_TIME: Duration = Duration::from_secs(30);

/// Time for a client to read the rest of its output and to answer the end of its connection. Two round trips of a slow mobile
/// path; the next server waits for it at a restart.
pub const ENDING_TIME: Duration = Duration::from_millis(500);

/// The result of checking a connection's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Check again at this time.
    Until(Instant),
    /// Close it.
    Over(CloseReason),
    /// Its back end does not answer.
    BackEndDown,
}
