//! The front door: accepts the connections of stream clients and takes each through these stages.
//!
//! 1. `acceptors` checks the proxy, `connections` the limits; at a limit, `displacement` chooses which one makes room.
//! 2. `proxy_header`, on a listener behind a proxy, reads the client's address.
//! 3. [`handshakes`] and [`tls`](super::stream::tls), on a TLS listener, limit the time of handshakes and choose the
//!    certificate by server name, or pass TLS through to another server.
//! 4. [`first_bytes`], on a port shared with the web, distinguishes TURN from web clients.
//! 5. `turn_client` holds the state of a TURN client, and its messages go to the protocol. `web` splices every other
//!    client to a web server or to the built-in site.
//!
//! `door::Door` is the stage of a connection. On UDP ports shared with HTTP/3, [`quic`] classifies datagrams. The
//! worker passes in events and takes out [`Messages`] for the protocol and clients whose connections closed.

mod acceptors;
pub mod connection;
mod connections;
mod displacement;
mod door;
mod ending;
pub mod first_bytes;
pub mod handshakes;
pub mod kernel_memory;
mod life;
mod lingering;
mod parts;
mod progress;
mod proxy_header;
pub mod quic;
mod read;
mod rest;
mod rules;
mod share;
mod splice;
mod timers;
mod turn_client;
mod unproven;
mod web;

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::{io, iter};

use super::admission::{Gate, Pressure};
use super::budget::{Budget, CLOSED, Rank};
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
use handshakes::Handshakes;
pub use life::ENDING_TIME;
use life::Life;
pub use parts::Parts;
use quic::{Claim, Flows};
use read::ReadOutcome;
use share::Share;
use timers::Timers;
pub use turn_client::{Messages, closes_stream, end_reason};
use web::{Room, WebDoor};

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
    /// Creates a front door without connections and registers the listeners.
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

    /// Begins a turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        self.handshakes.begin_turn(now);
        self.connections.lingering.begin_turn(now);
        self.connections.set_tight(self.gate.admission().pressure() == Pressure::Tight);
    }

    /// Returns the earliest time at which [`Front::on_deadlines`] or [`Front::next_handshake`] has work.
    pub fn deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.handshakes.next(), self.connections.lingering.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns the bytes that [`Messages`] refer to.
    pub fn bytes(&self) -> &[u8] {
        self.buffers.plain.bytes()
    }

    /// Accepts connections that wait at a listener, a bounded number at once.
    pub fn on_accept(&mut self, listener: u16, now: Instant) {
        for _ in 0..acceptors::AT_ONCE {
            match self.acceptors.accept(listener) {
                Accept::Accepted(arrival) => {
                    let transport = arrival.transport;
                    match self.connections.take_in(arrival, now, &mut self.buffers.output) {
                        Ok(token) => self.timers.set(now, token),
                        Err(refusal) => self.counters.streams(transport).refused(refusal).add(1),
                    }
                    self.tidy_timers();
                }
                Accept::Untrusted(source) => {
                    self.counters.untrusted.add(1);
                    self.counters.untrusted_from.set(source);
                }
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

    /// Handles an event or a leftover of a client's socket. Returns the TURN messages received.
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
        self.connections.detect_tls(token, now);
        let connection = self.connections.get(token)?;
        let (hello, waits) = (connection.unanswered_hello(), connection.waits_for_its_answers());
        let rank = connection.share.rank(budget);
        let has_share = is_left_over || !connection.share.left_over.is_some() && budget.has_share(rank);
        let is_late = !is_only_write && !has_share;
        if is_late && connection.share.left_over.leave(readiness) {
            budget.postpone(token, rank);
        }
        // A write restores the epoll interest, which a connection with a waiting ClientHello must not have.
        if readiness & ready::WRITE != 0 && (is_only_write || hello.is_none()) {
            self.connections.unblock(token);
        }
        if is_only_write || is_late {
            return None;
        }
        if let Some(source) = hello {
            // Handshakes are processed at the end of the turn, within their time limit.
            if self.connections.mute(token) {
                self.handshakes.wait(token, source);
            } else if is_gone {
                // epoll reports errors regardless of the interest.
                self.counters.tls(TlsOutcome::Left).add(1);
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        // This holds for leftovers, too: epoll reports the socket again once the client has read its answers.
        if waits && !is_gone { None } else { self.read(token, readiness, now, budget) }
    }

    /// Returns the next waiting handshake that may continue; the caller then calls [`Front::read`].
    pub fn next_handshake(&mut self) -> Option<Token> {
        self.handshakes.resume(|token| self.connections.is_open(token))
    }

    /// Reads a connection and handles the bytes by its stage. Returns the TURN messages received.
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
                // epoll reports errors regardless of the interest. Unread bytes are lost.
                self.close(token, CloseReason::Reset);
            }
            return None;
        }
        if connection.splice().is_some() && budget.is_web_spent() {
            return None;
        }
        let (before, was_undetected) = (connection.client.five_tuple.client, connection.is_undetected());
        let read = connection.read(now, self.tls.as_deref(), &mut self.handshakes, &mut self.buffers);
        let FiveTuple { transport, client, .. } = connection.client.five_tuple;
        let is_detected = was_undetected && !connection.is_undetected();
        self.counters.streams(transport).received.add(read.received as u64);
        budget.spend_read(read.received, read.handshake.is_some() || connection.door.is_handshake());
        if let Some(outcome) = read.handshake {
            self.counters.tls(outcome).add(1);
            // The time limit of the next stage may be shorter.
            self.timers.set(now, token);
        }
        if client != before {
            self.connections.source_changed(token, before.ip());
        }
        if is_detected {
            self.connections.detected(token, now);
        }
        if let Some(source) = read.kept_hello {
            self.connections.mute(token);
            self.handshakes.wait(token, source);
            return None;
        }
        // TLS may have queued records of its own.
        self.connections.unblock(token);
        self.decide(token, &read, now);
        let connection = self.connections.get(token)?;
        match &mut connection.door {
            Door::Turn(_) => {
                // More bytes than one read takes, or an end after them: edge-triggered epoll reports neither again.
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
                // A web client that ends its sending direction still receives.
                if let Some(reason) = read.end.filter(|_| !ended) {
                    self.close(token, reason);
                }
            }
            _ => read.end.into_iter().for_each(|reason| self.close(token, reason)),
        }
        None
    }

    /// Returns the component for web clients, and the state that it needs.
    fn web_door(&mut self) -> (&WebDoor, Room<'_>) {
        let Self { web, connections, flows, buffers, .. } = self;
        (web, Room { connections, flows, buffers })
    }

    /// Chooses the next stage of a connection by its first bytes.
    fn decide(&mut self, token: Token, read: &ReadOutcome, now: Instant) {
        let Some(connection) = self.connections.get(token) else { return };
        if let Some(to) = read.pass_through {
            let source = connection.client.five_tuple.client.ip();
            let Self { web, connections, flows, buffers, handshakes, .. } = self;
            let mut room = Room { connections, flows, buffers };
            handshakes.step(source, || web.pass_through(&mut room, token, to, now));
        } else if matches!(connection.door, Door::FirstBytes)
            && let Some(&first) = self.buffers.plain.bytes().first()
        {
            if first_bytes::is_turn(first) {
                connection.claim_for_turn();
                self.counters.decided(Decision::Turn).add(1);
            } else {
                let (door, mut room) = self.web_door();
                door.hand_over(&mut room, token, now);
            }
        }
    }

    /// Returns the next complete message. After the last one, keeps the incomplete rest, and closes the connection if
    /// it ended.
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
            // The error comes before the end in the stream.
            Err(reason) => {
                if reason == CloseReason::Garbage {
                    server.counters().dropped(DropReason::NotTurn).add(1);
                }
                Some(reason)
            }
        };
        if end == Some(CloseReason::Closed) {
            // The client has ended its sending direction but may wait for answers.
            self.connections.write(token, now, &mut self.buffers.output);
        }
        if let Some(reason) = end {
            self.close(token, reason);
        }
        None
    }

    /// Leaves the remaining messages to the next turn. The connection is not read until they are handled.
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

    /// Returns the scheduling state of a client.
    pub fn share(&mut self, token: Token) -> Option<&mut Share> {
        self.connections.get(token).map(|connection| &mut connection.share)
    }

    /// Records that a request of a stream client authenticated. `user` owns the client's allocation, if it has one.
    pub fn authenticated(&mut self, token: Token, user: Option<UserId>, now: Instant) {
        self.connections.authenticated(token, user, now);
    }

    /// Records that the session of a stream client has ended.
    pub fn session_ended(&mut self, token: Token) {
        self.connections.session_ended(token);
    }

    /// Queues one whole message, given in pieces; returns `None` if the connection is closed.
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

    /// Classifies a datagram on a UDP port shared with HTTP/3, and forwards QUIC to the server at `to`.
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
        self.connections.lingering.on_deadline(now);
        while let Some(token) = self.timers.due(now) {
            match token {
                Token::Accept(listener) => self.acceptors.resume(listener),
                Token::Quic { .. } => {
                    if let Some(end) = self.flows.life(token, now) {
                        self.timers.set(end, token);
                    }
                }
                token => self.check_deadline(token, now, server),
            }
        }
    }

    /// Closes a connection whose deadline has passed, or sets its next one.
    fn check_deadline(&mut self, token: Token, now: Instant, server: &Server) {
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

    /// Removes the deadlines of closed connections and flows once they are the majority.
    fn tidy_timers(&mut self) {
        let (connections, flows) = (&self.connections, &self.flows);
        self.timers.tidy(connections.len() + flows.len(), |token| match token {
            Token::Stream { .. } => connections.is_open(token),
            Token::Quic { .. } => flows.is_open(token),
            _ => true,
        });
    }

    /// Returns whether output to write or connections to close are left from the last turn.
    pub fn has_unwritten(&self) -> bool {
        self.connections.has_unwritten()
    }

    /// Writes the queued output of one connection of this rank. Returns whether there was one.
    pub fn write_next(&mut self, rank: Rank, now: Instant, budget: &mut Budget) -> bool {
        let is_written = self.connections.write_next(rank, now, &mut self.buffers.output, budget);
        iter::from_fn(|| self.connections.next_shortened()).for_each(|token| self.timers.set(now, token));
        is_written
    }

    /// Marks a connection to be closed at the end of the turn. The first reason counts.
    pub fn close(&mut self, token: Token, reason: CloseReason) {
        self.connections.mark_closing(token, reason);
    }

    /// Closes marked connections: all of them, or as many as a turn has time for.
    pub fn close_marked(&mut self, all: bool) {
        self.connections.close_marked(if all { usize::MAX } else { CLOSED }, &mut self.buffers.output);
    }

    /// Returns the connections, with their reports for the protocol.
    pub fn connections(&mut self) -> &mut Connections {
        &mut self.connections
    }
}

#[cfg(test)]
mod tests;
