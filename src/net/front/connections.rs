//! The connections of a worker, by token: adds them within the limits, writes their queued output, and closes them.

mod ending;
mod reports;
mod slot;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::acceptors::{Arrival, reset};
use super::connection::Connection;
use super::displacement::Displacement;
use super::door::Expected;
use super::life::{INTEREST, Life};
use super::lingering::Lingering;
use super::quic::Flows;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::net::admission::{Class, Entry, Gate};
use crate::net::budget::{Budget, Rank};
use crate::net::counters::{CloseReason, Counters, Refusal, Stage};
use crate::net::scratch::Scratch;
use crate::net::stream::Outboxes;
use crate::net::stream::outbox::{BYTES_MAX, BYTES_MAX_TIGHT, Kind, Pushed};
use crate::net::syscall::{Epoll, canonical};
use crate::net::token::Token;
use crate::turn::action::{DropReason, UserId};
use crate::turn::five_tuple::{Client, FiveTuple};
pub use reports::Reports;
use slot::{Slot, candidate, find};

/// Maximum number of connections closed for one newcomer. One is enough unless the operator lowered a limit below the
/// current use.
const DISPLACED_MAX: usize = 2;

/// The connections of a worker, and the queues of those to write and to close.
pub struct Connections {
    epoll: Rc<Epoll>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Connections with new output, or with room for queued output.
    dirty: VecDeque<Token>,
    /// Connections moved out of `dirty` because their rank is the second or the last.
    others: [VecDeque<Token>; 3],
    /// Connections to close at the end of the turn, with the reason.
    closing: VecDeque<(Token, CloseReason)>,
    /// Connections whose deadline has become earlier.
    shortened: Vec<Token>,
    /// What the protocol is informed of.
    pub reports: Reports,
    /// Connections that the server is ending.
    ending: usize,
    /// Sockets of closed connections whose last output is not acknowledged.
    pub lingering: Lingering,
    /// Whether memory pressure shortens the output queues.
    tight: bool,
    displacement: Displacement,
    spare: Outboxes,
}

impl Connections {
    /// Creates an empty table.
    pub fn new(epoll: Rc<Epoll>, gate: Arc<Gate>, counters: Arc<Counters>) -> Self {
        Self {
            epoll,
            gate,
            counters,
            slots: Vec::new(),
            free: Vec::new(),
            dirty: VecDeque::new(),
            others: Default::default(),
            closing: VecDeque::new(),
            shortened: Vec::new(),
            reports: Reports::default(),
            ending: 0,
            lingering: Lingering::default(),
            tight: false,
            displacement: Displacement::default(),
            spare: Outboxes::default(),
        }
    }

    /// Takes a place for a newcomer. If the strangers' share is full, displaces a stranger of this worker, usually the
    /// oldest: most clients authenticate within seconds, so the oldest stranger is the least likely to.
    ///
    /// # Errors
    /// The exhausted resource.
    fn enter(
        &mut self,
        source: Option<IpAddr>,
        now: Instant,
        output: &mut Scratch,
    ) -> Result<Entry, Refusal> {
        for _ in 0..DISPLACED_MAX {
            match self.gate.stream(source) {
                Err(Refusal::Total | Refusal::Descriptors) if self.make_room(now, output) => {}
                entered => return entered,
            }
        }
        self.gate.stream(source)
    }

    /// Closes a socket that waits for its last acknowledgement, else a marked connection, else a stranger. Returns `false` if there
    /// is nothing to close.
    fn make_room(&mut self, now: Instant, output: &mut Scratch) -> bool {
        if self.lingering.close_one() {
            return true;
        }
        if self.closing.is_empty() {
            let stranger = self.displacement.stranger(|token| candidate(&self.slots, token));
            let Some(stranger) = stranger else { return false };
            // Its answers of this turn are written first.
            self.write(stranger, now, output);
            self.mark_closing(stranger, CloseReason::Displaced);
        }
        self.close_marked(1, output);
        true
    }

    /// Calls `take` for this web client. While it fails, displaces another and calls it again, at most three times.
    ///
    /// # Errors
    /// The error of `take` if nothing can be displaced.
    pub fn with_web_room<T>(
        &mut self,
        token: Token,
        now: Instant,
        flows: &mut Flows,
        output: &mut Scratch,
        mut take: impl FnMut(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut taken = take(self);
        // Unproven QUIC flows may be forged, so they are closed before connections.
        if taken.as_ref().err() == Some(&Refusal::Descriptors) && flows.close_oldest_unproven() {
            taken = take(self);
        }
        for _ in 0..DISPLACED_MAX {
            if taken.is_ok() {
                break;
            }
            if taken.as_ref().err() == Some(&Refusal::Descriptors) && self.lingering.close_one() {
                taken = take(self);
                continue;
            }
            let source = candidate(&self.slots, token).map(|newcomer| newcomer.source);
            let displaced = source.and_then(|source| {
                self.displacement.web_client((token, source), now, |token| candidate(&self.slots, token))
            });
            let Some(displaced) = displaced else { break };
            // Closed at once, because its place is needed now.
            self.remove(displaced, CloseReason::Displaced, output);
            taken = take(self);
        }
        taken
    }

    /// Adds an accepted connection and returns its token.
    ///
    /// # Errors
    /// The exhausted resource.
    pub fn take_in(
        &mut self,
        arrival: Arrival,
        now: Instant,
        output: &mut Scratch,
    ) -> Result<Token, Refusal> {
        let Arrival { socket, client, transport, expected } = arrival;
        // Behind a proxy, the source is unknown until the PROXY header.
        let entry = self.enter((!expected.proxied).then_some(client.ip()), now, output);
        let entry = entry.inspect_err(|_| reset(&socket))?;
        let server = socket.set_nonblocking(true).and_then(|()| socket.local_addr());
        let five_tuple =
            FiveTuple { transport, client, server: canonical(server.map_err(|_| Refusal::Descriptors)?) };
        self.insert(socket, five_tuple, expected, entry, now).map_err(|_| Refusal::Descriptors)
    }

    /// Adds an accepted, non-blocking socket and returns its token.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    fn insert(
        &mut self,
        socket: TcpStream,
        five_tuple: FiveTuple,
        expected: Expected,
        entry: Entry,
        now: Instant,
    ) -> io::Result<Token> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        let token = Token::Stream { slot: index, generation: slot.generation };
        if let Err(error) = self.epoll.add(&socket, token.pack(), INTEREST) {
            self.free.push(index);
            return Err(error);
        }
        let connection = Connection::new(token, socket, five_tuple, expected, entry, now);
        let is_undetected = connection.is_undetected();
        slot.connection = Some(connection);
        let counters = self.counters.streams(five_tuple.transport);
        counters.accepted.add(u64::from(!is_undetected));
        counters.open.add(1);
        self.arrive(token, Network::site(five_tuple.client.ip()));
        Ok(token)
    }

    /// Returns the connection that a token of a client or of a back end belongs to; `None` if it is closed or marked to
    /// be closed.
    pub fn get(&mut self, token: Token) -> Option<&mut Connection> {
        find(&mut self.slots, token)
    }

    /// Returns whether this token's connection is open.
    pub fn is_open(&self, token: Token) -> bool {
        let Token::Stream { slot, generation } = token else { return false };
        self.slots
            .get(slot as usize)
            .is_some_and(|slot| slot.connection.is_some() && slot.generation == generation)
    }

    /// Returns the number of open connections.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Clears the epoll interest until the connection is read. Returns `false` if it is already clear or the connection
    /// is closed.
    pub fn mute(&mut self, token: Token) -> bool {
        let connection = find(&mut self.slots, token).filter(|connection| connection.interest != 0);
        let Some(connection) = connection else { return false };
        connection.interest = 0;
        // `EPOLL_CTL_MOD` allocates no memory, so it cannot fail on a registered socket.
        self.epoll.modify(connection.stream.fd(), token.pack(), 0).is_ok()
    }

    /// Sets whether memory pressure shortens the output queues.
    pub fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
    }

    /// Queues one whole message, given in pieces; returns `None` if the connection is closed.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let bytes_max = if self.tight { BYTES_MAX_TIGHT } else { BYTES_MAX };
        let connection = find(&mut self.slots, token).filter(|connection| !connection.is_ending())?;
        let pushed = connection.stream.push(message, kind, now, bytes_max, &mut self.spare);
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push_back(token);
        }
        Some(pushed)
    }

    /// Queues the connection for writing.
    pub fn unblock(&mut self, token: Token) {
        if let Some(connection) = find(&mut self.slots, token)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push_back(token);
        }
    }

    /// Returns whether any connection is to be written to or to be closed.
    pub fn has_unwritten(&self) -> bool {
        let mut queues = std::iter::once(&self.dirty).chain(&self.others);
        !self.closing.is_empty() || queues.any(|queue| !queue.is_empty())
    }

    /// Writes the queued output of one connection of this rank. Returns whether there was one.
    pub fn write_next(
        &mut self,
        rank: Rank,
        now: Instant,
        output: &mut Scratch,
        budget: &mut Budget,
    ) -> bool {
        while let Some(token) = self.queue(rank).pop_front() {
            let Some(connection) = find(&mut self.slots, token) else { continue };
            let (current, user) = (connection.share.rank(budget), connection.share.user);
            // Its user may have become busy since.
            if current > rank {
                self.queue(current).push_back(token);
                continue;
            }
            let units = self.write(token, now, output);
            budget.spend(units);
            budget.charge(user, units);
            return true;
        }
        false
    }

    fn queue(&mut self, rank: Rank) -> &mut VecDeque<Token> {
        match rank {
            Rank::First => &mut self.dirty,
            other => &mut self.others[other as usize - 1],
        }
    }

    /// Writes the queued output of a connection and updates its epoll interest. Returns the units of work.
    pub fn write(&mut self, token: Token, now: Instant, output: &mut Scratch) -> u32 {
        let Some(connection) = find(&mut self.slots, token) else { return 0 };
        connection.dirty = false;
        let written = connection.stream.write(now, output, &mut self.spare);
        let counters = self.counters.streams(connection.client.five_tuple.transport);
        counters.sent.add(written.len as u64);
        counters.stale.add(written.stale.packets);
        self.reports.unsent(&connection.client, DropReason::Stale, written.stale);
        let settled = connection.settle(&self.epoll, token, output);
        let wanted = connection.wanted();
        let mut watched = Ok(());
        if wanted != connection.interest {
            connection.interest = wanted;
            watched = self.epoll.modify(connection.stream.fd(), token.pack(), wanted);
        }
        let unwatched = watched.err().map(|_| CloseReason::Reset);
        if let Some(reason) = written.end.or(settled.err()).or(unwatched) {
            self.mark_closing(token, reason);
        } else if settled == Ok(true) {
            self.shortened.push(token);
        }
        written.units
    }

    /// Queues updates of the epoll interest and of the deadline, after a connection was spliced or ended, or its exchange is over.
    pub fn spliced(&mut self, token: Token) {
        self.unblock(token);
        self.shortened.push(token);
    }

    /// Returns the next connection whose deadline has become earlier.
    pub fn next_shortened(&mut self) -> Option<Token> {
        self.shortened.pop()
    }

    /// Records an authenticated request of a client. `user` owns the client's allocation, if there is one.
    pub fn authenticated(&mut self, token: Token, user: Option<UserId>, now: Instant) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        let before = connection.class();
        connection.authenticated(now, user);
        if user.is_some() {
            connection.reached(Stage::Allocated);
        }
        self.note_class(token, before);
    }

    /// Records that the session of a client has ended: it is a stranger again.
    pub fn session_ended(&mut self, token: Token) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        let before = connection.class();
        connection.set_user(None);
        self.note_class(token, before);
    }

    /// Returns the result of checking the deadline of a connection; `None` if it is closed.
    pub fn life(
        &mut self,
        token: Token,
        now: Instant,
        has_allocation: impl FnOnce(&Client) -> bool,
    ) -> Option<Life> {
        let connection = find(&mut self.slots, token)?;
        let (before, client) = (connection.class(), connection.client);
        let life = connection.life(now, || has_allocation(&client));
        self.note_class(token, before);
        Some(life)
    }

    /// Schedules a check of a connection at `deadline`, but at the earliest one millisecond from now. Returns the time
    /// of the check; `None` if an earlier check is already scheduled, or the connection is closed.
    pub fn schedule(&mut self, token: Token, deadline: Instant, now: Instant) -> Option<Instant> {
        let deadline = deadline.max(now + Duration::from_millis(1));
        find(&mut self.slots, token)?.schedule(deadline, now).then_some(deadline)
    }

    /// Updates the displacement order after a client gained an allocation or lost its last one. A client with an
    /// allocation is never displaced.
    fn note_class(&mut self, token: Token, before: Class) {
        let Some(after) = candidate(&self.slots, token) else { return };
        match (before, after.class) {
            (Class::Stranger, Class::Authenticated) => self.displacement.settled(after.source),
            (Class::Authenticated, Class::Stranger) => self.arrive(token, after.source),
            _ => {}
        }
    }

    /// Records the arrival of a connection among the strangers.
    fn arrive(&mut self, token: Token, source: Network) {
        let live = self.len();
        let stamp = self.displacement.arrived(token, source, live, |token| candidate(&self.slots, token));
        if let Token::Stream { slot, .. } = token
            && let Some(slot) = self.slots.get_mut(slot as usize)
        {
            slot.stamp = stamp;
        }
    }

    /// Records that a PROXY header changed the source of a connection from `before`.
    pub fn source_changed(&mut self, token: Token, before: IpAddr) {
        if let Some(connection) = find(&mut self.slots, token) {
            self.displacement.renamed(Network::site(before), connection.candidate().source);
        }
    }

    /// Records that a connection was detected as TLS or plain: updates its counters and its deadline.
    pub fn detected(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        connection.active = now;
        let before = if connection.expected.tls { Transport::Tls } else { Transport::Tcp };
        let after = connection.client.five_tuple.transport;
        self.counters.streams(before).open.sub(1);
        self.counters.streams(after).open.add(1);
        self.counters.streams(after).accepted.add(1);
        // The time limit of the next stage may be shorter.
        self.shortened.push(token);
    }

    /// Detects whether a new client speaks TLS, on a listener for both TLS and plain clients.
    pub fn detect_tls(&mut self, token: Token, now: Instant) {
        if let Some(connection) = find(&mut self.slots, token).filter(|connection| connection.is_undetected())
        {
            connection.peek_first_byte();
            if !connection.is_undetected() {
                self.detected(token, now);
            }
        }
    }

    /// Counts a stranger's connection in the share of web clients from now on.
    ///
    /// # Errors
    /// The exhausted resource.
    pub fn count_for_web(&mut self, token: Token) -> Result<(), Refusal> {
        let Some(connection) = find(&mut self.slots, token) else { return Ok(()) };
        if connection.class() == Class::Stranger {
            connection.count_for_web()?;
            let source = connection.candidate().source;
            let live = self.len();
            self.displacement.became_web(token, source, live, |token| candidate(&self.slots, token));
        }
        Ok(())
    }

    /// Marks the connection to be closed at the end of the turn; messages to it are dropped until then. If it is marked
    /// again, the first reason stays. A web client that is `Closed` receives the rest of its answer before.
    pub fn mark_closing(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        if reason == CloseReason::Closed && slot::keeps_rest(connection) {
            return self.spliced(token);
        }
        connection.closing = true;
        self.closing.push_back((token, reason));
    }

    /// Closes the marked connections.
    pub fn close_marked(&mut self, max: usize, output: &mut Scratch) {
        for (token, reason) in self.closing.drain(..max.min(self.closing.len())).collect::<Vec<_>>() {
            self.remove(token, reason, output);
        }
    }

    /// Closes and removes a connection. A TLS client receives a close_notify.
    fn remove(&mut self, token: Token, reason: CloseReason, output: &mut Scratch) {
        let Token::Stream { slot: index, generation } = token else { return };
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation);
        let Some((current, connection)) =
            slot.and_then(|slot| slot.connection.take().map(|c| (&mut slot.generation, c)))
        else {
            return;
        };
        *current = generation.next();
        self.ending -= usize::from(connection.is_ending());
        self.free.push(index);
        self.displacement.left(connection.candidate());
        let (client, stage) = (connection.client, connection.stage());
        let counters = self.counters.streams(client.five_tuple.transport);
        counters.accepted.add(u64::from(connection.is_undetected()));
        counters.open.sub(1);
        counters.closed(stage, reason).add(1);
        self.reports.unsent(&client, DropReason::ConnectionClosed, connection.stream.waiting_media());
        self.reports.gone(client, reason);
        // The counters are updated first, so that they are right when the client sees the end of the connection.
        if let Some((socket, entry)) = connection.close(reason, output) {
            // Its end would be reported again and again. Only a closed descriptor could fail here.
            let _ = self.epoll.remove(&socket);
            let source = Network::site(client.five_tuple.client.ip());
            self.lingering.add(socket, entry, source, self.gate.lingering_max());
        }
    }
}

#[cfg(test)]
mod tests;
