//! The addresses of this host. They are denied as peers, and they are the relay's addresses by default.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// A documentation address (RFC 5737, RFC 3849) and a port: nothing is sent there, the kernel is asked for the way only.
const ELSEWHERE_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const ELSEWHERE_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The kernel's name, as `eth0`.
    pub interface: String,
    /// The address, without its prefix length.
    pub address: IpAddr,
}

/// Every address of every interface, loopback and link-local included. The list is the kernel's at this
/// moment; callers that need it later read it again.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let found = if_addrs::get_if_addrs()?;
    Ok(found.into_iter().map(|i| InterfaceAddress { address: i.ip(), interface: i.name }).collect())
}

/// The IPv4 or IPv6 address that others reach this machine at: the one that packets leave from by the default route, else
/// the first one that leads out. `None` = there is none of this family.
pub fn toward_outside(v4: bool) -> Option<IpAddr> {
    let by_route = || {
        let socket = if v4 {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
            socket.connect(ELSEWHERE_V4).ok()?;
            socket
        } else {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
            socket.connect(ELSEWHERE_V6).ok()?;
            socket
        };
        Some(socket.local_addr().ok()?.ip())
    };
    let of_interfaces = addresses().unwrap_or_default().into_iter().map(|one| one.address);
    by_route()
        .into_iter()
        .chain(of_interfaces)
        .find(|&address| address.is_ipv4() == v4 && reachable_from_outside(address))
}

/// Whether the address can be announced to clients elsewhere: not loopback, not link-local, not unspecified.
pub fn reachable_from_outside(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_loopback_and_what_the_routing_table_would_use() {
        let list = addresses().unwrap();
        assert!(list.iter().any(|a| a.address == IpAddr::from([127, 0, 0, 1])), "{list:?}");
        // A connected UDP socket sends nothing and shows the source address the kernel would pick.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        let source = socket.local_addr().unwrap().ip();
        assert!(list.iter().any(|a| a.address == source && !a.interface.is_empty()));
    }

    #[test]
    fn tells_local_from_reachable() {
        for local in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1"] {
            assert!(!reachable_from_outside(local.parse().unwrap()), "{local}");
        }
        for reachable in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(reachable_from_outside(reachable.parse().unwrap()), "{reachable}");
        }
    }
}
