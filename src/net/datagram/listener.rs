//! A UDP listener: how much to read per turn, and which local address a client reached.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;

use super::share::{DATAGRAMS, likely};
use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::net::socket::UdpListener;
use crate::net::syscall::{BATCH, Epoll, Origin, RecvBatch, Source, Unsegmented, canonical, ready, unsent};
use crate::net::token::Token;
use crate::turn::five_tuple::{Client, FiveTuple, Link};

/// The smallest number of datagrams to request, so that a video burst is not split. Requesting 64 and receiving one
/// costs a twentieth of relaying that one.
const SHARE_MIN: usize = 16;
/// The part of the send buffer that datagrams to unproven addresses may use is one of this many. A datagram to a
/// neighbour that does not exist stays in the buffer for seconds, and all clients share the buffer.
const UNPROVEN_PART: usize = 4;

/// How long a datagram to a neighbour that does not exist stays in the send buffer, in seconds: three attempts of ARP.
const HELD_SECONDS: u64 = 3;
/// The bytes of the send buffer that a small datagram uses in addition to its own.
const OVERHEAD: usize = 768;

/// Bytes sent in the current period of [`HELD_SECONDS`] and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recent {
    period: u64,
    now: usize,
    before: usize,
}

impl Recent {
    fn with(self, period: u64, bytes: usize) -> Self {
        let Self { now, before, .. } = match period.saturating_sub(self.period) {
            0 => self,
            1 => Self { now: 0, before: self.now, ..self },
            _ => Self::default(),
        };
        Self { period, now: now + bytes, before }
    }

    fn bytes(self) -> usize {
        self.now + self.before
    }
}

/// A listener of one worker.
pub(super) struct Listener {
    pub socket: UdpSocket,
    pub local: SocketAddr,
    /// Whether every datagram carries the local address that it reached.
    wildcard: bool,
    /// The QUIC server that shares the port.
    pub quic: Option<SocketAddr>,
    /// The part of the send buffer that datagrams to unproven addresses may use, in bytes.
    backlog_max: usize,
    /// How many of them were sent recently.
    unproven: Cell<Recent>,
    pub unsegmented: Unsegmented,
    /// Messages to request next.
    share: usize,
    /// The turn in which it was last read.
    turn: u32,
}

impl Listener {
    pub fn new(listener: UdpListener) -> Self {
        let UdpListener { socket, local, wildcard, quic } = listener;
        let backlog_max =
            SockRef::from(&socket).send_buffer_size().map_or(usize::MAX, |size| size / UNPROVEN_PART);
        let unsegmented = Unsegmented::default();
        let unproven = Cell::default();
        Self { socket, local, wildcard, quic, backlog_max, unproven, unsegmented, share: SHARE_MIN, turn: 0 }
    }

    /// Duplicates the socket.
    ///
    /// # Errors
    /// The error of `dup(2)`.
    pub fn duplicate(&self) -> io::Result<UdpListener> {
        let socket = self.socket.try_clone()?;
        Ok(UdpListener { socket, local: self.local, wildcard: self.wildcard, quic: self.quic })
    }

    pub fn register(&self, epoll: &Epoll, index: usize) -> io::Result<()> {
        let index = u16::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        epoll.add(&self.socket, Token::Udp(index).pack(), ready::READ | ready::EDGE)
    }

    pub fn was_read(&self, turn: u32) -> bool {
        self.turn == turn
    }

    /// Receives into the first frames. Returns how many were filled, and whether the socket may hold more.
    pub fn receive(&mut self, received: &mut RecvBatch, turn: u32) -> (usize, bool) {
        (self.turn, self.share) = (turn, self.share.min(BATCH));
        match received.receive(&self.socket, 0, self.share) {
            Ok(count) => {
                let more = count == self.share;
                self.share = next_share(self.share, count, received.datagrams(0..count));
                (count, more)
            }
            // Any other error is a temporary shortage of memory.
            Err(error) => (0, error.kind() != io::ErrorKind::WouldBlock),
        }
    }

    /// Returns the client that sent a datagram; `None` if its source port is 0.
    pub fn client(&self, index: u16, origin: &Origin) -> Option<Client> {
        if origin.from.port() == 0 {
            return None;
        }
        let server = origin.reached.map_or(self.local, |reached| reached.with_port(self.local.port()));
        let five_tuple =
            FiveTuple { transport: Transport::Udp, client: origin.from, server: canonical(server) };
        Some(Client { five_tuple, link: Link(Token::Udp(index).pack()) })
    }

    /// Counts a datagram of `len` bytes to an unproven address.
    pub fn count_unproven(&self, now: Instant, len: usize) {
        self.unproven.set(self.unproven.get().with(now.as_secs() / HELD_SECONDS, len + OVERHEAD));
    }

    /// Returns whether datagrams to unproven addresses may hold as much of the send buffer as they may use. Asks the kernel
    /// only if enough were sent recently: the buffer of a slow uplink is full of other datagrams.
    pub fn has_backlog(&self) -> bool {
        self.unproven.get().bytes() > self.backlog_max
            && unsent(&self.socket).is_ok_and(|bytes| bytes > self.backlog_max)
    }

    /// Returns the local address that a datagram to this client must leave from, on a wildcard socket.
    pub fn source_for(&self, client: Client) -> Option<Source> {
        self.wildcard.then(|| Source::of(client.five_tuple.server))
    }
}

/// Returns how many messages to request after `count` of `share` arrived with this number of datagrams. After coalesced
/// messages, which hold up to 64 datagrams, it is as many as are likely to hold [`BATCH`] datagrams.
fn next_share(share: usize, count: usize, datagrams: usize) -> usize {
    if datagrams > DATAGRAMS {
        likely(count, datagrams, BATCH)
    } else if count == share {
        (2 * share).min(BATCH)
    } else if count < share / 4 {
        (share / 2).max(SHARE_MIN)
    } else {
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_for_this_period_and_the_next() {
        let recent = Recent::default().with(7, 5).with(7, 5).with(8, 1);
        assert_eq!(recent.bytes(), 11);
        assert_eq!([recent.with(9, 1).bytes(), recent.with(10, 1).bytes()], [2, 1]);
    }

    #[test]
    fn a_burst_is_read_in_whole_batches_after_two_turns_and_a_trickle_in_small_ones() {
        let mut share = SHARE_MIN;
        for expected in [32, 64, 64] {
            share = next_share(share, share, share);
            assert_eq!(share, expected);
        }
        assert_eq!(next_share(64, 16, 16), 64);
        for expected in [32, 16, 16] {
            share = next_share(share, 0, 0);
            assert_eq!(share, expected);
        }
    }

    #[test]
    fn after_coalesced_messages_fewer_are_requested_until_they_hold_few_datagrams() {
        assert_eq!(next_share(64, 64, 64 * 64), 1);
        assert_eq!(next_share(64, 64, 5 * 64), 12);
        assert_eq!(next_share(1, 1, 64), 2, "as many as fit");
        assert_eq!(next_share(1, 1, 1), 2, "no longer coalesced");
    }
}
