//! Messages on TCP and TLS: segmentation must not matter.

use hallpass::wire::demux::Kind;
use hallpass::wire::stream::{Framed, MESSAGE_MAX, next};
use hallpass::wire::{WireError, channel_data, message::Message};

use super::bytes::pieces;

/// The result of reading a stream.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    messages: Vec<(Kind, Vec<u8>)>,
    /// Whether it ended in garbage.
    broken: bool,
    /// The remaining bytes.
    rest: Vec<u8>,
}

/// The first byte says how many of the next tell the sizes of the pieces; the rest is the stream.
pub fn stream(data: &[u8]) {
    let Some((&count, data)) = data.split_first() else { return };
    let (sizes, data) = data.split_at(data.len().min(usize::from(count % 16)));
    let whole = read([data].into_iter());
    let pieced = read(pieces(sizes, data));
    let single = read(data.chunks(1));
    for other in [&pieced, &single] {
        assert_eq!((&other.messages, other.broken), (&whole.messages, whole.broken));
        // A broken stream is closed at once, so how much of it was read does not matter.
        assert!(whole.broken || other.rest == whole.rest);
    }
    for (kind, bytes) in &whole.messages {
        match kind {
            // Its length field matches the frame.
            Kind::ChannelData => {
                let found = channel_data::parse_datagram(bytes).expect("framed");
                assert_eq!(found.payload.end, bytes.len());
            }
            Kind::Stun => {
                let frame = [WireError::Short, WireError::Cookie, WireError::Length, WireError::WrongKind];
                assert!(Message::parse(bytes).err().is_none_or(|error| !frame.contains(&error)));
            }
            Kind::Other => panic!("neither STUN nor ChannelData"),
        }
    }
}

fn read<'a>(arriving: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut read = Read { messages: Vec::new(), broken: false, rest: Vec::new() };
    for piece in arriving {
        read.rest.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let bytes = &read.rest[at..];
            match next(bytes) {
                Framed::Message { kind, len, consumed } => {
                    assert!(0 < len && len <= consumed && consumed < len + 4);
                    assert!(consumed <= bytes.len() && len <= MESSAGE_MAX);
                    // Bytes after the message do not matter.
                    assert_eq!(next(&bytes[..consumed]), next(bytes));
                    read.messages.push((kind, bytes[..len].to_vec()));
                    at += consumed;
                }
                Framed::NeedMore { at_least } => {
                    assert!(at_least > bytes.len() && at_least <= MESSAGE_MAX.next_multiple_of(4));
                    break;
                }
                Framed::Garbage => {
                    read.broken = true;
                    return read;
                }
            }
        }
        read.rest.drain(..at);
    }
    read
}
