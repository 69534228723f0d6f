//! A client's own reading and writing of STUN: bytes, hashes and checksums from the RFCs, none of it from the server.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

pub const BINDING: u16 = 0x001;
pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x006;
pub const DATA_METHOD: u16 = 0x007;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;

pub const REQUEST: u16 = 0;
pub const INDICATION: u16 = 1;
pub const SUCCESS: u16 = 2;
pub const ERROR: u16 = 3;

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
pub const ALTERNATE_SERVER: u16 = 0x8023;
pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
pub const ICMP: u16 = 0x8004;
pub const SOFTWARE: u16 = 0x8022;
pub const FINGERPRINT: u16 = 0x8028;

/// UDP in REQUESTED-TRANSPORT, and the two families.
pub const UDP: [u8; 4] = [17, 0, 0, 0];
pub const V4: [u8; 4] = [1, 0, 0, 0];
pub const V6: [u8; 4] = [2, 0, 0, 0];

/// RFC 8489 section 5, figure 3: two class bits among the twelve method bits.
pub fn kind(class: u16, method: u16) -> u16 {
    (method & 0xf80) << 2 | (method & 0x070) << 1 | (method & 0x00f) | (class & 2) << 7 | (class & 1) << 4
}

/// A message under construction.
#[derive(Clone, Debug)]
pub struct Msg {
    kind: u16,
    pub tid: [u8; 12],
    body: Vec<u8>,
}

impl Msg {
    pub fn new(class: u16, method: u16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut tid = *b"rfc.\0\0\0\0\0\0\0\0";
        tid[4..].copy_from_slice(&NEXT.fetch_add(1, Relaxed).to_be_bytes());
        Self { kind: kind(class, method), tid, body: Vec::new() }
    }

    pub fn request(method: u16) -> Self {
        Self::new(REQUEST, method)
    }

    pub fn send() -> Self {
        Self::new(INDICATION, SEND)
    }

    pub fn allocate() -> Self {
        Self::request(ALLOCATE).attr(REQUESTED_TRANSPORT, &UDP)
    }

    pub fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.padded(kind, value, 0)
    }

    /// With this byte as padding.
    pub fn padded(mut self, kind: u16, value: &[u8], padding: u8) -> Self {
        self.body.extend(kind.to_be_bytes());
        self.body.extend((value.len() as u16).to_be_bytes());
        self.body.extend(value);
        while !self.body.len().is_multiple_of(4) {
            self.body.push(padding);
        }
        self
    }

    pub fn lifetime(self, secs: u32) -> Self {
        self.attr(LIFETIME, &secs.to_be_bytes())
    }

    pub fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.attr(CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    pub fn peer(self, peer: &str) -> Self {
        let value = xor(peer.parse().expect("literal"), self.tid);
        self.attr(XOR_PEER_ADDRESS, &value)
    }

    /// The header with a length that ends `ahead` bytes behind what is there, then the attributes so far.
    fn with_length(&self, ahead: usize) -> Vec<u8> {
        let mut bytes = self.kind.to_be_bytes().to_vec();
        bytes.extend(((self.body.len() + ahead) as u16).to_be_bytes());
        bytes.extend(COOKIE);
        bytes.extend(self.tid);
        bytes.extend(&self.body);
        bytes
    }

    pub fn sha1(self, key: &[u8]) -> Self {
        let mac = hmac_sha1(key, &self.with_length(24));
        self.attr(MESSAGE_INTEGRITY, &mac)
    }

    pub fn sha256(self, key: &[u8]) -> Self {
        self.sha256_cut(key, 32)
    }

    /// MESSAGE-INTEGRITY-SHA256 cut to `len` bytes.
    pub fn sha256_cut(self, key: &[u8], len: usize) -> Self {
        let padded = len.div_ceil(4) * 4;
        let mac = hmac_sha256(key, &self.with_length(4 + padded));
        self.attr(MESSAGE_INTEGRITY_SHA256, &mac[..len])
    }

    pub fn fingerprint(self) -> Self {
        let crc = crc32(&self.with_length(8)) ^ 0x5354_554e;
        self.attr(FINGERPRINT, &crc.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.with_length(0)
    }
}

/// A message of the server, taken apart. Decoding itself fails on anything the RFCs forbid to send.
#[derive(Clone, Debug)]
pub struct Answer {
    pub class: u16,
    pub method: u16,
    pub tid: [u8; 12],
    /// Type, value, where its header starts.
    pub attrs: Vec<(u16, Vec<u8>, usize)>,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn decode(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let first = word(0);
        assert!(first < 0x4000, "top bits");
        assert_eq!(bytes[4..8], COOKIE);
        assert_eq!(usize::from(word(2)) + 20, bytes.len(), "length");
        assert_eq!(bytes.len() % 4, 0);
        let (mut attrs, mut at) = (Vec::new(), 20);
        while at < bytes.len() {
            let len = usize::from(word(at + 2));
            let end = (at + 4 + len).div_ceil(4) * 4;
            assert!(bytes[at + 4 + len..end].iter().all(|&byte| byte == 0), "padding is zero");
            attrs.push((word(at), bytes[at + 4..at + 4 + len].to_vec(), at));
            at = end;
        }
        let class = (first & 0x100) >> 7 | (first & 0x010) >> 4;
        let method = first & 0x00f | (first & 0x0e0) >> 1 | (first & 0x3e00) >> 2;
        let mut tid = [0; 12];
        tid.copy_from_slice(&bytes[8..20]);
        let answer = Self { class, method, tid, attrs, bytes: bytes.to_vec() };
        answer.check_order();
        answer
    }

    /// Nothing behind integrity but FINGERPRINT, nothing behind FINGERPRINT, and its sum right (RFC 8489 section 14.7).
    fn check_order(&self) {
        let at = |kind| self.attrs.iter().position(|(k, ..)| *k == kind);
        let integrity = at(MESSAGE_INTEGRITY).or(at(MESSAGE_INTEGRITY_SHA256));
        if let Some(integrity) = integrity {
            assert!(self.attrs[integrity + 1..].iter().all(|(k, ..)| *k == FINGERPRINT));
        }
        if let Some(last) = at(FINGERPRINT) {
            assert_eq!(last + 1, self.attrs.len());
            let (_, value, offset) = &self.attrs[last];
            let crc = crc32(&self.bytes[..*offset]) ^ 0x5354_554e;
            assert_eq!(*value, crc.to_be_bytes());
        }
    }

    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attrs.iter().find(|(k, ..)| *k == kind).map(|(_, value, _)| &value[..])
    }

    pub fn has(&self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    /// 0 for a success.
    pub fn code(&self) -> u16 {
        match (self.class, self.get(ERROR_CODE)) {
            (SUCCESS, None) => 0,
            (ERROR, Some(&[0, 0, class, number, ref reason @ ..])) => {
                assert!((3..=6).contains(&class) && number < 100);
                assert!(std::str::from_utf8(reason).expect("UTF-8").chars().count() < 128);
                u16::from(class) * 100 + u16::from(number)
            }
            other => panic!("ERROR-CODE {other:?}"),
        }
    }

    pub fn secs(&self) -> u32 {
        u32::from_be_bytes(self.get(LIFETIME).expect("LIFETIME").try_into().expect("four bytes"))
    }

    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let of_kind = self.attrs.iter().filter(|(k, ..)| *k == kind);
        of_kind.map(|(_, value, _)| unxor(value, self.tid)).collect()
    }

    pub fn address(&self, kind: u16) -> SocketAddr {
        let all = self.addresses(kind);
        assert_eq!(all.len(), 1);
        all[0]
    }

    /// The input of an integrity attribute: all before it, with the length that ends behind it.
    fn covered(&self, kind: u16) -> Option<(Vec<u8>, &[u8])> {
        let (_, value, offset) = self.attrs.iter().find(|(k, ..)| *k == kind)?;
        let mut input = self.bytes[..*offset].to_vec();
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

    pub fn is_signed(&self) -> bool {
        self.has(MESSAGE_INTEGRITY) || self.has(MESSAGE_INTEGRITY_SHA256)
    }
}

/// The value of an XOR address attribute (RFC 8489 section 14.2).
pub fn xor(address: SocketAddr, tid: [u8; 12]) -> Vec<u8> {
    let mask: Vec<u8> = COOKIE.into_iter().chain(tid).collect();
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let [high, low] = address.port().to_be_bytes();
    let mut value = vec![0, family, high ^ mask[0], low ^ mask[1]];
    value.extend(ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    value
}

fn unxor(value: &[u8], tid: [u8; 12]) -> SocketAddr {
    let mask: Vec<u8> = COOKIE.into_iter().chain(tid).collect();
    assert_eq!(value[0], 0, "first eight bits");
    let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
    let ip: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match value[1] {
        1 => IpAddr::from(<[u8; 4]>::try_from(ip).expect("IPv4")),
        2 => IpAddr::from(<[u8; 16]>::try_from(ip).expect("IPv6")),
        other => panic!("family {other}"),
    };
    SocketAddr::new(ip, port)
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

/// RFC 1321; the table of sines is computed, as section 3.4 defines it.
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

/// ChannelData as it goes over UDP.
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// RFC 1321 appendix A.5, RFC 8489 section 9.2.2, and the check value of CRC-32: the rig's own yardsticks.
#[test]
fn the_yardsticks_are_right() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(hex(md5(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
    assert_eq!(hex(md5(b"user:realm:pass")), "8493fbc53ba582fb4c044c456bdc40eb");
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
