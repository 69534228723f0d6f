//! Encodes requests and Send indications into a buffer of the caller (RFC 8489 section 5, RFC 8656 section 11.1).

use std::net::SocketAddr;

use stun_types::attribute::{MessageIntegrity, MessageIntegritySha256};

use super::attribute::{kind, write_xor};
use super::message::{HEADER_LEN, IntegrityAlgorithm, IntegrityKey, MAGIC_COOKIE, method};

/// The longest DATA that a Send indication for any peer can carry: the maximum of STUN's length field, less an IPv6
/// XOR-PEER-ADDRESS, DONT-FRAGMENT and the header of DATA.
pub const DATA_MAX: usize = 65_532 - 24 - 4 - 4;

/// Class indication.
const INDICATION: u16 = 0x0010;

/// A message under construction. The caller keeps it below 64 KiB; its values are names, nonces and addresses.
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    transaction_id: [u8; 12],
}

impl<'a> Writer<'a> {
    /// Begins a request without attributes. Clears the buffer.
    pub fn request(bytes: &'a mut Vec<u8>, method: u16, transaction_id: [u8; 12]) -> Self {
        Self::new(bytes, method_bits(method), transaction_id)
    }

    fn new(bytes: &'a mut Vec<u8>, kind: u16, transaction_id: [u8; 12]) -> Self {
        bytes.clear();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE);
        bytes.extend_from_slice(&transaction_id);
        Self { bytes, transaction_id }
    }

    /// Appends an attribute, padded with zeros.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.head(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
    }

    /// Appends XOR-PEER-ADDRESS.
    pub fn peer(&mut self, peer: SocketAddr) {
        let (value, len) = write_xor(peer, self.transaction_id);
        self.attribute(kind::XOR_PEER_ADDRESS, &value[..len]);
    }

    /// Appends MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5 and 14.6). Only FINGERPRINT may
    /// follow.
    pub fn sign(&mut self, key: &IntegrityKey, algorithm: IntegrityAlgorithm) {
        // Both attributes have a header of four bytes. Neither computation can fail: any key is accepted.
        match algorithm {
            IntegrityAlgorithm::Sha1 => {
                self.set_length(4 + 20);
                if let Ok(hash) = MessageIntegrity::compute(&[&*self.bytes], key) {
                    self.attribute(kind::MESSAGE_INTEGRITY, &hash);
                }
            }
            IntegrityAlgorithm::Sha256 => {
                self.set_length(4 + 32);
                if let Ok(hash) = MessageIntegritySha256::compute(&[&*self.bytes], key) {
                    self.attribute(kind::MESSAGE_INTEGRITY_SHA256, &hash);
                }
            }
        }
    }

    fn head(&mut self, kind: u16, len: usize) {
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_be_bytes());
    }

    /// Sets the length field to the current attributes and `more` bytes to come.
    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - HEADER_LEN + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes the part of a Send indication before the payload. Clears the buffer. The caller appends the payload and its padding
/// to a multiple of four. `payload_len` is at most [`DATA_MAX`].
pub fn write_send_head(
    bytes: &mut Vec<u8>,
    peer: SocketAddr,
    payload_len: usize,
    dont_fragment: bool,
    transaction_id: [u8; 12],
) {
    let mut writer = Writer::new(bytes, method_bits(method::SEND) | INDICATION, transaction_id);
    writer.peer(peer);
    if dont_fragment {
        writer.attribute(kind::DONT_FRAGMENT, &[]);
    }
    writer.head(kind::DATA, payload_len);
    writer.set_length(payload_len.next_multiple_of(4));
}

/// The bits of a method around the two of the class (RFC 8489 section 5).
const fn method_bits(method: u16) -> u16 {
    method & 0xf | (method & 0x70) << 1 | (method & 0xf80) << 2
}

#[cfg(test)]
mod tests {
    use stun_types::message::LongTermKeyCredentials;

    use super::*;
    use crate::wire::indication::{Send, parse_send};
    use crate::wire::message::Message;
    use crate::wire::vectors::{self, ID};

    #[test]
    fn a_request_and_its_attributes() {
        let mut bytes = vec![9; 3];
        let mut writer = Writer::request(&mut bytes, method::CREATE_PERMISSION, ID);
        writer.attribute(kind::LIFETIME, &[0, 0, 2, 0x58]);
        writer.attribute(kind::USERNAME, b"abcde");
        writer.peer("192.0.2.1:32853".parse().expect("literal"));
        let peer = [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        let literal = vectors::message(
            0x0008,
            &[
                (kind::LIFETIME, &[0, 0, 2, 0x58]),
                (kind::USERNAME, b"abcde"),
                (kind::XOR_PEER_ADDRESS, &peer),
            ],
        );
        assert_eq!(bytes, literal);
        Writer::request(&mut bytes, 0xfff, ID);
        assert_eq!(bytes[..2], [0x3e, 0xef], "every bit of a method");
    }

    /// Chromium's and the RFC's own messages, written again from their parts, are the same byte for byte.
    #[test]
    fn integrity_matches_other_implementations() {
        let matrix = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
        for (literal, name, password, algorithm) in [
            (vectors::chromium_allocate_authenticated(), "user", "pass", IntegrityAlgorithm::Sha1),
            (vectors::rfc8489_sha256(), matrix, "TheMatrIX", IntegrityAlgorithm::Sha256),
        ] {
            let message = Message::parse(&literal).expect("valid");
            let realm = "example.org".to_owned();
            let key =
                LongTermKeyCredentials::new(name.to_owned(), password.to_owned(), realm).make_key(algorithm);
            let mut bytes = Vec::new();
            let mut writer = Writer::request(&mut bytes, message.method(), message.transaction_id());
            message.attributes().for_each(|attribute| writer.attribute(attribute.kind, attribute.value));
            writer.sign(&key, algorithm);
            assert_eq!(bytes, literal);
        }
    }

    #[test]
    fn a_send_indication_is_read_as_one() {
        for (peer, dont_fragment, len) in
            [("192.0.2.1:32853", false, 5_usize), ("[2001:db8::1]:7", true, DATA_MAX)]
        {
            let peer = peer.parse().expect("literal");
            let mut bytes = Vec::new();
            write_send_head(&mut bytes, peer, len, dont_fragment, ID);
            let start = bytes.len();
            bytes.resize(start + len.next_multiple_of(4), 7);
            let send = parse_send(&Message::parse(&bytes).expect("valid"));
            assert_eq!(send, Ok(Send { peer, payload: start..start + len, dont_fragment }));
        }
    }
}
