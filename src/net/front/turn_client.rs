//! What is known of a TURN client on a stream: what it has proven, and the start of a message whose end is not there.

use super::connection::IDLE_TIME;
use super::door::Life;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::token::Token;
use crate::turn::action::{DropReason, EndReason};
use crate::wire::demux::{Kind, classify};

/// Requests in a row that may fail to authenticate. A login takes two or three, and a browser tries few passwords.
const UNPROVEN_MAX: u8 = 100;
/// The longest unfinished message kept for a client without an allocation: a request is below 2 KB.
const STRANGER_MESSAGE_MAX: usize = 4 << 10;

/// A TURN client's side of a connection.
#[derive(Debug, Default)]
pub struct TurnClient {
    /// The start of a message whose end is not there.
    pub partial: Vec<u8>,
    /// Whether the client ever sent a STUN message: ChannelData first is another protocol.
    greeted: bool,
    /// Whether an allocation was there at the last look.
    allocated: bool,
    /// Requests since the last authenticated one.
    unproven: u8,
    /// Whether an authenticated request gave it more time since it last had an allocation.
    renewed: bool,
}

impl TurnClient {
    /// Notes a message.
    ///
    /// # Errors
    /// `Garbage` if TURN does not start like that, `TooMany` after too many requests in a row that proved nothing.
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
        }
        if self.unproven > UNPROVEN_MAX { Err(CloseReason::TooMany) } else { Ok(()) }
    }

    /// Notes a request that authenticated. Returns whether it gives the connection more time: with an allocation each one
    /// does, without one only the first. One user could keep any number of connections otherwise.
    pub fn authenticated(&mut self, has_allocation: bool) -> bool {
        self.unproven = 0;
        let renews = has_allocation || !self.renewed;
        self.renewed = !has_allocation;
        renews
    }

    /// Whether to wait for the rest of a message that starts like that and needs `len` bytes: TURN starts with STUN, and the
    /// length is limited for a client without an allocation.
    pub fn may_wait(&self, start: &[u8], len: usize, has_allocation: impl FnOnce() -> bool) -> bool {
        let is_stun = start.first().is_none_or(|&first| classify(first) == Kind::Stun);
        (self.greeted || is_stun) && (len <= STRANGER_MESSAGE_MAX || has_allocation())
    }

    /// Keeps the start of a message until the rest comes.
    pub fn keep(&mut self, start: &[u8], is_new: bool) {
        if start.is_empty() {
            // An idle client holds no buffer.
            self.partial = Vec::new();
        } else if is_new || start.len() != self.partial.len() {
            self.partial.clear();
            self.partial.extend_from_slice(start);
        }
    }

    /// How long the connection lives. `active`: when it was last given time; an allocation that ended since the last look
    /// sets it.
    pub fn life(&mut self, active: &mut Instant, now: Instant, has_allocation: bool) -> Life {
        if has_allocation {
            (self.allocated, self.renewed) = (true, false);
            return Life::Until(now + IDLE_TIME);
        }
        if std::mem::take(&mut self.allocated) {
            // It ended since the last look: time for another one.
            *active = now;
        }
        let end = *active + IDLE_TIME;
        if now >= end { Life::Over(CloseReason::Idle) } else { Life::Until(end) }
    }
}

/// The TURN messages that one read brought. [`Front::next_message`](super::Front::next_message) takes them one by one.
#[derive(Debug)]
pub struct Messages {
    pub(super) token: Token,
    pub(super) position: usize,
    /// Why the connection is to be closed after them.
    pub(super) end: Option<CloseReason>,
}

/// Why a connection is closed after a message that the protocol dropped; `None` if it stays.
pub fn closes_stream(dropped: DropReason) -> Option<CloseReason> {
    match dropped {
        reason if reason.breaks_stream() => Some(CloseReason::Garbage),
        // No connection is kept open for a client that asks more than it may.
        DropReason::Throttled => Some(CloseReason::TooMany),
        _ => None,
    }
}

/// What the protocol is told about a connection that was closed.
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
