//! Servers, clients, peers and the network between them, with one clock and one seed.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hallpass::base::time::{Instant, Now};
use hallpass::base::transport::Transport;
use hallpass::turn::action::{EndReason, OpenError, RelayId};
use hallpass::turn::counters::Counters;
use hallpass::turn::five_tuple::{Client, FiveTuple};
use hallpass::turn::server::Server;
use hallpass::turn::settings::Settings;
use hallpass::turn::shared::Shared;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::client::{self, Carelessness, Deed, Participant, below, chance};
use crate::invariant::{Broken, Checked, Invariant, ensure};
use crate::judge::{Request, Seen};
use crate::mirror::Mirror;
use crate::model::{Ask, Model, Proof, SECOND};
use crate::rig::EPOCH;
use crate::stun::{self, Id, Login, Reader};

pub const MILLI: u64 = SECOND / 1000;

/// A deliberate fault, to verify that it is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The model misses permissions, so that the server seems to relay without one.
    PermissionNeverGiven,
    /// One byte changes on the way through the relay.
    ByteFlipped,
    /// A CloseRelay is lost.
    CloseLost,
    /// A drop is not counted.
    DropUncounted,
    /// A peer's data reaches the wrong client.
    WrongClient,
}

pub enum Event {
    Step(usize),
    ToServer { from: Client, bytes: Vec<u8>, what: What },
    Gone { from: FiveTuple, reason: EndReason },
    ToClient { to: Client, bytes: Vec<u8> },
    Opened { worker: usize, relay: RelayId, ticket: u64, outcome: Result<(), OpenError> },
    ToPeer { from: SocketAddr, peer: SocketAddr, payload: Vec<u8> },
    AtRelay { to: SocketAddr, from: SocketAddr, payload: Vec<u8> },
    Reload,
    Drain(bool),
}

#[derive(Clone)]
pub enum What {
    Request(Id),
    Channel(u16, u64),
    Send(SocketAddr, u64),
    Junk,
}

pub struct Worker {
    pub server: Server,
    /// Sockets that are being opened, with the ticket of the latest attempt.
    pub opening: HashMap<RelayId, u64>,
    /// The table, as its reported changes describe it.
    pub mirror: Mirror,
}

/// A payload in flight.
pub struct Sent {
    pub client: usize,
    pub to: SocketAddr,
    pub at: u64,
}

pub struct World {
    pub rng: ChaCha8Rng,
    pub now: u64,
    pub steps: u64,
    pub number: u64,
    pub events: BTreeMap<(u64, u64), Event>,
    pub workers: Vec<Worker>,
    pub shared: Arc<Shared>,
    pub settings: Settings,
    pub secrets: Vec<String>,
    pub draining: bool,
    pub timers_paused_until: u64,
    pub model: Model,
    pub clients: Vec<Participant>,
    pub by_tuple: HashMap<FiveTuple, usize>,
    /// The arrival of the last message of each stream and direction; streams keep their order.
    pub in_order: HashMap<(FiveTuple, bool), u64>,
    /// Bound relay sockets: worker, relay, and since when.
    pub net: HashMap<SocketAddr, (usize, RelayId, u64)>,
    pub requests: HashMap<Id, Request>,
    pub nonces: HashMap<Vec<u8>, u64>,
    /// The realm of each user name.
    pub realms: HashMap<String, String>,
    pub sent: HashMap<u64, Sent>,
    pub seen: Seen,
    pub dual: bool,
    pub fault: Option<Fault>,
    /// The five-tuple whose allocation the current input may end before it expires.
    pub cause: Option<FiveTuple>,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut settings = stun::settings();
        let (workers, clients) = (1 + below(&mut rng, 4), 40 + below(&mut rng, 200));
        if chance(&mut rng, 50) {
            settings.relay_addresses[0].announced = settings.relay_addresses[0].local;
        }
        // With few ports some clients get none; the model cannot tell which of two families failed first.
        let dual = chance(&mut rng, 70);
        if !dual {
            settings.relay_ports = 50_000..=50_000 + below(&mut rng, 2 * clients) as u16;
        }
        settings.limits.allocations_per_user = if chance(&mut rng, 50) { 1 } else { 0 };
        settings.limits.allocations_total = if chance(&mut rng, 20) { clients as u32 / 2 } else { 0 };
        let shared = Arc::new(Shared::new(&[7; 32]));
        let nat = settings.relay_addresses[0];
        let model = Model {
            lifetime_max: settings.limits.lifetime_max.as_secs(),
            nat: (nat.local != nat.announced).then_some((nat.announced, nat.local)),
            own: settings.peers.own.iter().map(|own| own.addr()).collect(),
            ..Model::default()
        };
        let server = |worker: u64| {
            let (settings, counters) = (Arc::new(settings.clone()), Arc::new(Counters::default()));
            let mut key = [1; 32];
            key[..16].copy_from_slice(&[seed.to_be_bytes(), worker.to_be_bytes()].concat());
            let mut server = Server::new(settings, Arc::clone(&shared), counters, key);
            server.handle_mirror(true);
            Worker { server, opening: HashMap::new(), mirror: Mirror::default() }
        };
        let mut world = Self {
            workers: (0..workers).map(server).collect(),
            now: SECOND,
            steps: 0,
            number: 0,
            events: BTreeMap::new(),
            shared,
            secrets: vec![stun::SECRET.into()],
            settings,
            draining: false,
            timers_paused_until: 0,
            model,
            clients: Vec::new(),
            by_tuple: HashMap::new(),
            in_order: HashMap::new(),
            net: HashMap::new(),
            requests: HashMap::new(),
            nonces: HashMap::new(),
            realms: HashMap::new(),
            sent: HashMap::new(),
            seen: Seen::default(),
            dual,
            fault,
            cause: None,
            rng,
        };
        world.populate(clients);
        world
    }

    fn populate(&mut self, clients: u64) {
        for n in 0..clients as usize {
            let transport = Transport::ALL[if n % 3 == 0 { n / 3 % 3 } else { 0 }];
            // Five schools, each behind one address.
            let address = SocketAddr::from(([8, 8, 0, (n % 5) as u8], 2000 + n as u16));
            let mut participant = Participant::new(stun::client(transport, address, n as u64));
            participant.log_in(&mut self.rng, EPOCH, n / 2, stun::SECRET, stun::REALM_NAME);
            self.by_tuple.insert(participant.at.five_tuple, n);
            self.clients.push(participant);
            let start = below(&mut self.rng, 60 * SECOND);
            self.at(start, Event::Step(n));
        }
        for n in 1..4 {
            let (reload, drain) = (n * 700 + below(&mut self.rng, 300), n * 900 + below(&mut self.rng, 300));
            self.at(reload * SECOND, Event::Reload);
            self.at(drain * SECOND, Event::Drain(true));
            self.at((drain + 30) * SECOND, Event::Drain(false));
        }
    }

    /// Runs until `end`. Then all clients stop sending, and everything left expires or is shut down.
    pub fn run(&mut self, end: u64) -> Checked {
        while let Some((&key, _)) = self.events.first_key_value() {
            let due = self.workers.iter().filter_map(|worker| worker.server.poll_timeout()).min();
            if let Some(due) = due.map(Instant::as_nanos).filter(|&due| due <= key.0)
                && self.now >= self.timers_paused_until
            {
                self.now = self.now.max(due);
                self.timeouts()?;
                continue;
            }
            let Some(event) = self.events.remove(&key) else { break };
            self.now = self.now.max(key.0);
            if self.now < end || !matches!(event, Event::Step(_) | Event::Reload | Event::Drain(_)) {
                self.handle(event)?;
            }
            if below(&mut self.rng, 5000) == 0 {
                self.timers_paused_until = self.now + below(&mut self.rng, 1200) * SECOND;
            }
            self.steps += 1;
            self.check(self.steps.is_multiple_of(64))?;
        }
        self.finish()
    }

    fn finish(&mut self) -> Checked {
        if chance(&mut self.rng, 50) {
            self.clients.iter_mut().for_each(|client| client.belief = None);
            for worker in 0..self.workers.len() {
                let now = self.now();
                self.workers[worker].server.handle_shutdown(now);
                self.draw(worker, None, true)?;
            }
            self.check(true)?;
        }
        while let Some(due) = self.workers.iter().filter_map(|worker| worker.server.poll_timeout()).min() {
            self.now = self.now.max(due.as_nanos());
            self.timeouts()?;
            self.check(true)?;
        }
        let left = (self.model.allocations.len(), self.model.taken.len(), self.net.len());
        let held = (self.shared.quota.total(), self.shared.ports.taken());
        let servers: usize = self.workers.iter().map(|worker| worker.server.allocations()).sum();
        let gauges: u64 = self
            .workers
            .iter()
            .map(|w| w.server.counters())
            .map(|c| c.permissions.get() + c.channels.get())
            .sum();
        let empty = left == (0, 0, 0) && held == (0, 0) && servers == 0 && gauges == 0;
        ensure(empty, Invariant::NothingIsLeftBehind, || format!("{left:?} {held:?} {servers} {gauges}"))
    }

    pub fn now(&self) -> Now {
        Now { instant: Instant::from_nanos(self.now), unix: self.unix() }
    }

    pub fn unix(&self) -> u64 {
        EPOCH + self.now / SECOND
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.number += 1;
        self.events.insert((time, self.number), event);
    }

    pub fn worker_of(&self, client: usize) -> usize {
        client % self.workers.len()
    }

    pub fn client_of(&self, five_tuple: &FiveTuple) -> Result<usize, Broken> {
        self.by_tuple.get(five_tuple).copied().ok_or_else(|| Broken {
            invariant: Invariant::NothingIsMisrouted,
            detail: format!("{five_tuple} is unknown"),
        })
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Step(client) => self.step(client),
            Event::ToServer { from, bytes, what } => self.arrive_at_server(from, &bytes, what)?,
            Event::Gone { from, reason } => {
                let number = self.client_of(&from)?;
                let (worker, now) = (self.worker_of(number), self.now());
                // The client may have a new stream by now.
                let allocation = self.model.allocations.get(&from);
                let client = allocation.map_or(self.clients[number].at, |allocation| allocation.client);
                self.workers[worker].server.handle_client_gone(now, &client, reason);
                self.cause = Some(from);
                self.draw(worker, None, false)?;
                self.cause = None;
                let left = self.model.allocations.contains_key(&from);
                ensure(!left, Invariant::AllocationsAgree, || {
                    format!("{from} left and still has an allocation")
                })?;
            }
            Event::ToClient { to, bytes } => self.arrive_at_client(to, &bytes)?,
            Event::Opened { worker, relay, ticket, outcome } => {
                self.opened(worker, relay, ticket, outcome)?
            }
            Event::ToPeer { from, peer, payload } => self.arrive_at_peer(from, peer, payload)?,
            Event::AtRelay { to, from, payload } => self.at_relay(to, from, payload)?,
            Event::Reload => self.reload()?,
            Event::Drain(draining) => {
                self.draining = draining;
                self.workers.iter_mut().for_each(|worker| worker.server.handle_drain(draining));
            }
        }
        Ok(())
    }

    /// Rotates the secrets, of which the older stays valid for one reload, renames host and realm, and denies a peer or allows
    /// it again.
    fn reload(&mut self) -> Checked {
        self.number += 1;
        self.secrets.push(format!("secret {}", self.number));
        let first = self.secrets.len().saturating_sub(2);
        self.secrets.drain(..first);
        let closed: IpAddr = "9.9.0.9".parse().expect("literal");
        let denied = self.model.denied.is_empty();
        self.model.denied = denied.then_some(closed).into_iter().collect();
        self.settings.peers.deny = self.model.denied.iter().map(|&ip| ip.into()).collect();
        self.settings.hosts[0].secrets = self.secrets.clone();
        self.settings.realm = format!("relay{}.example.org", self.number);
        self.settings.hosts[0].name = format!("host {}", self.number).into();
        let settings = Arc::new(self.settings.clone());
        let now = self.now();
        for worker in 0..self.workers.len() {
            self.workers[worker].server.handle_settings(now, Arc::clone(&settings));
            self.draw(worker, None, false)?;
        }
        self.model.deny();
        Ok(())
    }

    // --- clients --------------------------------------------------------------------------------------------

    fn step(&mut self, n: usize) {
        let mut pause = 100 * MILLI + below(&mut self.rng, 30 * SECOND);
        let unix = self.unix();
        if self.clients[n].asking.as_ref().is_some_and(|asking| asking.sent + 8 * SECOND < self.now) {
            self.clients[n].asking = None;
        }
        if self.clients[n].belief.as_ref().is_none_or(|b| b.until <= self.now) && chance(&mut self.rng, 30) {
            let secret = self.secrets[self.secrets.len() - 1].clone();
            self.clients[n].log_in(&mut self.rng, unix, n / 2, &secret, &self.settings.realm);
        }
        let others: Vec<SocketAddr> = (0..3)
            .filter_map(|_| {
                let other = below(&mut self.rng, self.clients.len() as u64) as usize;
                self.clients[other].belief.as_ref()?.relayed.first().copied()
            })
            .collect();
        match self.clients[n].choose(&mut self.rng, self.now, self.dual, &others) {
            Deed::Nothing => {}
            Deed::Ask(ask, how) => self.ask(n, ask, how, false),
            Deed::Channel(number) => {
                let packet = self.next_payload();
                let bytes = stun::channel_data(number, &client::payload(packet));
                self.send(n, bytes, What::Channel(number, packet));
            }
            Deed::Send(peer) => {
                let (packet, id) = (self.next_payload(), self.next_id());
                let bytes = stun::send(id, peer, &client::payload(packet));
                self.send(n, bytes, What::Send(peer, packet));
            }
            Deed::Junk(bytes) => self.send(n, bytes, What::Junk),
            Deed::Leave => {
                let from = self.clients[n].at.five_tuple;
                let reason = if chance(&mut self.rng, 50) { EndReason::Closed } else { EndReason::Reset };
                let time = self.arrival(from, true);
                self.at(time, Event::Gone { from, reason });
                let client = &mut self.clients[n];
                (client.belief, client.asking) = (None, None);
                client.channels.clear();
                client.at.link.0 += 1000;
            }
            Deed::Sleep(secs) => pause += secs * SECOND,
        }
        let time = self.now + pause;
        self.at(time, Event::Step(n));
    }

    pub fn next_id(&mut self) -> Id {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        id
    }

    fn next_payload(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Sends a request; over UDP it is retransmitted twice.
    pub fn ask(&mut self, n: usize, ask: Ask, how: Carelessness, again: bool) {
        let id = self.next_id();
        let client = &mut self.clients[n];
        let writer = client::encode(id, &ask);
        let how = if client.nonce.is_none() || ask == Ask::Binding { Carelessness::Unsigned } else { how };
        let nonce = client.nonce.clone().filter(|_| how != Carelessness::Unsigned);
        let bytes = match &nonce {
            None => writer.plain(),
            Some(nonce) if how == Carelessness::WrongPassword => {
                writer.signed(&Login::new(&client.login.name, "guess", &client.realm), nonce)
            }
            Some(nonce) => writer.signed(&client.login, nonce),
        };
        let proof = client.proof(how);
        let request = Request {
            client: client.at,
            ask: ask.clone(),
            proof,
            nonce,
            name: client.login.name.clone(),
            secret: client.secret.clone(),
            realm: client.realm.clone(),
        };
        self.realms.insert(request.name.clone(), request.realm.clone());
        if matches!(ask, Ask::Refresh { lifetime: 0 }) && proof != Proof::None {
            client.belief = None;
            client.channels.clear();
        }
        if let (Ask::Refresh { .. }, Some(belief)) = (&ask, &mut client.belief) {
            // The request may take effect even if its answer is lost.
            belief.until = belief.until.min(self.now + 600 * SECOND);
        }
        client.quiet_until = self.now + 10 * SECOND;
        client.asking = Some(client::Asking { id, ask, sent: self.now, again });
        self.requests.insert(id, request);
        let times = if self.clients[n].at.five_tuple.transport.is_stream() { 1 } else { 3 };
        let start = self.now;
        for time in 0..times {
            self.now = start + time * 700 * MILLI;
            self.send(n, bytes.clone(), What::Request(id));
        }
        self.now = start;
    }

    fn send(&mut self, n: usize, bytes: Vec<u8>, what: What) {
        let from = self.clients[n].at;
        for _ in 0..self.copies(from.five_tuple.transport) {
            let time = self.arrival(from.five_tuple, true);
            self.at(time, Event::ToServer { from, bytes: bytes.clone(), what: what.clone() });
        }
    }

    /// Returns how many copies of a message arrive: UDP loses and duplicates.
    pub fn copies(&mut self, transport: Transport) -> u64 {
        match below(&mut self.rng, 20) {
            _ if transport.is_stream() => 1,
            0 => 0,
            1 => 2,
            _ => 1,
        }
    }

    /// Returns when a message sent now arrives: over UDP in any order, on a stream in order.
    pub fn arrival(&mut self, five_tuple: FiveTuple, to_server: bool) -> u64 {
        let slow = chance(&mut self.rng, 5);
        let delay = MILLI + below(&mut self.rng, if slow { 2 * SECOND } else { 100 * MILLI });
        let time = self.now + delay;
        if !five_tuple.transport.is_stream() {
            return time;
        }
        let last = self.in_order.entry((five_tuple, to_server)).or_default();
        *last = time.max(*last + 1);
        *last
    }

    fn arrive_at_client(&mut self, to: Client, bytes: &[u8]) -> Checked {
        let n = self.client_of(&to.five_tuple)?;
        // Data in flight on a closed stream is lost.
        if self.clients[n].at != to {
            return Ok(());
        }
        if bytes.first().is_some_and(|first| first & 0xc0 == 0x40) {
            return ensure(client::recognise(&bytes[4..]).is_some(), Invariant::DataIsUnchanged, || {
                format!("{bytes:?}")
            });
        }
        let Some(reply) = Reader::parse(bytes) else {
            return ensure(false, Invariant::AnswersFitTheirRequest, || format!("{bytes:?}"));
        };
        if reply.kind == stun::DATA_INDICATION {
            let intact = reply
                .get(stun::DATA)
                .map_or(reply.get(stun::ICMP).is_some(), |data| client::recognise(data).is_some());
            return ensure(intact, Invariant::DataIsUnchanged, || format!("{reply:?}"));
        }
        self.hears(n, &reply);
        Ok(())
    }

    /// Handles an answer at the client.
    fn hears(&mut self, n: usize, reply: &Reader) {
        let client = &mut self.clients[n];
        let Some(asking) = client.asking.take_if(|asking| asking.id == reply.id) else { return };
        match (reply.code(), &asking.ask) {
            (Some(0), Ask::Allocate { .. }) => {
                let until = asking.sent + u64::from(reply.number(stun::LIFETIME).unwrap_or(0)) * SECOND;
                client.belief = Some(client::Belief { until, relayed: reply.addresses(stun::RELAYED) });
                client.token =
                    reply.get(stun::RESERVATION).and_then(|token| token.try_into().ok()).or(client.token);
                client.channels.clear();
            }
            (Some(0), Ask::Refresh { lifetime }) if *lifetime > 0 => {
                if let Some(belief) = &mut client.belief {
                    belief.until =
                        asking.sent + u64::from(reply.number(stun::LIFETIME).unwrap_or(0)) * SECOND;
                }
            }
            (Some(0), Ask::Bind(number, _)) if !client.channels.contains(number) => {
                client.channels.push(*number)
            }
            (Some(401 | 438), _) => {
                client.nonce = reply.get(stun::NONCE).map(<[u8]>::to_vec);
                if !asking.again && client.nonce.is_some() {
                    self.ask(n, asking.ask, Carelessness::None, true);
                }
            }
            _ => {}
        }
    }
}
