//! The memory that this process uses, the memory that it may use, and the memory that the kernel uses for TCP.

use std::fs;
use std::path::Path;

/// Resident memory of this process in bytes; `None` if /proc cannot be read.
pub fn resident() -> Option<u64> {
    size(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Memory that this process may use in bytes: that of the machine, or the limit of a control group if that is lower
/// (`MemoryMax=` of systemd). `None` if /proc cannot be read.
pub fn allowance() -> Option<u64> {
    let machine = size(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |group| group.min(machine)))
}

/// The kernel's memory for the TCP connections of the whole machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpMemory {
    /// Bytes in use.
    pub used: u64,
    /// From here on the kernel saves memory at all connections: the second value of net.ipv4.tcp_mem.
    pub pressure: u64,
}

impl TcpMemory {
    /// Reads the current state; `None` if /proc cannot be read.
    pub fn read() -> Option<Self> {
        let page = rustix::param::page_size() as u64;
        let used = pages_for_tcp(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
        let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok();
        let pages = limits.and_then(|limits| limits.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
        let pressure = match pages {
            Some(pages) => pages.saturating_mul(page),
            // Containers do not see the limit. This is the kernel's default.
            None => size(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")? / 16,
        };
        Some(Self { used: used.saturating_mul(page), pressure })
    }
}

/// Reads the pages in use for TCP from `/proc/net/sockstat`.
fn pages_for_tcp(table: &str) -> Option<u64> {
    let mut words = table.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_ascii_whitespace();
    words.find(|&word| word == "mem")?;
    words.next()?.parse().ok()
}

/// Reads a size in bytes from a table in /proc.
fn size(table: &str, name: &str) -> Option<u64> {
    let value = table.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the smallest limit of the control groups in `/proc/self/cgroup` and of their parents (cgroups(7), version 1
/// and 2).
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        ancestors.filter_map(|group| limit(&root.join(group).join(file))).collect()
    });
    limits.min()
}

/// Reads the limit of a control group; `None` if there is none.
fn limit(file: &Path) -> Option<u64> {
    // "max" means no limit. In version 1 the file then contains a number larger than the memory of any machine.
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_found() {
        let resident = resident().expect("status");
        let allowance = allowance().expect("meminfo");
        assert!(resident > 1 << 20 && resident < allowance, "{resident} of {allowance}");
    }

    #[test]
    fn the_memory_for_tcp_is_found() {
        let table = "sockets: used 196\nTCP: inuse 5 orphan 0 tw 7 alloc 8 mem 41\nUDP: inuse 3 mem 2\n";
        assert_eq!(pages_for_tcp(table), Some(41));
        assert_eq!(pages_for_tcp("TCP: inuse 5\nUDP: inuse 3 mem 2\n"), None);
        assert!(TcpMemory::read().expect("the kernel reports it").pressure > 0);
    }

    #[test]
    fn a_size_is_found_by_its_name() {
        let table = "MemTotal:        4028416 kB\nMemFree: 1 kB\n";
        assert_eq!(size(table, "MemTotal:"), Some(4_028_416 * 1024));
        assert_eq!(size(table, "MemAvailable:"), None);
        assert_eq!(size("MemTotal: many kB\n", "MemTotal:"), None);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_its_parents_decides() {
        let root = std::env::temp_dir().join(format!("hallpass-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().expect("a directory")).expect("made");
            fs::write(file, text).expect("written");
        };
        write("system.slice/memory.max", "1000\n");
        write("system.slice/a.service/memory.max", "max\n");
        write("system.slice/b.service/memory.max", "400\n");
        write("memory/c/memory.limit_in_bytes", "700\n");
        let limits = [
            ("0::/system.slice/a.service\n", Some(1000)),
            ("0::/system.slice/b.service\n", Some(400)),
            ("3:cpu,memory:/c\n1:name=systemd:/x\n0::/\n", Some(700)),
            ("0::/\n", None),
            ("", None),
        ];
        for (groups, expected) in limits {
            assert_eq!(group_limit(groups, &root), expected, "{groups}");
        }
        fs::remove_dir_all(root).expect("removed");
    }
}
