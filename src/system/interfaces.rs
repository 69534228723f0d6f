//! The addresses of this host's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849) that stand for the Internet. Nothing is sent there; the kernel only looks up
/// the route.
const ELSEWHERE_V4: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
const ELSEWHERE_V6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// Name of the interface, such as `eth0`.
    pub interface: String,
    /// The address, without its prefix length.
    pub address: IpAddr,
}

/// Returns every address of every interface, including loopback and link-local ones.
///
/// # Errors
/// The error of getifaddrs(3).
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let found = if_addrs::get_if_addrs()?;
    Ok(found.into_iter().map(|i| InterfaceAddress { address: i.ip(), interface: i.name }).collect())
}

/// Returns the address of one family where others reach this machine: the source address of packets to the Internet, else
/// the first address of an interface that is reachable from outside. `None` if there is none.
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

/// Whether clients on other machines can use the address: it is not loopback, link-local, unspecified or multicast.
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
