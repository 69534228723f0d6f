//! The end of connections from the server's side.

use super::{Connections, find};
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::token::Token;

impl Connections {
    /// Returns the tokens of all open connections.
    pub fn tokens(&self) -> Vec<Token> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        open.map(|(index, slot)| Token::Stream { slot: index as u32, generation: slot.generation }).collect()
    }

    /// Ends a TURN client's connection: its queued output is sent, then the end of the stream, and it is closed once the client
    /// has ended it too or [`ENDING_TIME`](crate::net::front::ENDING_TIME) has passed. All other connections are marked to be closed.
    pub fn end(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.slots, token).filter(|connection| !connection.is_ending())
        else {
            return;
        };
        if connection.turn_client().is_none() {
            return self.mark_closing(token, CloseReason::Shutdown);
        }
        connection.end(now);
        self.ending += 1;
        self.spliced(token);
    }

    /// Returns how many connections the server is ending.
    pub fn ending(&self) -> usize {
        self.ending
    }
}
