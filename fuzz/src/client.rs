//! The client against a server that knows the password and answers as the input directs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hallpass::base::time::Instant;
use hallpass::client::{Allocate, Client, Config, Credentials, Link};
use hallpass::wire::channel_data::padded_len;
use hallpass::wire::message::{IntegrityAlgorithm, IntegrityKey, Message, MessageClass};
use hallpass::wire::response::{Reason, Response};
use hallpass::wire::{channel_data, demux};
use stun_types::message::LongTermKeyCredentials;

use super::bytes::{address, take};

/// Maximum number of steps of one input.
const STEPS_MAX: usize = 256;
/// Maximum number of queued events: up to 64 with data and discards, and the ends of requests.
const EVENTS_MAX: usize = 64 + 3 * 8;
/// Longer than any wait of a request for its answer.
const FOREVER: Duration = Duration::from_secs(60);

/// Steps: the client's requests, the server's answers, arbitrary bytes, and time.
pub fn client(mut data: &[u8]) {
    let [flags] = take(&mut data);
    let mut run = Run::new(flags & 1 != 0);
    for _ in 0..STEPS_MAX {
        if data.is_empty() {
            break;
        }
        run.step(&mut data);
        run.check();
    }
    run.end();
}

struct Run {
    client: Client,
    is_stream: bool,
    now: Instant,
    /// The last request: method and transaction.
    last: (u16, [u8; 12]),
    begun: usize,
    ended: usize,
}

fn server() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 3478))
}

fn key(algorithm: IntegrityAlgorithm) -> IntegrityKey {
    LongTermKeyCredentials::new("user".into(), "pass".into(), "example.org".into()).make_key(algorithm)
}

impl Run {
    fn new(is_stream: bool) -> Self {
        let link = if is_stream { Link::Stream } else { Link::Datagrams { server: server() } };
        let credentials = Arc::new(Credentials::new("user", "pass").expect("a short name"));
        Self {
            client: Client::new(Config::new(link).with_credentials(credentials), [1, 2]),
            is_stream,
            now: Instant::from_nanos(1_000_000_000),
            last: (1, [0; 12]),
            begun: 0,
            ended: 0,
        }
    }

    fn step(&mut self, data: &mut &[u8]) {
        let [step] = take(data);
        let now = self.now;
        let asked = match step % 16 {
            0 => self.client.allocate(now, parameters(data)).is_ok(),
            1 => self.client.permit(now, address(data)).is_ok(),
            2 => self.client.bind(now, address(data)).is_ok(),
            3 => self.client.bind_as(now, u16::from_be_bytes(take(data)), address(data)).is_ok(),
            4 => self.client.refresh(now, u32::from_be_bytes(take(data))).is_ok(),
            5 => self.client.binding(now).is_ok(),
            6 => {
                let [len] = take(data);
                let _ = self.client.send(now, address(data), &vec![len; usize::from(len) * 8]);
                false
            }
            7 => {
                let millis = u16::from_be_bytes(take(data));
                self.pass(Duration::from_millis(u64::from(millis) * 10));
                false
            }
            8 => {
                self.challenge(data);
                false
            }
            9 => {
                self.grant(data);
                false
            }
            10 => {
                let [code] = take(data);
                let code = 300 + u16::from(code) % 400;
                let refusal = Response::error(self.last.0, self.last.1, code, Reason::Phrase);
                self.hear(&sealed(refusal, data));
                false
            }
            11 => {
                let [len] = take(data);
                let (bytes, rest) = data.split_at(usize::from(len).min(data.len()));
                *data = rest;
                let from = if len % 8 == 7 { address(data) } else { server() };
                self.client.handle_datagram(now, from, bytes);
                self.client.handle_bytes(now, bytes);
                false
            }
            12 => {
                // Bytes with the id of the last transaction.
                let [len] = take(data);
                let (bytes, rest) = data.split_at(usize::from(len).min(data.len()));
                *data = rest;
                let mut bytes = bytes.to_vec();
                if bytes.len() >= 20 {
                    bytes[8..20].copy_from_slice(&self.last.1);
                }
                self.hear(&bytes);
                false
            }
            13 => {
                let number = u16::from_be_bytes(take(data)) & 0x3fff | 0x4000;
                let [len] = take(data);
                let mut message = vec![0; 4 + usize::from(len)];
                let head = message.first_chunk_mut().expect("a header");
                channel_data::write_header(head, number, len.into());
                self.hear(&message);
                false
            }
            14 => {
                self.events();
                false
            }
            _ => {
                self.transmits();
                false
            }
        };
        self.begun += usize::from(asked);
    }

    fn challenge(&mut self, data: &mut &[u8]) {
        let [kind, nonce] = take(data);
        let code = if kind & 1 != 0 { 401 } else { 438 };
        let realm = if kind & 2 != 0 { "example.org" } else { "other.example" };
        let mut response = Response::error(self.last.0, self.last.1, code, Reason::Empty).realm(realm);
        response = match kind & 4 {
            0 => response.nonce(&[nonce; 16]),
            _ => response.nonce(b"obMatJos2gAAAnonce"),
        };
        if kind & 8 != 0 {
            response = response.password_algorithms(&[0, 2, 0, 0, 0, 1, 0, 0]);
        }
        self.hear(&response.finish(None, false));
    }

    fn grant(&mut self, data: &mut &[u8]) {
        let [parts] = take(data);
        let mut response = Response::success(self.last.0, self.last.1);
        if parts & 1 == 0 {
            response = response.xor_relayed_address(address(data)).lifetime(u32::from_be_bytes(take(data)));
        }
        if parts & 2 == 0 {
            response = response.xor_mapped_address(address(data)).software("a server");
        }
        self.hear(&sealed(response, data));
    }

    fn hear(&mut self, bytes: &[u8]) {
        if !self.is_stream {
            return self.client.handle_datagram(self.now, server(), bytes);
        }
        let mut bytes = bytes.to_vec();
        bytes.resize(padded_len(bytes.len()), 0);
        self.client.handle_bytes(self.now, &bytes);
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.client.handle_timeout(self.now);
        let next = self.client.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a deadline in the past");
    }

    fn check(&mut self) {
        // Every sent message is whole and can be parsed by a server.
        self.transmits();
    }

    fn transmits(&mut self) {
        let mut count = 0;
        while let Some(bytes) = self.client.poll_transmit() {
            count += 1;
            match demux::classify(bytes[0]) {
                demux::Kind::Stun => {
                    let message = Message::parse(bytes).expect("well-formed");
                    match message.class() {
                        MessageClass::Request => self.last = (message.method(), message.transaction_id()),
                        class => assert_eq!(class, MessageClass::Indication),
                    }
                }
                demux::Kind::ChannelData => {
                    let found = channel_data::parse_datagram(bytes).expect("well-formed");
                    assert!(bytes.len() - found.payload.end < 4);
                }
                demux::Kind::Other => panic!("neither STUN nor ChannelData"),
            }
            assert!(!self.is_stream || bytes.len().is_multiple_of(4));
        }
        assert!(count <= 64 + 8, "a queue without a limit");
    }

    fn events(&mut self) {
        let mut count = 0;
        while let Some(event) = self.client.poll_event() {
            count += 1;
            self.ended += usize::from(event.ends_a_request());
        }
        assert!(count <= EVENTS_MAX, "a queue without a limit");
    }

    /// Every request ends exactly once.
    fn end(&mut self) {
        self.events();
        // Each iteration outlasts one wait of a request.
        for _ in 0..8 {
            self.pass(FOREVER);
        }
        self.events();
        assert_eq!(self.begun, self.ended);
    }
}

/// Seals a response with the integrity that the input selects.
fn sealed(response: Response, data: &mut &[u8]) -> Vec<u8> {
    let [algorithm] = take(data);
    let sha1 = IntegrityAlgorithm::Sha1;
    let sha256 = IntegrityAlgorithm::Sha256;
    match algorithm % 4 {
        0 | 1 => response.finish(Some((&key(sha1), sha1)), algorithm & 4 != 0),
        2 => response.finish(Some((&key(sha256), sha256)), algorithm & 4 != 0),
        _ => response.finish(None, algorithm & 4 != 0),
    }
}

fn parameters(data: &mut &[u8]) -> Allocate {
    let [bits] = take(data);
    Allocate {
        lifetime: (bits & 1 != 0).then_some(u32::from(bits)),
        both_families: bits & 2 != 0,
        even_port: (bits & 4 != 0).then_some(bits & 8 != 0),
        dont_fragment: bits & 16 != 0,
        ..Allocate::default()
    }
}
