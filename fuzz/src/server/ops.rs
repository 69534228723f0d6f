//! The operations of the server target, and the requests among them as bytes.

use std::net::SocketAddr;

use arbitrary::Arbitrary;

use super::stun::{self, Id, Writer};

/// Channel numbers at the limits of their range, inside and outside of it.
const NUMBERS: [u16; 8] = [0x4000, 0x4001, 0x4002, 0x4fff, 0x5000, 0x7fff, 0x3fff, 0x8000];

/// The channel number of this index.
pub fn number(index: u8) -> u16 {
    NUMBERS[usize::from(index) % NUMBERS.len()]
}

/// One operation. Clients, users, peers, relays and channels are indices.
#[derive(Arbitrary, Debug)]
pub enum Op {
    Allocate {
        client: u8,
        user: u8,
        wish: Wish,
        lifetime: Option<u16>,
    },
    Refresh {
        client: u8,
        user: u8,
        lifetime: Option<u16>,
        family: Option<u8>,
    },
    Permit {
        client: u8,
        user: u8,
        peer: u8,
        more: [u8; 2],
    },
    Bind {
        client: u8,
        user: u8,
        number: u8,
        peer: u8,
    },
    /// A signed request with arbitrary attributes.
    Odd {
        client: u8,
        user: u8,
        method: u8,
        attributes: [Attribute; 3],
    },
    /// The client's last request once more.
    Again {
        client: u8,
    },
    /// The last request of another client.
    Elsewhere {
        client: u8,
        other: u8,
    },
    /// The last request with one byte changed, or cut there.
    Damaged {
        client: u8,
        at: u16,
        with: u8,
    },
    Raw {
        client: u8,
        bytes: Vec<u8>,
    },
    Data {
        client: u8,
        data: Data,
        len: u8,
    },
    FromPeer {
        relay: u8,
        peer: u8,
        len: u8,
    },
    Icmp {
        relay: u8,
        peer: u8,
        kind: u8,
        code: u8,
        data: u32,
    },
    Socket {
        which: u8,
        outcome: Outcome,
    },
    Wait {
        secs: u16,
    },
    Tick,
    NewNonce {
        client: u8,
    },
    Gone {
        client: u8,
    },
    Drain(bool),
    Reload {
        secret: bool,
        strict: bool,
    },
}

/// What an Allocate asks for.
#[derive(Arbitrary, Debug)]
pub enum Wish {
    Plain,
    V6,
    Dual,
    Even,
    Pair,
    /// The token of the last pair of ports.
    Token,
    Tcp,
    DontFragment,
}

/// An attribute: its type by index, or any.
#[derive(Arbitrary, Debug)]
pub struct Attribute {
    kind: Kind,
    value: [u8; 8],
    len: u8,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Known(u8),
    Any(u16),
}

/// The result of opening a socket.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Outcome {
    Open,
    InUse,
    Unavailable,
}

/// How a client sends.
#[derive(Arbitrary, Debug)]
pub enum Data {
    Send { peer: u8 },
    Channel { number: u8 },
}

const METHODS: [u16; 8] = [
    stun::ALLOCATE,
    stun::REFRESH,
    stun::CREATE_PERMISSION,
    stun::CHANNEL_BIND,
    stun::BINDING,
    stun::SEND_INDICATION,
    0x0002,
    0x0103,
];

const KINDS: [u16; 12] = [
    stun::LIFETIME,
    stun::PEER,
    stun::CHANNEL_NUMBER,
    stun::TRANSPORT,
    stun::FAMILY,
    stun::ADDITIONAL_FAMILY,
    stun::EVEN_PORT,
    stun::RESERVATION,
    stun::USERNAME,
    stun::NONCE,
    0x0008,
    0x8028,
];

impl Op {
    /// Returns the client of the operation, or the first one.
    pub fn client(&self) -> usize {
        let client = match self {
            Op::Allocate { client, .. }
            | Op::Refresh { client, .. }
            | Op::Permit { client, .. }
            | Op::Bind { client, .. }
            | Op::Odd { client, .. }
            | Op::Again { client }
            | Op::Elsewhere { client, .. }
            | Op::Damaged { client, .. }
            | Op::Raw { client, .. }
            | Op::Data { client, .. }
            | Op::NewNonce { client }
            | Op::Gone { client } => *client,
            _ => 0,
        };
        client.into()
    }

    /// Returns whose credentials sign the request, if it is one.
    pub fn user(&self) -> Option<usize> {
        match self {
            Op::Allocate { user, .. }
            | Op::Refresh { user, .. }
            | Op::Permit { user, .. }
            | Op::Bind { user, .. }
            | Op::Odd { user, .. } => Some((*user).into()),
            _ => None,
        }
    }

    /// Returns the request, not yet signed.
    pub fn request(&self, id: Id, token: [u8; 8], peer: &dyn Fn(u8) -> SocketAddr) -> Writer {
        let family = |family: u8| [family % 3, 0, 0, 0];
        let lifetime = |writer: Writer, lifetime: &Option<u16>| match lifetime {
            Some(secs) => writer.raw(stun::LIFETIME, &u32::from(*secs).to_be_bytes()),
            None => writer,
        };
        match self {
            Op::Allocate { wish, lifetime: secs, .. } => lifetime(wish.request(id, token), secs),
            Op::Refresh { lifetime: secs, family: of, .. } => {
                let writer = lifetime(Writer::new(stun::REFRESH, id), secs);
                of.map_or(writer.clone(), |of| writer.raw(stun::FAMILY, &family(of)))
            }
            Op::Permit { peer: first, more, .. } => {
                let more = more.iter().filter(|index| **index != 0);
                let peers: Vec<SocketAddr> = std::iter::once(first).chain(more).map(|&p| peer(p)).collect();
                stun::create_permission(id, &peers)
            }
            Op::Bind { number: index, peer: to, .. } => stun::channel_bind(id, number(*index), peer(*to)),
            Op::Odd { method, attributes, .. } => {
                let writer = Writer::new(METHODS[usize::from(*method) % METHODS.len()], id);
                attributes.iter().fold(writer, |writer, Attribute { kind, value, len }| {
                    let kind = match kind {
                        Kind::Known(index) => KINDS[usize::from(*index) % KINDS.len()],
                        Kind::Any(kind) => *kind,
                    };
                    writer.raw(kind, &value[..usize::from(*len) % 9])
                })
            }
            _ => unreachable!("not a request"),
        }
    }
}

impl Wish {
    fn request(&self, id: Id, token: [u8; 8]) -> Writer {
        let udp = stun::allocate(id, &[]);
        let v6 = [2, 0, 0, 0];
        match self {
            Wish::Plain => udp,
            Wish::V6 => udp.raw(stun::FAMILY, &v6),
            Wish::Dual => udp.raw(stun::ADDITIONAL_FAMILY, &v6),
            Wish::Even => udp.raw(stun::EVEN_PORT, &[0]),
            Wish::Pair => udp.raw(stun::EVEN_PORT, &[0x80]),
            Wish::Token => udp.raw(stun::RESERVATION, &token),
            Wish::Tcp => Writer::new(stun::ALLOCATE, id).raw(stun::TRANSPORT, &[6, 0, 0, 0]),
            Wish::DontFragment => udp.raw(0x001a, &[]),
        }
    }
}
