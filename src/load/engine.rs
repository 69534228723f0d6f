//! What every action of the load runs on: sockets, clients, time.
//!
//! One thread. A turn: wait (not at all while packets are due), take a bounded share from every socket that is
//! ready, look after requests without an answer, send what came of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::client::{self, Client};
use super::flow::Flow;
use super::links::{Incoming, Links};
use super::media::{Direction, LEN, Stamp};
use super::options::{Options, Via};
use super::port::Port;
use crate::base::time::Instant;
use crate::client::data::{Received, channel_head, read};
use crate::client::{Credentials, Link};
use crate::net::syscall::{Epoll, Events, RecvBatch, SendBatch, ready};
use crate::wire::channel_data::padding;
use crate::wire::message::method;
use crate::wire::writer::{Writer, write_send_head};

/// Peers' tokens start here; below are the clients' slots.
const PEER: u64 = 1 << 32;
/// Allocations that share a peer's socket.
const PER_PEER: u32 = 256;
/// Peers' sockets at most.
const PEERS_MAX: u32 = 16;
/// Within this time of the next packet the thread does not sleep: its waits are whole milliseconds.
const SPIN: u64 = 2_000_000;
/// The longest sleep, in nanoseconds: progress is shown meanwhile.
const SLEEP_MAX: u64 = 100_000_000;
/// Kinds of errors told apart; more are counted together.
const ERRORS_MAX: usize = 32;
/// The transaction of every Send indication: nothing answers it.
const INDICATION_ID: [u8; 12] = [0x5e; 12];

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its link can be used (only for links without a client).
    Open,
    /// Packets may flow.
    Ready,
    /// Its allocation is given back, or its question answered.
    Done,
    /// It is over; the reason is counted.
    Failed,
}

/// Everything of a run.
pub struct Engine {
    /// What is to be done.
    pub options: Options,
    /// Nanoseconds of the monotonic clock, as of this turn.
    pub now: u64,
    /// Packets.
    pub flow: Flow,
    /// What became of clients since this was emptied: slot and outcome.
    pub outcomes: Vec<(usize, Outcome)>,
    /// What went wrong how often.
    pub errors: BTreeMap<String, u64>,
    /// Nanoseconds in turns that found nothing to do.
    pub idle: u64,
    clock: fn() -> u64,
    epoll: Epoll,
    events: Events,
    links: Links,
    peers: Vec<Port>,
    peers_dirty: Vec<usize>,
    clients: Vec<Option<Client>>,
    /// Binding requests that wait for an answer, by slot.
    questions: Vec<Option<[u8; 12]>>,
    login: Arc<Credentials>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    received: RecvBatch,
    sending: SendBatch,
    payload: Vec<u8>,
    /// The front of a Send indication, or a question.
    head: Vec<u8>,
}

impl Engine {
    /// Room for `slots` clients at once.
    ///
    /// # Errors
    /// A user name that no request can carry; the error of a socket that cannot be opened.
    pub fn new(options: &Options, slots: u32, clock: fn() -> u64) -> io::Result<Self> {
        let login = Credentials::new(&options.username, &options.password).map_err(io::Error::other)?;
        let epoll = Epoll::new()?;
        let links = Links::new(options, slots, super::tls::config(options)?, &epoll)?;
        let ip = match options.peer_address {
            Some(ip) => ip,
            None => towards(options.target.address)?,
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
            outcomes: Vec::new(),
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
            login: Arc::new(login),
            timers: BinaryHeap::new(),
            received: RecvBatch::new(),
            // Without trains one datagram at a time, as browsers and media servers send them.
            sending: SendBatch::new(options.trains),
            payload: vec![0x5a; options.size.max(LEN)],
            head: Vec::new(),
            options: options.clone(),
        })
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.clients.len()
    }

    /// Counts an error.
    pub fn fail(&mut self, text: &str) {
        let known = self.errors.len() < ERRORS_MAX || self.errors.contains_key(text);
        *self.errors.entry(if known { text } else { "others" }.to_owned()).or_default() += 1;
    }

    /// Starts client `number` in its slot (the remainder by the number of slots): it will become ready, or fail.
    pub fn start(&mut self, number: u32) {
        let slot = number as usize % self.slots();
        let peer = self.peers[slot % self.peers.len()].local();
        let channel = match self.options.via {
            // From the range that every RFC has (RFC 8656 section 12).
            Via::Channel => Some(0x4000 + (number & 0x0fff) as u16),
            Via::Indication => None,
        };
        let link = match self.links.are_streams() {
            true => Link::Stream,
            false => Link::Datagrams { server: self.options.target.address },
        };
        self.clients[slot] = Some(Client::new(number, peer, channel, link, &self.login));
        if self.open(slot) {
            self.begin(slot);
        }
    }

    /// Opens the link of a slot without a client: `true` when it is open at once.
    pub fn open(&mut self, slot: usize) -> bool {
        match self.links.open(slot, &self.epoll) {
            Ok(open) => open,
            Err(error) => {
                self.lose(slot, &error.to_string());
                false
            }
        }
    }

    fn begin(&mut self, slot: usize) {
        let Some(client) = &mut self.clients[slot] else {
            self.outcomes.push((slot, Outcome::Open));
            return;
        };
        client.start(Instant::from_nanos(self.now));
        self.attend(slot);
    }

    fn lose(&mut self, slot: usize, reason: &str) {
        self.fail(reason);
        self.clear(slot);
        self.outcomes.push((slot, Outcome::Failed));
    }

    /// Ends a slot's client and link.
    pub fn clear(&mut self, slot: usize) {
        self.links.close(slot);
        self.clients[slot] = None;
        self.questions[slot] = None;
    }

    /// Has a client give its allocation back.
    pub fn release(&mut self, slot: usize) {
        if let Some(client) = &mut self.clients[slot] {
            client.release(Instant::from_nanos(self.now));
            self.attend(slot);
        }
    }

    /// Whether this slot's client can have packets.
    pub fn is_ready(&self, slot: usize) -> bool {
        self.clients[slot].as_ref().is_some_and(Client::is_ready)
    }

    /// Asks the server for the address of client `number`, without an allocation.
    pub fn ask(&mut self, number: u32) {
        let slot = number as usize % self.slots();
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id[4..].copy_from_slice(&self.now.to_be_bytes());
        self.questions[slot] = Some(id);
        Writer::request(&mut self.head, method::BINDING, id);
        // From the same address however many it asks.
        self.links.push(slot, slot as u32, &[&self.head]);
    }

    /// Whether this slot's question has no answer yet.
    pub fn is_asking(&self, slot: usize) -> bool {
        self.questions[slot].is_some()
    }

    /// Lets a client go on: what it wants to send, what became of it, when to look again.
    fn attend(&mut self, slot: usize) {
        let now = Instant::from_nanos(self.now);
        let Some(client) = &mut self.clients[slot] else { return };
        let outcome = client.poll(now);
        let number = client.number();
        while let Some(message) = client.poll_transmit() {
            self.links.push(slot, number, &[message]);
        }
        if let Some(at) = client.arm() {
            self.timers.push(Reverse((at, slot)));
        }
        match outcome {
            None => {}
            Some(client::Outcome::Ready) => self.outcomes.push((slot, Outcome::Ready)),
            Some(client::Outcome::Done) => self.outcomes.push((slot, Outcome::Done)),
            Some(client::Outcome::Failed(reason)) => self.lose(slot, &reason),
        }
    }

    /// Sends a packet from a slot's client to its peer.
    pub fn send_from_client(&mut self, slot: usize) {
        let Some(client) = &self.clients[slot] else { return };
        let (number, len) = (client.number(), self.options.size);
        let stamp = Stamp { client: number, at: self.now, direction: Direction::FromClient };
        stamp.write(&mut self.payload);
        let payload = &self.payload[..len];
        let pushed = match client.channel() {
            // The options keep it below 64 KiB.
            Some(channel) => self.links.push(slot, number, &[&channel_head(channel, len as u16), payload]),
            None => {
                write_send_head(&mut self.head, client.peer(), len, false, INDICATION_ID);
                let padding = &[0; 3][..padding(len)];
                self.links.push(slot, number, &[&self.head, payload, padding])
            }
        };
        if pushed {
            self.flow.sent(stamp.direction, self.now);
        } else {
            self.fail("the server does not take what is sent");
        }
    }

    /// Sends a packet from a slot's peer to its client.
    pub fn send_from_peer(&mut self, slot: usize) {
        let Some(client) = &self.clients[slot] else { return };
        let Some(relayed) = client.relayed() else { return };
        let stamp = Stamp { client: client.number(), at: self.now, direction: Direction::FromPeer };
        stamp.write(&mut self.payload);
        let peer = slot % self.peers.len();
        if self.peers[peer].push(relayed, None, &[&self.payload[..self.options.size]]) {
            self.peers_dirty.push(peer);
        }
        self.flow.sent(stamp.direction, self.now);
    }

    /// One turn; it sleeps when nothing is due before `due`.
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
        let (flow, now) = (&mut self.flow, self.now);
        if token >= PEER {
            let peer = &self.peers[(token - PEER) as usize];
            peer.receive(&mut self.received, |payload, _| {
                if let Some(stamp) = Stamp::read(payload) {
                    flow.received(stamp, now);
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
            self.outcomes.push((slot, Outcome::Done));
        }
        for slot in arrived.heard {
            self.attend(slot);
        }
        for (slot, error) in arrived.closed {
            self.lose(slot, &format!("the connection ended: {error}"));
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

/// What came in for clients, to be dealt with when the links are free again. By slots.
#[derive(Default)]
struct Arrived {
    opened: Vec<usize>,
    /// Questions that have their answer.
    answered: Vec<usize>,
    /// Clients that got a response.
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
                    flow.received(stamp, now);
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

/// The address of ours that packets for `target` leave from.
fn towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}
