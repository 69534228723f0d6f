//! net
pub mod batch;
pub mod counters;
pub mod outbox;
pub mod relay;
pub mod scratch;
pub mod socket;
pub mod syscall;
pub mod timers;
pub mod tls;
pub mod token;

use std::net::SocketAddr;

use crate::turn::five_tuple::Transport;

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// For what.
    pub transport: Transport,
    /// Where; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether an IPv6 wildcard leaves IPv4 clients to another listener.
    pub only_v6: bool,
}

/// What the operator decided about sockets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Threads, each with sockets of its own; at least one.
    pub workers: usize,
    /// TCP_MAXSEG of stream listeners; 0 = the kernel's choice.
    pub mss: u16,
    /// Streams open at once, of all workers; 0 = no limit.
    pub streams_total: u32,
    /// Whether client addresses are left out of the log.
    pub privacy: bool,
}
