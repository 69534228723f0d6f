//! Deadlines of streams and paused listeners. A deadline is never cancelled: when it passes, the owner of the token
//! checks whether it still applies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::time::Instant;
use crate::net::token::Token;

/// Deadlines in order.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    /// The number of deadlines left when closed tokens were last removed.
    tidied: usize,
}

impl Timers {
    /// Adds a deadline for `token`.
    pub fn set(&mut self, deadline: Instant, token: Token) {
        self.heap.push(Reverse((deadline, token.pack())));
    }

    /// Returns the next deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Removes one deadline that has passed and returns its token.
    pub fn due(&mut self, now: Instant) -> Option<Token> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, token)) = self.heap.pop()?;
        Token::unpack(token)
    }

    /// Removes the deadlines of closed tokens once they are the majority, so that short connections do not
    /// accumulate.
    pub fn tidy(&mut self, live: usize, is_live: impl Fn(Token) -> bool) {
        // Live tokens may have several deadlines each, so the next clean-up waits until the heap has doubled.
        if self.heap.len() > 2 * live.max(self.tidied) + 1024 {
            self.heap.retain(|Reverse((_, token))| Token::unpack(*token).is_some_and(&is_live));
            self.tidied = self.heap.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_due_in_order_and_never_early() {
        let mut timers = Timers::default();
        let at = Instant::from_nanos;
        timers.set(at(30), Token::Accept(1));
        timers.set(at(10), Token::Udp(2));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.due(at(30)), Some(Token::Udp(2)));
        assert_eq!(timers.due(at(30)), Some(Token::Accept(1)));
        assert_eq!((timers.due(at(99)), timers.next()), (None, None));
    }

    #[test]
    fn deadlines_of_closed_tokens_do_not_accumulate() {
        let mut timers = Timers::default();
        for index in 0..5000_u16 {
            timers.set(Instant::from_nanos(index.into()), Token::Accept(index));
            timers.tidy(1, |token| token == Token::Accept(7));
        }
        assert!(timers.heap.len() <= 1027);
        assert_eq!(timers.due(Instant::from_nanos(u64::MAX)), Some(Token::Accept(7)));
    }
}
