//! The metrics of the process itself. They are served from its start, before the listeners accept, so that an alert sees a
//! server that does not become ready.

use crate::admin::{MetricSource, Readiness, Snapshot};
use crate::system::{clock, memory};

/// The commit that this program was built from; `.ci/release` sets it.
pub const REVISION: Option<&str> = option_env!("HALLPASS_REVISION");

/// Everything that these metrics are read from.
pub struct ProcessMetrics {
    readiness: Readiness,
    /// Seconds since 1970.
    started: u64,
}

impl ProcessMetrics {
    /// Records the start of the process.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, started: clock::unix_seconds() }
    }
}

impl MetricSource for ProcessMetrics {
    fn collect(&self, out: &mut Snapshot) {
        let version = ("version", env!("CARGO_PKG_VERSION"));
        let labels = [version, ("revision", REVISION.unwrap_or_default())];
        let known = if REVISION.is_some() { &labels[..] } else { &labels[..1] };
        out.gauge("hallpass_build_info", "Version and commit of the running server.", known, 1.0);
        let ready = f64::from(u8::from(self.readiness.check().is_ok()));
        out.gauge("hallpass_ready", "1 if clients can be served, as /readyz says, else 0.", &[], ready);
        let started = self.started as f64;
        out.gauge("process_start_time_seconds", "Start of the process in seconds since 1970.", &[], started);
        let help = "Processor time that the process has used.";
        out.counter_of_time("process_cpu_seconds_total", help, &[], clock::process_cpu());
        if let Some(resident) = memory::resident() {
            let help = "Resident memory of the process.";
            out.gauge("process_resident_memory_bytes", help, &[], resident as f64);
        }
    }
}
