//! When a worker that stops has ended: clients are told first.

use std::time::Duration;

use crate::base::time::Instant;
use crate::net::front::ENDING_TIME;

/// When a worker that stops has ended.
pub struct Stop {
    /// Until then newcomers are answered.
    answer_until: Instant,
    /// The end, even if clients have not answered the end of their connections.
    end: Instant,
}

impl Stop {
    pub fn new(now: Instant, answer: Duration) -> Self {
        Self { answer_until: now + answer, end: now + answer.max(ENDING_TIME) }
    }

    /// Returns when to check for the end.
    pub fn due(&self) -> Instant {
        self.end
    }

    pub fn is_over(&self, now: Instant, is_ending: bool) -> bool {
        now >= self.end || now >= self.answer_until && !is_ending
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
