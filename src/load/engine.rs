//! The engine of every action of the load: sockets, clients and time, on one thread.
//!
//! A turn waits (not at all while packets are due), takes a bounded share from every ready socket, repeats requests
//! without an answer, and sends the resulting packets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::cause::Cause;
use super::client::{self, Client};
use super::flow::Flow;
use super::links::{Incoming, Links};
use super::media::{Direction, LEN, Stamp};
use super::options::{Connect, Via};
use super::port::Port;
use crate::base::time::Instant;
use crate::client::Credentials;
use crate::client::data::{Received, channel_head, read};
use crate::net::syscall::{Epoll, Events, RecvBatch, SendBatch, ready};
use crate::wire::channel_data::padding;
use crate::wire::message::method;
use crate::wire::writer::{Writer, write_send_head};

/// Tokens of peers' sockets start here; those below are slots of clients.
const PEER: u64 = 1 << 32;
/// Allocations that share one peer socket.
const PER_PEER: u32 = 256;
/// The maximum number of peer sockets.
const PEERS_MAX: u32 = 16;
/// The thread does not sleep if a packet is due within this time, because it sleeps in whole milliseconds.
const SPIN: u64 = 2_000_000;
/// The longest sleep, in nanoseconds, so that progress is shown meanwhile.
const SLEEP_MAX: u64 = 100_000_000;
/// Distinct errors that are counted; any further ones are counted together.
const ERRORS_MAX: usize = 32;
/// The longest payload, in bytes.
pub const PAYLOAD_MAX: usize = 65_000;
/// The transaction id of every Send indication, which has no response.
const INDICATION_ID: [u8; 12] = [0x5e; 12];

/// An event of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEvent {
    /// Its link is open (only for links without a client).
    Open,
    /// Packets may flow.
    Ready,
    /// Its allocation is released, or its Binding request answered.
    Done,
    /// It has failed; the reason is counted.
    Failed(Cause),
}

/// The state of a run.
pub struct Engine {
    /// The time of this turn, in nanoseconds of the monotonic clock.
    pub now: u64,
    /// The packets in flight and their statistics.
    pub flow: Flow,
    /// Events by slot since the list was last emptied.
    pub slot_events: Vec<(usize, SlotEvent)>,
    /// Errors and how often each occurred.
    pub errors: BTreeMap<String, u64>,
    /// Nanoseconds in turns without events.
    pub idle: u64,
    clock: fn() -> u64,
    epoll: Epoll,
    events: Events,
    links: Links,
    peers: Vec<Port>,
    peers_dirty: Vec<usize>,
    clients: Vec<Option<Client>>,
    /// The transaction ids of unanswered Binding requests, by slot.
    questions: Vec<Option<[u8; 12]>>,
    via: Via,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    received: RecvBatch,
    sending: SendBatch,
    payload: Vec<u8>,
    /// The header of a Send indication, or a Binding request.
    head: Vec<u8>,
}

impl Engine {
    /// Creates an engine for `slots` clients at once.
    ///
    /// # Errors
    /// The error of a socket that cannot be opened, or invalid TLS settings.
    pub fn new(connect: &Connect, slots: u32, clock: fn() -> u64) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let links = Links::new(connect, slots as usize, &epoll)?;
        let ip = match connect.peer_address {
            Some(ip) => ip,
            None => local_address_for(connect.routes[0].address)?,
        };
        let mut peers = Vec::new();
        for index in 0..slots.div_ceil(PER_PEER).clamp(1, PEERS_MAX) {
            let port = Port::bind((ip, 0).into())?;
            epoll.add(&port.socket, PEER + u64::from(index), ready::READ)?;
            peers.push(port);
        }
        let slots = slots as usize;
        Ok(Self {
            now: clock(),
            flow: Flow::default(),
            slot_events: Vec::new(),
            errors: BTreeMap::new(),
            idle: 0,
            clock,
            epoll,
            events: Events::new(256),
            links,
            peers,
            peers_dirty: Vec::new(),
            clients: (0..slots).map(|_| None).collect(),
            questions: vec![None; slots],
            via: connect.via,
            timers: BinaryHeap::new(),
            received: RecvBatch::new(),
            // Without segmentation every datagram is sent alone, like browsers and media servers do.
            sending: SendBatch::new(connect.trains),
            payload: vec![0x5a; PAYLOAD_MAX],
            head: Vec::new(),
        })
    }

    /// Returns the number of slots.
    pub fn slots(&self) -> usize {
        self.clients.len()
    }

    /// Counts an error.
    pub fn fail(&mut self, text: &str) {
        let known = self.errors.len() < ERRORS_MAX || self.errors.contains_key(text);
        *self.errors.entry(if known { text } else { "others" }.to_owned()).or_default() += 1;
    }

    /// Starts client `number` in its slot (the remainder by the number of slots) by this route; an event reports whether
    /// it becomes ready.
    pub fn start(&mut self, number: u32, route: usize, login: &Arc<Credentials>) {
        let slot = number as usize % self.slots();
        let peer = self.peers[slot % self.peers.len()].local();
        let channel = match self.via {
            // Use the range that all RFCs share (RFC 8656 section 12).
            Via::Channel => Some(0x4000 + (number & 0x0fff) as u16),
            Via::Indication => None,
        };
        let link = self.links.link(route);
        self.clients[slot] = Some(Client::new(number, peer, channel, link, login));
        if self.open(slot, route) {
            self.begin(slot);
        }
    }

    /// Opens the link of a slot without a client; returns `true` if it is open at once.
    pub fn open(&mut self, slot: usize, route: usize) -> bool {
        match self.links.open(slot, route, &self.epoll) {
            Ok(open) => open,
            Err(error) => {
                self.lose(slot, &error.to_string(), Cause::Unopened);
                false
            }
        }
    }

    fn begin(&mut self, slot: usize) {
        let Some(client) = &mut self.clients[slot] else {
            self.slot_events.push((slot, SlotEvent::Open));
            return;
        };
        client.start(Instant::from_nanos(self.now));
        self.attend(slot);
    }

    fn lose(&mut self, slot: usize, reason: &str, cause: Cause) {
        self.fail(reason);
        self.clear(slot);
        self.slot_events.push((slot, SlotEvent::Failed(cause)));
    }

    /// Removes the client and the link of a slot.
    pub fn clear(&mut self, slot: usize) {
        self.links.close(slot);
        self.clients[slot] = None;
        self.questions[slot] = None;
    }

    /// Makes a client release its allocation.
    pub fn release(&mut self, slot: usize) {
        if let Some(client) = &mut self.clients[slot] {
            client.release(Instant::from_nanos(self.now));
            self.attend(slot);
        }
    }

    /// Returns whether packets may flow for this slot's client.
    pub fn is_ready(&self, slot: usize) -> bool {
        self.clients[slot].as_ref().is_some_and(Client::is_ready)
    }

    /// Sends a Binding request for client `number`, without an allocation.
    pub fn ask(&mut self, number: u32) {
        let slot = number as usize % self.slots();
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id[4..].copy_from_slice(&self.now.to_be_bytes());
        self.questions[slot] = Some(id);
        Writer::request(&mut self.head, method::BINDING, id);
        // A slot keeps its address for all requests.
        self.links.push(slot, slot as u32, &[&self.head]);
    }

    /// Returns whether this slot's Binding request is unanswered.
    pub fn is_asking(&self, slot: usize) -> bool {
        self.questions[slot].is_some()
    }

    /// Polls a client: sends its messages, sets its timer and reports its milestone.
    fn attend(&mut self, slot: usize) {
        let now = Instant::from_nanos(self.now);
        let Some(client) = &mut self.clients[slot] else { return };
        let milestone = client.poll(now);
        let number = client.number();
        while let Some(message) = client.poll_transmit() {
            self.links.push(slot, number, &[message]);
        }
        if let Some(at) = client.arm() {
            self.timers.push(Reverse((at, slot)));
        }
        match milestone {
            None => {}
            Some(client::Milestone::Ready) => self.slot_events.push((slot, SlotEvent::Ready)),
            Some(client::Milestone::Done) => self.slot_events.push((slot, SlotEvent::Done)),
            Some(client::Milestone::Failed(failure)) => self.lose(slot, &failure.text, failure.cause),
        }
    }

    /// Sends a packet with `len` bytes of payload between the client of a slot and its peer. `at`: the time in its stamp.
    /// Returns `false` if the client's connection cannot take it, which is counted as an error.
    pub fn send(&mut self, way: Direction, slot: usize, len: usize, at: u64) -> bool {
        let Some(client) = &self.clients[slot] else { return false };
        let (number, len) = (client.number(), len.clamp(LEN, PAYLOAD_MAX));
        Stamp { client: number, at, direction: way }.write(&mut self.payload);
        let payload = &self.payload[..len];
        match way {
            Direction::FromClient => {
                let pushed = match client.channel() {
                    // PAYLOAD_MAX is below 64 KiB.
                    Some(channel) => {
                        self.links.push(slot, number, &[&channel_head(channel, len as u16), payload])
                    }
                    None => {
                        write_send_head(&mut self.head, client.peer(), len, false, INDICATION_ID);
                        let padding = &[0; 3][..padding(len)];
                        self.links.push(slot, number, &[&self.head, payload, padding])
                    }
                };
                if pushed {
                    self.flow.sent(way, at);
                } else {
                    self.fail("a packet was not sent: the connection is closed or its queue is full");
                }
                pushed
            }
            Direction::FromPeer => {
                let Some(relayed) = client.relayed() else { return false };
                let peer = slot % self.peers.len();
                if self.peers[peer].push(relayed, None, &[payload]) {
                    self.peers_dirty.push(peer);
                }
                self.flow.sent(way, at);
                true
            }
        }
    }

    /// Returns the ports of all UDP sockets.
    pub fn udp_ports(&self) -> HashSet<u16> {
        self.links.udp_ports().chain(self.peers.iter().map(|peer| peer.local().port())).collect()
    }

    /// Runs one turn, which sleeps until about `due` if nothing happens earlier.
    pub fn turn(&mut self, due: u64) {
        self.flush();
        let timer = self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| at.as_nanos());
        let start = (self.clock)();
        let left = due.min(timer).saturating_sub(start).min(SLEEP_MAX);
        let wait = Duration::from_nanos(left.saturating_sub(SPIN));
        let waited = self.epoll.wait(&mut self.events, Some(wait));
        self.now = (self.clock)();
        if let Err(error) = waited {
            self.fail(&error.to_string());
        }
        if self.events.is_empty() {
            self.idle += self.now - start;
        }
        for index in 0..self.events.len() {
            if let Some((token, readiness)) = self.events.get(index) {
                self.on_ready(token, readiness);
            }
        }
        self.flow.give_up(self.now);
        let now = Instant::from_nanos(self.now);
        while let Some(&Reverse((at, slot))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if let Some(client) = &mut self.clients[slot] {
                client.handle_timeout(now);
                self.attend(slot);
            }
        }
        self.flush();
    }

    fn on_ready(&mut self, token: u64, readiness: u32) {
        // A turn may last milliseconds: packets read late in it arrived late.
        self.now = (self.clock)();
        let (flow, now) = (&mut self.flow, self.now);
        if token >= PEER {
            let peer = &self.peers[(token - PEER) as usize];
            peer.receive(&mut self.received, |payload, _| {
                if let Some(stamp) = Stamp::read(payload) {
                    flow.received(stamp, payload.len(), now);
                }
            });
            return;
        }
        let mut arrived = Arrived::default();
        let (clients, questions) = (&mut self.clients, &mut self.questions);
        self.links.on_event(token as usize, readiness, &mut self.received, &self.epoll, &mut |incoming| {
            arrived.take(incoming, flow, now, clients, questions);
        });
        self.settle(arrived);
    }

    fn settle(&mut self, arrived: Arrived) {
        for slot in arrived.opened {
            self.begin(slot);
        }
        for slot in arrived.answered {
            self.slot_events.push((slot, SlotEvent::Done));
        }
        for slot in arrived.heard {
            self.attend(slot);
        }
        for (slot, error) in arrived.closed {
            self.lose(slot, &format!("the connection ended: {error}"), Cause::Other);
        }
    }

    fn flush(&mut self) {
        let mut arrived = Arrived::default();
        let (flow, now) = (&mut self.flow, self.now);
        let (clients, questions) = (&mut self.clients, &mut self.questions);
        let refused = self.links.flush(&mut self.sending, &self.epoll, &mut |incoming| {
            arrived.take(incoming, flow, now, clients, questions);
        });
        flow.refused(Direction::FromClient, now, refused);
        while let Some(peer) = self.peers_dirty.pop() {
            let refused = self.peers[peer].flush(&mut self.sending);
            self.flow.refused(Direction::FromPeer, self.now, refused);
        }
        self.settle(arrived);
    }
}

/// Events by slot, collected while the links are borrowed.
#[derive(Default)]
struct Arrived {
    opened: Vec<usize>,
    /// Slots whose Binding request was answered.
    answered: Vec<usize>,
    /// Slots whose client received a response.
    heard: Vec<usize>,
    closed: Vec<(usize, io::Error)>,
}

impl Arrived {
    fn take(
        &mut self,
        incoming: Incoming<'_>,
        flow: &mut Flow,
        now: u64,
        clients: &mut [Option<Client>],
        questions: &mut [Option<[u8; 12]>],
    ) {
        let bytes = match incoming {
            Incoming::Open(slot) => return self.opened.push(slot),
            Incoming::Closed(slot, error) => return self.closed.push((slot, error)),
            Incoming::Message(bytes) => bytes,
        };
        let message = match read(bytes) {
            Ok(Received::Channel { payload, .. } | Received::Indication { payload, .. }) => {
                if let Some(stamp) = Stamp::read(payload) {
                    flow.received(stamp, payload.len(), now);
                }
                return;
            }
            Ok(Received::Response(message)) => message,
            Ok(Received::Unreachable { .. }) | Err(_) => return,
        };
        let number = Client::of_transaction(&message);
        let slot = number as usize % clients.len();
        if questions[slot] == Some(message.transaction_id()) {
            questions[slot] = None;
            return self.answered.push(slot);
        }
        if let Some(client) = &mut clients[slot]
            && client.number() == number
        {
            client.handle_response(Instant::from_nanos(now), &message);
            self.heard.push(slot);
        }
    }
}

/// Returns the local address from which packets to `target` leave.
fn local_address_for(target: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}
