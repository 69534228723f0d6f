//! Web clients on shared ports: who they are, their web servers, and the built-in site.

use std::io;

use super::Worker;
use super::connections::DISPLACED_MAX;
use crate::net::admission::{Class, Descriptor};
use crate::net::counters::{CloseReason, Decision, Refusal, Stage};
use crate::net::outbox::Kind;
use crate::net::share443::{self, Answer, Protocol};
use crate::net::stream::web::{CHUNK, Splice};
use crate::net::stream::{Owner, ReadOutcome};
use crate::net::token::Token;
use crate::turn::five_tuple::Client;
use crate::wire::proxy_protocol::{self, Addresses};

/// Bytes that web clients and their servers may send in one turn of the loop: 0.2 ms of sealing and copying, for which
/// packets wait.
pub(super) const BYTES_PER_TURN: usize = 4 * CHUNK;

impl Worker {
    /// Whose a stream is after the bytes in the buffer.
    pub(super) fn owner_after(&mut self, token: Token, read: &ReadOutcome) -> Owner {
        let Some(stream) = self.streams.get(token) else { return Owner::Lingering };
        if let Some(to) = read.pass_through {
            self.ties.counters.decided(Decision::PassThrough).add(1);
            if self.enter_web(token) {
                self.splice(token, Protocol::Tls, to);
            }
            return self.owner(token);
        }
        if stream.owner() != Owner::Undecided {
            return stream.owner();
        }
        match self.buffers.plain.bytes().first() {
            None => Owner::Undecided,
            Some(&first) if share443::is_turn(first) => {
                stream.is_turns();
                self.ties.counters.decided(Decision::Turn).add(1);
                Owner::Turn
            }
            Some(_) => {
                self.begin_web(token);
                self.owner(token)
            }
        }
    }

    fn owner(&mut self, token: Token) -> Owner {
        self.streams.get(token).map_or(Owner::Lingering, |stream| stream.owner())
    }

    /// Makes a client the web's. What he sent so far is still in the buffer, or he sent nothing.
    pub(super) fn begin_web(&mut self, token: Token) {
        let Some(stream) = self.streams.get(token) else { return };
        let Some(web) = &self.web else { return self.doom(token, CloseReason::Garbage) };
        stream.reached(Stage::Web);
        let (protocol, back_end) = web.back_end(stream.negotiated(), self.buffers.plain.bytes());
        let decision = match (back_end, protocol) {
            (None, _) => Decision::Site,
            (_, Protocol::H2) => Decision::H2,
            _ => Decision::Http1,
        };
        self.ties.counters.decided(decision).add(1);
        if !self.enter_web(token) {
            return;
        }
        let Some(stream) = self.streams.get(token) else { return };
        match back_end {
            Some(to) => self.splice(token, protocol, to),
            None => {
                stream.answer_by_site(protocol, false, self.now.instant);
                self.look_after(token);
            }
        }
    }

    /// Makes a stream the web's, in the place of another web client if need be; `false` if it is to be closed.
    fn enter_web(&mut self, token: Token) -> bool {
        let entered = self.with_web_room(token, |worker| worker.streams.to_web(token));
        if entered.is_err() {
            self.doom(token, CloseReason::TooMany);
        }
        entered.is_ok()
    }

    /// A place for a socket to the web server of this client.
    fn web_socket(&mut self, token: Token) -> Result<Descriptor, Refusal> {
        self.with_web_room(token, |worker| worker.ties.gate.socket(Class::Web))
    }

    /// What `take` gives, after others made room for this client if need be.
    fn with_web_room<T>(
        &mut self,
        token: Token,
        take: impl Fn(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut taken = take(self);
        // Anybody can begin a QUIC flow in anybody's name: before a client that connected, such a flow goes.
        if taken.as_ref().err() == Some(&Refusal::Descriptors) && self.quic.close_oldest_unproven() {
            taken = take(self);
        }
        for _ in 0..DISPLACED_MAX {
            if taken.is_ok() || !self.displace_web(token) {
                break;
            }
            taken = take(self);
        }
        taken
    }

    /// Closes a web client that makes room for `newcomer`; `false` if none is to.
    fn displace_web(&mut self, newcomer: Token) -> bool {
        let Some(displaced) = self.streams.displaceable_web(newcomer, self.now.instant) else { return false };
        // At once: its place is wanted now.
        self.close(displaced, CloseReason::Displaced);
        true
    }

    /// Connects a client to the web server at `to`. What he sent follows by [`Worker::on_web`].
    fn splice(&mut self, token: Token, protocol: Protocol, to: std::net::SocketAddr) {
        let now = self.now.instant;
        let Some(stream) = self.streams.get(token) else { return };
        stream.reached(Stage::Web);
        let mut header = Vec::new();
        if let Some(version) = self.web.as_ref().and_then(|web| web.proxy_protocol) {
            let Client { five_tuple, .. } = stream.client;
            let addresses = Addresses { source: five_tuple.client, destination: five_tuple.server };
            proxy_protocol::write(version, addresses, &mut header);
        }
        let descriptor = self.web_socket(token).map_err(|_| io::ErrorKind::QuotaExceeded.into());
        let Some(stream) = self.streams.get(token) else { return };
        let spliced = descriptor
            .and_then(|descriptor| Splice::connect(descriptor, to, protocol, header, now))
            .and_then(|splice| stream.splice(&self.epoll, token.back_end(), splice));
        match spliced {
            Ok(()) => {
                // Nothing is read from the client before the web server is there.
                self.streams.unblock(token);
                self.look_after(token);
            }
            Err(_) if protocol == Protocol::Tls => self.doom(token, CloseReason::BackEnd),
            Err(_) => {
                self.ties.counters.back_end_down.add(1);
                stream.answer_by_site(protocol, true, now);
                self.look_after(token);
            }
        }
    }

    /// Hands what a web client sent to his web server.
    pub(super) fn on_web(&mut self, token: Token, end: Option<CloseReason>) -> Result<(), CloseReason> {
        let Some(stream) = self.streams.get(token) else { return Ok(()) };
        let ended = end == Some(CloseReason::Closed);
        stream.to_back_end(self.buffers.plain.bytes(), ended, self.now.instant)
    }

    /// Deals with an event of a web server's socket.
    pub(super) fn on_back_end(&mut self, token: Token, readiness: u32) {
        let token = token.client();
        if self.web_left == 0 {
            // Readiness is level-triggered: it comes again in the next turn.
            return;
        }
        // The buffer is about to be used.
        self.flush();
        let now = self.now.instant;
        let Some(stream) = self.streams.get(token) else { return };
        let outcome = stream.on_back_end(readiness, &mut self.buffers, now);
        self.web_left = self.web_left.saturating_sub(outcome.received);
        let transport = stream.client.five_tuple.transport;
        self.ties.counters.streams(transport).sent.add(outcome.sent as u64);
        if outcome.end.is_some() {
            stream.cut_off();
        }
        self.streams.unblock(token);
        if outcome.down {
            self.back_end_down(token);
        } else if let Some(reason) = outcome.end {
            self.doom(token, reason);
        }
    }

    /// Says that there is no web server, in the words of the web where TLS ends here.
    pub(super) fn back_end_down(&mut self, token: Token) {
        self.ties.counters.back_end_down.add(1);
        let now = self.now.instant;
        let Some(stream) = self.streams.get(token) else { return };
        let Some(protocol) = stream.spliced().map(Splice::protocol) else { return };
        if protocol == Protocol::Tls {
            return self.doom(token, CloseReason::BackEnd);
        }
        stream.answer_by_site(protocol, true, now);
        self.look_after(token);
        self.buffers.plain.clear();
        if let Err(reason) = self.on_page(token) {
            self.doom(token, reason);
        }
        self.streams.unblock(token);
    }

    /// Has the built-in site answer what came.
    pub(super) fn on_page(&mut self, token: Token) -> Result<(), CloseReason> {
        let unix = self.now.unix;
        loop {
            let Some(web) = &self.web else { return Err(CloseReason::Garbage) };
            let Some(page) = self.streams.get(token).and_then(|stream| stream.page()) else { return Ok(()) };
            if page.closing {
                return Ok(());
            }
            page.received.extend_from_slice(self.buffers.plain.bytes());
            self.buffers.plain.clear();
            let Answer::Reply { bytes, close, consumed } =
                web.site.answer(page.protocol, &page.received, unix, page.down)
            else {
                return Ok(());
            };
            page.closing = close;
            page.received.drain(..consumed.min(page.received.len()));
            let idle = page.received.is_empty();
            self.push_stream(token, &[&bytes], Kind::Control);
            if close || idle || consumed == 0 {
                return Ok(());
            }
        }
    }
}
