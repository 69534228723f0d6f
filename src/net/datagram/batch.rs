//! Outgoing datagrams: collected during a turn, grouped by socket, sent together.
//!
//! Payloads stay where they were received; an entry only stores their position. So a batch is flushed before its
//! memory receives new bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;

use super::listener::Listener;
use super::relay::Relays;
use crate::net::syscall::{BATCH, Datagram, SendBatch, Source};
use crate::turn::action::{DropReason, RelayId, Relayed};
use crate::wire::channel_data;
use crate::wire::frame::Frame;

/// Datagrams collected before they are sent: enough to segment a burst in large batches, and quick to sort.
const FULL: usize = 4 * BATCH;

/// The socket that a datagram leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A listener, to a client.
    Listener {
        /// The index of the listener.
        index: u16,
        /// Whether the client has proven that it receives at its address. If not, the address may be forged, and the
        /// datagram is sent only if the listener's send buffer has room (`Listener::has_backlog`).
        proven: bool,
    },
    /// A relayed address, to a peer.
    Relay {
        /// The relayed address.
        relay: RelayId,
        /// Whether to set DF.
        dont_fragment: bool,
    },
}

impl Route {
    /// Returns a number that is unique per route, below 2^48.
    fn key(self) -> u64 {
        match self {
            // Proven clients come first.
            Route::Listener { index, proven } => u64::from(index) << 1 | u64::from(!proven),
            Route::Relay { relay, dont_fragment } => {
                1 << 40 | u64::from(relay.0) << 1 | u64::from(dont_fragment)
            }
        }
    }
}

/// The location of a payload.
#[derive(Debug)]
pub enum Payload {
    /// This range of a received frame, unchanged.
    Frame(usize, Range<usize>),
    /// This range of the bytes of the spare frame.
    Spare(Range<usize>),
    /// This range of the bytes read from a stream.
    Stream(Range<usize>),
    /// Bytes built by the server.
    Owned(Vec<u8>),
}

/// One datagram to send.
#[derive(Debug)]
pub struct Outgoing {
    /// The socket.
    pub route: Route,
    /// The destination.
    pub to: SocketAddr,
    /// The local address to send from, on a wildcard listener.
    pub source: Option<Source>,
    /// A ChannelData header, if there is no room for it before the payload.
    pub head: Option<[u8; channel_data::HEADER_LEN]>,
    /// The bytes.
    pub payload: Payload,
    /// What counts as relayed by it; `None` for an answer and for QUIC.
    pub relayed: Option<Relayed>,
}

/// The memory that payloads refer to.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// Received datagrams.
    pub frames: &'a [Frame],
    /// A datagram copied from a frame.
    pub spare: &'a Frame,
    /// Bytes read from a stream.
    pub stream: &'a [u8],
}

impl Payload {
    /// Returns its size in bytes.
    pub fn size(&self) -> usize {
        match self {
            Payload::Frame(_, range) | Payload::Spare(range) | Payload::Stream(range) => range.len(),
            Payload::Owned(bytes) => bytes.len(),
        }
    }
}

impl<'a> Memory<'a> {
    /// Returns the bytes of a payload.
    pub fn bytes(self, payload: &'a Payload) -> &'a [u8] {
        match payload {
            Payload::Frame(frame, range) => &self.frames[*frame].bytes()[range.clone()],
            Payload::Spare(range) => &self.spare.bytes()[range.clone()],
            Payload::Stream(range) => &self.stream[range.clone()],
            Payload::Owned(bytes) => bytes,
        }
    }
}

/// The collected datagrams.
pub struct Batch {
    outgoing: Vec<Outgoing>,
    /// The send order: (route, position).
    order: Vec<(u64, u32)>,
    send: SendBatch,
    /// The last peer without a route.
    no_route: Option<IpAddr>,
}

impl Batch {
    /// Creates an empty batch; `segmentation`: whether the kernel supports UDP_SEGMENT.
    pub fn new(segmentation: bool) -> Self {
        Self {
            outgoing: Vec::with_capacity(FULL),
            order: Vec::with_capacity(FULL),
            send: SendBatch::new(segmentation),
            no_route: None,
        }
    }

    /// Adds a datagram. Returns whether the batch is full and must be flushed.
    #[must_use = "a full batch must be flushed"]
    pub fn push(&mut self, outgoing: Outgoing) -> bool {
        // The length is below FULL.
        self.order.push((outgoing.route.key(), self.outgoing.len() as u32));
        self.outgoing.push(outgoing);
        self.outgoing.len() >= FULL
    }

    /// Returns whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Returns whether segmentation was refused for the first time.
    pub fn take_segmentation_refused(&mut self) -> bool {
        self.send.take_refused()
    }

    /// Returns the last peer that could not be reached since the call before, because there is no route to it.
    pub fn take_no_route(&mut self) -> Option<IpAddr> {
        self.no_route.take()
    }

    /// Sends everything, in order per socket, and returns how many datagrams were sent. Calls `failed` for each
    /// datagram that the kernel refuses, with what it counts for; the others are still sent.
    pub(super) fn flush(
        &mut self,
        memory: Memory<'_>,
        listeners: &[Option<Listener>],
        relays: &mut Relays,
        failed: &mut dyn FnMut(DropReason, Option<Relayed>),
    ) -> usize {
        // The position in the key keeps the order without the memory of a stable sort.
        self.order.sort_unstable();
        let outgoing = &self.outgoing;
        let mut sent = 0;
        for group in self.order.chunk_by(|(a, _), (b, _)| a == b) {
            let mut datagrams = group.iter().map(|&(_, position)| {
                let Outgoing { to, source, head, payload, .. } = &outgoing[position as usize];
                let head = head.as_ref().map_or(&[][..], |head| head);
                Datagram { head, payload: memory.bytes(payload), to: *to, source: *source }
            });
            let route = outgoing[group[0].1 as usize].route;
            let relayed = |index: usize| outgoing[group[index].1 as usize].relayed;
            let is_of_relay = matches!(route, Route::Relay { .. });
            let no_route = &mut self.no_route;
            let mut refused = |index: usize, error: io::Error| {
                let reason = reason(&error);
                if reason == DropReason::NoRoute && is_of_relay {
                    *no_route = Some(outgoing[group[index].1 as usize].to.ip().to_canonical());
                }
                failed(reason, relayed(index));
            };
            sent += match route {
                Route::Listener { index, proven } => {
                    match listeners.get(usize::from(index)).and_then(Option::as_ref) {
                        Some(listener) if !proven && listener.has_backlog() => {
                            (0..group.len())
                                .for_each(|index| failed(DropReason::SendBacklog, relayed(index)));
                            0
                        }
                        Some(listener) => {
                            let ipv6 = listener.local.is_ipv6();
                            let socket = (listener.socket.as_fd(), &listener.unsegmented);
                            self.send.send_from(socket, ipv6, &mut datagrams, &mut refused)
                        }
                        None => 0,
                    }
                }
                Route::Relay { relay, dont_fragment } => {
                    relays.send(relay, &mut self.send, dont_fragment, &mut datagrams, &mut refused)
                }
            };
        }
        self.order.clear();
        self.outgoing.clear();
        sent
    }
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DropReason::TooLarge,
        // Reports of ICMP have the same numbers; `SendBatch` has taken these by sending again.
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => DropReason::NoRoute,
        _ => DropReason::SendFailed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;
    use crate::base::time::Instant;
    use crate::net::admission::{Admission, Gate};
    use crate::net::socket::UdpListener;
    use crate::net::syscall::{Epoll, Offloads, unsent};

    fn bound() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        socket
    }

    #[test]
    fn every_payload_leaves_from_its_socket_in_order() {
        let (epoll, mut relays, receiver) =
            (Epoll::new().expect("epoll"), Relays::new(Offloads::default()), bound());
        let (socket, to) = (bound(), receiver.local_addr().expect("local"));
        let local = socket.local_addr().expect("local");
        let listeners = [Some(Listener::new(UdpListener { socket, local, wildcard: false, quic: None }))];
        let descriptor = Gate::new(Admission::unlimited(), 1).relay().expect("no limit");
        relays.open(&epoll, RelayId(1), "127.0.0.1:0".parse().expect("address"), descriptor).expect("open");
        let mut frame = Frame::new();
        frame.fill(b"....frame");

        let relay = |dont_fragment| Route::Relay { relay: RelayId(1), dont_fragment };
        let listener = |index| Route::Listener { index, proven: index == 9 };
        let mut batch = Batch::new(true);
        for (number, (route, payload)) in [
            (relay(false), Payload::Frame(0, 4..9)),
            (listener(0), Payload::Owned(b"owned".to_vec())),
            (relay(false), Payload::Stream(2..8)),
            (relay(true), Payload::Owned(vec![0; 65_508])),
            (listener(9), Payload::Owned(b"nowhere".to_vec())),
        ]
        .into_iter()
        .enumerate()
        {
            let relayed = Some(Relayed { relay: RelayId(1), from_client: true, bytes: number as u16 });
            assert!(!batch.push(Outgoing { route, to, source: None, head: None, payload, relayed }));
        }
        let memory = Memory { frames: &[frame], spare: &Frame::new(), stream: b"__stream__" };
        let mut drops = Vec::new();
        let mut failed = |drop, relayed: Option<Relayed>| drops.push((drop, relayed.map(|it| it.bytes)));
        assert_eq!(batch.flush(memory, &listeners, &mut relays, &mut failed), 3);
        assert_eq!(drops, [(DropReason::TooLarge, Some(3))]);
        assert!(batch.is_empty());

        let mut received = Vec::new();
        for _ in 0..3 {
            let mut buffer = [0; 16];
            let (len, from) = receiver.recv_from(&mut buffer).expect("receive");
            received.push((from == local, String::from_utf8_lossy(&buffer[..len]).into_owned()));
        }
        let expected = [(true, "owned"), (false, "frame"), (false, "stream")];
        assert_eq!(received, expected.map(|(from, text)| (from, text.to_owned())));
    }

    /// A pair of local sockets stands in for a network that holds datagrams: they count as unsent until they are read.
    #[test]
    fn nothing_is_sent_to_unproven_addresses_while_much_is_unsent() {
        let (near, far) = UnixDatagram::pair().expect("a pair");
        let size = SockRef::from(&near).send_buffer_size().expect("size");
        let mut held = 0;
        while unsent(&near).expect("size") <= size / 4 {
            held += near.send(&[0; 1000]).expect("a quarter is free") / 1000;
        }
        let local = "127.0.0.1:9".parse().expect("address");
        let socket = UdpSocket::from(OwnedFd::from(near));
        let listeners = [Some(Listener::new(UdpListener { socket, local, wildcard: false, quic: None }))];
        let mut relays = Relays::new(Offloads::default());
        listeners[0].as_ref().expect("open").count_unproven(Instant::from_nanos(1), size);
        let mut drops = || {
            let mut batch = Batch::new(false);
            for (index, proven) in [(0, false), (0, true)] {
                let (route, payload) = (Route::Listener { index, proven }, Payload::Owned(vec![0]));
                let out = Outgoing { route, to: local, source: None, head: None, payload, relayed: None };
                assert!(!batch.push(out));
            }
            let (memory, mut drops) = (Memory { frames: &[], spare: &Frame::new(), stream: b"" }, Vec::new());
            batch.flush(memory, &listeners, &mut relays, &mut |drop, _| drops.push(drop));
            drops
        };
        // Such a socket sends to no IP address, so an attempt fails.
        assert_eq!(drops(), [DropReason::SendFailed, DropReason::SendBacklog], "proven addresses come first");
        (0..held).for_each(|_| assert_eq!(far.recv(&mut [0; 1000]).expect("receive"), 1000));
        assert_eq!(drops(), [DropReason::SendFailed; 2]);
    }

    #[test]
    fn push_reports_a_full_batch() {
        let mut batch = Batch::new(true);
        let mut push = || {
            let to = "127.0.0.1:9".parse().expect("address");
            let payload = Payload::Owned(Vec::new());
            let route = Route::Listener { index: 0, proven: true };
            batch.push(Outgoing { route, to, source: None, head: None, payload, relayed: None })
        };
        assert!((1..FULL).all(|_| !push()));
        assert!(push());
    }
}
