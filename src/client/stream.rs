//! Messages out of a byte stream (RFC 8656 section 12.5), with at most one unfinished message kept.

use std::fmt;

use crate::wire::stream::{Framed, next};

/// Capacity in bytes up to which an empty buffer is kept.
const KEPT_MAX: usize = 4096;

/// The bytes are not TURN. A stream that lost its framing cannot recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not speak TURN on this stream")
    }
}

impl std::error::Error for Garbage {}

/// Puts the messages of one stream together. It holds less than one message: 65,540 bytes at most.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: Vec<u8>,
}

impl Reassembly {
    /// Takes the next bytes and delivers every complete message, without its padding. Messages that lie entirely in
    /// `bytes` are not copied.
    ///
    /// # Errors
    /// [`Garbage`]; messages before it are delivered. The stream must not be read any further.
    pub fn take(&mut self, mut bytes: &[u8], mut deliver: impl FnMut(&[u8])) -> Result<(), Garbage> {
        while !self.partial.is_empty() {
            match next(&self.partial) {
                Framed::NeedMore { .. } if bytes.is_empty() => return Ok(()),
                Framed::NeedMore { at_least } => {
                    let missing = at_least - self.partial.len();
                    let (more, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.partial.extend_from_slice(more);
                    bytes = rest;
                }
                // Nothing follows the message: only the bytes that it needed were appended.
                Framed::Message { len, .. } => {
                    deliver(&self.partial[..len]);
                    self.partial.clear();
                    self.partial.shrink_to(KEPT_MAX);
                }
                Framed::Garbage => return Err(Garbage),
            }
        }
        loop {
            match next(bytes) {
                Framed::Message { len, consumed, .. } => {
                    deliver(&bytes[..len]);
                    bytes = &bytes[consumed..];
                }
                Framed::NeedMore { .. } => break,
                Framed::Garbage => return Err(Garbage),
            }
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes of an unfinished message.
    pub fn len(&self) -> usize {
        self.partial.len()
    }

    /// Whether nothing is unfinished.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::stream::MESSAGE_MAX;

    const MESSAGE: [u8; 12] = [0x40, 0x01, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];

    #[test]
    fn messages_come_whole_wherever_they_are_cut() {
        let twice = [MESSAGE, MESSAGE].concat();
        for cut in 0..twice.len() {
            let (mut stream, mut got) = (Reassembly::default(), Vec::new());
            for piece in [&twice[..cut], &twice[cut..]] {
                stream.take(piece, |message| got.push(message.to_vec())).expect("framed");
            }
            assert_eq!(got, [&MESSAGE[..9]; 2]);
            assert!(stream.is_empty());
        }
        assert_eq!(Reassembly::default().take(&[0x80; 12], |_| {}), Err(Garbage));
        let mut stream = Reassembly::default();
        let mut delivered = 0;
        assert_eq!(stream.take(&[&MESSAGE[..], &[0x80]].concat(), |_| delivered += 1), Err(Garbage));
        assert_eq!(delivered, 1);
    }

    proptest! {
        #[test]
        fn never_more_than_one_message_is_held(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            sizes in prop::collection::vec(1_usize..80, 1..20),
        ) {
            let mut stream = Reassembly::default();
            let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let size = sizes.next().map_or(1, |&size| size.min(rest.len()));
                let (piece, behind) = rest.split_at(size);
                rest = behind;
                let mut longest = 0;
                if stream.take(piece, |message| longest = longest.max(message.len())).is_err() {
                    break;
                }
                prop_assert!(longest <= MESSAGE_MAX && stream.len() < MESSAGE_MAX + 3);
            }
        }
    }
}
