//! All connections of a worker, by token: their places, what waits to be written, and how they end.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::acceptors::Arrival;
use super::connection::Connection;
use super::displacement::{Candidate, Displacement, Stamp};
use super::door::Expected;
use super::life::{INTEREST, Life};
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
use crate::net::token::{Generation, Token};
use crate::turn::action::UserId;
use crate::turn::five_tuple::{Client, FiveTuple};

/// Connections closed at most for one newcomer. One is enough, unless the operator lowered a limit below what is open.
const DISPLACED_MAX: usize = 2;

/// The connections, those that have something to write, and those to be closed.
pub struct Connections {
    epoll: Rc<Epoll>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that got something to write, or room to write.
    dirty: VecDeque<Token>,
    /// Those of them that are not of the first rank, by rank.
    others: [VecDeque<Token>; 2],
    /// Those to be closed at the end of the turn, and why.
    closing: Vec<(Token, CloseReason)>,
    /// Those that have less time than before, to be looked after.
    shortened: Vec<Token>,
    /// Clients whose connections were closed, for the protocol.
    gone: Vec<(Client, CloseReason)>,
    /// Whether memory is so low that less may wait for each.
    tight: bool,
    displacement: Displacement,
    spare: Outboxes,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    generation: Generation,
    stamp: Stamp,
}

fn candidate(slots: &[Slot], token: Token) -> Option<Candidate> {
    let Token::Stream { slot, generation } = token else { return None };
    let slot = slots.get(slot as usize).filter(|slot| slot.generation == generation)?;
    let connection = slot.connection.as_ref().filter(|connection| !connection.closing)?;
    Some(Candidate { stamp: slot.stamp, ..connection.candidate() })
}

fn find(slots: &mut [Slot], token: Token) -> Option<&mut Connection> {
    let (Token::Stream { slot, generation } | Token::BackEnd { slot, generation }) = token else {
        return None;
    };
    let slot = slots.get_mut(slot as usize).filter(|slot| slot.generation == generation)?;
    slot.connection.as_mut().filter(|connection| !connection.closing)
}

impl Connections {
    /// None open yet.
    pub fn new(epoll: Rc<Epoll>, gate: Arc<Gate>, counters: Arc<Counters>) -> Self {
        Self {
            epoll,
            gate,
            counters,
            slots: Vec::new(),
            free: Vec::new(),
            dirty: VecDeque::new(),
            others: Default::default(),
            closing: Vec::new(),
            shortened: Vec::new(),
            gone: Vec::new(),
            tight: false,
            displacement: Displacement::default(),
            spare: Outboxes::default(),
        }
    }

    /// A place for a newcomer. When strangers have all that they may have, those of this worker make room: a client that
    /// authenticates does so within seconds, so those that hold a place longest are the least likely to.
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

    /// Closes the connections that are to be closed anyway, or else the oldest stranger; `false` if there is none.
    fn make_room(&mut self, now: Instant, output: &mut Scratch) -> bool {
        if self.closing.is_empty() {
            let stranger = self.displacement.stranger(|token| candidate(&self.slots, token));
            let Some(stranger) = stranger else { return false };
            // What it was answered in this turn goes out first.
            self.write(stranger, now, output);
            self.mark_closing(stranger, CloseReason::Displaced);
        }
        self.close_marked(output);
        true
    }

    /// Returns what `take` returns, after others made room for this web client if need be.
    ///
    /// # Errors
    /// The error of `take` if nobody makes room.
    pub fn with_web_room<T>(
        &mut self,
        token: Token,
        now: Instant,
        flows: &mut Flows,
        output: &mut Scratch,
        mut take: impl FnMut(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut taken = take(self);
        // Anybody can begin a QUIC flow in anybody's name: before a client that connected, such a flow is closed.
        if taken.as_ref().err() == Some(&Refusal::Descriptors) && flows.close_oldest_unproven() {
            taken = take(self);
        }
        for _ in 0..DISPLACED_MAX {
            if taken.is_ok() {
                break;
            }
            let source = candidate(&self.slots, token).map(|newcomer| newcomer.source);
            let displaced = source.and_then(|source| {
                self.displacement.web_client((token, source), now, |token| candidate(&self.slots, token))
            });
            let Some(displaced) = displaced else { break };
            // At once: its place is wanted now.
            self.remove(displaced, CloseReason::Displaced, output);
            taken = take(self);
        }
        taken
    }

    /// Takes in a connection that was just accepted and returns its token.
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
        // A proxy will say whose connection it is.
        let entry = self.enter((!expected.proxied).then_some(client.ip()), now, output)?;
        let server = socket.set_nonblocking(true).and_then(|()| socket.local_addr());
        let five_tuple =
            FiveTuple { transport, client, server: canonical(server.map_err(|_| Refusal::Descriptors)?) };
        self.insert(socket, five_tuple, expected, entry, now).map_err(|_| Refusal::Descriptors)
    }

    /// Takes in an accepted socket, non-blocking, and returns its token.
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
        let is_untold = connection.is_untold();
        slot.connection = Some(connection);
        let counters = self.counters.streams(five_tuple.transport);
        counters.accepted.add(u64::from(!is_untold));
        counters.open.add(1);
        let (live, source) = (self.len(), Network::site(five_tuple.client.ip()));
        let stamp = self.displacement.arrived(token, source, live, |token| candidate(&self.slots, token));
        self.set_stamp(token, stamp);
        Ok(token)
    }

    /// The connection of a token, or of the token of its web server; `None` when it was closed meanwhile, or is about to
    /// be.
    pub fn get(&mut self, token: Token) -> Option<&mut Connection> {
        find(&mut self.slots, token)
    }

    /// Whether this token's connection is open.
    pub fn is_open(&self, token: Token) -> bool {
        let Token::Stream { slot, generation } = token else { return false };
        self.slots
            .get(slot as usize)
            .is_some_and(|slot| slot.connection.is_some() && slot.generation == generation)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every open one.
    pub fn tokens(&self) -> Vec<Token> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        open.map(|(index, slot)| Token::Stream { slot: index as u32, generation: slot.generation }).collect()
    }

    /// Watches the socket for nothing until it is read again; `false` when that is so already, or it is gone.
    pub fn mute(&mut self, token: Token) -> bool {
        let connection = find(&mut self.slots, token).filter(|connection| connection.interest != 0);
        let Some(connection) = connection else { return false };
        connection.interest = 0;
        // Changing what is watched takes no memory: it cannot fail on a socket that is watched.
        self.epoll.modify(connection.stream.fd(), token.pack(), 0).is_ok()
    }

    /// Says whether memory is so low that less may wait for each connection.
    pub fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
    }

    /// Queues one whole message, given in pieces. `None` when the connection is gone.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let bytes_max = if self.tight { BYTES_MAX_TIGHT } else { BYTES_MAX };
        let connection = find(&mut self.slots, token)?;
        let pushed = connection.stream.push(message, kind, now, bytes_max, &mut self.spare);
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push_back(token);
        }
        Some(pushed)
    }

    /// Notes that the connection may be written to.
    pub fn unblock(&mut self, token: Token) {
        if let Some(connection) = find(&mut self.slots, token)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push_back(token);
        }
    }

    /// Returns whether anything waits to be written.
    pub fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty() || !self.others.iter().all(VecDeque::is_empty)
    }

    /// Writes what waits for one connection of this rank. Returns whether there was one.
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
            // Its user may have had much work since.
            if current > rank {
                self.queue(current).push_back(token);
                continue;
            }
            let units = self.write(token, now, output);
            budget.spend(units);
            user.into_iter().for_each(|user| budget.charge(user, units));
            return true;
        }
        false
    }

    fn queue(&mut self, rank: Rank) -> &mut VecDeque<Token> {
        match rank {
            Rank::First => &mut self.dirty,
            Rank::Second => &mut self.others[0],
            Rank::Last => &mut self.others[1],
        }
    }

    /// Writes what waits for this connection, and watches its sockets for what is wanted then. Returns the units of work.
    pub fn write(&mut self, token: Token, now: Instant, output: &mut Scratch) -> u32 {
        let Some(connection) = find(&mut self.slots, token) else { return 0 };
        connection.dirty = false;
        let written = connection.stream.write(now, output, &mut self.spare);
        let counters = self.counters.streams(connection.client.five_tuple.transport);
        counters.sent.add(written.len as u64);
        counters.stale.add(written.stale as u64);
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

    /// Notes that a connection has a back end now: nothing is read from it before that has accepted, and it is looked after.
    pub fn spliced(&mut self, token: Token) {
        self.unblock(token);
        self.shortened.push(token);
    }

    /// The next connection that has less time than before.
    pub fn next_shortened(&mut self) -> Option<Token> {
        self.shortened.pop()
    }

    /// Notes that a request of the client authenticated, of this user if it has an allocation.
    pub fn authenticated(&mut self, token: Token, user: Option<UserId>, now: Instant) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        let before = connection.class();
        connection.authenticated(now, user);
        if user.is_some() {
            connection.reached(Stage::Allocated);
        }
        self.note_class(token, before);
    }

    /// Notes that the session of a client has ended: it is a stranger again.
    pub fn session_ended(&mut self, token: Token) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        let before = connection.class();
        connection.session_ended();
        self.note_class(token, before);
    }

    /// Returns when to look after a connection again; `None` if it is gone.
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

    /// Notes that a connection is to be checked at `deadline`, and never in the turn that sets it. Returns the time;
    /// `None` if it is checked before that anyway.
    pub fn schedule(&mut self, token: Token, deadline: Instant, now: Instant) -> Option<Instant> {
        let deadline = deadline.max(now + Duration::from_millis(1));
        find(&mut self.slots, token)?.schedule(deadline, now).then_some(deadline)
    }

    /// Notes that a client got an allocation or lost its last one: only strangers make room.
    fn note_class(&mut self, token: Token, before: Class) {
        let Some(after) = candidate(&self.slots, token) else { return };
        match (before, after.class) {
            (Class::Stranger, Class::Authenticated) => self.displacement.settled(after.source),
            (Class::Authenticated, Class::Stranger) => {
                let live = self.len();
                let look = |token| candidate(&self.slots, token);
                let stamp = self.displacement.arrived(token, after.source, live, look);
                self.set_stamp(token, stamp);
            }
            _ => {}
        }
    }

    /// Records the last arrival of a connection among the strangers.
    fn set_stamp(&mut self, token: Token, stamp: Stamp) {
        if let Token::Stream { slot, .. } = token
            && let Some(slot) = self.slots.get_mut(slot as usize)
        {
            slot.stamp = stamp;
        }
    }

    /// Notes that a PROXY header named the source of a connection, which came from `before` until then.
    pub fn named(&mut self, token: Token, before: IpAddr) {
        if let Some(connection) = find(&mut self.slots, token) {
            self.displacement.renamed(Network::site(before), connection.candidate().source);
        }
    }

    /// Notes that a connection turned out to speak TLS, or not: it counts as what it is, and gets its time.
    pub fn told(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.slots, token) else { return };
        connection.active = now;
        let before = if connection.expected.tls { Transport::Tls } else { Transport::Tcp };
        let after = connection.client.five_tuple.transport;
        self.counters.streams(before).open.sub(1);
        self.counters.streams(after).open.add(1);
        self.counters.streams(after).accepted.add(1);
        // It may have less time from now on.
        self.shortened.push(token);
    }

    /// Finds out whether a new client speaks TLS, where the listener takes both.
    pub fn tell_tls(&mut self, token: Token, now: Instant) {
        if let Some(connection) = find(&mut self.slots, token).filter(|connection| connection.is_untold()) {
            connection.look_at_first_byte();
            if !connection.is_untold() {
                self.told(token, now);
            }
        }
    }

    /// Counts a stranger's connection among the web's.
    ///
    /// # Errors
    /// The exhausted resource of the web.
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

    /// Marks the connection to be closed at the end of the turn. Until then its messages go nowhere. The first reason
    /// counts.
    pub fn mark_closing(&mut self, token: Token, reason: CloseReason) {
        if let Some(connection) = self.get(token) {
            connection.closing = true;
            self.closing.push((token, reason));
        }
    }

    /// Closes what was marked.
    pub fn close_marked(&mut self, output: &mut Scratch) {
        while let Some((token, reason)) = self.closing.pop() {
            self.remove(token, reason, output);
        }
    }

    /// Closes the connection, with a last word where TLS has one.
    fn remove(&mut self, token: Token, reason: CloseReason, output: &mut Scratch) {
        let Token::Stream { slot: index, generation } = token else { return };
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation);
        let Some((slot, connection)) =
            slot.and_then(|slot| slot.connection.take().map(|c| (&mut slot.generation, c)))
        else {
            return;
        };
        *slot = generation.next();
        self.free.push(index);
        self.displacement.left(connection.candidate());
        let (client, stage) = (connection.client, connection.stage());
        let counters = self.counters.streams(client.five_tuple.transport);
        counters.accepted.add(u64::from(connection.is_untold()));
        counters.open.sub(1);
        counters.closed(stage, reason).add(1);
        // Whoever sees the end finds it counted.
        connection.close(output);
        self.gone.push((client, reason));
    }

    /// The next client whose connection was closed, and why.
    pub fn next_gone(&mut self) -> Option<(Client, CloseReason)> {
        self.gone.pop()
    }
}

#[cfg(test)]
mod tests;
