//! The options of a load.

use crate::base::transport::Transport;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What the load does.
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
    /// Returns its name on the command line.
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

/// The server under load.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The transport.
    pub transport: Transport,
    /// The server name in TLS.
    pub tls_name: String,
    /// Whether to accept any certificate.
    pub insecure: bool,
}

/// How clients reach the server, and how their packets travel.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The ways to the server; at least one. Clients name theirs by its position.
    pub routes: Vec<Target>,
    /// How data travels.
    pub via: Via,
    /// Whether the packets of a burst are sent in one message (UDP_SEGMENT), as they arrive from a network card that
    /// coalesces.
    pub trains: bool,
    /// The address of the peers' sockets; `None`: the local address of the route to the server.
    pub peer_address: Option<IpAddr>,
    /// Whether every UDP client has its own socket even on loopback.
    pub own_sockets: bool,
}

/// All options of an action.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the load does.
    pub action: Action,
    /// The way to the server, the only one.
    pub connect: Connect,
    /// The user name of all clients.
    pub username: String,
    /// The password.
    pub password: String,
    /// The server's processes, if it runs on this machine.
    pub server_pids: Vec<u32>,
    /// The length of the measured interval.
    pub duration: Duration,
    /// The time that packets flow before it.
    pub warm_up: Duration,
    /// Allocations at once.
    pub allocations: u32,
    /// Cycles, Binding requests or handshakes at once.
    pub concurrency: u32,
    /// Packets in flight per direction, when saturating.
    pub window: u32,
    /// Packets per second and allocation, by direction.
    pub rates: [f64; 2],
    /// Payload length in bytes.
    pub size: usize,
    /// Packets sent back to back.
    pub burst: u32,
    /// Whether each arriving packet triggers the next.
    pub saturate: bool,
    /// Total number of allocations, for [`Action::Churn`].
    pub total: u32,
}
