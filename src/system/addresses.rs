//! The addresses of this machine, and when they change.
//!
//! The kernel announces changes on a netlink socket (rtnetlink(7)); they are also polled, in case an announcement is lost.

use std::io;
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

/// The addresses are read again after this time even if nothing was announced.
const POLL: Duration = Duration::from_secs(10);
/// Changes come in bursts. The addresses are read after this time without a further change, ...
const QUIET: Duration = Duration::from_millis(5);
/// ... or after this time since the first change.
const BURST: Duration = Duration::from_millis(50);
/// A longer announcement is cut off; what counts is at its start.
const NEWS_BUFFER: usize = 4 << 10;

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
}

/// The addresses now.
///
/// # Errors
/// The kernel does not list them, as under a filter that refuses netlink sockets; `Interrupted` when they kept changing.
pub fn read() -> io::Result<Addresses> {
    Ok(Addresses { own: own_addresses::read()?, local: local_addresses::read()? })
}

/// Follows the addresses on a thread of its own. `known` is what the caller knows; the receiver is told what differs
/// from it. The thread ends some time after the receiver is dropped.
///
/// # Errors
/// The thread cannot be started.
pub fn follow(known: Addresses) -> io::Result<watch::Receiver<Addresses>> {
    let (sender, receiver) = watch::channel(known);
    let follow = move || {
        // Opened before the first reading, so that no change falls between the two.
        let mut news = News::open();
        while !sender.is_closed() {
            match read() {
                Ok(now) => {
                    sender.send_if_modified(|known| {
                        let differs = *known != now;
                        *known = now;
                        differs
                    });
                }
                Err(error) => tracing::debug!("cannot list this machine's addresses: {error}"),
            }
            news.burst();
        }
    };
    thread::Builder::new().name("addresses".to_owned()).spawn(follow)?;
    Ok(receiver)
}

/// Announcements of the kernel.
struct News {
    /// `None` when it could not be opened: then polling alone finds changes.
    socket: Option<OwnedFd>,
}

impl News {
    fn open() -> Self {
        let open = || -> io::Result<_> {
            let socket = netlink::socket()?;
            net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS as u32))?;
            Ok(socket)
        };
        let socket = open().inspect_err(|error| {
            let seconds = POLL.as_secs();
            tracing::warn!(
                "no netlink socket ({error}): changed addresses are noticed after up to {seconds} s"
            );
        });
        Self { socket: socket.ok() }
    }

    /// Returns after a burst of changes, or when it is time to poll.
    fn burst(&mut self) {
        if !self.wait(POLL) {
            return;
        }
        let end = clock::monotonic_nanos() + BURST.as_nanos() as u64;
        while clock::monotonic_nanos() < end && self.wait(QUIET) {}
    }

    /// Whether an announcement that concerns own addresses came before the limit.
    fn wait(&mut self, limit: Duration) -> bool {
        let Some(socket) = &self.socket else {
            thread::park_timeout(limit);
            return false;
        };
        let end = clock::monotonic_nanos() + limit.as_nanos() as u64;
        let mut buffer = [0; NEWS_BUFFER];
        loop {
            let left = end.saturating_sub(clock::monotonic_nanos());
            if left == 0 {
                return false;
            }
            let limited = set_socket_timeout(socket, Timeout::Recv, Some(Duration::from_nanos(left)));
            match limited.and_then(|()| net::recv(socket, &mut buffer, RecvFlags::empty())) {
                Ok((_, len))
                    if messages(&buffer[..len.min(NEWS_BUFFER)]).any(|one| concerns_addresses(&one)) =>
                {
                    return true;
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                // Announcements were lost.
                Err(Errno::NOBUFS) => return true,
                Err(error) => {
                    tracing::warn!("the netlink socket failed ({error}): own addresses are polled");
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
    fn what_differs_from_the_known_is_told_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut own = follow(Addresses::default()).unwrap();
            own.changed().await.unwrap();
            assert!(own.borrow().own.contains(&"127.0.0.0/8".parse().unwrap()));
        });
    }
}
