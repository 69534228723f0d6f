//! Limits the server to half of its core, so that the generator, which spends as much per packet, is not the
//! bottleneck.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// CPU time per period, and the period, in microseconds: short enough that no buffer overflows meanwhile.
const QUOTA: u32 = 10_000;
const PERIOD: u32 = 20_000;

/// A control group with half a core, removed on drop.
pub struct HalfCore(PathBuf);

impl HalfCore {
    /// Moves a process into a new group.
    ///
    /// # Errors
    /// The error of the cgroup file system: no CPU controller, or no permission.
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
        // It is empty once the server has ended; a group that is left over is reused.
        let _ = fs::remove_dir(&self.0);
    }
}
