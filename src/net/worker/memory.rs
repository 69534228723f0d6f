//! Returns memory to the kernel after a large drop in allocations.

use crate::net::syscall::return_free_memory;

/// The smallest peak of allocations after which memory is returned to the kernel: about 1 MiB.
const BURST: usize = 512;

/// The most allocations at once since memory was last returned.
#[derive(Debug, Default)]
pub struct Memory {
    peak: usize,
}

impl Memory {
    /// Returns memory if few of many allocations are left.
    pub fn follow(&mut self, allocations: usize) {
        self.peak = self.peak.max(allocations);
        if self.peak >= BURST && allocations < self.peak / 8 {
            self.peak = allocations;
            return_free_memory();
        }
    }
}
