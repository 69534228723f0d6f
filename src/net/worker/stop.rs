//! The end of a worker: clients are told, then the thread ends.

use std::time::Duration;

use super::Worker;
use crate::base::time::Instant;
use crate::net::front::ENDING_TIME;

/// When a worker that stops has ended.
pub(super) struct Stop {
    /// Until then newcomers are answered.
    answer_until: Instant,
    /// The end, even if clients have not answered the end of their connections.
    end: Instant,
}

impl Stop {
    fn new(now: Instant, answer: Duration) -> Self {
        Self { answer_until: now + answer, end: now + answer.max(ENDING_TIME) }
    }

    /// Returns when to check for the end.
    pub fn due(&self) -> Instant {
        self.end
    }

    fn is_over(&self, now: Instant, is_ending: bool) -> bool {
        now >= self.end || now >= self.answer_until && !is_ending
    }
}

impl Worker {
    /// Ends every allocation and every connection. Until the end, newcomers are refused.
    pub(super) fn begin_stop(&mut self, answer: Duration) {
        self.server.handle_drain(true);
        self.server.handle_shutdown(self.now);
        self.act();
        self.front.end_all(self.now.instant);
        self.stop.get_or_insert_with(|| Stop::new(self.now.instant, answer));
    }

    /// Ends every allocation and the streams of their clients.
    pub(super) fn end_sessions(&mut self) {
        self.server.handle_shutdown(self.now);
        self.act();
        self.front.end_turn_clients(self.now.instant);
    }

    /// Ends the loop once every client is told, or the time for it is over.
    pub(super) fn stop_if_over(&mut self) {
        let (now, is_ending) = (self.now.instant, self.front.is_ending());
        if self.stop.as_ref().is_some_and(|stop| stop.is_over(now, is_ending)) {
            self.running = false;
            self.front.close_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_waits_for_clients_and_for_the_time_to_answer_but_not_longer() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let stop = Stop::new(at(1000), Duration::ZERO);
        assert!(stop.is_over(at(1000), false), "nobody is connected");
        assert!(!stop.is_over(at(1499), true) && stop.is_over(at(1500), true));
        let stop = Stop::new(at(1000), Duration::from_secs(2));
        assert!(!stop.is_over(at(2999), false) && stop.is_over(at(3000), false));
        assert_eq!(stop.due(), at(3000));
    }
}
