//! What /proc tells about a running process.

use std::fs;

/// Returns the resident memory in KiB.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    resident.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Returns the number of open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs").count()
}
