use std::time::Duration;

use proptest::prelude::*;
use stun_types::message::LongTermKeyCredentials;

use super::allocation::PEERS_MAX;
use super::transaction::IN_FLIGHT_MAX;
use super::*;
use crate::wire::WireError;
use crate::wire::attribute::{Icmp, kind};
use crate::wire::frame::Frame;
use crate::wire::message::{IntegrityAlgorithm, IntegrityKey, Message, method};
use crate::wire::response::{Reason, Response};
use crate::wire::{indication, vectors};

const REALM: &str = "example.org";
const LIST: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
const SHA1: IntegrityAlgorithm = IntegrityAlgorithm::Sha1;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

fn server() -> SocketAddr {
    address("198.51.100.1:3478")
}

fn relayed() -> SocketAddr {
    address("198.51.100.1:50000")
}

fn mapped() -> SocketAddr {
    address("203.0.113.5:40000")
}

/// The peer whose XOR-PEER-ADDRESS is [`PEER`].
fn peer() -> SocketAddr {
    address("192.0.2.1:32853")
}

const PEER: [u8; 8] = [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];

fn key(password: &str, algorithm: IntegrityAlgorithm) -> IntegrityKey {
    LongTermKeyCredentials::new("user".into(), password.into(), REALM.into()).make_key(algorithm)
}

/// A client, and a server controlled by the test.
struct Rig {
    client: Client,
    now: Instant,
}

impl Rig {
    fn new(link: Link) -> Self {
        let credentials = Arc::new(Credentials::new("user", "pass").expect("short"));
        let config = Config::new(link).with_credentials(credentials);
        Self { client: Client::new(config, [1, 2]), now: Instant::from_nanos(5_000_000_000) }
    }

    fn over_udp() -> Self {
        Self::new(Link::Datagrams { server: server() })
    }

    /// Over UDP, with an allocation.
    fn allocated() -> Self {
        let mut rig = Self::over_udp();
        rig.log_in();
        let answer = rig.success(|response| response.xor_relayed_address(relayed()).lifetime(600));
        rig.hear(&answer);
        assert!(matches!(rig.only_event(), Event::Allocated { .. }));
        rig
    }

    fn log_in(&mut self) {
        self.client.allocate(self.now, Allocate::default()).expect("no allocation yet");
        let answer = self.error(401, |response| response.realm(REALM).nonce(b"nonce 1"));
        self.hear(&answer);
        assert!(matches!(self.only_event(), Event::Challenged { code: 401, .. }));
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        self.client.handle_timeout(self.now);
    }

    /// The only message in the send queue.
    fn sent(&mut self) -> Vec<u8> {
        let sent = self.client.poll_transmit().expect("a message").to_vec();
        assert!(self.client.poll_transmit().is_none());
        sent
    }

    fn hear(&mut self, bytes: &[u8]) {
        match self.client.config.link {
            Link::Stream => self.client.handle_bytes(self.now, bytes),
            Link::Datagrams { server } => self.client.handle_datagram(self.now, server, bytes),
        }
    }

    fn only_event(&mut self) -> Event {
        let event = self.client.poll_event().expect("an event");
        assert_eq!(self.client.poll_event(), None);
        event
    }

    /// Builds an answer to the only message in the send queue.
    fn respond(&mut self, response: impl Fn(u16, [u8; 12]) -> Response) -> Response {
        let request = self.sent();
        let request = Message::parse(&request).expect("well-formed");
        response(request.method(), request.transaction_id())
    }

    fn success(&mut self, with: impl Fn(Response) -> Response) -> Vec<u8> {
        self.respond(|method, id| with(Response::success(method, id)))
            .finish(Some((&key("pass", SHA1), SHA1)), false)
    }

    fn error(&mut self, code: u16, with: impl Fn(Response) -> Response) -> Vec<u8> {
        self.respond(|method, id| with(Response::error(method, id, code, Reason::Phrase))).finish(None, false)
    }

    fn refusal(&mut self, code: u16) -> Vec<u8> {
        self.respond(|method, id| Response::error(method, id, code, Reason::Phrase))
            .finish(Some((&key("pass", SHA1), SHA1)), false)
    }
}

#[test]
fn a_login_and_an_allocation() {
    let mut rig = Rig::over_udp();
    assert_eq!((rig.client.stage(), rig.client.poll_timeout()), (Stage::Silent, None));
    let parameters = Allocate { lifetime: Some(600), ..Allocate::default() };
    rig.client.allocate(rig.now, parameters).expect("no allocation yet");
    assert_eq!(rig.client.allocate(rig.now, parameters), Err(SendError::HasAllocation));
    rig.now = rig.now + Duration::from_millis(20);
    let challenge = rig.error(401, |response| response.realm(REALM).nonce(b"nonce 1").software("a server"));
    rig.hear(&challenge);
    let Event::Challenged { exchange, code: 401, challenge } = rig.only_event() else {
        panic!("{challenge:?}")
    };
    assert_eq!(exchange.round_trip(), Some(Duration::from_millis(20)));
    assert_eq!((&*challenge.realm, challenge.sha256, challenge.offers_algorithms), (REALM, false, false));
    let signed = rig.client.poll_transmit().expect("signed").to_vec();
    let request = Message::parse(&signed).expect("well-formed");
    assert!(request.verify(&key("pass", SHA1), SHA1));
    assert_eq!(request.attribute(kind::NONCE).map(|a| a.value), Some(&b"nonce 1"[..]));
    assert_eq!(request.attribute(kind::LIFETIME).map(|a| a.value), Some(&[0, 0, 2, 0x58][..]));
    rig.now = rig.now + Duration::from_millis(30);
    let answer = Response::success(request.method(), request.transaction_id())
        .xor_relayed_address(relayed())
        .xor_mapped_address(mapped())
        .lifetime(500);
    rig.hear(&answer.finish(Some((&key("pass", SHA1), SHA1)), true));
    let Event::Allocated { exchange, allocation } = rig.only_event() else { panic!("an allocation") };
    assert_eq!((exchange.request, exchange.tries), (Request::Allocate(parameters), 1));
    assert_eq!(exchange.duration, Duration::from_millis(30));
    assert_eq!((allocation.relayed, allocation.mapped), (relayed(), Some(mapped())));
    assert_eq!(rig.client.allocation(), Some(&*allocation));
    assert_eq!(rig.client.poll_timeout(), Some(rig.now + Duration::from_secs(500)));
    assert_eq!((rig.client.software(), rig.client.realm()), (Some("a server"), Some(REALM)));
    assert_eq!(rig.client.stage(), Stage::Allocated);
    // The client's own request, sent back to it, changes nothing.
    rig.hear(&signed);
    assert_eq!(rig.only_event(), Event::Discarded(Discard::Malformed(WireError::WrongKind)));
}

#[test]
fn sha256_where_it_is_offered() {
    let mut rig = Rig::over_udp();
    rig.client.allocate(rig.now, Allocate::default()).expect("no allocation yet");
    let challenge = rig
        .error(401, |response| response.realm(REALM).nonce(b"obMatJos2gAAAnonce").password_algorithms(&LIST));
    rig.hear(&challenge);
    let Event::Challenged { challenge, .. } = rig.only_event() else { panic!("a challenge") };
    assert_eq!((challenge.algorithm, challenge.sha256), (PasswordAlgorithm::Sha256, true));
    let key = key("pass", IntegrityAlgorithm::Sha256);
    let request = rig.sent();
    let request = Message::parse(&request).expect("well-formed");
    assert!(request.verify(&key, IntegrityAlgorithm::Sha256) && !request.has_sha1());
    let answer = || {
        let response = Response::success(request.method(), request.transaction_id());
        response.xor_relayed_address(relayed()).lifetime(600)
    };
    // After a request with SHA-256, MESSAGE-INTEGRITY is refused even under the right key.
    rig.hear(&answer().finish(Some((&key, SHA1)), false));
    assert_eq!(rig.only_event(), Event::Discarded(Discard::WrongIntegrity(0)));
    rig.hear(&answer().finish(Some((&key, IntegrityAlgorithm::Sha256)), false));
    assert!(matches!(rig.only_event(), Event::Allocated { .. }));
}

#[test]
fn a_stale_nonce_is_renewed_once() {
    let mut rig = Rig::allocated();
    rig.client.permit(rig.now, peer()).expect("allocated");
    let stale = rig.error(438, |response| response.realm(REALM).nonce(b"nonce 2"));
    rig.hear(&stale);
    assert!(matches!(rig.only_event(), Event::Challenged { code: 438, .. }));
    let again = rig.client.poll_transmit().expect("again").to_vec();
    let again = Message::parse(&again).expect("well-formed");
    assert_eq!(again.attribute(kind::NONCE).map(|a| a.value), Some(&b"nonce 2"[..]));
    let stale = Response::error(again.method(), again.transaction_id(), 438, Reason::Empty).nonce(b"nonce 3");
    rig.hear(&stale.finish(None, false));
    let Event::Refused { refusal, .. } = rig.only_event() else { panic!("refused") };
    assert_eq!((refusal.code, refusal.is_authentic), (438, false));
    // A 438 without REALM keeps the previous realm.
    rig.client.permit(rig.now, peer()).expect("allocated");
    let stale = rig.error(438, |response| response.nonce(b"nonce 4"));
    rig.hear(&stale);
    assert!(matches!(rig.only_event(), Event::Challenged { code: 438, .. }));
    rig.sent();
}

#[test]
fn wrong_credentials_are_not_tried_twice() {
    let mut rig = Rig::over_udp();
    rig.log_in();
    let refused = rig.error(401, |response| response.realm(REALM).nonce(b"nonce 2"));
    rig.hear(&refused);
    let Event::Refused { exchange, refusal } = rig.only_event() else { panic!("refused") };
    assert_eq!((exchange.request.name(), refusal.to_string().as_str()), ("Allocate", "401 Unauthorized"));
    assert!(rig.client.poll_transmit().is_none());
    // A server that names another realm each time is not followed for ever.
    let mut rig = Rig::over_udp();
    rig.log_in();
    let other = rig.error(401, |response| response.realm("other.example").nonce(b"nonce 3"));
    rig.hear(&other);
    assert!(matches!(rig.only_event(), Event::Challenged { .. }));
    let third = rig.error(401, |response| response.realm("third.example").nonce(b"nonce 4"));
    rig.hear(&third);
    assert!(matches!(rig.only_event(), Event::Refused { .. }));
}

#[test]
fn without_credentials_a_challenge_is_a_refusal() {
    let mut rig = Rig::over_udp();
    rig.client.config.credentials = None;
    rig.client.allocate(rig.now, Allocate::default()).expect("no allocation yet");
    let refused = rig.error(401, |response| response.realm(REALM).nonce(b"nonce 1"));
    rig.hear(&refused);
    let Event::Refused { refusal, .. } = rig.only_event() else { panic!("refused") };
    assert_eq!((refusal.code, refusal.realm.as_deref()), (401, Some(REALM)));
    rig.client.config.credentials = Some(Arc::new(Credentials::new("user", "pass").expect("short")));
    rig.client.allocate(rig.now, Allocate::default()).expect("again");
    let refused = rig.error(401, |response| response.realm(REALM));
    rig.hear(&refused);
    let failed = rig.only_event();
    assert!(matches!(failed, Event::Failed { failure: Failure::BadChallenge(BadChallenge::NoNonce), .. }));
}

#[test]
fn refusals_report_the_attributes_of_the_response() {
    let mut rig = Rig::over_udp();
    rig.client.allocate(rig.now, Allocate::default()).expect("no allocation yet");
    let elsewhere = rig.error(300, |response| response.alternate_server(address("198.51.100.2:3478")));
    rig.hear(&elsewhere);
    let Event::Refused { refusal, .. } = rig.only_event() else { panic!("refused") };
    assert_eq!(refusal.alternate_server, Some(address("198.51.100.2:3478")));
    assert_eq!((refusal.code, &*refusal.reason), (300, "Try Alternate"));

    rig.client.allocate(rig.now, Allocate { dont_fragment: true, ..Allocate::default() }).expect("again");
    let unknown = rig.error(420, |response| response.unknown_attributes(&[kind::DONT_FRAGMENT]));
    rig.hear(&unknown);
    let Event::Refused { refusal, .. } = rig.only_event() else { panic!("refused") };
    assert_eq!(refusal.unknown_attributes, [kind::DONT_FRAGMENT]);

    let mut rig = Rig::allocated();
    rig.client.permit(rig.now, peer()).expect("allocated");
    let forbidden = rig.refusal(403);
    rig.hear(&forbidden);
    let Event::Refused { exchange, refusal } = rig.only_event() else { panic!("refused") };
    assert_eq!(exchange.request, Request::Permit { peer: peer() });
    assert!(refusal.is_authentic && refusal.code == 403);
}

#[test]
fn unauthenticated_responses_are_discarded() {
    let mut rig = Rig::allocated();
    rig.client.permit(rig.now, peer()).expect("allocated");
    let request = rig.sent();
    let request = Message::parse(&request).expect("well-formed");
    let answer = || Response::success(request.method(), request.transaction_id());
    rig.hear(&answer().finish(None, false));
    assert_eq!(rig.only_event(), Event::Discarded(Discard::Unprotected(0)));
    rig.hear(&answer().finish(Some((&key("guess", SHA1), SHA1)), false));
    assert_eq!(rig.only_event(), Event::Discarded(Discard::WrongIntegrity(0)));
    let error = Response::error(request.method(), request.transaction_id(), 400, Reason::Empty);
    rig.hear(&error.finish(None, false));
    assert_eq!(rig.only_event(), Event::Discarded(Discard::Unprotected(400)));
    let success = answer().finish(Some((&key("pass", SHA1), SHA1)), false);
    rig.client.handle_datagram(rig.now, address("198.51.100.2:3478"), &success);
    assert_eq!(rig.only_event(), Event::Discarded(Discard::Elsewhere(address("198.51.100.2:3478"))));
    assert!(!rig.client.peers.is_permitted(rig.now, peer()));
    // The request is repeated, and its failure reports why the last answer was discarded.
    for _ in 0..6 {
        rig.wait(Duration::from_secs(32));
        rig.sent();
    }
    rig.wait(Duration::from_secs(8));
    let Event::Failed { exchange, failure } = rig.only_event() else { panic!("failed") };
    assert_eq!((exchange.tries, failure), (7, Failure::Untrusted(Discard::Unprotected(400))));
}

#[test]
fn on_a_stream_a_wrong_answer_ends_the_request() {
    let mut rig = Rig::new(Link::Stream);
    rig.log_in();
    let forged = rig.respond(Response::success).finish(None, false);
    rig.hear(&forged);
    let discard = Discard::Unprotected(0);
    assert_eq!(rig.client.poll_event(), Some(Event::Discarded(discard)));
    assert!(matches!(rig.only_event(), Event::Failed { failure: Failure::Untrusted(d), .. } if d == discard));
}

#[test]
fn malformed_answers_are_not_accepted() {
    let mut rig = Rig::over_udp();
    rig.log_in();
    let answer = rig.success(|response| response.lifetime(600));
    rig.hear(&answer);
    let missing = Failure::BadAnswer(WireError::BadAttribute(kind::XOR_RELAYED_ADDRESS));
    assert!(matches!(rig.only_event(), Event::Failed { failure, .. } if failure == missing));
    rig.client.binding(rig.now).expect("idle");
    let wrong_method = rig.respond(|_, id| Response::success(method::REFRESH, id)).finish(None, false);
    rig.hear(&wrong_method);
    assert_eq!(rig.only_event(), Event::Discarded(Discard::Malformed(WireError::WrongKind)));
}

#[test]
fn requests_are_repeated_unchanged() {
    let mut rig = Rig::over_udp();
    rig.client.binding(rig.now).expect("idle");
    let first = rig.sent();
    assert_eq!(first.len(), 20);
    for (wait, tries) in [(500, 2), (1000, 3), (2000, 4), (4000, 5), (8000, 6), (16_000, 7)] {
        assert_eq!(rig.client.poll_timeout(), Some(rig.now + Duration::from_millis(wait)));
        rig.wait(Duration::from_millis(wait));
        // A second call at the same time does not queue the request again.
        rig.wait(Duration::ZERO);
        assert_eq!(rig.sent(), first, "{tries}");
    }
    rig.wait(Duration::from_secs(8));
    let Event::Failed { exchange, failure: Failure::TimedOut } = rig.only_event() else { panic!("silence") };
    assert_eq!((exchange.tries, exchange.duration), (7, Duration::from_millis(39_500)));
    assert_eq!(rig.client.poll_timeout(), None);

    rig.client.binding(rig.now).expect("idle");
    let answer =
        rig.respond(|m, id| Response::success(m, id).xor_mapped_address(mapped())).finish(None, false);
    rig.hear(&answer);
    assert!(matches!(rig.only_event(), Event::Mapped { address, .. } if address == mapped()));
    assert_eq!(rig.client.stage(), Stage::Heard);
}

#[test]
fn data_by_indications_and_on_a_channel() {
    let mut rig = Rig::allocated();
    assert_eq!(rig.client.send(rig.now, peer(), b"hello"), Err(SendError::NotPermitted));
    rig.client.permit(rig.now, peer()).expect("allocated");
    let answer = rig.success(|response| response);
    rig.hear(&answer);
    assert!(matches!(rig.only_event(), Event::Permitted { peer: permitted, .. } if permitted == peer()));
    rig.client.send(rig.now, peer(), b"hello").expect("permitted");
    let mut sent = rig.sent();
    let literal = vectors::message(0x0016, &[(kind::XOR_PEER_ADDRESS, &PEER), (kind::DATA, b"hello")]);
    sent[8..20].copy_from_slice(&vectors::ID);
    assert_eq!(sent, literal);

    let channel = rig.client.bind(rig.now, peer()).expect("allocated");
    assert_eq!(channel, 0x4000);
    let answer = rig.success(|response| response);
    rig.hear(&answer);
    assert!(matches!(rig.only_event(), Event::Bound { channel: 0x4000, .. }));
    rig.client.send(rig.now, peer(), b"hello").expect("bound");
    assert_eq!(rig.sent(), b"\x40\x00\x00\x05hello");

    rig.hear(b"\x40\x00\x00\x05hello");
    let data = |channel| Event::Data { peer: peer(), channel, payload: b"hello".to_vec() };
    assert_eq!(rig.only_event(), data(Some(0x4000)));
    let mut frame = Frame::new();
    frame.fill(b"hello");
    indication::prepend_data(&mut frame, peer(), vectors::ID).expect("room");
    rig.hear(frame.bytes());
    assert_eq!(rig.only_event(), data(None));
    rig.hear(b"\x40\x01\x00\x00");
    assert_eq!(rig.only_event(), Event::Discarded(Discard::UnknownChannel(0x4001)));
    let icmp = Icmp { icmp_type: 3, code: 1, data: [0; 4] };
    rig.hear(&indication::write_icmp(peer(), icmp, vectors::ID));
    assert_eq!(rig.only_event(), Event::Unreachable { peer: peer(), icmp });
    assert_eq!(rig.client.stage(), Stage::Received);
    // Permission and channel have expired: the server would silently drop the data.
    assert_eq!(rig.client.channel_to(rig.now + CHANNEL_LIFETIME, peer()), None);
    let late = rig.now + CHANNEL_LIFETIME;
    assert_eq!(rig.client.send(late, peer(), b"x"), Err(SendError::NotPermitted));
}

#[test]
fn a_stream_is_padded_and_cut_anywhere() {
    let mut rig = Rig::new(Link::Stream);
    rig.log_in();
    let answer = rig.success(|response| response.xor_relayed_address(relayed()).lifetime(600));
    for byte in &answer {
        rig.hear(&[*byte]);
    }
    assert!(matches!(rig.only_event(), Event::Allocated { .. }));
    rig.client.bind_as(rig.now, 0x5000, peer()).expect("allocated");
    let answer = rig.success(|response| response);
    rig.hear(&[&answer[..], b"\x50\x00\x00\x01a\0\0\0\x50\x00\x00\x01"].concat());
    assert!(matches!(rig.client.poll_event(), Some(Event::Bound { channel: 0x5000, .. })));
    assert!(matches!(rig.only_event(), Event::Data { payload, .. } if payload == b"a"));
    rig.hear(b"b\0\0\0");
    assert!(matches!(rig.only_event(), Event::Data { payload, .. } if payload == b"b"));
    rig.client.send(rig.now, peer(), b"hello").expect("bound");
    assert_eq!(rig.sent(), b"\x50\x00\x00\x05hello\0\0\0");

    rig.client.refresh(rig.now, 600).expect("allocated");
    rig.hear(b"HTTP");
    assert!(rig.client.poll_event().is_none(), "a channel could have this number");
    rig.hear(&[vec![0; 0x5450 + 4], vec![0xff]].concat());
    assert_eq!(rig.client.poll_event(), Some(Event::Discarded(Discard::UnknownChannel(0x4854))));
    assert!(matches!(rig.client.poll_event(), Some(Event::Failed { failure: Failure::Broken, .. })));
    assert_eq!(rig.only_event(), Event::Broken);
    assert!(rig.client.poll_transmit().is_none() && rig.client.incoming.is_empty());
    assert_eq!(rig.client.binding(rig.now), Err(SendError::Broken));
    assert_eq!(rig.client.send(rig.now, peer(), b""), Err(SendError::Broken));
    rig.hear(b"anything");
    assert_eq!(rig.client.poll_event(), None);
}

#[test]
fn an_allocation_ends_in_three_ways() {
    let mut rig = Rig::allocated();
    rig.client.refresh(rig.now, 700).expect("allocated");
    let answer = rig.success(|response| response.lifetime(700));
    rig.hear(&answer);
    let lifetime = Duration::from_secs(700);
    assert!(matches!(rig.only_event(), Event::Refreshed { lifetime: granted, .. } if granted == lifetime));
    assert_eq!(rig.client.poll_timeout(), Some(rig.now + lifetime));
    rig.wait(lifetime);
    assert_eq!(rig.only_event(), Event::Expired);
    assert_eq!(rig.client.refresh(rig.now, 0), Err(SendError::NoAllocation));

    let mut rig = Rig::allocated();
    rig.client.refresh(rig.now, 0).expect("allocated");
    let answer = rig.success(|response| response.lifetime(0));
    rig.hear(&answer);
    assert!(matches!(rig.only_event(), Event::Refreshed { lifetime: Duration::ZERO, .. }));
    assert!(rig.client.allocation().is_none());

    let mut rig = Rig::allocated();
    rig.client.permit(rig.now, peer()).expect("allocated");
    let gone = rig.refusal(437);
    rig.hear(&gone);
    assert!(matches!(rig.only_event(), Event::Refused { .. }));
    assert_eq!(rig.client.permit(rig.now, peer()), Err(SendError::NoAllocation));
}

#[test]
fn everything_has_a_limit() {
    let mut rig = Rig::allocated();
    for _ in 0..IN_FLIGHT_MAX {
        rig.client.permit(rig.now, peer()).expect("below the limit");
    }
    assert_eq!(rig.client.permit(rig.now, peer()), Err(SendError::Busy));
    rig.wait(Duration::from_secs(1));
    assert_eq!(std::iter::from_fn(|| rig.client.poll_transmit().map(<[u8]>::len)).count(), IN_FLIGHT_MAX);

    let mut rig = Rig::allocated();
    for n in 0..PEERS_MAX as u8 {
        let peer = SocketAddr::from(([192, 0, 2, n], 7));
        rig.client.bind(rig.now, peer).expect("room");
        let answer = rig.success(|response| response);
        rig.hear(&answer);
        assert!(matches!(rig.only_event(), Event::Bound { .. }));
    }
    assert_eq!(rig.client.bind(rig.now, peer()), Err(SendError::Full));
    let bound = address("192.0.2.7:7");
    let (short, long) = ([0; 1000], vec![0; 1 << 16]);
    while rig.client.send(rig.now, bound, &short).is_ok() {}
    assert_eq!(rig.client.send(rig.now, bound, &short), Err(SendError::Waiting));
    assert_eq!(rig.client.send(rig.now, bound, &long), Err(SendError::TooLong));
    assert_eq!(std::iter::from_fn(|| rig.client.poll_transmit().map(<[u8]>::len)).count(), 64);

    let packet = [&[0x40, 7, 0xea, 0x60][..], &vec![0; 60_000]].concat();
    (0..1000).for_each(|_| rig.hear(&packet));
    (0..1000).for_each(|_| rig.hear(b"\xff"));
    assert_eq!(rig.client.dropped(), 996, "only four datagrams of 60,000 bytes fit");
    assert_eq!(rig.client.binding(rig.now), Err(SendError::Busy), "the event queue is full");
    assert_eq!(std::iter::from_fn(|| rig.client.poll_event()).count(), EVENTS_MAX);
    rig.hear(&packet);
    assert!(matches!(rig.only_event(), Event::Data { .. }));
}

/// What a hostile server can put into one message.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (
        prop_oneof![
            Just(kind::ERROR_CODE),
            Just(kind::REALM),
            Just(kind::NONCE),
            Just(kind::PASSWORD_ALGORITHMS),
            Just(kind::XOR_RELAYED_ADDRESS),
            Just(kind::XOR_PEER_ADDRESS),
            Just(kind::LIFETIME),
            Just(kind::DATA),
            any::<u16>(),
        ],
        prop_oneof![
            Just(vec![0, 0, 4, 1]),
            Just(vec![0, 0, 4, 38]),
            Just(PEER.to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ],
    );
    let kind = prop_oneof![
        Just(0x0103_u16),
        Just(0x0113),
        Just(0x0101),
        Just(0x0108),
        Just(0x0109),
        Just(0x0104),
        Just(0x0017),
        any::<u16>()
    ];
    prop_oneof![
        3 => (kind, prop::collection::vec(attribute, 0..5)).prop_map(|(kind, attributes)| {
            let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
            vectors::message(kind, &attributes)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..80),
        1 => (0x4000_u16..0x4003, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(number, payload)| {
            [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), &payload].concat()
        }),
    ]
}

proptest! {
    /// No input panics the client or makes it grow beyond its limits, and every request ends.
    #[test]
    fn a_hostile_server(
        stream in any::<bool>(),
        with_allocation in any::<bool>(),
        messages in prop::collection::vec((0_u8..8, any::<bool>(), hostile(), 0_u64..50_000), 0..40),
    ) {
        let link = if stream { Link::Stream } else { Link::Datagrams { server: server() } };
        let mut rig = Rig::new(link);
        if with_allocation {
            rig.log_in();
            let answer = rig.success(|response| response.xor_relayed_address(relayed()).lifetime(600));
            rig.hear(&answer);
        }
        let mut last = vectors::ID;
        let (mut begun, mut ended) = (usize::from(with_allocation), 0);
        for (action, answers, mut message, millis) in messages {
            begun += usize::from(match action {
                0 => rig.client.allocate(rig.now, Allocate::default()).is_ok(),
                1 => rig.client.permit(rig.now, peer()).is_ok(),
                2 => rig.client.bind(rig.now, peer()).is_ok(),
                3 => rig.client.refresh(rig.now, 600).is_ok(),
                4 => rig.client.binding(rig.now).is_ok(),
                5 => {
                    let _ = rig.client.send(rig.now, peer(), b"data");
                    false
                }
                _ => false,
            });
            while let Some(bytes) = rig.client.poll_transmit() {
                if let Ok(sent) = Message::parse(bytes) {
                    last = sent.transaction_id();
                }
            }
            if answers && message.len() >= 20 {
                message[8..20].copy_from_slice(&last);
            }
            rig.hear(&message);
            rig.wait(Duration::from_millis(millis));
            prop_assert!(rig.client.transactions.iter().count() <= IN_FLIGHT_MAX);
            prop_assert!(rig.client.events.len() <= EVENTS_MAX + 3 * IN_FLIGHT_MAX);
            prop_assert!(rig.client.incoming.len() <= 65_540);
            if action == 7 {
                ended += std::iter::from_fn(|| rig.client.poll_event()).filter(Event::ends_a_request).count();
            }
        }
        rig.wait(Duration::from_secs(3600));
        for _ in 0..7 {
            rig.wait(Duration::from_secs(3600));
        }
        ended += std::iter::from_fn(|| rig.client.poll_event()).filter(Event::ends_a_request).count();
        prop_assert_eq!(begun, ended);
    }
}
