//! A server with clients that log in, allocate, permit, bind and send, with made-up and damaged bytes between,
//! under virtual time. After every operation it must agree with a [`Shadow`] that believes only what answers say.

mod ops;
mod shadow;
#[path = "../../tests/sim/stun.rs"]
mod stun;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use hallpass::base::time::{Instant, Now};
use hallpass::base::transport::Transport;
use hallpass::turn::action::{
    Action, DropReason, EndReason, FromClient, FromPeer, OpenError, PeerIcmp, RelayId,
};
use hallpass::turn::address::OnWire;
use hallpass::turn::counters::Counters;
use hallpass::turn::five_tuple::Client;
use hallpass::turn::identity::rest;
use hallpass::turn::settings::Settings;
use hallpass::turn::shared::Shared;

use ops::{Data, Op, Outcome};
use shadow::{Cause, Shadow};
use stun::{Login, Reader};

/// Maximum number of operations of one input; each costs microseconds.
const OPS_MAX: usize = 256;
/// The wall clock at the start.
const EPOCH: u64 = 1_700_000_000;
/// Seconds after which every reservation of EVEN-PORT has expired: 30, and one more.
const AFTER_RESERVATIONS: u64 = 31;
const LIFETIME_MAX: u64 = 3000;

/// A list of operations, drawn from the bytes.
pub fn server(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let mut run = Run::new();
    for _ in 0..OPS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(op) = Op::arbitrary(&mut source) else { break };
        run.step(&op);
        run.check();
    }
    run.end();
}

struct Run {
    server: hallpass::turn::server::Server,
    shared: Arc<Shared>,
    settings: Settings,
    now: Now,
    shadow: Shadow,
    clients: [Client; 4],
    /// Ann, Bob, and a client with Ann's name and a wrong password.
    logins: [Login; 3],
    /// The nonce that each client uses, and its last request.
    nonces: [Vec<u8>; 4],
    last: [Vec<u8>; 4],
    next_id: u64,
}

impl Run {
    fn new() -> Self {
        let mut settings = stun::settings();
        settings.limits.permissions_per_allocation = 4;
        settings.limits.channels_per_allocation = 3;
        settings.limits.allocations_per_user = 3;
        settings.limits.lifetime_max = Duration::from_secs(LIFETIME_MAX);
        settings.limits.unauthenticated_per_source = 20;
        let shared = Arc::new(Shared::new(&[7; 32]));
        let counters = Arc::new(Counters::default());
        let server = hallpass::turn::server::Server::new(
            Arc::new(settings.clone()),
            Arc::clone(&shared),
            counters,
            [9; 32],
        );
        let client =
            |transport, text: &str, link| stun::client(transport, text.parse().expect("an address"), link);
        let login = |user: &str, secret: &str| {
            let name = rest::username(EPOCH + (1 << 30), user);
            Login::new(&name, &rest::password(secret, &name), stun::REALM_NAME)
        };
        let mut run = Self {
            server,
            shared,
            settings,
            now: Now { instant: Instant::from_nanos(1_000_000_000), unix: EPOCH },
            shadow: Shadow::default(),
            clients: [
                client(Transport::Udp, "8.8.1.1:5000", 0),
                client(Transport::Udp, "8.8.1.1:5001", 0),
                client(Transport::Udp, "[2a00:8::1]:5000", 1),
                client(Transport::Tcp, "8.8.1.4:5000", 2),
            ],
            logins: [login("ann", stun::SECRET), login("bob", stun::SECRET), login("ann", "a guess")],
            nonces: Default::default(),
            last: Default::default(),
            next_id: 0,
        };
        (0..run.clients.len()).for_each(|client| run.new_nonce(client));
        run
    }

    fn secs(&self) -> u64 {
        self.now.instant.as_secs()
    }

    fn id(&mut self) -> stun::Id {
        self.next_id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        id
    }

    fn new_nonce(&mut self, client: usize) {
        let address = self.clients[client].five_tuple.client;
        let nonce = self.shared.nonces.make(self.now.instant, address, Default::default());
        self.nonces[client] = nonce.into_bytes();
    }

    fn step(&mut self, op: &Op) {
        let client = op.client() % self.clients.len();
        if let Some(user) = op.user() {
            let user = user % self.logins.len();
            let id = self.id();
            let peer = |index: u8| self.shadow.peer(index);
            let request =
                op.request(id, self.shadow.token, &peer).signed(&self.logins[user], &self.nonces[client]);
            self.last[client].clone_from(&request);
            let code = self.feed(client, &request).1;
            // A Binding request needs no login.
            let needs_login = request[..2] != stun::BINDING.to_be_bytes();
            let granted = code.is_some_and(|code| !matches!(code, 400 | 401 | 438));
            assert!(!(user == 2 && needs_login && granted), "{code:?} to a wrong password: {op:?}");
            return;
        }
        match op {
            Op::Again { .. } => {
                self.feed(client, &self.last[client].clone());
            }
            Op::Elsewhere { other, .. } => {
                let request = self.last[usize::from(*other) % self.clients.len()].clone();
                self.feed(client, &request);
            }
            Op::Damaged { at, with, .. } => {
                let mut request = self.last[client].clone();
                let Some(place) = usize::from(*at).checked_rem(request.len()) else { return };
                match with {
                    0 => request.truncate(place),
                    with => request[place] ^= with,
                }
                self.feed(client, &request);
            }
            Op::Raw { bytes, .. } => {
                self.feed(client, bytes);
            }
            Op::Data { data, len, .. } => self.data_from_client(client, data, usize::from(*len)),
            Op::FromPeer { relay, peer, len } => {
                let (relay, peer) = (self.shadow.relay(*relay), self.shadow.peer(*peer));
                self.data_from_peer(relay, shadow::local(peer), usize::from(*len));
            }
            Op::Icmp { relay, peer, kind, code, data } => {
                let (relay, peer) = (self.shadow.relay(*relay), shadow::local(self.shadow.peer(*peer)));
                if !self.shadow.can_receive(relay, peer) {
                    return;
                }
                let icmp = PeerIcmp { peer: OnWire(peer), kind: *kind, code: *code, data: *data };
                self.server.handle_peer_icmp(self.now, relay, icmp);
                self.draw(&Cause::Icmp(relay, peer));
            }
            Op::Socket { which, outcome } => self.open(usize::from(*which), *outcome),
            Op::Wait { secs } => {
                self.now.instant = self.now.instant + Duration::from_secs((*secs).into());
                self.now.unix += u64::from(*secs);
            }
            Op::Tick => self.tick(),
            Op::NewNonce { .. } => self.new_nonce(client),
            Op::Gone { .. } => {
                let gone = self.clients[client];
                self.server.handle_client_gone(self.now, &gone, EndReason::Closed);
                self.draw(&Cause::Gone(client));
                assert!(!self.server.has_allocation(&gone));
            }
            Op::Drain(draining) => self.server.handle_drain(*draining),
            Op::Reload { secret, strict } => {
                let secret = if *secret { "another" } else { stun::SECRET };
                self.settings.hosts[0].secrets = vec![secret.into()];
                self.settings.strict_channels = *strict;
                self.server.handle_settings(self.now, Arc::new(self.settings.clone()));
                self.draw(&Cause::Reload);
            }
            _ => unreachable!("a request is signed"),
        }
    }

    /// Passes one message of a client to the server. Returns the verdict, and the code of the answer if there is one.
    fn feed(&mut self, client: usize, bytes: &[u8]) -> (FromClient, Option<u16>) {
        let before = self.dropped();
        let verdict = self.server.handle_client(self.now, self.clients[client], bytes);
        let mut replies = self.draw(&Cause::Client(client, bytes));
        assert!(replies.len() <= 1, "one answer to one message");
        let reply = replies.pop();
        let (dropped, counted) = (matches!(verdict, FromClient::Dropped(_)), self.dropped() - before);
        // A request also triggers actions for what has expired. If it is dropped, the verdict is still Control.
        let expired = verdict == FromClient::Control && reply.is_none();
        assert!(counted == u64::from(dropped) || (expired && counted == 1), "{verdict:?}: {counted} drops");
        if dropped || matches!(verdict, FromClient::Relay { .. }) {
            assert!(reply.is_none(), "{verdict:?} and an answer");
        }
        let code = reply.map(|(to, message)| {
            assert_eq!(to, self.clients[client], "the answer goes to the client that asked");
            assert!(shadow::is_request(bytes), "an answer to something that is not a request");
            let answer = Reader::parse(&message).expect("a well-formed answer");
            assert_eq!(answer.id, bytes[8..20], "the transaction of the request");
            let protected = answer.get(0x0008).is_some() || answer.get(0x001c).is_some();
            let is_stream = to.five_tuple.transport.is_stream();
            assert!(protected || is_stream || message.len() <= 5 * bytes.len(), "amplification");
            let code = answer.code().expect("success or an error");
            if code == 0 {
                let now = self.secs();
                self.shadow.succeeded(now, client, &to, bytes, &answer);
            }
            code
        });
        if let FromClient::Relay { relay, peer: OnWire(peer), payload, .. } = &verdict {
            let payload = bytes.get(payload.clone()).expect("a part of the message");
            let now = self.secs();
            self.shadow.relayed(now, client, *relay, *peer, bytes, payload);
        }
        (verdict, code)
    }

    fn data_from_client(&mut self, client: usize, data: &Data, len: usize) {
        let payload = vec![0xab; len];
        let id = self.id();
        let (bytes, expected) = match data {
            Data::Send { peer } => {
                let peer = self.shadow.peer(*peer);
                (stun::send(id, peer, &payload), self.shadow.route_send(self.secs(), client, peer))
            }
            Data::Channel { number } => {
                let number = ops::number(*number);
                let expected = self.shadow.route_channel(self.secs(), client, number);
                (stun::channel_data(number, &payload), expected)
            }
        };
        let (verdict, code) = self.feed(client, &bytes);
        assert_eq!(code, None, "data is never answered");
        // Whether data to this machine is relayed also depends on which ports are taken.
        match (verdict, expected) {
            (FromClient::Relay { peer: OnWire(peer), .. }, Some(to)) => assert_eq!(peer, to),
            (FromClient::Dropped(_), Some(to)) => {
                assert!(shadow::is_own(to), "not relayed: {data:?} to {to}")
            }
            (FromClient::Dropped(_), None) => {}
            (verdict, expected) => panic!("{verdict:?}, expected {expected:?}"),
        }
    }

    fn data_from_peer(&mut self, relay: RelayId, peer: SocketAddr, len: usize) {
        if !self.shadow.can_receive(relay, peer) {
            return;
        }
        let before = self.dropped();
        let verdict = self.server.handle_peer(self.now, relay, OnWire(peer), len);
        assert!(self.server.poll_action().is_none(), "data is never answered");
        let dropped = u64::from(matches!(verdict, FromPeer::Dropped(_)));
        assert_eq!(self.dropped() - before, dropped);
        let expected = self.shadow.route_from_peer(self.secs(), relay, peer);
        match verdict {
            FromPeer::Relay { client, header } => {
                let (owner, channel) = expected.expect("without a permission");
                assert_eq!(client, self.clients[owner]);
                self.shadow.relayed_back(owner, peer, len, channel, header);
            }
            FromPeer::Dropped(_) => {
                assert!(expected.is_none() || shadow::is_own(peer), "not relayed: {expected:?}");
            }
        }
    }

    /// Reports the result of opening a socket, as the network side does.
    fn open(&mut self, which: usize, outcome: Outcome) {
        let Some(at) = which.checked_rem(self.shadow.opening.len()) else { return };
        let relay = self.shadow.opening.remove(at);
        let outcome = match outcome {
            Outcome::Open => Ok(()),
            Outcome::InUse => Err(OpenError::InUse),
            Outcome::Unavailable => Err(OpenError::Unavailable),
        };
        self.shadow.opened(relay, outcome.is_ok());
        let owner = self.shadow.owner(relay);
        self.server.handle_relay_opened(self.now, relay, outcome);
        let replies = self.draw(&Cause::Socket(relay));
        assert!(replies.len() <= 1);
        for (to, message) in replies {
            assert_eq!(to, self.clients[owner]);
            let answer = Reader::parse(&message).expect("a well-formed answer");
            let now = self.secs();
            match answer.code() {
                Some(0) => self.shadow.allocated(now, owner, &to, &answer),
                Some(508) => assert!(!self.shadow.has(owner), "refused, but the allocation exists"),
                other => panic!("{other:?} to an Allocate"),
            }
        }
    }

    fn tick(&mut self) {
        self.server.handle_timeout(self.now);
        self.draw(&Cause::Time);
        let now = self.secs();
        self.shadow.nothing_is_over(now);
        assert!(
            self.server.poll_timeout().is_none_or(|next| next > self.now.instant),
            "a deadline in the past"
        );
        assert_eq!(self.server.counters().channels.get() as usize, self.shadow.channels(now));
    }

    /// Handles every action; returns the answers.
    fn draw(&mut self, cause: &Cause<'_>) -> Vec<(Client, Vec<u8>)> {
        let mut replies = Vec::new();
        let now = self.secs();
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Reply { client, message, .. } => replies.push((client, message)),
                Action::OpenRelay { relay, address: OnWire(address) } => {
                    self.shadow.open(now, cause, relay, address)
                }
                Action::CloseRelay { relay } => self.shadow.closed(now, cause, relay),
                Action::Ended(session) => self.shadow.ended(&self.clients, &session),
                Action::Refused(_) | Action::Began(_) => {}
                Action::Reviewed(_) => panic!("nothing is denied or revoked here"),
                Action::Changed(change) => panic!("{change:?} without a request"),
            }
        }
        self.shadow.everything_is_reported();
        match cause {
            Cause::Icmp(relay, peer) => {
                assert!(replies.len() <= 1);
                if let Some((to, message)) = replies.first() {
                    let route = self.shadow.route_from_peer(now, *relay, *peer);
                    assert_eq!(route.map(|(owner, _)| self.clients[owner]), Some(*to), "to the wrong client");
                    let told = Reader::parse(message).expect("well-formed");
                    assert_eq!(
                        (told.kind, told.get(stun::ICMP).map(<[u8]>::len)),
                        (stun::DATA_INDICATION, Some(8))
                    );
                }
            }
            Cause::Client(..) | Cause::Socket(_) => {}
            _ => assert!(replies.is_empty(), "an answer without a request"),
        }
        replies
    }

    fn dropped(&self) -> u64 {
        DropReason::ALL.iter().map(|&reason| self.server.counters().dropped(reason).get()).sum()
    }

    /// Checks what must hold after every operation.
    fn check(&mut self) {
        assert!(self.server.poll_action().is_none(), "all actions are handled");
        assert_eq!(self.server.allocations(), self.shadow.allocations());
        let held = self.shadow.allocations() + self.shared.ports.reserved();
        // An allocation that will reserve a port has its place in the quota already.
        let places = self.shared.quota.total() as usize;
        assert!((held..=held + self.shadow.opening()).contains(&places), "{places} places, {held} held");
        for (number, client) in self.clients.iter().enumerate() {
            assert_eq!(self.server.has_allocation(client), self.shadow.has(number));
        }
        assert!(self.shared.ports.taken() >= self.shadow.addresses(), "every relay holds its port");
        assert!(self.shadow.all_taken(|address| self.shared.ports.is_taken(OnWire(address))));
    }

    /// Shuts the server down and checks that everything is released.
    fn end(&mut self) {
        self.server.handle_shutdown(self.now);
        self.draw(&Cause::Shutdown);
        self.check();
        assert_eq!((self.shadow.allocations(), self.shadow.opening.len()), (0, 0));
        self.now.instant = self.now.instant + Duration::from_secs(AFTER_RESERVATIONS);
        self.tick();
        assert_eq!(self.shared.ports.taken(), 0, "a port was not released");
    }
}
