//! The output queue of one stream: whole messages, bounded in number, bytes and age.
//!
//! Media that waits longer than it is useful only adds delay, so the oldest media is dropped first. Answers are never
//! dropped: the owner closes the stream of a client that does not read even those.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Instant;
use crate::turn::action::Traffic;

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
    Media {
        /// Bytes without header and padding.
        payload: u16,
    },
}

/// The result of [`Outbox::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Queued, unless it is media itself and was dropped.
    Queued {
        /// Media dropped to stay within the limits, possibly including this message.
        dropped: Traffic,
    },
    /// Too many answers wait: close the stream.
    Stuck,
}

#[derive(Debug)]
struct Message {
    len: u32,
    /// Bytes without header and padding, of media.
    payload: u16,
    is_media: bool,
    /// Dropped; its bytes are still in the buffer until the next compaction.
    dead: bool,
    at: Instant,
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

    /// Returns the media that waits, including a message that is partly written.
    pub fn media(&self) -> Traffic {
        let mut media = Traffic::default();
        let live = self.messages.iter().filter(|message| message.is_media && !message.dead);
        live.for_each(|message| media.add(message.payload));
        media
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
        let mut dropped = Traffic::default();
        let media = match kind {
            Kind::Control => None,
            Kind::Media { payload } => Some(payload),
        };
        if media.is_none() && self.control_bytes + len > CONTROL_BYTES_MAX {
            return Pushed::Stuck;
        }
        while self.live_bytes + len > bytes_max || self.live_messages >= MESSAGES_MAX {
            if let Some(payload) = self.drop_oldest_media() {
                dropped.add(payload);
            } else if let Some(payload) = media {
                dropped.add(payload);
                return Pushed::Queued { dropped };
            } else {
                // Answers may exceed the limits of media, up to their own limit.
                break;
            }
        }
        if self.dead > MESSAGES_MAX || self.bytes.len() > 2 * BYTES_MAX {
            self.compact();
        }
        message.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.messages.push_back(Message {
            // The cast loses nothing: the length field of a message has 16 bits.
            len: len as u32,
            payload: media.unwrap_or(0),
            is_media: media.is_some(),
            dead: false,
            at: now,
        });
        self.live_bytes += len;
        self.live_messages += 1;
        if media.is_none() {
            self.control_bytes += len;
        }
        Pushed::Queued { dropped }
    }

    /// Drops media that has waited too long, and returns it.
    pub fn drop_stale(&mut self, now: Instant) -> Traffic {
        let mut dropped = Traffic::default();
        for index in usize::from(self.written > 0)..self.messages.len() {
            // Messages are in order of age: stop at the first recent one.
            if now.since(self.messages[index].at) <= STALE {
                break;
            }
            self.kill(index).into_iter().for_each(|payload| dropped.add(payload));
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
            if !first.is_media {
                self.control_bytes -= len;
            }
            self.messages.pop_front();
        }
        if self.messages.is_empty() {
            self.clear();
        }
    }

    /// Drops the oldest media that is not begun; returns its payload bytes, or `None` if there is none.
    fn drop_oldest_media(&mut self) -> Option<u16> {
        (usize::from(self.written > 0)..self.messages.len()).find_map(|index| self.kill(index))
    }

    /// Drops message `index` if it is live media; returns its payload bytes, or `None` if it is not.
    fn kill(&mut self, index: usize) -> Option<u16> {
        let message = &mut self.messages[index];
        if message.dead || !message.is_media {
            return None;
        }
        message.dead = true;
        self.dead += 1;
        self.live_bytes -= message.len as usize;
        self.live_messages -= 1;
        Some(message.payload)
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

    /// Media with one byte of payload, whatever its length.
    const MEDIA: Kind = Kind::Media { payload: 1 };

    fn queued(dropped: usize) -> Pushed {
        Pushed::Queued { dropped: traffic(dropped) }
    }

    /// So many messages of [`MEDIA`].
    fn traffic(messages: usize) -> Traffic {
        Traffic { packets: messages as u64, bytes: messages as u64 }
    }

    #[test]
    fn under_memory_pressure_fewer_and_only_the_newest_messages_wait() {
        let mut outbox = Outbox::default();
        let offer =
            |outbox: &mut Outbox, byte: u8, bytes_max| outbox.push(&[&[byte; 1200]], MEDIA, NOW, bytes_max);
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
            assert_eq!(outbox.push(&[message], MEDIA, NOW, BYTES_MAX), queued(0));
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
            outbox.push(&[message], MEDIA, NOW, BYTES_MAX);
        }
        let mut records = Vec::new();
        while !outbox.is_empty() {
            let len = outbox.front_record(1 << 14).len();
            records.push(len);
            outbox.consume(len);
        }
        assert_eq!(records, [2 * large.len(), small.len(), small.len(), large.len()]);
        for _ in 0..40 {
            outbox.push(&[&large], MEDIA, NOW, BYTES_MAX);
        }
        assert_eq!(outbox.front_record(1 << 14).len(), 1 << 14, "as many as a record holds");
    }

    #[test]
    fn the_oldest_media_is_dropped_but_no_answer_and_no_started_message() {
        let mut outbox = Outbox::default();
        outbox.push(&[b"started"], MEDIA, NOW, BYTES_MAX);
        outbox.push(&[b"answer"], Kind::Control, NOW, BYTES_MAX);
        outbox.consume(3);
        for index in 0..MESSAGES_MAX - 2 {
            assert_eq!(outbox.push(&[&[index as u8; 3]], MEDIA, NOW, BYTES_MAX), queued(0));
        }
        assert_eq!(outbox.push(&[b"new"], MEDIA, NOW, BYTES_MAX), queued(1));
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
            let Pushed::Queued { dropped: n } = outbox.push(&[&[index as u8; 1200]], MEDIA, NOW, BYTES_MAX)
            else {
                panic!("media never closes a stream");
            };
            dropped += n.packets as usize;
            assert!(outbox.len() <= BYTES_MAX && outbox.bytes.len() <= 2 * BYTES_MAX + 1200);
            assert!(outbox.messages.len() <= 2 * MESSAGES_MAX + 1);
        }
        assert_eq!(dropped + outbox.live_messages, 100_000);
        let Pushed::Queued { dropped } = outbox.push(&[&[0; 65_536]], MEDIA, NOW, BYTES_MAX) else {
            panic!("media never closes a stream");
        };
        let dropped = dropped.packets;
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
        assert_eq!(outbox.push(&[b"media"], MEDIA, NOW, BYTES_MAX), queued(1));
        assert_eq!(outbox.push(&[&[0; 128]], Kind::Control, NOW, BYTES_MAX), Pushed::Stuck);
        outbox.consume(128);
        assert_eq!(outbox.push(&[&[0; 128]], Kind::Control, NOW, BYTES_MAX), queued(0));
    }

    #[test]
    fn stale_media_is_dropped_and_fresh_media_and_answers_stay() {
        let mut outbox = Outbox::default();
        outbox.push(&[b"started"], MEDIA, NOW, BYTES_MAX);
        outbox.push(&[b"old"], MEDIA, NOW, BYTES_MAX);
        outbox.push(&[b"answer"], Kind::Control, NOW, BYTES_MAX);
        outbox.push(&[b"fresh"], MEDIA, later(400), BYTES_MAX);
        outbox.consume(1);
        assert_eq!((outbox.drop_stale(later(500)), outbox.media()), (traffic(0), traffic(3)));
        assert_eq!((outbox.drop_stale(later(501)), outbox.media()), (traffic(1), traffic(2)));
        assert_eq!(outbox.front(usize::MAX), b"tartedanswerfresh");
        assert_eq!(outbox.drop_stale(later(5000)), traffic(1));
        outbox.consume(6);
        assert_eq!(outbox.front(usize::MAX), b"answer");
        outbox.consume(6);
        assert!(outbox.is_empty());
    }
}
