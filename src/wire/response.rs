//! Answers: success and error responses, encoded (RFC 8489 sections 6.3 and 14, RFC 8656 section 18).

use std::net::SocketAddr;

use stun_types::attribute::{AlternateServer, AttributeWrite, RawAttribute};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message as Encoder, MessageClass, MessageType, MessageWrite,
    MessageWriteExt, MessageWriteVec, Method,
};

use super::attribute::{
    AddressErrorCode, Family, Lifetime, ReservationToken, XorMappedAddress, XorRelayedAddress, kind,
};

/// Room for most answers without growing.
const CAPACITY: usize = 256;

/// Whether an error says in words what its number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No words: an answer to a stranger must stay small.
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
        // A method has 12 bits, so this does not leave the range that `Method::new` takes.
        let kind = MessageType::from_class_method(class, Method::new(method & 0xfff));
        let encoder =
            Encoder::builder(kind, u128::from_be_bytes(id).into(), MessageWriteVec::with_capacity(CAPACITY));
        Self { encoder, transaction_id }
    }

    /// Adds any attribute.
    pub fn attribute(mut self, attribute: &dyn AttributeWrite) -> Self {
        // The checks of `add_attribute` are about attributes behind integrity; that comes in `finish` only.
        self.encoder.push_attribute_unchecked(attribute);
        self
    }

    fn raw(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(&RawAttribute::new(kind.into(), value))
    }

    /// Adds XOR-MAPPED-ADDRESS: the client as we see it.
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

    /// Adds ADDRESS-ERROR-CODE: this family of a dual allocation could not be had.
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

    /// The encoded message, with integrity when a key is given, and FINGERPRINT last when asked for.
    pub fn finish(
        mut self,
        integrity: Option<(&IntegrityKey, IntegrityAlgorithm)>,
        fingerprint: bool,
    ) -> Vec<u8> {
        // Both can only fail when such an attribute is there already, and nothing here adds one before.
        if let Some((key, algorithm)) = integrity {
            let _ = self.encoder.add_message_integrity_with_key(key, algorithm);
        }
        if fingerprint {
            let _ = self.encoder.add_fingerprint();
        }
        self.encoder.finish()
    }
}

/// The RFCs' phrase for a code (RFC 8489 section 14.8, RFC 8656 section 19); empty for others.
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
