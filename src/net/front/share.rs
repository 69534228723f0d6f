//! The scheduling state of a stream client: its rank, and the readiness with which it was left over.

use crate::net::budget::{Budget, LARGE_UNITS, LeftOver, Rank};
use crate::turn::action::UserId;

/// The scheduling state of a stream client.
#[derive(Debug, Default)]
pub struct Share {
    /// The readiness with which it was left over.
    pub left_over: LeftOver,
    /// The user of its allocation, if it had one at the last check.
    pub user: Option<UserId>,
    /// Whether the work of its last share was large.
    is_large: bool,
}

impl Share {
    /// Records the units of work of one share.
    pub fn record(&mut self, units: u32, budget: &mut Budget) {
        self.is_large = units >= LARGE_UNITS;
        budget.charge(self.user, units);
    }

    /// Returns its rank.
    pub fn rank(&self, budget: &Budget) -> Rank {
        match self.user {
            Some(_) => budget.rank(self.user),
            None if self.is_large => Rank::Last,
            None => Rank::Second,
        }
    }
}
