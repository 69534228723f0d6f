//! The front door: every connection of a stream client, and who is asked about its bytes, in this order.
//!
//! 1. [`acceptors`]: does the listener take connections from there, and is there a place? [`displacement`] says who makes
//!    room.
//! 2. [`proxy_header`], on a listener behind a proxy: whose connection is it?
//! 3. [`handshakes`] and [`tls`](super::stream::tls), on a TLS listener: is there time for a handshake, which certificate
//!    serves this name, or does another server end TLS for it?
//! 4. [`first_bytes`], on a port shared with the web: TURN or web?
//! 5. [`turn_client`]: whole messages, for the protocol. [`splice`]: everything else, for a web server or the built-in
//!    site.
//!
//! A connection carries its place in this order as a [`connection::Door`]. On UDP ports shared with HTTP/3, [`quic`] is
//! asked. The worker hands events in and takes values out: [`Messages`] for the protocol, clients that are [gone]
//! (Front::next_gone).

mod acceptors;
pub mod connection;
mod connections;
mod displacement;
pub mod first_bytes;
pub mod handshakes;
mod proxy_header;
pub mod quic;
mod splice;
mod timers;
mod turn_client;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use super::admission::{Class, Gate, Pressure};
use super::budget::Budget;
use super::counters::{CloseReason, Counters, Decision, Refusal, Stage, TlsOutcome};
use super::scratch::Buffers;
use super::socket::StreamListener;
use super::stream::outbox::{Kind, Pushed};
use super::stream::tls::{Protocol, TlsChooser};
use super::syscall::{Epoll, canonical, ready};
use super::token::Token;
use crate::turn::action::Drop;
use crate::turn::five_tuple::{Client, FiveTuple};
use crate::turn::server::Server;
use crate::turn::time::{Instant, Now};
use crate::wire::proxy_protocol::{self, Addresses};
use crate::wire::stream::{self, Framed};
use acceptors::{Accept, Acceptors, Arrival};
use connection::{Door, Life, ReadOutcome};
use connections::Connections;
use first_bytes::{Visit, Web};
use handshakes::Handshakes;
use quic::Flows;
use splice::Splice;
use timers::Timers;
pub use turn_client::closes_stream;

/// Connections accepted from one listener per turn.
const ACCEPTS: usize = 16;
/// What a client of HTTP/1.1 is told when not even the built-in site can answer.
const BAD_GATEWAY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The front door of one worker.
pub struct Front {
    epoll: Rc<Epoll>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    tls: Option<Arc<dyn TlsChooser>>,
    web: Option<Arc<Web>>,
    acceptors: Acceptors,
    connections: Connections,
    handshakes: Handshakes,
    flows: Flows,
    timers: Timers,
    buffers: Buffers,
}

/// What a front door is made of.
pub struct Parts {
    /// Where sockets are registered.
    pub epoll: Rc<Epoll>,
    /// The places of this worker.
    pub gate: Arc<Gate>,
    /// The counters of this worker.
    pub counters: Arc<Counters>,
    /// Chooses the configuration of TLS clients, which are refused without it.
    pub tls: Option<Arc<dyn TlsChooser>>,
    /// Where web clients go, which are refused without it.
    pub web: Option<Arc<Web>>,
    /// The stream listeners.
    pub listeners: Vec<StreamListener>,
    /// Measures handshakes.
    pub clock: fn() -> Now,
    /// Two keys from a cryptographic random generator.
    pub keys: [[u64; 2]; 2],
}

/// The TURN messages that one read brought. [`Front::next_message`] takes them one by one.
#[derive(Debug)]
pub struct Messages {
    token: Token,
    position: usize,
    /// Why the connection is to be closed after them.
    end: Option<CloseReason>,
}

/// Whose a datagram on a UDP port shared with HTTP/3 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The protocol's.
    Turn,
    /// The web's; it is on its way to the QUIC server.
    Quic,
    /// The web's, and there was no way or no room for it.
    Refused,
}

impl Front {
    /// Registers the listeners; no connection is open.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { epoll, gate, counters, tls, web, listeners, clock, keys: [handshakes, flows] } = parts;
        Ok(Self {
            acceptors: Acceptors::new(Rc::clone(&epoll), listeners)?,
            connections: Connections::new(Rc::clone(&epoll), Arc::clone(&gate), Arc::clone(&counters)),
            handshakes: Handshakes::new(handshakes, Arc::clone(gate.admission()), clock),
            flows: Flows::new(flows),
            timers: Timers::default(),
            buffers: Buffers::default(),
            epoll,
            gate,
            counters,
            tls,
            web,
        })
    }

    /// What it needs again after a restart of the worker.
    pub fn into_rules(self) -> (Option<Arc<dyn TlsChooser>>, Option<Arc<Web>>) {
        (self.tls, self.web)
    }

    /// Certificates for the connections to come.
    pub fn set_tls(&mut self, chooser: Arc<dyn TlsChooser>) {
        self.tls = Some(chooser);
    }

    /// Web servers for the connections to come.
    pub fn set_web(&mut self, web: Arc<Web>) {
        self.web = Some(web);
    }

    /// Begins a turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        self.handshakes.begin_turn(now);
        self.connections.set_tight(self.gate.admission().pressure() == Pressure::Tight);
    }

    /// When [`Front::on_deadlines`] or [`Front::next_handshake`] has work again.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.handshakes.next()).min()
    }

    /// The bytes that [`Messages`] are in.
    pub fn bytes(&self) -> &[u8] {
        self.buffers.plain.bytes()
    }

    /// Accepts what waits at a listener.
    pub fn on_accept(&mut self, listener: u16, now: Instant) {
        for _ in 0..ACCEPTS {
            match self.acceptors.accept(listener) {
                Accept::Accepted(arrival) => {
                    let transport = arrival.transport;
                    if let Err(refusal) = self.take_in(arrival, now) {
                        self.counters.streams(transport).refused(refusal).add(1);
                    }
                }
                Accept::Untrusted => self.counters.untrusted.add(1),
                Accept::Gone => {}
                Accept::Nothing => return,
                Accept::Shortage => {
                    self.counters.accept_paused.add(1);
                    self.acceptors.pause(listener);
                    return self.timers.set(now + acceptors::REST, Token::Accept(listener));
                }
            }
        }
    }

    fn take_in(&mut self, arrival: Arrival, now: Instant) -> Result<(), Refusal> {
        let Arrival { socket, client, transport, expected } = arrival;
        // A proxy will say whose connection it is.
        let source = (!expected.proxied).then_some(client.ip());
        let entry = self.connections.enter(source, now, &mut self.buffers.output)?;
        let server = socket.set_nonblocking(true).and_then(|()| socket.local_addr());
        let server = canonical(server.map_err(|_| Refusal::Descriptors)?);
        let five_tuple = FiveTuple { transport, client, server };
        let inserted = self.connections.insert(socket, five_tuple, expected, entry, now);
        let token = inserted.map_err(|_| Refusal::Descriptors)?;
        self.tidy_timers();
        self.look_soon(token, now);
        Ok(())
    }

    /// Handles an event of a client's socket. Returns the TURN messages that came.
    pub fn on_stream(
        &mut self,
        token: Token,
        readiness: u32,
        now: Instant,
        budget: &mut Budget,
    ) -> Option<Messages> {
        if readiness & ready::WRITE != 0 {
            self.connections.unblock(token);
        }
        if readiness & !ready::WRITE == 0 {
            return None;
        }
        let connection = self.connections.get(token)?;
        if budget.is_stream_time_spent() {
            // Level-triggered sockets are reported again; the others are remembered.
            if connection.interest & ready::EDGE != 0 && !std::mem::replace(&mut connection.left_over, true) {
                budget.read_again(token, readiness);
            }
            return None;
        }
        connection.left_over = false;
        let source = connection.unanswered_hello();
        if let Some(source) = source.filter(|&source| self.handshakes.must_wait(source)) {
            // The handshake is left to a later turn.
            if self.connections.mute(token) {
                self.handshakes.wait(token, source);
            } else if readiness & (ready::ERROR | ready::CLOSED) != 0 {
                // Reported though not asked for: it is gone.
                self.counters.tls(TlsOutcome::Left).add(1);
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        self.read(token, readiness, now, budget)
    }

    /// The next handshake that had to wait and may go on. [`Front::resume`] follows.
    pub fn next_handshake(&mut self) -> Option<Token> {
        self.handshakes.resume()
    }

    /// Goes on with a handshake that had to wait. Writing to the connection has it watched again.
    pub fn resume(&mut self, token: Token, now: Instant, budget: &mut Budget) -> Option<Messages> {
        self.read(token, ready::READ, now, budget)
    }

    fn read(&mut self, token: Token, readiness: u32, now: Instant, budget: &mut Budget) -> Option<Messages> {
        let connection = self.connections.get(token)?;
        if connection.splice().is_some_and(|splice| splice.client_interest() == 0) {
            if readiness & (ready::ERROR | ready::CLOSED) != 0 {
                // Reported though not asked for: the client is gone, with what it sent last.
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        if connection.splice().is_some() && budget.is_web_spent() {
            return None;
        }
        let FiveTuple { transport, client: before, .. } = connection.client.five_tuple;
        let read = connection.read(now, self.tls.as_deref(), &mut self.handshakes, &mut self.buffers);
        self.counters.streams(transport).received.add(read.received as u64);
        if let Some(outcome) = read.handshake {
            self.counters.tls(outcome).add(1);
        }
        if connection.client.five_tuple.client != before {
            self.connections.named(token, before.ip());
        }
        if let Some(source) = read.must_wait {
            self.connections.mute(token);
            self.handshakes.wait(token, source);
            return None;
        }
        // What waits in TLS itself needs room to be written.
        self.connections.unblock(token);
        self.decide(token, &read, now);
        let Some(connection) = self.connections.get(token) else { return None };
        match &mut connection.door {
            Door::Turn(_) => {
                // More than one read takes, or an end behind what was read: no further event would tell.
                let over = readiness & (ready::PEER_CLOSED | ready::CLOSED | ready::ERROR);
                if read.received > 0
                    && (read.full || over != 0)
                    && !std::mem::replace(&mut connection.left_over, true)
                {
                    budget.read_again(token, ready::READ | over);
                }
                return Some(Messages { token, position: 0, end: read.end });
            }
            Door::Web(splice) => {
                budget.spend_web(read.received);
                let ended = read.end == Some(CloseReason::Closed);
                match splice.take(self.buffers.plain.bytes(), ended) {
                    Ok(true) => connection.active = now,
                    Ok(false) => {}
                    Err(reason) => self.close(token, reason),
                }
                // The end of what a web client sends is not the end of what it receives.
                if let Some(reason) = read.end.filter(|_| !ended) {
                    self.close(token, reason);
                }
            }
            Door::Proxied(_) | Door::Handshake | Door::FirstBytes => {
                if read.handshake == Some(TlsOutcome::Done) {
                    // It has less time from now on.
                    self.look_soon(token, now);
                }
                if let Some(reason) = read.end {
                    self.close(token, reason);
                }
            }
        }
        None
    }

    /// Goes through the door that the bytes in the buffer open, if they do.
    fn decide(&mut self, token: Token, read: &ReadOutcome, now: Instant) {
        let Some(connection) = self.connections.get(token) else { return };
        if let Some(to) = read.pass_through {
            self.counters.decided(Decision::PassThrough).add(1);
            if self.enter_web(token, now) {
                self.splice(token, Protocol::Tls, to, now);
            }
        } else if matches!(connection.door, Door::FirstBytes) {
            match self.buffers.plain.bytes().first() {
                None => {}
                Some(&first) if first_bytes::is_turn(first) => {
                    connection.claim_for_turn();
                    self.counters.decided(Decision::Turn).add(1);
                }
                Some(_) => self.begin_web(token, now),
            }
        }
    }

    /// The next whole message. Once there is none, the rest is kept and the end that came with it applies.
    pub fn next_message(
        &mut self,
        messages: &mut Messages,
        server: &Server,
    ) -> Option<(Client, Range<usize>)> {
        let Messages { token, position, end } = *messages;
        let message = self.message_at(token, position, server);
        match message {
            Ok(Some((client, message, consumed))) => {
                messages.position += consumed;
                Some((client, message))
            }
            Ok(None) => {
                if let Some(reason) = end {
                    self.close(token, reason);
                }
                None
            }
            Err(reason) => {
                // The cause of the end is what came first.
                self.close(token, reason);
                None
            }
        }
    }

    fn message_at(
        &mut self,
        token: Token,
        position: usize,
        server: &Server,
    ) -> Result<Option<(Client, Range<usize>, usize)>, CloseReason> {
        let Some(connection) = self.connections.get(token) else { return Ok(None) };
        let client = connection.client;
        let Some(turn) = connection.turn_client() else { return Ok(None) };
        let rest = &self.buffers.plain.bytes()[position..];
        match stream::next(rest) {
            Framed::Message { len, consumed, .. } => {
                turn.greet(&rest[..len])?;
                if turn.has_greeted() {
                    connection.reached(Stage::Stun);
                }
                Ok(Some((client, position..position + len, consumed)))
            }
            Framed::NeedMore { at_least } => {
                // A stranger's start is judged before it is whole: "GET " looks like a long ChannelData.
                if !turn.may_wait(rest, at_least, || server.has_allocation(&client)) {
                    return Err(CloseReason::Garbage);
                }
                turn.keep(rest, position > 0);
                Ok(None)
            }
            Framed::Garbage => {
                server.counters().dropped(Drop::NotTurn).add(1);
                Err(CloseReason::Garbage)
            }
        }
    }

    /// Notes that a request of a stream client authenticated, and whether the client has an allocation.
    pub fn authenticated(&mut self, token: Token, has_allocation: bool, now: Instant) {
        self.connections.authenticated(token, has_allocation, now);
    }

    /// Queues one whole message, given in pieces. `None` when the connection is gone.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let pushed = self.connections.push(token, message, kind, now);
        if pushed == Some(Pushed::Stuck) {
            self.close(token, CloseReason::Stuck);
        }
        pushed
    }

    /// Hands a client to the web. What it sent so far is in the buffer.
    fn begin_web(&mut self, token: Token, now: Instant) {
        let Some(connection) = self.connections.get(token) else { return };
        let Some(web) = &self.web else { return self.close(token, CloseReason::Garbage) };
        connection.reached(Stage::Web);
        let (protocol, back_end) = web.back_end(connection.negotiated(), self.buffers.plain.bytes());
        let decision = match (back_end, protocol) {
            (None, _) => Decision::Site,
            (_, Protocol::H2) => Decision::H2,
            _ => Decision::Http1,
        };
        self.counters.decided(decision).add(1);
        if !self.enter_web(token, now) {
            return;
        }
        match back_end {
            Some(to) => self.splice(token, protocol, to, now),
            None => self.visit_site(token, protocol, false, now),
        }
    }

    /// Counts a connection among the web's, in the place of another if need be; `false` if it is to be closed.
    fn enter_web(&mut self, token: Token, now: Instant) -> bool {
        let entered =
            self.connections.with_web_room(token, now, &mut self.flows, &mut self.buffers.output, |c| {
                c.count_for_web(token)
            });
        if entered.is_err() {
            self.close(token, CloseReason::TooMany);
        }
        entered.is_ok()
    }

    /// A place for a socket to the back end of this client.
    fn web_place(&mut self, token: Token, now: Instant) -> io::Result<super::admission::Descriptor> {
        let gate = &self.gate;
        let (flows, output) = (&mut self.flows, &mut self.buffers.output);
        let place = self.connections.with_web_room(token, now, flows, output, |_| gate.socket(Class::Web));
        place.map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }

    /// Connects a client to the web server at `to`. What it sent follows by [`Front::read`].
    fn splice(&mut self, token: Token, protocol: Protocol, to: SocketAddr, now: Instant) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.reached(Stage::Web);
        let mut header = Vec::new();
        if let Some(version) = self.web.as_ref().and_then(|web| web.proxy_protocol) {
            let FiveTuple { client, server, .. } = connection.client.five_tuple;
            let addresses = Addresses { source: client, destination: server };
            proxy_protocol::write(version, addresses, &mut header);
        }
        let place = self.web_place(token, now);
        let Some(connection) = self.connections.get(token) else { return };
        let spliced = place
            .and_then(|place| Splice::connect(place, to, protocol, header, now))
            .and_then(|splice| connection.splice_to(&self.epoll, token, splice, now));
        match spliced {
            // Nothing is read from the client before the web server has accepted.
            Ok(()) => self.look_after_splice(token, now),
            Err(_) if protocol == Protocol::Tls => self.close(token, CloseReason::BackEnd),
            Err(_) => {
                self.counters.back_end_down.add(1);
                self.visit_site(token, protocol, true, now);
            }
        }
    }

    /// Hands a client to the built-in site; `down` if its web server could not be reached. A client that the site does
    /// not take either is closed.
    fn visit_site(&mut self, token: Token, protocol: Protocol, down: bool, now: Instant) {
        if self.open_visit(token, protocol, down, now).is_ok() {
            return self.look_after_splice(token, now);
        }
        if protocol == Protocol::Http1 {
            let _ = self.push(token, &[BAD_GATEWAY], Kind::Control, now);
            self.connections.write(token, now, &mut self.buffers.output);
        }
        self.close(token, if down { CloseReason::BackEnd } else { CloseReason::TooMany });
    }

    /// Splices a client to the built-in site by a pair of sockets, which no other program can connect to.
    ///
    /// # Errors
    /// `QuotaExceeded` without a place for both sockets, `ConnectionRefused` if the site is full, else the kernel's error.
    fn open_visit(&mut self, token: Token, protocol: Protocol, down: bool, now: Instant) -> io::Result<()> {
        let (our_place, place) = (self.web_place(token, now)?, self.web_place(token, now)?);
        let (ours, stream) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        stream.set_nonblocking(true)?;
        let (Some(web), Some(connection)) = (&self.web, self.connections.get(token)) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let FiveTuple { client, server, .. } = connection.client.five_tuple;
        if !web.site.visit(Visit { stream, client, server, protocol, down, place }) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        connection.splice_to(&self.epoll, token, Splice::to_site(our_place, ours, protocol, now), now)
    }

    fn look_after_splice(&mut self, token: Token, now: Instant) {
        self.connections.unblock(token);
        self.look_soon(token, now);
    }

    /// Handles an event of a back end's socket.
    pub fn on_back_end(&mut self, token: Token, readiness: u32, now: Instant, budget: &mut Budget) {
        let token = token.client();
        if (budget.is_web_spent() || budget.is_stream_time_spent())
            && readiness & (ready::READ | ready::WRITE) != 0
        {
            return;
        }
        let Some(connection) = self.connections.get(token) else { return };
        let transport = connection.client.five_tuple.transport;
        let outcome = connection.on_back_end(readiness, &mut self.buffers, now);
        budget.spend_web(outcome.received);
        self.counters.streams(transport).sent.add(outcome.sent as u64);
        self.connections.unblock(token);
        if outcome.down {
            self.back_end_down(token, now);
        } else if let Some(reason) = outcome.end {
            self.close(token, reason);
        }
    }

    /// Hands a client whose web server could not be reached to the built-in site, where TLS ends here.
    fn back_end_down(&mut self, token: Token, now: Instant) {
        self.counters.back_end_down.add(1);
        match self.connections.get(token).and_then(|connection| connection.splice()).map(Splice::protocol) {
            Some(Protocol::Tls) => self.close(token, CloseReason::BackEnd),
            Some(protocol) => self.visit_site(token, protocol, true, now),
            None => {}
        }
    }

    /// Whose a datagram on a UDP port shared with HTTP/3 is. If it is the web's, it is forwarded to the server at `to`.
    pub fn claim(
        &mut self,
        client: Client,
        to: SocketAddr,
        datagram: &[u8],
        server: &Server,
        now: Instant,
    ) -> Claim {
        if !self.flows.claims(&client, datagram, || server.has_allocation(&client)) {
            return Claim::Turn;
        }
        match self.flows.forward(&self.epoll, &self.gate, (client, to), datagram, now) {
            Ok(None) => Claim::Quic,
            Ok(Some(token)) => {
                self.tidy_timers();
                self.look_soon(token, now);
                Claim::Quic
            }
            Err(_) => Claim::Refused,
        }
    }

    /// The socket of a QUIC flow and its client; `None` when it was closed meanwhile.
    pub fn flow(&mut self, token: Token, now: Instant) -> Option<(&UdpSocket, Client)> {
        self.flows.get(token, now)
    }

    /// Notes a datagram of the QUIC server.
    pub fn flow_answered(&mut self, token: Token, answer: &[u8]) {
        self.flows.answered(token, answer);
    }

    /// Looks after everything whose time has come.
    pub fn on_deadlines(&mut self, now: Instant, server: &Server) {
        while let Some(token) = self.timers.due(now) {
            match token {
                Token::Accept(listener) => self.acceptors.resume(listener),
                Token::Quic { .. } => {
                    if let Some(end) = self.flows.life(token, now) {
                        self.timers.set(end, token);
                    }
                }
                token => self.look_after(token, now, server),
            }
        }
    }

    /// Looks whether a connection is still of use.
    fn look_after(&mut self, token: Token, now: Instant, server: &Server) {
        let Some(connection) = self.connections.get(token) else { return };
        let client = connection.client;
        match connection.life(now, || server.has_allocation(&client)) {
            Life::Until(deadline) => {
                // Never in the turn that sets it.
                let deadline = deadline.max(now + std::time::Duration::from_millis(1));
                if connection.schedule(deadline, now) {
                    self.timers.set(deadline, token);
                }
            }
            Life::Over(reason) => {
                if reason == CloseReason::HandshakeTimeout {
                    self.counters.tls(TlsOutcome::Timeout).add(1);
                }
                self.close(token, reason);
            }
            Life::Web => {
                self.buffers.plain.clear();
                self.begin_web(token, now);
            }
            Life::BackEndDown => self.back_end_down(token, now),
        }
    }

    /// Has a connection or flow looked after in this turn.
    fn look_soon(&mut self, token: Token, now: Instant) {
        self.timers.set(now, token);
    }

    /// Removes the deadlines of what was closed, once they are the majority.
    fn tidy_timers(&mut self) {
        let (connections, flows) = (&self.connections, &self.flows);
        self.timers.tidy(connections.len() + flows.len(), |token| match token {
            Token::Stream { .. } => connections.is_open(token),
            Token::Quic { .. } => flows.is_open(token),
            _ => true,
        });
    }

    /// Writes to every connection that got something in this turn, so that all of it goes out together.
    pub fn write(&mut self, now: Instant) {
        self.connections.write_all(now, &mut self.buffers.output);
        while let Some(token) = self.connections.next_shortened() {
            self.look_soon(token, now);
        }
    }

    /// Marks a connection to be closed at the end of the turn. The first reason counts.
    pub fn close(&mut self, token: Token, reason: CloseReason) {
        self.connections.mark_closing(token, reason);
    }

    /// Marks every connection to be closed.
    pub fn close_all(&mut self) {
        for token in self.connections.tokens() {
            self.close(token, CloseReason::Shutdown);
        }
    }

    /// Closes what was marked.
    pub fn close_marked(&mut self) {
        self.connections.close_marked(&mut self.buffers.output);
    }

    /// The next client whose connection was closed, and why.
    pub fn next_gone(&mut self) -> Option<(Client, CloseReason)> {
        self.connections.next_gone()
    }
}
