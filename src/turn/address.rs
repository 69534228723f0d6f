//! The two sides of a 1:1 NAT (`external_ip`), as types that cannot be mixed up.
//!
//! Behind such a NAT a relayed address has two forms: clients are told the public one, sockets are bound to the private one.
//! A client names another client's relayed address by the public form too, while its packets arrive from the private one.
//! [`PeerPolicy`](super::identity::peer_policy::PeerPolicy) alone translates. Without such a NAT both forms are equal.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A transport address as clients know it: in XOR-PEER-ADDRESS, XOR-RELAYED-ADDRESS and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Announced(pub SocketAddr);

/// A transport address as packets carry it: what sockets are bound to, receive from and send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OnWire(pub SocketAddr);

impl Announced {
    /// Its IP address.
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }
}

impl OnWire {
    /// The address of `ip` and `port`.
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self(SocketAddr::new(ip, port))
    }

    /// Its IP address.
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Its port.
    pub const fn port(self) -> u16 {
        self.0.port()
    }

    /// The next port of the same address, which EVEN-PORT with R = 1 keeps. The port must not be the last one.
    pub const fn next_port(self) -> Self {
        Self::new(self.ip(), self.port() + 1)
    }
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OnWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
