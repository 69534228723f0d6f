//! The addresses of this machine, and their changes.
//!
//! The kernel delivers packets to this machine if a local route covers their destination: the addresses of interfaces, and
//! prefixes added by `ip route add local`. It announces changes on a netlink socket (rtnetlink(7)).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::sync::watch;

use super::{clock, interfaces};

/// Interval after which the addresses are read again even if no change was announced.
const POLL: Duration = Duration::from_secs(10);
/// Changes arrive in bursts. The addresses are read after this time without a further change, ...
const QUIET: Duration = Duration::from_millis(5);
/// ... or after this time since the first change.
const BURST: Duration = Duration::from_millis(50);
/// Attempts to read the routes if they change meanwhile.
const DUMP_TRIES: usize = 3;
/// Time limit for each part of the kernel's answer, which normally arrives immediately.
const DUMP_LIMIT: Duration = Duration::from_secs(1);
/// Size of the buffer for routes. The kernel writes at most 32 KiB at a time.
const DUMP_BUFFER: usize = 32 << 10;
/// Size of the buffer for announcements. A longer one is cut off, but the relevant part is at its start.
const ANNOUNCEMENT_BUFFER: usize = 4 << 10;

/// The groups of rtnetlink(7) that announce changes of addresses and routes.
const GROUPS: i32 =
    libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
/// Routing tables that apply to every packet. Local routes in other tables depend on a rule: transparent proxies mark
/// packets for a table whose default route is local, which does not make every address one of this machine.
const TABLES: [u8; 3] = [libc::RT_TABLE_LOCAL, libc::RT_TABLE_MAIN, libc::RT_TABLE_DEFAULT];
/// Routes whose packets are delivered to this machine.
const DELIVERED: [u8; 2] = [libc::RTN_LOCAL, libc::RTN_ANYCAST];

/// `struct nlmsghdr`, of which the first field is the length in 32 bits.
const MESSAGE_HEADER: usize = 16;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `struct rtattr`, of which the first field is the length in 16 bits.
const ATTRIBUTE_HEADER: usize = 4;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Returns the prefixes whose packets the kernel delivers to this machine, sorted.
///
/// # Errors
/// `Interrupted` if the routes kept changing, otherwise the error of listing the interfaces or of the netlink socket, which
/// a seccomp filter may refuse.
pub fn read() -> io::Result<Vec<IpNet>> {
    let mut own: Vec<IpNet> = interfaces::addresses()?.into_iter().map(|one| one.address.into()).collect();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        own.extend(local_routes(family)?);
    }
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Follows the addresses on a thread. The receiver starts with `known` and changes when the addresses differ. The thread
/// exits within ten seconds after the receiver is dropped.
///
/// # Errors
/// The error of starting the thread.
pub fn follow(known: Vec<IpNet>) -> io::Result<watch::Receiver<Vec<IpNet>>> {
    let (sender, receiver) = watch::channel(known);
    let follow = move || {
        // Opened before the addresses are read, so that no change is missed in between.
        let mut announcements = Announcements::open();
        while !sender.is_closed() {
            match read() {
                Ok(own) => {
                    sender.send_if_modified(|known| {
                        let differs = *known != own;
                        *known = own;
                        differs
                    });
                }
                Err(error) => tracing::debug!("cannot list this machine's addresses: {error}"),
            }
            announcements.wait_for_burst();
        }
    };
    thread::Builder::new().name("addresses".to_owned()).spawn(follow)?;
    Ok(receiver)
}

/// The kernel's announcements of changes.
struct Announcements {
    /// `None` if it could not be opened; then only polling detects changes.
    socket: Option<OwnedFd>,
}

impl Announcements {
    fn open() -> Self {
        let open = || -> io::Result<_> {
            let socket = netlink()?;
            net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS as u32))?;
            Ok(socket)
        };
        let socket = open().inspect_err(|error| {
            let seconds = POLL.as_secs();
            tracing::warn!(
                "no netlink socket ({error}): changes of addresses are detected within {seconds} s"
            );
        });
        Self { socket: socket.ok() }
    }

    /// Returns after a burst of changes, or when the polling interval ends.
    fn wait_for_burst(&mut self) {
        if !self.wait(POLL) {
            return;
        }
        let end = clock::monotonic_nanos() + BURST.as_nanos() as u64;
        while clock::monotonic_nanos() < end && self.wait(QUIET) {}
    }

    /// Waits for an announcement that concerns addresses of this machine. `false` if none arrives within `limit`.
    fn wait(&mut self, limit: Duration) -> bool {
        let Some(socket) = &self.socket else {
            thread::park_timeout(limit);
            return false;
        };
        let end = clock::monotonic_nanos() + limit.as_nanos() as u64;
        let mut buffer = [0; ANNOUNCEMENT_BUFFER];
        loop {
            let left = end.saturating_sub(clock::monotonic_nanos());
            if left == 0 {
                return false;
            }
            let limited = set_socket_timeout(socket, Timeout::Recv, Some(Duration::from_nanos(left)));
            match limited.and_then(|()| net::recv(socket, &mut buffer, RecvFlags::empty())) {
                Ok((_, len))
                    if messages(&buffer[..len.min(ANNOUNCEMENT_BUFFER)]).any(|one| one.concerns_own()) =>
                {
                    return true;
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                // The kernel dropped announcements.
                Err(Errno::NOBUFS) => return true,
                Err(error) => {
                    tracing::warn!(
                        "the netlink socket failed ({error}): changes of addresses are detected by polling"
                    );
                    self.socket = None;
                    return false;
                }
            }
        }
    }
}

/// A message of rtnetlink(7).
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

impl Message<'_> {
    /// Whether the message may change the addresses of this machine. Routes that are not local do not, and on a router
    /// they change all the time.
    fn concerns_own(&self) -> bool {
        match self.kind {
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => own_prefix(self.body).is_some(),
            _ => true,
        }
    }
}

/// Opens a netlink socket.
fn netlink() -> io::Result<OwnedFd> {
    // The default protocol is NETLINK_ROUTE.
    Ok(net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// Returns the local routes of one family.
fn local_routes(family: AddressFamily) -> io::Result<Vec<IpNet>> {
    for _ in 0..DUMP_TRIES {
        if let Some(found) = dump(family)? {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Requests the routes of one family from the kernel. `None` if they changed meanwhile.
fn dump(family: AddressFamily) -> io::Result<Option<Vec<IpNet>>> {
    let socket = netlink()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DUMP_LIMIT))?;
    net::send(&socket, &dump_request(family), SendFlags::empty())?;
    let (mut found, mut whole) = (Vec::new(), true);
    let mut buffer = vec![0; DUMP_BUFFER];
    loop {
        let (_, len) = net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for message in messages(&buffer[..len.min(DUMP_BUFFER)]) {
            whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
            match (message.kind, i32::from(message.kind)) {
                (_, libc::NLMSG_DONE) => return Ok(whole.then_some(found)),
                (_, libc::NLMSG_ERROR) => {
                    // The body starts with the negative error number.
                    let number = message.body.first_chunk().map_or(0, |&bytes| i32::from_ne_bytes(bytes));
                    return Err(io::Error::from_raw_os_error(-number));
                }
                (libc::RTM_NEWROUTE, _) => found.extend(own_prefix(message.body)),
                _ => {}
            }
        }
    }
}

/// Builds RTM_GETROUTE for all routes of a family.
fn dump_request(family: AddressFamily) -> [u8; MESSAGE_HEADER + ROUTE_HEADER] {
    let mut request = [0; MESSAGE_HEADER + ROUTE_HEADER];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[..4].copy_from_slice(&((MESSAGE_HEADER + ROUTE_HEADER) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[MESSAGE_HEADER] = family.as_raw() as u8;
    request
}

/// Divides bytes into messages.
fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let length = |bytes: &[u8]| bytes.first_chunk().map(|&length| u32::from_ne_bytes(length) as usize);
    records(bytes, MESSAGE_HEADER, length).map(|record| Message {
        kind: u16::from_ne_bytes([record[4], record[5]]),
        flags: u16::from_ne_bytes([record[6], record[7]]),
        body: &record[MESSAGE_HEADER..],
    })
}

/// Divides bytes into records with a header and a body. Stops at the first incomplete record.
fn records(
    mut bytes: &[u8],
    header: usize,
    length: impl Fn(&[u8]) -> Option<usize>,
) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = length(bytes).filter(|&length| length >= header)?;
        let record = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(record)
    })
}

/// Returns the prefix of a route whose packets are delivered to this machine. `None` for any other route.
fn own_prefix(route: &[u8]) -> Option<IpNet> {
    let (&[family, prefix, _, _, table, _, _, kind, ..], attributes) =
        route.split_first_chunk::<ROUTE_HEADER>()?;
    if !DELIVERED.contains(&kind) || !TABLES.contains(&table) {
        return None;
    }
    let length = |bytes: &[u8]| bytes.first_chunk().map(|&length| u16::from_ne_bytes(length).into());
    let mut attributes = records(attributes, ATTRIBUTE_HEADER, length);
    let destination = attributes.find(|one| u16::from_ne_bytes([one[2], one[3]]) == libc::RTA_DST);
    let address = destination.map(|attribute| &attribute[ATTRIBUTE_HEADER..]);
    // A default route has no destination attribute.
    match i32::from(family) {
        libc::AF_INET => {
            let octets = address.map_or(Ok([0; 4]), <[u8; 4]>::try_from).ok()?;
            Some(Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()?.into())
        }
        libc::AF_INET6 => {
            let octets = address.map_or(Ok([0; 16]), <[u8; 16]>::try_from).ok()?;
            Some(Ipv6Net::new(Ipv6Addr::from(octets), prefix).ok()?.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(family: i32, prefix: u8, table: u8, kind: u8, destination: &[u8]) -> Vec<u8> {
        let mut route = vec![family as u8, prefix, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
        // RTA_TABLE precedes RTA_DST, and an attribute of odd length is padded.
        route.extend([&5_u16.to_ne_bytes()[..], &15_u16.to_ne_bytes(), &[table, 0, 0, 0]].concat());
        let length = (ATTRIBUTE_HEADER + destination.len()) as u16;
        route.extend([&length.to_ne_bytes()[..], &libc::RTA_DST.to_ne_bytes(), destination].concat());
        route
    }

    #[test]
    fn only_local_routes_are_own_prefixes() {
        let (local, main) = (libc::RT_TABLE_LOCAL, libc::RT_TABLE_MAIN);
        let own = |route: &[u8]| own_prefix(route).map(|net| net.to_string());
        let v4 = |table, kind| route(libc::AF_INET, 24, table, kind, &[203, 0, 113, 0]);
        assert_eq!(own(&v4(local, libc::RTN_LOCAL)).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(own(&v4(main, libc::RTN_LOCAL)).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(own(&v4(100, libc::RTN_LOCAL)), None, "a table of a rule");
        assert_eq!(own(&v4(main, libc::RTN_UNICAST)), None);
        assert_eq!(own(&v4(local, libc::RTN_BROADCAST)), None);
        let mut v6 = [0; 16];
        (v6[0], v6[15]) = (0x2a, 7);
        let v6 = route(libc::AF_INET6, 128, local, libc::RTN_ANYCAST, &v6);
        assert_eq!(own(&v6).as_deref(), Some("2a00::7/128"));
        let default = &v4(main, libc::RTN_LOCAL)[..ROUTE_HEADER];
        assert_eq!(own(&[&default[..1], &[0], &default[2..]].concat()).as_deref(), Some("0.0.0.0/0"));
        for cut in 0..v6.len() {
            let _ = own(&v6[..cut]);
        }
        assert_eq!(own(&route(libc::AF_INET, 24, local, libc::RTN_LOCAL, &[1, 2, 3])), None);
        assert_eq!(own(&route(libc::AF_INET, 33, local, libc::RTN_LOCAL, &[1, 2, 3, 4])), None);
    }

    #[test]
    fn messages_stop_at_an_incomplete_one() {
        let mut bytes = Vec::new();
        for (length, body) in [(17_u32, &[1, 0, 0, 0][..]), (20, &[2, 2, 2, 2]), (40, &[3])] {
            bytes.extend(
                [&length.to_ne_bytes()[..], &libc::RTM_NEWADDR.to_ne_bytes(), &[0; 10], body].concat(),
            );
        }
        let bodies: Vec<&[u8]> = messages(&bytes).map(|message| message.body).collect();
        assert_eq!(bodies, [&[1][..], &[2, 2, 2, 2]]);
        assert!(messages(&bytes).all(|message| message.concerns_own()));
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero ends it");
    }

    #[test]
    fn the_kernel_lists_loopback_as_a_prefix_and_every_interface_address() {
        let own = read().unwrap();
        assert!(own.contains(&"127.0.0.0/8".parse().unwrap()), "{own:?}");
        for one in interfaces::addresses().unwrap() {
            assert!(own.contains(&one.address.into()), "{one:?} of {own:?}");
        }
        assert!(own.is_sorted());
    }

    #[test]
    fn a_difference_from_the_known_addresses_is_reported_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut own = follow(Vec::new()).unwrap();
            own.changed().await.unwrap();
            assert!(own.borrow().contains(&"127.0.0.0/8".parse().unwrap()));
        });
    }
}
