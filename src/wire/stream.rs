//! Message framing on TCP and TLS (RFC 8656 section 12.5, RFC 8489 section 6.2.2).

use super::channel_data::{self, padded_len};
use super::demux::{Kind, classify};
use super::message::{HEADER_LEN, MAGIC_COOKIE};

/// The longest message accepted from a stream: the longest ChannelData, without padding.
pub const MESSAGE_MAX: usize = channel_data::HEADER_LEN + u16::MAX as usize;

/// The result of looking at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A whole message: `bytes[..len]`. The next one starts at `consumed`.
    Message {
        /// STUN or ChannelData, never [`Kind::Other`].
        kind: Kind,
        /// Its length without padding.
        len: usize,
        /// Its length with padding.
        consumed: usize,
    },
    /// Incomplete. Call again once there are `at_least` bytes in all, always more than there are now.
    NeedMore {
        /// The number of bytes from the start of the message.
        at_least: usize,
    },
    /// Not TURN. A stream cannot resynchronise, so it must be closed.
    Garbage,
}

/// Finds the message at the front of `bytes`, at a cost that does not depend on its length. Call it again on the rest for the
/// next message.
pub fn next(bytes: &[u8]) -> Framed {
    let Some(&first) = bytes.first() else {
        return Framed::NeedMore { at_least: channel_data::HEADER_LEN };
    };
    let kind = classify(first);
    let (len, consumed) = match kind {
        Kind::Other => return Framed::Garbage,
        Kind::ChannelData => {
            let Some(header) = bytes.first_chunk() else {
                return Framed::NeedMore { at_least: channel_data::HEADER_LEN };
            };
            let len = channel_data::HEADER_LEN + channel_data::payload_len(header);
            (len, padded_len(len))
        }
        Kind::Stun => match stun_len(bytes) {
            Some(len) => (len, len),
            None => return Framed::Garbage,
        },
    };
    if consumed > bytes.len() {
        return Framed::NeedMore { at_least: consumed };
    }
    Framed::Message { kind, len, consumed }
}

/// The length of a STUN message, or of its header while that is incomplete; `None` if it cannot be one.
fn stun_len(bytes: &[u8]) -> Option<usize> {
    let Some(&[_, _, high, low]) = bytes.first_chunk() else {
        return Some(HEADER_LEN);
    };
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
    let cookie = &bytes[4..bytes.len().min(8)];
    let plausible = len.is_multiple_of(4) && len <= MESSAGE_MAX && MAGIC_COOKIE.starts_with(cookie);
    plausible.then_some(if bytes.len() < HEADER_LEN { HEADER_LEN } else { len })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binding(attributes: usize) -> Vec<u8> {
        let mut message = vec![0, 1];
        message.extend((attributes as u16).to_be_bytes());
        message.extend(MAGIC_COOKIE);
        message.resize(HEADER_LEN + attributes, 7);
        message
    }

    fn channel(payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0x40, 0x00];
        message.extend((payload.len() as u16).to_be_bytes());
        message.extend(payload);
        message.resize(padded_len(message.len()), 0);
        message
    }

    #[test]
    fn both_kinds_with_and_without_padding() {
        assert_eq!(next(&binding(8)), Framed::Message { kind: Kind::Stun, len: 28, consumed: 28 });
        let framed = Framed::Message { kind: Kind::ChannelData, len: 9, consumed: 12 };
        assert_eq!(next(&channel(b"hello")), framed);
        assert_eq!(next(&channel(b"hello")[..9]), Framed::NeedMore { at_least: 12 });
        let empty = Framed::Message { kind: Kind::ChannelData, len: 4, consumed: 4 };
        assert_eq!(next(&channel(b"")), empty);
    }

    #[test]
    fn garbage_is_recognised_at_the_first_wrong_byte() {
        assert_eq!(next(b"\x16\x03\x01"), Framed::Garbage);
        assert_eq!(next(&[0, 1, 0, 2]), Framed::Garbage);
        assert_eq!(next(&[0, 1, 0, 0, 0x21]), Framed::NeedMore { at_least: 20 });
        assert_eq!(next(&[0, 1, 0, 0, 0x22]), Framed::Garbage);
        assert_eq!(next(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x43]), Framed::Garbage);
        assert_eq!(next(&[0, 1, 0xff, 0xfc]), Framed::Garbage);
    }

    #[test]
    fn the_largest_channel_data_fits() {
        let message = channel(&[1; 65_535]);
        let framed = Framed::Message { kind: Kind::ChannelData, len: MESSAGE_MAX, consumed: 65_540 };
        assert_eq!(next(&message), framed);
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_messages(
            sizes in prop::collection::vec((any::<bool>(), 0_usize..40), 1..12),
            cuts in prop::collection::vec(1_usize..30, 1..40),
        ) {
            let messages: Vec<Vec<u8>> = sizes
                .iter()
                .map(|&(stun, size)| if stun { binding(size / 4 * 4) } else { channel(&vec![9; size]) })
                .collect();
            let stream = messages.concat();
            let (mut at, mut have, mut seen) = (0, 0, Vec::new());
            let mut cut = cuts.iter().cycle();
            while at < stream.len() {
                match next(&stream[at..have]) {
                    Framed::Message { consumed, .. } => {
                        seen.push(stream[at..at + consumed].to_vec());
                        at += consumed;
                    }
                    Framed::NeedMore { at_least } => {
                        prop_assert!(at_least > have - at && at + at_least <= stream.len());
                        have = (have + cut.next().copied().unwrap_or(1)).min(stream.len());
                    }
                    Framed::Garbage => prop_assert!(false, "valid stream"),
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            match next(&bytes) {
                Framed::Message { len, consumed, .. } => {
                    prop_assert!(len >= 4 && len <= consumed && consumed <= bytes.len());
                }
                Framed::NeedMore { at_least } => prop_assert!(at_least > bytes.len()),
                Framed::Garbage => {}
            }
        }
    }
}
