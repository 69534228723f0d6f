//! What one turn of a worker's loop may use, and what is left over for the next.

use std::time::Duration;

use super::token::Token;
use crate::base::time::{Instant, Now};

/// Bytes that web clients and their servers may send in one turn: 0.2 ms of sealing and copying, for which packets wait.
const WEB_BYTES: usize = 256 << 10;

/// Time that streams may take in one turn: UDP clients and peers wait for no more, whatever streams bring.
const STREAM_TIME: Duration = Duration::from_millis(1);
/// Streams handled before the clock is read for the first time.
const UNTIMED: u32 = 4;

/// The budget of a turn.
#[derive(Debug)]
pub struct Budget {
    clock: fn() -> Now,
    /// When the turn began with its streams, and how many it has handled.
    streams: (Instant, u32),
    /// Counts turns; wraps.
    pub turn: u32,
    /// Bytes that the web may still send.
    web_bytes: usize,
    /// Streams that this turn had no time for.
    postponed: Vec<Token>,
    /// Edge-triggered sockets that may have more than was read: they are read again without an event.
    again: Vec<Token>,
}

impl Budget {
    /// A budget that measures by `clock`.
    pub fn new(clock: fn() -> Now) -> Self {
        let (postponed, again) = (Vec::new(), Vec::new());
        Self { clock, streams: (Instant::default(), 0), turn: 0, web_bytes: 0, postponed, again }
    }

    /// Begins another turn.
    pub fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.web_bytes = WEB_BYTES;
        self.streams.1 = 0;
    }

    /// Whether the leftovers of the last turn come before this turn's events: in every other turn. A client that always has
    /// more to read would keep the others waiting, or they it.
    pub fn is_turn_of_leftovers(&self) -> bool {
        self.turn.is_multiple_of(2)
    }

    /// Whether no further stream is to be handled in this turn.
    pub fn is_stream_time_spent(&mut self) -> bool {
        let (began, handled) = &mut self.streams;
        *handled += 1;
        match *handled {
            1 => *began = (self.clock)().instant,
            0..=UNTIMED => {}
            _ => return (self.clock)().instant.since(*began) > STREAM_TIME,
        }
        false
    }

    /// Leaves a stream to the next turn.
    pub fn postpone(&mut self, token: Token) {
        self.postponed.push(token);
    }

    /// Notes that a socket may have more to read.
    pub fn read_again(&mut self, token: Token) {
        self.again.push(token);
    }

    /// Whether sockets are to be read again.
    #[cfg(test)]
    pub fn has_leftovers(&self) -> bool {
        !(self.postponed.is_empty() && self.again.is_empty())
    }

    /// Moves the leftovers of the last turn into an empty list. Those that had no turn come first, so that nobody who always
    /// has more to read keeps others waiting.
    pub fn take_leftovers(&mut self, leftovers: &mut Vec<Token>) {
        leftovers.append(&mut self.postponed);
        leftovers.append(&mut self.again);
    }

    /// Whether the web may send no more in this turn. Its sockets are level-triggered: they are reported again.
    pub fn is_web_spent(&self) -> bool {
        self.web_bytes == 0
    }

    /// Notes bytes that the web sent.
    pub fn spend_web(&mut self, bytes: usize) {
        self.web_bytes = self.web_bytes.saturating_sub(bytes);
    }
}

/// With which readiness a stream is among the leftovers of a turn; none: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOver(u32);

impl LeftOver {
    /// Adds this readiness. Returns whether there was none: each stream is listed once, and what comes meanwhile is added, or
    /// an edge would be lost.
    pub fn leave(&mut self, readiness: u32) -> bool {
        let is_new = self.0 == 0;
        self.0 |= readiness;
        is_new
    }

    /// Takes the readiness.
    pub fn take(&mut self) -> u32 {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_a_millisecond_of_each_turn() {
        thread_local! {
            static MICROS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        }
        let mut budget = Budget::new(|| Now { instant: Instant::from_nanos(MICROS.get() * 1000), unix: 0 });
        for _ in 0..3 {
            budget.begin_turn();
            let handled = (0..100).take_while(|_| {
                let may = !budget.is_stream_time_spent();
                MICROS.set(MICROS.get() + 100);
                may
            });
            assert_eq!(handled.count(), 11);
        }
    }

    #[test]
    fn each_turn_has_its_bytes_and_leftovers_come_once() {
        let mut budget = Budget::new(|| Now { instant: Instant::default(), unix: 0 });
        budget.begin_turn();
        budget.spend_web(WEB_BYTES - 1);
        assert!(!budget.is_web_spent());
        budget.spend_web(9);
        assert!(budget.is_web_spent() && !budget.has_leftovers());
        budget.read_again(Token::Udp(3));
        let mut leftovers = Vec::new();
        assert!(budget.has_leftovers());
        budget.postpone(Token::Udp(4));
        budget.take_leftovers(&mut leftovers);
        let expected = vec![Token::Udp(4), Token::Udp(3)];
        assert_eq!((leftovers, budget.has_leftovers()), (expected, false));
        let first = budget.is_turn_of_leftovers();
        budget.begin_turn();
        assert!(!budget.is_web_spent());
        assert_eq!((budget.turn, budget.is_turn_of_leftovers()), (2, !first));
    }
}
