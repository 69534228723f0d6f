//! Five-tuples: the key of an allocation (RFC 8656 section 3.2).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::base::transport::Transport;

/// Client address, server address and transport. Addresses are canonical: an IPv4 client of a dual-stack
/// socket is an IPv4 address here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The transport that the client uses.
    pub transport: Transport,
    /// The client's transport address: the source of its packets, or the one in the PROXY header.
    pub client: SocketAddr,
    /// The server's transport address that the client used.
    pub server: SocketAddr,
}

/// An address as two 64-bit words, IPv4 in its mapped form.
fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.transport, self.client, self.server)
    }
}

/// The network side's number for the path back to a client: its listener or its stream. The protocol stores it and returns
/// it unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link(pub u64);

/// Where a message came from and how to answer it: the key of the client's allocation.
///
/// The link is part of the key. Behind a proxy, two connections can claim the same five-tuple, and neither may use or
/// end the allocation of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// RFC 8656 section 3.2.
    pub five_tuple: FiveTuple,
    /// The path back to the client.
    pub link: Link,
}

// Two words for IPv4 and four for IPv6 instead of a dozen small writes: the hash is on the path of every packet. Fields
// that it leaves out, such as the transport, still count in the comparison.
impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let FiveTuple { client, server, .. } = self.five_tuple;
        if let (IpAddr::V4(client), IpAddr::V4(server)) = (client.ip(), server.ip()) {
            state.write_u64(u64::from(client.to_bits()) << 32 | u64::from(server.to_bits()));
        } else {
            let [client_high, client_low] = words(client.ip());
            let [server_high, server_low] = words(server.ip());
            state.write_u64(client_high);
            state.write_u64(client_low);
            state.write_u64(server_high ^ server_low.rotate_left(32));
        }
        // The low half of a link is the number of its listener or stream.
        let ports = u64::from(client.port()) << 16 | u64::from(server.port());
        state.write_u64(ports << 32 | self.link.0 & 0xffff_ffff);
    }
}
