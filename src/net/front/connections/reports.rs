//! What the connections report to the protocol: clients whose connections were closed, and media that was not sent to them.

use crate::net::counters::CloseReason;
use crate::turn::action::{DropReason, Traffic};
use crate::turn::five_tuple::Client;

/// Reports that wait for the protocol, which takes them within the same turn.
#[derive(Default)]
pub struct Reports {
    gone: Vec<(Client, CloseReason)>,
    unsent: Vec<(Client, DropReason, Traffic)>,
}

impl Reports {
    /// Reports that the connection of a client was closed.
    pub fn gone(&mut self, client: Client, reason: CloseReason) {
        self.gone.push((client, reason));
    }

    /// Reports media that was not sent to a client.
    pub fn unsent(&mut self, client: &Client, reason: DropReason, media: Traffic) {
        if media.packets > 0 {
            self.unsent.push((*client, reason, media));
        }
    }

    /// Returns the next client whose connection was closed, with the reason.
    pub fn next_gone(&mut self) -> Option<(Client, CloseReason)> {
        self.gone.pop()
    }

    /// Returns the next media that was not sent: to whom, why, and how much.
    pub fn next_unsent(&mut self) -> Option<(Client, DropReason, Traffic)> {
        self.unsent.pop()
    }
}
