//! A TURN client without sockets (RFC 8489, RFC 8656): it logs in, allocates, permits, binds, and carries data.
//!
//! The caller owns the link and the clock. One rule: after every call that may change something, send what
//! [`Client::poll_transmit`] returns until it is `None`, take events from [`Client::poll_event`], and call
//! [`Client::handle_timeout`] at the time of [`Client::poll_timeout`].
//!
//! ```
//! use std::sync::Arc;
//! use hallpass::client::{Allocate, Client, Config, Credentials, Link};
//! use hallpass::base::time::Instant;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Arc::new(Credentials::new("user", "pass")?);
//! let link = Link::Datagrams { server: "192.0.2.1:3478".parse()? };
//! // A real key is random, so that transaction ids cannot be guessed.
//! let mut client = Client::new(Config::new(link).with_credentials(credentials), [7, 7]);
//! let now = Instant::from_nanos(0);
//! client.allocate(now, Allocate::default())?;
//! let request = client.poll_transmit().map(<[u8]>::to_vec);
//! // Send it. Then, for each datagram, `handle_datagram(now, from, bytes)`.
//! assert_eq!(request.map(|bytes| bytes.len()), Some(28));
//! assert!(client.poll_event().is_none());
//! assert_eq!(client.poll_timeout(), Some(Instant::from_nanos(500_000_000)));
//! # Ok(())
//! # }
//! ```
//!
//! The client answers challenges on its own and repeats requests over UDP. It refreshes nothing on its own: the caller
//! knows how long it needs the allocation. Callers that move many packets bypass the events: they read messages with
//! [`data`] and [`stream::Reassembly`] and pass only responses to the client.
//!
//! Everything has a limit: requests in flight, permissions, channels, queued data and events, the unfinished message of
//! a stream. No input from a server panics the client or makes it grow beyond these limits.

#![forbid(unsafe_code)]

mod allocation;
mod challenge;
mod config;
pub mod data;
mod event;
mod key;
mod login;
mod outgoing;
mod request;
mod response;
pub mod stream;
#[cfg(test)]
mod tests;
mod transaction;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub use allocation::{Allocation, CHANNEL_LIFETIME, PEERS_MAX, PERMISSION_LIFETIME};
pub use challenge::{BadChallenge, Challenge};
pub use config::{Algorithms, Config, Credentials, Link, NameTooLong};
pub use event::{Discard, Event, Exchange, Failure, Refusal, Stage};
pub use key::PasswordAlgorithm;
pub use request::{Allocate, Request, UDP};

use allocation::Peers;
use data::Received;
use login::Login;
use outgoing::Outgoing;
use stream::Reassembly;
use transaction::{Due, Ids, Transaction, Transactions};

use crate::base::time::Instant;

/// Maximum number of queued events. When the queue is full, data is dropped and requests return [`SendError::Busy`].
const EVENTS_MAX: usize = 64;
/// Maximum number of data bytes in the queued events.
const EVENT_BYTES_MAX: usize = 256 << 10;

/// A TURN client.
#[derive(Debug)]
pub struct Client {
    config: Config,
    ids: Ids,
    /// The login made from the last challenge.
    login: Option<Arc<Login>>,
    transactions: Transactions,
    allocation: Option<Box<Allocation>>,
    peers: Peers,
    outgoing: Outgoing,
    incoming: Reassembly,
    events: VecDeque<Event>,
    /// Bytes of data in `events`.
    event_bytes: usize,
    software: Option<Box<str>>,
    stage: Stage,
    dropped: u64,
    is_broken: bool,
}

/// Why a request or data cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Too many requests are in flight, or too many events wait to be taken.
    Busy,
    /// There is no allocation.
    NoAllocation,
    /// There is an allocation already, or an Allocate request is in flight.
    HasAllocation,
    /// The limit of [`PEERS_MAX`] permissions or channels is reached.
    Full,
    /// There is no permission for this peer, or it has expired.
    NotPermitted,
    /// More bytes than one message to this peer can carry.
    TooLong,
    /// The send queue for data is full.
    Waiting,
    /// The stream is broken.
    Broken,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many requests are in flight or too many events wait",
            Self::NoAllocation => "there is no allocation",
            Self::HasAllocation => "there is an allocation already",
            Self::Full => "too many permissions or channels",
            Self::NotPermitted => "the peer is not permitted",
            Self::TooLong => "the data is too long for one message",
            Self::Waiting => "too much data waits to be sent",
            Self::Broken => "the stream is broken",
        })
    }
}

impl std::error::Error for SendError {}

impl Client {
    /// Creates a client that has sent nothing yet. Transaction ids are derived from `key`: unless it is random, an
    /// off-path host can forge answers.
    pub fn new(config: Config, key: [u64; 2]) -> Self {
        Self {
            ids: Ids::new(key, config.tag),
            outgoing: Outgoing::new(config.link == Link::Stream),
            config,
            login: None,
            transactions: Transactions::default(),
            allocation: None,
            peers: Peers::default(),
            incoming: Reassembly::default(),
            events: VecDeque::new(),
            event_bytes: 0,
            software: None,
            stage: Stage::default(),
            dropped: 0,
            is_broken: false,
        }
    }

    /// The current allocation.
    pub fn allocation(&self) -> Option<&Allocation> {
        self.allocation.as_deref()
    }

    /// How far the client has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// SOFTWARE of the last response that had one.
    pub fn software(&self) -> Option<&str> {
        self.software.as_deref()
    }

    /// REALM of the last challenge.
    pub fn realm(&self) -> Option<&str> {
        self.login.as_deref().map(Login::realm)
    }

    /// Number of peers' datagrams that were dropped because the event queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The live channel to this peer.
    pub fn channel_to(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        self.peers.channel_to(now, peer)
    }

    /// Sends a Binding request, which asks for the client's address as the server sees it.
    ///
    /// # Errors
    /// [`SendError::Busy`], [`SendError::Broken`].
    pub fn binding(&mut self, now: Instant) -> Result<(), SendError> {
        self.ask(now, Request::Binding)
    }

    /// Asks for an allocation.
    ///
    /// # Errors
    /// [`SendError::HasAllocation`], [`SendError::Busy`], [`SendError::Broken`].
    pub fn allocate(&mut self, now: Instant, parameters: Allocate) -> Result<(), SendError> {
        let asked = self.transactions.iter().any(|t| matches!(t.request, Request::Allocate(_)));
        if asked || self.allocation.is_some() {
            return Err(SendError::HasAllocation);
        }
        self.ask(now, Request::Allocate(parameters))
    }

    /// Refreshes the allocation for `lifetime` seconds; 0 ends it.
    ///
    /// # Errors
    /// [`SendError::NoAllocation`], [`SendError::Busy`], [`SendError::Broken`].
    pub fn refresh(&mut self, now: Instant, lifetime: u32) -> Result<(), SendError> {
        self.ask_of_allocation(now, Request::Refresh { lifetime })
    }

    /// Asks for a permission for the address of `peer`, or for another 300 seconds of it.
    ///
    /// # Errors
    /// [`SendError::NoAllocation`], [`SendError::Full`], [`SendError::Busy`], [`SendError::Broken`].
    pub fn permit(&mut self, now: Instant, peer: SocketAddr) -> Result<(), SendError> {
        if self.allocation.is_some() && !self.peers.has_room_for(now, peer.ip()) {
            return Err(SendError::Full);
        }
        self.ask_of_allocation(now, Request::Permit { peer })
    }

    /// Asks for a channel to `peer`, or for another 600 seconds of it, and returns its number.
    ///
    /// # Errors
    /// [`SendError::NoAllocation`], [`SendError::Full`], [`SendError::Busy`], [`SendError::Broken`].
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) -> Result<u16, SendError> {
        let asked = |number| {
            let bind =
                |t: &Transaction| matches!(t.request, Request::Bind { channel, .. } if channel == number);
            self.transactions.iter().any(bind)
        };
        let channel = self.peers.number_for(now, peer, asked).ok_or(SendError::Full)?;
        self.bind_as(now, channel, peer)?;
        Ok(channel)
    }

    /// Like [`Client::bind`], with a number that the caller chooses. Only the server checks the number.
    ///
    /// # Errors
    /// [`SendError::NoAllocation`], [`SendError::Full`], [`SendError::Busy`], [`SendError::Broken`].
    pub fn bind_as(&mut self, now: Instant, channel: u16, peer: SocketAddr) -> Result<(), SendError> {
        if self.allocation.is_some() && !self.peers.has_room_for(now, peer.ip()) {
            return Err(SendError::Full);
        }
        self.ask_of_allocation(now, Request::Bind { channel, peer })
    }

    /// Sends a datagram to `peer`: on its channel when there is one, else by a Send indication.
    ///
    /// # Errors
    /// [`SendError::NoAllocation`], [`SendError::NotPermitted`], [`SendError::TooLong`], [`SendError::Waiting`],
    /// [`SendError::Broken`].
    pub fn send(&mut self, now: Instant, peer: SocketAddr, payload: &[u8]) -> Result<(), SendError> {
        if self.is_broken {
            return Err(SendError::Broken);
        }
        if self.allocation.is_none() {
            return Err(SendError::NoAllocation);
        }
        match self.peers.channel_to(now, peer) {
            Some(channel) => self.outgoing.push_channel(channel, payload),
            None if self.peers.is_permitted(now, peer) => {
                self.outgoing.push_indication(peer, payload, self.ids.next())
            }
            None => Err(SendError::NotPermitted),
        }
    }

    fn ask_of_allocation(&mut self, now: Instant, request: Request) -> Result<(), SendError> {
        if self.allocation.is_none() {
            return Err(SendError::NoAllocation);
        }
        self.ask(now, request)
    }

    fn ask(&mut self, now: Instant, request: Request) -> Result<(), SendError> {
        if self.is_broken {
            return Err(SendError::Broken);
        }
        if self.transactions.is_full() || self.events.len() >= EVENTS_MAX {
            return Err(SendError::Busy);
        }
        // A Binding request is signed only after a challenge, because few servers ask for credentials.
        let login = self.login.clone().filter(|_| request != Request::Binding);
        self.begin(now, request, login, 0);
        Ok(())
    }

    /// Writes a request and queues it.
    fn begin(&mut self, now: Instant, request: Request, login: Option<Arc<Login>>, retries: u32) {
        let (id, mut bytes) = (self.ids.next(), self.transactions.take_spare());
        request.write(&mut bytes, id, self.config.software(), login.as_deref());
        let mut transaction = Transaction::new(now, id, request, bytes, self.is_stream());
        (transaction.login, transaction.retries) = (login, retries);
        self.outgoing.push_request(id);
        self.transactions.insert(transaction);
    }

    fn is_stream(&self) -> bool {
        self.config.link == Link::Stream
    }

    /// Handles a datagram from `from`. Does nothing if the link is a stream.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        match self.config.link {
            Link::Stream => {}
            Link::Datagrams { server } if server == from => self.handle_message(now, bytes),
            Link::Datagrams { .. } => self.discard(Discard::Elsewhere(from)),
        }
    }

    /// Handles the next bytes of the stream, cut anywhere. Does nothing if the link carries datagrams, or after
    /// [`Event::Broken`].
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if !self.is_stream() || self.is_broken {
            return;
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        let taken = incoming.take(bytes, |message| self.handle_message(now, message));
        if taken.is_ok() {
            self.incoming = incoming;
            return;
        }
        self.is_broken = true;
        self.outgoing.clear();
        while let Some(transaction) = self.transactions.pop() {
            let exchange = transaction.exchange(now);
            self.events.push_back(Event::Failed { exchange, failure: Failure::Broken });
        }
        self.events.push_back(Event::Broken);
    }

    fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        match data::read(bytes) {
            Ok(Received::Response(message)) => self.handle_response(now, &message),
            Ok(Received::Channel { number, payload }) => match self.peers.peer_of(number) {
                Some(peer) => self.receive(peer, Some(number), payload),
                None => self.discard(Discard::UnknownChannel(number)),
            },
            Ok(Received::Indication { peer, payload }) => self.receive(peer, None, payload),
            Ok(Received::Unreachable { peer, icmp }) => self.report(Event::Unreachable { peer, icmp }),
            Err(error) => self.discard(Discard::Malformed(error)),
        }
    }

    fn receive(&mut self, peer: SocketAddr, channel: Option<u16>, payload: &[u8]) {
        if self.events.len() >= EVENTS_MAX || self.event_bytes + payload.len() > EVENT_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.stage = Stage::Received;
        self.event_bytes += payload.len();
        self.events.push_back(Event::Data { peer, channel, payload: payload.to_vec() });
    }

    /// Queues an event unless the queue is full, because the server can cause any number of such events.
    fn report(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn discard(&mut self, discard: Discard) {
        self.report(Event::Discarded(discard));
    }

    /// Handles timers that are due: repeats or fails requests, and ends an expired allocation.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, due)) = self.transactions.next_due(now, self.is_stream()) {
            if due == Due::Again {
                self.outgoing.push_request(id);
                continue;
            }
            if let Some(transaction) = self.transactions.remove(&id) {
                let exchange = transaction.exchange(now);
                let failure = transaction.discarded.map_or(Failure::TimedOut, Failure::Untrusted);
                self.end(transaction, Event::Failed { exchange, failure });
            }
        }
        if self.allocation.as_ref().is_some_and(|allocation| allocation.expires <= now) {
            self.forget_allocation();
            self.events.push_back(Event::Expired);
        }
    }

    fn forget_allocation(&mut self) {
        self.allocation = None;
        self.peers = Peers::default();
    }

    /// Reports the end of an exchange.
    fn end(&mut self, transaction: Transaction, event: Event) {
        self.events.push_back(event);
        self.outgoing.forget_request(&transaction.id);
        self.transactions.keep_spare(transaction.bytes);
    }

    /// The next bytes to send: one datagram, or the next bytes of the stream.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.outgoing.next(&self.transactions)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Data { payload, .. } = &event {
            self.event_bytes -= payload.len();
        }
        Some(event)
    }

    /// When to call [`Client::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expires = self.allocation.as_ref().map(|allocation| allocation.expires);
        self.transactions.next_deadline().into_iter().chain(expires).min()
    }
}
