//! STUN and ChannelData, written from RFC 8489 and RFC 8656: the one codec of all tests. It shares no code with the
//! codec under test, so that both cannot have the same mistake. Only HMAC, SHA-1 and SHA-256 come from crates.
#![allow(dead_code)] // each test target that includes this file uses a different part of it

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

// Methods (RFC 8489 section 18.1, RFC 8656 section 17), which are also the types of their requests, and the types of some
// indications and of a success response.
pub const BINDING: u16 = 0x0001;
pub const ALLOCATE: u16 = 0x0003;
pub const REFRESH: u16 = 0x0004;
pub const SEND: u16 = 0x0006;
pub const DATA_METHOD: u16 = 0x0007;
pub const CREATE_PERMISSION: u16 = 0x0008;
pub const CHANNEL_BIND: u16 = 0x0009;
pub const BINDING_INDICATION: u16 = 0x0011;
pub const SEND_INDICATION: u16 = 0x0016;
pub const DATA_INDICATION: u16 = 0x0017;
pub const BINDING_SUCCESS: u16 = 0x0101;

// Attributes (RFC 8489 section 18.3, RFC 8656 section 18).
pub const USERNAME: u16 = 0x0006;
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
pub const ERROR_CODE: u16 = 0x0009;
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
pub const CHANNEL_NUMBER: u16 = 0x000c;
pub const LIFETIME: u16 = 0x000d;
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const REALM: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub const REQUESTED_FAMILY: u16 = 0x0017;
pub const EVEN_PORT: u16 = 0x0018;
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
pub const DONT_FRAGMENT: u16 = 0x001a;
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
pub const PASSWORD_ALGORITHM: u16 = 0x001d;
pub const USERHASH: u16 = 0x001e;
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub const RESERVATION_TOKEN: u16 = 0x0022;
pub const ADDITIONAL_FAMILY: u16 = 0x8000;
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
pub const ICMP: u16 = 0x8004;
pub const SOFTWARE: u16 = 0x8022;
pub const ALTERNATE_SERVER: u16 = 0x8023;
pub const FINGERPRINT: u16 = 0x8028;

/// UDP in REQUESTED-TRANSPORT.
pub const UDP: [u8; 4] = [17, 0, 0, 0];

pub type Id = [u8; 12];

/// A message under construction.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a message with this type (class and method as on the wire) and transaction id.
    pub fn new(kind: u16, id: Id) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(id);
        Self { bytes }
    }

    pub fn raw(self, kind: u16, value: &[u8]) -> Self {
        self.padded(kind, value, 0)
    }

    /// Appends an attribute with this padding byte.
    pub fn padded(mut self, kind: u16, value: &[u8], padding: u8) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), padding);
        self.set_length(0);
        self
    }

    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let value = xor(address, self.id());
        self.raw(kind, &value)
    }

    pub fn id(&self) -> Id {
        self.bytes[8..20].try_into().expect("a header")
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - 20 + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends an attribute of `len` bytes that is computed over everything before it, with the length field covering
    /// the attribute.
    pub fn sealed(mut self, kind: u16, len: usize, compute: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        self.set_length(4 + len.next_multiple_of(4));
        let value = compute(&self.bytes);
        self.raw(kind, &value[..len])
    }

    pub fn sha1(self, key: &[u8]) -> Self {
        self.sealed(MESSAGE_INTEGRITY, 20, |bytes| hmac_sha1(key, bytes))
    }

    pub fn sha256(self, key: &[u8]) -> Self {
        self.sha256_cut(key, 32)
    }

    /// MESSAGE-INTEGRITY-SHA256 cut to `len` bytes.
    pub fn sha256_cut(self, key: &[u8], len: usize) -> Self {
        self.sealed(MESSAGE_INTEGRITY_SHA256, len, |bytes| hmac_sha256(key, bytes))
    }

    /// Appends USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
    pub fn signed(self, login: &Login, nonce: &[u8]) -> Vec<u8> {
        let named = self.raw(USERNAME, login.name.as_bytes()).raw(REALM, login.realm.as_bytes());
        named.raw(NONCE, nonce).sha1(&login.key).plain()
    }

    pub fn fingerprint(self) -> Self {
        self.sealed(FINGERPRINT, 4, |bytes| fingerprint(bytes).to_vec())
    }

    pub fn plain(self) -> Vec<u8> {
        self.bytes
    }
}

/// User name, realm and their long-term key.
#[derive(Clone)]
pub struct Login {
    pub name: String,
    pub realm: String,
    key: Vec<u8>,
}

impl Login {
    pub fn new(name: &str, password: &str, realm: &str) -> Self {
        Self { name: name.to_owned(), realm: realm.to_owned(), key: long_term_key(name, realm, password) }
    }
}

/// A parsed message.
#[derive(Clone, Debug)]
pub struct Reader {
    pub kind: u16,
    pub id: Id,
    pub attributes: Vec<(u16, Vec<u8>)>,
    /// The position of each attribute's header.
    offsets: Vec<usize>,
    /// Whether all padding is zero.
    pub is_padded_with_zeros: bool,
    pub bytes: Vec<u8>,
}

impl Reader {
    /// Parses a STUN message with any padding. Returns `None` if the bytes are not well-formed.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_at_checked(20)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >= 0x40 || header[4..8] != COOKIE || length != rest.len() || length % 4 != 0 {
            return None;
        }
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let id = header[8..].try_into().ok()?;
        let (mut attributes, mut offsets, mut is_padded_with_zeros) = (Vec::new(), Vec::new(), true);
        while let Some((head, behind)) = rest.split_at_checked(4) {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, behind) = behind.split_at_checked(length)?;
            let (padding, behind) = behind.split_at_checked(length.next_multiple_of(4) - length)?;
            is_padded_with_zeros &= padding.iter().all(|&byte| byte == 0);
            attributes.push((u16::from_be_bytes([head[0], head[1]]), value.to_vec()));
            offsets.push(bytes.len() - rest.len());
            rest = behind;
        }
        Some(Self { kind, id, attributes, offsets, is_padded_with_zeros, bytes: bytes.to_vec() })
    }

    /// Like [`Reader::read`], but also returns `None` if a padding byte is not zero.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).filter(|reader| reader.is_padded_with_zeros)
    }

    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| &value[..])
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        unxor(self.get(kind)?, self.id)
    }

    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let of_kind = self.attributes.iter().filter(|(found, _)| *found == kind);
        of_kind.filter_map(|(_, value)| unxor(value, self.id)).collect()
    }

    /// 0 for a success response, the number in ERROR-CODE for an error response.
    pub fn code(&self) -> Option<u16> {
        match (self.kind & 0x0110, self.get(ERROR_CODE)) {
            (0x0100, None) => Some(0),
            (0x0110, Some(value)) => Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?)),
            _ => None,
        }
    }

    /// Returns what an integrity attribute or FINGERPRINT is computed over, and its value. The first is everything before
    /// the attribute, with a length field that ends with the attribute.
    pub fn covered(&self, kind: u16) -> Option<(Vec<u8>, &[u8])> {
        let place = self.attributes.iter().position(|(found, _)| *found == kind)?;
        let (offset, value) = (self.offsets[place], &self.attributes[place].1[..]);
        let mut input = self.bytes[..offset].to_vec();
        let length = (offset + 4 + value.len() - 20) as u16;
        input[2..4].copy_from_slice(&length.to_be_bytes());
        Some((input, value))
    }

    pub fn is_sha1(&self, key: &[u8]) -> bool {
        self.covered(MESSAGE_INTEGRITY).is_some_and(|(input, value)| value == hmac_sha1(key, &input))
    }

    pub fn is_sha256(&self, key: &[u8]) -> bool {
        self.covered(MESSAGE_INTEGRITY_SHA256).is_some_and(|(input, value)| value == hmac_sha256(key, &input))
    }

    /// Returns whether only FINGERPRINT follows the integrity, nothing follows FINGERPRINT, and its checksum is right
    /// (RFC 8489 section 14.7).
    pub fn is_in_order(&self) -> bool {
        let at = |kind| self.attributes.iter().position(|(found, _)| *found == kind);
        let integrity = at(MESSAGE_INTEGRITY).or(at(MESSAGE_INTEGRITY_SHA256));
        let behind = integrity.map_or(&[][..], |place| &self.attributes[place + 1..]);
        let is_last = at(FINGERPRINT).is_none_or(|place| place + 1 == self.attributes.len());
        let sum = self.covered(FINGERPRINT).is_none_or(|(input, value)| value == fingerprint(&input));
        behind.iter().all(|(kind, _)| *kind == FINGERPRINT) && is_last && sum
    }
}

/// The value of an XOR address attribute (RFC 8489 section 14.2).
pub fn xor(address: SocketAddr, id: Id) -> Vec<u8> {
    let mask: Vec<u8> = COOKIE.into_iter().chain(id).collect();
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let [high, low] = address.port().to_be_bytes();
    let mut value = vec![0, family, high ^ mask[0], low ^ mask[1]];
    value.extend(ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

/// Decodes the value of an XOR address attribute; `None` if the family or the length is wrong.
pub fn unxor(value: &[u8], id: Id) -> Option<SocketAddr> {
    let mask: Vec<u8> = COOKIE.into_iter().chain(id).collect();
    let (head, ip) = value.split_at_checked(4)?;
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let ip: Vec<u8> = ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match head[..2] {
        [0, 1] => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        [0, 2] => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// ChannelData as it goes over UDP.
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the length of the message at the start of a stream, without and with padding; `None` while it is unknown.
pub fn framed(bytes: &[u8]) -> Option<(usize, usize)> {
    let field = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    match bytes[0] {
        0..=3 => Some((20 + field, 20 + field)),
        0x40..=0x7F => Some((4 + field, (4 + field).next_multiple_of(4))),
        first => panic!("the framing is lost: a message begins with {first:#04x}"),
    }
}

/// The key of the long-term credentials (RFC 8489 section 9.2.2).
pub fn long_term_key(name: &str, realm: &str, password: &str) -> Vec<u8> {
    md5(format!("{name}:{realm}:{password}").as_bytes())
}

pub fn hmac_sha1(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut mac: Hmac<Sha1> = Hmac::new_from_slice(key).expect("any length");
    mac.update(input);
    mac.finalize().into_bytes().to_vec()
}

pub fn hmac_sha256(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(key).expect("any length");
    mac.update(input);
    mac.finalize().into_bytes().to_vec()
}

pub fn sha256(input: &[u8]) -> Vec<u8> {
    Sha256::digest(input).to_vec()
}

fn fingerprint(input: &[u8]) -> [u8; 4] {
    (crc32(input) ^ 0x5354_554e).to_be_bytes()
}

/// CRC-32 of ISO 3309, bit by bit.
pub fn crc32(input: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in input {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// MD5 (RFC 1321). Computes the table of sines as section 3.4 defines it.
pub fn md5(input: &[u8]) -> Vec<u8> {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut padded = input.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((input.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| block[4 * n + byte]));
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64 {
            let (mix, index) = match step / 16 {
                0 => (b & c | !b & d, step),
                1 => (d & b | !d & c, 5 * step + 1),
                2 => (b ^ c ^ d, 3 * step + 5),
                _ => (c ^ (b | !d), 7 * step),
            };
            let sine = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(mix).wrapping_add(sine).wrapping_add(word(index % 16));
            let turned = sum.rotate_left(SHIFTS[step / 16][step % 4]);
            (a, b, c, d) = (d, b.wrapping_add(turned), b, c);
        }
        for (held, new) in state.iter_mut().zip([a, b, c, d]) {
            *held = held.wrapping_add(new);
        }
    }
    state.iter().flat_map(|word| word.to_le_bytes()).collect()
}
