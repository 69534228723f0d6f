//! One worker: a thread with its own sockets, protocol state and event loop. A packet takes no lock and waits for no
//! other worker.
//!
//! The worker runs the loop, reads the clock and dispatches events to [`Datagrams`] (UDP listeners and relayed
//! addresses) and [`Front`] (stream clients, the web, QUIC). It passes each message to the protocol [`Server`] and
//! executes the actions that it returns.
//!
//! A turn of the loop: wait for events; read the clock; read a bounded share from every ready socket; continue TLS
//! handshakes; handle deadlines; write queued output; close marked connections; count how long all this took. Remaining work continues in the next
//! turn: by level-triggered readiness, from the leftovers of the [`Budget`], or from the queue of handshakes. UDP
//! listeners are read first, and again while relayed addresses and streams use their time.

mod act;
mod commands;
mod listeners;
mod memory;
mod persistent;
mod relays;
mod request_time;
mod stop;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::admission::Pressure;
use super::budget::{Budget, Leftovers, REQUEST_UNITS, Rank, SOCKET_UNITS};
use super::datagram::Datagrams;
use super::front::kernel_memory::Guard;
use super::front::{Front, Messages, Parts, closes_stream};
use super::log::{self, SessionLog};
use super::socket::WorkerSockets;
use super::syscall::{Alarm, Epoll, Events, Offloads, ready};
use super::token::Token;
use crate::base::time::{Instant, Now};
use crate::system::entropy;
use crate::turn::action::FromClient;
use crate::turn::address::OnWire;
use crate::turn::server::Server;
use memory::Memory;
pub(super) use persistent::{Controls, Persistent};
use request_time::RequestTime;
use stop::Stop;

/// Events per wait. With few, relayed addresses queue behind ready connections, of which one source may have 8,000.
const EVENTS: usize = 4096;
/// Permissions and channels that a message removes, for one more unit of its work: each takes 0.3 us.
const REMOVED_PER_UNIT: u32 = 4;
/// Units of work for the messages of one stream before other sockets are served.
const MESSAGES_AT_ONCE: u32 = 128;

pub(super) struct Worker {
    server: Server,
    datagrams: Datagrams,
    front: Front,
    budget: Budget,
    clock: fn() -> Now,
    now: Now,
    epoll: Rc<Epoll>,
    alarm: Alarm,
    controls: Controls,
    /// The listeners for the successor, if this worker fails.
    kept: WorkerSockets,
    /// When to check next whether removed listeners are still needed.
    removed_check: Option<Instant>,
    log: SessionLog,
    running: bool,
    stop: Option<Stop>,
    memory: Memory,
    request_time: RequestTime,
    kernel_memory: Guard,
}

impl Worker {
    pub fn new(persistent: Persistent, clock: fn() -> Now, offloads: Offloads) -> io::Result<Self> {
        let Persistent { server, sockets: kept, tls, web, controls, log } = persistent;
        let sockets = kept.try_clone()?;
        let key = || entropy::key().map_err(io::Error::other);
        let epoll = Rc::new(Epoll::new()?);
        epoll.add(&controls.waker, Token::Waker.pack(), ready::READ)?;
        let alarm = Alarm::new()?;
        epoll.add(&alarm, Token::Alarm.pack(), ready::READ)?;
        let front = Front::new(Parts {
            epoll: Rc::clone(&epoll),
            gate: Arc::clone(&controls.gate),
            counters: Arc::clone(&controls.counters),
            tls,
            web,
            listeners: sockets.streams,
            clock,
            keys: [key()?, key()?],
        })?;
        Ok(Self {
            server,
            datagrams: Datagrams::new(Rc::clone(&epoll), sockets.udp, offloads)?,
            front,
            budget: Budget::new(clock),
            clock,
            now: clock(),
            epoll,
            alarm,
            controls,
            kept,
            removed_check: None,
            log,
            running: true,
            stop: None,
            memory: Memory::default(),
            request_time: RequestTime::default(),
            kernel_memory: Guard::default(),
        })
    }

    /// Returns what the successor of a failed worker needs, and closes all sockets except the listeners. Its settings
    /// are only ever replaced as a whole, so they are consistent no matter when the failure occurred.
    pub fn into_persistent(self) -> Persistent {
        let (tls, web) = self.front.into_rules();
        Persistent {
            server: self.server,
            sockets: self.kept,
            tls,
            web,
            controls: self.controls,
            log: self.log,
        }
    }

    /// Runs until [`Command::Stop`](crate::net::Command::Stop).
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new(EVENTS);
        let mut leftovers = Leftovers::default();
        let groups: [fn(Token) -> bool; 2] = [Token::is_peer, Token::is_stream];
        while self.running {
            let stop = self.stop.as_ref().map(Stop::due);
            let (timeout, removed) = (self.server.poll_timeout(), self.removed_check);
            let due = [timeout, self.front.deadline(), self.log.due(), self.memory.due(), stop, removed];
            if let Some(deadline) = due.into_iter().flatten().min() {
                self.alarm.set(deadline.as_nanos(), self.now.instant.as_nanos())?;
            }
            self.budget.take_leftovers(&mut leftovers);
            let has_work =
                !leftovers.is_empty() || self.front.has_unwritten() || self.kernel_memory.is_busy();
            self.epoll.wait(&mut events, has_work.then_some(Duration::ZERO))?;
            self.now = (self.clock)();
            self.controls.counters.wakeups.add(1);
            self.budget.begin_turn(self.now.instant);
            self.front.begin_turn(self.now.instant);
            self.datagrams.begin_turn(self.now.instant);
            self.server.handle_pressure(self.controls.gate.admission().pressure() != Pressure::None);
            // UDP clients come first, so they wait for neither peers nor streams.
            self.on_events(&events, |token| !token.is_peer() && !token.is_stream());
            self.on_leftovers(&leftovers, Rank::Last, |token| matches!(token, Token::Udp(_)));
            for is_due in groups {
                self.budget.begin_slice(Rank::First);
                self.on_leftovers(&leftovers, Rank::First, is_due);
                self.on_events(&events, is_due);
                for &rank in &Rank::ALL[1..] {
                    self.budget.begin_slice(rank);
                    self.on_leftovers(&leftovers, rank, is_due);
                }
            }
            leftovers.clear();
            self.budget.begin_slice(Rank::Second);
            while let Some(token) = self.front.next_handshake() {
                let messages = self.front.read(token, ready::READ, self.now.instant, &mut self.budget);
                self.on_messages(messages);
            }
            self.flush();
            self.on_deadlines();
            self.write_streams();
            self.kernel_memory.examine(self.front.connections(), self.now.instant);
            self.front.close_marked(false);
            self.stop_if_over();
            self.end_allocations();
            self.flush();
            self.datagrams.reuse_frames();
            self.controls.allocations.store(self.server.allocations() as u64, Relaxed);
            self.memory.follow(self.server.allocations(), self.now.instant);
            let done = (self.clock)().instant;
            self.controls.counters.turns.add(done.since(self.now.instant));
        }
        self.log.summarise();
        Ok(())
    }

    /// Handles the leftovers of one rank, except those handled meanwhile or postponed again.
    fn on_leftovers(&mut self, leftovers: &Leftovers, rank: Rank, is_due: impl Fn(Token) -> bool) {
        for &token in leftovers.of(rank).iter().filter(|&&token| is_due(token)) {
            match token {
                Token::Udp(listener) if self.datagrams.was_read(listener, self.budget.turn) => {}
                Token::Udp(listener) => self.on_udp(listener),
                token if self.waits_again(token, rank) => {}
                Token::Relay { relay, generation } => {
                    let readiness = self.datagrams.take_left_over(relay, generation);
                    self.on_relay(relay, generation, readiness);
                }
                Token::Quic { .. } => {
                    if self.front.flows().take_left_over(token) {
                        self.on_flow(token);
                    }
                }
                token => match self.front.share(token).map_or(0, |share| share.left_over.take()) {
                    0 => {}
                    readiness => self.on_stream(token, readiness, true),
                },
            }
            self.read_due_listeners();
        }
        self.end_allocations();
    }

    /// Leaves a socket to the next turn again if there is no time, or if its user has become busy since.
    fn waits_again(&mut self, token: Token, before: Rank) -> bool {
        let rank = self.rank(token);
        let waits = rank > before || self.budget.is_time_spent();
        match waits {
            true if rank == before => self.budget.wait_again(token, rank),
            true => self.budget.postpone(token, rank),
            false => {}
        }
        waits
    }

    /// Returns the rank of a socket.
    fn rank(&mut self, token: Token) -> Rank {
        match token {
            Token::Relay { relay, .. } => self.budget.rank_of_relay(self.server.user_of_relay(relay)),
            Token::Quic { .. } => Rank::Second,
            token => self.front.share(token).map_or(Rank::First, |share| share.rank(&self.budget)),
        }
    }

    fn on_events(&mut self, events: &Events, is_due: impl Fn(Token) -> bool) {
        for index in 0..events.len() {
            if let Some((token, readiness)) = events.get(index)
                && let Some(token) = Token::unpack(token).filter(|&token| is_due(token))
            {
                self.on_event(token, readiness);
            }
        }
    }

    fn on_event(&mut self, token: Token, readiness: u32) {
        let now = self.now.instant;
        match token {
            Token::Waker => self.on_commands(),
            // Every turn checks the deadlines. Only an invalid descriptor could fail here.
            Token::Alarm => drop(self.alarm.clear()),
            Token::Udp(listener) => self.on_udp(listener),
            Token::Relay { relay, generation } => self.on_relay_event(relay, generation, readiness),
            Token::Accept(listener) => self.front.on_accept(listener, now),
            Token::Stream { .. } => self.on_stream(token, readiness, false),
            Token::BackEnd { .. } => self.front.on_back_end(token, readiness, now, &mut self.budget),
            Token::Quic { .. } if self.budget.has_share(Rank::Second) => self.on_flow(token),
            Token::Quic { .. } => {
                if self.front.flows().leave_over(token) {
                    self.budget.postpone(token, Rank::Second);
                }
            }
        }
        self.read_due_listeners();
        self.end_allocations();
    }

    fn on_deadlines(&mut self) {
        if self.server.poll_timeout().is_some_and(|deadline| deadline <= self.now.instant) {
            self.server.handle_timeout(self.now);
            self.act();
        }
        if self.log.due().is_some_and(|due| due <= self.now.instant) {
            self.log.summarise();
        }
        if self.removed_check.is_some_and(|due| due <= self.now.instant) {
            self.check_removed_listeners();
        }
        self.front.on_deadlines(self.now.instant, &self.server);
    }

    /// Reads a share of the datagrams of a QUIC server to one client.
    fn on_flow(&mut self, token: Token) {
        self.make_frames_available();
        self.budget.spend(SOCKET_UNITS);
        let Some((socket, client, share)) = self.front.flows().get(token, self.now.instant) else { return };
        // Nothing arrived, or the server is unreachable and the flow ends by its idle timeout.
        let Some(mut arrived) = self.datagrams.receive_from(socket, share) else { return };
        let Some(Token::Udp(listener)) = Token::unpack(client.link.0) else { return };
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.budget.spend(1);
            let proven = self.front.flows().answered(token, self.datagrams.bytes(&datagram));
            let full = self.datagrams.forward((listener, proven), client, datagram);
            self.flush_if(full);
        }
    }

    fn make_frames_available(&mut self) {
        if !self.datagrams.has_frames() {
            self.flush();
            self.datagrams.reuse_frames();
        }
    }

    /// Handles an event or a leftover of a stream client.
    fn on_stream(&mut self, token: Token, readiness: u32, is_left_over: bool) {
        let (before, now) = (self.budget.spent(), self.now.instant);
        let messages = self.front.on_stream(token, readiness, is_left_over, now, &mut self.budget);
        self.on_messages(messages);
        let units = self.budget.spent().wrapping_sub(before);
        if units > 0
            && let Some(share) = self.front.share(token)
        {
            share.record(units, &mut self.budget);
        }
    }

    /// Writes the queued output of streams, by rank. All output of a turn to one stream is written together.
    fn write_streams(&mut self) {
        for rank in Rank::ALL {
            self.budget.begin_slice(rank);
            while !self.budget.is_time_spent()
                && self.front.write_next(rank, self.now.instant, &mut self.budget)
            {
                self.read_due_listeners();
            }
        }
    }

    /// Handles the complete messages of one read. Messages beyond the budget are left over.
    fn on_messages(&mut self, messages: Option<Messages>) {
        let Some(mut messages) = messages else { return };
        let mut spent = 0;
        loop {
            if spent >= MESSAGES_AT_ONCE || self.budget.is_time_spent() {
                self.front.leave_messages(&messages, &mut self.budget);
                break;
            }
            self.read_due_listeners();
            let Some((client, message)) = self.front.next_message(&mut messages, &self.server) else { break };
            let start = message.start;
            let mut units = 1;
            let bytes = &self.front.bytes()[message];
            let removed = self.server.removed();
            match self.server.handle_stream(self.now, client, bytes, messages.opening) {
                FromClient::Relay { relay, peer: OnWire(peer), payload, dont_fragment } => {
                    self.request_time.media(self.now.instant);
                    let payload = start + payload.start..start + payload.end;
                    let full = self.datagrams.send_from_stream((relay, dont_fragment), peer, payload);
                    self.flush_if(full);
                }
                FromClient::Control => {
                    units = REQUEST_UNITS;
                    self.act();
                }
                FromClient::Dropped(dropped) => {
                    if let (Some(reason), Some(token)) =
                        (closes_stream(dropped), Token::unpack(client.link.0))
                    {
                        self.front.close(token, reason);
                    }
                }
            }
            // The end of an allocation, by a Refresh to 0, removes up to 4,000 permissions and channels.
            units += self.server.removed().wrapping_sub(removed) / REMOVED_PER_UNIT;
            self.budget.spend(units);
            spent += units;
        }
        // The next read overwrites the buffer.
        self.flush();
    }

    fn flush_if(&mut self, full: bool) {
        if full {
            self.flush();
        }
    }

    /// Sends all queued datagrams. Afterwards frames and buffers may be reused.
    fn flush(&mut self) {
        if self.datagrams.is_flushed() {
            return;
        }
        let server = &mut self.server;
        let mut failed = |reason, relayed| server.handle_unsent(reason, relayed);
        let sent = self.datagrams.flush(self.front.bytes(), &mut failed);
        self.controls.counters.sent.add(sent as u64);
        if self.datagrams.take_segmentation_refused() {
            log::segmentation_refused();
        }
        if let Some(peer) = self.datagrams.take_no_route() {
            self.controls.counters.no_route_to.set(peer);
        }
    }
}
