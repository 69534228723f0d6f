//! Watches memory and descriptors on the control thread, and logs a warning if one of them runs low. If the memory of this
//! process runs low, it makes the workers refuse new clients. If the kernel's memory for TCP runs low, connections that
//! hold much of it are to be closed.

use std::sync::Arc;

use crate::net::TcpShortage;
use crate::net::admission::{Admission, Pressure};
use crate::system::memory::{self, TcpMemory};

/// The default budget, in quarters of the memory that the process may use. The rest is for the kernel's part of each socket,
/// which the resident size does not include, and for other programs.
const QUARTERS: u64 = 3;

/// While the kernel's memory for TCP is low, one user or one source has an eighth of it, but no more than 32 MiB, on all
/// workers together; at least this on each of them.
const OF_OWNER: u64 = 32 << 20;
const OF_OWNER_AND_WORKER: u64 = 2 << 20;

/// Watches the memory and the descriptors of this process.
pub struct Watch {
    admission: Arc<Admission>,
    budget: u64,
    descriptors_low: bool,
    tcp_memory_low: bool,
}

impl Watch {
    /// Creates a watch with `memory_mib` as the budget; 0 means three quarters of the memory that this process may use.
    pub fn new(admission: Arc<Admission>, memory_mib: u32) -> Self {
        Self { admission, budget: budget(memory_mib), descriptors_low: false, tcp_memory_low: false }
    }

    /// Changes the budget after a reload.
    pub fn set_budget(&mut self, memory_mib: u32) {
        self.budget = budget(memory_mib);
    }

    /// Reads the use of memory and descriptors, and refuses or admits new clients accordingly. Returns what each of so many
    /// workers is to free of the kernel's memory for TCP, `Some(None)` when there is enough again.
    #[must_use]
    pub fn check(&mut self, workers: usize) -> Option<Option<TcpShortage>> {
        if let Some(used) = memory::resident() {
            self.on_memory(used);
        }
        let (open, most) = self.admission.descriptors();
        // Low from nine tenths of the limit until it falls below eight tenths.
        let tenths = u64::from(open) * 10;
        let low = tenths >= u64::from(most) * if self.descriptors_low { 8 } else { 9 };
        if low && !self.descriptors_low {
            tracing::warn!(
                open,
                most,
                "descriptors run low: new clients are refused (508); raise LimitNOFILE= in the unit"
            );
        } else if !low && self.descriptors_low {
            tracing::info!(open, most, "descriptors are available again");
        }
        self.descriptors_low = low;
        TcpMemory::read().and_then(|tcp| self.on_tcp_memory(tcp, workers.max(1) as u64))
    }

    /// Low from six eighths of the kernel's limit until it falls below five.
    fn on_tcp_memory(&mut self, tcp: TcpMemory, workers: u64) -> Option<Option<TcpShortage>> {
        let TcpMemory { used, pressure } = tcp;
        let enough = pressure / 8 * 5;
        let was_low = self.tcp_memory_low;
        let low = used >= if was_low { enough } else { pressure / 8 * 6 };
        let (used_mib, limit_mib) = (used >> 20, pressure >> 20);
        if low && !was_low {
            tracing::warn!(
                used_mib,
                limit_mib,
                "the kernel's memory for TCP runs low, so connections that hold much of it without a use are closed; if this \
                 happens without an attack, raise net.ipv4.tcp_mem"
            );
        } else if !low && was_low {
            tracing::info!(used_mib, limit_mib, "the kernel has memory for TCP again");
        }
        self.tcp_memory_low = low;
        // What one worker does not have is freed by the others a second later.
        let shortage = TcpShortage {
            bytes: used.saturating_sub(enough).div_ceil(workers),
            of_owner: ((pressure / 8).min(OF_OWNER) / workers).max(OF_OWNER_AND_WORKER),
        };
        (low || was_low).then_some(low.then_some(shortage))
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
                tracing::info!(used_mib, budget_mib, "memory pressure cleared: new clients are served")
            }
            Pressure::Full => tracing::warn!(
                used_mib,
                budget_mib,
                "memory runs low: new clients are refused (508), running calls continue; see limits.memory_mib"
            ),
            Pressure::Tight => tracing::error!(
                used_mib,
                budget_mib,
                "memory is exhausted: new clients are refused (508), queues of slow clients are cut; see limits.memory_mib"
            ),
        }
    }
}

/// Returns the budget in bytes: three quarters of the memory that this process may use if `memory_mib` is 0, and `u64::MAX` if
/// that is unknown.
pub fn budget(memory_mib: u32) -> u64 {
    match memory_mib {
        0 => memory::allowance().map_or(u64::MAX, |bytes| bytes / 4 * QUARTERS),
        mib => u64::from(mib) << 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admission::Gate;
    use crate::net::counters::Refusal;

    #[test]
    fn new_clients_are_refused_while_memory_exceeds_the_budget() {
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
        drop(gate.stream(None).expect("the reload raised the budget"));
    }

    #[test]
    fn the_kernels_memory_for_tcp_is_low_from_six_eighths_until_it_falls_below_five() {
        let mut watch = Watch::new(Admission::unlimited(), 0);
        for (used, to_free) in [
            (599, None),
            (600, Some(Some(50))),
            (500, Some(Some(0))),
            (499, Some(None)),
            (599, None),
            (900, Some(Some(200))),
        ] {
            let told = watch.on_tcp_memory(TcpMemory { used, pressure: 800 }, 2);
            assert_eq!(told.map(|told| told.map(|shortage| shortage.bytes)), to_free, "{used}");
        }
        let of_owner = |pressure, workers| {
            let told = watch.on_tcp_memory(TcpMemory { used: pressure, pressure }, workers);
            told.flatten().expect("low").of_owner >> 20
        };
        let mut of_owner = of_owner;
        assert_eq!([of_owner(128 << 20, 1), of_owner(128 << 20, 4), of_owner(1 << 40, 2)], [16, 4, 16]);
        assert_eq!(of_owner(1 << 20, 8), 2);
    }

    #[test]
    fn without_a_budget_the_machine_is_the_limit() {
        let all = memory::allowance().expect("the kernel reports it");
        assert_eq!(budget(0), all / 4 * 3);
        let admission = Admission::unlimited();
        let _ = Watch::new(Arc::clone(&admission), 0).check(1);
        assert_eq!(admission.pressure(), Pressure::None);
    }
}
