//! UDP 443 shared with HTTP/3: forwards QUIC datagrams to a web server. Each client has a socket of its own, so the
//! server sees each under another port.
//!
//! The first byte distinguishes the protocols (RFC 9443 section 3), except that a QUIC packet with a short header may
//! start like ChannelData (64 to 127): then a client with an allocation belongs to TURN.
//!
//! Anybody can forge the source address of a connection's first datagram, and each such datagram takes a socket. So
//! there are two kinds of flows, each with its own limit. A flow is *proven* once its client sends to the connection
//! id that the server chose, which is known only to the receiver of the server's answer. The oldest unproven flow
//! makes room for the next one, so a flood of forged datagrams neither costs a proven flow its place nor locks
//! newcomers out.

mod connection_id;
mod order;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::base::network::{Network, networks};
use crate::base::time::Instant;
use crate::net::admission::{Class, Descriptor, Gate};
use crate::net::syscall::{Epoll, ready};
use crate::net::token::{Generation, Token};
use crate::turn::five_tuple::Client;
use crate::turn::keyed_hash::KeyedState;
use connection_id::ConnectionId;
use order::Order;

/// Flows per worker. Web servers usually limit their connections to fewer.
pub const FLOWS_MAX: usize = 4096;
/// Unproven flows among them. At the limit of 5,000 new flows per second, such a flow lives for 0.2 s; the proof takes
/// one round trip.
const UNPROVEN_MAX: usize = FLOWS_MAX / 4;
const PROVEN_MAX: usize = FLOWS_MAX - UNPROVEN_MAX;
/// Proven flows per source; further ones stay unproven. A whole school may be one IPv4 address. An IPv6 site (/48) has
/// four times as many, two thirds of the places. Unproven flows are not counted, because anybody can forge them.
const PROVEN_PER_SOURCE: u32 = FLOWS_MAX as u32 / 8;
/// Time without traffic after which a flow ends; QUIC's own idle timeouts are shorter (RFC 9308 section 3.2).
const IDLE: Duration = Duration::from_secs(60);
/// The same for an unproven flow: a few retransmissions of a handshake.
const IDLE_UNPROVEN: Duration = Duration::from_secs(10);
/// Time without traffic after which a proven flow may be displaced once all places are taken.
const IDLE_DISPLACED: Duration = Duration::from_secs(10);
/// Interval of new flows: 5,000 per second, after a burst of 50. Starting one costs 50 us, so forged datagrams take at
/// most a quarter of a worker's time, and 2.5 ms at once. A browser that is refused tries again, and falls back to TLS.
const NEW_FLOW_EVERY: Duration = Duration::from_micros(200);
const NEW_FLOWS_AHEAD: Duration = Duration::from_millis(10);
/// The shortest datagram that may start a connection (RFC 9000 section 14.1).
const INITIAL_MIN: usize = 1200;

/// The possible kinds of a datagram on a shared UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// STUN, or unknown.
    Turn,
    /// ChannelData of RFC 8656, or QUIC with a short header.
    Either,
    /// QUIC with a short header, or ChannelData of RFC 5766, whose channels go on to 0x7FFF.
    Short,
    /// QUIC with a long header, which starts a connection.
    Long,
}

/// Where a datagram on a UDP port shared with HTTP/3 belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// To TURN.
    Turn,
    /// To QUIC; it was forwarded to the server.
    Quic {
        /// The flow that it started, for which the caller sets a timer ([`Flows::life`]).
        new: Option<Token>,
    },
    /// To QUIC, but it could not be forwarded.
    Refused,
}

/// Classifies a datagram by its first byte (RFC 9443 section 3).
pub fn classify(first: u8) -> Kind {
    match first {
        64..=79 => Kind::Either,
        80..=127 => Kind::Short,
        192..=255 => Kind::Long,
        _ => Kind::Turn,
    }
}

struct Flow {
    socket: UdpSocket,
    client: Client,
    generation: Generation,
    /// When the client last sent; for a proven flow, also when the server did.
    active: Instant,
    proof: Proof,
    /// Whether it is among the leftovers of a turn.
    is_left_over: bool,
    /// Messages to receive from the server at once.
    share: usize,
    /// Held while the socket is open.
    _descriptor: Descriptor,
}

/// How far a client has proven that it receives at its address.
#[derive(Clone, Copy)]
enum Proof {
    /// The server has not answered.
    Unanswered,
    /// The server has chosen this id.
    Answered(ConnectionId),
    /// The client has sent to the server's id.
    Proven,
}

/// The QUIC flows of one worker.
pub struct Flows {
    epoll: Rc<Epoll>,
    gate: Arc<Gate>,
    slots: Vec<Option<Flow>>,
    generations: Vec<Generation>,
    free: Vec<u32>,
    by_client: HashMap<(SocketAddr, u64), u32, KeyedState>,
    /// Unproven flows, the oldest first.
    unproven: Order,
    /// Proven flows, the least recently active first.
    proven: Order,
    /// Proven flows per source.
    by_source: HashMap<Network, u32, KeyedState>,
    /// When the next new flow is due at the sustained rate: the theoretical arrival time of GCRA.
    next_due: Instant,
}

impl Flows {
    /// Creates an empty table. `key` must come from a cryptographic random generator: clients choose their addresses
    /// and ports.
    pub fn new(epoll: Rc<Epoll>, gate: Arc<Gate>, key: [u64; 2]) -> Self {
        let state = KeyedState::new(key);
        Self {
            epoll,
            gate,
            slots: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::with_hasher(state.clone()),
            unproven: Order::default(),
            proven: Order::default(),
            by_source: HashMap::with_hasher(state),
            next_due: Instant::default(),
        }
    }

    /// Decides where a client's datagram belongs, and forwards a QUIC datagram to the server at `to`. If QUIC and
    /// ChannelData look alike, an allocation decides for TURN, then a flow for QUIC, then RFC 9443: channels up to
    /// 0x4FFF belong to TURN. While there are no flows, these channels need no lookup.
    pub fn claim(
        &mut self,
        (client, to): (Client, SocketAddr),
        datagram: &[u8],
        has_allocation: impl FnOnce() -> bool,
        now: Instant,
    ) -> Claim {
        let is_quic = self.is_quic(&client, datagram, has_allocation);
        match is_quic.then(|| self.forward((client, to), datagram, now)) {
            None => Claim::Turn,
            Some(Ok(new)) => Claim::Quic { new },
            Some(Err(_)) => Claim::Refused,
        }
    }

    /// Returns whether a client's datagram belongs to QUIC, as in [`Flows::claim`].
    pub fn is_quic(&self, client: &Client, datagram: &[u8], has_allocation: impl FnOnce() -> bool) -> bool {
        match datagram.first().map(|&first| classify(first)) {
            None | Some(Kind::Turn) => false,
            Some(Kind::Either) => self.has(client) && !has_allocation(),
            Some(Kind::Short) => !has_allocation(),
            Some(Kind::Long) => true,
        }
    }

    /// Returns whether this client has a flow.
    fn has(&self, client: &Client) -> bool {
        self.by_client.contains_key(&key(client))
    }

    /// Returns whether this flow is open.
    pub fn is_open(&self, token: Token) -> bool {
        self.slot(token).is_some()
    }

    /// Returns the number of flows.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Returns whether there are no flows.
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// Returns whether a new flow may start now, and counts it (GCRA).
    fn may_begin(&mut self, now: Instant) -> bool {
        let due = self.next_due.max(now);
        let may = due < now + NEW_FLOWS_AHEAD;
        if may {
            self.next_due = due + NEW_FLOW_EVERY;
        }
        may
    }

    /// Forwards a client's datagram to the server at `to`. Returns the token of a new flow.
    ///
    /// # Errors
    /// `QuotaExceeded` if the datagram cannot start a connection or no descriptor is left, else the error of the
    /// kernel.
    fn forward(
        &mut self,
        (client, to): (Client, SocketAddr),
        datagram: &[u8],
        now: Instant,
    ) -> io::Result<Option<Token>> {
        if let Some(&slot) = self.by_client.get(&key(&client)) {
            self.heard(slot, datagram, now);
            if let Some(flow) = &self.slots[slot as usize] {
                flow.socket.send(datagram)?;
            }
            return Ok(None);
        }
        let begins = datagram.first().is_some_and(|&first| classify(first) == Kind::Long);
        if !begins || datagram.len() < INITIAL_MIN {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if !self.may_begin(now) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if self.unproven.len() >= UNPROVEN_MAX {
            self.close_oldest_unproven();
        }
        let descriptor = self.gate.socket(Class::Web).or_else(|refusal| match self.close_oldest_unproven() {
            true => self.gate.socket(Class::Web),
            false => Err(refusal),
        });
        let descriptor = descriptor.map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.connect(&to.into())?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(Generation::default());
            // Below FLOWS_MAX.
            self.slots.len() as u32 - 1
        });
        let generation = self.generations[slot as usize];
        let token = Token::Quic { slot, generation };
        if let Err(error) = self.epoll.add(&socket, token.pack(), ready::READ) {
            self.free.push(slot);
            return Err(error);
        }
        let flow = Flow {
            socket: socket.into(),
            client,
            generation,
            active: now,
            proof: Proof::Unanswered,
            is_left_over: false,
            share: 1,
            _descriptor: descriptor,
        };
        // The error of the first datagram is handled like that of any other.
        let _ = flow.socket.send(datagram);
        self.slots[slot as usize] = Some(flow);
        self.by_client.insert(key(&client), slot);
        self.unproven.push(slot);
        Ok(Some(token))
    }

    /// Returns the socket of a flow, its client, and how many messages to receive; `None` if the flow was closed
    /// meanwhile.
    pub fn get(&mut self, token: Token, now: Instant) -> Option<(&UdpSocket, Client, &mut usize)> {
        let slot = self.slot(token)?;
        let flow = self.slots[slot as usize].as_mut()?;
        // A server answers forged addresses, too, so its datagrams do not keep an unproven flow alive.
        if let Proof::Proven = flow.proof {
            flow.active = now;
            self.proven.renew(slot);
        }
        Some((&flow.socket, flow.client, &mut flow.share))
    }

    /// Leaves a flow over to the next turn. Returns whether it was not already: each is listed once.
    pub fn leave_over(&mut self, token: Token) -> bool {
        self.flow(token).is_some_and(|flow| !std::mem::replace(&mut flow.is_left_over, true))
    }

    /// Returns whether a flow was left over, and clears the mark.
    pub fn take_left_over(&mut self, token: Token) -> bool {
        self.flow(token).is_some_and(|flow| std::mem::take(&mut flow.is_left_over))
    }

    fn flow(&mut self, token: Token) -> Option<&mut Flow> {
        self.slot(token).and_then(|slot| self.slots[slot as usize].as_mut())
    }

    /// Records the connection id in a datagram of the server. The client proves that it has received the datagram by
    /// sending to that id. Returns whether the flow is proven already.
    pub fn answered(&mut self, token: Token, answer: &[u8]) -> bool {
        let Some(flow) = self.flow(token) else { return false };
        if let Proof::Proven = flow.proof {
            return true;
        }
        if let Some(id) = ConnectionId::of_server(answer) {
            flow.proof = Proof::Answered(id);
        }
        false
    }

    /// Returns when to check a flow again; closes it and returns `None` if it has expired.
    pub fn life(&mut self, token: Token, now: Instant) -> Option<Instant> {
        let slot = self.slot(token)?;
        let flow = self.slots[slot as usize].as_ref()?;
        let idle = if let Proof::Proven = flow.proof { IDLE } else { IDLE_UNPROVEN };
        let end = flow.active + idle;
        if now < end {
            return Some(end);
        }
        self.close(slot);
        None
    }

    /// Returns the slot of an open flow.
    fn slot(&self, token: Token) -> Option<u32> {
        let Token::Quic { slot, generation } = token else { return None };
        let flow = self.slots.get(slot as usize)?.as_ref();
        flow.is_some_and(|flow| flow.generation == generation).then_some(slot)
    }

    /// Records a datagram of the client.
    fn heard(&mut self, slot: u32, datagram: &[u8], now: Instant) {
        let Some(flow) = &mut self.slots[slot as usize] else { return };
        flow.active = now;
        match flow.proof {
            Proof::Proven => self.proven.renew(slot),
            Proof::Answered(id) if id.is_destination_of(datagram) => self.prove(slot, now),
            Proof::Answered(_) | Proof::Unanswered => {}
        }
    }

    /// Marks an unproven flow as proven, if its source may have one more.
    fn prove(&mut self, slot: u32, now: Instant) {
        let Some(flow) = &self.slots[slot as usize] else { return };
        let source = flow.client.five_tuple.client.ip();
        if !self.has_room(source, now) {
            return;
        }
        self.unproven.remove(slot);
        self.proven.push(slot);
        for (network, _) in networks(source) {
            *self.by_source.entry(network).or_insert(0) += 1;
        }
        if let Some(flow) = &mut self.slots[slot as usize] {
            flow.proof = Proof::Proven;
        }
    }

    /// Returns whether this source may have one more proven flow. Once all places are taken, this closes the least
    /// recently active flow if it is idle.
    fn has_room(&mut self, source: IpAddr, now: Instant) -> bool {
        let held = |network: Network| self.by_source.get(&network).copied().unwrap_or(0);
        if networks(source).any(|(network, share)| held(network) >= PROVEN_PER_SOURCE * share) {
            return false;
        }
        if self.proven.len() < PROVEN_MAX {
            return true;
        }
        let oldest = self.proven.first().and_then(|slot| Some((slot, self.slots[slot as usize].as_ref()?)));
        match oldest {
            Some((slot, flow)) if now.since(flow.active) > IDLE_DISPLACED => {
                self.close(slot);
                true
            }
            _ => false,
        }
    }

    /// Closes the oldest unproven flow; returns `false` if there is none.
    pub fn close_oldest_unproven(&mut self) -> bool {
        self.unproven.first().inspect(|&slot| self.close(slot)).is_some()
    }

    fn close(&mut self, slot: u32) {
        let Some(flow) = self.slots[slot as usize].take() else { return };
        if let Proof::Proven = flow.proof {
            self.proven.remove(slot);
            for (network, _) in networks(flow.client.five_tuple.client.ip()) {
                if let Some(held) = self.by_source.get_mut(&network) {
                    *held -= 1;
                    if *held == 0 {
                        self.by_source.remove(&network);
                    }
                }
            }
        } else {
            self.unproven.remove(slot);
        }
        self.by_client.remove(&key(&flow.client));
        self.generations[slot as usize] = flow.generation.next();
        self.free.push(slot);
    }
}

/// Returns the key of a client's flow. The same address at two listeners counts as two clients.
fn key(client: &Client) -> (SocketAddr, u64) {
    (client.five_tuple.client, client.link.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::net::admission::Admission;
    use crate::turn::five_tuple::{FiveTuple, Link};

    const NOW: Instant = Instant::from_nanos(1_000_000_000);
    const ID: &[u8] = b"chosen by the server";

    fn client(host: u8, port: u16) -> Client {
        let address = SocketAddr::from(([192, 0, 2, host], port));
        let five_tuple = FiveTuple { transport: Transport::Udp, client: address, server: address };
        Client { five_tuple, link: Link(1 << 56) }
    }

    fn gate() -> Arc<Gate> {
        Gate::new(Admission::unlimited(), 1)
    }

    fn initial() -> Vec<u8> {
        let mut datagram = vec![0; INITIAL_MIN];
        datagram[0] = 0xc3;
        datagram
    }

    /// Builds the first packet of a server: version 1, no id of the client, an id of its own.
    fn answer() -> Vec<u8> {
        [&[0xc0, 0, 0, 0, 1, 0, ID.len() as u8], ID].concat()
    }

    /// Builds a packet with a short header to the server's id.
    fn proof() -> Vec<u8> {
        [&b"\x41"[..], ID].concat()
    }

    /// Flows to a server of the test.
    struct Rig {
        flows: Flows,
        gate: Arc<Gate>,
        server: UdpSocket,
    }

    impl Rig {
        fn new() -> Self {
            Self::with(gate())
        }

        fn with(gate: Arc<Gate>) -> Self {
            let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
            server.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            let epoll = Rc::new(Epoll::new().expect("epoll"));
            Self { flows: Flows::new(epoll, Arc::clone(&gate), [1, 2]), gate, server }
        }

        fn forward(&mut self, client: Client, datagram: &[u8], now: Instant) -> io::Result<Option<Token>> {
            let to = self.server.local_addr().expect("address");
            self.flows.forward((client, to), datagram, now)
        }

        /// Forwards a datagram. Also returns the address from which the server received it.
        fn arrives(&mut self, client: Client, datagram: &[u8], now: Instant) -> (Option<Token>, SocketAddr) {
            let token = self.forward(client, datagram, now).expect("it is sent");
            (token, self.server.recv_from(&mut [0; 2000]).expect("a datagram").1)
        }

        fn begin(&mut self, client: Client, now: Instant) -> Token {
            self.flows.next_due = Instant::default();
            self.forward(client, &initial(), now).expect("a flow").expect("a new one")
        }

        fn prove(&mut self, client: Client, now: Instant) -> Token {
            let token = self.begin(client, now);
            self.flows.answered(token, &answer());
            assert_eq!(self.forward(client, &proof(), now).expect("it is sent"), None);
            token
        }

        /// Returns whether a new flow starts.
        fn try_begin(&mut self, client: Client, now: Instant) -> bool {
            self.forward(client, &initial(), now).is_ok()
        }

        fn counts(&self) -> (usize, usize) {
            assert_eq!(self.flows.len(), self.flows.unproven.len() + self.flows.proven.len());
            assert_eq!(self.gate.admission().descriptors().0 as usize, self.flows.len());
            (self.flows.unproven.len(), self.flows.proven.len())
        }
    }

    fn raise_open_files() {
        let limit = crate::system::limits::raise_open_files().after;
        assert!(limit > FLOWS_MAX as u64 + 500, "{limit} descriptors: raise `ulimit -Hn`");
    }

    #[test]
    fn the_first_byte_classifies_a_datagram() {
        let count = |kind| (0..=255).filter(|&first| classify(first) == kind).count();
        assert_eq!([Kind::Either, Kind::Short, Kind::Long].map(count), [16, 48, 64]);
        assert!([0, 3, 20, 63, 128, 191].into_iter().all(|first| classify(first) == Kind::Turn));
    }

    #[test]
    fn each_client_has_its_own_socket_until_it_is_idle() {
        let mut rig = Rig::new();
        let (first, from_first) = rig.arrives(client(1, 1), &initial(), NOW);
        let (second, from_second) = rig.arrives(client(1, 2), &initial(), NOW);
        assert_ne!(from_first, from_second);
        let (first, second) = (first.expect("new"), second.expect("new"));
        let later = NOW + IDLE_UNPROVEN / 2;
        assert_eq!(rig.arrives(client(1, 1), b"\x41short", later), (None, from_first));
        assert_eq!(rig.flows.get(first, later).map(|(_, client, _)| client), Some(client(1, 1)));
        let end = NOW + IDLE_UNPROVEN;
        assert_eq!(
            (rig.flows.life(second, end), rig.flows.life(first, end)),
            (None, Some(later + IDLE_UNPROVEN))
        );
        assert!(!rig.flows.has(&client(1, 2)) && rig.flows.has(&client(1, 1)) && rig.flows.len() == 1);
        // The slot is reused, under another token.
        let (third, _) = rig.arrives(client(1, 3), &initial(), end);
        assert!(third != Some(second) && rig.flows.get(second, end).is_none());
        assert!(!rig.flows.is_open(second) && third.is_some_and(|third| rig.flows.is_open(third)));
    }

    #[test]
    fn only_the_start_of_a_connection_creates_a_flow() {
        let mut rig = Rig::new();
        let mut short = initial();
        short[0] = 0x50;
        for datagram in [&b"\xc3 too short"[..], &short, b""] {
            assert!(rig.forward(client(1, 9), datagram, NOW).is_err());
        }
        assert!(rig.flows.is_empty());
    }

    #[test]
    fn only_the_servers_id_proves_a_flow() {
        let mut rig = Rig::new();
        let token = rig.begin(client(1, 1), NOW);
        let send = |rig: &mut Rig, datagram: &[u8]| {
            rig.forward(client(1, 1), datagram, NOW).expect("it is sent");
            rig.counts()
        };
        assert_eq!(send(&mut rig, &proof()), (1, 0), "before the server's answer");
        rig.flows.answered(token, b"\x41no long header");
        assert_eq!(send(&mut rig, &proof()), (1, 0), "before the server names its id");
        assert!(!rig.flows.answered(token, &answer()));
        assert_eq!(send(&mut rig, &initial()), (1, 0), "what a stranger can send");
        assert_eq!(send(&mut rig, b"\x41chosen by the client"), (1, 0), "a guess");
        // The server does not keep an unproven flow alive.
        let later = NOW + Duration::from_secs(5);
        assert!(rig.flows.get(token, later).is_some());
        assert_eq!(rig.flows.life(token, later), Some(NOW + IDLE_UNPROVEN));
        assert_eq!(send(&mut rig, &proof()), (0, 1));
        assert!(rig.flows.answered(token, &answer()));
        assert!(rig.flows.get(token, later).is_some());
        assert_eq!(rig.flows.life(token, later), Some(later + IDLE));
        assert_eq!(rig.flows.life(token, later + IDLE), None);
        assert_eq!(rig.counts(), (0, 0));
        assert!(rig.flows.by_source.is_empty());
    }

    #[test]
    fn new_flows_are_rate_limited_and_existing_ones_continue() {
        let mut rig = Rig::new();
        let first = rig.prove(client(1, 1), NOW);
        rig.flows.next_due = Instant::default();
        let begun = (0..1000).take_while(|&port| rig.try_begin(client(2, port), NOW)).count();
        assert_eq!(begun, 50);
        assert_eq!(rig.forward(client(1, 1), &proof(), NOW).expect("it is sent"), None);
        assert!(rig.flows.is_open(first));
        let later = NOW + Duration::from_millis(5);
        assert_eq!((0..1000).take_while(|&port| rig.try_begin(client(3, port), later)).count(), 25);
    }

    #[test]
    fn only_the_oldest_unproven_flow_makes_room() {
        raise_open_files();
        let mut rig = Rig::new();
        let honest = rig.prove(client(1, 1), NOW);
        let first = rig.begin(client(2, 0), NOW);
        let second = rig.begin(client(2, 1), NOW);
        for port in 2..UNPROVEN_MAX as u16 {
            rig.begin(client(2, port), NOW);
        }
        // Sending again does not make a flow younger.
        assert_eq!(rig.forward(client(2, 0), &initial(), NOW).expect("it is sent"), None);
        assert_eq!(rig.counts(), (UNPROVEN_MAX, 1));
        rig.begin(client(3, 1), NOW);
        assert_eq!(rig.counts(), (UNPROVEN_MAX, 1));
        assert!(!rig.flows.is_open(first) && rig.flows.is_open(second) && rig.flows.is_open(honest));
        for port in 0..3 * UNPROVEN_MAX as u16 {
            rig.begin(client(4, port), NOW);
        }
        assert_eq!(rig.counts(), (UNPROVEN_MAX, 1));
        assert!(rig.flows.is_open(honest) && !rig.flows.is_open(second));
        assert!(rig.flows.slots.len() <= FLOWS_MAX);
    }

    #[test]
    fn proven_flows_are_limited_per_source_and_idle_ones_make_room() {
        raise_open_files();
        let mut rig = Rig::new();
        for port in 0..PROVEN_PER_SOURCE as u16 {
            rig.prove(client(1, port), NOW);
        }
        assert_eq!(rig.counts(), (0, PROVEN_PER_SOURCE as usize));
        rig.prove(client(1, 60_000), NOW);
        assert_eq!(rig.counts(), (1, PROVEN_PER_SOURCE as usize), "served, but unproven");
        for host in 2..=(PROVEN_MAX / PROVEN_PER_SOURCE as usize) as u8 {
            for port in 0..PROVEN_PER_SOURCE as u16 {
                rig.prove(client(host, port), NOW);
            }
        }
        assert_eq!(rig.counts(), (1, PROVEN_MAX));
        // All are active: the next one stays unproven.
        rig.prove(client(99, 1), NOW + IDLE_DISPLACED);
        assert_eq!(rig.counts(), (2, PROVEN_MAX));
        // The first flow sends again, so the second one is the least recently active.
        let late = NOW + IDLE_DISPLACED + Duration::from_secs(1);
        rig.forward(client(1, 0), &proof(), late).expect("it is sent");
        rig.forward(client(99, 1), &proof(), late).expect("it is sent");
        assert_eq!(rig.counts(), (1, PROVEN_MAX));
        assert!(
            rig.flows.has(&client(1, 0)) && !rig.flows.has(&client(1, 1)) && rig.flows.has(&client(1, 2))
        );
    }

    /// One IPv6 site cannot take all places for proven flows, neither with one network nor with many.
    #[test]
    fn the_networks_of_an_ipv6_site_share_a_limit() {
        raise_open_files();
        let mut rig = Rig::new();
        let mut prove_all = |site: u16, network: u16| {
            let before = rig.flows.proven.len();
            for port in 0..PROVEN_PER_SOURCE as u16 + 1 {
                let address = SocketAddr::from(([0x2001, 0xdb8, site, network, 0, 0, 0, 1], port));
                let five_tuple = FiveTuple { transport: Transport::Udp, client: address, server: address };
                rig.prove(Client { five_tuple, link: Link(1 << 56) }, NOW);
            }
            (rig.flows.proven.len() - before) as u32 / PROVEN_PER_SOURCE
        };
        let one_home = [1, 2, 3].map(|network| prove_all(0, network));
        assert_eq!(one_home, [1, 1, 0], "a /64 has one share, a /56 two");
        let further = [0x100, 0x200, 0x300].map(|network| prove_all(0, network));
        assert_eq!(further, [1, 1, 0], "a /48 has four");
        assert_eq!(prove_all(1, 0), 1, "another site");
    }

    #[test]
    fn without_descriptors_the_oldest_unproven_flow_is_closed() {
        let mut rig = Rig::with(Gate::new(Arc::new(Admission::new(Default::default(), 8)), 1));
        let first = rig.begin(client(1, 1), NOW);
        let more = (2..40).filter(|&port| rig.forward(client(1, port), &initial(), NOW).is_ok()).count();
        assert_eq!(more, 38, "no client is refused");
        assert!(rig.flows.len() <= 4 && !rig.flows.is_open(first));
        rig.counts();
    }
}
