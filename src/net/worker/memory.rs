//! Returns memory to the kernel after a large drop in allocations.

use std::time::Duration;

use crate::base::time::Instant;
use crate::net::syscall::return_free_memory;

/// The smallest peak of allocations after which memory is returned to the kernel: about 1 MiB.
const BURST: usize = 512;
/// Time between two returns. Each one walks the whole heap, and a few clients can make allocations come and go all the
/// time.
const INTERVAL: Duration = Duration::from_secs(60);

/// Decides when memory is returned.
#[derive(Debug, Default)]
pub struct Memory {
    /// The most allocations at once since memory was last returned.
    peak: usize,
    /// The earliest time of the next return.
    next: Instant,
    /// Whether few of many allocations are left.
    is_due: bool,
}

impl Memory {
    /// Returns memory if few of many allocations are left, at most once per [`INTERVAL`].
    pub fn follow(&mut self, allocations: usize, now: Instant) {
        if self.releases(allocations, now) {
            return_free_memory();
        }
    }

    /// Returns the time when memory is returned, if it must wait.
    pub fn due(&self) -> Option<Instant> {
        self.is_due.then_some(self.next)
    }

    fn releases(&mut self, allocations: usize, now: Instant) -> bool {
        self.peak = self.peak.max(allocations);
        self.is_due = self.peak >= BURST && allocations < self.peak / 8;
        let releases = self.is_due && self.next <= now;
        if releases {
            *self = Self { peak: allocations, next: now + INTERVAL, is_due: false };
        }
        releases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_once_a_minute_at_most() {
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let mut memory = Memory::default();
        for (allocations, seconds, releases) in [
            (BURST - 1, 100, false),
            (0, 100, false),
            (BURST, 100, false),
            (BURST / 8, 100, false),
            (BURST / 8 - 1, 100, true),
            (0, 100, false),
        ] {
            assert_eq!(memory.releases(allocations, at(seconds)), releases, "{allocations}");
            assert_eq!(memory.due(), None);
        }
        // Two clients that allocate and delete all the time.
        let mut returns = Vec::new();
        for second in 101..=400 {
            assert!(!memory.releases(BURST, at(second)));
            assert_eq!(memory.due(), None, "the memory is in use");
            if memory.releases(0, at(second)) {
                returns.push(second);
            }
        }
        assert_eq!(returns, [160, 220, 280, 340, 400]);
        // The return that had to wait is due even if nothing else happens.
        memory.releases(BURST, at(401));
        assert!(!memory.releases(0, at(402)));
        assert_eq!(memory.due(), Some(at(460)));
        assert!(memory.releases(0, at(460)));
        assert_eq!(memory.due(), None);
    }
}
