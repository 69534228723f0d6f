//! Lists the connections, and tells whether a web client has yet to receive the rest of an answer.

use super::{Connection, Connections};
use crate::net::front::door::Door;
use crate::net::token::Token;

/// Returns whether a web client, whose exchange with its back end is over, has yet to receive the rest of the answer. From then on
/// nothing more is forwarded.
pub fn keeps_rest(connection: &mut Connection) -> bool {
    match &mut connection.door {
        Door::Web(splice) => splice.keeps_rest(&connection.stream),
        _ => false,
    }
}

impl Connections {
    /// Returns the tokens of all open connections.
    pub fn tokens(&self) -> Vec<Token> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        open.map(|(index, slot)| Token::Stream { slot: index as u32, generation: slot.generation }).collect()
    }
}
