//! What /proc tells about a running process.

use std::fs;
use std::thread;
use std::time::Duration;

/// The number of readings for [`lasting_descriptors`], and the interval between them.
const LOOKS: usize = 5;
const LOOK: Duration = Duration::from_millis(5);

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

/// Returns the number of descriptors without those that a server opens for a moment, such as for a look at the machine's
/// addresses: the least of several readings.
pub fn lasting_descriptors(pid: u32) -> usize {
    let readings = (0..LOOKS).map(|_| {
        thread::park_timeout(LOOK);
        descriptors(pid)
    });
    readings.min().expect("there are readings")
}
