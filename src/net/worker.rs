//! One worker: a thread with its own sockets, its own protocol state and its own loop. No lock and no other worker
//! is on the way of a packet.
//!
//! The worker keeps the loop, the clock and the routing of events. It hands events to [`Datagrams`] (UDP listeners and
//! relayed addresses) and [`Front`] (stream clients, the web, QUIC), asks the protocol [`Server`] what becomes of each
//! message, and carries out what it answers.
//!
//! A turn of the loop: wait; read the clock once; take commands; take a bounded share from every socket that is
//! ready; deadlines; write what waits for streams; close what is to be closed. What is left over comes again in the next
//! turn: by level-triggered readiness, from the [`Budget`]'s leftovers, or from the TLS handshakes that wait. UDP
//! listeners are read first, and again while relayed addresses and streams use their time.

mod act;
mod persistent;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Command;
use super::admission::Pressure;
use super::budget::{Budget, Leftovers, REQUEST_UNITS, Rank, SOCKET_UNITS};
use super::datagram::relay::Standing;
use super::datagram::{Datagram, Datagrams};
use super::front::quic::Claim;
use super::front::{Front, Messages, Parts, closes_stream};
use super::log::{self, SessionLog};
use super::socket::WorkerSockets;
use super::stream::outbox::Kind;
use super::syscall::{Alarm, Epoll, Events, Offloads, ready, return_free_memory};
use super::token::{Generation, Token};
use crate::base::time::Now;
use crate::system::entropy;
use crate::turn::action::{DropReason, FromClient, FromPeer, PeerHeader, RelayId};
use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;
use crate::turn::server::Server;
pub(super) use persistent::{Controls, Persistent};

/// Events taken from one wait, so many that relayed addresses do not queue in the kernel behind the connections of one
/// source, of which there may be 8,000. The rest comes first in the next wait.
const EVENTS: usize = 4096;
/// Units of work for the messages of one stream before others have their turn.
const MESSAGES_AT_ONCE: u32 = 128;
/// ICMP errors taken from one relayed address per turn.
const ICMP_PER_RELAY: usize = 8;
/// Allocations whose end leaves enough memory behind to be worth giving back: about 1 MiB.
const BURST: usize = 512;

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
    log: SessionLog,
    running: bool,
    /// The most allocations since memory was given back last.
    peak: usize,
}

impl Worker {
    pub fn new(
        sockets: WorkerSockets,
        persistent: Persistent,
        clock: fn() -> Now,
        offloads: Offloads,
    ) -> io::Result<Self> {
        let Persistent { server, tls, web, controls, log } = persistent;
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
            log,
            running: true,
            peak: 0,
        })
    }

    /// What the next worker needs of one that failed; the rest is dropped, and all sockets but the listeners with it.
    /// Everything kept here is changed as a whole or not at all, so it is sound whenever the failure came.
    pub fn into_persistent(self) -> Persistent {
        let (tls, web) = self.front.into_rules();
        Persistent { server: self.server, tls, web, controls: self.controls, log: self.log }
    }

    /// Runs until [`Command::Stop`].
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new(EVENTS);
        let mut leftovers = Leftovers::default();
        let shared: [fn(Token) -> bool; 2] = [Token::is_peer, Token::is_stream];
        while self.running {
            let deadlines = [self.server.poll_timeout(), self.front.deadline(), self.log.due()];
            if let Some(deadline) = deadlines.into_iter().flatten().min() {
                self.alarm.set(deadline.as_nanos(), self.now.instant.as_nanos())?;
            }
            self.budget.take_leftovers(&mut leftovers);
            let is_due = !leftovers.is_empty() || self.front.has_unwritten();
            self.epoll.wait(&mut events, is_due.then_some(Duration::ZERO))?;
            self.now = (self.clock)();
            self.controls.counters.wakeups.add(1);
            self.budget.begin_turn(self.now.instant);
            self.front.begin_turn(self.now.instant);
            self.server.handle_pressure(self.controls.gate.admission().pressure() != Pressure::None);
            // UDP clients first: they wait for neither peers nor streams.
            self.on_events(&events, |token| !token.is_peer() && !token.is_stream());
            self.on_leftovers(&leftovers, Rank::Last, |token| matches!(token, Token::Udp(_)));
            for is_due in shared {
                self.budget.begin_slice();
                self.on_leftovers(&leftovers, Rank::First, is_due);
                self.on_events(&events, is_due);
                for &rank in &Rank::ALL[1..] {
                    self.budget.begin_slice();
                    self.on_leftovers(&leftovers, rank, is_due);
                }
            }
            leftovers.clear();
            self.budget.begin_slice();
            while let Some(token) = self.front.next_handshake() {
                let messages = self.front.read(token, ready::READ, self.now.instant, &mut self.budget);
                self.on_messages(messages);
            }
            self.flush();
            self.on_deadlines();
            self.write_streams();
            self.front.close_marked();
            self.end_allocations();
            self.flush();
            self.datagrams.reuse_frames();
            self.controls.allocations.store(self.server.allocations() as u64, Relaxed);
            self.return_memory();
        }
        self.log.summarise();
        Ok(())
    }

    /// Returns memory to the kernel after a large drop in allocations.
    fn return_memory(&mut self) {
        let allocations = self.server.allocations();
        self.peak = self.peak.max(allocations);
        if self.peak >= BURST && allocations < self.peak / 8 {
            self.peak = allocations;
            return_free_memory();
        }
    }

    /// Handles those of a rank that the last turn left over, unless they were dealt with meanwhile or have to wait again.
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

    /// Leaves a socket to the next turn once more if there is no time, or if its user has had much work since.
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

    /// Returns the order in which a relayed address or a stream client has its share in a turn.
    fn rank(&mut self, token: Token) -> Rank {
        match token {
            Token::Relay { relay, .. } => self.budget.rank(self.server.user_of_relay(relay)),
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
            // Every turn looks at the deadlines. Only a descriptor that is none could fail here.
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

    fn on_commands(&mut self) {
        self.controls.waker.clear();
        while let Ok(command) = self.controls.commands.try_recv() {
            match command {
                Command::Settings(settings) => self.server.handle_settings(self.now, settings),
                Command::Tls(chooser) => self.front.set_tls(chooser),
                Command::Web(web) => self.front.set_web(web),
                Command::Drain(draining) => self.server.handle_drain(draining),
                Command::Stop => {
                    self.server.handle_shutdown(self.now);
                    self.running = false;
                    self.front.close_all();
                }
            }
            self.act();
        }
    }

    fn on_deadlines(&mut self) {
        if self.server.poll_timeout().is_some_and(|deadline| deadline <= self.now.instant) {
            self.server.handle_timeout(self.now);
            self.act();
        }
        if self.log.due().is_some_and(|due| due <= self.now.instant) {
            self.log.summarise();
        }
        self.front.on_deadlines(self.now.instant, &self.server);
    }

    /// Takes one batch from a listener and sends what follows from it.
    fn on_udp(&mut self, listener: u16) {
        // The frames are about to be used again.
        self.flush();
        let Some(mut arrived) = self.datagrams.receive_from_clients(listener, self.budget.turn) else {
            return;
        };
        if arrived.more {
            self.budget.read_again(Token::Udp(listener), Rank::Last);
        }
        self.controls.counters.batches.add(1);
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.controls.counters.datagrams.add(1);
            if let Some(client) = self.datagrams.client(listener, &datagram)
                && !self.is_quic(listener, &datagram, client)
            {
                self.on_client_datagram(&datagram, client);
            }
        }
        self.flush();
    }

    /// Reads the UDP listeners again if relayed addresses or streams have used much time since.
    fn read_due_listeners(&mut self) {
        if self.budget.take_listeners_due() {
            (0..self.datagrams.listeners()).for_each(|listener| self.on_udp(listener));
        }
    }

    /// Whether a datagram is a QUIC client's; then it is on its way.
    fn is_quic(&mut self, listener: u16, datagram: &Datagram, client: Client) -> bool {
        let Some(to) = self.datagrams.quic_server(listener) else { return false };
        let bytes = self.datagrams.bytes(datagram);
        match self.front.claim(client, to, bytes, &self.server, self.now.instant) {
            Claim::Turn => return false,
            Claim::Quic { .. } => {}
            Claim::Refused => self.dropped(DropReason::QuicRefused),
        }
        true
    }

    fn on_client_datagram(&mut self, datagram: &Datagram, client: Client) {
        match self.server.handle_client(self.now, client, self.datagrams.bytes(datagram)) {
            FromClient::Relay { relay, peer: OnWire(peer), payload, dont_fragment } => {
                let full = self.datagrams.send_from_client((relay, dont_fragment), peer, datagram, payload);
                self.flush_if(full);
            }
            FromClient::Control => self.act(),
            FromClient::Dropped(_) => {}
        }
    }

    /// Takes a share from a relayed address with an event, unless others come first.
    fn on_relay_event(&mut self, relay: RelayId, generation: Generation, readiness: u32) {
        let standing = self.datagrams.standing(relay, generation, self.budget.turn);
        let rank = self.rank(Token::Relay { relay, generation });
        let has_share = match standing {
            Standing::Served => return,
            Standing::LeftOver => false,
            Standing::New => self.budget.has_share(rank),
        };
        if has_share {
            self.on_relay(relay, generation, readiness);
        } else if self.datagrams.leave_over(relay, generation, readiness) {
            // Otherwise its readiness was added.
            self.budget.postpone(Token::Relay { relay, generation }, rank);
        }
    }

    /// Takes a share from a relayed address. Several of them share one batch towards the clients.
    fn on_relay(&mut self, relay: RelayId, generation: Generation, readiness: u32) {
        let before = self.budget.spent();
        if readiness & ready::ERROR != 0 {
            self.on_icmp(relay, generation);
        }
        self.make_frames_available();
        self.budget.spend(SOCKET_UNITS);
        let turn = self.budget.turn;
        let arrived = self.datagrams.receive_from_peers(relay, generation, turn);
        self.controls.counters.batches.add(u64::from(arrived.is_some()));
        let mut arrived = arrived.unwrap_or_default();
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.budget.spend(1);
            self.controls.counters.datagrams.add(1);
            let peer = self.datagrams.sender(&datagram);
            let decided = self.server.handle_peer(self.now, relay, OnWire(peer), datagram.range.len());
            if let FromPeer::Relay { client, header } = decided {
                self.send_to_client(&datagram, client, header);
            }
        }
        let units = self.budget.spent().wrapping_sub(before);
        self.server.user_of_relay(relay).into_iter().for_each(|user| self.budget.charge(user, units));
    }

    fn on_icmp(&mut self, relay: RelayId, generation: Generation) {
        for _ in 0..ICMP_PER_RELAY {
            let Some(error) = self.datagrams.next_icmp(relay, generation) else { return };
            self.controls.counters.icmp.add(1);
            self.budget.spend(SOCKET_UNITS);
            self.server.handle_peer_icmp(self.now, relay, error);
            self.act();
        }
    }

    /// Takes a share from a QUIC server for one client.
    fn on_flow(&mut self, token: Token) {
        self.make_frames_available();
        self.budget.spend(SOCKET_UNITS);
        let Some((socket, client, share)) = self.front.flows().get(token, self.now.instant) else { return };
        // Nothing there, or the server is away: its silence ends the flow.
        let Some(mut arrived) = self.datagrams.receive_from(socket, share) else { return };
        let Some(Token::Udp(listener)) = Token::unpack(client.link.0) else { return };
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.budget.spend(1);
            self.front.flows().answered(token, self.datagrams.bytes(&datagram));
            let full = self.datagrams.forward(listener, client, datagram);
            self.flush_if(full);
        }
    }

    fn make_frames_available(&mut self) {
        if !self.datagrams.has_frames() {
            self.flush();
            self.datagrams.reuse_frames();
        }
    }

    /// Puts the header in front of a peer's datagram and sends it on its way to the client.
    fn send_to_client(&mut self, datagram: &Datagram, client: Client, header: PeerHeader) {
        let wrapped = match self.datagrams.wrap(datagram, header, client.five_tuple.transport) {
            Ok(wrapped) => wrapped,
            Err(reason) => return self.dropped(reason),
        };
        match Token::unpack(client.link.0) {
            Some(Token::Udp(listener)) => {
                let full = self.datagrams.send_wrapped(listener, client, wrapped);
                self.flush_if(full);
            }
            Some(token) => {
                let message = self.datagrams.pieces(&wrapped);
                let pushed = self.front.push(token, &message, Kind::Media, self.now.instant);
                self.count_drops(pushed);
            }
            None => {}
        }
    }

    /// Handles an event of a stream client, or what is left over of one.
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

    /// Writes what waits for streams, by rank. All that a turn has for one goes out together.
    fn write_streams(&mut self) {
        for rank in Rank::ALL {
            self.budget.begin_slice();
            while !self.budget.is_time_spent()
                && self.front.write_next(rank, self.now.instant, &mut self.budget)
            {
                self.read_due_listeners();
            }
        }
    }

    /// Deals with the whole messages that a read of a stream brought. What there is no time for is left over.
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
            match self.server.handle_stream(self.now, client, bytes, messages.opening) {
                FromClient::Relay { relay, peer: OnWire(peer), payload, dont_fragment } => {
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
            self.budget.spend(units);
            spent += units;
        }
        // The next read uses the buffer again.
        self.flush();
    }

    fn flush_if(&mut self, full: bool) {
        if full {
            self.flush();
        }
    }

    /// Sends the datagrams that were queued. After it, frames and buffers may receive again.
    fn flush(&mut self) {
        if self.datagrams.is_flushed() {
            return;
        }
        let counters = self.server.counters();
        let mut failed = |reason: DropReason| counters.dropped(reason).add(1);
        let sent = self.datagrams.flush(self.front.bytes(), &mut failed);
        self.controls.counters.sent.add(sent as u64);
        if self.datagrams.take_segmentation_refused() {
            log::segmentation_refused();
        }
    }
}
