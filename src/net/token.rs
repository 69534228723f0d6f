//! Names of what a worker waits for, as the 64 bits that epoll gives back.
//!
//! A closed socket's number is used again. The generation in its token tells an event of the old one, found in
//! the same wait, from those of the new one.

use crate::turn::action::RelayId;

/// Something that a worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Another thread has a command.
    Waker,
    /// A deadline may have come.
    Alarm,
    /// A UDP listener, by its place.
    Udp(u16),
    /// A stream listener, by its place.
    Accept(u16),
    /// A relayed address.
    Relay {
        /// Its name.
        relay: RelayId,
        /// How often the name was used before.
        generation: Generation,
    },
    /// A stream client.
    Stream {
        /// Its place.
        slot: u32,
        /// How often the place was used before.
        generation: Generation,
    },
    /// The QUIC server of a UDP client.
    Quic {
        /// The flow's place.
        slot: u32,
        /// How often the place was used before.
        generation: Generation,
    },
    /// The web server of a stream client.
    BackEnd {
        /// The client's place.
        slot: u32,
        /// How often the place was used before.
        generation: Generation,
    },
}

/// How often a number was used before, as far as 24 bits count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(u32);

const GENERATION_BITS: u32 = 24;

impl Generation {
    /// The one after this.
    pub fn next(self) -> Self {
        Self((self.0 + 1) % (1 << GENERATION_BITS))
    }
}

impl Token {
    /// The client's web server, of a client; every other token as it is.
    pub fn back_end(self) -> Self {
        match self {
            Token::Stream { slot, generation } => Token::BackEnd { slot, generation },
            other => other,
        }
    }

    /// The client, of his web server; every other token as it is.
    pub fn client(self) -> Self {
        match self {
            Token::BackEnd { slot, generation } => Token::Stream { slot, generation },
            other => other,
        }
    }

    /// Whether its events belong to streams, which have a part of each turn and may have to wait for the next one.
    pub fn is_stream(self) -> bool {
        matches!(self, Token::Stream { .. } | Token::BackEnd { .. } | Token::Accept(_))
    }

    /// The token as a number: kind, generation, index.
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

    /// The token that packs to `number`, if any does.
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
    fn tokens_survive_the_kernel_and_differ_by_generation() {
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
