//! What a client reports.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::allocation::Allocation;
use super::challenge::{BadChallenge, Challenge};
use super::request::Request;
use crate::wire::WireError;
use crate::wire::answer::Answer;
use crate::wire::attribute::{AddressErrorCode, Icmp};

/// One thing that happened. Every request ends with exactly one of `Mapped`, `Allocated`, `Refreshed`, `Permitted`,
/// `Bound`, `Refused` and `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server wants credentials, or a fresh nonce; the client asks again on its own.
    Challenged {
        /// The exchange up to the challenge; another one has begun.
        exchange: Exchange,
        /// 401 or 438.
        code: u16,
        /// Realm and algorithms.
        challenge: Challenge,
    },
    /// A Binding was answered.
    Mapped {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// The client as the server sees it.
        address: SocketAddr,
    },
    /// The server granted an allocation.
    Allocated {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// What was granted.
        allocation: Box<Allocation>,
    },
    /// The server refreshed the allocation, or ended it if `lifetime` is zero.
    Refreshed {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// The new lifetime, from now.
        lifetime: Duration,
    },
    /// The server permits data from and to this peer's address.
    Permitted {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// The peer.
        peer: SocketAddr,
    },
    /// The channel is bound to the peer, which is permitted as well.
    Bound {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// The peer.
        peer: SocketAddr,
        /// The channel number.
        channel: u16,
    },
    /// The server refused a request.
    Refused {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// A request ended without a usable answer.
    Failed {
        /// Which request, and how long it took.
        exchange: Exchange,
        /// What was wrong.
        failure: Failure,
    },
    /// Input was discarded; requests in flight continue.
    Discarded(Discard),
    /// The allocation expired without a refresh.
    Expired,
    /// A peer's datagram.
    Data {
        /// The peer that sent it.
        peer: SocketAddr,
        /// The channel that it came on; `None` for a Data indication.
        channel: Option<u16>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A datagram to a peer caused an ICMP error (RFC 8656 section 11.6).
    Unreachable {
        /// The peer.
        peer: SocketAddr,
        /// The error that came back.
        icmp: Icmp,
    },
    /// The stream does not carry TURN. The client reads and sends nothing more; close it.
    Broken,
}

impl Event {
    /// Whether this is the one event with which a request ends.
    pub fn ends_a_request(&self) -> bool {
        match self {
            Event::Mapped { .. }
            | Event::Allocated { .. }
            | Event::Refreshed { .. }
            | Event::Permitted { .. }
            | Event::Bound { .. }
            | Event::Refused { .. }
            | Event::Failed { .. } => true,
            Event::Challenged { .. }
            | Event::Discarded(_)
            | Event::Expired
            | Event::Data { .. }
            | Event::Unreachable { .. }
            | Event::Broken => false,
        }
    }
}

/// One request, how often it was sent and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// How many times it was sent.
    pub tries: u32,
    /// The time since it was first sent. This is the round trip only if it was sent once.
    pub duration: Duration,
}

impl Exchange {
    /// The round trip; `None` if the request was repeated, because the answer may belong to any of the copies.
    pub fn round_trip(&self) -> Option<Duration> {
        (self.tries == 1).then_some(self.duration)
    }
}

/// An error response. Bytes of a text that are not UTF-8 become replacement characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// 300 to 699.
    pub code: u16,
    /// The reason phrase; may be empty.
    pub reason: String,
    /// Whether it is protected by the client's key. Otherwise any host on the path can have forged it.
    pub is_authentic: bool,
    /// REALM.
    pub realm: Option<String>,
    /// ALTERNATE-SERVER of a 300.
    pub alternate_server: Option<SocketAddr>,
    /// ALTERNATE-DOMAIN of a 300.
    pub alternate_domain: Option<String>,
    /// UNKNOWN-ATTRIBUTES of a 420.
    pub unknown_attributes: Vec<u16>,
    /// ADDRESS-ERROR-CODE.
    pub address_error: Option<AddressErrorCode>,
}

impl Refusal {
    pub(super) fn new(answer: &Answer<'_>, is_authentic: bool) -> Option<Self> {
        let error = answer.error()?;
        let owned = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        Some(Self {
            code: error.code,
            reason: owned(error.reason),
            is_authentic,
            realm: answer.realm().map(owned),
            alternate_server: answer.alternate_server(),
            alternate_domain: answer.alternate_domain().map(owned),
            unknown_attributes: answer.unknown_attributes().take(UNKNOWN_MAX).collect(),
            address_error: answer.address_error(),
        })
    }
}

/// Maximum number of unknown attributes that one refusal reports.
const UNKNOWN_MAX: usize = 16;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason, .. } = self;
        if reason.is_empty() { write!(f, "{code}") } else { write!(f, "{code} {reason}") }
    }
}

/// Why a request has no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server was silent until the last timer of RFC 8489 section 6.2.
    TimedOut,
    /// Answers arrived, but none was protected by the client's key (RFC 8489 section 9.2.5).
    Untrusted(Discard),
    /// The answer has an unknown required attribute, or one that this request needs is missing or malformed.
    BadAnswer(WireError),
    /// The challenge cannot be answered.
    BadChallenge(BadChallenge),
    /// The stream is broken.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer"),
            Self::Untrusted(discard) => discard.fmt(f),
            Self::BadAnswer(error) => write!(f, "a malformed answer: {error}"),
            Self::BadChallenge(problem) => problem.fmt(f),
            Self::Broken => f.write_str("the stream does not carry TURN"),
        }
    }
}

/// Input that the client does not trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// A datagram that did not come from the server.
    Elsewhere(SocketAddr),
    /// Not a message that a TURN server sends.
    Malformed(WireError),
    /// A response without integrity to a signed request; its error code, 0 for success.
    Unprotected(u16),
    /// A response with wrong integrity: damaged, forged, or from a server with another password; its error code, 0 for
    /// success.
    WrongIntegrity(u16),
    /// Data on a channel that is not bound.
    UnknownChannel(u16),
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere(from) => write!(f, "a datagram from {from}, which is not the server"),
            Self::Malformed(error) => write!(f, "a malformed message: {error}"),
            Self::Unprotected(0) => f.write_str("a success response without integrity"),
            Self::Unprotected(code) => write!(f, "an error response {code} without integrity"),
            Self::WrongIntegrity(0) => f.write_str("a success response with wrong integrity"),
            Self::WrongIntegrity(code) => write!(f, "an error response {code} with wrong integrity"),
            Self::UnknownChannel(number) => write!(f, "data on channel {number:#06x}, which is not bound"),
        }
    }
}

/// How far a client has come. Later stages are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing came from the server.
    #[default]
    Silent,
    /// Something came from the server.
    Heard,
    /// The server asked for credentials.
    Challenged,
    /// The server granted an allocation.
    Allocated,
    /// The server permits a peer.
    Permitted,
    /// The server bound a channel.
    Bound,
    /// A peer's data arrived.
    Received,
}
