//! What one rung showed.

use std::net::SocketAddr;
use std::time::Duration;

use super::exchange::Exchange;
use super::rung::{Route, Rung};
use super::stage::{Cause, Fault, Stage};
use super::tls::Certificate;
use crate::base::browser_ports::browsers_use;

/// What one rung showed on one route.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rung.
    pub rung: Rung,
    /// The route.
    pub route: Route,
    /// The relay's address; `None` through a proxy, or if the name has none.
    pub address: Option<SocketAddr>,
    /// The last stage that was passed.
    pub reached: Option<Stage>,
    /// The stage that failed.
    pub fault: Option<Fault>,
    /// Why data was not tested, although nothing failed.
    pub untested: Option<Untested>,
    /// How long the steps took.
    pub times: Times,
    /// The certificate of a TLS rung.
    pub certificate: Option<Certificate>,
    /// This computer's address.
    pub local: Option<SocketAddr>,
    /// This computer's address as the relay sees it.
    pub mapped: Option<SocketAddr>,
    /// The relayed address.
    pub relayed: Option<SocketAddr>,
    /// SOFTWARE of the relay, cleaned.
    pub software: Option<String>,
    /// Data through the relay.
    pub exchange: Option<Exchange>,
}

/// Why data was not tested. Neither is a fault of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untested {
    /// The relay refuses its own relayed addresses as peers (403): it relays to the conference servers only.
    PeersLimited,
    /// The relay grants no second allocation at the same time: the user may have no more (486), or it has no more (508).
    OneAllocation,
    /// The relay asks for no login.
    NoLogin,
}

impl Untested {
    /// Its name in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::PeersLimited => "peers_limited",
            Self::OneAllocation => "one_allocation",
            Self::NoLogin => "no_login",
        }
    }
}

/// How long the steps took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Opening the TCP connection, through the proxy if there is one.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub handshake: Option<Duration>,
    /// The first answer in STUN, with repetitions of the request.
    pub stun: Option<Duration>,
    /// The shortest round trip of a request.
    pub round_trip: Option<Duration>,
    /// The allocation, with the challenge before it.
    pub allocate: Option<Duration>,
}

impl Outcome {
    /// A rung that has not begun.
    pub fn new(rung: Rung, route: Route, address: Option<SocketAddr>) -> Self {
        Self {
            rung,
            route,
            address,
            reached: None,
            fault: None,
            untested: None,
            times: Times::default(),
            certificate: None,
            local: None,
            mapped: None,
            relayed: None,
            software: None,
            exchange: None,
        }
    }

    /// Whether a call would work on this rung.
    pub fn works(&self) -> bool {
        self.passes() && browsers_use(self.rung.port)
    }

    /// Whether nothing is wrong but perhaps the port, which browsers may refuse.
    pub fn passes(&self) -> bool {
        self.fault.is_none() && self.certificate.as_ref().is_none_or(|seen| seen.verdict.is_accepted())
    }

    /// Whether the relay itself was reached: something answered in STUN.
    pub fn is_relay(&self) -> bool {
        self.reached >= Some(Stage::Stun)
    }

    /// The cause of the fault at this stage.
    pub fn cause_at(&self, stage: Stage) -> Option<&Cause> {
        self.fault.as_ref().filter(|fault| fault.stage == stage).map(|fault| &fault.cause)
    }
}
