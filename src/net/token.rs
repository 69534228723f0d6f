//! Tokens: the 64-bit user data of epoll events, which identify the source of an event.
//!
//! Numbers of closed sockets are reused. The generation in a token distinguishes a late event of the old socket from an
//! event of the new one.

use crate::turn::action::RelayId;

/// A source of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// Another thread has sent a command.
    Waker,
    /// A deadline may have passed.
    Alarm,
    /// A UDP listener, by index.
    Udp(u16),
    /// A stream listener, by index.
    Accept(u16),
    /// A relayed address.
    Relay {
        /// Its number.
        relay: RelayId,
        /// How often the number was reused.
        generation: Generation,
    },
    /// A stream client.
    Stream {
        /// Its slot.
        slot: u32,
        /// How often the slot was reused.
        generation: Generation,
    },
    /// The QUIC server's side of a flow.
    Quic {
        /// The flow's slot.
        slot: u32,
        /// How often the slot was reused.
        generation: Generation,
    },
    /// The back end of a stream client.
    BackEnd {
        /// The client's slot.
        slot: u32,
        /// How often the slot was reused.
        generation: Generation,
    },
}

/// How often a number was reused, modulo 2^24.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(u32);

const GENERATION_BITS: u32 = 24;

impl Generation {
    /// Returns the next generation.
    pub fn next(self) -> Self {
        Self((self.0 + 1) % (1 << GENERATION_BITS))
    }
}

impl Token {
    /// Converts the token of a client into that of its back end; other tokens stay unchanged.
    pub fn back_end(self) -> Self {
        match self {
            Token::Stream { slot, generation } => Token::BackEnd { slot, generation },
            other => other,
        }
    }

    /// Converts the token of a back end into that of its client; other tokens stay unchanged.
    pub fn client(self) -> Self {
        match self {
            Token::BackEnd { slot, generation } => Token::Stream { slot, generation },
            other => other,
        }
    }

    /// Returns whether its events belong to peers, or to the other side of a QUIC flow.
    pub fn is_peer(self) -> bool {
        matches!(self, Token::Relay { .. } | Token::Quic { .. })
    }

    /// Returns whether its events belong to streams, which have a bounded share of each turn.
    pub fn is_stream(self) -> bool {
        matches!(self, Token::Stream { .. } | Token::BackEnd { .. } | Token::Accept(_))
    }

    /// Packs the token into a number: kind, generation, index.
    pub fn pack(self) -> u64 {
        let parts = |kind: u64, generation: Generation, index: u32| {
            kind << 56 | u64::from(generation.0) << 32 | u64::from(index)
        };
        match self {
            Token::Waker => parts(0, Generation(0), 0),
            Token::Alarm => parts(5, Generation(0), 0),
            Token::Udp(index) => parts(1, Generation(0), index.into()),
            Token::Accept(index) => parts(2, Generation(0), index.into()),
            Token::Relay { relay, generation } => parts(3, generation, relay.0),
            Token::Stream { slot, generation } => parts(4, generation, slot),
            Token::BackEnd { slot, generation } => parts(6, generation, slot),
            Token::Quic { slot, generation } => parts(7, generation, slot),
        }
    }

    /// Returns the token that packs to `number`, if there is one.
    pub fn unpack(number: u64) -> Option<Self> {
        let index = number as u32;
        let generation = Generation((number >> 32) as u32 % (1 << GENERATION_BITS));
        Some(match number >> 56 {
            0 => Token::Waker,
            1 => Token::Udp(index as u16),
            2 => Token::Accept(index as u16),
            3 => Token::Relay { relay: RelayId(index), generation },
            4 => Token::Stream { slot: index, generation },
            5 => Token::Alarm,
            6 => Token::BackEnd { slot: index, generation },
            7 => Token::Quic { slot: index, generation },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_unpack_to_themselves_and_differ_by_generation() {
        let last = Generation((1 << GENERATION_BITS) - 1);
        let tokens = [
            Token::Waker,
            Token::Alarm,
            Token::Udp(3),
            Token::Accept(u16::MAX),
            Token::Relay { relay: RelayId(u32::MAX), generation: last },
            Token::Relay { relay: RelayId(u32::MAX), generation: last.next() },
            Token::Stream { slot: 0, generation: Generation(1) },
            Token::BackEnd { slot: 0, generation: Generation(1) },
            Token::Quic { slot: 0, generation: Generation(1) },
        ];
        for (index, token) in tokens.into_iter().enumerate() {
            assert_eq!(Token::unpack(token.pack()), Some(token));
            assert!(tokens[..index].iter().all(|other| other.pack() != token.pack()));
        }
        assert_eq!(last.next(), Generation(0));
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
