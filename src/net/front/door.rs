//! The doors that a connection goes through, in order, and how long it may stand at one.

use super::splice::Splice;
use super::turn_client::TurnClient;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;

/// What a listener expects of those that connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// TLS.
    pub tls: bool,
    /// A PROXY header before all else.
    pub proxied: bool,
    /// Web clients, too.
    pub web: bool,
}

/// Who is asked next about a connection's bytes, in the order of the questions.
pub enum Door {
    /// The PROXY header: whose connection is it? Holds its start.
    Proxied(Vec<u8>),
    /// TLS: which certificate, or does another server end it? Then the handshake.
    Handshake,
    /// The first bytes on a port shared with the web: TURN or web?
    FirstBytes,
    /// Decided: a TURN client.
    Turn(TurnClient),
    /// Decided: spliced to a web server.
    Web(Box<Splice>),
}

/// When to look again whether a connection is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Then.
    Until(Instant),
    /// It is over.
    Over(CloseReason),
    /// The client keeps silent, and negotiated the web.
    Web,
    /// The web server does not answer.
    BackEndDown,
}
