//! One TURN client without its socket: which request comes next, and what an answer means.

use std::net::SocketAddr;
use std::sync::Arc;

use stun_types::attribute::MessageIntegrity;
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials};

use crate::wire::attribute::{kind, read_xor, write_xor};
use crate::wire::message::{HEADER_LEN, MAGIC_COOKIE, Message, MessageClass, method};

/// The first wait for an answer over UDP (RFC 8489 section 6.2.1); it doubles with every repetition.
const FIRST_WAIT: u64 = 500_000_000;
/// Requests in all before a UDP server counts as silent (RFC 8489 section 6.2.1: Rc).
const TRIES: u32 = 7;
/// The wait for an answer over TCP and TLS (RFC 8489 section 6.2.3: Ti).
const STREAM_WAIT: u64 = 39_500_000_000;
/// How often a ready client refreshes everything: well before a permission's 300 s (RFC 8656 section 9).
const KEEPALIVE: u64 = 200_000_000_000;
/// 438 and 401 in a row before the client gives up.
const CHALLENGES_MAX: u32 = 3;

/// Who the clients are. The key is made when the realm is known.
pub struct Login {
    name: String,
    password: String,
    realm: Vec<u8>,
    key: Option<Arc<IntegrityKey>>,
}

impl Login {
    /// A user and his password.
    pub fn new(name: String, password: String) -> Self {
        Self { name, password, realm: Vec::new(), key: None }
    }

    /// Takes the realm of a challenge.
    fn learn(&mut self, realm: &[u8]) {
        if self.key.is_none() || self.realm != realm {
            self.realm = realm.to_vec();
            let realm = String::from_utf8_lossy(realm).into_owned();
            let credentials = LongTermKeyCredentials::new(self.name.clone(), self.password.clone(), realm);
            self.key = Some(Arc::new(credentials.make_key(IntegrityAlgorithm::Sha1)));
        }
    }
}

/// What a client has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    New,
    Challenge,
    Allocate,
    Permit,
    Bind,
    Ready,
    Refresh,
    Repermit,
    Rebind,
    Release,
    Done,
}

/// What came of an answer or of the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    None,
    /// [`Client::request`] is to be sent.
    Send,
    /// Packets may flow.
    Ready,
    /// The allocation is given back.
    Done,
    /// It will not come to anything.
    Failed(String),
}

/// One client.
pub struct Client {
    number: u32,
    peer: SocketAddr,
    channel: Option<u16>,
    stream: bool,
    step: Step,
    serial: u64,
    nonce: Vec<u8>,
    relayed: Option<SocketAddr>,
    request: Vec<u8>,
    /// When something is to be done again.
    deadline: u64,
    wait: u64,
    tries: u32,
    challenges: u32,
}

impl Client {
    /// A client that will reach `peer`, by `channel` where there is one. `stream`: its requests are not repeated.
    pub fn new(number: u32, peer: SocketAddr, channel: Option<u16>, stream: bool) -> Self {
        Self {
            number,
            peer,
            channel,
            stream,
            step: Step::New,
            serial: 0,
            nonce: Vec::new(),
            relayed: None,
            request: Vec::new(),
            deadline: u64::MAX,
            wait: 0,
            tries: 0,
            challenges: 0,
        }
    }

    /// Its number, which its transactions carry.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The relayed address, once there is one.
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// The bound channel.
    pub fn channel(&self) -> Option<u16> {
        self.channel
    }

    /// The peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether packets may flow.
    pub fn is_ready(&self) -> bool {
        matches!(self.step, Step::Ready | Step::Refresh | Step::Repermit | Step::Rebind)
    }

    /// What is to be sent.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// When [`Client::handle_timeout`] wants to be called.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Begins with an Allocate that asks for the challenge.
    pub fn start(&mut self, now: u64, login: &Login) -> Event {
        self.take(Step::Challenge, now, login)
    }

    /// Begins to give the allocation back.
    pub fn release(&mut self, now: u64, login: &Login) -> Event {
        self.take(Step::Release, now, login)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: u64, login: &Login) -> Event {
        if now < self.deadline {
            return Event::None;
        }
        if self.step == Step::Ready {
            return self.take(Step::Refresh, now, login);
        }
        if self.stream || self.tries >= TRIES {
            self.deadline = u64::MAX;
            return Event::Failed(format!("{}: no answer", self.step.name()));
        }
        self.tries += 1;
        self.wait *= 2;
        self.deadline = now + self.wait;
        Event::Send
    }

    /// The client a message from the server is for, by its transaction.
    pub fn of_transaction(message: &Message<'_>) -> u32 {
        let [a, b, c, d, ..] = message.transaction_id();
        u32::from_be_bytes([a, b, c, d])
    }

    /// An answer. Those to earlier requests are ignored.
    pub fn handle_answer(&mut self, now: u64, message: &Message<'_>, login: &mut Login) -> Event {
        if message.transaction_id() != self.transaction_id() || self.deadline == u64::MAX {
            return Event::None;
        }
        let value = |wanted| message.attributes().find(|a| a.kind == wanted).map(|a| a.value);
        if message.class() == MessageClass::Error {
            let error = value(kind::ERROR_CODE).unwrap_or_default();
            let code = error.get(2..4).map_or(0, |code| u16::from(code[0]) * 100 + u16::from(code[1]));
            if let (401 | 438, Some(nonce)) = (code, value(kind::NONCE))
                && self.challenges < CHALLENGES_MAX
            {
                self.challenges += 1;
                self.nonce = nonce.to_vec();
                if let Some(realm) = value(kind::REALM) {
                    login.learn(realm);
                }
                let again = if self.step == Step::Challenge { Step::Allocate } else { self.step };
                return self.take(again, now, login);
            }
            self.deadline = u64::MAX;
            // What a Refresh to 0 finds gone is given back as well.
            if self.step == Step::Release && code == 437 {
                self.step = Step::Done;
                return Event::Done;
            }
            let reason = String::from_utf8_lossy(error.get(4..).unwrap_or_default()).into_owned();
            return Event::Failed(format!("{}: {code} {reason}", self.step.name()));
        }
        self.challenges = 0;
        let ready = |client: &mut Self, event| {
            client.step = Step::Ready;
            client.deadline = now + KEEPALIVE;
            event
        };
        match self.step {
            Step::Challenge | Step::Allocate => {
                let relayed = value(kind::XOR_RELAYED_ADDRESS);
                self.relayed = relayed.and_then(|value| read_xor(value, message.transaction_id()));
                if self.relayed.is_none() {
                    self.deadline = u64::MAX;
                    return Event::Failed("Allocate: an answer without a relayed address".into());
                }
                self.take(Step::Permit, now, login)
            }
            Step::Permit if self.channel.is_some() => self.take(Step::Bind, now, login),
            Step::Permit | Step::Bind => ready(self, Event::Ready),
            Step::Refresh => self.take(Step::Repermit, now, login),
            Step::Repermit if self.channel.is_some() => self.take(Step::Rebind, now, login),
            Step::Repermit | Step::Rebind => ready(self, Event::None),
            Step::Release => {
                (self.step, self.deadline) = (Step::Done, u64::MAX);
                Event::Done
            }
            Step::New | Step::Ready | Step::Done => Event::None,
        }
    }

    fn take(&mut self, step: Step, now: u64, login: &Login) -> Event {
        self.step = step;
        self.serial += 1;
        self.tries = 1;
        self.wait = if self.stream { STREAM_WAIT } else { FIRST_WAIT };
        self.deadline = now + self.wait;
        self.write(login);
        Event::Send
    }

    fn transaction_id(&self) -> [u8; 12] {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.number.to_be_bytes());
        id[4..].copy_from_slice(&self.serial.to_be_bytes());
        id
    }

    fn write(&mut self, login: &Login) {
        let id = self.transaction_id();
        let mut writer = Writer::request(std::mem::take(&mut self.request), self.step.method(), id);
        let peer = |writer: &mut Writer| {
            let (value, len) = write_xor(self.peer, id);
            writer.attribute(kind::XOR_PEER_ADDRESS, &value[..len]);
        };
        match self.step {
            Step::Challenge | Step::Allocate => {
                writer.attribute(kind::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]);
            }
            Step::Permit | Step::Repermit => peer(&mut writer),
            Step::Bind | Step::Rebind => {
                let [high, low] = self.channel.unwrap_or_default().to_be_bytes();
                writer.attribute(kind::CHANNEL_NUMBER, &[high, low, 0, 0]);
                peer(&mut writer);
            }
            Step::Release => writer.attribute(kind::LIFETIME, &[0; 4]),
            Step::Refresh | Step::New | Step::Ready | Step::Done => {}
        }
        if self.step != Step::Challenge
            && let Some(key) = &login.key
        {
            writer.attribute(kind::USERNAME, login.name.as_bytes());
            writer.attribute(kind::REALM, &login.realm);
            writer.attribute(kind::NONCE, &self.nonce);
            writer.sign(key);
        }
        self.request = writer.bytes;
    }
}

/// UDP in REQUESTED-TRANSPORT (RFC 8656 section 18.7): its number in the IP header.
const UDP: u8 = 17;

impl Step {
    fn method(self) -> u16 {
        match self {
            Step::New | Step::Challenge | Step::Allocate => method::ALLOCATE,
            Step::Permit | Step::Repermit => method::CREATE_PERMISSION,
            Step::Bind | Step::Rebind => method::CHANNEL_BIND,
            Step::Ready | Step::Refresh | Step::Release | Step::Done => method::REFRESH,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Step::New | Step::Challenge | Step::Allocate => "Allocate",
            Step::Permit | Step::Repermit => "CreatePermission",
            Step::Bind | Step::Rebind => "ChannelBind",
            Step::Ready | Step::Refresh | Step::Release | Step::Done => "Refresh",
        }
    }
}

/// A message under construction (RFC 8489 section 5).
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A request without attributes, in a buffer used before.
    pub fn request(mut buffer: Vec<u8>, method: u16, id: [u8; 12]) -> Self {
        buffer.clear();
        // Methods up to 0x00F and the class request have no bit outside of the method's low ones.
        buffer.extend_from_slice(&method.to_be_bytes());
        buffer.extend_from_slice(&[0, 0]);
        buffer.extend_from_slice(&MAGIC_COOKIE);
        buffer.extend_from_slice(&id);
        Self { bytes: buffer }
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends an attribute; values are short (user names, nonces, addresses).
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
    }

    /// Appends MESSAGE-INTEGRITY (RFC 8489 section 14.5).
    fn sign(&mut self, key: &IntegrityKey) {
        self.set_length(24);
        if let Ok(hash) = MessageIntegrity::compute(&[&self.bytes], key) {
            self.attribute(kind::MESSAGE_INTEGRITY, &hash);
        }
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - HEADER_LEN + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes what comes before the payload of a Send indication (RFC 8656 section 11.1) for `peer` into a buffer used
/// before; padding follows the payload.
pub fn send_indication(buffer: Vec<u8>, peer: SocketAddr, payload: usize) -> Vec<u8> {
    let id = [0x5e; 12];
    let mut writer = Writer::request(buffer, SEND_INDICATION, id);
    let (value, len) = write_xor(peer, id);
    writer.attribute(kind::XOR_PEER_ADDRESS, &value[..len]);
    writer.bytes.extend_from_slice(&kind::DATA.to_be_bytes());
    // The options keep it below 64 KiB.
    writer.bytes.extend_from_slice(&(payload as u16).to_be_bytes());
    writer.set_length(payload.next_multiple_of(4));
    writer.bytes
}

/// Class indication, method Send.
const SEND_INDICATION: u16 = 0x0016;
