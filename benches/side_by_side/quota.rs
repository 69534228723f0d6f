//! Half of the server's core: what the generator, which pays as much for a packet as the server, is not the limit of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Microseconds of CPU in each period, and the period: short enough that no buffer overflows meanwhile.
const QUOTA: u32 = 10_000;
const PERIOD: u32 = 20_000;

/// A control group with half a core; it goes with this value.
pub struct HalfCore(PathBuf);

impl HalfCore {
    /// Puts a process into a new group.
    ///
    /// # Errors
    /// The kernel has no controller for CPU time here, or we may not use it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpu" };
        let group = Self(Path::new(root).join(format!("hallpass-bench-{}", std::process::id())));
        match fs::create_dir(&group.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let set = |file: &str, value: String| fs::write(group.0.join(file), value);
        if unified {
            set("cpu.max", format!("{QUOTA} {PERIOD}"))?;
        } else {
            set("cpu.cfs_period_us", PERIOD.to_string())?;
            set("cpu.cfs_quota_us", QUOTA.to_string())?;
        }
        set("cgroup.procs", pid.to_string())?;
        Ok(group)
    }
}

impl Drop for HalfCore {
    fn drop(&mut self) {
        // Empty once the server has ended; one that is left over is used again.
        let _ = fs::remove_dir(&self.0);
    }
}
