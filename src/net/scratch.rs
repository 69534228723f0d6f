//! A buffer that all streams of a worker share: allocated once, refilled for each stream.

use super::stream::record::{INCOMING_MAX, sealed_max};
use crate::wire::stream::MESSAGE_MAX;

/// Bytes read from one stream per turn: about 25 full-size packets. The smallest requests of an unauthenticated
/// client in this many bytes keep a worker busy for a few milliseconds.
pub const READ_MAX: usize = 32 << 10;

/// A byte buffer of fixed capacity.
#[derive(Debug)]
pub struct Scratch {
    buffer: Box<[u8]>,
    len: usize,
}

impl Scratch {
    /// Allocates a buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity].into_boxed_slice(), len: 0 }
    }

    /// Returns the bytes in it.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Returns the bytes in it, mutable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Returns the free space after the bytes in it.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// Counts `len` bytes, written into the [free space](Scratch::spare), as content.
    pub fn advance(&mut self, len: usize) {
        self.len = (self.len + len).min(self.buffer.len());
    }

    /// Removes the first `len` bytes.
    pub fn drop_front(&mut self, len: usize) {
        let len = len.min(self.len);
        self.buffer.copy_within(len..self.len, 0);
        self.len -= len;
    }

    /// Appends a copy of `bytes`; returns `None` and changes nothing if they do not fit.
    pub fn append(&mut self, bytes: &[u8]) -> Option<()> {
        self.spare().get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.advance(bytes.len());
        Some(())
    }
}

/// The buffers that all streams of a worker share.
pub struct Buffers {
    /// TLS records as received.
    pub records: Scratch,
    /// Received bytes, decrypted. For a TURN client, the first one begins a message.
    pub plain: Scratch,
    /// TLS records to send.
    pub output: Scratch,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            records: Scratch::new(INCOMING_MAX + READ_MAX),
            // The rest of a message, and the plaintext of the records.
            plain: Scratch::new(MESSAGE_MAX + INCOMING_MAX + READ_MAX),
            // One sealed message, or one flight of a handshake (mostly the certificates).
            output: Scratch::new(sealed_max(MESSAGE_MAX) + (32 << 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_fixed() {
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
