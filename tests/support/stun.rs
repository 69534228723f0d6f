//! STUN messages as plain bytes, made and read without the library under test (RFC 8489 sections 5, 14).

use super::credentials::{self, Credentials};
use super::plan::REALM;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub const MAGIC: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
pub const BINDING_REQUEST: u16 = 0x0001;
pub const BINDING_INDICATION: u16 = 0x0011;
pub const BINDING_SUCCESS: u16 = 0x0101;
pub const ALLOCATE: u16 = 0x0003;
pub const REFRESH: u16 = 0x0004;
pub const CREATE_PERMISSION: u16 = 0x0008;
pub const CHANNEL_BIND: u16 = 0x0009;
pub const SEND_INDICATION: u16 = 0x0016;
pub const DATA_INDICATION: u16 = 0x0017;

pub const USERNAME: u16 = 0x0006;
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
pub const ERROR_CODE: u16 = 0x0009;
pub const CHANNEL_NUMBER: u16 = 0x000C;
pub const LIFETIME: u16 = 0x000D;
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const REALM_ATTRIBUTE: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub const REQUESTED_FAMILY: u16 = 0x0017;
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub const SOFTWARE: u16 = 0x8022;
pub const ALTERNATE_SERVER: u16 = 0x8023;
pub const FINGERPRINT: u16 = 0x8028;

/// A message with the given attributes, each padded with zeros. `id` fills the transaction id.
pub fn message(kind: u16, id: u64, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::from(kind.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(MAGIC);
    bytes.extend([0x7E; 4]);
    bytes.extend(id.to_be_bytes());
    for (attribute, value) in attributes {
        append(&mut bytes, *attribute, value);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    bytes.extend(attribute.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(bytes, 0);
}

/// The length field counts what follows the header, `extra` bytes still to come included.
fn set_length(bytes: &mut [u8], extra: usize) {
    let length = (bytes.len() - 20 + extra) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

pub fn binding_request(id: u64) -> Vec<u8> {
    message(BINDING_REQUEST, id, &[])
}

/// The first Allocate of every client: UDP asked for, no credentials.
pub fn allocate_request(id: u64) -> Vec<u8> {
    message(ALLOCATE, id, &[(REQUESTED_TRANSPORT, &[17, 0, 0, 0])])
}

/// A client's side of the long-term credentials, after the first 401.
pub struct Session {
    credentials: Credentials,
    key: Vec<u8>,
    nonce: Vec<u8>,
}

impl Session {
    pub fn new(credentials: Credentials, nonce: &[u8]) -> Session {
        let key = credentials::long_term_key(&credentials, REALM);
        Session { credentials, key, nonce: nonce.to_vec() }
    }

    /// The same user with another nonce, on another five-tuple.
    pub fn renewed(&self, nonce: &[u8]) -> Session {
        Session { nonce: nonce.to_vec(), credentials: self.credentials.clone(), key: self.key.clone() }
    }

    /// The name and the key of this user.
    pub fn key(&self) -> (&str, &[u8]) {
        (&self.credentials.username, &self.key)
    }

    /// Another name under the same key and nonce: a guess.
    pub fn guess(&self, username: &str) -> Session {
        let credentials = Credentials { username: username.to_owned(), ..self.credentials.clone() };
        Session { credentials, key: self.key.clone(), nonce: self.nonce.clone() }
    }

    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// A request with USERNAME, REALM, NONCE and MESSAGE-INTEGRITY behind `attributes`.
    pub fn request(&self, kind: u16, id: u64, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.signed(kind, id, attributes, credentials::hmac_sha1)
    }

    /// The same with any HMAC-SHA1 of key and message: Python's takes a process each.
    pub fn signed(
        &self,
        kind: u16,
        id: u64,
        attributes: &[(u16, &[u8])],
        hmac_sha1: impl Fn(&[u8], &[u8]) -> Vec<u8>,
    ) -> Vec<u8> {
        let mut all = attributes.to_vec();
        all.push((USERNAME, self.credentials.username.as_bytes()));
        all.push((REALM_ATTRIBUTE, REALM.as_bytes()));
        all.push((NONCE, &self.nonce));
        let mut bytes = message(kind, id, &all);
        set_length(&mut bytes, 24);
        let mac = hmac_sha1(&self.key, &bytes);
        append(&mut bytes, MESSAGE_INTEGRITY, &mac);
        bytes
    }
}

/// A received message, its header checked.
#[derive(Debug)]
pub struct Message {
    pub kind: u16,
    pub id: u64,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// Fails the test unless `bytes` are one whole message.
    pub fn parse(bytes: &[u8]) -> Message {
        assert!(bytes.len() >= 20 && bytes[4..8] == MAGIC, "not a STUN message: {bytes:02x?}");
        assert_eq!(usize::from(u16_at(bytes, 2)) + 20, bytes.len(), "length field: {bytes:02x?}");
        let mut attributes = Vec::new();
        let mut rest = &bytes[20..];
        while !rest.is_empty() {
            let length = usize::from(u16_at(rest, 2));
            attributes.push((u16_at(rest, 0), rest[4..4 + length].to_vec()));
            rest = &rest[4 + length.next_multiple_of(4)..];
        }
        let id = u64::from_be_bytes(bytes[12..20].try_into().unwrap());
        Message { kind: u16_at(bytes, 0), id, attributes }
    }

    pub fn attribute(&self, attribute: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(kind, _)| *kind == attribute).map(|(_, value)| value.as_slice())
    }

    /// The code of an error response, class and number together.
    pub fn error_code(&self) -> Option<u16> {
        let value = self.attribute(ERROR_CODE)?;
        Some(u16::from(value[2] & 7) * 100 + u16::from(value[3]))
    }

    /// An IPv4 address behind the XOR of RFC 8489 section 14.2.
    pub fn xor_address(&self, attribute: u16) -> Option<SocketAddr> {
        let value = self.attribute(attribute)?;
        assert_eq!(value[1], 1, "not IPv4");
        let port = u16_at(value, 2) ^ 0x2112;
        let ip: Vec<u8> = value[4..8].iter().zip(MAGIC).map(|(byte, mask)| byte ^ mask).collect();
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port))
    }
}

/// The value of an XOR'ed address attribute for an IPv6 address in the message `id`.
pub fn xor_value_v6(address: SocketAddr, id: u64) -> Vec<u8> {
    let SocketAddr::V6(address) = address else { panic!("{address} is not IPv6") };
    let mut value = vec![0, 2];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    let mask = MAGIC.into_iter().chain([0x7E; 4]).chain(id.to_be_bytes());
    value.extend(address.ip().octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

/// The value of an XOR'ed address attribute for an IPv4 address.
pub fn xor_value(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let mut value = vec![0, 1];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    value.extend(address.ip().octets().iter().zip(MAGIC).map(|(byte, mask)| byte ^ mask));
    value
}

/// Reads one whole message off a stream.
pub fn read_message(stream: &mut impl Read) -> io::Result<Message> {
    let mut bytes = vec![0; 20];
    stream.read_exact(&mut bytes)?;
    bytes.resize(20 + usize::from(u16_at(&bytes, 2)), 0);
    stream.read_exact(&mut bytes[20..])?;
    Ok(Message::parse(&bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
