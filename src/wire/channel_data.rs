//! ChannelData: a channel number, a length, the payload (RFC 8656 section 12.4).

use std::ops::Range;

use super::WireError;
use super::demux::{Kind, classify};
use super::frame::Frame;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 4;

/// The positions of the fields.
mod field {
    use std::ops::Range;

    pub const NUMBER: Range<usize> = 0..2;
    pub const LENGTH: Range<usize> = 2..4;
}

/// The channel number and the position of the payload of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelData {
    /// The channel number, 0x4000 to 0x7FFF.
    pub number: u16,
    /// Where the payload is in the bytes that were parsed.
    pub payload: Range<usize>,
}

/// Reads ChannelData from a datagram, or from one framed message of a stream. Bytes after the payload are
/// ignored: padding is allowed over UDP too (section 12.5).
pub fn parse_datagram(bytes: &[u8]) -> Result<ChannelData, WireError> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(WireError::Short)?;
    if classify(header[0]) != Kind::ChannelData {
        return Err(WireError::WrongKind);
    }
    let end = HEADER_LEN + payload_len(header);
    if end > bytes.len() {
        return Err(WireError::Length);
    }
    Ok(ChannelData { number: u16::from_be_bytes([header[0], header[1]]), payload: HEADER_LEN..end })
}

/// The length field.
pub(super) fn payload_len(header: &[u8; HEADER_LEN]) -> usize {
    usize::from(u16::from_be_bytes([header[2], header[3]]))
}

/// Writes the header of `payload_len` bytes for channel `number`.
pub fn write_header(header: &mut [u8; HEADER_LEN], number: u16, payload_len: u16) {
    header[field::NUMBER].copy_from_slice(&number.to_be_bytes());
    header[field::LENGTH].copy_from_slice(&payload_len.to_be_bytes());
}

/// Puts the header in front of the frame's bytes. Returns `None` and changes nothing if there is no room.
pub fn prepend(frame: &mut Frame, number: u16) -> Option<()> {
    let payload_len = u16::try_from(frame.bytes().len()).ok()?;
    write_header(frame.prepend(HEADER_LEN)?.first_chunk_mut()?, number, payload_len);
    Some(())
}

/// `len` rounded up to a multiple of four, to which messages are padded on a stream (section 12.5).
pub const fn padded_len(len: usize) -> usize {
    len.saturating_add(padding(len))
}

/// The padding to the next multiple of four, zero to three bytes.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 9] = [0x40, 0x01, 0x00, 0x05, b'h', b'e', b'l', b'l', b'o'];

    #[test]
    fn one_packet_read_and_written() {
        let parsed = parse_datagram(&PACKET).expect("valid");
        assert_eq!(parsed, ChannelData { number: 0x4001, payload: 4..9 });
        let mut frame = Frame::new();
        frame.fill(&PACKET[parsed.payload]);
        prepend(&mut frame, 0x4001).expect("room");
        assert_eq!(frame.bytes(), PACKET);
    }

    #[test]
    fn padding_is_ignored_and_missing_bytes_are_an_error() {
        let mut padded = PACKET.to_vec();
        padded.extend([1, 2, 3]);
        assert_eq!(parse_datagram(&padded).expect("valid").payload, 4..9);
        assert_eq!(parse_datagram(&PACKET[..8]), Err(WireError::Length));
        assert_eq!(parse_datagram(&PACKET[..3]), Err(WireError::Short));
        assert_eq!(parse_datagram(&[]), Err(WireError::Short));
        assert_eq!(parse_datagram(&[0x40, 0, 0, 0]).expect("empty payload").payload, 4..4);
    }

    #[test]
    fn numbers_outside_the_range_are_another_protocol() {
        for first in [0x00, 0x3f, 0x80, 0xff] {
            assert_eq!(parse_datagram(&[first, 0, 0, 0]), Err(WireError::WrongKind));
        }
        assert_eq!(parse_datagram(&[0x7f, 0xff, 0, 0]).expect("valid").number, 0x7fff);
    }

    #[test]
    fn padded_to_four() {
        let lengths = [0, 1, 2, 3, 4, 5, 65_539].map(padded_len);
        assert_eq!(lengths, [0, 4, 4, 4, 4, 8, 65_540]);
    }

    #[test]
    fn without_headroom_nothing_is_written() {
        let mut frame = Frame::new();
        frame.fill(b"payload");
        while frame.prepend(HEADER_LEN).is_some() {}
        let before = frame.bytes().to_vec();
        assert_eq!(prepend(&mut frame, 0x4000), None);
        assert_eq!(frame.bytes(), before);
    }
}
