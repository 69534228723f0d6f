//! How much is removed at once: allocations whose lifetime ends or whose connection closes, permissions and channels.
//!
//! Clients choose when their allocations end, and hundreds may end at the same moment, each with thousands of entries. Packets wait
//! meanwhile, so a page is removed at a time. What waits for its removal relays nothing: its end is compared with the clock.

use crate::base::time::Instant;

/// Units of one page. A unit takes 0.3 us, and 0.4 us for a relay, so a page takes 0.7 ms, and up to 5 ms when a table of 200,000
/// entries returns memory. The last allocation of a page may go beyond it by 4,000 units, 1.3 ms: it has at most two relays with
/// 1,000 permissions and as many channels each.
const PAGE: u32 = 2048;
/// Units of a relay, whose socket is closed: about 6 us.
const RELAY: u32 = 16;

/// The page of removals at one reading of the clock.
#[derive(Debug, Default)]
pub struct Removals {
    /// When the page began.
    at: Option<Instant>,
    left: u32,
    /// Units of everything removed so far; wraps around.
    total: u32,
}

impl Removals {
    /// Begins another page.
    pub fn begin(&mut self, now: Instant) {
        (self.at, self.left) = (Some(now), PAGE);
    }

    /// Returns whether more may be removed at this time.
    pub fn has_room(&mut self, now: Instant) -> bool {
        if self.at != Some(now) {
            self.begin(now);
        }
        self.left > 0
    }

    /// Counts one entry: a permission, a channel, or a deadline that is postponed.
    pub fn count_entry(&mut self) {
        self.count(1);
    }

    /// Counts a relay with so many permissions and channels.
    pub fn count_relay(&mut self, entries: usize) {
        self.count(RELAY + entries as u32);
    }

    fn count(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
        self.total = self.total.wrapping_add(units);
    }

    /// Returns the units of everything removed so far. It wraps around.
    pub fn total(&self) -> u32 {
        self.total
    }
}
