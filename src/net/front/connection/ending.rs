//! The end of a connection from the server's side, so that its client is told.

use super::Connection;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::front::door::Door;
use crate::net::front::read::ReadOutcome;
use crate::net::scratch::{READ_MAX, Scratch};

impl Connection {
    /// Ends a connection from the server's side: its queued output is still sent, what the client sends is discarded.
    pub fn end(&mut self, now: Instant) {
        self.door = Door::Ending { is_sent: false };
        self.active = now;
    }

    /// Returns whether the server ends the connection.
    pub fn is_ending(&self) -> bool {
        matches!(self.door, Door::Ending { .. })
    }

    /// Reads and discards what the client sends: unread bytes would turn the end of the connection into a reset.
    pub(super) fn discard(&mut self, scratch: &mut Scratch) -> ReadOutcome {
        let read = self.stream.read(scratch, READ_MAX);
        scratch.clear();
        let end = read.end.map(|_| CloseReason::Shutdown);
        ReadOutcome { received: read.len, full: read.full, end, ..ReadOutcome::default() }
    }

    /// Sends the end of the stream once all output before it is sent.
    pub(super) fn send_end(&mut self, output: &mut Scratch) {
        if matches!(self.door, Door::Ending { is_sent: false }) && !self.stream.is_waiting() {
            self.door = Door::Ending { is_sent: true };
            self.stream.end(output);
            // No other record may follow the close_notify.
            self.stream.tls = None;
        }
    }
}
