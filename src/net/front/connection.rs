//! A client's connection: a [`Stream`] and what it carries, from the PROXY header to TURN or the web.

mod ending;
mod lifetime;

use std::io;
use std::net::{IpAddr, TcpStream};
use std::ops::Range;

use super::displacement::{Candidate, Stamp};
use super::door::{Door, Expected, is_tls};
use super::handshakes::Handshakes;
use super::life::INTEREST;
use super::proxy_header::{self, Header};
use super::read::ReadOutcome;
use super::share::Share;
use super::splice::{BackEndOutcome, NOT_SENT_LOW_WATER, Splice};
use super::turn_client::TurnClient;
use super::unproven::{self, Unproven};
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::net::admission::{Class, Entry};
use crate::net::counters::{CloseReason, Refusal, Stage, TlsOutcome};
use crate::net::scratch::{Buffers, READ_MAX, Scratch};
use crate::net::stream::Stream;
use crate::net::stream::tls::{Protocol, TlsChooser};
use crate::net::syscall::{Epoll, ready};
use crate::net::token::Token;
use crate::turn::action::UserId;
use crate::turn::five_tuple::{Client, FiveTuple, Link};
use crate::wire::client_hello::Shape;
use crate::wire::stream::{self, Framed};

/// One client's connection.
pub struct Connection {
    /// Five-tuple and token.
    pub client: Client,
    /// Socket, TLS and queued output.
    pub stream: Stream,
    /// The stage that it is in.
    pub door: Door,
    /// What the listener expects of it.
    pub expected: Expected,
    /// The epoll interest of the socket.
    pub interest: u32,
    /// Whether it is queued for writing.
    pub dirty: bool,
    /// Its scheduling state.
    pub share: Share,
    /// Whether it is marked to be closed.
    pub closing: bool,
    /// The furthest stage that it has reached.
    stage: Stage,
    /// Whether a request of the client has ever authenticated.
    proven: bool,
    /// The bytes received before that.
    unproven: Unproven,
    /// When its time was last extended: by the start, the end of the handshake or an authenticated request; for a web
    /// client, by the last byte to or from its back end.
    pub active: Instant,
    /// When its deadline is checked next.
    check_at: Option<Instant>,
    /// Counts it in the limits while it is open.
    entry: Entry,
}

impl Connection {
    /// Creates the state of a connection that was just accepted; `token` identifies it.
    pub fn new(
        token: Token,
        socket: TcpStream,
        five_tuple: FiveTuple,
        expected: Expected,
        entry: Entry,
        now: Instant,
    ) -> Self {
        let mut connection = Self {
            client: Client { five_tuple, link: Link(token.pack()) },
            stream: Stream::new(socket, expected.tls && !expected.either),
            door: Door::Proxied(Vec::new()),
            expected,
            interest: INTEREST,
            dirty: false,
            share: Share::default(),
            closing: false,
            stage: Stage::Accepted,
            proven: false,
            unproven: Unproven::default(),
            active: now,
            check_at: None,
            entry,
        };
        if !expected.proxied {
            connection.enter();
        }
        connection
    }

    /// Enters the stage after the PROXY header.
    fn enter(&mut self) {
        if self.expected.either {
            self.door = Door::FirstByte;
        } else if self.stream.tls.is_some() {
            self.door = Door::Handshake;
        } else {
            self.open();
        }
    }

    /// Enters the stage for TLS or plain clients, depending on the first byte, and sets the transport.
    fn detect_tls(&mut self, first: u8) {
        if is_tls(first) {
            self.stream.tls = Some(Box::default());
            self.door = Door::Handshake;
            self.client.five_tuple.transport = Transport::Tls;
        } else {
            self.open();
            self.client.five_tuple.transport = Transport::Tcp;
        }
    }

    /// On a listener for both TLS and plain clients, detects TLS without consuming the first byte: a TLS client is not
    /// read before its handshake may be processed.
    pub fn peek_first_byte(&mut self) {
        if matches!(self.door, Door::FirstByte)
            && let Some(first) = self.stream.peek()
        {
            self.detect_tls(first);
        }
    }

    /// Returns whether the detection of TLS is still pending.
    pub fn is_undetected(&self) -> bool {
        self.expected.either && matches!(self.door, Door::Proxied(_) | Door::FirstByte)
    }

    /// Returns whether the client speaks no TLS on a TLS port that is shared with the web.
    pub fn lacks_tls(&self) -> bool {
        self.expected.web && self.client.five_tuple.transport == Transport::Tcp
    }

    /// Enters the stage after TLS.
    fn open(&mut self) {
        self.door = if self.expected.web { Door::FirstBytes } else { Door::Turn(TurnClient::default()) };
    }

    /// Reads once into `buffers.plain`, after the incomplete rest of the last read, or returns left-over messages.
    pub fn read(
        &mut self,
        now: Instant,
        chooser: Option<&dyn TlsChooser>,
        handshakes: &mut Handshakes,
        buffers: &mut Buffers,
    ) -> ReadOutcome {
        let Buffers { records, plain, .. } = buffers;
        plain.clear();
        if self.is_ending() {
            return self.discard(plain);
        }
        if let Door::Turn(turn) = &mut self.door
            && let Some(left_over) = turn.resume(plain)
        {
            return left_over;
        }
        let target = match &mut self.stream.tls {
            Some(tls) => {
                tls.restore(records);
                &mut *records
            }
            None => &mut *plain,
        };
        if let Door::Proxied(start) = &self.door {
            // At most proxy_protocol::MAX_PEEK bytes, into an empty buffer.
            let _ = target.append(start);
        }
        let read = self.stream.read(target, self.read_max());
        let mut outcome =
            ReadOutcome { received: read.len, full: read.full, end: read.end, ..ReadOutcome::default() };
        if let Some(reason) = self.count_bytes(read.len) {
            outcome.end.get_or_insert(reason);
        }
        let is_new = matches!(self.door, Door::Proxied(_) | Door::FirstByte);
        if matches!(self.door, Door::Proxied(_)) {
            let taken = self.take_header(target);
            if taken != Ok(true) {
                target.clear();
                outcome.end = outcome.end.or(taken.err());
                return outcome;
            }
        }
        if matches!(self.door, Door::FirstByte) {
            let Some(&first) = plain.bytes().first() else { return outcome };
            self.detect_tls(first);
            if self.stream.tls.is_some() {
                records.clear();
                // One read fits into the buffer.
                let _ = records.append(plain.bytes());
                plain.clear();
            }
        }
        if let (true, Some(tls)) = (is_new, &mut self.stream.tls) {
            tls.keep(records);
            outcome.kept_hello = Some(self.client.five_tuple.client.ip());
            return outcome;
        }
        self.decrypt(now, chooser, handshakes, buffers, &mut outcome);
        outcome
    }

    /// Removes the PROXY header from the front of `received`, or keeps a partial one. Returns whether it was complete.
    fn take_header(&mut self, received: &mut Scratch) -> Result<bool, CloseReason> {
        match proxy_header::take(received)? {
            Header::Whole(addresses) => {
                if let Some(addresses) = addresses {
                    // The five-tuple has both addresses: the client's, and the one that it connected to.
                    self.client.five_tuple.client = addresses.source;
                    self.client.five_tuple.server = addresses.destination;
                    self.entry.set_source(addresses.source.ip()).map_err(|_| CloseReason::TooMany)?;
                }
                self.enter();
                Ok(true)
            }
            Header::Partial => {
                self.door = Door::Proxied(received.bytes().to_vec());
                Ok(false)
            }
        }
    }

    /// Processes the received TLS records, within the time limit of handshakes.
    fn decrypt(
        &mut self,
        now: Instant,
        chooser: Option<&dyn TlsChooser>,
        handshakes: &mut Handshakes,
        buffers: &mut Buffers,
        outcome: &mut ReadOutcome,
    ) {
        let Some(tls) = &mut self.stream.tls else { return };
        let Buffers { records, plain, output } = buffers;
        let (is_handshake, shared) = (tls.is_handshaking(), self.expected.web);
        output.clear();
        let mut receive = || match chooser {
            Some(chooser) => tls.receive(chooser, shared, records, plain, output),
            None => Err(TlsOutcome::Internal),
        };
        let source = self.client.five_tuple.client.ip();
        let received = if is_handshake { handshakes.step(source, receive) } else { receive() };
        match received {
            Ok(received) => {
                if let Some(to) = received.pass_through {
                    outcome.pass_through = Some(to);
                    // The buffer is larger than the records of a ClientHello.
                    let _ = plain.append(records.bytes());
                    self.stream.tls = None;
                    return;
                }
                if received.finished {
                    outcome.handshake = Some(TlsOutcome::Done);
                    self.active = now;
                    let is_validation = tls.is_validation();
                    self.reached(Stage::Tls);
                    self.open();
                    if is_validation {
                        outcome.end.get_or_insert(CloseReason::Closed);
                    }
                }
                if received.closed {
                    outcome.end.get_or_insert(CloseReason::Closed);
                }
            }
            Err(failure) => {
                outcome.handshake = is_handshake.then_some(failure);
                outcome.end = Some(CloseReason::TlsFailed);
            }
        }
        if is_handshake && outcome.handshake.is_none() && outcome.end.is_some() {
            outcome.handshake = Some(TlsOutcome::Left);
        }
        if let Err(reason) = self.stream.send_records(output) {
            outcome.end.get_or_insert(reason);
        }
    }

    /// Returns how many bytes to read at once.
    fn read_max(&self) -> usize {
        // Bytes that are forwarded unchanged cost little.
        let opaque = self.stream.tls.is_none() && matches!(self.door, Door::Web(_));
        if self.share.user.is_some() || opaque { READ_MAX } else { unproven::READ_MAX }
    }

    /// Counts the bytes of a client that has not authenticated; returns the reason to close it if they are too many.
    fn count_bytes(&mut self, len: usize) -> Option<CloseReason> {
        let is_limited = !self.proven && !matches!(self.door, Door::Web(_));
        if is_limited { self.unproven.count(len) } else { None }
    }

    /// Returns the source of a connection whose ClientHello is unanswered, so its next bytes are expensive. Behind a
    /// proxy, the source is unknown before the header.
    pub fn unanswered_hello(&self) -> Option<IpAddr> {
        let begins = self.stream.tls.as_ref().is_some_and(|tls| tls.begins());
        (begins && !matches!(self.door, Door::Proxied(_))).then(|| self.client.five_tuple.client.ip())
    }

    /// Returns the web protocol that was negotiated, if any.
    pub fn negotiated(&self) -> Option<Protocol> {
        self.stream.tls.as_ref()?.negotiated()
    }

    /// Returns the shape of the client's ClientHello, if TLS ends here on a shared port.
    pub fn hello(&self) -> Option<Shape> {
        self.stream.tls.as_ref()?.hello()
    }

    /// Claims the connection for TURN.
    pub fn claim_for_turn(&mut self) {
        self.door = Door::Turn(TurnClient::default());
    }

    /// Returns the state of a TURN client; `None` for others.
    pub fn turn_client(&mut self) -> Option<&mut TurnClient> {
        match &mut self.door {
            Door::Turn(turn) => Some(turn),
            _ => None,
        }
    }

    /// Returns the splice of a web client.
    pub fn splice(&self) -> Option<&Splice> {
        match &self.door {
            Door::Web(splice) => Some(splice),
            _ => None,
        }
    }

    /// Returns the complete TURN message at `position` of the buffer and its length with padding; keeps an incomplete
    /// one.
    ///
    /// # Errors
    /// `Garbage` if it is not TURN, `TooMany` after too many unauthenticated requests.
    pub fn message_at(
        &mut self,
        buffers: &Buffers,
        position: usize,
        has_allocation: impl FnOnce() -> bool,
    ) -> Result<Option<(Range<usize>, usize)>, CloseReason> {
        let Door::Turn(turn) = &mut self.door else { return Ok(None) };
        let rest = &buffers.plain.bytes()[position..];
        match stream::next(rest) {
            Framed::Message { len, consumed, .. } => {
                turn.greet(&rest[..len])?;
                self.reached(Stage::Stun);
                Ok(Some((position..position + len, consumed)))
            }
            Framed::NeedMore { at_least } => {
                // Checked before the message is complete: "GET " looks like a long ChannelData.
                if !turn.may_wait(rest, at_least, has_allocation) {
                    return Err(CloseReason::Garbage);
                }
                turn.keep(rest, position > 0);
                Ok(None)
            }
            Framed::Garbage => Err(CloseReason::Garbage),
        }
    }

    /// Records that a request of the client authenticated, which extends the time of a TURN client. Only an allocation
    /// moves it out of the strangers' share; otherwise one user could keep any number of connections.
    pub fn authenticated(&mut self, now: Instant, user: Option<UserId>) {
        self.proven = true;
        if self.turn_client().is_some_and(|turn| turn.authenticated(user.is_some())) {
            self.active = now;
        }
        self.set_user(user);
    }

    /// Sets the user of its allocation. A client without one, or without room, counts as a stranger.
    pub fn set_user(&mut self, user: Option<UserId>) {
        self.share.user = user;
        if user.is_some() { self.entry.authenticate() } else { self.entry.to_stranger() }
    }

    /// Moves the connection to the share of the web.
    ///
    /// # Errors
    /// The exhausted resource.
    pub fn count_for_web(&mut self) -> Result<(), Refusal> {
        self.entry.to_web()
    }

    /// Returns the class of client that it serves.
    pub fn class(&self) -> Class {
        self.entry.class()
    }

    /// Returns the properties that decide whether it makes room.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            class: self.class(),
            proven: self.proven,
            serves: self.share.user.is_some(),
            source: Network::site(self.client.five_tuple.client.ip()),
            active: self.active,
            stamp: Stamp::default(),
        }
    }

    /// Records the stage that it has reached.
    pub fn reached(&mut self, stage: Stage) {
        if self.stage.index() < stage.index() {
            self.stage = stage;
        }
    }

    /// Returns the furthest stage that it has reached.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the epoll interest: writing while output is queued, and no reading while the client does not read its
    /// answers, so that further requests wait on the client's machine. TURN clients are read until nothing is left, so
    /// they are edge-triggered.
    pub fn wanted(&self) -> u32 {
        let write = if self.stream.is_waiting() { ready::WRITE } else { 0 };
        match &self.door {
            Door::Web(splice) => splice.client_interest() | write,
            _ if write != 0 && self.stream.owes_answers() => write,
            Door::Turn(_) if write == 0 => INTEREST | ready::EDGE,
            _ => INTEREST | write,
        }
    }

    /// Returns whether a TURN client is not read until it has read its answers. Messages already read are handled.
    pub fn waits_for_its_answers(&self) -> bool {
        matches!(&self.door, Door::Turn(turn) if !turn.has_left_over()) && self.interest & ready::READ == 0
    }

    /// Forwards the end of a direction between a web client and its back end once all bytes before it are forwarded, or sends
    /// the end of a connection that the server ends. Returns whether the deadline has become earlier.
    ///
    /// # Errors
    /// `Closed` if both directions have ended, `BackEnd` if the back end cannot be watched.
    pub fn settle(&mut self, epoll: &Epoll, token: Token, output: &mut Scratch) -> Result<bool, CloseReason> {
        match &mut self.door {
            Door::Web(splice) => return splice.settle(&mut self.stream, epoll, token.back_end(), output),
            Door::Ending { .. } => self.send_end(output),
            _ => {}
        }
        Ok(false)
    }

    /// Connects a web client to its back end, which receives the bytes queued for an unreachable web server.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn splice_to(
        &mut self,
        epoll: &Epoll,
        token: Token,
        mut splice: Splice,
        now: Instant,
    ) -> io::Result<()> {
        if let Door::Web(unreached) = &mut self.door {
            splice.replay(unreached);
        }
        splice.register(epoll, token.back_end())?;
        self.active = now;
        self.stream.adjust_to_web(NOT_SENT_LOW_WATER);
        self.door = Door::Web(Box::new(splice));
        Ok(())
    }

    /// Handles an event of the back end's socket.
    pub fn on_back_end(&mut self, readiness: u32, buffers: &mut Buffers, now: Instant) -> BackEndOutcome {
        let Door::Web(splice) = &mut self.door else { return BackEndOutcome::default() };
        let outcome = splice.on_back_end(&mut self.stream, readiness, buffers, now);
        if outcome.used {
            self.active = now;
        }
        if outcome.end.is_some_and(|reason| reason != CloseReason::Closed) {
            // Without a close_notify: a truncated answer must not look complete (RFC 8446 section 6.1).
            self.stream.tls = None;
        }
        outcome
    }

    /// Closes the connection and frees its place. Returns both if the client has yet to acknowledge the last output.
    pub fn close(self, reason: CloseReason, output: &mut Scratch) -> Option<(TcpStream, Entry)> {
        self.stream.close(reason, output).map(|socket| (socket, self.entry))
    }
}
