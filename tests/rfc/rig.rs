//! A server in memory, in virtual time, with simulated relay sockets and authenticating clients.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hallpass::base::host::HostId;
use hallpass::base::time::{Instant, Now};
use hallpass::base::transport::Transport;
use hallpass::turn::action::{
    Action, Beginning, DropReason, FromClient, FromPeer, OpenError, PeerHeader, PeerIcmp, RelayId, Review,
    Session,
};
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::counters::Counters;
use hallpass::turn::five_tuple::{Client, FiveTuple, Link};
use hallpass::turn::identity::refusal::Refusal;
use hallpass::turn::server::Server;
use hallpass::turn::settings::{Host, Limits, PeerRules, RelayAddress, Settings, StaticUser};
use hallpass::turn::shared::Shared;
use hallpass::wire::frame::Frame;
use hallpass::wire::{channel_data, indication};

use crate::codec::*;

pub const REALM_TEXT: &str = "relay.example.org";
pub const RELAY4: &str = "198.51.100.1";
pub const RELAY6: &str = "2001:db8:1::1";
/// Peers that the operator allowed.
pub const PEER: &str = "192.0.2.50:7000";
pub const OTHER_PEER: &str = "192.0.2.51:7000";
pub const PEER6: &str = "[2001:db8:2::50]:7000";
/// A peer in a special range that is not allowed.
pub const DENIED: &str = "10.0.0.1:7000";
/// The wall clock at the start.
pub const UNIX: u64 = 1_700_000_000;

/// How a client protects its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// RFC 5389: MD5 key, MESSAGE-INTEGRITY, no algorithm named.
    Old,
    /// RFC 8489 with PASSWORD-ALGORITHM = SHA-256 and USERNAME.
    Sha256,
    /// The same with USERHASH instead of USERNAME.
    Hashed,
    /// RFC 8489 with PASSWORD-ALGORITHM = MD5.
    NamedMd5,
}

/// The PASSWORD-ALGORITHMS that the server sends: SHA-256, then MD5.
pub const LIST: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// A user with credentials at one address.
#[derive(Clone, Debug)]
pub struct User {
    pub at: Client,
    pub name: String,
    pub password: String,
    pub realm: String,
    pub nonce: Vec<u8>,
    pub style: Style,
}

impl User {
    pub fn key(&self) -> Vec<u8> {
        let text = format!("{}:{}:{}", self.name, self.realm, self.password);
        match self.style {
            Style::Old | Style::NamedMd5 => md5(text.as_bytes()),
            Style::Sha256 | Style::Hashed => sha256(text.as_bytes()),
        }
    }

    /// Adds the user's attributes, without integrity.
    pub fn named(&self, message: Msg) -> Msg {
        let message = match self.style {
            Style::Hashed => {
                message.attr(USERHASH, &sha256(format!("{}:{}", self.name, self.realm).as_bytes()))
            }
            _ => message.attr(USERNAME, self.name.as_bytes()),
        };
        let message = message.attr(REALM, self.realm.as_bytes()).attr(NONCE, &self.nonce);
        match self.style {
            Style::Old => message,
            Style::Sha256 | Style::Hashed => {
                message.attr(PASSWORD_ALGORITHMS, &LIST).attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0])
            }
            Style::NamedMd5 => {
                message.attr(PASSWORD_ALGORITHMS, &LIST).attr(PASSWORD_ALGORITHM, &[0, 1, 0, 0])
            }
        }
    }

    pub fn sign(&self, message: Msg) -> Msg {
        match self.style {
            Style::Old => message.sha1(&self.key()),
            _ => message.sha256(&self.key()),
        }
    }

    pub fn seal(&self, message: Msg) -> Msg {
        self.sign(self.named(message))
    }

    pub fn with_style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

/// A datagram that left a relayed address.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub data: Vec<u8>,
    pub dont_fragment: bool,
}

pub struct Rig {
    pub server: Server,
    pub shared: Arc<Shared>,
    pub settings: Settings,
    pub now: Now,
    /// Open relay sockets, by number.
    pub sockets: BTreeMap<RelayId, SocketAddr>,
    pub beginnings: Vec<Beginning>,
    pub sessions: Vec<Session>,
    pub reviews: Vec<Review>,
    pub refusals: Vec<Refusal>,
    /// The results of opening the next sockets. When empty, all sockets open.
    pub failures: VecDeque<Result<(), OpenError>>,
    /// The addresses of all requested sockets.
    pub asked: Vec<SocketAddr>,
    /// Whether requested sockets stay pending until [`Rig::open_pending`].
    pub hold: bool,
    pending: VecDeque<RelayId>,
    replies: VecDeque<(Client, Vec<u8>)>,
}

pub fn client_at(transport: Transport, client: &str) -> Client {
    let server = if client.starts_with('[') { "[2001:db8:1::1]:3478" } else { "198.51.100.1:3478" };
    Client {
        five_tuple: FiveTuple {
            transport,
            client: client.parse().expect("literal"),
            server: server.parse().expect("literal"),
        },
        link: Link(7),
    }
}

/// A UDP client.
pub fn client(port: u16) -> Client {
    client_at(Transport::Udp, &format!("203.0.113.5:{port}"))
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

/// The password of a REST name.
pub fn rest_password(secret: &str, name: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(hmac_sha1(secret.as_bytes(), name.as_bytes()))
}

pub fn settings() -> Settings {
    let nets = |texts: &[&str]| texts.iter().map(|net| net.parse().expect("literal")).collect::<Vec<_>>();
    let host = |id, name: &str, secrets: &[&str], peers| Host {
        id: HostId(id),
        name: name.into(),
        secrets: secrets.iter().map(|&secret| secret.to_owned()).collect(),
        revoked: Vec::new(),
        peers,
        confined: None,
    };
    let relay = |ip: &str| RelayAddress {
        local: ip.parse().expect("literal"),
        announced: ip.parse().expect("literal"),
        only_local: false,
    };
    Settings {
        realm: REALM_TEXT.into(),
        hosts: vec![
            host(0, "north", &["north-secret"], None),
            host(1, "south", &["south-old", "south-new"], Some(nets(&["192.0.2.51/32"]))),
        ],
        users: ["alice", "bob"]
            .map(|name| StaticUser { name: name.into(), password: format!("{name}-pw"), host: HostId(0) })
            .into(),
        relay_addresses: vec![relay(RELAY4), relay(RELAY6)],
        default_family: Default::default(),
        relay_ports: 49_152..=65_535,
        peers: PeerRules {
            allow: nets(&["192.0.2.0/24", "2001:db8:2::/48"]),
            deny: vec![],
            own: [RELAY4, RELAY6].map(|ip| ip.parse::<IpAddr>().expect("literal").into()).into(),
            services: vec![addr("0.0.0.0:3478"), addr("127.0.0.1:9641")],
        },
        limits: Limits::default(),
        alternates: Default::default(),
        strict_channels: false,
        icmp_to_clients: true,
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let shared = Arc::new(Shared::new(&[7; 32]));
        let server = Server::new(
            Arc::new(settings.clone()),
            Arc::clone(&shared),
            Arc::new(Counters::default()),
            [9; 32],
        );
        Self {
            server,
            shared,
            settings,
            now: Now { instant: Instant::from_nanos(1_000_000_000_000), unix: UNIX },
            sockets: BTreeMap::new(),
            beginnings: Vec::new(),
            sessions: Vec::new(),
            reviews: Vec::new(),
            refusals: Vec::new(),
            failures: VecDeque::new(),
            asked: Vec::new(),
            hold: false,
            pending: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// Applies new settings, as a reload does.
    pub fn reload(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.server.handle_settings(self.now, Arc::new(self.settings.clone()));
        self.drain();
    }

    /// Advances the time without a timer call.
    pub fn skip(&mut self, secs: u64) {
        self.now.instant = self.now.instant + Duration::from_secs(secs);
        self.now.unix += secs;
    }

    /// Advances the time; every timer runs at its exact nanosecond.
    pub fn wait(&mut self, secs: u64) {
        let end = Now { instant: self.now.instant + Duration::from_secs(secs), unix: self.now.unix + secs };
        while let Some(at) = self.server.poll_timeout().filter(|&at| at <= end.instant) {
            self.now.instant = at.max(self.now.instant);
            self.server.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Carries out the server's actions.
    pub fn drain(&mut self) {
        loop {
            while let Some(action) = self.server.poll_action() {
                match action {
                    Action::Reply { client, message, .. } => self.replies.push_back((client, message)),
                    Action::OpenRelay { relay, address: OnWire(address) } => {
                        self.asked.push(address);
                        self.sockets.insert(relay, address);
                        self.pending.push_back(relay);
                    }
                    Action::CloseRelay { relay } => {
                        self.sockets.remove(&relay);
                    }
                    Action::Began(beginning) => self.beginnings.push(*beginning),
                    Action::Ended(session) => self.sessions.push(*session),
                    Action::Reviewed(review) => self.reviews.push(review),
                    Action::Refused(refusal) => self.refusals.push(*refusal),
                    Action::Changed(change) => panic!("unexpected {change:?}"),
                }
            }
            if self.hold {
                return;
            }
            let Some(relay) = self.pending.pop_front() else { return };
            let outcome = self.failures.pop_front().unwrap_or(Ok(()));
            if outcome.is_err() {
                self.sockets.remove(&relay);
            }
            self.server.handle_relay_opened(self.now, relay, outcome);
        }
    }

    /// Completes the pending sockets and returns the answer, if there is one.
    pub fn open_pending(&mut self) -> Option<Answer> {
        self.hold = false;
        self.drain();
        self.reply().map(|(_, answer)| answer)
    }

    /// Feeds one datagram or message of a client.
    pub fn feed(&mut self, from: &Client, bytes: &[u8]) -> FromClient {
        let verdict = self.server.handle_client(self.now, *from, bytes);
        self.drain();
        verdict
    }

    /// Feeds a message of a stream; `opening`: it is one of its first requests.
    pub fn feed_stream(&mut self, from: &Client, bytes: &[u8], opening: bool) -> FromClient {
        let verdict = self.server.handle_stream(self.now, *from, bytes, opening);
        self.drain();
        verdict
    }

    /// Returns the one message that was sent to a client, if any.
    pub fn reply(&mut self) -> Option<(Client, Answer)> {
        let (client, bytes) = self.replies.pop_front()?;
        assert!(self.replies.is_empty(), "one answer at most");
        Some((client, Answer::decode(&bytes)))
    }

    /// Feeds bytes and returns the answer, which must go to the sender.
    pub fn exchange(&mut self, from: &Client, bytes: &[u8]) -> Option<Answer> {
        self.feed(from, bytes);
        let (client, answer) = self.reply()?;
        assert_eq!(client, *from, "to the five-tuple of the request");
        assert_eq!(answer.tid, bytes[8..20], "the transaction of the request");
        Some(answer)
    }

    /// Feeds bytes that must not be answered; returns why they were dropped.
    pub fn silent(&mut self, from: &Client, bytes: &[u8]) -> DropReason {
        let counts = |rig: &Self| -> Vec<u64> {
            DropReason::ALL.iter().map(|&reason| rig.server.counters().dropped(reason).get()).collect()
        };
        let before = counts(self);
        let verdict = self.feed(from, bytes);
        assert!(self.reply().is_none(), "silence");
        let after = counts(self);
        let mut counted = (0..after.len()).filter(|&at| after[at] != before[at]);
        let (Some(at), None) = (counted.next(), counted.next()) else { panic!("counted once: {verdict:?}") };
        assert_eq!(after[at], before[at] + 1);
        let reason = DropReason::ALL[at];
        // A request over a rate limit may be reported, which is an action.
        assert!(
            matches!(verdict, FromClient::Dropped(found) if found == reason)
                || verdict == FromClient::Control
        );
        reason
    }

    /// Returns the answer to a message that is sent as it is.
    pub fn bare(&mut self, from: &Client, message: &Msg) -> Answer {
        self.exchange(from, &message.bytes()).expect("an answer")
    }

    /// Returns the answer to a sealed request that passes authentication; it must be signed as RFC 8489 section 9.2.4
    /// requires.
    pub fn ask(&mut self, user: &User, message: Msg) -> Answer {
        let message = user.seal(message);
        let answer = self.bare(&user.at, &message);
        check_signed(user, &answer);
        answer
    }

    /// Gets a nonce for a client with this name and password.
    pub fn login(&mut self, at: Client, name: &str, password: &str, style: Style) -> User {
        let challenge = self.bare(&at, &Msg::allocate());
        assert_eq!(challenge.code(), 401);
        let realm = String::from_utf8(challenge.get(REALM).expect("REALM").to_vec()).expect("UTF-8");
        User {
            at,
            name: name.into(),
            password: password.into(),
            realm,
            nonce: challenge.get(NONCE).expect("NONCE").to_vec(),
            style,
        }
    }

    pub fn alice_at(&mut self, at: Client) -> User {
        self.login(at, "alice", "alice-pw", Style::Old)
    }

    pub fn alice(&mut self) -> User {
        self.alice_at(client(40_000))
    }

    /// A REST user of this secret.
    pub fn rest(&mut self, at: Client, secret: &str, name: &str) -> User {
        self.login(at, name, &rest_password(secret, name), Style::Old)
    }

    /// Alice with an IPv4 allocation.
    pub fn allocated(&mut self) -> User {
        let alice = self.alice();
        assert_eq!(self.ask(&alice, Msg::allocate()).code(), 0);
        alice
    }

    /// Alice with an allocation of both families.
    pub fn allocated_dual(&mut self) -> User {
        let alice = self.alice();
        let answer = self.ask(&alice, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6));
        assert_eq!(answer.addresses(XOR_RELAYED_ADDRESS).len(), 2);
        alice
    }

    pub fn refresh(&mut self, user: &User, secs: u32) -> Answer {
        self.ask(user, Msg::request(REFRESH).lifetime(secs))
    }

    /// Sends a CreatePermission for these peers; returns the code.
    pub fn permit(&mut self, user: &User, peers: &[&str]) -> u16 {
        let request = peers.iter().fold(Msg::request(CREATE_PERMISSION), |request, peer| request.peer(peer));
        self.ask(user, request).code()
    }

    /// Sends a ChannelBind; returns the code.
    pub fn bind(&mut self, user: &User, number: u16, peer: &str) -> u16 {
        self.ask(user, Msg::request(CHANNEL_BIND).channel(number).peer(peer)).code()
    }

    fn sent(&self, bytes: &[u8], verdict: FromClient) -> Result<Sent, DropReason> {
        match verdict {
            FromClient::Relay { relay, peer: OnWire(peer), payload, dont_fragment } => {
                let (from, data) = (self.sockets[&relay], bytes[payload].to_vec());
                Ok(Sent { from, to: peer, data, dont_fragment })
            }
            FromClient::Dropped(reason) => Err(reason),
            FromClient::Control => panic!("data only"),
        }
    }

    /// Feeds a data message of a client; returns what the relay sends, or why it sends nothing.
    pub fn data(&mut self, from: &Client, bytes: &[u8]) -> Result<Sent, DropReason> {
        let verdict = self.feed(from, bytes);
        assert!(self.reply().is_none(), "data is never answered");
        self.sent(bytes, verdict)
    }

    /// Feeds a Send indication with this payload.
    pub fn send(&mut self, user: &User, peer: &str, data: &[u8]) -> Result<Sent, DropReason> {
        self.data(&user.at, &Msg::send().peer(peer).attr(DATA, data).bytes())
    }

    /// Feeds ChannelData with this payload.
    pub fn channel(&mut self, user: &User, number: u16, data: &[u8]) -> Result<Sent, DropReason> {
        self.data(&user.at, &channel_data(number, data))
    }

    /// The one open relay of a family.
    pub fn relay(&self, is_v4: bool) -> RelayId {
        let mut found = self.sockets.iter().filter(|(_, address)| address.is_ipv4() == is_v4);
        let (&relay, _) = found.next().expect("a relay");
        assert!(found.next().is_none(), "one relay");
        relay
    }

    /// Feeds a peer's datagram; returns what the client receives, or why it receives nothing.
    pub fn data_from_peer(&mut self, peer: &str, data: &[u8]) -> Result<(Client, Vec<u8>), DropReason> {
        let peer = addr(peer);
        self.at_relay(self.relay(peer.is_ipv4()), peer, data)
    }

    pub fn at_relay(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        data: &[u8],
    ) -> Result<(Client, Vec<u8>), DropReason> {
        let verdict = self.server.handle_peer(self.now, relay, OnWire(peer), data.len());
        self.drain();
        assert!(self.reply().is_none());
        let (client, header) = match verdict {
            FromPeer::Relay { client, header } => (client, header),
            FromPeer::Dropped(reason) => return Err(reason),
        };
        let mut frame = Frame::new();
        frame.fill(data);
        match header {
            PeerHeader::Channel(number) => channel_data::prepend(&mut frame, number),
            PeerHeader::Data { peer: Announced(peer), transaction_id } => {
                indication::prepend_data(&mut frame, peer, transaction_id)
            }
        }
        .expect("headroom");
        Ok((client, frame.bytes().to_vec()))
    }

    /// Feeds an ICMP error; returns what the client receives.
    pub fn icmp(&mut self, peer: &str, kind: u8, code: u8, data: u32) -> Option<(Client, Answer)> {
        let peer = addr(peer);
        let relay = self.relay(peer.is_ipv4());
        self.server.handle_peer_icmp(self.now, relay, PeerIcmp { peer: OnWire(peer), kind, code, data });
        self.drain();
        self.reply()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.server.counters().dropped(reason).get()
    }

    /// Returns what the server holds: allocations, ports, places in quotas.
    pub fn held(&self) -> (usize, usize, u32) {
        (self.server.allocations(), self.shared.ports.taken(), self.shared.quota.total())
    }
}

/// Checks the integrity of an answer (end of RFC 8489 section 9.2.4): SHA-256 for clients that named an algorithm, SHA-1
/// for the others.
pub fn check_signed(user: &User, answer: &Answer) {
    let key = user.key();
    match user.style {
        Style::Old => assert!(answer.is_sha1(&key) && !answer.has(MESSAGE_INTEGRITY_SHA256), "{answer:?}"),
        _ => assert!(answer.is_sha256(&key) && !answer.has(MESSAGE_INTEGRITY), "{answer:?}"),
    }
    for kind in [REALM, NONCE, USERNAME, USERHASH] {
        assert!(!answer.has(kind), "{kind:#x} in an authenticated answer");
    }
}
