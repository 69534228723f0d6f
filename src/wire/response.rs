//! Encodes success and error responses (RFC 8489 sections 6.3 and 14, RFC 8656 section 18).

use std::net::SocketAddr;

use stun_types::attribute::{AlternateServer, AttributeWrite, RawAttribute};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message as Encoder, MessageClass, MessageType, MessageWrite,
    MessageWriteExt, MessageWriteVec, Method,
};

use super::attribute::{
    AddressErrorCode, Lifetime, ReservationToken, XorMappedAddress, XorRelayedAddress, kind,
};
use crate::base::family::Family;

/// Initial capacity, enough for most answers.
const CAPACITY: usize = 256;

/// Whether an error response has a reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No phrase: an answer to an unauthenticated sender must stay small.
    Empty,
    /// The short phrase of the RFC.
    Phrase,
}

/// An answer under construction.
#[derive(Debug)]
pub struct Response {
    encoder: MessageWriteVec,
    transaction_id: [u8; 12],
}

impl Response {
    /// A success response to a request of this method and transaction.
    pub fn success(method: u16, transaction_id: [u8; 12]) -> Self {
        Self::new(method, transaction_id, MessageClass::Success)
    }

    /// An error response with ERROR-CODE `code`, 300 to 699.
    pub fn error(method: u16, transaction_id: [u8; 12], code: u16, reason: Reason) -> Self {
        let phrase = match reason {
            Reason::Empty => "",
            Reason::Phrase => phrase(code),
        };
        let mut value = vec![0, 0, (code / 100) as u8 & 7, (code % 100) as u8];
        value.extend(phrase.as_bytes());
        Self::new(method, transaction_id, MessageClass::Error).raw(kind::ERROR_CODE, &value)
    }

    fn new(method: u16, transaction_id: [u8; 12], class: MessageClass) -> Self {
        let mut id = [0; 16];
        id[4..].copy_from_slice(&transaction_id);
        // A method has 12 bits; `Method::new` takes no more.
        let kind = MessageType::from_class_method(class, Method::new(method & 0xfff));
        let encoder =
            Encoder::builder(kind, u128::from_be_bytes(id).into(), MessageWriteVec::with_capacity(CAPACITY));
        Self { encoder, transaction_id }
    }

    /// Adds any attribute.
    pub fn attribute(mut self, attribute: &dyn AttributeWrite) -> Self {
        // The check that is skipped refuses attributes after integrity, which only `finish` adds.
        self.encoder.push_attribute_unchecked(attribute);
        self
    }

    fn raw(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(&RawAttribute::new(kind.into(), value))
    }

    /// Adds XOR-MAPPED-ADDRESS: the client's address as the server sees it.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let attribute = XorMappedAddress::new(address, self.transaction_id);
        self.attribute(&attribute)
    }

    /// Adds XOR-RELAYED-ADDRESS; once per family.
    pub fn xor_relayed_address(self, address: SocketAddr) -> Self {
        let attribute = XorRelayedAddress::new(address, self.transaction_id);
        self.attribute(&attribute)
    }

    /// Adds LIFETIME, seconds.
    pub fn lifetime(self, seconds: u32) -> Self {
        self.attribute(&Lifetime(seconds))
    }

    /// Adds RESERVATION-TOKEN.
    pub fn reservation_token(self, token: [u8; 8]) -> Self {
        self.attribute(&ReservationToken(token))
    }

    /// Adds ADDRESS-ERROR-CODE: why a dual allocation has no relayed address of this family.
    pub fn address_error(self, family: Family, code: u16) -> Self {
        self.attribute(&AddressErrorCode { family: Ok(family), code })
    }

    /// Adds REALM.
    pub fn realm(self, realm: &str) -> Self {
        self.raw(kind::REALM, realm.as_bytes())
    }

    /// Adds NONCE.
    pub fn nonce(self, nonce: &[u8]) -> Self {
        self.raw(kind::NONCE, nonce)
    }

    /// Adds PASSWORD-ALGORITHMS: its whole value, in our order of preference (RFC 8489 section 14.11).
    pub fn password_algorithms(self, value: &[u8]) -> Self {
        self.raw(kind::PASSWORD_ALGORITHMS, value)
    }

    /// Adds UNKNOWN-ATTRIBUTES, for 420.
    pub fn unknown_attributes(self, kinds: &[u16]) -> Self {
        let value: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.raw(kind::UNKNOWN_ATTRIBUTES, &value)
    }

    /// Adds ALTERNATE-SERVER, for 300.
    pub fn alternate_server(self, address: SocketAddr) -> Self {
        self.attribute(&AlternateServer::new(address))
    }

    /// Adds SOFTWARE.
    pub fn software(self, name: &str) -> Self {
        self.raw(kind::SOFTWARE, name.as_bytes())
    }

    /// Encodes the message, with integrity if there is a key, and with FINGERPRINT last if requested.
    pub fn finish(
        mut self,
        integrity: Option<(&IntegrityKey, IntegrityAlgorithm)>,
        fingerprint: bool,
    ) -> Vec<u8> {
        // Both fail only if such an attribute is present already, and only this function adds one.
        if let Some((key, algorithm)) = integrity {
            let _ = self.encoder.add_message_integrity_with_key(key, algorithm);
        }
        if fingerprint {
            let _ = self.encoder.add_fingerprint();
        }
        self.encoder.finish()
    }
}

/// The reason phrase of the RFCs for a code (RFC 8489 section 14.8, RFC 8656 section 19); empty for other codes.
fn phrase(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        486 => "Allocation Quota Reached",
        500 => "Server Error",
        508 => "Insufficient Capacity",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use stun_types::message::LongTermKeyCredentials;

    use super::super::message::Message;
    use super::*;
    use crate::wire::attribute::read_xor;
    use crate::wire::message::method;
    use crate::wire::vectors::{self, ID};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    /// Builds an answer to a request with `method`.
    fn answer(method: u16, build: impl FnOnce(&Message<'_>) -> Vec<u8>) -> Vec<u8> {
        build(&Message::parse(&vectors::message(method, &[])).expect("well-formed"))
    }

    fn key(algorithm: IntegrityAlgorithm) -> IntegrityKey {
        LongTermKeyCredentials::new("user".into(), "pass".into(), "example.org".into()).make_key(algorithm)
    }

    #[test]
    fn a_challenge_is_small() {
        let bytes = answer(method::ALLOCATE, |request| {
            Response::error(request.method(), request.transaction_id(), 401, Reason::Empty)
                .realm("r.org")
                .nonce(b"nonce")
                .finish(None, false)
        });
        let literal = vectors::message(
            0x0113,
            &[(kind::ERROR_CODE, &[0, 0, 4, 1]), (kind::REALM, b"r.org"), (kind::NONCE, b"nonce")],
        );
        assert_eq!(bytes, literal);
    }

    #[test]
    fn errors_can_have_a_reason_phrase() {
        for (code, words) in
            [(400, "Bad Request"), (437, "Allocation Mismatch"), (508, "Insufficient Capacity")]
        {
            let bytes = answer(method::REFRESH, |request| {
                Response::error(request.method(), request.transaction_id(), code, Reason::Phrase)
                    .finish(None, false)
            });
            let value = [&[0, 0, (code / 100) as u8, (code % 100) as u8], words.as_bytes()].concat();
            assert_eq!(bytes, vectors::message(0x0114, &[(kind::ERROR_CODE, &value)]));
        }
    }

    #[test]
    fn a_success_response_to_allocate_parses_with_all_its_attributes() {
        let relayed = [address("198.51.100.10:50000"), address("[2001:db8::10]:50001")];
        for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
            let bytes = answer(method::ALLOCATE, |request| {
                Response::success(request.method(), request.transaction_id())
                    .xor_relayed_address(relayed[0])
                    .xor_relayed_address(relayed[1])
                    .xor_mapped_address(address("192.0.2.1:32853"))
                    .lifetime(600)
                    .reservation_token([7; 8])
                    .address_error(Family::V6, 440)
                    .software("x")
                    .finish(Some((&key(algorithm), algorithm)), true)
            });
            let message = Message::parse(&bytes).expect("valid, with FINGERPRINT");
            assert_eq!((message.class(), message.method()), (MessageClass::Success, method::ALLOCATE));
            assert_eq!(message.transaction_id(), ID);
            assert!(message.has_fingerprint() && message.verify(&key(algorithm), algorithm));
            assert_eq!(message.integrity(), Some(algorithm));
            let addresses: Vec<_> = message
                .attributes()
                .filter(|attribute| attribute.kind == kind::XOR_RELAYED_ADDRESS)
                .filter_map(|attribute| read_xor(attribute.value, ID))
                .collect();
            assert_eq!(addresses, relayed);
            let value = |kind| message.attribute(kind).map(|attribute| attribute.value.to_vec());
            assert_eq!(value(kind::XOR_MAPPED_ADDRESS), Some(vec![0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]));
            assert_eq!(value(kind::LIFETIME), Some(vec![0, 0, 2, 0x58]));
            assert_eq!(value(kind::RESERVATION_TOKEN), Some(vec![7; 8]));
            assert_eq!(value(kind::ADDRESS_ERROR_CODE), Some(vec![2, 0, 4, 40]));
        }
    }

    #[test]
    fn attributes_with_lists_and_padding_are_encoded() {
        let bytes = answer(method::BINDING, |request| {
            Response::error(request.method(), request.transaction_id(), 420, Reason::Empty)
                .unknown_attributes(&[0x7001, 0x7002, 0x7003])
                .password_algorithms(&[0, 2, 0, 0, 0, 1, 0, 0])
                .alternate_server(address("192.0.2.1:3478"))
                .software("abcde")
                .finish(None, false)
        });
        let literal = vectors::message(
            0x0111,
            &[
                (kind::ERROR_CODE, &[0, 0, 4, 20]),
                (kind::UNKNOWN_ATTRIBUTES, &[0x70, 1, 0x70, 2, 0x70, 3]),
                (kind::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]),
                (kind::ALTERNATE_SERVER, &[0, 1, 0x0d, 0x96, 192, 0, 2, 1]),
                (kind::SOFTWARE, b"abcde"),
            ],
        );
        assert_eq!(bytes, literal);
    }

    #[test]
    fn every_method_keeps_its_number() {
        for method in [0x000, 0x001, 0x080, 0xfff] {
            // The method's bits around the two of the class (RFC 8489 section 5).
            let kind = method & 0xf | (method & 0x70) << 1 | (method & 0xf80) << 2;
            let bytes = answer(kind, |request| {
                Response::success(request.method(), request.transaction_id()).finish(None, false)
            });
            let message = Message::parse(&bytes).expect("valid");
            assert_eq!((message.class(), message.method()), (MessageClass::Success, method));
        }
    }
}
