//! Judges permissions again after a change of the settings.
//!
//! One user may hold thousands of permissions, and this machine's addresses change whenever a container starts. So only
//! permissions that the change may concern are judged, and a page of them at a time: packets wait for one page at most. Until
//! its turn comes, a permission keeps its reach.

use super::State;
use crate::base::time::Instant;
use crate::turn::action::{Action, Review};
use crate::turn::identity::peer_policy::difference::Difference;
use crate::turn::state::table::permit::ReviewPage;

/// Permissions looked at in one page, if none of them is concerned.
const PAGE: usize = 32_768;
/// The cost of judging a permission, in looks: 0.75 us against 20 to 40 ns. So a page takes about 1.5 ms at most.
const JUDGED: usize = 16;

/// A review that is under way.
#[derive(Debug)]
pub(super) struct Reviewing {
    difference: Difference,
    /// The position in the table to continue at.
    next: usize,
    /// What has ended so far.
    ended: Review,
}

// The review needs table, policy and settings, so these are methods of the state.
impl State {
    /// Begins a review of the permissions that `difference` concerns, and completes its first page. `allocations` is the number
    /// of those that the same settings have ended already.
    pub(super) fn begin_review(&mut self, now: Instant, difference: Difference, allocations: usize) {
        let mut ended = Review { allocations, permissions: 0 };
        let difference = match self.reviewing.take() {
            // What the last change concerns may not have been judged yet.
            Some(unfinished) => {
                ended.allocations += unfinished.ended.allocations;
                ended.permissions += unfinished.ended.permissions;
                Difference::Anything
            }
            None if matches!(difference, Difference::Nothing) => {
                if ended != Review::default() {
                    self.actions.push_back(Action::Reviewed(ended));
                }
                return;
            }
            None => difference,
        };
        self.reviewing = Some(Reviewing { difference, next: 0, ended });
        self.continue_review(now);
    }

    /// Judges the next page of permissions, if a review is under way.
    pub fn continue_review(&mut self, now: Instant) {
        let Some(mut reviewing) = self.reviewing.take() else { return };
        let Self { table, policy, settings, retired, .. } = self;
        let page = ReviewPage { from: reviewing.next, looks: PAGE, judged: JUDGED };
        let concerns = |ip| reviewing.difference.concerns(ip);
        let (ended, next) = table.review_permissions(now, page, concerns, |allocation, peer| {
            let host = settings.hosts.iter().chain(&*retired).find(|host| host.id == allocation.host)?;
            policy.judge_either(peer, host.peers.as_deref())
        });
        reviewing.ended.permissions += ended;
        match next {
            Some(next) => self.reviewing = Some(Reviewing { next, ..reviewing }),
            None if reviewing.ended == Review::default() => {}
            None => self.actions.push_back(Action::Reviewed(reviewing.ended)),
        }
    }
}
