//! The clocks of the server. Lifetimes use the monotonic clock. The wall clock is used only for the expiry of REST
//! credentials and certificates, so its jumps do not affect lifetimes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds on CLOCK_MONOTONIC, the clock of systemd's `MONOTONIC_USEC`.
pub fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Monotonic time is not negative, and 2^64 ns are 584 years of uptime.
    (now.tv_sec as u64).wrapping_mul(NANOS_PER_SECOND).wrapping_add(now.tv_nsec as u64)
}

/// Seconds since 1970 on the wall clock; 0 if the clock is set to a time before 1970. The coarse clock lags by at most one
/// tick and is cheaper to read.
pub fn unix_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// Processor time that all threads of this process have used.
pub fn process_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    // It is not negative, and the kernel keeps the nanoseconds below a second.
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_never_goes_back_and_agrees_with_the_kernel() {
        // /proc/uptime counts CLOCK_BOOTTIME, which is ahead of CLOCK_MONOTONIC by the time spent suspended.
        let before = monotonic_nanos();
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let after = monotonic_nanos();
        assert!(before <= after);
        let boottime: f64 = text.split(' ').next().unwrap().parse().unwrap();
        assert!(before as f64 / 1e9 <= boottime + 0.02, "{before} is ahead of {boottime} s");
    }

    #[test]
    fn wall_clock_matches_a_new_file() {
        let dir = std::env::temp_dir().join(format!("hallpass-clock-{}", std::process::id()));
        let before = unix_seconds();
        std::fs::write(&dir, b"x").unwrap();
        let modified = std::fs::metadata(&dir).unwrap().modified().unwrap();
        std::fs::remove_file(&dir).unwrap();
        let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        // The file system's clock is the coarse one and may lag by a tick.
        assert!(modified + 1 >= before && modified <= unix_seconds(), "{before} {modified}");
    }
}
