//! Strict parsing of STUN messages (RFC 8489 sections 5, 6.3 and 14).
//!
//! `stun_types` 2.0.4 parses messages too, but it takes bytes after the message for attributes, ignores a FINGERPRINT after
//! an attribute it does not expect, allows a length that is not a multiple of four, and logs a warning per malformed
//! datagram, which anybody could use to fill a disk. So the structure is checked here, once and without a log line. The crate
//! computes integrity, defines types and writes messages, including FINGERPRINT. FINGERPRINT is checked here as well, because
//! the crate computes it one byte at a time: 160 microseconds for 64 KiB.

use std::ops::Range;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use stun_types::attribute::{Fingerprint, MessageIntegrity, MessageIntegritySha256};
use stun_types::message::MessageType;
use subtle::ConstantTimeEq;

pub use stun_types::message::{IntegrityAlgorithm, IntegrityKey, MessageClass};

use super::WireError;
use super::attribute::kind;
use super::channel_data::padded_len;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 20;

/// Length of an attribute's header in bytes.
pub const ATTRIBUTE_HEADER_LEN: usize = 4;

/// The most attributes of one message. In a request, which has at most 2 KiB, more attributes would have less than four bytes of
/// value each; a CreatePermission has room for fewer than 170 IPv4 peers. Without this limit, a Send indication of 64 KiB could
/// have 16,000 empty attributes, which take 130 microseconds to read.
pub const ATTRIBUTES_MAX: usize = 256;
/// The same for an indication, of which anybody may send many: no limit of requests applies. A Send has five at most.
pub const INDICATION_ATTRIBUTES_MAX: usize = 16;

/// CRC-32 of FINGERPRINT (RFC 8489 section 14.7), 16 bytes at a time.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// Bytes 4 to 8 of every STUN message (RFC 8489 section 5).
pub const MAGIC_COOKIE: [u8; 4] = stun_types::message::MAGIC_COOKIE.to_be_bytes();

/// Methods (RFC 8489 section 18.1, RFC 8656 section 17).
pub mod method {
    /// Binding.
    pub const BINDING: u16 = 0x001;
    /// Allocate.
    pub const ALLOCATE: u16 = 0x003;
    /// Refresh.
    pub const REFRESH: u16 = 0x004;
    /// Send, an indication.
    pub const SEND: u16 = 0x006;
    /// Data, an indication.
    pub const DATA: u16 = 0x007;
    /// CreatePermission.
    pub const CREATE_PERMISSION: u16 = 0x008;
    /// ChannelBind.
    pub const CHANNEL_BIND: u16 = 0x009;
}

/// A well-formed STUN message: a view of borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: MessageType,
    /// The end of the attributes that count.
    end: usize,
    sha1: Option<usize>,
    sha256: Option<usize>,
    fingerprint: bool,
}

/// One attribute: a view of borrowed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// The type.
    pub kind: u16,
    /// The value without padding.
    pub value: &'a [u8],
    /// The position of the attribute's header in the message.
    pub offset: usize,
}

impl RawAttribute<'_> {
    /// The position of the value in the message.
    pub fn value_range(&self) -> Range<usize> {
        let start = self.offset + ATTRIBUTE_HEADER_LEN;
        start..start + self.value.len()
    }

    fn next_offset(&self) -> usize {
        padded_len(self.value_range().end)
    }
}

/// Returns the header of exactly one message. Checks cookie and length, and reads no attribute.
///
/// # Errors
/// `Short`, `Cookie` or `Length`.
pub fn header(bytes: &[u8]) -> Result<&[u8; HEADER_LEN], WireError> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(WireError::Short)?;
    if header[4..8] != MAGIC_COOKIE {
        return Err(WireError::Cookie);
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if !length.is_multiple_of(4) || HEADER_LEN + length != bytes.len() {
        return Err(WireError::Length);
    }
    Ok(header)
}

impl<'a> Message<'a> {
    /// Parses exactly one message. FINGERPRINT, if present, must be last and correct.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes)?;
        let kind = MessageType::from_bytes(&header[..2]).map_err(|_| WireError::WrongKind)?;
        let mut message =
            Self { bytes, kind, end: bytes.len(), sha1: None, sha256: None, fingerprint: false };
        message.walk()?;
        Ok(message)
    }

    /// Checks all attributes and stores the positions of integrity and fingerprint.
    fn walk(&mut self) -> Result<(), WireError> {
        let most = match self.class() {
            MessageClass::Indication => INDICATION_ATTRIBUTES_MAX,
            _ => ATTRIBUTES_MAX,
        };
        let (mut offset, mut after_sha1, mut count) = (HEADER_LEN, None, 0);
        while offset < self.bytes.len() {
            count += 1;
            if count > most {
                return Err(WireError::TooManyAttributes);
            }
            if self.fingerprint {
                return Err(WireError::FingerprintNotLast);
            }
            let attribute = attribute_at(self.bytes, offset).ok_or(WireError::AttributeOverrun)?;
            // After an integrity attribute all others are ignored, except MESSAGE-INTEGRITY-SHA256 directly after
            // MESSAGE-INTEGRITY, and FINGERPRINT (RFC 8489 sections 14.5 to 14.7).
            let covered = self.sha1.is_none() && self.sha256.is_none();
            match attribute.kind {
                kind::MESSAGE_INTEGRITY if covered => {
                    self.sha1 = Some(offset);
                    after_sha1 = Some(attribute.next_offset());
                    self.end = offset;
                }
                kind::MESSAGE_INTEGRITY_SHA256 if covered || after_sha1 == Some(offset) => {
                    self.sha256 = Some(offset);
                    self.end = self.end.min(offset);
                }
                kind::FINGERPRINT => {
                    self.check_fingerprint(&attribute)?;
                    self.fingerprint = true;
                    self.end = self.end.min(offset);
                }
                _ => {}
            }
            offset = attribute.next_offset();
        }
        Ok(())
    }

    fn check_fingerprint(&self, attribute: &RawAttribute<'_>) -> Result<(), WireError> {
        let raw = stun_types::attribute::RawAttribute::new(kind::FINGERPRINT.into(), attribute.value);
        let sent = Fingerprint::try_from(&raw).map_err(|_| WireError::FingerprintMismatch)?;
        let (header, body) = self.input_up_to(attribute);
        let mut crc = CRC.digest();
        crc.update(&header);
        crc.update(body);
        if crc.finalize().to_be_bytes() != *sent.fingerprint() {
            return Err(WireError::FingerprintMismatch);
        }
        Ok(())
    }

    /// The input of FINGERPRINT and of the integrity attributes: everything before the attribute, with a header whose length
    /// includes the attribute and nothing after it.
    fn input_up_to(&self, attribute: &RawAttribute<'_>) -> ([u8; 4], &'a [u8]) {
        // A message is at most 65,552 bytes, so what follows its header fits the field.
        let [high, low] = ((attribute.next_offset() - HEADER_LEN) as u16).to_be_bytes();
        ([self.bytes[0], self.bytes[1], high, low], &self.bytes[4..attribute.offset])
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> MessageClass {
        self.kind.class()
    }

    /// The method, one of [`method`] or unknown.
    pub fn method(&self) -> u16 {
        self.kind.method().value()
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> [u8; 12] {
        let mut id = [0; 12];
        // `parse` saw a whole header.
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        id
    }

    /// The attributes that may be acted upon, in order: those before integrity and fingerprint.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: &self.bytes[..self.end], offset: HEADER_LEN }
    }

    /// The first attribute of a type; later ones of the same type are ignored (RFC 8489 section 14).
    pub fn attribute(&self, kind: u16) -> Option<RawAttribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// Whether there is a FINGERPRINT. [`Message::parse`] has checked it.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether there is a MESSAGE-INTEGRITY that counts.
    pub fn has_sha1(&self) -> bool {
        self.sha1.is_some()
    }

    /// Whether there is a MESSAGE-INTEGRITY-SHA256 that counts.
    pub fn has_sha256(&self) -> bool {
        self.sha256.is_some()
    }

    /// The integrity that must verify: SHA-256 if it is present, so that damaging it is no downgrade to SHA-1.
    pub fn integrity(&self) -> Option<IntegrityAlgorithm> {
        match (self.sha1, self.sha256) {
            (_, Some(_)) => Some(IntegrityAlgorithm::Sha256),
            (Some(_), None) => Some(IntegrityAlgorithm::Sha1),
            (None, None) => None,
        }
    }

    /// Whether the integrity attribute of `algorithm` is present and correct, compared in constant time. The bytes of
    /// `key` are used as they are, so that a key from MD5 serves both algorithms (RFC 8489 section 9.2.2; the
    /// crate's own check refuses that). TURN does not allow a truncated SHA-256 (section 14.6).
    pub fn verify(&self, key: &IntegrityKey, algorithm: IntegrityAlgorithm) -> bool {
        let offset = match algorithm {
            IntegrityAlgorithm::Sha1 => self.sha1,
            IntegrityAlgorithm::Sha256 => self.sha256,
        };
        let Some(attribute) = offset.and_then(|offset| attribute_at(self.bytes, offset)) else {
            return false;
        };
        let (header, body) = self.input_up_to(&attribute);
        let (input, sent) = ([&header[..], body], attribute.value);
        match algorithm {
            IntegrityAlgorithm::Sha1 => {
                MessageIntegrity::compute(&input, key).is_ok_and(|computed| computed[..].ct_eq(sent).into())
            }
            IntegrityAlgorithm::Sha256 => MessageIntegritySha256::compute(&input, key)
                .is_ok_and(|computed| computed[..].ct_eq(sent).into()),
        }
    }
}

/// The attribute at `offset`; `None` if it reaches past the end.
fn attribute_at(bytes: &[u8], offset: usize) -> Option<RawAttribute<'_>> {
    let (header, rest) = bytes.get(offset..)?.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
    let [kind, length] = [[header[0], header[1]], [header[2], header[3]]].map(u16::from_be_bytes);
    Some(RawAttribute { kind, value: rest.get(..length.into())?, offset })
}

/// Iterator over the attributes of a parsed message.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<RawAttribute<'a>> {
        let attribute = attribute_at(self.bytes, self.offset)?;
        self.offset = attribute.next_offset();
        Some(attribute)
    }
}

#[cfg(test)]
mod tests;
