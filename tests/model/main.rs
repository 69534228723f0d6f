//! Random sequences of operations on one server, compared step by step with a simple reference of RFC 8656.

mod mirror;
mod reference;
#[path = "../sim/rig.rs"]
mod rig;
#[path = "../sim/stun.rs"]
mod stun;

use std::net::SocketAddr;
use std::time::Duration;

use hallpass::base::transport::Transport;
use hallpass::turn::action::{EndReason, FromClient, FromPeer, PeerHeader, RelayId};
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::five_tuple::Client;
use hallpass::turn::snapshot::{Cursor, ENTRIES_MAX};
use proptest::prelude::*;

use mirror::{Mirror, sessions};
use reference::{Ask, Family, Reference, Wish};
use rig::Rig;
use stun::{Login, Reader, Writer};

const CLIENTS: u8 = 3;
const PEERS: [&str; 8] = [
    "9.9.0.1:7000",
    "9.9.0.1:7001",
    "9.9.0.2:7000",
    "9.9.0.3:7000",
    "[2a00:9::1]:7000",
    "[2a00:9::2]:7000",
    "10.0.0.1:7000", // refused by the policy
    "[fc00::1]:7000",
];
/// Channel numbers below, at the edges of, within and above the valid range.
const NUMBERS: [u16; 6] = [0x3fff, 0x4000, 0x4001, 0x4002, 0x7fff, 0x8000];
const LIMIT: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Ask { client: u8, user: u8, ask: Ask },
    Send { client: u8, peer: u8 },
    Channel { client: u8, number: u8 },
    FromPeer { client: u8, family: Family, peer: u8 },
    Wait { secs: u16 },
    Timeout,
    NewNonce { client: u8 },
    WrongPassword { client: u8 },
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![3 => Just(Family::V4), 2 => Just(Family::V6)]
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        4 => Just(Wish::Plain),
        2 => family().prop_map(Wish::Family),
        3 => Just(Wish::Dual),
        1 => Just(Wish::UnknownFamily),
        1 => Just(Wish::TwoFamilyAttributes),
        1 => Just(Wish::AdditionalV4),
        1 => any::<bool>().prop_map(Wish::EvenPort),
        1 => Just(Wish::EvenPortAndDual),
        1 => Just(Wish::TokenAndEvenPort),
        1 => Just(Wish::UnknownToken),
        1 => Just(Wish::NoTransport),
        1 => Just(Wish::Tcp),
    ]
}

fn lifetime() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (1_u32..=5000).prop_map(Some)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let peer = 0..PEERS.len() as u8;
    prop_oneof![
        4 => (wish(), lifetime()).prop_map(|(wish, lifetime)| Ask::Allocate { wish, lifetime }),
        3 => (lifetime(), prop::option::of(family())).prop_map(|(l, family)| Ask::Refresh { lifetime: l, family }),
        1 => prop::option::of(family()).prop_map(|family| Ask::Refresh { lifetime: Some(0), family }),
        5 => prop::collection::vec(peer.clone(), 0..4).prop_map(|peers| Ask::Permit { peers }),
        6 => (prop::option::weighted(0.95, 0..NUMBERS.len() as u8), prop::option::weighted(0.95, peer))
            .prop_map(|(number, peer)| Ask::Bind { number, peer }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (client, peer) = (0..CLIENTS, 0..PEERS.len() as u8);
    prop_oneof![
        10 => (client.clone(), prop_oneof![9 => Just(0_u8), 1 => Just(1)], ask())
            .prop_map(|(client, user, ask)| Op::Ask { client, user, ask }),
        4 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Op::Send { client, peer }),
        4 => (client.clone(), 0..NUMBERS.len() as u8).prop_map(|(client, number)| Op::Channel { client, number }),
        4 => (client.clone(), family(), peer).prop_map(|(client, family, peer)| Op::FromPeer { client, family, peer }),
        3 => prop_oneof![1_u16..400, Just(299), Just(300), Just(301), Just(600), 1000_u16..4000]
            .prop_map(|secs| Op::Wait { secs }),
        2 => Just(Op::Timeout),
        1 => client.clone().prop_map(|client| Op::NewNonce { client }),
        1 => client.prop_map(|client| Op::WrongPassword { client }),
    ]
}

fn peer(index: u8) -> SocketAddr {
    PEERS[usize::from(index)].parse().expect("literal")
}

struct Run {
    rig: Rig,
    reference: Reference,
    /// The nonce that each client uses, and its creation time.
    nonces: Vec<(String, u64)>,
    /// The relays of each client, by family.
    relays: Vec<[Option<RelayId>; 2]>,
    logins: [Login; 2],
}

impl Run {
    fn new() -> Self {
        let mut settings = stun::settings();
        settings.limits.permissions_per_allocation = LIMIT;
        settings.limits.channels_per_allocation = LIMIT - 1;
        settings.limits.lifetime_max = Duration::from_secs(3000);
        let rig = Rig::new(settings);
        let mut run = Self {
            rig,
            reference: Reference::new(LIMIT as usize, LIMIT as usize - 1, 3000),
            nonces: Vec::new(),
            relays: vec![[None; 2]; CLIENTS.into()],
            logins: [rig::login("ann"), rig::login("bob")],
        };
        for n in 0..CLIENTS {
            let nonce = run.rig.nonce(client(n));
            run.nonces.push((nonce, run.secs()));
        }
        run
    }

    fn secs(&self) -> u64 {
        self.rig.now.instant.as_secs()
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let now = self.secs();
        match op {
            Op::Wait { secs } => self.rig.wait(Duration::from_secs((*secs).into())),
            Op::Timeout => {
                self.rig.timeout();
                self.forget_closed();
                let next = self.rig.server.poll_timeout();
                prop_assert!(next.is_none_or(|next| next > self.rig.now.instant), "a deadline in the past");
                prop_assert_eq!(self.rig.server.allocations(), self.reference.allocations(now));
                let channels = self.rig.server.counters().channels.get() as usize;
                prop_assert_eq!(channels, self.reference.channels(now));
            }
            Op::NewNonce { client: n } => self.new_nonce(*n),
            Op::WrongPassword { client: n } => {
                let wrong = Login::new(&self.logins[0].name, "guess", stun::REALM_NAME);
                let id = self.rig.id();
                let expected = if self.is_stale(*n) { 438 } else { 401 };
                prop_assert_eq!(self.answer(*n, &wrong, stun::refresh(id, 0))?.code(), Some(expected));
            }
            Op::Ask { client: n, user, ask } => self.ask(*n, *user, ask)?,
            Op::Send { client: n, peer: to } => {
                let id = self.rig.id();
                let verdict = self.rig.feed(client(*n), &stun::send(id, peer(*to), b"payload"));
                self.check_from_client(*n, verdict, self.reference.send(now, *n, peer(*to)))?;
            }
            Op::Channel { client: n, number } => {
                let number = NUMBERS[usize::from(*number)];
                let verdict = self.rig.feed(client(*n), &stun::channel_data(number, b"payload"));
                self.check_from_client(*n, verdict, self.reference.channel_data(now, *n, number))?;
            }
            Op::FromPeer { client: n, family, peer: from } => {
                let (from, relay) = (peer(*from), self.relays[usize::from(*n)][*family as usize]);
                let Some(relay) = relay.filter(|_| family.is_of(from)) else { return Ok(()) };
                let verdict = self.rig.server.handle_peer(self.rig.now, relay, OnWire(from), 7);
                let header = match verdict {
                    FromPeer::Relay { client: to, header } => {
                        prop_assert_eq!(to, client(*n));
                        Some(header)
                    }
                    FromPeer::Dropped(_) => None,
                };
                match (header, self.reference.route_from_peer(now, *n, from)) {
                    (Some(PeerHeader::Channel(number)), Some(Some(bound))) => prop_assert_eq!(number, bound),
                    (Some(PeerHeader::Data { peer: Announced(peer), .. }), Some(None)) => {
                        prop_assert_eq!(peer, from)
                    }
                    (None, None) => {}
                    (header, expected) => prop_assert!(false, "{:?}, expected {:?}", header, expected),
                }
            }
        }
        Ok(())
    }

    fn new_nonce(&mut self, n: u8) {
        self.nonces[usize::from(n)] = (self.rig.nonce(client(n)), self.secs());
    }

    /// Forgets closed relays, because their ids may be reused at once.
    fn forget_closed(&mut self) {
        let closed = std::mem::take(&mut self.rig.closed);
        let known = self.relays.iter_mut().flatten();
        known
            .filter(|relay| relay.is_some_and(|relay| closed.contains(&relay)))
            .for_each(|relay| *relay = None);
    }

    fn is_stale(&self, n: u8) -> bool {
        self.secs() - self.nonces[usize::from(n)].1 >= 3600
    }

    fn ask(&mut self, n: u8, user: u8, ask: &Ask) -> Result<(), TestCaseError> {
        let now = self.secs();
        let id = self.rig.id();
        let request = encode(id, ask);
        let login = self.logins[usize::from(user)].clone();
        if self.is_stale(n) {
            prop_assert_eq!(self.answer(n, &login, request.clone())?.code(), Some(438));
            self.new_nonce(n);
        }
        let reply = self.answer(n, &login, request)?;
        let expected = self.reference.ask(now, n, user, ask, peer, |index| NUMBERS[usize::from(index)]);
        prop_assert_eq!(reply.code(), Some(expected.code), "{:?}", reply);
        prop_assert_eq!(reply.number(stun::LIFETIME).map(u64::from), expected.lifetime);
        if let (Ask::Allocate { wish, .. }, 0) = (ask, expected.code) {
            self.check_allocated(*wish, &reply)?;
        }
        Ok(())
    }

    /// Signs and sends a request, opens sockets as requested, and returns the answer.
    fn answer(&mut self, n: u8, login: &Login, request: Writer) -> Result<Reader, TestCaseError> {
        self.rig.replies.clear();
        let nonce = self.nonces[usize::from(n)].0.clone();
        self.rig.feed(client(n), &request.signed(login, nonce.as_bytes()));
        self.forget_closed();
        if !self.rig.opens.is_empty() {
            let mut relays = [None; 2];
            for (relay, address) in &self.rig.opens {
                relays[usize::from(address.is_ipv6())] = Some(*relay);
            }
            self.relays[usize::from(n)] = relays;
            self.rig.open(Ok(()));
        }
        prop_assert_eq!(self.rig.replies.len(), 1);
        Ok(self.rig.replies.remove(0))
    }

    fn check_allocated(&self, wish: Wish, reply: &Reader) -> Result<(), TestCaseError> {
        let relayed = reply.addresses(stun::RELAYED);
        let families: Vec<bool> = relayed.iter().map(SocketAddr::is_ipv6).collect();
        let expected: &[bool] = match wish {
            Wish::Family(Family::V6) => &[true],
            Wish::Dual => &[false, true],
            _ => &[false],
        };
        prop_assert_eq!(&families[..], expected);
        for relayed in &relayed {
            prop_assert!(["5.5.5.5", "2a00:5::5"].contains(&relayed.ip().to_string().as_str()), "announced");
        }
        if let Wish::EvenPort(reserve) = wish {
            prop_assert_eq!(relayed[0].port() % 2, 0);
            prop_assert_eq!(reply.get(stun::RESERVATION).is_some(), reserve);
        }
        Ok(())
    }

    fn check_from_client(
        &self,
        n: u8,
        verdict: FromClient,
        expected: Option<SocketAddr>,
    ) -> Result<(), TestCaseError> {
        match (verdict, expected) {
            (FromClient::Relay { relay, peer: OnWire(peer), .. }, Some(to)) => {
                prop_assert_eq!(peer, to);
                prop_assert_eq!(Some(relay), self.relays[usize::from(n)][usize::from(to.is_ipv6())]);
            }
            (FromClient::Dropped(_), None) => {}
            (verdict, expected) => prop_assert!(false, "{:?}, expected {:?}", verdict, expected),
        }
        Ok(())
    }
}

fn client(n: u8) -> Client {
    stun::client(Transport::Udp, SocketAddr::from(([8, 8, 1, n], 5000)), n.into())
}

fn encode(id: stun::Id, ask: &Ask) -> Writer {
    let with_lifetime = |writer: Writer, lifetime: &Option<u32>| match lifetime {
        Some(secs) => writer.raw(stun::LIFETIME, &secs.to_be_bytes()),
        None => writer,
    };
    match ask {
        Ask::Allocate { wish, lifetime } => with_lifetime(encode_wish(id, *wish), lifetime),
        Ask::Refresh { lifetime, family } => {
            let writer = with_lifetime(Writer::new(stun::REFRESH, id), lifetime);
            match family {
                Some(family) => writer.raw(stun::FAMILY, &family.bytes()),
                None => writer,
            }
        }
        Ask::Permit { peers } => {
            let peers: Vec<SocketAddr> = peers.iter().map(|&index| peer(index)).collect();
            stun::create_permission(id, &peers)
        }
        Ask::Bind { number, peer: to } => {
            let mut writer = Writer::new(stun::CHANNEL_BIND, id);
            if let Some(number) = number {
                let [high, low] = NUMBERS[usize::from(*number)].to_be_bytes();
                writer = writer.raw(stun::CHANNEL_NUMBER, &[high, low, 0, 0]);
            }
            match to {
                Some(to) => writer.address(stun::PEER, peer(*to)),
                None => writer,
            }
        }
    }
}

fn encode_wish(id: stun::Id, wish: Wish) -> Writer {
    let udp = stun::allocate(id, &[]);
    let (v4, v6) = (Family::V4.bytes(), Family::V6.bytes());
    match wish {
        Wish::Plain => udp,
        Wish::Family(family) => udp.raw(stun::FAMILY, &family.bytes()),
        Wish::Dual => udp.raw(stun::ADDITIONAL_FAMILY, &v6),
        Wish::UnknownFamily => udp.raw(stun::FAMILY, &[9, 0, 0, 0]),
        Wish::TwoFamilyAttributes => udp.raw(stun::FAMILY, &v4).raw(stun::ADDITIONAL_FAMILY, &v6),
        Wish::AdditionalV4 => udp.raw(stun::ADDITIONAL_FAMILY, &v4),
        Wish::EvenPort(reserve) => udp.raw(stun::EVEN_PORT, &[if reserve { 0x80 } else { 0 }]),
        Wish::EvenPortAndDual => udp.raw(stun::EVEN_PORT, &[0x80]).raw(stun::ADDITIONAL_FAMILY, &v6),
        Wish::TokenAndEvenPort => udp.raw(stun::RESERVATION, &[1; 8]).raw(stun::EVEN_PORT, &[0]),
        Wish::UnknownToken => udp.raw(stun::RESERVATION, &[1; 8]),
        Wish::NoTransport => Writer::new(stun::ALLOCATE, id),
        Wish::Tcp => Writer::new(stun::ALLOCATE, id).raw(stun::TRANSPORT, &[6, 0, 0, 0]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_server_matches_the_reference(ops in prop::collection::vec(op(), 1..120)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op)?;
        }
    }
}

/// Applies the changes to the mirror and compares it with the table.
fn follow(mirror: &mut Mirror, rig: &mut Rig) {
    rig.changes.drain(..).for_each(|change| mirror.apply(change));
    mirror.compare(&rig.server, rig.now);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No matter when reporting starts, the changes alone reproduce the table at every step.
    #[test]
    fn a_mirror_matches_the_table(ops in prop::collection::vec(op(), 1..120), start in 0_usize..120) {
        let (mut run, mut mirror) = (Run::new(), None);
        for (n, op) in ops.iter().enumerate() {
            if n == start % ops.len() {
                prop_assert!(run.rig.changes.is_empty(), "reported before it was enabled");
                run.rig.server.handle_mirror(true);
                run.rig.draw();
                mirror = Some(Mirror::default());
            }
            run.step(op)?;
            if let Some(mirror) = &mut mirror {
                follow(mirror, &mut run.rig);
            }
        }
        run.rig.server.handle_mirror(false);
        run.rig.server.handle_shutdown(run.rig.now);
        run.rig.draw();
        prop_assert!(run.rig.changes.is_empty(), "reported after it was disabled");
    }
}

/// A reload that denies a peer also removes its permission from the mirror. One that allows it again changes nothing.
#[test]
fn a_mirror_follows_new_settings() {
    let (mut rig, mut mirror) = (Rig::new(stun::settings()), Mirror::default());
    rig.server.handle_mirror(true);
    let login = rig::login("ann");
    rig.allocate(client(0), &login, &[]);
    let (permit, bind) = (rig.id(), rig.id());
    assert_eq!(rig.ask(client(0), &login, stun::create_permission(permit, &[peer(0), peer(2)])), Some(0));
    assert_eq!(rig.ask(client(0), &login, stun::channel_bind(bind, 0x4000, peer(0))), Some(0));
    follow(&mut mirror, &mut rig);
    let lists = |rig: &Rig| {
        let sessions = sessions(&rig.server, rig.now);
        let relay = &sessions[0].relays[0];
        (relay.permissions.len(), relay.channels.len())
    };
    assert_eq!(lists(&rig), (2, 1));
    let mut denying = stun::settings();
    denying.peers.deny.push("9.9.0.1/32".parse().expect("literal"));
    for settings in [denying, stun::settings()] {
        rig.server.handle_settings(rig.now, settings.into());
        rig.draw();
        follow(&mut mirror, &mut rig);
        assert_eq!(lists(&rig), (1, 1), "the channel stays bound; without its permission it relays nothing");
    }
    rig.server.handle_shutdown(rig.now);
    rig.draw();
    follow(&mut mirror, &mut rig);
}

/// A snapshot lists each session's user, client, age, traffic in both directions, permissions and channels.
#[test]
fn a_snapshot_shows_sessions_and_traffic() {
    let mut rig = Rig::new(stun::settings());
    let names = ["ann", "bob", "eve"].map(rig::login);
    for (n, login) in (0_u8..).zip(&names) {
        let relayed = rig.allocate(client(n), login, &[]);
        rig.wait(Duration::from_secs(10));
        let (permit, bind) = (rig.id(), rig.id());
        assert_eq!(rig.ask(client(n), login, stun::create_permission(permit, &[peer(2)])), Some(0));
        assert_eq!(rig.ask(client(n), login, stun::channel_bind(bind, 0x4001, peer(0))), Some(0));
        let relay = sessions(&rig.server, rig.now).last().expect("a session").relays[0].relay;
        for _ in 0..=n {
            rig.feed(client(n), &stun::channel_data(0x4001, &[7; 100]));
            rig.server.handle_peer(rig.now, relay, OnWire(peer(2)), 30);
        }
        let all = sessions(&rig.server, rig.now);
        let session = all.last().expect("a session");
        assert_eq!((all.len(), session.client), (usize::from(n) + 1, client(n)));
        assert_eq!((&*session.user, session.age), (&*login.name, Duration::from_secs(10)));
        let sent = u64::from(n) + 1;
        assert_eq!((session.from_client.packets, session.from_client.bytes), (sent, 100 * sent));
        assert_eq!((session.from_peer.packets, session.from_peer.bytes), (sent, 30 * sent));
        let [relay] = &session.relays[..] else { panic!("one relay: {session:?}") };
        assert_eq!((relay.announced.0, relay.left), (relayed[0], Duration::from_secs(590)));
        assert_eq!((relay.permission_count, relay.channel_count), (2, 1));
        let permitted: Vec<_> = relay.permissions.iter().map(|permission| permission.ip).collect();
        assert_eq!(permitted, [peer(2).ip(), peer(0).ip()]);
        assert!(relay.permissions.iter().all(|permission| permission.left == Duration::from_secs(300)));
        let bound: Vec<_> = relay.channels.iter().map(|c| (c.number, c.peer, c.left.as_secs())).collect();
        assert_eq!(bound, [(0x4001, OnWire(peer(0)), 600)]);
    }
    // Pending and expired allocations are not listed.
    let id = rig.id();
    rig.ask(client(3), &names[0], stun::allocate(id, &[]));
    assert_eq!(sessions(&rig.server, rig.now).len(), 3);
    rig.wait(Duration::from_secs(400));
    let expired = sessions(&rig.server, rig.now);
    assert!(expired.iter().all(|session| session.relays[0].permissions.is_empty()), "{expired:?}");
    rig.wait(Duration::from_secs(600));
    rig.timeout();
    assert_eq!(sessions(&rig.server, rig.now), []);
}

/// A page examines at most the requested number of places and lists at most `ENTRIES_MAX` permissions of a relay.
#[test]
fn a_page_is_bounded() {
    let mut settings = stun::settings();
    settings.limits.allocations_per_user = 0;
    let (mut rig, login) = (Rig::new(settings), rig::login("ann"));
    for n in 0..100 {
        rig.allocate(client(n), &login, &[]);
    }
    for first in 0..10_u8 {
        let peers: Vec<SocketAddr> = (0..10).map(|n| ([9, 8, first, n], 1).into()).collect();
        let id = rig.id();
        assert_eq!(rig.ask(client(0), &login, stun::create_permission(id, &peers)), Some(0));
    }
    let page = rig.server.snapshot(rig.now, Cursor::default(), 7);
    assert_eq!(page.sessions.len(), 7);
    let relay = &page.sessions[0].relays[0];
    assert_eq!((relay.permission_count, relay.permissions.len()), (100, ENTRIES_MAX));
    // A session that ends between two pages leaves an empty place; no session is listed twice.
    rig.server.handle_client_gone(rig.now, &client(8), EndReason::Closed);
    rig.draw();
    let second = rig.server.snapshot(rig.now, page.next.expect("more"), 7);
    assert_eq!(second.sessions.len(), 6);
    assert!(second.sessions.iter().all(|session| !page.sessions.contains(session)));
    assert_eq!(sessions(&rig.server, rig.now).len(), 99);
}
