//! STUN messages for the tests with real programs, built with the common codec.

use super::credentials::{self, Credentials};
use super::plan::REALM as TEST_REALM;
use std::io::{self, Read};
use std::net::SocketAddr;

pub use super::codec::*;

pub const BINDING_REQUEST: u16 = BINDING;
pub const MAGIC: [u8; 4] = COOKIE;
pub const REALM_ATTRIBUTE: u16 = REALM;

/// Returns the transaction id for a number.
fn transaction(id: u64) -> [u8; 12] {
    let mut bytes = [0x7E; 12];
    bytes[4..].copy_from_slice(&id.to_be_bytes());
    bytes
}

fn writer(kind: u16, id: u64, attributes: &[(u16, &[u8])]) -> Writer {
    let writer = Writer::new(kind, transaction(id));
    attributes.iter().fold(writer, |writer, (attribute, value)| writer.raw(*attribute, value))
}

/// A message with the given attributes, each padded with zeros. `id` fills the transaction id.
pub fn message(kind: u16, id: u64, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    writer(kind, id, attributes).plain()
}

pub fn binding_request(id: u64) -> Vec<u8> {
    message(BINDING_REQUEST, id, &[])
}

/// The first Allocate of every client: for UDP, without credentials.
pub fn allocate_request(id: u64) -> Vec<u8> {
    message(ALLOCATE, id, &[(REQUESTED_TRANSPORT, &UDP)])
}

/// A client's side of the long-term credentials, after the first 401.
pub struct Session {
    credentials: Credentials,
    realm: String,
    key: Vec<u8>,
    nonce: Vec<u8>,
}

impl Session {
    pub fn new(credentials: Credentials, nonce: &[u8]) -> Session {
        Session::in_realm(credentials, nonce, TEST_REALM)
    }

    pub fn in_realm(credentials: Credentials, nonce: &[u8], realm: &str) -> Session {
        let key = credentials::long_term_key(&credentials, realm);
        Session { credentials, realm: realm.to_owned(), key, nonce: nonce.to_vec() }
    }

    /// Returns the same user with another nonce, for another five-tuple.
    pub fn renewed(&self, nonce: &[u8]) -> Session {
        let (credentials, realm, key) = (self.credentials.clone(), self.realm.clone(), self.key.clone());
        Session { credentials, realm, key, nonce: nonce.to_vec() }
    }

    /// The name and the key of this user.
    pub fn key(&self) -> (&str, &[u8]) {
        (&self.credentials.username, &self.key)
    }

    /// Returns a session with another user name but the same key and nonce, as an attacker would guess.
    pub fn guess(&self, username: &str) -> Session {
        let credentials = Credentials { username: username.to_owned(), ..self.credentials.clone() };
        Session { credentials, ..self.renewed(&self.nonce) }
    }

    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// Builds a request with `attributes`, USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
    pub fn signed(&self, kind: u16, id: u64, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let named = [
            (USERNAME, self.credentials.username.as_bytes()),
            (REALM_ATTRIBUTE, self.realm.as_bytes()),
            (NONCE, &self.nonce),
        ];
        writer(kind, id, &[attributes, &named].concat()).sha1(&self.key).plain()
    }
}

/// A received message with a valid header.
#[derive(Debug)]
pub struct Message {
    pub kind: u16,
    pub id: u64,
    reader: Reader,
}

impl Message {
    /// Fails the test unless `bytes` are one whole message.
    pub fn parse(bytes: &[u8]) -> Message {
        let reader = Reader::read(bytes).unwrap_or_else(|| panic!("not a STUN message: {bytes:02x?}"));
        let id = u64::from_be_bytes(reader.id[4..].try_into().unwrap());
        Message { kind: reader.kind, id, reader }
    }

    pub fn attribute(&self, attribute: u16) -> Option<&[u8]> {
        self.reader.get(attribute)
    }

    /// Returns the code of an error response.
    pub fn error_code(&self) -> Option<u16> {
        self.attribute(ERROR_CODE)?;
        self.reader.code()
    }

    /// Decodes an XOR address attribute (RFC 8489 section 14.2).
    pub fn xor_address(&self, attribute: u16) -> Option<SocketAddr> {
        self.attribute(attribute)?;
        Some(self.reader.address(attribute).expect("an address of a known family"))
    }

    /// Every address in attributes of this type.
    pub fn xor_addresses(&self, attribute: u16) -> Vec<SocketAddr> {
        self.reader.addresses(attribute)
    }
}

/// The value of an XOR'ed address attribute in the message `id`.
pub fn xor_value_in(address: SocketAddr, id: u64) -> Vec<u8> {
    xor(address, transaction(id))
}

/// The value of an XOR'ed address attribute for an IPv4 address, which is the same in every message.
pub fn xor_value(address: SocketAddr) -> Vec<u8> {
    assert!(address.is_ipv4(), "{address} is not IPv4");
    xor(address, transaction(0))
}

/// Reads one whole message from a stream.
pub fn read_message(stream: &mut impl Read) -> io::Result<Message> {
    let mut bytes = vec![0; 20];
    stream.read_exact(&mut bytes)?;
    bytes.resize(20 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 0);
    stream.read_exact(&mut bytes[20..])?;
    Ok(Message::parse(&bytes))
}
