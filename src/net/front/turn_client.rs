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
/// First requests of a connection, which have a budget of their own besides that of the source. A login takes two or
/// three.
const OPENING: u8 = 4;
/// The longest incomplete message kept for a client without an allocation: a request is shorter than 2 KB.
const STRANGER_MESSAGE_MAX: usize = 4 << 10;
/// Buffer capacity kept for an incomplete message. Leftovers of a read may have needed ten times as much.
const PARTIAL_CAPACITY: usize = 4 << 10;

/// The state of a TURN client on a connection.
#[derive(Debug, Default)]
pub struct TurnClient {
    /// The start of an incomplete message, or the leftovers of a read.
    pub partial: Vec<u8>,
    /// Set while `partial` holds the leftovers of a read, with the end of the stream if the read returned it.
    left_over: Option<Option<CloseReason>>,
    /// Whether the client has sent a STUN message; ChannelData before it means another protocol.
    greeted: bool,
    /// Whether it had an allocation at the last check.
    allocated: bool,
    /// Requests since the last authenticated one.
    unproven: u8,
    /// Requests since the start, at most 255.
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

    /// Keeps the messages beyond the budget of a turn, and the end of the stream after them. `is_new`: messages before
    /// `rest` were handled, so `rest` differs from the bytes kept already.
    pub fn leave(&mut self, rest: &[u8], is_new: bool, end: Option<CloseReason>) {
        self.left_over = Some(end);
        self.replace(rest, is_new);
    }

    /// Stores `bytes` in `partial`. Unless `is_new`, they begin with the content of `partial`, so equal length means no
    /// change.
    fn replace(&mut self, bytes: &[u8], is_new: bool) {
        if is_new || bytes.len() != self.partial.len() {
            self.partial.clear();
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Returns whether leftovers of a read are kept. The socket must not be read until they are handled.
    pub fn has_left_over(&self) -> bool {
        self.left_over.is_some()
    }

    /// Appends the kept bytes to `plain`, which must be empty. If they are leftovers of a read, returns an outcome in
    /// place of another read.
    pub fn resume(&mut self, plain: &mut Scratch) -> Option<ReadOutcome> {
        // At most an incomplete message and one read, which fit into the scratch.
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
    /// Advances past a message that `turn` has recorded.
    pub(super) fn pass(&mut self, consumed: usize, turn: Option<&mut TurnClient>) {
        self.position += consumed;
        self.opening = turn.is_some_and(|turn| turn.is_opening());
    }
}

/// Returns why to close a connection after the protocol dropped a message; `None` to keep it open. A connection over
/// the rate limit of its source stays open without an answer: a client that retries is served later, and reconnects
/// would use up the handshake time of newcomers from the same source. Each connection has a limit of unauthenticated
/// requests.
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
        | CloseReason::Displaced
        | CloseReason::KernelMemory => EndReason::Reset,
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
