//! The operator's settings for sockets.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::admission;
use crate::base::transport::Transport;

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The transport.
    pub transport: Transport,
    /// The address; with port 0 the kernel chooses the port.
    pub address: SocketAddr,
    /// Whether an IPv6 wildcard leaves IPv4 clients to another listener.
    pub only_v6: bool,
    /// Sources trusted to send a PROXY header, which is then required; empty: any client, no PROXY header.
    pub proxies: Vec<IpNet>,
    /// Whether web clients share the port.
    pub web: bool,
    /// Whether both TLS and plain clients are accepted, regardless of `transport`; the first byte distinguishes them.
    pub either: bool,
    /// The QUIC server that shares this UDP port.
    pub quic: Option<SocketAddr>,
    /// Whether the address may be assigned to this machine later (IP_FREEBIND); it is bound in any case.
    pub awaited: bool,
}

impl Listener {
    /// Creates a listener for TURN only, without a proxy.
    pub fn new(transport: Transport, address: SocketAddr) -> Self {
        Self {
            transport,
            address,
            only_v6: false,
            proxies: Vec::new(),
            web: false,
            either: false,
            quic: None,
            awaited: false,
        }
    }
}

/// The operator's settings for sockets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The addresses to listen on.
    pub listeners: Vec<Listener>,
    /// Worker threads, each with its own sockets; at least one.
    pub workers: usize,
    /// TCP_MAXSEG of stream listeners; 0: the kernel's default.
    pub mss: u16,
    /// Limits for streams.
    pub admission: admission::Rules,
    /// Limit for sockets to clients, peers and web servers; `None`: no limit.
    pub descriptors: Option<u32>,
    /// Whether the log omits client addresses.
    pub privacy: bool,
}
