//! Memory and descriptors watched from outside the workers: when one runs low, newcomers are refused and the log says so.

use std::sync::Arc;

use crate::net::admission::{Admission, Pressure};
use crate::system::memory;

/// What may be used when the operator names no budget, in fourths of what the process may have: the kernel's part of each
/// socket is not in it, and other programs live here too.
const FOURTHS: u64 = 3;

/// The watch over what this process has.
pub struct Watch {
    admission: Arc<Admission>,
    budget: u64,
    descriptors_low: bool,
}

impl Watch {
    /// Nothing seen yet; `memory_mib` is what the operator allows, 0 = three quarters of what there is.
    pub fn new(admission: Arc<Admission>, memory_mib: u32) -> Self {
        Self { admission, budget: budget(memory_mib), descriptors_low: false }
    }

    /// Another budget, from a reload.
    pub fn set_budget(&mut self, memory_mib: u32) {
        self.budget = budget(memory_mib);
    }

    /// Looks at memory and descriptors, and acts on them.
    pub fn look(&mut self) {
        if let Some(used) = memory::resident() {
            self.on_memory(used);
        }
        let (open, most) = self.admission.descriptors();
        // From nine tenths on it is low, and below eight it is not.
        let tenths = u64::from(open) * 10;
        let low = tenths >= u64::from(most) * if self.descriptors_low { 8 } else { 9 };
        if low && !self.descriptors_low {
            tracing::warn!(
                open,
                most,
                "descriptors run low: newcomers are refused (508); raise LimitNOFILE= of the unit"
            );
        } else if !low && self.descriptors_low {
            tracing::info!(open, most, "there are descriptors again");
        }
        self.descriptors_low = low;
    }

    fn on_memory(&mut self, used: u64) {
        let before = self.admission.pressure();
        let pressure = before.after(used, self.budget);
        if pressure == before {
            return;
        }
        self.admission.set_pressure(pressure);
        let (used_mib, budget_mib) = (used >> 20, self.budget >> 20);
        match pressure {
            Pressure::None => {
                tracing::info!(used_mib, budget_mib, "there is memory again: newcomers are served")
            }
            Pressure::Full => tracing::warn!(
                used_mib,
                budget_mib,
                "memory runs low: newcomers are refused (508), running calls go on; see limits.memory_mib"
            ),
            Pressure::Tight => tracing::error!(
                used_mib,
                budget_mib,
                "memory is used up: newcomers are refused (508), queues of slow clients are cut; see limits.memory_mib"
            ),
        }
    }
}

fn budget(memory_mib: u32) -> u64 {
    match memory_mib {
        0 => memory::allowance().map_or(u64::MAX, |bytes| bytes / 4 * FOURTHS),
        mib => u64::from(mib) << 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admission::Gate;
    use crate::net::counters::Refusal;

    #[test]
    fn memory_beyond_the_budget_closes_the_door_and_opens_it_again() {
        let admission = Admission::unlimited();
        let gate = Gate::new(Arc::clone(&admission), 1);
        let mut watch = Watch::new(Arc::clone(&admission), 100);
        watch.on_memory(89 << 20);
        drop(gate.stream(None).expect("enough"));
        watch.on_memory(91 << 20);
        assert_eq!(gate.stream(None).err(), Some(Refusal::Memory));
        watch.on_memory(101 << 20);
        assert_eq!(admission.pressure(), Pressure::Tight);
        watch.set_budget(1000);
        watch.on_memory(101 << 20);
        drop(gate.stream(None).expect("a reload gave more"));
    }

    #[test]
    fn without_a_budget_the_machine_is_the_limit() {
        let all = memory::allowance().expect("the kernel says");
        assert_eq!(budget(0), all / 4 * 3);
        let admission = Admission::unlimited();
        Watch::new(Arc::clone(&admission), 0).look();
        assert_eq!(admission.pressure(), Pressure::None);
    }
}
