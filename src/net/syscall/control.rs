//! Control messages: properties of a datagram that the kernel reports, or receives, besides its bytes.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{ptr, slice};

use libc::{c_int, cmsghdr, msghdr};

use super::address::Source;

/// Room for the largest control message used: an extended error with an IPv6 offender (64 bytes) and packet
/// information (40 bytes).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub [u8; 128]);

/// Iterates over the control messages of `header` as (level, type, payload).
pub(super) fn controls(header: &msghdr) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    // SAFETY: `header` was filled by the kernel: its control pointer and length describe one of our buffers.
    let mut next: *const cmsghdr = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        // SAFETY: the CMSG macros stay within the control buffer of `header`, which stays borrowed, and the kernel
        // wrote `cmsg_len` bytes from the start of each message.
        unsafe {
            let message = next.as_ref()?;
            let data = libc::CMSG_DATA(next);
            let len = (message.cmsg_len as usize).saturating_sub(data.offset_from(next.cast()) as usize);
            next = libc::CMSG_NXTHDR(header, next);
            Some((message.cmsg_level, message.cmsg_type, slice::from_raw_parts(data, len)))
        }
    })
}

/// Reads a plain C structure from the payload of a control message; `None` if the payload is too short.
pub(super) fn read_plain<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, every bit pattern is a valid value, and the read may be unaligned.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Structures that consist of integers only.
///
/// # Safety
/// Every bit pattern must be a valid value.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: integers only.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: integers only.
unsafe impl Plain for libc::in6_pktinfo {}
// SAFETY: integers only.
unsafe impl Plain for libc::sock_extended_err {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}

/// The properties of a received datagram that the kernel reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// The local address that it reached, if the socket has packet information enabled.
    pub reached: Option<Source>,
    /// The size of the datagrams that the kernel coalesced into this one.
    pub segment: Option<usize>,
}

impl Notes {
    /// Reads the control messages of `header`.
    pub fn of(header: &msghdr) -> Self {
        let mut notes = Self::default();
        for (level, kind, payload) in controls(header) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => notes.reached = reached_v4(payload),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => notes.reached = reached_v6(payload),
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    notes.segment = read_plain::<c_int>(payload).and_then(|size| usize::try_from(size).ok());
                }
                _ => {}
            }
        }
        notes
    }
}

fn reached_v4(payload: &[u8]) -> Option<Source> {
    let info: libc::in_pktinfo = read_plain(payload)?;
    Some(Source { ip: Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into(), interface: 0 })
}

fn reached_v6(payload: &[u8]) -> Option<Source> {
    let info: libc::in6_pktinfo = read_plain(payload)?;
    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
    Some(Source { ip: ip.to_canonical(), interface })
}

/// Writes a control message that names the source address; returns the length of the control data.
pub(super) fn write_source(control: &mut Control, source: Source, ipv6_socket: bool) -> usize {
    let pktinfo6 = |ip: Ipv6Addr| libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
        ipi6_ifindex: source.interface,
    };
    match source.ip {
        IpAddr::V4(ip) if !ipv6_socket => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        // An IPv6 socket expects the source of an IPv4 packet in IPv4-mapped form.
        IpAddr::V4(ip) => {
            write_control(control, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, pktinfo6(ip.to_ipv6_mapped()))
        }
        IpAddr::V6(ip) => write_control(control, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, pktinfo6(ip)),
    }
}

/// Appends a control message after `used` bytes of others: the kernel cuts the payload into datagrams of `size`
/// bytes. Returns the length of the control data.
pub(super) fn write_segment(control: &mut Control, used: usize, size: u16) -> usize {
    write_control(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, size)
}

/// The longest control data written: a source, then a segment size.
const WRITTEN_MAX: usize = 64;

fn write_control<T: Plain>(
    control: &mut Control,
    used: usize,
    level: c_int,
    kind: c_int,
    payload: T,
) -> usize {
    const {
        assert!(size_of::<T>() + size_of::<cmsghdr>() <= WRITTEN_MAX);
        assert!(2 * WRITTEN_MAX <= size_of::<Control>());
    }
    assert!(used <= WRITTEN_MAX && used.is_multiple_of(align_of::<cmsghdr>()), "a sum of CMSG_SPACE values");
    // SAFETY: CMSG_LEN and CMSG_SPACE only compute. The buffer and `used` are aligned for a header, and as asserted
    // there is room for header and payload behind `used`; the payload is written unaligned.
    unsafe {
        let header = control.0.as_mut_ptr().add(used).cast::<cmsghdr>();
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), payload);
        used + libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}
