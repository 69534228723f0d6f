//! The result of reading a connection.

use std::net::{IpAddr, SocketAddr};

use crate::net::counters::{CloseReason, TlsOutcome};

/// The result of one read of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes read from the socket.
    pub received: usize,
    /// Whether the socket may have more.
    pub full: bool,
    /// How the TLS handshake ended, if it did.
    pub handshake: Option<TlsOutcome>,
    /// The source of a client just detected to speak TLS; its ClientHello is kept until it may be processed.
    pub kept_hello: Option<IpAddr>,
    /// The server that TLS is passed through to; `buffers.plain` holds the bytes as received.
    pub pass_through: Option<SocketAddr>,
    /// Why to close the connection after the bytes of this read are handled.
    pub end: Option<CloseReason>,
}
