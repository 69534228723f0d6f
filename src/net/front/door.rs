//! The stages of a connection, in order, and how long it may stay at each.

use super::splice::Splice;
use super::turn_client::TurnClient;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;

/// What a listener expects of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// TLS.
    pub tls: bool,
    /// A PROXY header at the start.
    pub proxied: bool,
    /// Web clients as well as TURN clients.
    pub web: bool,
}

/// The stage of a connection: which component handles its next bytes.
pub enum Door {
    /// Waiting for the PROXY header. Holds its start.
    Proxied(Vec<u8>),
    /// In the TLS handshake: which certificate, or another server?
    Handshake,
    /// On a port shared with the web, waiting for the first bytes: TURN or web?
    FirstBytes,
    /// A TURN client.
    Turn(TurnClient),
    /// A web client, spliced to its back end.
    Web(Box<Splice>),
}

/// The result of checking a connection's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Check again at this time.
    Until(Instant),
    /// Close it.
    Over(CloseReason),
    /// Hand it to the web: the client is silent and negotiated a web protocol.
    Web,
    /// Its back end does not answer.
    BackEndDown,
}
