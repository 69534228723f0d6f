//! The system calls that std and socket2 do not have, behind a plain face.
//!
//! All memory handed to the kernel is allocated once ([`RecvBatch`], [`SendBatch`]); the pointers into it are
//! written anew before every call, so nothing here can dangle when the owner moves.
// The one place of the relay that may: the kernel takes pointers.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use std::{ptr, slice};

use libc::{
    c_int, c_void, cmsghdr, epoll_event, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, socklen_t,
};

use crate::wire::frame::Frame;

/// Datagrams per receive or send call. A wake-up rarely finds more, and 64 of them stay within the L2 cache.
pub const BATCH: usize = 64;

/// Readiness bits as epoll has them.
pub mod ready {
    /// Something to read, or the end of it.
    pub const READ: u32 = libc::EPOLLIN as u32;
    /// Room to write.
    pub const WRITE: u32 = libc::EPOLLOUT as u32;
    /// The other side will send no more.
    pub const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
    /// An error is waiting; always reported.
    pub const ERROR: u32 = libc::EPOLLERR as u32;
    /// Both directions are closed; always reported.
    pub const CLOSED: u32 = libc::EPOLLHUP as u32;
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What one wait of an [`Epoll`] found.
pub struct Events {
    raw: Vec<epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { raw: vec![epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Token and readiness of one event; `None` past the end.
    pub fn get(&self, index: usize) -> Option<(u64, u32)> {
        let event = self.raw[..self.len].get(index)?;
        Some((event.u64, event.events))
    }
}

/// A level-triggered epoll set.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) }))
    }

    /// Watches `socket` for `interest` under `token`. Closing the socket ends it.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_fd(), token, interest)
    }

    /// Changes what a watched socket is watched for.
    pub fn modify(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_fd(), token, interest)
    }

    fn control(&self, verb: c_int, socket: BorrowedFd<'_>, token: u64, interest: u32) -> io::Result<()> {
        let mut event = epoll_event { events: interest, u64: token };
        // SAFETY: `event` outlives the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, socket.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds; `None`: for ever).
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let milliseconds = timeout.map_or(-1, |timeout| {
            c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        });
        events.len = 0;
        let capacity = c_int::try_from(events.raw.len()).unwrap_or(c_int::MAX);
        // SAFETY: the kernel writes at most `capacity` events into the vector of at least that length.
        let found =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.raw.as_mut_ptr(), capacity, milliseconds) };
        match check(found) {
            Ok(found) => events.len = found as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Wakes a worker out of its wait, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<File>);

impl Waker {
    /// A new eventfd.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self(Arc::new(File::from(fd))))
    }

    /// Makes it readable. A full counter means that it is so already.
    pub fn wake(&self) {
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = (&*self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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

/// Asks for the local address of every received datagram ([`Origin::reached`]).
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

/// A socket address in the kernel's form; 28 bytes instead of the 128 of `sockaddr_storage`.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Name {
    fn empty() -> Self {
        // SAFETY: both are plain numbers, for which zero is a value.
        unsafe { zeroed() }
    }

    /// Writes `address`, mapped when the socket is an IPv6 one; gives the length.
    fn write(&mut self, address: SocketAddr, ipv6_socket: bool) -> socklen_t {
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

    /// The canonical address; `None` when the kernel wrote none.
    fn read(&self, len: socklen_t) -> Option<SocketAddr> {
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

/// An IPv4-mapped address as the IPv4 address it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => (v4, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Room for the largest control message used: an extended error with an IPv6 offender (64 bytes) and a packet
/// information (40 bytes).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 128]);

/// Every control message of `header`, as (level, type, payload).
fn controls(header: &msghdr) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    // SAFETY: `header` was filled by the kernel: its control pointer and length describe one of our buffers.
    let mut next: *const cmsghdr = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        // SAFETY: the CMSG macros stay within the control buffer of `header`, which is borrowed all the while,
        // and the kernel wrote `cmsg_len` bytes from the start of each message.
        unsafe {
            let message = next.as_ref()?;
            let data = libc::CMSG_DATA(next);
            let len = (message.cmsg_len as usize).saturating_sub(data.offset_from(next.cast()) as usize);
            next = libc::CMSG_NXTHDR(header, next);
            Some((message.cmsg_level, message.cmsg_type, slice::from_raw_parts(data, len)))
        }
    })
}

/// Reads a plain C structure out of the payload of a control message.
fn read_plain<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, every bit pattern is a `Plain` value, and the read may be unaligned.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Structures of numbers only.
///
/// # Safety
/// Every bit pattern must be a value.
unsafe trait Plain: Copy {}
// SAFETY: integers only.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: integers only.
unsafe impl Plain for libc::in6_pktinfo {}
// SAFETY: integers only.
unsafe impl Plain for libc::sock_extended_err {}

/// An address of our own, to send from. Link-local ones need their interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// The interface of an IPv6 link-local address, else 0.
    pub interface: u32,
}

impl Source {
    /// The address of `local` as a source.
    pub fn of(local: SocketAddr) -> Self {
        let interface = match local {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { ip: local.ip(), interface }
    }

    /// The socket address with `port`.
    pub fn with_port(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(v4) => (v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, self.interface).into(),
        }
    }
}

/// Which of our addresses the datagram reached, if its socket was asked.
fn reached(header: &msghdr) -> Option<Source> {
    controls(header).find_map(|(level, kind, payload)| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let info: libc::in_pktinfo = read_plain(payload)?;
            Some(Source { ip: Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into(), interface: 0 })
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let info: libc::in6_pktinfo = read_plain(payload)?;
            let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
            Some(Source { ip: ip.to_canonical(), interface })
        }
        _ => None,
    })
}

/// Writes one control message that names the source; gives the length of the control data.
fn write_source(control: &mut Control, source: Source, ipv6_socket: bool) -> usize {
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
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        // An IPv6 socket takes the source of an IPv4 packet in its mapped form.
        IpAddr::V4(ip) => {
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, pktinfo6(ip.to_ipv6_mapped()))
        }
        IpAddr::V6(ip) => write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, pktinfo6(ip)),
    }
}

fn write_control<T: Plain>(control: &mut Control, level: c_int, kind: c_int, payload: T) -> usize {
    const {
        assert!(size_of::<T>() + size_of::<cmsghdr>() <= size_of::<Control>());
    }
    // SAFETY: CMSG_LEN and CMSG_SPACE only compute. The buffer is aligned for a header and, as asserted, has room
    // for header and payload; the payload is written unaligned.
    unsafe {
        let header = control.0.as_mut_ptr().cast::<cmsghdr>();
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), payload);
        libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}

/// The kernel's view of one batch: headers that point to names, control buffers and payloads.
struct Arrays {
    headers: Vec<mmsghdr>,
    vectors: Vec<iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
}

impl Arrays {
    fn new() -> Self {
        // SAFETY: null pointers and zero lengths are values of both structures.
        let (header, vector) = unsafe { (zeroed::<mmsghdr>(), zeroed::<iovec>()) };
        Self {
            headers: vec![header; BATCH],
            vectors: vec![vector; BATCH],
            names: vec![Name::empty(); BATCH],
            controls: vec![Control([0; 128]); BATCH],
        }
    }

    /// Points header `index` to its name, its control buffer (`control` bytes of it) and `len` bytes at `base`.
    fn point(&mut self, index: usize, base: *mut u8, len: usize, name: socklen_t, control: usize) {
        self.vectors[index] = iovec { iov_base: base.cast(), iov_len: len };
        let header = &mut self.headers[index];
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
        header.msg_hdr.msg_namelen = name;
        header.msg_hdr.msg_iov = &raw mut self.vectors[index];
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control =
            if control == 0 { ptr::null_mut() } else { self.controls[index].0.as_mut_ptr().cast::<c_void>() };
        header.msg_hdr.msg_controllen = control as _;
        header.msg_hdr.msg_flags = 0;
    }
}

/// Where a received datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender, canonical.
    pub from: SocketAddr,
    /// Our address that it reached, where [`enable_packet_info`] was asked for.
    pub reached: Option<Source>,
}

/// A set of frames and what is needed to receive into them. Belongs to one thread.
pub struct RecvBatch {
    /// The datagrams.
    pub frames: Vec<Frame>,
    /// Their senders, at the same places.
    pub origins: Vec<Origin>,
    arrays: Arrays,
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// [`BATCH`] empty frames.
    pub fn new() -> Self {
        let nobody = Origin { from: (Ipv4Addr::UNSPECIFIED, 0).into(), reached: None };
        Self {
            frames: (0..BATCH).map(|_| Frame::new()).collect(),
            origins: vec![nobody; BATCH],
            arrays: Arrays::new(),
        }
    }

    /// Receives what is there into the frames from `first` on, at most `limit`; gives how many.
    pub fn receive(&mut self, socket: impl AsFd, first: usize, limit: usize) -> io::Result<usize> {
        let end = first.saturating_add(limit).min(BATCH);
        if first >= end {
            return Ok(0);
        }
        for index in first..end {
            let spare = self.frames[index].spare_mut();
            let (base, len) = (spare.as_mut_ptr(), spare.len());
            self.arrays.point(index, base, len, size_of::<Name>() as socklen_t, size_of::<Control>());
        }
        // SAFETY: every header in the range points into a frame, name and control buffer of `self` with its true
        // length, none of which moves during the call.
        let received = check(unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.arrays.headers[first..].as_mut_ptr(),
                (end - first) as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        })? as usize;
        for index in first..first + received {
            let header = &self.arrays.headers[index];
            self.frames[index].set_len(header.msg_len as usize);
            let from = self.arrays.names[index].read(header.msg_hdr.msg_namelen);
            self.origins[index] = Origin {
                // Port 0 is refused by every sender: a nameless datagram is dropped in the end.
                from: from.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()),
                reached: reached(&header.msg_hdr),
            };
        }
        Ok(received)
    }
}

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses, on a wildcard socket.
    pub source: Option<Source>,
}

/// What is needed to send many datagrams in one call. Belongs to one thread.
pub struct SendBatch {
    arrays: Arrays,
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// Room for [`BATCH`] datagrams.
    pub fn new() -> Self {
        Self { arrays: Arrays::new() }
    }

    /// Sends all `datagrams` through one socket. Each that the kernel refuses is reported to `failed` and left
    /// out; the others go on. Gives how many were sent.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        ipv6_socket: bool,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        failed: &mut dyn FnMut(io::Error),
    ) -> usize {
        let mut sent = 0;
        loop {
            let mut filled = 0;
            while filled < BATCH
                && let Some(datagram) = datagrams.next()
            {
                let name = self.arrays.names[filled].write(datagram.to, ipv6_socket);
                let control = datagram
                    .source
                    .map_or(0, |source| write_source(&mut self.arrays.controls[filled], source, ipv6_socket));
                let payload = datagram.payload;
                // The kernel only reads through this pointer.
                self.arrays.point(filled, payload.as_ptr().cast_mut(), payload.len(), name, control);
                filled += 1;
            }
            if filled == 0 {
                return sent;
            }
            sent += self.send_filled(socket.as_raw_fd(), filled, failed);
        }
    }

    /// Sends the headers up to `filled`. Private: they hold pointers to payloads that [`SendBatch::send`] borrows.
    fn send_filled(&mut self, fd: RawFd, filled: usize, failed: &mut dyn FnMut(io::Error)) -> usize {
        let (mut position, mut sent, mut retried) = (0, 0, false);
        while position < filled {
            // SAFETY: the headers in the range point to names and control buffers of `self` and to payloads that
            // the caller borrows beyond this call, all with their true lengths.
            let result = check(unsafe {
                libc::sendmmsg(
                    fd,
                    self.arrays.headers[position..].as_mut_ptr(),
                    (filled - position) as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            });
            match result {
                Ok(count) => {
                    position += count as usize;
                    sent += count as usize;
                    retried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error of an earlier datagram is reported, and cleared, by the next send, which then sent
                // nothing: that one deserves another try.
                Err(error) if !retried && is_peer_error(&error) => retried = true,
                // The socket's buffer is full: so it is for the rest.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (position..filled).for_each(|_| failed(io::ErrorKind::WouldBlock.into()));
                    return sent;
                }
                Err(error) => {
                    failed(error);
                    position += 1;
                    retried = false;
                }
            }
        }
        sent
    }
}

/// Whether the error may be a late report of an ICMP message.
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

/// An ICMP message about a datagram we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Where the datagram was sent to, canonical.
    pub to: SocketAddr,
    /// ICMP or ICMPv6 type, by the family of `to`.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU of "fragmentation needed" and "packet too big", else 0.
    pub info: u32,
}

/// Reads the next ICMP error of a socket with [`enable_error_queue`]; `None` when there is none left. Errors of
/// our own kernel's making are skipped.
pub fn receive_icmp(socket: impl AsFd) -> io::Result<Option<IcmpError>> {
    loop {
        let (mut name, mut control) = (Name::empty(), Control([0; 128]));
        // SAFETY: null pointers and zero lengths are values of the structure.
        let mut header: msghdr = unsafe { zeroed() };
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<Name>() as socklen_t;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: name and control buffer outlive the call and have the lengths given; no payload is asked for.
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

#[cfg(test)]
mod tests;
