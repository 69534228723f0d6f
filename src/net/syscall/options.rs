//! Socket options that socket2 does not have.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use super::check;

fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value is an int that outlives the call, and its size is given.
    check(unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<c_int>() as socklen_t)
    })?;
    Ok(())
}

/// When the packets of a UDP socket carry DF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// Never: routers and we may fragment.
    Allowed,
    /// Always, and the path's known MTU is not looked at (RFC 8656 section 15: the ICMP answer must come back).
    Forbidden,
}

/// Sets DF for everything sent from now on.
///
/// IPv4 uses OMIT, which is DONT on the wire but lets "fragmentation needed" reach the error queue. IPv6 has no
/// fragmenting routers: DONT keeps to the learned path MTU and fragments here.
pub fn set_fragmentation(socket: impl AsFd, ipv6: bool, fragmentation: Fragmentation) -> io::Result<()> {
    let (level, name, value) = match (ipv6, fragmentation) {
        (false, Fragmentation::Allowed) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
        (false, Fragmentation::Forbidden) => {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        (true, Fragmentation::Allowed) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
        }
        (true, Fragmentation::Forbidden) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
    };
    set_option(socket, level, name, value)
}

/// Asks for the local address of every received datagram ([`Origin::reached`](super::Origin::reached)).
pub fn enable_packet_info(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Asks for ICMP errors on the socket's error queue.
pub fn enable_error_queue(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// What the kernel can do with many datagrams of one flow at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Datagrams of one size to one address leave as one (UDP_SEGMENT, Linux 4.18).
    pub segmentation: bool,
    /// They arrive as one (UDP_GRO, Linux 5.0).
    pub coalescing: bool,
}

impl Offloads {
    /// Asks the kernel. What cannot be found out is not there.
    pub fn probe() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
        socket.map_or(Self::default(), |socket| Self {
            segmentation: set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok(),
            coalescing: enable_coalescing(&socket).is_ok(),
        })
    }
}

/// Has datagrams of one flow, as far as they arrived together, received as one ([`Origin::segment`]).
///
/// [`Origin::segment`]: super::Origin::segment
pub fn enable_coalescing(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Gives free memory of the heap back to the kernel. It takes some milliseconds after a rush, else microseconds.
///
/// glibc alone keeps what lies below the highest block in use: after 10,000 allocations came and went, 1 to 12 MiB as
/// chance has it.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
