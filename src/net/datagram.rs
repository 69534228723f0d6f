//! Datagrams of UDP clients and of peers: received in batches, sent in batches, never copied in between.
//!
//! The worker receives ([`Datagrams::receive_from_clients`], [`Datagrams::receive_from_peers`]), takes the datagrams
//! one by one ([`Datagrams::next`]), asks the protocol what to do with each, and queues the result. Received bytes
//! stay in their frames until [`Datagrams::flush`], so the worker flushes before a receive call that needs the
//! frames.

pub mod batch;
mod listener;
mod listeners;
pub mod relay;
mod share;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

use super::admission::Descriptor;
use super::common_change::CommonChange;
use super::socket::UdpListener;
use super::syscall::{BATCH, Epoll, Offloads, RecvBatch};
use super::token::{Generation, Token};
use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::turn::action::{DropReason, OpenError, PeerHeader, PeerIcmp, RelayId, Relayed};
use crate::turn::five_tuple::{Client, Link};
use crate::wire::frame::Frame;
use crate::wire::{channel_data, indication};
use batch::{Batch, Memory, Outgoing, Payload, Route};
use listeners::Listeners;
use relay::{MESSAGES, Relays, Standing};
use share::likely;

/// A ChannelData header.
type Head = [u8; channel_data::HEADER_LEN];

/// The UDP sockets of one worker.
pub struct Datagrams {
    epoll: Rc<Epoll>,
    listeners: Listeners,
    relays: Relays,
    received: RecvBatch,
    /// Number of frames of `received` in use: their datagrams may still be queued in `batch`.
    frames_used: usize,
    batch: Batch,
    /// Holds a datagram of a coalesced frame that needs a header longer than four bytes.
    spare: Frame,
    /// The start of this turn.
    now: Instant,
}

/// The result of a receive call.
#[derive(Debug, Default)]
pub struct Arrived {
    /// The frames received into.
    frames: Range<usize>,
    /// The start of the next datagram in the first of them.
    start: usize,
    /// Whether the socket may hold more.
    pub more: bool,
}

/// One datagram in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The frame.
    pub frame: usize,
    /// The bytes of the datagram in the frame. A coalesced frame holds several datagrams.
    pub range: Range<usize>,
}

/// A peer's datagram with the header that its client expects.
pub struct Wrapped {
    head: Option<Head>,
    payload: Payload,
    /// Zero bytes to append, on a stream.
    padding: usize,
}

impl Datagrams {
    /// Registers the listeners of one worker with `epoll`, edge-triggered; no relayed address is open.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`; `InvalidInput` for more than 65,536 listeners.
    pub fn new(epoll: Rc<Epoll>, listeners: Vec<UdpListener>, offloads: Offloads) -> io::Result<Self> {
        Ok(Self {
            listeners: Listeners::new(Rc::clone(&epoll), listeners)?,
            epoll,
            relays: Relays::new(offloads),
            received: RecvBatch::new(),
            frames_used: 0,
            batch: Batch::new(offloads.segmentation),
            spare: Frame::new(),
            now: Instant::default(),
        })
    }

    /// Begins a turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Returns the QUIC server that shares the port of this listener.
    pub fn quic_server(&self, listener: u16) -> Option<SocketAddr> {
        self.listeners.get(listener)?.quic
    }

    /// Returns how many listeners there are.
    pub fn listeners(&self) -> u16 {
        // More are refused.
        self.listeners.all().len() as u16
    }

    /// Adds listeners.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`; `InvalidInput` for more than 65,536 addresses since the start.
    pub fn add_listeners(&mut self, added: Vec<UdpListener>) -> io::Result<()> {
        added.into_iter().try_for_each(|listener| self.listeners.add(listener))
    }

    /// Changes listeners that are open, and closes removed ones. Returns the sockets of those that serve all clients again.
    pub fn change_listeners(&mut self, change: &CommonChange) -> Vec<UdpListener> {
        for updated in change.updated.iter().filter(|updated| !updated.transport.is_stream()) {
            self.listeners.set_quic(updated.address, updated.quic);
        }
        change.removed.iter().for_each(|(address, in_use)| self.listeners.remove(*address, in_use));
        change.closed.iter().for_each(|address| self.listeners.close(*address));
        change.revived.iter().filter_map(|address| self.listeners.revive(*address)).collect()
    }

    /// Returns whether a removed listener is held open by clients of this worker.
    pub fn has_held_listeners(&self) -> bool {
        self.listeners.has_held()
    }

    /// Releases the removed listeners that no client needs any more.
    pub fn release_listeners(&mut self, is_needed: impl Fn(Link) -> bool) {
        for index in self.listeners.held() {
            if !is_needed(Link(Token::Udp(index).pack())) {
                self.listeners.release(index);
            }
        }
    }

    /// Returns whether only clients with an allocation are served at a listener.
    pub fn is_removed(&self, listener: u16) -> bool {
        self.listeners.is_removed(listener)
    }

    /// Returns whether this listener was read in `turn`.
    pub fn was_read(&self, listener: u16, turn: u32) -> bool {
        self.listeners.get(listener).is_some_and(|listener| listener.was_read(turn))
    }

    /// Receives a batch from a listener. The caller must flush first ([`Datagrams::flush`]). Returns `None` if
    /// nothing arrived and the socket is empty.
    pub fn receive_from_clients(&mut self, listener: u16, turn: u32) -> Option<Arrived> {
        debug_assert!(self.batch.is_empty(), "frames are in use");
        let listener = self.listeners.get_mut(listener)?;
        let (count, more) = listener.receive(&mut self.received, turn);
        self.frames_used = count;
        (count > 0 || more).then_some(Arrived { frames: 0..count, start: 0, more })
    }

    /// Returns whether the frames have room for another relayed address or QUIC flow. If not, flush and call
    /// [`Datagrams::reuse_frames`].
    pub fn has_frames(&self) -> bool {
        BATCH - self.frames_used >= MESSAGES
    }

    /// Marks all frames as free. The caller must flush first.
    pub fn reuse_frames(&mut self) {
        debug_assert!(self.batch.is_empty(), "frames are in use");
        self.frames_used = 0;
    }

    /// Receives from a relayed address into the frames after those in use. Returns `None` if the relay is closed or
    /// has no datagrams.
    pub fn receive_from_peers(
        &mut self,
        relay: RelayId,
        generation: Generation,
        turn: u32,
    ) -> Option<Arrived> {
        let first = self.frames_used;
        let (count, more) = self.relays.receive(relay, generation, &mut self.received, first, turn)?;
        self.frames_used += count;
        Some(Arrived { frames: first..first + count, start: 0, more })
    }

    /// Receives at most `share` messages from the server side of a QUIC flow into the frames after those in use, and
    /// sets `share` to the number to request next. Returns `None` if there are no datagrams.
    pub fn receive_from(&mut self, socket: &std::net::UdpSocket, share: &mut usize) -> Option<Arrived> {
        let first = self.frames_used;
        let count = self.received.receive(socket, first, (*share).min(MESSAGES)).ok()?;
        *share = likely(count, self.received.datagrams(first..first + count), MESSAGES);
        self.frames_used += count;
        Some(Arrived { frames: first..first + count, start: 0, more: false })
    }

    /// Returns the next datagram that arrived; usually one per frame.
    pub fn next(&self, arrived: &mut Arrived) -> Option<Datagram> {
        let frame = arrived.frames.clone().next()?;
        let (len, segment) =
            (self.received.frames[frame].bytes().len(), self.received.origins[frame].segment);
        let start = arrived.start;
        let end = if segment == 0 { len } else { len.min(start + segment) };
        // An empty datagram counts, too.
        if end >= len {
            (arrived.frames.start, arrived.start) = (frame + 1, 0);
        } else {
            arrived.start = end;
        }
        Some(Datagram { frame, range: start..end })
    }

    /// Returns the bytes of a datagram.
    pub fn bytes(&self, datagram: &Datagram) -> &[u8] {
        &self.received.frames[datagram.frame].bytes()[datagram.range.clone()]
    }

    /// Returns the sender of a datagram, canonical.
    pub fn sender(&self, datagram: &Datagram) -> SocketAddr {
        self.received.origins[datagram.frame].from
    }

    /// Returns the client that sent this datagram to a listener; `None` if its source port is 0.
    pub fn client(&self, listener: u16, datagram: &Datagram) -> Option<Client> {
        let origin = &self.received.origins[datagram.frame];
        self.listeners.get(listener)?.client(listener, origin)
    }

    /// Queues a UDP client's datagram to a peer; `payload` is a part of the received datagram. Returns whether the
    /// batch is full and must be flushed, like all functions that queue.
    #[must_use = "a full batch must be flushed"]
    pub fn send_from_client(
        &mut self,
        (relay, dont_fragment): (RelayId, bool),
        peer: SocketAddr,
        datagram: &Datagram,
        payload: Range<usize>,
    ) -> bool {
        let start = datagram.range.start;
        let payload = Payload::Frame(datagram.frame, start + payload.start..start + payload.end);
        self.push_to_peer((relay, dont_fragment), peer, payload)
    }

    /// Queues a stream client's datagram to a peer; the payload is a range of the bytes passed to
    /// [`Datagrams::flush`].
    #[must_use = "a full batch must be flushed"]
    pub fn send_from_stream(
        &mut self,
        (relay, dont_fragment): (RelayId, bool),
        peer: SocketAddr,
        payload: Range<usize>,
    ) -> bool {
        self.push_to_peer((relay, dont_fragment), peer, Payload::Stream(payload))
    }

    fn push_to_peer(
        &mut self,
        (relay, dont_fragment): (RelayId, bool),
        peer: SocketAddr,
        payload: Payload,
    ) -> bool {
        let route = Route::Relay { relay, dont_fragment };
        // The length field of a message has 16 bits.
        let relayed = Some(Relayed { relay, from_client: true, bytes: payload.size() as u16 });
        self.batch.push(Outgoing { route, to: peer, source: None, head: None, payload, relayed })
    }

    /// Queues a message of the server to a UDP client. `proven`: whether the client has shown that it receives at its
    /// address; if not, the message is dropped while the send buffer is needed for others.
    #[must_use = "a full batch must be flushed"]
    pub fn reply(&mut self, (listener, proven): (u16, bool), client: Client, message: Vec<u8>) -> bool {
        self.batch.push(self.to_client((listener, proven), client, None, (Payload::Owned(message), None)))
    }

    /// Queues a whole datagram, unchanged, to a UDP client; `proven` as in [`Datagrams::reply`].
    #[must_use = "a full batch must be flushed"]
    pub fn forward(&mut self, listener: (u16, bool), client: Client, datagram: Datagram) -> bool {
        let payload = Payload::Frame(datagram.frame, datagram.range);
        self.batch.push(self.to_client(listener, client, None, (payload, None)))
    }

    /// Adds the header for `transport` to a peer's datagram.
    ///
    /// # Errors
    /// `TooLarge` if the datagram does not fit into a message.
    pub fn wrap(
        &mut self,
        datagram: &Datagram,
        header: PeerHeader,
        transport: Transport,
    ) -> Result<Wrapped, DropReason> {
        let Datagram { frame: index, range } = datagram;
        let len = range.len();
        let padding = if transport.is_stream() { channel_data::padding(len) } else { 0 };
        let frame = &mut self.received.frames[*index];
        // In a coalesced frame, the bytes before a datagram belong to its neighbour.
        let coalesced = self.received.origins[*index].segment != 0;
        let (head, payload, padding) = match header {
            PeerHeader::Channel(number) if coalesced => {
                let mut head = [0; channel_data::HEADER_LEN];
                // A frame is shorter than 64 KiB.
                channel_data::write_header(&mut head, number, len as u16);
                (Some(head), Payload::Frame(*index, range.clone()), padding)
            }
            PeerHeader::Channel(number) => {
                channel_data::prepend(frame, number).ok_or(DropReason::TooLarge)?;
                (None, Payload::Frame(*index, 0..frame.bytes().len()), padding)
            }
            // A call's first packets, before it has a channel, are copied once each.
            PeerHeader::Data { peer, transaction_id } if coalesced => {
                self.spare.fill(&frame.bytes()[range.clone()]);
                indication::prepend_data(&mut self.spare, peer.0, transaction_id)
                    .ok_or(DropReason::TooLarge)?;
                (None, Payload::Spare(0..self.spare.bytes().len()), 0)
            }
            PeerHeader::Data { peer, transaction_id } => {
                indication::prepend_data(frame, peer.0, transaction_id).ok_or(DropReason::TooLarge)?;
                (None, Payload::Frame(*index, 0..frame.bytes().len()), 0)
            }
        };
        Ok(Wrapped { head, payload, padding })
    }

    /// Queues a wrapped datagram, which counts as `relayed`, to a UDP client. Returns whether the batch must be flushed.
    #[must_use = "a full batch must be flushed"]
    pub fn send_wrapped(
        &mut self,
        listener: u16,
        client: Client,
        wrapped: Wrapped,
        relayed: Relayed,
    ) -> bool {
        let Wrapped { head, payload, .. } = wrapped;
        // The next datagram needs the spare frame.
        let spare = matches!(payload, Payload::Spare(_));
        self.batch.push(self.to_client((listener, true), client, head, (payload, Some(relayed)))) || spare
    }

    /// Returns the pieces of a wrapped datagram in the order in which a stream carries them.
    pub fn pieces<'a>(&'a self, wrapped: &'a Wrapped) -> [&'a [u8]; 3] {
        let head = wrapped.head.as_ref().map_or(&[][..], |head| head);
        [head, self.memory(&[]).bytes(&wrapped.payload), &[0; 3][..wrapped.padding]]
    }

    /// Addresses a datagram to a UDP client, from the address that the client sent to.
    fn to_client(
        &self,
        (index, proven): (u16, bool),
        client: Client,
        head: Option<Head>,
        (payload, relayed): (Payload, Option<Relayed>),
    ) -> Outgoing {
        let listener = self.listeners.get(index);
        if let Some(listener) = listener.filter(|_| !proven) {
            listener.count_unproven(self.now, payload.size());
        }
        let source = listener.and_then(|listener| listener.source_for(client));
        let route = Route::Listener { index, proven };
        Outgoing { route, to: client.five_tuple.client, source, head, payload, relayed }
    }

    fn memory<'a>(&'a self, stream: &'a [u8]) -> Memory<'a> {
        Memory { frames: &self.received.frames, spare: &self.spare, stream }
    }

    /// Returns whether nothing is queued.
    pub fn is_flushed(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sends all queued datagrams and returns how many were sent. `stream` holds the payloads of stream clients.
    /// Calls `failed` for each datagram that the kernel refuses, with what it counts for.
    pub fn flush(&mut self, stream: &[u8], failed: &mut dyn FnMut(DropReason, Option<Relayed>)) -> usize {
        let memory = Memory { frames: &self.received.frames, spare: &self.spare, stream };
        self.batch.flush(memory, self.listeners.all(), &mut self.relays, failed)
    }

    /// Returns whether segmentation was refused for the first time.
    pub fn take_segmentation_refused(&mut self) -> bool {
        self.batch.take_segmentation_refused()
    }

    /// Returns the last peer without a route since the call before.
    pub fn take_no_route(&mut self) -> Option<IpAddr> {
        self.batch.take_no_route()
    }

    /// Binds `address` and registers it as `relay`, holding `descriptor` while it is open.
    ///
    /// # Errors
    /// `InUse` if another port may work, `NoAddress` if the address is not this machine's, else `Unavailable`.
    pub fn open_relay(
        &mut self,
        relay: RelayId,
        address: SocketAddr,
        descriptor: Descriptor,
    ) -> Result<(), OpenError> {
        self.relays.open(&self.epoll, relay, address, descriptor)
    }

    /// Closes a relayed address. The caller must flush first: `relay` may be reused at once.
    pub fn close_relay(&mut self, relay: RelayId) {
        self.relays.close(relay);
    }

    /// Returns how many datagrams at a relayed address the kernel has dropped since the last call, because its receive buffer was
    /// full.
    pub fn take_lost(&mut self, relay: RelayId) -> u64 {
        self.relays.take_lost(relay)
    }

    /// Returns how many relayed addresses are open.
    pub fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Returns the state of a relayed address in `turn`.
    pub fn standing(&mut self, relay: RelayId, generation: Generation, turn: u32) -> Standing {
        self.relays.standing(relay, generation, turn)
    }

    /// Leaves a relayed address over to the next turn. Returns whether it was not already.
    pub fn leave_over(&mut self, relay: RelayId, generation: Generation, readiness: u32) -> bool {
        self.relays.leave_over(relay, generation, readiness)
    }

    /// Returns the readiness with which a relayed address was left over; 0 if it was not.
    pub fn take_left_over(&mut self, relay: RelayId, generation: Generation) -> u32 {
        self.relays.take_left_over(relay, generation)
    }

    /// Returns the next ICMP error about a datagram sent from `relay`.
    pub fn next_icmp(&mut self, relay: RelayId, generation: Generation) -> Option<PeerIcmp> {
        self.relays.next_icmp(relay, generation)
    }
}

#[cfg(test)]
mod tests;
