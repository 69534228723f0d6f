//! The state of a TURN client on a stream: what it has proven, and the start of an incomplete message.

use super::life::{IDLE_TIME, Life};
use super::read::ReadOutcome;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::scratch::Scratch;
use crate::net::token::Token;
use crate::turn::action::{DropReason, EndReason};
use crate::wire::demux::{Kind, classify};

/// Consecutive requests that may fail to authenticate. A login takes two or three, and a browser tries few passwords.
const UNPROVEN_MAX: u8 = 100;
/// The first requests of a connection, which have a budget besides that of their source. A login takes two or three.
const OPENING: u8 = 4;
/// The longest incomplete message kept for a client without an allocation: a request is shorter than 2 KB.
const STRANGER_MESSAGE_MAX: usize = 4 << 10;
/// Capacity that an incomplete message keeps. What was left over of a read may have had ten times as much.
const PARTIAL_CAPACITY: usize = 4 << 10;

/// The state of a TURN client on a connection.
#[derive(Debug, Default)]
pub struct TurnClient {
    /// The start of an incomplete message, or all that is left over of a read.
    pub partial: Vec<u8>,
    /// Set while `partial` is what is left over of a read, with the end that came with the read.
    left_over: Option<Option<CloseReason>>,
    /// Whether the client has sent a STUN message; ChannelData before it means another protocol.
    greeted: bool,
    /// Whether it had an allocation at the last check.
    allocated: bool,
    /// Requests since the last authenticated one.
    unproven: u8,
    /// Requests since the start, as far as they are counted.
    requests: u8,
    /// Whether an authenticated request has extended its time since it last had an allocation.
    renewed: bool,
}

impl TurnClient {
    /// Records a message.
    ///
    /// # Errors
    /// `Garbage` if the first message is not STUN, `TooMany` after too many consecutive requests without
    /// authentication.
    pub fn greet(&mut self, message: &[u8]) -> Result<(), CloseReason> {
        let [first @ 0..=3, second, ..] = *message else {
            return if self.greeted { Ok(()) } else { Err(CloseReason::Garbage) };
        };
        self.greeted = true;
        // Both bits of the class are 0 in a request (RFC 8489 section 5).
        let request = first & 0x01 == 0 && second & 0x10 == 0;
        // Binding requests never authenticate, and the protocol limits them by source and user.
        let binding = (first, second) == (0, 1);
        if request && !binding {
            self.unproven = self.unproven.saturating_add(1);
            self.requests = self.requests.saturating_add(1);
        }
        if self.unproven > UNPROVEN_MAX { Err(CloseReason::TooMany) } else { Ok(()) }
    }

    /// Returns whether the last message is among the first requests of the connection.
    fn is_opening(&self) -> bool {
        self.requests <= OPENING
    }

    /// Records an authenticated request. Returns whether it extends the connection's time: with an allocation always,
    /// without one only the first time. Otherwise one user could keep any number of connections.
    pub fn authenticated(&mut self, has_allocation: bool) -> bool {
        self.unproven = 0;
        let renews = has_allocation || !self.renewed;
        self.renewed = !has_allocation;
        renews
    }

    /// Returns whether to wait for the rest of a message that starts with `start` and has `len` bytes: TURN starts
    /// with STUN, and a client without an allocation may send only short messages.
    pub fn may_wait(&self, start: &[u8], len: usize, has_allocation: impl FnOnce() -> bool) -> bool {
        let is_stun = start.first().is_none_or(|&first| classify(first) == Kind::Stun);
        (self.greeted || is_stun) && (len <= STRANGER_MESSAGE_MAX || has_allocation())
    }

    /// Keeps the start of a message until the rest arrives.
    pub fn keep(&mut self, start: &[u8], is_new: bool) {
        if start.is_empty() {
            // An idle client holds no buffer.
            self.partial = Vec::new();
            return;
        }
        self.replace(start, is_new);
        if self.partial.capacity() > 2 * start.len().max(PARTIAL_CAPACITY) {
            self.partial.shrink_to(PARTIAL_CAPACITY);
        }
    }

    /// Keeps what a turn had no time for: whole messages, and the end of the connection behind them. `is_new`: something was
    /// taken before the rest, so that it is not what is kept already.
    pub fn leave(&mut self, rest: &[u8], is_new: bool, end: Option<CloseReason>) {
        self.left_over = Some(end);
        self.replace(rest, is_new);
    }

    /// Keeps these bytes. Unless they are new, `partial` is where they came from, with more behind it if they are longer.
    fn replace(&mut self, bytes: &[u8], is_new: bool) {
        if is_new || bytes.len() != self.partial.len() {
            self.partial.clear();
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Returns whether something is left over of a read. The socket must not be read before that is handled.
    pub fn has_left_over(&self) -> bool {
        self.left_over.is_some()
    }

    /// Appends the kept bytes to `plain`, which must be empty. Returns the outcome in place of another read if they are
    /// what was left over of a read.
    pub fn resume(&mut self, plain: &mut Scratch) -> Option<ReadOutcome> {
        // Never more than an incomplete message and one read, which the scratch is made for.
        let _ = plain.append(&self.partial);
        let end = self.left_over.take()?;
        // The socket may have more: an event for it may have come meanwhile.
        Some(ReadOutcome { full: true, end, ..ReadOutcome::default() })
    }

    /// Returns how long the connection lives. `active`: when its time was last extended; the end of an allocation
    /// since the last check extends it, too.
    pub fn life(&mut self, active: &mut Instant, now: Instant, has_allocation: bool) -> Life {
        if has_allocation {
            (self.allocated, self.renewed) = (true, false);
            return Life::Until(now + IDLE_TIME);
        }
        if std::mem::take(&mut self.allocated) {
            // The allocation ended since the last check: allow time for another one.
            *active = now;
        }
        let end = *active + IDLE_TIME;
        if now >= end { Life::Over(CloseReason::Idle) } else { Life::Until(end) }
    }
}

/// The TURN messages of one read. [`Front::next_message`](super::Front::next_message) returns them one by one.
#[derive(Debug)]
pub struct Messages {
    pub(super) token: Token,
    pub(super) position: usize,
    /// Whether the message returned last is among the first requests of the connection.
    pub opening: bool,
    /// Why the connection must be closed after them.
    pub(super) end: Option<CloseReason>,
    /// When they were read.
    pub(super) now: Instant,
}

impl Messages {
    /// Moves on behind a message that `turn` has recorded.
    pub(super) fn pass(&mut self, consumed: usize, turn: Option<&mut TurnClient>) {
        self.position += consumed;
        self.opening = turn.is_some_and(|turn| turn.is_opening());
    }
}

/// Returns why to close a connection after the protocol dropped a message; `None` to keep it open. One that exceeds the rate
/// limit of its source stays open and gets no answer: a client that repeats its request comes in later, and a flood that had
/// to reconnect would take the time for handshakes from the newcomers of its source. Each connection has a limit of requests
/// that do not authenticate.
pub fn closes_stream(dropped: DropReason) -> Option<CloseReason> {
    dropped.breaks_stream().then_some(CloseReason::Garbage)
}

/// Returns the reason that the protocol records for a closed connection.
pub fn end_reason(reason: CloseReason) -> EndReason {
    match reason {
        CloseReason::Closed | CloseReason::BackEnd => EndReason::Closed,
        CloseReason::Garbage | CloseReason::TlsFailed | CloseReason::NotProxied => EndReason::Broken,
        CloseReason::Shutdown => EndReason::Shutdown,
        CloseReason::Reset
        | CloseReason::HandshakeTimeout
        | CloseReason::Idle
        | CloseReason::Stuck
        | CloseReason::TooMany
        | CloseReason::Displaced => EndReason::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::scratch::Buffers;

    /// The rest of a read may be as long as the incomplete message that was kept before it.
    #[test]
    fn what_is_left_over_replaces_an_incomplete_message_of_the_same_length() {
        let (mut turn, mut buffers) = (TurnClient::default(), Buffers::default());
        turn.keep(b"old", true);
        turn.leave(b"new", true, None);
        assert!(turn.resume(&mut buffers.plain).is_some_and(|outcome| outcome.full));
        assert_eq!(buffers.plain.bytes(), b"new");
        assert!(!turn.has_left_over());
    }
}
