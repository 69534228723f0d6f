//! The data path, without a client's state and without allocating memory: for callers that move tens of thousands of
//! packets a second and parse messages in place.

use std::net::SocketAddr;

use crate::wire::WireError;
use crate::wire::attribute::Icmp;
use crate::wire::channel_data::{self, HEADER_LEN};
use crate::wire::demux::{Kind, classify};
use crate::wire::indication::{Content, parse_data};
use crate::wire::message::{Message, MessageClass};

/// One message from a server, borrowed from the bytes that were read.
#[derive(Clone, Debug)]
pub enum Received<'a> {
    /// ChannelData.
    Channel {
        /// The channel number.
        number: u16,
        /// The peer's datagram.
        payload: &'a [u8],
    },
    /// A Data indication with data.
    Indication {
        /// The peer that sent it.
        peer: SocketAddr,
        /// The peer's datagram.
        payload: &'a [u8],
    },
    /// A Data indication with an ICMP error.
    Unreachable {
        /// The peer that the failed datagram was for.
        peer: SocketAddr,
        /// The error.
        icmp: Icmp,
    },
    /// A response; [`super::Client::handle_response`] takes it.
    Response(Message<'a>),
}

/// Reads one message: a datagram, or one that [`super::stream::Reassembly`] delivered.
///
/// # Errors
/// The reason why the bytes are not a message that a TURN server sends.
pub fn read(bytes: &[u8]) -> Result<Received<'_>, WireError> {
    match bytes.first().map(|&first| classify(first)) {
        Some(Kind::ChannelData) => {
            let found = channel_data::parse_datagram(bytes)?;
            Ok(Received::Channel { number: found.number, payload: &bytes[found.payload] })
        }
        Some(Kind::Stun) => {
            let message = Message::parse(bytes)?;
            match message.class() {
                MessageClass::Success | MessageClass::Error => Ok(Received::Response(message)),
                MessageClass::Request => Err(WireError::WrongKind),
                MessageClass::Indication => {
                    let data = parse_data(&message)?;
                    Ok(match data.content {
                        Content::Payload(range) => {
                            Received::Indication { peer: data.peer, payload: &bytes[range] }
                        }
                        Content::Icmp(icmp) => Received::Unreachable { peer: data.peer, icmp },
                    })
                }
            }
        }
        Some(Kind::Other) => Err(WireError::WrongKind),
        None => Err(WireError::Short),
    }
}

/// Returns the header of ChannelData. On a stream, the payload must be padded with zeros to a multiple of four bytes.
pub fn channel_head(number: u16, payload_len: u16) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    channel_data::write_header(&mut head, number, payload_len);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_data_both_ways() {
        assert_eq!(channel_head(0x4001, 5), [0x40, 1, 0, 5]);
        match read(b"\x40\x01\x00\x05hello\0\0\0") {
            Ok(Received::Channel { number: 0x4001, payload: b"hello" }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(read(b"\x40\x01\x00\x05hell").err(), Some(WireError::Length));
    }

    #[test]
    fn indications_and_responses() {
        let data = b"\x00\x17\x00\x18\x21\x12\xa4\x42transaction.\
            \x00\x12\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\x00\x13\x00\x05hello\0\0\0";
        match read(data) {
            Ok(Received::Indication { peer, payload: b"hello" }) => {
                assert_eq!(peer, "192.0.2.1:32853".parse().expect("literal"));
            }
            other => panic!("{other:?}"),
        }
        let icmp = b"\x00\x17\x00\x18\x21\x12\xa4\x42transaction.\
            \x00\x12\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\x80\x04\x00\x08\0\0\x03\x04\0\0\x05\xdc";
        match read(icmp) {
            Ok(Received::Unreachable { icmp: Icmp { icmp_type: 3, code: 4, .. }, .. }) => {}
            other => panic!("{other:?}"),
        }
        let success = b"\x01\x01\x00\x00\x21\x12\xa4\x42transaction.";
        assert!(matches!(read(success), Ok(Received::Response(_))));
        let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction.";
        assert_eq!(read(request).err(), Some(WireError::WrongKind));
        assert_eq!(read(b"").err(), Some(WireError::Short));
        assert_eq!(read(b"HTTP/1.1 400").err(), Some(WireError::Length), "H is a channel's first byte");
        assert_eq!(read(b"\x16\x03\x01").err(), Some(WireError::WrongKind));
    }
}
