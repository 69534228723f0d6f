//! The output queue of one stream: whole messages, bounded in number, bytes and age.
//!
//! Media that waits longer than it is useful only adds delay, so the oldest media is dropped first. Answers are never
//! dropped: the owner closes the stream of a client that does not read even those.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Instant;

/// Bytes of media and answers that may wait. At 10 Mbit/s they take 200 ms, the longest delay that a call over TCP
/// tolerates.
pub const BYTES_MAX: usize = 256 << 10;
/// The same under memory pressure: 25 ms, still several messages.
pub const BYTES_MAX_TIGHT: usize = BYTES_MAX / 8;
/// Messages that may wait: as many full-size packets as [`BYTES_MAX`] holds.
pub const MESSAGES_MAX: usize = 256;
/// Waiting bytes of answers above which no more requests are read.
const CONTROL_BYTES_PAUSE: usize = 16 << 10;
/// Waiting bytes of answers above which the client counts as stuck. One read of 32 KiB can hold small requests whose
/// answers, 401s, have 170 KB. They may come on top of [`CONTROL_BYTES_PAUSE`].
const CONTROL_BYTES_MAX: usize = 256 << 10;
/// Age at which media is useless to a call.
const STALE: Duration = Duration::from_millis(500);
/// The smallest message that shares a TLS record with others. Large messages come in bursts, and sharing
/// records then saves a tenth of the CPU. Small ones rarely wait together, and some clients take the content of one
/// record for one message (turnutils_uclient, whose messages have 100 bytes).
const SHARES_RECORD: usize = 512;
/// Buffer capacity kept for reuse.
const KEPT_CAPACITY: usize = 64 << 10;

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An answer to a request: never dropped.
    Control,
    /// A peer's data: dropped if the client is slow.
    Media,
}

/// The result of [`Outbox::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Queued, unless it is media itself and was dropped.
    Queued {
        /// Media messages dropped to stay within the limits, possibly including this one.
        dropped: usize,
    },
    /// Too many answers wait: close the stream.
    Stuck,
}

#[derive(Debug)]
struct Message {
    len: u32,
    kind: Kind,
    at: Instant,
    /// Dropped; its bytes are still in the buffer until the next compaction.
    dead: bool,
}

/// The output queue of one stream.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The bytes of all `messages`, dead ones included, from `head` on.
    bytes: Vec<u8>,
    head: usize,
    messages: VecDeque<Message>,
    /// Bytes of the first message that are already written; such a message is always completed.
    written: usize,
    live_bytes: usize,
    live_messages: usize,
    control_bytes: usize,
    dead: usize,
}

impl Outbox {
    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.live_messages == 0
    }

    /// Returns whether so many answers wait that no further requests should be read.
    pub fn owes_answers(&self) -> bool {
        self.control_bytes > CONTROL_BYTES_PAUSE
    }

    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.live_bytes - self.written
    }

    /// Empties the queue; keeps a buffer of moderate size.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY);
        self.messages.clear();
        (self.head, self.written, self.dead) = (0, 0, 0);
        (self.live_bytes, self.live_messages, self.control_bytes) = (0, 0, 0);
    }

    /// Appends one whole message, with framing and padding, given in pieces. Drops the oldest media to stay within
    /// `bytes_max` and [`MESSAGES_MAX`].
    pub fn push(&mut self, message: &[&[u8]], kind: Kind, now: Instant, bytes_max: usize) -> Pushed {
        let len: usize = message.iter().map(|piece| piece.len()).sum();
        let mut dropped = 0;
        if kind == Kind::Control && self.control_bytes + len > CONTROL_BYTES_MAX {
            return Pushed::Stuck;
        }
        while self.live_bytes + len > bytes_max || self.live_messages >= MESSAGES_MAX {
            if self.drop_oldest_media() {
                dropped += 1;
            } else if kind == Kind::Media {
                return Pushed::Queued { dropped: dropped + 1 };
            } else {
                // Answers may exceed the limits of media, up to their own limit.
                break;
            }
        }
        if self.dead > MESSAGES_MAX || self.bytes.len() > 2 * BYTES_MAX {
            self.compact();
        }
        message.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        // The cast loses nothing: the length field of a message has 16 bits.
        self.messages.push_back(Message { len: len as u32, kind, at: now, dead: false });
        self.live_bytes += len;
        self.live_messages += 1;
        if kind == Kind::Control {
            self.control_bytes += len;
        }
        Pushed::Queued { dropped }
    }

    /// Drops media that has waited too long; returns how many messages.
    pub fn drop_stale(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        for index in usize::from(self.written > 0)..self.messages.len() {
            // Messages are in order of age: stop at the first recent one.
            if now.since(self.messages[index].at) <= STALE {
                break;
            }
            dropped += usize::from(self.kill(index));
        }
        dropped
    }

    /// Returns whole messages in one slice, at most `limit` bytes but at least one message. The first one lacks the
    /// bytes already [consumed](Outbox::consume).
    pub fn front(&mut self, limit: usize) -> &[u8] {
        self.front_while(limit, |_| true)
    }

    /// Returns the messages for one TLS record, at most `limit` bytes: the first one, and those that follow while all
    /// are large.
    pub fn front_record(&mut self, limit: usize) -> &[u8] {
        let alone = self.messages.front().is_some_and(|first| (first.len as usize) < SHARES_RECORD);
        self.front_while(limit, |len| !alone && len >= SHARES_RECORD)
    }

    fn front_while(&mut self, limit: usize, joins: impl Fn(usize) -> bool) -> &[u8] {
        if self.dead > 0 {
            self.compact();
        }
        let (mut end, mut position) = (0, self.head);
        for message in &self.messages {
            let len = message.len as usize;
            let next = position + len;
            if end > 0 && (next - self.head - self.written > limit || !joins(len)) {
                break;
            }
            (end, position) = (next, next);
        }
        if end == 0 { &[] } else { &self.bytes[self.head + self.written..end] }
    }

    /// Removes `len` written bytes of [`Outbox::front`].
    pub fn consume(&mut self, len: usize) {
        self.written += len;
        while let Some(first) = self.messages.front()
            && self.written >= first.len as usize
        {
            let len = first.len as usize;
            self.written -= len;
            self.head += len;
            self.live_bytes -= len;
            self.live_messages -= 1;
            if first.kind == Kind::Control {
                self.control_bytes -= len;
            }
            self.messages.pop_front();
        }
        if self.messages.is_empty() {
            self.clear();
        }
    }

    fn drop_oldest_media(&mut self) -> bool {
        (usize::from(self.written > 0)..self.messages.len()).any(|index| self.kill(index))
    }

    /// Drops message `index` if it is live media; returns whether it was.
    fn kill(&mut self, index: usize) -> bool {
        let message = &mut self.messages[index];
        if message.dead || message.kind == Kind::Control {
            return false;
        }
        message.dead = true;
        self.dead += 1;
        self.live_bytes -= message.len as usize;
        self.live_messages -= 1;
        true
    }

    /// Moves the live messages to the start of the buffer.
    fn compact(&mut self) {
        let (mut from, mut to) = (self.head, 0);
        for message in &self.messages {
            let len = message.len as usize;
            if !message.dead {
                self.bytes.copy_within(from..from + len, to);
                to += len;
            }
            from += len;
        }
        self.messages.retain(|message| !message.dead);
        self.bytes.truncate(to);
        (self.head, self.dead) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn later(milliseconds: u64) -> Instant {
        NOW + Duration::from_millis(milliseconds)
    }

    fn queued(dropped: usize) -> Pushed {
        Pushed::Queued { dropped }
    }

    #[test]
    fn under_memory_pressure_fewer_and_only_the_newest_messages_wait() {
        let mut outbox = Outbox::default();
        let offer = |outbox: &mut Outbox, byte: u8, bytes_max| {
            outbox.push(&[&[byte; 1200]], Kind::Media, NOW, bytes_max)
        };
        (0..200).for_each(|byte| assert_eq!(offer(&mut outbox, byte, BYTES_MAX), queued(0)));
        // The first message under the lower limit drops all that exceeds it.
        let kept = BYTES_MAX_TIGHT / 1200;
        assert_eq!(offer(&mut outbox, 200, BYTES_MAX_TIGHT), queued(201 - kept));
        assert_eq!(outbox.len(), kept * 1200);
        assert_eq!(outbox.front(1200)[0], 201 - kept as u8);
    }

    #[test]
    fn messages_leave_whole_in_order_and_coalesced() {
        let mut outbox = Outbox::default();
        for message in [b"first".as_slice(), b"second", b"third"] {
            assert_eq!(outbox.push(&[message], Kind::Media, NOW, BYTES_MAX), queued(0));
        }
        assert_eq!(outbox.front(100), b"firstsecondthird");
        assert_eq!(outbox.front(15), b"firstsecond");
        assert_eq!(outbox.front(1), b"first");
        outbox.consume(7);
        assert_eq!(outbox.len(), 9);
        assert_eq!(outbox.front(100), b"condthird");
        outbox.consume(9);
        assert!(outbox.is_empty());
        assert_eq!(outbox.front(100), b"");
    }

    #[test]
    fn large_messages_share_a_record_and_small_ones_do_not() {
        let (small, large) = ([1; SHARES_RECORD - 1], [2; SHARES_RECORD]);
        let mut outbox = Outbox::default();
        for message in [&large[..], &large, &small, &small, &large] {
            outbox.push(&[message], Kind::Media, NOW, BYTES_MAX);
        }
        let mut records = Vec::new();
        while !outbox.is_empty() {
            let len = outbox.front_record(1 << 14).len();
            records.push(len);
            outbox.consume(len);
        }
        assert_eq!(records, [2 * large.len(), small.len(), small.len(), large.len()]);
        for _ in 0..40 {
            outbox.push(&[&large], Kind::Media, NOW, BYTES_MAX);
        }
        assert_eq!(outbox.front_record(1 << 14).len(), 1 << 14, "as many as a record holds");
    }

    #[test]
    fn the_oldest_media_is_dropped_but_no_answer_and_no_started_message() {
        let mut outbox = Outbox::default();
        outbox.push(&[b"started"], Kind::Media, NOW, BYTES_MAX);
        outbox.push(&[b"answer"], Kind::Control, NOW, BYTES_MAX);
        outbox.consume(3);
        for index in 0..MESSAGES_MAX - 2 {
            assert_eq!(outbox.push(&[&[index as u8; 3]], Kind::Media, NOW, BYTES_MAX), queued(0));
        }
        assert_eq!(outbox.push(&[b"new"], Kind::Media, NOW, BYTES_MAX), queued(1));
        assert_eq!(outbox.push(&[b"answer2"], Kind::Control, NOW, BYTES_MAX), queued(1));
        let front = outbox.front(usize::MAX).to_vec();
        assert!(front.starts_with(b"rtedanswer\x02\x02\x02\x03"), "the two oldest are dropped");
        assert!(front.ends_with(b"newanswer2"));
        assert_eq!(front.len(), outbox.len());
    }

    #[test]
    fn bytes_are_bounded_and_a_large_message_can_drop_many() {
        let mut outbox = Outbox::default();
        let mut dropped = 0;
        for index in 0..100_000_u32 {
            let Pushed::Queued { dropped: n } =
                outbox.push(&[&[index as u8; 1200]], Kind::Media, NOW, BYTES_MAX)
            else {
                panic!("media never closes a stream");
            };
            dropped += n;
            assert!(outbox.len() <= BYTES_MAX && outbox.bytes.len() <= 2 * BYTES_MAX + 1200);
            assert!(outbox.messages.len() <= 2 * MESSAGES_MAX + 1);
        }
        assert_eq!(dropped + outbox.live_messages, 100_000);
        let Pushed::Queued { dropped } = outbox.push(&[&[0; 65_536]], Kind::Media, NOW, BYTES_MAX) else {
            panic!("media never closes a stream");
        };
        assert!(dropped > 10);
        assert_eq!(outbox.front(1)[0], (100_000 - 218 + dropped as u32) as u8);
    }

    #[test]
    fn answers_may_exceed_the_media_limits_up_to_their_own() {
        let mut outbox = Outbox::default();
        let mut answers = 0;
        while outbox.push(&[&[0; 128]], Kind::Control, NOW, BYTES_MAX) == queued(0) {
            answers += 1;
        }
        assert_eq!(answers * 128, CONTROL_BYTES_MAX);
        assert_eq!(outbox.push(&[b"media"], Kind::Media, NOW, BYTES_MAX), queued(1));
        assert_eq!(outbox.push(&[&[0; 128]], Kind::Control, NOW, BYTES_MAX), Pushed::Stuck);
        outbox.consume(128);
        assert_eq!(outbox.push(&[&[0; 128]], Kind::Control, NOW, BYTES_MAX), queued(0));
    }

    #[test]
    fn stale_media_is_dropped_and_fresh_media_and_answers_stay() {
        let mut outbox = Outbox::default();
        outbox.push(&[b"started"], Kind::Media, NOW, BYTES_MAX);
        outbox.push(&[b"old"], Kind::Media, NOW, BYTES_MAX);
        outbox.push(&[b"answer"], Kind::Control, NOW, BYTES_MAX);
        outbox.push(&[b"fresh"], Kind::Media, later(400), BYTES_MAX);
        outbox.consume(1);
        assert_eq!(outbox.drop_stale(later(500)), 0);
        assert_eq!(outbox.drop_stale(later(501)), 1);
        assert_eq!(outbox.front(usize::MAX), b"tartedanswerfresh");
        assert_eq!(outbox.drop_stale(later(5000)), 1);
        outbox.consume(6);
        assert_eq!(outbox.front(usize::MAX), b"answer");
        outbox.consume(6);
        assert!(outbox.is_empty());
    }
}
