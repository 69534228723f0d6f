//! The addresses of this host's interfaces.

use std::io;
use std::net::IpAddr;

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
    fn finds_loopback_and_the_source_address_that_the_kernel_picks() {
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
