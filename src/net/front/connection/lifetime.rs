//! How long a connection lives, and when that is checked.

use super::Connection;
use crate::base::time::Instant;
use crate::net::front::door::Door;
use crate::net::front::life::Life;

impl Connection {
    /// Schedules a check at `deadline`; returns `false` if an earlier check is scheduled already.
    pub fn schedule(&mut self, deadline: Instant, now: Instant) -> bool {
        if self.check_at.is_some_and(|at| at > now && at <= deadline) {
            return false;
        }
        self.check_at = Some(deadline);
        true
    }

    /// Returns when to check the connection again.
    pub fn life(&mut self, now: Instant, has_allocation: impl FnOnce() -> bool) -> Life {
        let negotiated = self.negotiated().is_some();
        let (limit, over) = match &mut self.door {
            Door::Web(splice) => return splice.life(&self.stream, self.active, now),
            Door::Turn(turn) => {
                let has_allocation = has_allocation();
                let life = turn.life(&mut self.active, now, has_allocation);
                self.set_user(self.share.user.filter(|_| has_allocation));
                return life;
            }
            door => door.time_limit(self.expected.tls, negotiated),
        };
        let end = self.active + limit;
        if now >= end { over } else { Life::Until(end) }
    }
}
