//! Messages as these tests write them, on top of the codec that all tests share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[path = "../support/codec.rs"]
mod hand;

pub use hand::*;

/// The two families.
pub const V4: [u8; 4] = [1, 0, 0, 0];
pub const V6: [u8; 4] = [2, 0, 0, 0];

pub const REQUEST: u16 = 0;
pub const INDICATION: u16 = 1;
pub const SUCCESS: u16 = 2;
pub const ERROR: u16 = 3;

/// Returns the message type: two class bits among the twelve method bits (RFC 8489 section 5, figure 3).
pub fn kind(class: u16, method: u16) -> u16 {
    (method & 0xf80) << 2 | (method & 0x070) << 1 | (method & 0x00f) | (class & 2) << 7 | (class & 1) << 4
}

/// A message under construction.
#[derive(Clone, Debug)]
pub struct Msg {
    pub tid: Id,
    writer: Writer,
}

impl Msg {
    pub fn new(class: u16, method: u16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut tid = *b"rfc.\0\0\0\0\0\0\0\0";
        tid[4..].copy_from_slice(&NEXT.fetch_add(1, Relaxed).to_be_bytes());
        Self { tid, writer: Writer::new(kind(class, method), tid) }
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

    fn then(self, next: impl FnOnce(Writer) -> Writer) -> Self {
        Self { writer: next(self.writer), ..self }
    }

    pub fn attr(self, kind: u16, value: &[u8]) -> Self {
        self.then(|writer| writer.raw(kind, value))
    }

    /// Adds an attribute with this byte as padding.
    pub fn padded(self, kind: u16, value: &[u8], padding: u8) -> Self {
        self.then(|writer| writer.padded(kind, value, padding))
    }

    pub fn lifetime(self, secs: u32) -> Self {
        self.attr(LIFETIME, &secs.to_be_bytes())
    }

    pub fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.attr(CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    pub fn peer(self, peer: &str) -> Self {
        self.then(|writer| writer.address(XOR_PEER_ADDRESS, peer.parse().expect("literal")))
    }

    pub fn sha1(self, key: &[u8]) -> Self {
        self.then(|writer| writer.sha1(key))
    }

    pub fn sha256(self, key: &[u8]) -> Self {
        self.then(|writer| writer.sha256(key))
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 cut to `len` bytes.
    pub fn sha256_cut(self, key: &[u8], len: usize) -> Self {
        self.then(|writer| writer.sha256_cut(key, len))
    }

    pub fn fingerprint(self) -> Self {
        self.then(Writer::fingerprint)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.writer.clone().plain()
    }
}

/// A decoded message of the server. Decoding panics on anything that the RFCs forbid a server to send.
#[derive(Clone, Debug)]
pub struct Answer {
    pub class: u16,
    pub method: u16,
    pub tid: Id,
    pub attrs: Vec<(u16, Vec<u8>)>,
    pub bytes: Vec<u8>,
    reader: Reader,
}

impl Answer {
    pub fn decode(bytes: &[u8]) -> Self {
        let reader = Reader::read(bytes).unwrap_or_else(|| panic!("not a STUN message: {bytes:02x?}"));
        assert!(reader.is_padded_with_zeros, "padding is zero");
        assert!(reader.is_in_order(), "integrity, then a correct FINGERPRINT: {reader:?}");
        let first = reader.kind;
        Self {
            class: (first & 0x100) >> 7 | (first & 0x010) >> 4,
            method: first & 0x00f | (first & 0x0e0) >> 1 | (first & 0x3e00) >> 2,
            tid: reader.id,
            attrs: reader.attributes.clone(),
            bytes: bytes.to_vec(),
            reader,
        }
    }

    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.reader.get(kind)
    }

    pub fn has(&self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    /// Returns the error code, or 0 for a success response.
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
        self.reader.number(LIFETIME).expect("LIFETIME of four bytes")
    }

    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let of_kind = self.attrs.iter().filter(|(found, _)| *found == kind);
        of_kind.map(|(_, value)| unxor(value, self.tid).expect("an address of a known family")).collect()
    }

    pub fn address(&self, kind: u16) -> SocketAddr {
        let all = self.addresses(kind);
        assert_eq!(all.len(), 1);
        all[0]
    }

    pub fn is_sha1(&self, key: &[u8]) -> bool {
        self.reader.is_sha1(key)
    }

    pub fn is_sha256(&self, key: &[u8]) -> bool {
        self.reader.is_sha256(key)
    }

    pub fn is_signed(&self) -> bool {
        self.has(MESSAGE_INTEGRITY) || self.has(MESSAGE_INTEGRITY_SHA256)
    }
}

/// The hashes of the codec give the values of RFC 1321 appendix A.5, RFC 8489 section 9.2.2, RFC 2202 and RFC 4231, and
/// the check value of CRC-32.
#[test]
fn the_codec_matches_published_vectors() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(hex(md5(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
    assert_eq!(hex(md5(b"user:realm:pass")), "8493fbc53ba582fb4c044c456bdc40eb");
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    // RFC 2202 and RFC 4231: the second test case of each.
    let question = b"what do ya want for nothing?";
    assert_eq!(hex(hmac_sha1(b"Jefe", question)), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hex(hmac_sha256(b"Jefe", question)), expected);
}
