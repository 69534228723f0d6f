//! Parsers and encoders for everything on the wire. Pure: no state, no time, no I/O, and no bytes make them panic.
//!
//! The path of a datagram: [`demux`] tells STUN from ChannelData by the first byte; on a stream [`stream`] finds where a
//! message ends. ChannelData is read and written by [`channel_data`]. STUN is parsed strictly by [`message`];
//! a Send indication then goes to [`indication`], which also writes Data indications; a request goes to
//! [`request`], and [`response`] encodes the answer. [`attribute`] defines the attributes of TURN, [`frame`] the
//! buffer with headroom that headers are written into. A stream may begin with a header of [`proxy_protocol`] and a
//! [`client_hello`].
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
    /// Not an indication of the expected method, or one without XOR-PEER-ADDRESS or content (RFC 8656 sections 11.2 and 11.4).
    Incomplete,
    /// An indication or a response whose attribute of this type is malformed, or an error response without ERROR-CODE.
    BadAttribute(u16),
    /// An indication or a response with this comprehension-required attribute, which is not known here (RFC 8489 sections 6.3.2
    /// to 6.3.4).
    UnknownAttribute(u16),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("shorter than its header"),
            Self::WrongKind => f.write_str("first byte of another protocol"),
            Self::Cookie => f.write_str("no magic cookie"),
            Self::Length => f.write_str("length field does not fit the bytes"),
            Self::AttributeOverrun => f.write_str("attribute extends past the end of the message"),
            Self::TooManyAttributes => f.write_str("too many attributes"),
            Self::FingerprintNotLast => f.write_str("attribute after FINGERPRINT"),
            Self::FingerprintMismatch => f.write_str("wrong FINGERPRINT"),
            Self::Incomplete => f.write_str("indication without peer or data"),
            Self::BadAttribute(kind) => write!(f, "malformed attribute {kind:#06x}"),
            Self::UnknownAttribute(kind) => write!(f, "unknown required attribute {kind:#06x}"),
        }
    }
}

impl std::error::Error for WireError {}
