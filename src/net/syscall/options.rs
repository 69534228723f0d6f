//! Socket options that socket2 lacks.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use super::check;

fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value is an int that outlives the call, and its size is passed.
    check(unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<c_int>() as socklen_t)
    })?;
    Ok(())
}

/// Whether the packets of a UDP socket carry the DF bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// DF is clear: routers and this host may fragment.
    Allowed,
    /// DF is set, and the kernel ignores the path MTU that it has learned, so that large packets are sent and the ICMP
    /// error comes back (RFC 8656 section 15).
    Forbidden,
}

/// Sets or clears DF for all datagrams sent from now on.
///
/// IPv4 uses `IP_PMTUDISC_OMIT`: like `DONT` it clears DF, but "fragmentation needed" still reaches the error queue.
/// IPv6 routers never fragment, so `DONT` makes this host fragment to the learned path MTU.
///
/// # Errors
/// The error of `setsockopt(2)`.
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

/// Makes the kernel report the local address of every received datagram ([`Origin::reached`](super::Origin::reached)).
///
/// # Errors
/// The error of `setsockopt(2)`.
pub fn enable_packet_info(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Enables or disables the error queue, which receives ICMP errors. An unconnected socket without it ignores them.
///
/// # Errors
/// The error of `setsockopt(2)`.
pub fn set_error_queue(socket: impl AsFd, ipv6: bool, on: bool) -> io::Result<()> {
    if ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, on.into())
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, on.into())
    }
}

/// Returns how many bytes of a socket's send buffer are in use: datagrams that have not left the machine, with the
/// kernel's overhead (SIOCOUTQ). The unit is that of SO_SNDBUF.
///
/// # Errors
/// The error of `ioctl(2)`.
pub fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// The kernel memory of a socket in bytes, with the kernel's overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// For what the program has not read, TCP segments behind a missing one included.
    pub received: usize,
    /// For what is not sent, or not acknowledged.
    pub unsent: usize,
    /// Reserved for more. Before Linux 6.0 this is up to 2 MB.
    pub reserved: usize,
}

/// Returns how many datagrams the kernel has dropped because the receive buffer was full (SK_MEMINFO_DROPS); wraps.
///
/// # Errors
/// The error of `getsockopt(2)`.
pub fn receive_drops(socket: impl AsFd) -> io::Result<u32> {
    let [.., drops] = memory_info(socket)?;
    Ok(drops)
}

/// Reads SO_MEMINFO, in the order of `linux/sock_diag.h`.
fn memory_info(socket: impl AsFd) -> io::Result<[u32; 9]> {
    let mut values = [0u32; 9];
    let mut len = size_of_val(&values) as socklen_t;
    // SAFETY: both pointers are valid for the call, and the length is that of the values.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(values)
}

impl KernelMemory {
    /// Reads the memory of a socket (SO_MEMINFO).
    ///
    /// # Errors
    /// The error of `getsockopt(2)`.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let values = memory_info(socket)?;
        // SK_MEMINFO_RMEM_ALLOC, FWD_ALLOC, WMEM_QUEUED and BACKLOG (linux/sock_diag.h).
        let [rmem_alloc, _, _, _, fwd_alloc, wmem_queued, _, backlog, _] = values.map(|value| value as usize);
        Ok(Self { received: rmem_alloc + backlog, unsent: wmem_queued, reserved: fwd_alloc })
    }

    /// Returns the sum.
    pub fn total(self) -> usize {
        self.received + self.unsent + self.reserved
    }
}

/// Payload bytes of a TCP connection since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpProgress {
    /// Sent, and acknowledged by the other side.
    pub acknowledged: u64,
    /// Received without a gap.
    pub received: u64,
}

impl TcpProgress {
    /// Reads the progress of a connection (TCP_INFO, tcpi_bytes_acked and tcpi_bytes_received in linux/tcp.h, Linux 4.2).
    ///
    /// # Errors
    /// The error of `getsockopt(2)`, for example of a socket that is not TCP.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        // The structure up to these two, in words of eight bytes.
        let mut values = [0u64; 17];
        let mut len = size_of_val(&values) as socklen_t;
        // SAFETY: both pointers are valid for the call, and the length is that of the values.
        check(unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                values.as_mut_ptr().cast(),
                &raw mut len,
            )
        })?;
        let [.., acknowledged, received] = values;
        Ok(Self { acknowledged, received })
    }
}

/// Lets the kernel choose the buffer sizes of a socket again, after one was set (SO_BUF_LOCK).
///
/// # Errors
/// The error of `setsockopt(2)`; `ENOPROTOOPT` before Linux 5.15.
pub fn let_kernel_size_buffers(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0)
}

/// UDP offloads of the kernel: several datagrams of one flow in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Sending: datagrams of one size to one address leave in one message (UDP_SEGMENT, Linux 4.18).
    pub segmentation: bool,
    /// Receiving: datagrams of one flow arrive in one message (UDP_GRO, Linux 5.0).
    pub coalescing: bool,
}

impl Offloads {
    /// Tests both offloads on a new socket. An offload that cannot be tested counts as missing.
    pub fn probe() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
        socket.map_or(Self::default(), |socket| Self {
            segmentation: set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok(),
            coalescing: enable_coalescing(&socket).is_ok(),
        })
    }
}

/// Enables coalescing: datagrams of one flow that arrive together are received in one message ([`Origin::segment`]).
///
/// [`Origin::segment`]: super::Origin::segment
///
/// # Errors
/// The error of `setsockopt(2)`; `ENOPROTOOPT` before Linux 5.0.
pub fn enable_coalescing(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Returns free heap memory to the kernel. Takes milliseconds after a burst, otherwise microseconds.
///
/// Without this call, glibc keeps all free memory below the highest block in use. After 10,000 allocations have come
/// and gone, that is 1 to 12 MiB, depending on chance.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
