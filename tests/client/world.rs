//! A server, its clients, an echoing peer for each of two addresses, and the network between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hallpass::base::time::{Instant, Now};
use hallpass::base::transport::Transport;
use hallpass::client::stream::Reassembly;
use hallpass::client::{Algorithms, Allocate, Client, Config, Credentials, Event, Link, Request, Stage};
use hallpass::turn::action::{Action, FromClient, FromPeer, PeerHeader, RelayId};
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::counters::Counters;
use hallpass::turn::five_tuple::{self, FiveTuple};
use hallpass::turn::server::Server;
use hallpass::turn::shared::Shared;
use hallpass::wire::frame::Frame;
use hallpass::wire::{channel_data, indication};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::stun;

const EPOCH: u64 = 1_700_000_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
/// Datagrams per client, half of them on a channel.
const PACKETS: u32 = 40;
/// Interval of refreshing everything, below the 300 seconds of a permission.
const KEEPALIVE: u64 = 200 * SECOND;
/// How long a client stays: longer than the hour for which a nonce is valid.
const STAY: u64 = 4000 * SECOND;
/// Maximum number of steps of a run.
const STEPS_MAX: u64 = 1_000_000;

/// Loss and duplication in percent, and the longest delay in milliseconds.
#[derive(Clone, Copy)]
pub struct Network {
    pub lost: u64,
    pub duplicated: u64,
    pub delay_max: u64,
}

/// The parameters of a run.
#[derive(Clone, Copy)]
pub struct Plan {
    pub transport: Transport,
    pub clients: usize,
    pub network: Network,
    pub algorithms: Algorithms,
    pub software: Option<&'static str>,
    pub secret: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            transport: Transport::Udp,
            clients: 2,
            network: Network { lost: 0, duplicated: 0, delay_max: 1 },
            algorithms: Algorithms::Offered,
            software: None,
            secret: stun::SECRET,
        }
    }
}

/// The results of a run.
#[derive(Debug, Default)]
pub struct Seen {
    /// Clients that released their allocation.
    pub done: usize,
    pub refused: Vec<u16>,
    /// Exchanges that needed more than one transmission.
    pub repeated: u32,
    pub stale_nonces: u32,
    pub discarded: u32,
    /// Whether SHA-256 was agreed on after a 401. A 438 is not counted: it answers a longer request, so it may offer
    /// SHA-256 even if the 401 did not.
    pub sha256: bool,
    pub sent: u32,
    /// Distinct datagrams that were echoed.
    pub echoed: u32,
    pub stages: Vec<Stage>,
}

/// An event in the queue.
enum Step {
    ToServer(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    Opened(RelayId),
    AtRelay(RelayId, SocketAddr, Vec<u8>),
    /// The next action of a client.
    Action(usize),
}

struct Participant {
    at: five_tuple::Client,
    client: Client,
    /// The server's end of a stream.
    at_server: Reassembly,
    /// When the last byte of each direction arrives, on a stream.
    in_order: [u64; 2],
    ready: BTreeSet<SocketAddr>,
    packets: u32,
    echoed: BTreeSet<u32>,
    until: u64,
    releasing: bool,
}

pub struct World {
    plan: Plan,
    server: Server,
    now: u64,
    rng: ChaCha8Rng,
    steps: BTreeMap<(u64, u64), Step>,
    number: u64,
    participants: Vec<Participant>,
    by_tuple: HashMap<FiveTuple, usize>,
    seen: Seen,
}

fn peers() -> [SocketAddr; 2] {
    ["9.9.0.1:7000", "9.9.0.2:7000"].map(|peer| peer.parse().expect("literal"))
}

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let settings = stun::settings();
        let shared = Arc::new(Shared::new(&[7; 32]));
        let server = Server::new(Arc::new(settings), shared, Arc::new(Counters::default()), [9; 32]);
        let mut world = Self {
            plan,
            server,
            now: SECOND,
            rng: ChaCha8Rng::seed_from_u64(seed),
            steps: BTreeMap::new(),
            number: 0,
            participants: Vec::new(),
            by_tuple: HashMap::new(),
            seen: Seen::default(),
        };
        (0..plan.clients).for_each(|n| world.join(n));
        world
    }

    fn join(&mut self, n: usize) {
        let at =
            stun::client(self.plan.transport, SocketAddr::from(([8, 8, 0, 1], 2000 + n as u16)), n as u64);
        let link = match self.plan.transport {
            Transport::Udp => Link::Datagrams { server: at.five_tuple.server },
            Transport::Tcp | Transport::Tls => Link::Stream,
        };
        let credentials = Credentials::rest(self.plan.secret, EPOCH + (1 << 30), &format!("w_{n}"));
        let config = Config {
            algorithms: self.plan.algorithms,
            software: self.plan.software.map(Into::into),
            ..Config::new(link).with_credentials(Arc::new(credentials.expect("a short name")))
        };
        self.participants.push(Participant {
            at,
            client: Client::new(config, [self.rng.next_u64(), self.rng.next_u64()]),
            at_server: Reassembly::default(),
            in_order: [0; 2],
            ready: BTreeSet::new(),
            packets: 0,
            echoed: BTreeSet::new(),
            until: 0,
            releasing: false,
        });
        self.by_tuple.insert(at.five_tuple, n);
        let now = self.instant();
        self.participants[n]
            .client
            .allocate(now, Allocate::default())
            .expect("the client has no allocation yet");
        self.drain(n);
    }

    /// Runs until no event is left.
    pub fn run(mut self) -> Seen {
        for _ in 0..STEPS_MAX {
            let timers = self.participants.iter().filter_map(|p| p.client.poll_timeout());
            let due = timers.chain(self.server.poll_timeout()).min().map(Instant::as_nanos);
            let next = self.steps.first_key_value().map(|(key, _)| *key);
            match (due, next) {
                (None, None) => return self.finish(),
                (Some(due), next) if next.is_none_or(|next| due <= next.0) => {
                    self.now = self.now.max(due);
                    self.timeouts();
                }
                (_, Some(key)) => {
                    self.now = self.now.max(key.0);
                    if let Some(step) = self.steps.remove(&key) {
                        self.handle(step);
                    }
                }
                (Some(_), None) => unreachable!("covered by the second arm"),
            }
        }
        panic!("still running after {STEPS_MAX} steps: {:?}", self.seen)
    }

    fn finish(mut self) -> Seen {
        assert_eq!(self.server.allocations(), 0, "the server still has allocations");
        for participant in &mut self.participants {
            assert!(participant.client.allocation().is_none());
            self.seen.stages.push(participant.client.stage());
            self.seen.sent += participant.packets;
            self.seen.echoed += participant.echoed.len() as u32;
        }
        self.seen
    }

    fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn time(&self) -> Now {
        Now { instant: self.instant(), unix: EPOCH + self.now / SECOND }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn at(&mut self, time: u64, step: Step) {
        self.number += 1;
        self.steps.insert((time, self.number), step);
    }

    fn timeouts(&mut self) {
        let now = self.time();
        self.server.handle_timeout(now);
        self.draw();
        for n in 0..self.participants.len() {
            self.participants[n].client.handle_timeout(now.instant);
            self.drain(n);
        }
    }

    fn handle(&mut self, step: Step) {
        let now = self.time();
        match step {
            Step::ToServer(n, bytes) if self.plan.transport == Transport::Udp => self.at_server(n, &bytes),
            Step::ToServer(n, bytes) => {
                let mut messages = Vec::new();
                let framed =
                    self.participants[n].at_server.take(&bytes, |message| messages.push(message.to_vec()));
                framed.expect("the client sends valid framing");
                messages.iter().for_each(|message| self.at_server(n, message));
            }
            Step::ToClient(n, bytes) => {
                let participant = &mut self.participants[n];
                match self.plan.transport {
                    Transport::Udp => {
                        let server = participant.at.five_tuple.server;
                        participant.client.handle_datagram(now.instant, server, &bytes);
                    }
                    Transport::Tcp | Transport::Tls => participant.client.handle_bytes(now.instant, &bytes),
                }
                self.drain(n);
            }
            Step::Opened(relay) => {
                self.server.handle_relay_opened(now, relay, Ok(()));
                self.draw();
            }
            Step::AtRelay(relay, from, payload) => self.at_relay(relay, from, &payload),
            Step::Action(n) => self.act(n),
        }
    }

    fn at_server(&mut self, n: usize, bytes: &[u8]) {
        let at = self.participants[n].at;
        if let FromClient::Relay { relay, peer: OnWire(peer), payload, .. } =
            self.server.handle_client(self.time(), at, bytes)
        {
            assert!(peers().contains(&peer));
            // The peer echoes.
            for time in self.arrivals() {
                self.at(time, Step::AtRelay(relay, peer, bytes[payload.clone()].to_vec()));
            }
        }
        self.draw();
    }

    fn at_relay(&mut self, relay: RelayId, from: SocketAddr, payload: &[u8]) {
        let verdict = self.server.handle_peer(self.time(), relay, OnWire(from), payload.len());
        if let FromPeer::Relay { client, header } = verdict {
            let mut frame = Frame::new();
            frame.fill(payload);
            match header {
                PeerHeader::Channel(number) => channel_data::prepend(&mut frame, number),
                PeerHeader::Data { peer: Announced(peer), transaction_id } => {
                    indication::prepend_data(&mut frame, peer, transaction_id)
                }
            }
            .expect("room");
            self.deliver(&client, frame.bytes().to_vec());
        }
        self.draw();
    }

    fn draw(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Reply { client, message, .. } => self.deliver(&client, message),
                Action::OpenRelay { relay, .. } => {
                    let time = self.now + self.below(50) * MILLI;
                    self.at(time, Step::Opened(relay));
                }
                Action::CloseRelay { .. }
                | Action::Began(_)
                | Action::Ended(_)
                | Action::Refused(_)
                | Action::Reviewed(_)
                | Action::Changed(_) => {}
            }
        }
    }

    fn deliver(&mut self, client: &five_tuple::Client, mut bytes: Vec<u8>) {
        let n = self.by_tuple[&client.five_tuple];
        if self.plan.transport == Transport::Udp {
            for time in self.arrivals() {
                self.at(time, Step::ToClient(n, bytes.clone()));
            }
            return;
        }
        bytes.resize(channel_data::padded_len(bytes.len()), 0);
        for (time, piece) in self.cut(n, 0, &bytes) {
            self.at(time, Step::ToClient(n, piece));
        }
    }

    /// Returns the arrival times of the copies of a datagram: none, one or two.
    fn arrivals(&mut self) -> Vec<u64> {
        let Network { lost, duplicated, delay_max } = self.plan.network;
        let copies = match self.below(100) {
            n if n < lost => 0,
            n if n < lost + duplicated => 2,
            _ => 1,
        };
        (0..copies).map(|_| self.now + (1 + self.below(delay_max)) * MILLI).collect()
    }

    /// Splits bytes of a stream into pieces that arrive in order.
    fn cut(&mut self, n: usize, direction: usize, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        while !rest.is_empty() {
            let len = 1 + self.below(rest.len() as u64) as usize;
            let time = self.now + (1 + self.below(self.plan.network.delay_max)) * MILLI;
            let last = &mut self.participants[n].in_order[direction];
            *last = time.max(*last + 1);
            pieces.push((*last, rest[..len].to_vec()));
            rest = &rest[len..];
        }
        pieces
    }

    /// Sends the client's messages and handles its events.
    fn drain(&mut self, n: usize) {
        loop {
            while let Some(bytes) = self.participants[n].client.poll_transmit().map(<[u8]>::to_vec) {
                if self.plan.transport == Transport::Udp {
                    for time in self.arrivals() {
                        self.at(time, Step::ToServer(n, bytes.clone()));
                    }
                } else {
                    for (time, piece) in self.cut(n, 1, &bytes) {
                        self.at(time, Step::ToServer(n, piece));
                    }
                }
            }
            let Some(event) = self.participants[n].client.poll_event() else { return };
            self.handle_event(n, event);
        }
    }

    fn handle_event(&mut self, n: usize, event: Event) {
        let now = self.instant();
        let participant = &mut self.participants[n];
        match event {
            Event::Challenged { exchange, code, challenge } => {
                self.seen.sha256 |= code == 401 && challenge.sha256;
                self.seen.stale_nonces += u32::from(code == 438);
                self.seen.repeated += u32::from(exchange.tries > 1);
                assert_eq!(challenge.realm, stun::REALM_NAME);
            }
            Event::Allocated { exchange, allocation } => {
                self.seen.repeated += u32::from(exchange.tries > 1);
                assert_eq!(allocation.mapped, Some(participant.at.five_tuple.client));
                assert_eq!(allocation.relayed.ip(), participant.at.five_tuple.server.ip());
                participant.until = self.now + STAY;
                self.keep(n);
            }
            Event::Permitted { exchange, peer } | Event::Bound { exchange, peer, .. } => {
                self.seen.repeated += u32::from(exchange.tries > 1);
                participant.ready.insert(peer);
                if participant.ready.len() == 2 {
                    self.at(self.now, Step::Action(n));
                }
            }
            Event::Refreshed { exchange, lifetime } => {
                self.seen.repeated += u32::from(exchange.tries > 1);
                self.seen.done += usize::from(lifetime == Duration::ZERO);
            }
            // The answer to the release was lost, and the retransmission found no allocation.
            Event::Refused { exchange, refusal }
                if refusal.code == 437 && exchange.request == (Request::Refresh { lifetime: 0 }) =>
            {
                self.seen.done += 1;
            }
            Event::Refused { refusal, .. } => self.seen.refused.push(refusal.code),
            Event::Data { peer, channel, payload } => {
                let number = u32::from_be_bytes(*payload.first_chunk().expect("a number"));
                assert!(number < participant.packets && payload == packet(number), "unchanged");
                assert_eq!(peer, peers()[number as usize % 2]);
                assert_eq!(channel, participant.client.channel_to(now, peer));
                participant.echoed.insert(number);
            }
            Event::Discarded(_) => self.seen.discarded += 1,
            other => panic!("client {n}: {other:?}"),
        }
    }

    /// Refreshes everything: one peer by a permission, the other by a channel.
    fn keep(&mut self, n: usize) {
        let now = self.instant();
        let [one, other] = peers();
        let participant = &mut self.participants[n];
        participant.ready.clear();
        participant.client.permit(now, one).expect("an allocation");
        participant.client.bind(now, other).expect("an allocation");
        if participant.packets > 0 {
            participant.client.refresh(now, 600).expect("an allocation");
        }
    }

    /// Sends the next packet; after the last one, refreshes everything until `STAY` is over, then releases the allocation.
    fn act(&mut self, n: usize) {
        let now = self.instant();
        let participant = &mut self.participants[n];
        if participant.releasing || participant.client.allocation().is_none() {
            return;
        }
        if participant.packets < PACKETS {
            let number = participant.packets;
            participant.packets += 1;
            let peer = peers()[number as usize % 2];
            participant.client.send(now, peer, &packet(number)).expect("permitted");
            self.at(self.now + 20 * MILLI, Step::Action(n));
        } else if self.now >= participant.until {
            participant.releasing = true;
            participant.client.refresh(now, 0).expect("an allocation");
        } else if participant.ready.len() == 2 {
            participant.ready.clear();
            self.at(self.now + KEEPALIVE, Step::Action(n));
        } else {
            self.keep(n);
        }
        self.drain(n);
    }
}

/// Bytes of a length that is not always a multiple of four.
fn packet(number: u32) -> Vec<u8> {
    number.to_be_bytes().into_iter().cycle().take(4 + number as usize * 7).collect()
}
