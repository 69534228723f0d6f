//! Send indications from clients, Data indications to them (RFC 8656 sections 11 and 18).

use std::net::SocketAddr;
use std::ops::Range;

use stun_types::attribute::AttributeWrite;

use super::WireError;
use super::attribute::{Icmp, is_understood, kind, read_xor, write_xor, xor_len};
use super::channel_data::padding;
use super::frame::Frame;
use super::message::{ATTRIBUTE_HEADER_LEN, HEADER_LEN, MAGIC_COOKIE, Message, MessageClass, method};

/// Class indication, method Data.
const DATA_INDICATION: u16 = 0x0017;

/// What a Send indication asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// XOR-PEER-ADDRESS.
    pub peer: SocketAddr,
    /// Where the value of DATA is in the message.
    pub payload: Range<usize>,
    /// Whether DONT-FRAGMENT is there.
    pub dont_fragment: bool,
}

/// Whether this is a Send indication.
pub fn is_send(message: &Message<'_>) -> bool {
    message.class() == MessageClass::Indication && message.method() == method::SEND
}

/// Reads a Send indication (section 11.2), without allocating. Integrity is not looked at: indications have none
/// (RFC 8489 section 9.2). An attribute that is required but unknown spoils it (RFC 8489 section 6.3.2).
pub fn parse_send(message: &Message<'_>) -> Result<Send, WireError> {
    if !is_send(message) {
        return Err(WireError::Incomplete);
    }
    let (mut peer, mut payload, mut dont_fragment) = (None, None, false);
    for attribute in message.attributes() {
        match attribute.kind {
            kind::XOR_PEER_ADDRESS if peer.is_none() => {
                let address = read_xor(attribute.value, message.transaction_id());
                peer = Some(address.ok_or(WireError::BadAttribute(attribute.kind))?);
            }
            kind::DATA if payload.is_none() => payload = Some(attribute.value_range()),
            kind::DONT_FRAGMENT if attribute.value.is_empty() => dont_fragment = true,
            kind::DONT_FRAGMENT => return Err(WireError::BadAttribute(attribute.kind)),
            other if !is_understood(other) => return Err(WireError::UnknownAttribute(other)),
            _ => {}
        }
    }
    match (peer, payload) {
        (Some(peer), Some(payload)) => Ok(Send { peer, payload, dont_fragment }),
        _ => Err(WireError::Incomplete),
    }
}

/// Makes the frame's bytes the DATA of a Data indication from `peer`: headers in front, zeros behind up to a
/// multiple of four. `None`, and nothing changed, when the frame has no room or the bytes are too many for STUN.
pub fn prepend_data(frame: &mut Frame, peer: SocketAddr, transaction_id: [u8; 12]) -> Option<()> {
    let payload_len = u16::try_from(frame.bytes().len()).ok()?;
    let padding = padding(payload_len.into());
    let address_end = HEADER_LEN + ATTRIBUTE_HEADER_LEN + xor_len(peer);
    let header_len = address_end + ATTRIBUTE_HEADER_LEN;
    let length = header_len - HEADER_LEN + usize::from(payload_len) + padding;
    let length = u16::try_from(length).ok()?;

    let header = frame.prepend(header_len)?;
    write_head(header, length, peer, transaction_id);
    header[address_end..address_end + 2].copy_from_slice(&kind::DATA.to_be_bytes());
    header[address_end + 2..].copy_from_slice(&payload_len.to_be_bytes());
    if frame.pad(padding).is_none() {
        frame.keep(header_len..usize::from(payload_len) + header_len);
        return None;
    }
    Some(())
}

/// A Data indication that tells the client about an ICMP error from the way to `peer` (section 11.5).
pub fn write_icmp(peer: SocketAddr, icmp: Icmp, transaction_id: [u8; 12]) -> Vec<u8> {
    let address_end = HEADER_LEN + ATTRIBUTE_HEADER_LEN + xor_len(peer);
    let mut message = vec![0; address_end + ATTRIBUTE_HEADER_LEN + 8];
    // At most 56 bytes.
    let length = (message.len() - HEADER_LEN) as u16;
    write_head(&mut message, length, peer, transaction_id);
    icmp.write_into_unchecked(&mut message[address_end..]);
    message
}

/// Writes the header and XOR-PEER-ADDRESS to the front of `head`, which has room for both.
fn write_head(head: &mut [u8], length: u16, peer: SocketAddr, transaction_id: [u8; 12]) {
    let (value, len) = write_xor(peer, transaction_id);
    head[..2].copy_from_slice(&DATA_INDICATION.to_be_bytes());
    head[2..4].copy_from_slice(&length.to_be_bytes());
    head[4..8].copy_from_slice(&MAGIC_COOKIE);
    head[8..HEADER_LEN].copy_from_slice(&transaction_id);
    let address = &mut head[HEADER_LEN..HEADER_LEN + ATTRIBUTE_HEADER_LEN + len];
    address[..2].copy_from_slice(&kind::XOR_PEER_ADDRESS.to_be_bytes());
    address[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    address[4..].copy_from_slice(&value[..len]);
}
