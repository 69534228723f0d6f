//! Bytes and their meaning. Pure: no state, no time, no input or output, and no input that panics.
//!
//! A datagram's way: [`demux`] tells STUN from ChannelData by the first byte; on a stream [`stream`] finds where a
//! message ends. ChannelData is read and written by [`channel_data`]. STUN is parsed strictly by [`message`];
//! a Send indication then goes to [`indication`], which also writes Data indications; a request goes to
//! [`request`], and [`response`] encodes the answer. [`attribute`] holds the attributes of TURN, [`frame`] the
//! buffer with headroom that headers are written into. Before TURN begins, a stream may start with a header of
//! [`proxy_protocol`] and a [`client_hello`].
//!
//! The client's half is [`writer`], which encodes requests and Send indications, and [`answer`], which reads responses.
#![forbid(unsafe_code)]

pub mod answer;
pub mod attribute;
pub mod channel_data;
pub mod client_hello;
pub mod demux;
pub mod frame;
pub mod indication;
pub mod message;
pub mod proxy_protocol;
pub mod request;
pub mod response;
pub mod stream;
#[cfg(test)]
pub(crate) mod vectors;
pub mod writer;

use std::fmt;

/// Why bytes are not a valid message. The sender is at fault; the message is dropped and counted, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireError {
    /// Fewer bytes than the header needs.
    Short,
    /// The first byte belongs to another kind of message (RFC 8656 section 12).
    WrongKind,
    /// The magic cookie is missing: RFC 3489 or not STUN at all.
    Cookie,
    /// The length in the header does not fit the bytes, or is not a multiple of four (STUN).
    Length,
    /// An attribute reaches past the end of the message.
    AttributeOverrun,
    /// More attributes than the limit.
    TooManyAttributes,
    /// FINGERPRINT is not the last attribute.
    FingerprintNotLast,
    /// FINGERPRINT does not match the message: damaged, or not STUN at all.
    FingerprintMismatch,
    /// An indication without XOR-PEER-ADDRESS or DATA (RFC 8656 section 11.2), or not a Send indication.
    Incomplete,
    /// An indication whose attribute of this type has a wrong length or an unknown address family.
    BadAttribute(u16),
    /// An indication with this comprehension-required attribute that is not known here (RFC 8489 section 6.3.2).
    UnknownAttribute(u16),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("shorter than its header"),
            Self::WrongKind => f.write_str("first byte of another protocol"),
            Self::Cookie => f.write_str("no magic cookie"),
            Self::Length => f.write_str("length field does not fit the bytes"),
            Self::AttributeOverrun => f.write_str("attribute past the end"),
            Self::TooManyAttributes => f.write_str("too many attributes"),
            Self::FingerprintNotLast => f.write_str("attribute behind FINGERPRINT"),
            Self::FingerprintMismatch => f.write_str("wrong FINGERPRINT"),
            Self::Incomplete => f.write_str("indication without peer or data"),
            Self::BadAttribute(kind) => write!(f, "malformed attribute {kind:#06x}"),
            Self::UnknownAttribute(kind) => write!(f, "unknown required attribute {kind:#06x}"),
        }
    }
}

impl std::error::Error for WireError {}
