//! The end of all connections of a worker, at a stop or at the end of a drain.

use super::Front;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;

impl Front {
    /// Ends every connection, so that its client is told.
    pub fn end_all(&mut self, now: Instant) {
        self.connections.tokens().into_iter().for_each(|token| self.connections.end(token, now));
    }

    /// Ends the connections of TURN clients, so that they are told.
    pub fn end_turn_clients(&mut self, now: Instant) {
        for token in self.connections.tokens() {
            if self.connections.get(token).is_some_and(|connection| connection.turn_client().is_some()) {
                self.connections.end(token, now);
            }
        }
    }

    /// Returns whether clients have yet to answer the end of their connections.
    pub fn is_ending(&self) -> bool {
        self.connections.ending() > 0
    }

    /// Marks every connection to be closed.
    pub fn close_all(&mut self) {
        self.connections.tokens().into_iter().for_each(|token| self.close(token, CloseReason::Shutdown));
    }
}
