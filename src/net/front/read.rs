//! The result of reading a connection.

use std::net::{IpAddr, SocketAddr};

use crate::net::counters::{CloseReason, TlsOutcome};

/// What one read of a connection brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes taken from the socket.
    pub received: usize,
    /// There may be more.
    pub full: bool,
    /// How the TLS handshake ended, when it did.
    pub handshake: Option<TlsOutcome>,
    /// The source of a client that just turned out to speak TLS: its ClientHello is kept until its turn comes.
    pub named: Option<IpAddr>,
    /// TLS is ended by the server there; the bytes in `buffers.plain` are as they came.
    pub pass_through: Option<SocketAddr>,
    /// Why the connection is to be closed, once the bytes read with it are dealt with.
    pub end: Option<CloseReason>,
}
