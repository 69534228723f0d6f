//! One worker: a thread with its own sockets, its own protocol state and its own loop. No lock and no other worker
//! is on the way of a packet.
//!
//! A turn of the loop: wait; read the clock once; take commands; take a bounded share from every socket that is
//! ready ([`datagrams`] for UDP and relays, [`connections`] for streams); deadlines; write what waits for streams;
//! close what is to be closed. What is left over comes again in the next turn: by level-triggered readiness, or from
//! the list of those to be seen [again](Worker::again), or from the TLS [handshakes](Worker::handshakes) that wait.

mod connections;
mod datagrams;
mod quic;
mod web;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::Command;
use super::admission::{Gate, Pressure};
use super::batch::{Batch, Memory, Outgoing, Payload, Route};
use super::counters::{CloseReason, Counters, Refusal};
use super::handshakes::Handshakes;
use super::log::{self, SessionLog};
use super::outbox::Kind;
use super::quic::Flows;
use super::relay::{Relays, Sockets};
use super::scratch::Buffers;
use super::share443::Web;
use super::socket::{StreamListener, UdpListener, WorkerSockets};
use super::stream::Streams;
use super::syscall::{Alarm, Epoll, Events, Offloads, RecvBatch, Source, Waker, ready, return_free_memory};
use super::timers::Timers;
use super::tls::TlsChooser;
use super::token::Token;
use crate::system::entropy;
use crate::turn::action::{Action, Drop, EndReason, OpenError, RelayId};
use crate::turn::five_tuple::Client;
use crate::turn::server::Server;
use crate::turn::time::Now;
use crate::wire::channel_data;
use crate::wire::frame::Frame;

/// Events taken from one wait. The rest comes first in the next one.
const EVENTS: usize = 256;

/// Allocations whose end leaves enough memory behind to be worth giving back: about 1 MiB.
const RUSH: usize = 512;

/// A ChannelData header.
type Head = [u8; channel_data::HEADER_LEN];

/// What a UDP listener gets of a turn.
struct Share {
    /// Datagrams to ask it for.
    limit: usize,
    /// The turn in which it was asked last.
    turn: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { limit: datagrams::LISTENER_SHARE_MIN, turn: 0 }
    }
}

/// What a worker shares with those who started it.
pub(super) struct Ties {
    pub commands: Receiver<Command>,
    pub waker: Waker,
    pub counters: Arc<Counters>,
    /// Allocations alive, for whoever waits for the end of a drain.
    pub allocations: Arc<AtomicU64>,
    /// Who may come in; asked when a socket is opened.
    pub gate: Arc<Gate>,
}

/// What outlives a worker that failed.
pub(super) struct Heritage {
    pub server: Server,
    pub tls: Option<Arc<dyn TlsChooser>>,
    pub web: Option<Arc<Web>>,
    pub ties: Ties,
    pub log: SessionLog,
}

pub(super) struct Worker {
    server: Server,
    clock: fn() -> Now,
    now: Now,
    ties: Ties,
    tls: Option<Arc<dyn TlsChooser>>,
    web: Option<Arc<Web>>,
    log: SessionLog,
    running: bool,

    epoll: Epoll,
    alarm: Alarm,
    udp: Vec<UdpListener>,
    acceptors: Vec<StreamListener>,
    relays: Sockets,
    streams: Streams,
    quic: Flows,
    timers: Timers,

    received: RecvBatch,
    /// Frames of `received` that hold datagrams of this turn.
    frames_used: usize,
    batch: Batch,
    /// Where a datagram out of a coalesced frame gets a header that is longer than four bytes.
    spare: Frame,
    buffers: Buffers,
    /// The most allocations since memory was given back last.
    peak: usize,
    /// Sockets that are told of news only and had more than their share: their turn comes without news.
    again: Vec<(u64, u32)>,
    /// What each UDP listener gets, at its place.
    shares: Vec<Share>,
    /// Counts turns of the loop; wraps.
    turn: u32,
    /// Streams to close at the end of the turn, and why.
    doomed: Vec<(Token, CloseReason)>,
    handshakes: Handshakes,
    /// Bytes that web clients and servers may send in this turn.
    web_left: usize,
}

impl Worker {
    pub fn new(
        sockets: WorkerSockets,
        heritage: Heritage,
        clock: fn() -> Now,
        offloads: Offloads,
    ) -> io::Result<Self> {
        let Heritage { server, tls, web, ties, log } = heritage;
        let handshakes = Handshakes::new(
            entropy::key().map_err(io::Error::other)?,
            Arc::clone(ties.gate.admission()),
            clock,
        );
        let epoll = Epoll::new()?;
        epoll.add(&ties.waker, Token::Waker.pack(), ready::READ)?;
        let alarm = Alarm::new()?;
        epoll.add(&alarm, Token::Alarm.pack(), ready::READ)?;
        let too_many = |_| io::Error::from(io::ErrorKind::InvalidInput);
        for (index, listener) in sockets.udp.iter().enumerate() {
            let token = Token::Udp(u16::try_from(index).map_err(too_many)?);
            epoll.add(&listener.socket, token.pack(), ready::READ | ready::NEWS)?;
        }
        for (index, listener) in sockets.streams.iter().enumerate() {
            let token = Token::Accept(u16::try_from(index).map_err(too_many)?);
            epoll.add(&listener.socket, token.pack(), ready::READ)?;
        }
        Ok(Self {
            server,
            clock,
            now: clock(),
            ties,
            tls,
            web,
            log,
            running: true,
            epoll,
            alarm,
            shares: sockets.udp.iter().map(|_| Share::default()).collect(),
            udp: sockets.udp,
            acceptors: sockets.streams,
            relays: Sockets::new(offloads),
            streams: Streams::default(),
            quic: Flows::new(entropy::key().map_err(io::Error::other)?),
            timers: Timers::default(),
            received: RecvBatch::new(),
            frames_used: 0,
            batch: Batch::new(offloads.segmentation),
            spare: Frame::new(),
            buffers: Buffers::default(),
            peak: 0,
            again: Vec::new(),
            turn: 0,
            doomed: Vec::new(),
            handshakes,
            web_left: 0,
        })
    }

    /// What the next worker needs of one that failed; the rest is dropped, and all sockets but the listeners with it.
    /// Whatever is taken here is changed as a whole or not at all, so it is sound whenever the failure came.
    pub fn into_heritage(self) -> Heritage {
        Heritage { server: self.server, tls: self.tls, web: self.web, ties: self.ties, log: self.log }
    }

    /// Runs until [`Command::Stop`].
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new(EVENTS);
        let mut again = Vec::new();
        while self.running {
            let others = self.timers.next().into_iter().chain(self.log.due()).chain(self.handshakes.next());
            let next = self.server.poll_timeout().into_iter().chain(others).min();
            if let Some(deadline) = next {
                self.alarm.set(deadline.as_nanos(), self.now.instant.as_nanos())?;
            }
            std::mem::swap(&mut again, &mut self.again);
            self.epoll.wait(&mut events, if again.is_empty() { None } else { Some(Duration::ZERO) })?;
            self.now = (self.clock)();
            self.turn = self.turn.wrapping_add(1);
            self.ties.counters.wakeups.add(1);
            self.handshakes.begin_turn(self.now.instant);
            self.web_left = web::BYTES_PER_TURN;
            self.streams.set_tight(self.ties.gate.admission().pressure() == Pressure::Tight);
            for index in 0..events.len() {
                if let Some((token, readiness)) = events.get(index) {
                    self.on_event(token, readiness);
                }
            }
            for (token, readiness) in again.drain(..) {
                if !self.had_its_turn(token) {
                    self.on_event(token, readiness);
                }
            }
            self.resume_handshakes();
            self.flush();
            self.on_deadlines();
            self.write_streams();
            self.close_doomed();
            self.flush();
            self.frames_used = 0;
            self.ties.allocations.store(self.server.allocations() as u64, Relaxed);
            self.after_rush();
        }
        self.log.summarise();
        Ok(())
    }

    /// Once most of many allocations are gone, their memory goes back too.
    fn after_rush(&mut self) {
        let allocations = self.server.allocations();
        self.peak = self.peak.max(allocations);
        if self.peak >= RUSH && allocations < self.peak / 8 {
            self.peak = allocations;
            return_free_memory();
        }
    }

    /// Whether this socket, which is told of news only, was served by an event of this turn already.
    fn had_its_turn(&mut self, token: u64) -> bool {
        match Token::unpack(token) {
            Some(Token::Udp(index)) => self.shares[usize::from(index)].turn == self.turn,
            Some(token) => self.streams.get(token).is_none_or(|stream| stream.turn == self.turn),
            None => true,
        }
    }

    fn on_event(&mut self, token: u64, readiness: u32) {
        match Token::unpack(token) {
            Some(Token::Waker) => self.on_commands(),
            // Every turn looks at the deadlines.
            Some(Token::Alarm) => {
                // Only a descriptor that is none could fail here.
                let _ = self.alarm.clear();
            }
            Some(Token::Udp(index)) => self.on_udp(index),
            Some(Token::Relay { relay, generation }) => self.on_relay(relay, generation, readiness),
            Some(Token::Accept(index)) => self.on_accept(index),
            Some(token @ Token::Stream { .. }) => self.on_stream(token, readiness),
            Some(token @ Token::Quic { .. }) => self.on_quic(token),
            Some(token @ Token::BackEnd { .. }) => self.on_back_end(token, readiness),
            None => {}
        }
    }

    fn on_commands(&mut self) {
        self.ties.waker.clear();
        while let Ok(command) = self.ties.commands.try_recv() {
            match command {
                Command::Settings(settings) => self.server.handle_settings(self.now, settings),
                Command::Tls(chooser) => self.tls = Some(chooser),
                Command::Web(web) => self.web = Some(web),
                Command::Drain(draining) => self.server.handle_drain(draining),
                Command::Stop => {
                    self.server.handle_shutdown(self.now);
                    self.running = false;
                    for token in self.streams.tokens() {
                        self.doom(token, CloseReason::Shutdown);
                    }
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
        while let Some(token) = self.timers.due(self.now.instant) {
            match token {
                Token::Accept(index) => self.resume_accepting(index),
                Token::Quic { .. } => self.look_after_flow(token),
                token => self.look_after(token),
            }
        }
    }

    /// Forgets the deadlines of what was closed, once they are the most.
    fn tidy_timers(&mut self) {
        let (streams, flows) = (&self.streams, &self.quic);
        self.timers.tidy(streams.len() + flows.len(), |token| match token {
            Token::Stream { .. } => streams.is_open(token),
            Token::Quic { .. } => flows.is_open(token),
            _ => true,
        });
    }

    /// Carries out what the protocol asks for, until it asks for nothing more.
    fn act(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Reply { client, message, authenticated } => {
                    self.reply(client, message, authenticated);
                }
                Action::OpenRelay { relay, address } => {
                    let outcome = self.open_relay(relay, address);
                    self.server.handle_relay_opened(self.now, relay, outcome);
                    self.count_relays();
                }
                Action::CloseRelay { relay } => self.close_relay(relay),
                Action::Ended(session) => self.log.ended(self.now.instant, &session),
                Action::Reviewed(review) => log::reviewed(review),
            }
        }
    }

    fn reply(&mut self, client: Client, message: Vec<u8>, authenticated: bool) {
        match Token::unpack(client.link.0) {
            Some(Token::Udp(index)) => {
                self.push(self.for_client(index, client, None, Payload::Owned(message)))
            }
            Some(token) => {
                if authenticated && let Some(stream) = self.streams.get(token) {
                    stream.authenticated(self.now.instant, self.server.has_allocation(&client));
                }
                self.push_stream(token, &[&message], Kind::Control);
            }
            None => {}
        }
    }

    fn open_relay(&mut self, relay: RelayId, address: SocketAddr) -> Result<(), OpenError> {
        let counters = &self.ties.counters;
        let place = self.ties.gate.relay().map_err(|refusal| {
            counters.relays_refused(refusal).add(1);
            OpenError::Unavailable
        })?;
        let opened = self.relays.open(&self.epoll, relay, address, place);
        if opened == Err(OpenError::Unavailable) {
            counters.relays_refused(Refusal::Descriptors).add(1);
        }
        opened
    }

    fn close_relay(&mut self, relay: RelayId) {
        // What is to be sent from it goes first: its name may be another's at once.
        self.flush();
        self.relays.close(relay);
        self.count_relays();
    }

    fn count_relays(&self) {
        self.ties.counters.relays.set(self.relays.len() as u64);
    }

    /// A datagram to a UDP client. It leaves from the address that he knows.
    fn for_client(&self, index: u16, client: Client, head: Option<Head>, payload: Payload) -> Outgoing {
        let wildcard = self.udp.get(usize::from(index)).is_some_and(|listener| listener.wildcard);
        let source = wildcard.then(|| Source::of(client.five_tuple.server));
        Outgoing { route: Route::Listener(index), to: client.five_tuple.client, source, head, payload }
    }

    fn push(&mut self, outgoing: Outgoing) {
        if self.batch.push(outgoing) {
            self.flush();
        }
    }

    /// Sends what was collected. After it, frames and buffers may receive again.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let stream = self.buffers.plain.bytes();
        let memory = Memory { frames: &self.received.frames, spare: &self.spare, stream };
        let counters = self.server.counters();
        let mut failed = |reason: Drop| counters.dropped(reason).add(1);
        let sent = self.batch.flush(memory, &self.udp, &mut self.relays, &mut failed);
        self.ties.counters.sent.add(sent as u64);
        if self.batch.take_segmentation_refused() {
            log::segmentation_refused();
        }
    }
}

impl CloseReason {
    /// What the protocol is told.
    fn end_reason(self) -> EndReason {
        match self {
            CloseReason::Closed | CloseReason::BackEnd => EndReason::Closed,
            CloseReason::Garbage | CloseReason::TlsFailed | CloseReason::NotProxied => EndReason::Broken,
            CloseReason::Shutdown => EndReason::Shutdown,
            CloseReason::Reset
            | CloseReason::HandshakeTimeout
            | CloseReason::Idle
            | CloseReason::Stuck
            | CloseReason::TooMany
            | CloseReason::Displaced => EndReason::Reset,
        }
    }
}
