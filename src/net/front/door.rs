//! The stages of a connection, in order, and the time limit of each.

use std::time::Duration;

use super::life::{ENDING_TIME, IDLE_TIME, Life};
use super::splice::Splice;
use super::turn_client::TurnClient;
use crate::net::counters::CloseReason;

/// Time for a PROXY header and a TLS handshake. A round trip over the worst mobile path is 3 s.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for the first bytes of a client that negotiated a web protocol. As long as a web server waits for a request
/// (`client_header_timeout` of nginx). The client may be a browser that connected in advance, or a TURN client behind a
/// proxy that negotiated for it.
const SILENCE: Duration = Duration::from_secs(60);
/// The first byte of a TLS record that carries a handshake (RFC 8446 section 5.1). No TURN message and no HTTP request
/// begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// What a listener expects of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// TLS.
    pub tls: bool,
    /// Both TLS and plain clients, distinguished by the first byte.
    pub either: bool,
    /// A PROXY header at the start.
    pub proxied: bool,
    /// Web clients as well as TURN clients.
    pub web: bool,
}

/// The stage of a connection: which component handles its next bytes.
pub enum Door {
    /// Waiting for the PROXY header. Holds the part received so far.
    Proxied(Vec<u8>),
    /// Waiting for the first byte, on a listener for both TLS and plain clients.
    FirstByte,
    /// In the TLS handshake.
    Handshake,
    /// Waiting for the first bytes, on a port shared with the web.
    FirstBytes,
    /// A TURN client.
    Turn(TurnClient),
    /// A web client, spliced to its back end.
    Web(Box<Splice>),
    /// The server ends the connection: it has sent the end of the stream, or sends it after the queued output, and waits for
    /// the client's. Without this wait, bytes of the client that are on their way would turn the end into a reset.
    Ending {
        /// Whether the end was sent.
        is_sent: bool,
    },
}

impl Door {
    /// Returns whether this is the TLS handshake.
    pub fn is_handshake(&self) -> bool {
        matches!(self, Door::Handshake)
    }

    /// Returns how long a client may stay at this stage, and what happens afterwards.
    pub fn time_limit(&self, expects_tls: bool, negotiated_web: bool) -> (Duration, Life) {
        let idle = Life::Over(CloseReason::Idle);
        match self {
            Door::Proxied(_) => (HANDSHAKE_TIME, Life::Over(CloseReason::NotProxied)),
            Door::Handshake => (HANDSHAKE_TIME, Life::Over(CloseReason::HandshakeTimeout)),
            Door::FirstByte if expects_tls => (HANDSHAKE_TIME, Life::Over(CloseReason::HandshakeTimeout)),
            Door::FirstBytes if negotiated_web => (SILENCE, idle),
            Door::FirstBytes => (HANDSHAKE_TIME, idle),
            Door::FirstByte | Door::Turn(_) | Door::Web(_) => (IDLE_TIME, idle),
            Door::Ending { .. } => (ENDING_TIME, Life::Over(CloseReason::Shutdown)),
        }
    }
}

/// Returns whether a client with this first byte speaks TLS.
pub fn is_tls(first: u8) -> bool {
    first == TLS_HANDSHAKE
}
