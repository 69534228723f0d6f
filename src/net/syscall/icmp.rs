//! ICMP errors about datagrams that this host sent.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use libc::{msghdr, socklen_t};

use super::address::Name;
use super::control::{Control, controls, read_plain};

/// Returns whether `error` may be a late report of an ICMP message.
pub fn is_peer_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
                | libc::EACCES
                | libc::EMSGSIZE
        )
    )
}

/// An ICMP error about a datagram that this host sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The destination of the datagram, canonical.
    pub to: SocketAddr,
    /// ICMP type if `to` is IPv4, else ICMPv6 type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU of "fragmentation needed" and "packet too big", else 0.
    pub info: u32,
}

/// Reads the next ICMP error from the queue of a socket with [`set_error_queue`](super::set_error_queue);
/// `None` if the queue is empty. Errors that the local kernel generated are skipped.
///
/// # Errors
/// The error of `recvmsg(2)`.
pub fn receive_icmp(socket: impl AsFd) -> io::Result<Option<IcmpError>> {
    loop {
        let (mut name, mut control) = (Name::empty(), Control([0; 128]));
        // SAFETY: null pointers and zero lengths are valid values of the structure.
        let mut header: msghdr = unsafe { zeroed() };
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<Name>() as socklen_t;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: name and control buffer outlive the call and have the given lengths; no payload is requested.
        let received = unsafe { libc::recvmsg(fd, &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::Interrupted => continue,
                _ => Err(error),
            };
        }
        let report = controls(&header).find_map(|(level, kind, payload)| match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                read_plain::<libc::sock_extended_err>(payload)
            }
            _ => None,
        });
        if let (Some(report), Some(to)) = (report, name.read(header.msg_namelen))
            && matches!(report.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
        {
            return Ok(Some(IcmpError {
                to,
                kind: report.ee_type,
                code: report.ee_code,
                info: report.ee_info,
            }));
        }
    }
}
