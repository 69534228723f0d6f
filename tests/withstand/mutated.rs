//! Hundreds of thousands of mutated messages during a call.

use crate::call::Call;
use crate::machine::{in_own_network, memory};
use crate::mutation::{Mutation, Random};
use crate::support::alone;
use crate::support::client::{Client, Link, channel_data, framed};
use crate::support::codec::hmac_sha1;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::{
    BINDING_SUCCESS, FINGERPRINT, MAGIC, MESSAGE_INTEGRITY, Session, binding_request,
};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

const MESSAGES: u32 = 200_000;
/// Messages sent before waiting for the last answer, so that no socket buffer overflows.
const BATCH: u32 = 32;
const SEED: u64 = 0x48_41_4C_4C;
/// The transaction number of the request after the first batch; each one after another batch is one less. No other message
/// uses these.
const FENCE: u64 = u64::MAX;
/// How long to wait for its answer over UDP before it is sent again: during a flood, requests may be dropped.
const REPEAT: Duration = Duration::from_millis(200);
const REPEATS: u32 = 50;

/// Messages in flight, by transaction.
type Asked = HashMap<[u8; 12], Vec<Vec<u8>>>;

/// A client that sends mutated messages, and reconnects whenever the server closes its connection.
struct Attacker<'a> {
    server: &'a Server,
    session: &'a Session,
    transport: Transport,
    /// Whether it has an allocation and signs messages.
    authenticated: bool,
    client: Client,
    /// The last batch, over UDP: answers within and without an allocation may overtake each other.
    before: Asked,
    fence: u64,
    reconnects: u32,
    answers: u32,
    successes: u32,
}

impl<'a> Attacker<'a> {
    fn new(server: &'a Server, session: &'a Session, transport: Transport, authenticated: bool) -> Self {
        let client = enter(server, session, transport, authenticated);
        Attacker {
            server,
            session,
            transport,
            authenticated,
            client,
            before: Asked::new(),
            fence: FENCE,
            reconnects: 0,
            answers: 0,
            successes: 0,
        }
    }

    fn reconnect(&mut self) {
        self.client = enter(self.server, self.session, self.transport, self.authenticated);
        self.reconnects += 1;
    }

    /// Sends a batch and checks all answers up to the one to the request after it.
    fn batch(&mut self, messages: &[Mutation]) {
        let mut asked = Asked::new();
        let mut note = |bytes: &[u8]| {
            if bytes.len() >= 20 {
                asked.entry(bytes[8..20].try_into().unwrap()).or_default().push(bytes.to_vec());
            }
        };
        let end = if self.transport == Transport::Udp {
            messages.iter().for_each(|message| note(&message.bytes));
            let sent = messages.iter().try_for_each(|message| self.client.link.send(&message.bytes));
            self.client.link.wait_at_most(REPEAT);
            sent.and_then(|()| self.client.link.send(&binding_request(self.fence)))
        } else {
            let mut all: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
            all.extend(binding_request(self.fence));
            // Excess bytes of one message are the start of the next.
            let (whole, more) = frames(&all);
            whole.into_iter().for_each(note);
            let sent = self.client.link.send(&all);
            if more {
                // The rest of that message never comes. Half-close the stream, or the server would wait for it.
                self.client.link.end_sending();
            }
            sent
        };
        if self.transport == Transport::Udp {
            for (id, messages) in std::mem::replace(&mut self.before, asked.clone()) {
                asked.entry(id).or_default().extend(messages);
            }
        }
        let mut end = end.and_then(|()| self.answers(&asked));
        if self.transport == Transport::Udp {
            for _ in 0..REPEATS {
                let Err(error) = &end else { break };
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "on UDP: {error}"
                );
                let sent = self.client.link.send(&binding_request(self.fence));
                end = sent.and_then(|()| self.answers(&asked));
            }
        }
        self.fence -= 1;
        match end {
            Ok(()) => {}
            Err(error) if self.transport == Transport::Udp => panic!("no answer on UDP: {error}"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("{:?}: the server neither answers nor closes: {error}", self.transport)
            }
            // Closed, as required for garbage; everything before it was answered.
            Err(_) => self.reconnect(),
        }
    }

    fn answers(&mut self, asked: &Asked) -> io::Result<()> {
        loop {
            let bytes = self.client.receive()?;
            if (0x40..0x80).contains(&bytes[0]) {
                continue;
            }
            assert!(bytes.len() >= 20 && bytes[4..8] == MAGIC, "not a STUN message: {bytes:02x?}");
            let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
            let number = u64::from_be_bytes(bytes[12..20].try_into().unwrap());
            if number >= self.fence {
                assert_eq!(kind, BINDING_SUCCESS, "{bytes:02x?}");
                // A larger one answers a repetition from an earlier batch.
                if number == self.fence {
                    return Ok(());
                }
                continue;
            }
            if kind & 0x0110 == 0x0010 {
                // Data of a peer, or an ICMP error.
                continue;
            }
            self.answers += 1;
            self.judge(kind, &bytes, asked);
        }
    }

    /// Checks that an answer belongs to a request that was sent, and that success was justified.
    fn judge(&mut self, kind: u16, answer: &[u8], asked: &Asked) {
        assert!(kind & 0x0100 != 0, "a request or an indication from the server: {answer:02x?}");
        let id: [u8; 12] = answer[8..20].try_into().unwrap();
        let requests = asked.get(&id).unwrap_or_else(|| panic!("no request for {answer:02x?}"));
        let method = kind & !0x0110;
        let of_method = |request: &&Vec<u8>| u16::from_be_bytes([request[0], request[1]]) == method;
        let sound: Vec<&Vec<u8>> =
            requests.iter().filter(of_method).filter(|bytes| well_formed(bytes)).collect();
        assert!(!sound.is_empty(), "{answer:02x?} answers an invalid request: {requests:02x?}");
        if kind & 0x0010 == 0 && method != 0x0001 {
            self.successes += 1;
            let signed = sound.iter().any(|request| is_signed(request, self.session.key().1));
            assert!(signed && self.authenticated, "{answer:02x?} grants an unsigned request: {sound:02x?}");
        }
    }
}

fn enter(server: &Server, session: &Session, transport: Transport, authenticated: bool) -> Client {
    let mut client = Client::join(Link::open(transport, server.v4(transport)), session);
    if authenticated {
        client.allocate().expect("an allocation");
        assert_eq!(client.bind(0x4000, "127.0.0.1:9".parse().unwrap()), 0);
    }
    client
}

/// Splits a stream into messages; returns whether the last one is incomplete.
fn frames(mut bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match bytes[0] {
            0..=3 | 0x40..=0x7F => match framed(bytes) {
                Some(len) if len <= bytes.len() => {
                    all.push(&bytes[..len]);
                    bytes = &bytes[len..];
                }
                _ => return (all, true),
            },
            _ => break,
        }
    }
    (all, false)
}

/// RFC 8489 sections 5 and 14: header, length, and attributes that fill it.
fn well_formed(bytes: &[u8]) -> bool {
    let field = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if bytes.len() < 20 || bytes[0] > 3 || bytes[4..8] != MAGIC || field(2) + 20 != bytes.len() {
        return false;
    }
    let mut at = 20;
    while at + 4 <= bytes.len() {
        at += 4 + field(at + 2).next_multiple_of(4);
    }
    at == bytes.len()
}

/// Returns the position of the first attribute of this kind.
fn position(bytes: &[u8], kind: u16) -> Option<usize> {
    let field = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut at = 20;
    while at + 4 <= bytes.len() {
        if field(at) == kind {
            return Some(at);
        }
        at += 4 + usize::from(field(at + 2)).next_multiple_of(4);
    }
    None
}

/// Returns whether the first MESSAGE-INTEGRITY is valid under `key` (RFC 8489 section 14.5).
fn is_signed(bytes: &[u8], key: &[u8]) -> bool {
    let Some(at) = position(bytes, MESSAGE_INTEGRITY) else { return false };
    let mut covered = bytes[..at].to_vec();
    covered[2..4].copy_from_slice(&((at + 4) as u16).to_be_bytes());
    bytes[at + 2..at + 4] == [0, 20] && hmac_sha1(key, &covered) == bytes[at + 4..at + 24]
}

/// Generates a batch. On a stream, broken framing ends the connection, so it comes last, and not in every batch, because
/// a new handshake costs more than everything else.
fn batch(random: &mut Random, session: Option<&Session>, transport: Transport) -> Vec<Mutation> {
    let breaks = match transport {
        Transport::Udp => BATCH,
        Transport::Tcp => u32::from(random.below(4) == 0),
        Transport::Tls => u32::from(random.below(20) == 0),
    };
    let mut messages = Vec::new();
    while messages.len() < BATCH as usize {
        let mut mutation = Mutation::new(random, session);
        let keeps_framing = if well_formed(&mutation.bytes) {
            // A wrong FINGERPRINT means another protocol and closes the stream, and a mutated one is hardly ever right.
            position(&mutation.bytes, FINGERPRINT).is_none()
        } else {
            is_channel_data(&mutation.bytes)
        };
        let last = messages.len() + 1 == BATCH as usize;
        if transport != Transport::Udp && is_channel_data(&mutation.bytes) {
            let padded = mutation.bytes.len().next_multiple_of(4);
            mutation.bytes.resize(padded, 0);
        }
        if keeps_framing || transport == Transport::Udp || (last && breaks > 0) {
            messages.push(mutation);
        }
    }
    messages
}

fn is_channel_data(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && (0x40..0x80).contains(&bytes[0])
        && framed(bytes) == Some(bytes.len().next_multiple_of(4))
        && channel_data(0x4000, &bytes[4..]).len() <= 1500
}

/// Row 25, one transport: half of the messages without credentials, half within an allocation.
fn storm(server: &Server, session: &Session, transport: Transport, call: &Call) {
    let (start, mut random) = (Instant::now(), Random::new(SEED + transport as u64));
    let mut attackers = [false, true].map(|signs| Attacker::new(server, session, transport, signs));
    let mut sent = 0;
    while sent < MESSAGES {
        for attacker in &mut attackers {
            let signs = attacker.authenticated.then_some(&attacker.client.session);
            let messages = batch(&mut random, signs, transport);
            attacker.batch(&messages);
            sent += messages.len() as u32;
            // Replace an allocation that a mutated Refresh ended.
            if attacker.authenticated && (sent / BATCH) % 64 < 2 && transport == Transport::Udp {
                let _ = attacker.client.refresh(0);
                attacker.reconnect();
            }
        }
    }
    call.goes_on();
    let sum = |count: fn(&Attacker<'_>) -> u32| attackers.iter().map(count).sum::<u32>();
    println!(
        "row 25: {transport:?}: {sent} messages in {:.1} s, {} answers, {} granted, {} new connections",
        start.elapsed().as_secs_f64(),
        sum(|attacker| attacker.answers),
        sum(|attacker| attacker.successes),
        sum(|attacker| attacker.reconnects),
    );
    let [_, signing] = &attackers;
    assert!(signing.successes > 1000, "{} granted: the mutations are rejected too early", signing.successes);
}

/// Row 25. In its own network namespace, because a mutated peer may be any address.
#[test]
fn six_hundred_thousand_mutated_messages_change_nothing() {
    let _turn = alone();
    in_own_network(|| {
        let plan = Plan {
            limits: "unauthenticated_per_source = 0\nrequests_per_user = 0\nconnections_total = 20000"
                .to_owned(),
            ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
        };
        let mut server = Server::start(&plan);
        println!("row 25: seed {SEED:#x}");
        let call = Call::start(&server, 100);
        let session = Session::new(server.credentials("mutant"), b"");
        let before = memory(server.pid());
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            storm(&server, &session, transport, &call);
        }
        let grown = memory(server.pid()).saturating_sub(before);
        let report = call.end();
        println!("row 25: +{grown} KiB; the call: {report}");
        assert!(server.is_running(), "{}", server.log());
        assert!(grown <= 24 * 1024, "{grown} KiB");
        assert!(report.loss() <= 0.01, "{report}");
        let mut last = Client::join(Link::open(Transport::Udp, server.v4(Transport::Udp)), &session);
        last.link.wait_at_most(Duration::from_secs(2));
        assert!(last.allocate().is_ok());
    });
}
