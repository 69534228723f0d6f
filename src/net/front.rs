//! The front door: every connection of a stream client, and who is asked about its bytes, in this order.
//!
//! 1. `acceptors`: does the listener take connections from there, and is there a place? `displacement` says who makes
//!    room.
//! 2. `proxy_header`, on a listener behind a proxy: whose connection is it?
//! 3. [`handshakes`] and [`tls`](super::stream::tls), on a TLS listener: is there time for a handshake, which certificate
//!    serves this name, or does another server end TLS for it?
//! 4. [`first_bytes`], on a port shared with the web: TURN or web?
//! 5. `turn_client`: whole messages, for the protocol. `web`: everything else goes to a web server or to the built-in
//!    site, by a `splice`.
//!
//! A connection carries its place in this order as a `door::Door`. On UDP ports shared with HTTP/3, [`quic`] is
//! asked. The worker hands events in and takes values out: [`Messages`] for the protocol, clients that are gone
//! ([`Front::next_gone`]).

mod acceptors;
pub mod connection;
mod connections;
mod displacement;
mod door;
pub mod first_bytes;
pub mod handshakes;
mod life;
mod parts;
mod proxy_header;
pub mod quic;
mod read;
mod share;
mod splice;
mod timers;
mod turn_client;
mod unproven;
mod web;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::admission::{Gate, Pressure};
use super::budget::{BYTES_PER_UNIT, Budget, Rank, SOCKET_UNITS};
use super::counters::{CloseReason, Counters, Decision, TlsOutcome};
use super::scratch::Buffers;
use super::stream::outbox::{Kind, Pushed};
use super::stream::tls::TlsChooser;
use super::syscall::ready;
use super::token::Token;
use crate::base::time::Instant;
use crate::turn::action::{DropReason, UserId};
use crate::turn::five_tuple::{Client, FiveTuple};
use crate::turn::server::Server;
use acceptors::{Accept, Acceptors};
use connections::Connections;
use door::Door;
use first_bytes::Web;
use handshakes::Handshakes;
use life::Life;
pub use parts::Parts;
use quic::{Claim, Flows};
use read::ReadOutcome;
use share::Share;
use timers::Timers;
pub use turn_client::{Messages, closes_stream, end_reason};
use web::{Room, WebDoor};

/// Connections accepted from one listener per turn.
const ACCEPTS: usize = 16;

/// The front door of one worker.
pub struct Front {
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    tls: Option<Arc<dyn TlsChooser>>,
    acceptors: Acceptors,
    connections: Connections,
    handshakes: Handshakes,
    web: WebDoor,
    flows: Flows,
    timers: Timers,
    buffers: Buffers,
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
            web: WebDoor::new(Rc::clone(&epoll), Arc::clone(&gate), Arc::clone(&counters), web),
            flows: Flows::new(Rc::clone(&epoll), Arc::clone(&gate), flows),
            timers: Timers::default(),
            buffers: Buffers::default(),
            gate,
            counters,
            tls,
        })
    }

    /// Returns what outlives a restart of the worker.
    pub fn into_rules(self) -> (Option<Arc<dyn TlsChooser>>, Option<Arc<Web>>) {
        (self.tls, self.web.into_rules())
    }

    /// Replaces the certificates for new connections.
    pub fn set_tls(&mut self, chooser: Arc<dyn TlsChooser>) {
        self.tls = Some(chooser);
    }

    /// Replaces the web servers for new connections.
    pub fn set_web(&mut self, web: Arc<Web>) {
        self.web.set(web);
    }

    /// Begins a turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        self.handshakes.begin_turn(now);
        self.connections.set_tight(self.gate.admission().pressure() == Pressure::Tight);
    }

    /// Returns when [`Front::on_deadlines`] or [`Front::next_handshake`] has work again.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.handshakes.next()).min()
    }

    /// Returns the bytes that [`Messages`] are in.
    pub fn bytes(&self) -> &[u8] {
        self.buffers.plain.bytes()
    }

    /// Accepts the connections that wait at a listener.
    pub fn on_accept(&mut self, listener: u16, now: Instant) {
        for _ in 0..ACCEPTS {
            match self.acceptors.accept(listener) {
                Accept::Accepted(arrival) => {
                    let transport = arrival.transport;
                    match self.connections.take_in(arrival, now, &mut self.buffers.output) {
                        Ok(token) => self.timers.set(now, token),
                        Err(refusal) => self.counters.streams(transport).refused(refusal).add(1),
                    }
                    self.tidy_timers();
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

    /// Handles an event of a client's socket, or what was left over of one. Returns the TURN messages that came.
    pub fn on_stream(
        &mut self,
        token: Token,
        readiness: u32,
        is_left_over: bool,
        now: Instant,
        budget: &mut Budget,
    ) -> Option<Messages> {
        let is_gone = readiness & (ready::ERROR | ready::CLOSED) != 0;
        let is_only_write = readiness & !ready::WRITE == 0;
        self.connections.tell_tls(token, now);
        let connection = self.connections.get(token)?;
        let (hello, waits) = (connection.unanswered_hello(), connection.waits_for_its_answers());
        let rank = connection.share.rank(budget);
        let has_share = is_left_over || !connection.share.left_over.is_some() && budget.has_share(rank);
        let is_late = !is_only_write && !has_share;
        if is_late && connection.share.left_over.leave(readiness) {
            budget.postpone(token, rank);
        }
        // What is written to is watched again, which a ClientHello that waits must not be.
        if readiness & ready::WRITE != 0 && (is_only_write || hello.is_none()) {
            self.connections.unblock(token);
        }
        if is_only_write || is_late {
            return None;
        }
        if let Some(source) = hello {
            // Handshakes come after everything else of a turn, as far as there is time for them.
            if self.connections.mute(token) {
                self.handshakes.wait(token, source);
            } else if is_gone {
                // Reported though not asked for.
                self.counters.tls(TlsOutcome::Left).add(1);
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        // An event that was left over is no way around it: the socket is reported again once the answers are taken.
        if waits && !is_gone { None } else { self.read(token, readiness, now, budget) }
    }

    /// Returns the next handshake that had to wait and may continue; the caller then calls [`Front::read`].
    pub fn next_handshake(&mut self) -> Option<Token> {
        self.handshakes.resume(|token| self.connections.is_open(token))
    }

    /// Reads a connection, such as one whose handshake had to wait.
    pub fn read(
        &mut self,
        token: Token,
        readiness: u32,
        now: Instant,
        budget: &mut Budget,
    ) -> Option<Messages> {
        let connection = self.connections.get(token)?;
        if connection.splice().is_some_and(|splice| splice.client_interest() == 0) {
            if readiness & (ready::ERROR | ready::CLOSED) != 0 {
                // Reported though not asked for: what it sent last is lost with it.
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        if connection.splice().is_some() && budget.is_web_spent() {
            return None;
        }
        let (before, is_untold) = (connection.client.five_tuple.client, connection.is_untold());
        let read = connection.read(now, self.tls.as_deref(), &mut self.handshakes, &mut self.buffers);
        let FiveTuple { transport, client, .. } = connection.client.five_tuple;
        let is_told = is_untold && !connection.is_untold();
        self.counters.streams(transport).received.add(read.received as u64);
        budget.spend(SOCKET_UNITS + (read.received / BYTES_PER_UNIT) as u32);
        if let Some(outcome) = read.handshake {
            self.counters.tls(outcome).add(1);
            // It has less time from now on.
            self.timers.set(now, token);
        }
        if client != before {
            self.connections.named(token, before.ip());
        }
        if is_told {
            self.connections.told(token, now);
        }
        if let Some(source) = read.named {
            self.connections.mute(token);
            self.handshakes.wait(token, source);
            return None;
        }
        // What waits in TLS itself needs room to be written.
        self.connections.unblock(token);
        self.decide(token, &read, now);
        let connection = self.connections.get(token)?;
        match &mut connection.door {
            Door::Turn(_) => {
                // More than one read takes, or an end behind what was read: no further event would tell.
                let over = readiness & (ready::PEER_CLOSED | ready::CLOSED | ready::ERROR);
                let more = read.full || read.received > 0 && over != 0;
                if more && connection.share.left_over.leave(ready::READ | over) {
                    budget.read_again(token, connection.share.rank(budget));
                }
                return Some(Messages { token, position: 0, opening: false, end: read.end, now });
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
            Door::Proxied(_) | Door::FirstByte | Door::Handshake | Door::FirstBytes => {
                if let Some(reason) = read.end {
                    self.close(token, reason);
                }
            }
        }
        None
    }

    /// Returns the component for web clients, and what it needs.
    fn web_door(&mut self) -> (&WebDoor, Room<'_>) {
        let Self { web, connections, flows, buffers, .. } = self;
        (web, Room { connections, flows, buffers })
    }

    /// Decides by the first bytes of a connection which stage comes next.
    fn decide(&mut self, token: Token, read: &ReadOutcome, now: Instant) {
        let Some(connection) = self.connections.get(token) else { return };
        if let Some(to) = read.pass_through {
            let (door, mut room) = self.web_door();
            door.pass_through(&mut room, token, to, now);
        } else if matches!(connection.door, Door::FirstBytes) {
            match self.buffers.plain.bytes().first() {
                None => {}
                Some(&first) if first_bytes::is_turn(first) => {
                    connection.claim_for_turn();
                    self.counters.decided(Decision::Turn).add(1);
                }
                Some(_) => {
                    let (door, mut room) = self.web_door();
                    door.hand_over(&mut room, token, now);
                }
            }
        }
    }

    /// Returns the next whole message. Once there is none, the rest is kept, and the connection is closed if its end was read.
    pub fn next_message(
        &mut self,
        messages: &mut Messages,
        server: &Server,
    ) -> Option<(Client, Range<usize>)> {
        let Messages { token, position, end, now, .. } = *messages;
        let connection = self.connections.get(token)?;
        let client = connection.client;
        let end = match connection.message_at(&self.buffers, position, || server.has_allocation(&client)) {
            Ok(Some((message, consumed))) => {
                messages.pass(consumed, connection.turn_client());
                return Some((client, message));
            }
            Ok(None) => end,
            // The cause of the end is what came first.
            Err(reason) => {
                if reason == CloseReason::Garbage {
                    server.counters().dropped(DropReason::NotTurn).add(1);
                }
                Some(reason)
            }
        };
        if end == Some(CloseReason::Closed) {
            // It sends no more, but may wait for the answers to what it sent last.
            self.connections.write(token, now, &mut self.buffers.output);
        }
        if let Some(reason) = end {
            self.close(token, reason);
        }
        None
    }

    /// Leaves the rest of these messages to the next turn. The connection is not read before that.
    pub fn leave_messages(&mut self, messages: &Messages, budget: &mut Budget) {
        let &Messages { token, position, end, .. } = messages;
        let Some(connection) = self.connections.get(token) else { return };
        let rest = &self.buffers.plain.bytes()[position..];
        let is_served = position > 0;
        connection.turn_client().into_iter().for_each(|turn| turn.leave(rest, is_served, end));
        match connection.share.left_over.leave(ready::READ) {
            false => {}
            true if is_served => budget.read_again(token, connection.share.rank(budget)),
            true => budget.postpone(token, connection.share.rank(budget)),
        }
    }

    /// Returns what decides when a client has its share of a turn.
    pub fn share(&mut self, token: Token) -> Option<&mut Share> {
        self.connections.get(token).map(|connection| &mut connection.share)
    }

    /// Notes that a request of a stream client authenticated, of this user if the client has an allocation.
    pub fn authenticated(&mut self, token: Token, user: Option<UserId>, now: Instant) {
        self.connections.authenticated(token, user, now);
    }

    /// Notes that the session of a stream client has ended.
    pub fn session_ended(&mut self, token: Token) {
        self.connections.session_ended(token);
    }

    /// Queues one whole message, given in pieces. `None` when the connection is gone.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let pushed = self.connections.push(token, message, kind, now);
        if pushed == Some(Pushed::Stuck) {
            self.close(token, CloseReason::Stuck);
        }
        pushed
    }

    /// Handles an event of a back end's socket.
    pub fn on_back_end(&mut self, token: Token, readiness: u32, now: Instant, budget: &mut Budget) {
        let token = token.client();
        if budget.is_web_spent() && readiness & (ready::READ | ready::WRITE) != 0 {
            return;
        }
        let Some(connection) = self.connections.get(token) else { return };
        let transport = connection.client.five_tuple.transport;
        let outcome = connection.on_back_end(readiness, &mut self.buffers, now);
        budget.spend_web(outcome.received);
        self.counters.streams(transport).sent.add(outcome.sent as u64);
        self.connections.unblock(token);
        if outcome.down {
            let (door, mut room) = self.web_door();
            door.back_end_down(&mut room, token, now);
        } else if let Some(reason) = outcome.end {
            self.close(token, reason);
        }
    }

    /// Returns whose a datagram on a UDP port shared with HTTP/3 is, and forwards the web's to the server at `to`.
    pub fn claim(
        &mut self,
        client: Client,
        to: SocketAddr,
        datagram: &[u8],
        server: &Server,
        now: Instant,
    ) -> Claim {
        let claim = self.flows.claim((client, to), datagram, || server.has_allocation(&client), now);
        if let Claim::Quic { new: Some(token) } = claim {
            self.tidy_timers();
            self.timers.set(now, token);
        }
        claim
    }

    /// Returns the QUIC flows of shared UDP ports.
    pub fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }

    /// Handles all deadlines that have passed.
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

    /// Closes a connection whose time is over, or sets its next deadline.
    fn look_after(&mut self, token: Token, now: Instant, server: &Server) {
        match self.connections.life(token, now, |client| server.has_allocation(client)) {
            None => {}
            Some(Life::Until(deadline)) => {
                let deadline = self.connections.schedule(token, deadline, now);
                deadline.into_iter().for_each(|deadline| self.timers.set(deadline, token));
            }
            Some(Life::Over(reason)) => {
                if reason == CloseReason::HandshakeTimeout {
                    self.counters.tls(TlsOutcome::Timeout).add(1);
                }
                self.close(token, reason);
            }
            Some(Life::BackEndDown) => {
                let (door, mut room) = self.web_door();
                door.back_end_down(&mut room, token, now);
            }
        }
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

    /// Returns whether anything waits to be written that the last turn had no time for.
    pub fn has_unwritten(&self) -> bool {
        self.connections.has_unwritten()
    }

    /// Writes what waits for one connection of this rank. Returns whether there was one.
    pub fn write_next(&mut self, rank: Rank, now: Instant, budget: &mut Budget) -> bool {
        let is_written = self.connections.write_next(rank, now, &mut self.buffers.output, budget);
        while let Some(token) = self.connections.next_shortened() {
            self.timers.set(now, token);
        }
        is_written
    }

    /// Marks a connection to be closed at the end of the turn. The first reason counts.
    pub fn close(&mut self, token: Token, reason: CloseReason) {
        self.connections.mark_closing(token, reason);
    }

    /// Marks every connection to be closed.
    pub fn close_all(&mut self) {
        self.connections.tokens().into_iter().for_each(|token| self.close(token, CloseReason::Shutdown));
    }

    /// Closes the marked connections.
    pub fn close_marked(&mut self) {
        self.connections.close_marked(&mut self.buffers.output);
    }

    /// Returns the next client whose connection was closed, and why.
    pub fn next_gone(&mut self) -> Option<(Client, CloseReason)> {
        self.connections.next_gone()
    }
}

#[cfg(test)]
mod tests;
