//! The addresses of this machine, and when they change.
//!
//! The kernel announces changes on a netlink socket (rtnetlink(7)); they are also polled, in case an announcement is lost.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, RecvFlags};
use tokio::sync::watch;

use super::local_addresses::{self, LocalAddress};
use super::netlink::{self, Message, messages};
use super::{clock, own_addresses};

/// Interval after which the addresses are read again even if no change was announced.
const POLL: Duration = Duration::from_secs(10);
/// The same after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Consecutive failures after which the operator is warned. One is normal: the list may change while it is read.
const FAILURES_TO_WARN: u32 = 2;
/// Changes arrive in bursts. The addresses are read after this time without a further change, ...
const QUIET: Duration = Duration::from_millis(5);
/// ... or after this time since the first change.
const BURST: Duration = Duration::from_millis(50);
/// Size of the buffer for announcements. A longer one is cut off, but the relevant part is at its start.
const ANNOUNCEMENT_BUFFER: usize = 4 << 10;

/// The groups of rtnetlink(7) that announce changes of addresses and routes.
const GROUPS: i32 =
    libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;

/// The addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The prefixes whose packets the kernel delivers to this machine, sorted.
    pub own: Vec<IpNet>,
    /// The addresses that a socket can send from.
    pub local: Vec<LocalAddress>,
    /// Whether the kernel listed all of them. Otherwise this machine may have addresses that are missing here.
    pub is_whole: bool,
}

impl Addresses {
    /// Whether the kernel delivers packets for this address to this machine, as far as is known.
    pub fn have(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|own| own.contains(&ip))
    }

    /// Like [`Self::have`], but also `true` if that is not known, and for the unspecified address.
    pub fn may_have(&self, ip: IpAddr) -> bool {
        !self.is_whole || ip.is_unspecified() || self.have(ip)
    }
}

/// Reads the addresses.
///
/// # Errors
/// `Interrupted` if they kept changing, otherwise the error of the netlink socket, which a seccomp filter may refuse.
pub fn read() -> io::Result<Addresses> {
    let routes = own_addresses::routes()?;
    let (own, local) = (own_addresses::prefixes(&routes)?, local_addresses::read(&routes)?);
    Ok(Addresses { own, local, is_whole: true })
}

/// Follows the addresses on a thread. The receiver starts with `known` and changes when the addresses differ. The thread
/// exits within ten seconds after the receiver is dropped.
///
/// # Errors
/// The error of starting the thread.
pub fn follow(known: Addresses) -> io::Result<watch::Receiver<Addresses>> {
    let (sender, receiver) = watch::channel(known);
    // Opened before the addresses are read, so that no change is missed in between.
    let mut announcements = Announcements::open();
    let follow = move || {
        let mut failures = Failures::default();
        while !sender.is_closed() {
            let read = read();
            failures.note(read.as_ref().err());
            let limit = if read.is_ok() { POLL } else { RETRY };
            if let Ok(now) = read {
                sender.send_if_modified(|known| {
                    let differs = *known != now;
                    *known = now;
                    differs
                });
            }
            announcements.wait_for_burst(limit);
        }
    };
    thread::Builder::new().name("addresses".to_owned()).spawn(follow)?;
    Ok(receiver)
}

/// Failures to read the addresses since the last success.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// Logs a failure: once as a warning, in each series of them.
    fn note(&mut self, error: Option<&io::Error>) {
        let Some(error) = error else {
            if std::mem::take(&mut self.0) >= FAILURES_TO_WARN {
                tracing::info!("this machine's addresses can be listed again");
            }
            return;
        };
        self.0 = self.0.saturating_add(1);
        if self.is_warned() {
            tracing::warn!(
                "cannot list this machine's addresses ({error}): the last known ones stay in use, and clients may reach \
                 services at addresses added since; retrying every second"
            );
        } else {
            tracing::debug!("cannot list this machine's addresses: {error}");
        }
    }

    /// Whether the operator is warned of the last failure.
    fn is_warned(&self) -> bool {
        self.0 == FAILURES_TO_WARN
    }
}

/// The kernel's announcements of changes.
struct Announcements {
    /// `None` if it could not be opened; then only polling detects changes.
    socket: Option<OwnedFd>,
}

impl Announcements {
    fn open() -> Self {
        let open = || -> io::Result<_> {
            let socket = netlink::socket()?;
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

    /// Returns after a burst of changes, or after `limit` without any.
    fn wait_for_burst(&mut self, limit: Duration) {
        if !self.wait(limit) {
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
                    if messages(&buffer[..len.min(ANNOUNCEMENT_BUFFER)])
                        .any(|one| concerns_addresses(&one)) =>
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

/// Whether this may change the addresses, or which of them lead out. Of the routes only local and default ones do; on a
/// router the others change all the time.
fn concerns_addresses(message: &Message<'_>) -> bool {
    match message.kind {
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let is_default = message.body.get(1) == Some(&0);
            is_default || own_addresses::own_prefix(message.body).is_some()
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_from_the_known_addresses_is_reported_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut own = follow(Addresses::default()).unwrap();
            own.changed().await.unwrap();
            assert!(own.borrow().own.contains(&"127.0.0.0/8".parse().unwrap()));
        });
    }

    #[test]
    fn a_series_of_failures_is_one_warning() {
        let (mut failures, error) = (Failures::default(), io::Error::from(io::ErrorKind::Interrupted));
        let mut warned = |error: Option<&io::Error>| {
            failures.note(error);
            failures.is_warned()
        };
        let series = [None, Some(&error), None, Some(&error), Some(&error), Some(&error), None, Some(&error)];
        assert_eq!(series.map(&mut warned), [false, false, false, false, true, false, false, false]);
    }
}
