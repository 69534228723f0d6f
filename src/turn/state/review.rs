//! Judges permissions again after a change of the settings.
//!
//! One user may hold thousands of permissions, and this machine's addresses change whenever a container starts. So only
//! permissions that the change may concern are judged, and a page of them at a time: packets wait for one page at most. Until
//! its turn comes, a permission keeps its reach.

use crate::turn::action::Review;
use crate::turn::identity::peer_policy::difference::Difference;
use crate::turn::state::table::permit::ReviewPage;

/// Permissions looked at in one page, if none of them is concerned.
const PAGE: usize = 32_768;
/// The cost of judging a permission, in looks: 0.75 us against 20 to 40 ns. So a page takes about 1.5 ms at most.
const JUDGED: usize = 16;

/// A review that is under way.
#[derive(Debug)]
pub struct Reviewing {
    /// The permissions to judge.
    pub difference: Difference,
    /// The position in the table to continue at.
    pub next: usize,
    /// What has ended so far.
    pub ended: Review,
}

impl Reviewing {
    /// The next page.
    pub fn page(&self) -> ReviewPage {
        ReviewPage { from: self.next, looks: PAGE, judged: JUDGED }
    }
}
