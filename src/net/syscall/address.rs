//! Socket addresses in the kernel's form.

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::{c_int, sockaddr_in, sockaddr_in6, socklen_t};

/// A socket address in the kernel's form; 28 bytes instead of the 128 of `sockaddr_storage`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Name {
    pub fn empty() -> Self {
        // SAFETY: both variants are plain numbers, for which zero is a valid value.
        unsafe { zeroed() }
    }

    /// Writes `address`, IPv4-mapped for an IPv6 socket, and returns its length.
    pub fn write(&mut self, address: SocketAddr, ipv6_socket: bool) -> socklen_t {
        let v6 = match address {
            SocketAddr::V4(v4) if !ipv6_socket => {
                self.v4 = sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                return size_of::<sockaddr_in>() as socklen_t;
            }
            SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            SocketAddr::V6(v6) => v6,
        };
        self.v6 = sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: v6.port().to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
            sin6_scope_id: v6.scope_id(),
        };
        size_of::<sockaddr_in6>() as socklen_t
    }

    /// Returns the canonical address; `None` if the kernel wrote none.
    pub fn read(&self, len: socklen_t) -> Option<SocketAddr> {
        // SAFETY: both variants are plain numbers that start with the family; all 28 bytes are initialised.
        let (v4, v6) = unsafe { (self.v4, self.v6) };
        match c_int::from(v4.sin_family) {
            libc::AF_INET if len as usize >= size_of::<sockaddr_in>() => {
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some((ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 if len as usize >= size_of::<sockaddr_in6>() => {
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(canonical(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()))
            }
            _ => None,
        }
    }
}

/// Returns an IPv4-mapped address as the IPv4 address that it maps.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => (v4, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// A local address to send from. A link-local one needs its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// The interface of an IPv6 link-local address, else 0.
    pub interface: u32,
}

impl Source {
    /// Returns the address of `local` as a source.
    pub fn of(local: SocketAddr) -> Self {
        let interface = match local {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { ip: local.ip(), interface }
    }

    /// Returns the socket address with `port`.
    pub fn with_port(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(v4) => (v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, self.interface).into(),
        }
    }
}
