//! The places of the table of connections.

use crate::net::front::connection::Connection;
use crate::net::front::displacement::{Candidate, Stamp};
use crate::net::front::door::Door;
use crate::net::token::{Generation, Token};

/// A place in the table.
#[derive(Default)]
pub struct Slot {
    pub connection: Option<Connection>,
    pub generation: Generation,
    pub stamp: Stamp,
}

/// Returns the properties that decide whether the connection of this token makes room; `None` if it is closed or marked.
pub fn candidate(slots: &[Slot], token: Token) -> Option<Candidate> {
    let Token::Stream { slot, generation } = token else { return None };
    let slot = slots.get(slot as usize).filter(|slot| slot.generation == generation)?;
    let connection = slot.connection.as_ref().filter(|connection| !connection.closing)?;
    Some(Candidate { stamp: slot.stamp, ..connection.candidate() })
}

/// Returns the connection of a token of a client or of a back end; `None` if it is closed or marked.
pub fn find(slots: &mut [Slot], token: Token) -> Option<&mut Connection> {
    let (Token::Stream { slot, generation } | Token::BackEnd { slot, generation }) = token else {
        return None;
    };
    let slot = slots.get_mut(slot as usize).filter(|slot| slot.generation == generation)?;
    slot.connection.as_mut().filter(|connection| !connection.closing)
}

/// Returns whether a web client, whose exchange with its back end is over, has yet to receive the rest of the answer. From then on
/// nothing more is forwarded.
pub fn keeps_rest(connection: &mut Connection) -> bool {
    match &mut connection.door {
        Door::Web(splice) => splice.keeps_rest(&connection.stream),
        _ => false,
    }
}
