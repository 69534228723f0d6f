//! What a configuration of coturn means here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::peers::Policy;
use crate::base::transport::Transport;

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Transport of the clients.
    pub transport: Transport,
    /// Address to bind.
    pub address: SocketAddr,
    /// Whether a TLS port serves no clients without TLS.
    pub only_tls: bool,
    /// Proxies whose PROXY header is trusted.
    pub proxies: Vec<IpAddr>,
}

impl Listen {
    /// Whether only one of the two can be bound.
    pub fn has_the_port_of(&self, other: &Self) -> bool {
        self.address == other.address
            && (self.transport == Transport::Udp) == (other.transport == Transport::Udp)
    }
}

/// What is written into the configuration. Without a value, the default of Hallpass is meant.
#[derive(Clone, Default)]
pub struct Meaning {
    /// `realm`.
    pub realm: Option<String>,
    /// `external_ip`.
    pub external_ip: Vec<String>,
    /// `[[listen]]`.
    pub listen: Vec<Listen>,
    /// Listeners on the ports of NAT discovery, which are written as comments unless they are asked for.
    pub alternatives: Vec<Listen>,
    /// `relay.addresses`.
    pub relay_addresses: Vec<IpAddr>,
    /// `relay.ports`.
    pub ports: Option<RangeInclusive<u16>>,
    /// `relay.default_family`.
    pub default_family: Option<&'static str>,
    /// `[tls]`: certificate and key.
    pub tls: Option<(String, String)>,
    /// The secrets of the `[[host]]`.
    pub secrets: Vec<String>,
    /// `[[user]]`: name and password.
    pub users: Vec<(String, String)>,
    /// Users who need a new password.
    pub users_without_password: Vec<String>,
    /// Rules for peers.
    pub policy: Policy,
    /// `[limits]`: key and value.
    pub limits: Vec<(&'static str, u32)>,
    /// The port of the admin pages on loopback.
    pub admin: Option<u16>,
    /// Which lines a key comes from, for its comment.
    pub origins: BTreeMap<&'static str, String>,
}
