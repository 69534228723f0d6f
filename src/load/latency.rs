//! A histogram of latencies.

use hdrhistogram::Histogram;

/// The shortest recorded latency, in nanoseconds.
const LATENCY_MIN: u64 = 1;
/// The longest recorded latency, in nanoseconds; higher values count as this.
const LATENCY_MAX: u64 = 60_000_000_000;

/// A histogram of times.
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Three significant digits: 0.1 %. The bounds satisfy the crate's rules: at least 1, and twice as much above.
        Self(Histogram::new_with_bounds(LATENCY_MIN, LATENCY_MAX, 3).expect("bounds in order"))
    }
}

impl Latency {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Records a time in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.clamp(LATENCY_MIN, LATENCY_MAX));
    }

    /// Returns the quantile `share` in microseconds; `None` if nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e3)
    }
}
