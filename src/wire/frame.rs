//! A datagram in a buffer with headroom, so that headers are added and removed without moving the payload.

/// Bytes kept free in front of a received datagram. The largest header written there is a Data indication with an
/// IPv6 peer (48 bytes); a raw send prepends an IPv6 and a UDP header (48) to a payload without its TURN header.
pub const HEADROOM: usize = 64;

/// The largest UDP payload over IPv4 (RFC 768), rounded up; a received datagram never fills it.
pub const DATAGRAM_MAX: usize = 65_535;

/// One datagram. Memory is reserved for the largest one, but a page that is never written costs nothing.
#[derive(Debug)]
pub struct Frame {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// An empty frame.
    pub fn new() -> Self {
        // `vec![0; n]` takes zeroed pages from the kernel and does not touch them.
        Self {
            buffer: vec![0; HEADROOM + DATAGRAM_MAX + 3].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
        }
    }

    /// Clears the frame and returns the space after the headroom, to receive the next datagram.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        (self.start, self.end) = (HEADROOM, HEADROOM);
        &mut self.buffer[HEADROOM..HEADROOM + DATAGRAM_MAX]
    }

    /// Sets how many bytes were received into [`Frame::spare_mut`], at most the size of that space.
    pub fn set_len(&mut self, len: usize) {
        self.start = HEADROOM;
        self.end = HEADROOM + len.min(DATAGRAM_MAX);
    }

    /// The current bytes of the datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Mutable access to the current bytes of the datagram.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Keeps only `range` of the current bytes; a range past the end is shortened.
    pub fn keep(&mut self, range: std::ops::Range<usize>) {
        let end = (self.start + range.end).min(self.end);
        self.start = (self.start + range.start).min(end);
        self.end = end;
    }

    /// Prepends `len` bytes of headroom and returns them to be written; `None` if there is too little.
    pub fn prepend(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.start.checked_sub(len)?;
        self.start = start;
        Some(&mut self.buffer[start..start + len])
    }

    /// Appends `len` zero bytes (padding, at most three); `None` if there is too little room.
    pub fn pad(&mut self, len: usize) -> Option<()> {
        let end = self.end.checked_add(len).filter(|&end| end <= self.buffer.len())?;
        self.buffer[self.end..end].fill(0);
        self.end = end;
        Some(())
    }

    /// Replaces the datagram by a copy of `bytes`, shortened to the largest datagram.
    pub fn fill(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(DATAGRAM_MAX);
        self.spare_mut()[..len].copy_from_slice(&bytes[..len]);
        self.set_len(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_added_and_removed_without_moving_the_payload() {
        let mut frame = Frame::new();
        frame.spare_mut()[..7].copy_from_slice(&[0x40, 0, 0, 3, b'a', b'b', b'c']);
        frame.set_len(7);
        frame.keep(4..7);
        let payload = frame.bytes().as_ptr();
        assert_eq!(frame.bytes(), b"abc");
        frame.prepend(48).expect("room").fill(9);
        assert_eq!(frame.bytes().len(), 51);
        assert_eq!(frame.bytes()[48..].as_ptr(), payload);
        frame.pad(1).expect("room");
        assert_eq!(frame.bytes()[48..], *b"abc\0");
    }

    #[test]
    fn headroom_and_tail_are_bounded() {
        let mut frame = Frame::new();
        assert!(frame.prepend(HEADROOM + 1).is_none());
        frame.set_len(usize::MAX);
        assert_eq!(frame.bytes().len(), DATAGRAM_MAX);
        assert!(frame.pad(4).is_none());
        frame.pad(3).expect("the tail has room for padding");
        frame.keep(5..usize::MAX / 2);
        frame.keep(std::ops::Range { start: 10, end: 2 });
        assert!(frame.bytes().is_empty());
    }
}
