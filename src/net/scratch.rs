//! A buffer that a worker uses for all its streams in turn: allocated once, filled and forgotten.

use super::stream::tls::{INCOMING_MAX, sealed_max};
use crate::wire::stream::MESSAGE_MAX;

/// Bytes read from one stream per turn: ~25 full-size packets, and a stranger's smallest requests in that many
/// bytes keep a worker busy for no more than some milliseconds.
pub const READ_MAX: usize = 32 << 10;

/// Bytes up to a fixed capacity.
#[derive(Debug)]
pub struct Scratch {
    buffer: Box<[u8]>,
    len: usize,
}

impl Scratch {
    /// Room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity].into_boxed_slice(), len: 0 }
    }

    /// The bytes in it.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The bytes in it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The room behind them.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// Says how many bytes were written into the [room](Scratch::spare).
    pub fn advance(&mut self, len: usize) {
        self.len = (self.len + len).min(self.buffer.len());
    }

    /// Takes `len` bytes away from the front.
    pub fn drop_front(&mut self, len: usize) {
        let len = len.min(self.len);
        self.buffer.copy_within(len..self.len, 0);
        self.len -= len;
    }

    /// Appends a copy of `bytes`; `None`, and nothing is changed, when there is no room.
    pub fn append(&mut self, bytes: &[u8]) -> Option<()> {
        self.spare().get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.advance(bytes.len());
        Some(())
    }
}

/// Buffers that all streams of a worker use in turn.
pub struct Buffers {
    /// TLS records as received.
    pub records: Scratch,
    /// What was received, decrypted: starts with a message.
    pub plain: Scratch,
    /// TLS records to send.
    pub output: Scratch,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            records: Scratch::new(INCOMING_MAX + READ_MAX),
            // What is left of a message, and what the records can decrypt to.
            plain: Scratch::new(MESSAGE_MAX + INCOMING_MAX + READ_MAX),
            // One sealed message, or everything that a handshake says at once (mostly the certificates).
            output: Scratch::new(sealed_max(MESSAGE_MAX) + (32 << 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let mut scratch = Scratch::new(4);
        assert_eq!(scratch.append(b"abc"), Some(()));
        assert_eq!(scratch.append(b"de"), None);
        scratch.spare()[0] = b'd';
        scratch.advance(99);
        assert_eq!(scratch.bytes(), b"abcd");
        scratch.drop_front(3);
        assert_eq!(scratch.bytes(), b"d");
        scratch.drop_front(9);
        assert!(scratch.bytes().is_empty());
        scratch.clear();
        assert!(scratch.bytes_mut().is_empty());
    }
}
