//! The stages of a connection, in order, and how long it may stay at each.

use std::time::Duration;

use super::life::{IDLE_TIME, Life};
use super::splice::Splice;
use super::turn_client::TurnClient;
use crate::net::counters::CloseReason;

/// Time for a PROXY header and a TLS handshake. A round trip over the worst mobile path is 3 s.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a client that negotiated the web may keep silent: as long as a web server waits for a request
/// (`client_header_timeout` of nginx). It may be a browser that connected in advance, or a TURN client whose proxy
/// negotiated for it.
const SILENCE: Duration = Duration::from_secs(60);
/// The first byte of a TLS record that carries a handshake (RFC 8446 section 5.1). No TURN message and no request of HTTP
/// begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// What a listener expects of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// TLS.
    pub tls: bool,
    /// Clients without TLS on a TLS listener, or with TLS on a TCP listener: the first byte tells them apart.
    pub either: bool,
    /// A PROXY header at the start.
    pub proxied: bool,
    /// Web clients as well as TURN clients.
    pub web: bool,
}

/// The stage of a connection: which component handles its next bytes.
pub enum Door {
    /// Waiting for the PROXY header. Holds its start.
    Proxied(Vec<u8>),
    /// The first byte, on a listener for both: TLS or plain?
    FirstByte,
    /// In the TLS handshake: which certificate, or another server?
    Handshake,
    /// On a port shared with the web, waiting for the first bytes: TURN or web?
    FirstBytes,
    /// A TURN client.
    Turn(TurnClient),
    /// A web client, spliced to its back end.
    Web(Box<Splice>),
}

impl Door {
    /// How long a client may stand at this door, and what happens then, before it is decided whose it is.
    pub fn patience(&self, expects_tls: bool, negotiated_web: bool) -> (Duration, Life) {
        let idle = Life::Over(CloseReason::Idle);
        match self {
            Door::Proxied(_) | Door::Handshake => (HANDSHAKE_TIME, Life::Over(CloseReason::HandshakeTimeout)),
            Door::FirstByte if expects_tls => (HANDSHAKE_TIME, Life::Over(CloseReason::HandshakeTimeout)),
            Door::FirstBytes if negotiated_web => (SILENCE, idle),
            Door::FirstBytes => (HANDSHAKE_TIME, idle),
            Door::FirstByte | Door::Turn(_) | Door::Web(_) => (IDLE_TIME, idle),
        }
    }
}

/// Whether a client whose first byte this is speaks TLS.
pub fn is_tls(first: u8) -> bool {
    first == TLS_HANDSHAKE
}
