//! Send indications from clients, Data indications to them (RFC 8656 sections 11 and 18).

use std::net::SocketAddr;
use std::ops::Range;

use stun_types::attribute::AttributeWrite;

use super::WireError;
use super::attribute::{Icmp, is_understood, kind, read_xor, write_xor, xor_len};
use super::channel_data::padding;
use super::frame::Frame;
use super::message::{
    ATTRIBUTE_HEADER_LEN, HEADER_LEN, MAGIC_COOKIE, Message, MessageClass, RawAttribute, method,
};

/// Class indication, method Data.
const DATA_INDICATION: u16 = 0x0017;

/// The contents of a Send indication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// XOR-PEER-ADDRESS.
    pub peer: SocketAddr,
    /// The position of the value of DATA in the message.
    pub payload: Range<usize>,
    /// Whether DONT-FRAGMENT is present.
    pub dont_fragment: bool,
}

/// Whether this is a Send indication.
pub fn is_send(message: &Message<'_>) -> bool {
    is_indication(message, method::SEND)
}

fn is_indication(message: &Message<'_>, method: u16) -> bool {
    message.class() == MessageClass::Indication && message.method() == method
}

/// Reads a Send indication (section 11.2), without allocating. Integrity is not checked: indications have none
/// (RFC 8489 section 9.2).
///
/// # Errors
/// - [`WireError::Incomplete`] if the message is not a Send indication, or has no peer or no DATA;
/// - [`WireError::BadAttribute`] for an attribute with a wrong length or address family;
/// - [`WireError::UnknownAttribute`] for one that is required but unknown (RFC 8489 section 6.3.2).
pub fn parse_send(message: &Message<'_>) -> Result<Send, WireError> {
    let mut dont_fragment = false;
    let (peer, payload) = read_peer_and_data(message, method::SEND, |attribute| match attribute.kind {
        kind::DONT_FRAGMENT if attribute.value.is_empty() => {
            dont_fragment = true;
            Ok(())
        }
        kind::DONT_FRAGMENT => Err(WireError::BadAttribute(attribute.kind)),
        _ => Ok(()),
    })?;
    let payload = payload.ok_or(WireError::Incomplete)?;
    Ok(Send { peer, payload, dont_fragment })
}

/// Reads the attributes that Send and Data indications share: the peer, and the position of the value of DATA. Passes every
/// other known attribute to `other`. If a type occurs more than once, the first counts.
fn read_peer_and_data(
    message: &Message<'_>,
    method: u16,
    mut other: impl FnMut(RawAttribute<'_>) -> Result<(), WireError>,
) -> Result<(SocketAddr, Option<Range<usize>>), WireError> {
    if !is_indication(message, method) {
        return Err(WireError::Incomplete);
    }
    let (mut peer, mut payload) = (None, None);
    for attribute in message.attributes() {
        match attribute.kind {
            kind::XOR_PEER_ADDRESS if peer.is_none() => {
                let address = read_xor(attribute.value, message.transaction_id());
                peer = Some(address.ok_or(WireError::BadAttribute(attribute.kind))?);
            }
            kind::DATA if payload.is_none() => payload = Some(attribute.value_range()),
            unknown if !is_understood(unknown) => return Err(WireError::UnknownAttribute(unknown)),
            _ => other(attribute)?,
        }
    }
    Ok((peer.ok_or(WireError::Incomplete)?, payload))
}

/// The contents of a Data indication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// XOR-PEER-ADDRESS: the peer.
    pub peer: SocketAddr,
    /// DATA, or an ICMP error from the path to the peer.
    pub content: Content,
}

/// The payload or error of a Data indication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The position of the value of DATA in the message.
    Payload(Range<usize>),
    /// ICMP (section 11.6).
    Icmp(Icmp),
}

/// Reads a Data indication (section 11.4), without allocating. If both are present, DATA counts and ICMP does not.
///
/// # Errors
/// - [`WireError::Incomplete`] if the message is not a Data indication, or has no peer or neither DATA nor ICMP;
/// - [`WireError::BadAttribute`] for an attribute with a wrong length or address family;
/// - [`WireError::UnknownAttribute`] for one that is required but unknown (RFC 8489 section 6.3.2).
pub fn parse_data(message: &Message<'_>) -> Result<Data, WireError> {
    let mut icmp = None;
    let (peer, payload) = read_peer_and_data(message, method::DATA, |attribute| {
        if attribute.kind == kind::ICMP && icmp.is_none() {
            icmp = Some(Icmp::decode(attribute.value).ok_or(WireError::BadAttribute(attribute.kind))?);
        }
        Ok(())
    })?;
    let content = payload.map(Content::Payload).or(icmp.map(Content::Icmp));
    Ok(Data { peer, content: content.ok_or(WireError::Incomplete)? })
}

/// Wraps the frame's bytes into a Data indication from `peer`: adds the headers before them, and zeros up to a multiple of four
/// after them. Returns `None` and changes nothing if the frame has no room or the message would be too long for STUN.
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

/// Encodes a Data indication about an ICMP error from the path to `peer` (section 11.5).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::{DATAGRAM_MAX, HEADROOM};
    use crate::wire::vectors::{self, ID};

    const SEND: u16 = 0x0016;
    const PEER: [u8; 8] = [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn parse(attributes: &[(u16, &[u8])]) -> Result<Send, WireError> {
        let bytes = vectors::message(SEND, attributes);
        parse_send(&Message::parse(&bytes).expect("well-formed"))
    }

    #[test]
    fn chromium_send() {
        let bytes = vectors::chromium_send();
        let message = Message::parse(&bytes).expect("valid");
        let send = parse_send(&message).expect("valid");
        assert!(send.peer.ip().is_loopback() && !send.dont_fragment);
        assert_eq!(send.payload, 36..136);
        Message::parse(&bytes[send.payload]).expect("Chromium sends an ICE check");
    }

    #[test]
    fn the_parts_of_a_send() {
        let send = parse(&[(kind::DATA, b"hello"), (kind::XOR_PEER_ADDRESS, &PEER)]).expect("any order");
        assert_eq!((send.peer, send.payload), (address("192.0.2.1:32853"), 24..29));
        let send = parse(&[(kind::XOR_PEER_ADDRESS, &PEER), (kind::DONT_FRAGMENT, b""), (kind::DATA, b"")]);
        assert_eq!(send, Ok(Send { peer: address("192.0.2.1:32853"), payload: 40..40, dont_fragment: true }));
        let twice = parse(&[(kind::XOR_PEER_ADDRESS, &PEER), (kind::DATA, b"1"), (kind::DATA, b"22")]);
        assert_eq!(twice.expect("the first counts").payload, 36..37);
    }

    #[test]
    fn malformed_sends_are_refused() {
        let (peer, data) = ((kind::XOR_PEER_ADDRESS, &PEER[..]), (kind::DATA, &b"x"[..]));
        assert_eq!(parse(&[peer]), Err(WireError::Incomplete));
        assert_eq!(parse(&[data]), Err(WireError::Incomplete));
        let bad_peer = WireError::BadAttribute(kind::XOR_PEER_ADDRESS);
        assert_eq!(parse(&[(kind::XOR_PEER_ADDRESS, &PEER[..7]), data]), Err(bad_peer));
        let bad_flag = WireError::BadAttribute(kind::DONT_FRAGMENT);
        assert_eq!(parse(&[peer, (kind::DONT_FRAGMENT, &[0]), data]), Err(bad_flag));
        assert_eq!(parse(&[peer, data, (0x7abc, b"")]), Err(WireError::UnknownAttribute(0x7abc)));
        assert!(parse(&[peer, data, (0xfabc, b"")]).is_ok());
        let request = vectors::message(0x0006, &[peer, data]);
        let request = Message::parse(&request).expect("well-formed");
        assert_eq!(parse_send(&request), Err(WireError::Incomplete));
    }

    #[test]
    fn a_data_indication() {
        let mut frame = Frame::new();
        frame.fill(b"hello");
        prepend_data(&mut frame, address("192.0.2.1:32853"), ID).expect("room");
        let literal =
            vectors::message(DATA_INDICATION, &[(kind::XOR_PEER_ADDRESS, &PEER), (kind::DATA, b"hello")]);
        // The mask of an IPv4 address is the cookie alone, so PEER holds for any transaction id.
        assert_eq!(frame.bytes(), literal);
    }

    #[test]
    fn the_parts_of_a_data_indication() {
        let parse = |kind, attributes: &[(u16, &[u8])]| {
            parse_data(&Message::parse(&vectors::message(kind, attributes)).expect("well-formed"))
        };
        let (peer, data) = ((kind::XOR_PEER_ADDRESS, &PEER[..]), (kind::DATA, &b"hello"[..]));
        let icmp = (kind::ICMP, &[0, 0, 3, 4, 0, 0, 5, 0xdc][..]);
        let from = address("192.0.2.1:32853");
        let payload = Data { peer: from, content: Content::Payload(36..41) };
        assert_eq!(parse(DATA_INDICATION, &[peer, data]), Ok(payload.clone()));
        assert_eq!(parse(DATA_INDICATION, &[peer, data, icmp]), Ok(payload));
        let error = Icmp { icmp_type: 3, code: 4, data: [0, 0, 5, 0xdc] };
        assert_eq!(
            parse(DATA_INDICATION, &[peer, icmp]),
            Ok(Data { peer: from, content: Content::Icmp(error) })
        );
        for incomplete in [&[peer][..], &[data], &[icmp]] {
            assert_eq!(parse(DATA_INDICATION, incomplete), Err(WireError::Incomplete));
        }
        assert_eq!(parse(SEND, &[peer, data]), Err(WireError::Incomplete));
        let unknown = parse(DATA_INDICATION, &[peer, data, (0x7abc, b"")]);
        assert_eq!(unknown, Err(WireError::UnknownAttribute(0x7abc)));
        let short = parse(DATA_INDICATION, &[peer, (kind::ICMP, &[0; 7])]);
        assert_eq!(short, Err(WireError::BadAttribute(kind::ICMP)));
    }

    #[test]
    fn an_icmp_indication() {
        let icmp = Icmp { icmp_type: 3, code: 4, data: [0, 0, 0x05, 0xdc] };
        let written = write_icmp(address("192.0.2.1:32853"), icmp, ID);
        let value: &[u8] = &[0, 0, 3, 4, 0, 0, 5, 0xdc];
        let literal =
            vectors::message(DATA_INDICATION, &[(kind::XOR_PEER_ADDRESS, &PEER), (kind::ICMP, value)]);
        assert_eq!(written, literal);
    }

    #[test]
    fn without_room_nothing_changes() {
        let peer = address("[2001:db8::1]:1");
        let mut frame = Frame::new();
        frame.fill(&[7; DATAGRAM_MAX]);
        assert_eq!(prepend_data(&mut frame, peer, ID), None, "too long for a length field");
        assert_eq!(frame.bytes(), [7; DATAGRAM_MAX]);
        frame.fill(b"payload");
        frame.prepend(HEADROOM - 47).expect("room").fill(1);
        let before = frame.bytes().to_vec();
        assert_eq!(prepend_data(&mut frame, peer, ID), None, "48 bytes into 47");
        assert_eq!(frame.bytes(), before);
    }

    proptest! {
        #[test]
        fn written_data_indications_are_read_again(
            payload in prop::collection::vec(any::<u8>(), 0..1500),
            peer in any::<SocketAddr>(),
            id in any::<[u8; 12]>(),
        ) {
            let peer = SocketAddr::new(peer.ip(), peer.port());
            let mut frame = Frame::new();
            // Old contents of the buffer must not appear in the padding.
            frame.spare_mut().fill(0xee);
            frame.spare_mut()[..payload.len()].copy_from_slice(&payload);
            frame.set_len(payload.len());
            prepend_data(&mut frame, peer, id).expect("room");
            let message = Message::parse(frame.bytes()).expect("valid");
            prop_assert_eq!((message.method(), message.class()), (method::DATA, MessageClass::Indication));
            prop_assert_eq!(message.transaction_id(), id);
            let read = message.attribute(kind::XOR_PEER_ADDRESS).and_then(|a| read_xor(a.value, id));
            prop_assert_eq!(read, Some(peer));
            let data = message.attribute(kind::DATA).expect("there");
            prop_assert_eq!(data.value, &payload[..]);
            prop_assert!(frame.bytes()[data.value_range().end..].iter().all(|&byte| byte == 0));
        }
    }
}
