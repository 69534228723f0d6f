//! What the load is to be.

use crate::base::transport::Transport;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Packets through allocations.
    Traffic,
    /// Whole life cycles of allocations.
    Setups,
    /// Binding requests.
    Bindings,
    /// TLS connections.
    Handshakes,
    /// Allocations that only exist.
    Idle,
    /// Allocations that come and go.
    Churn,
}

impl Action {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Action::Traffic => "traffic",
            Action::Setups => "setups",
            Action::Bindings => "bindings",
            Action::Handshakes => "handshakes",
            Action::Idle => "idle",
            Action::Churn => "churn",
        }
    }
}

/// How data travels between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Indication,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// For what.
    pub transport: Transport,
    /// The name asked for in TLS.
    pub tls_name: String,
    /// Whether any certificate will do.
    pub insecure: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done.
    pub action: Action,
    /// The server.
    pub target: Target,
    /// The user all clients log in as.
    pub username: String,
    /// His password.
    pub password: String,
    /// The server's processes, when it runs on this machine.
    pub server_pids: Vec<u32>,
    /// How long is measured.
    pub duration: Duration,
    /// How long packets flow before that.
    pub warm_up: Duration,
    /// Allocations at once.
    pub allocations: u32,
    /// Cycles, requests or handshakes at once.
    pub concurrency: u32,
    /// Packets on their way at once in each direction, when saturating.
    pub window: u32,
    /// Packets per second and allocation, by direction.
    pub rates: [f64; 2],
    /// Bytes of payload.
    pub size: usize,
    /// Packets sent back to back.
    pub burst: u32,
    /// Whether the packets of a burst leave as one, as a network card that coalesces hands them on.
    pub trains: bool,
    /// How data travels.
    pub via: Via,
    /// Whether each packet that arrives allows the next.
    pub saturate: bool,
    /// Allocations in all, for [`Action::Churn`].
    pub total: u32,
    /// Where the peers' sockets are bound; else where the way to the server begins.
    pub peer_address: Option<IpAddr>,
    /// Whether every UDP client has a socket of its own even on loopback.
    pub own_sockets: bool,
}
