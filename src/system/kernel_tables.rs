//! Tables and ranges of the kernel that limit how many flows a machine carries.

use std::fs;
use std::ops::RangeInclusive;

/// The table of tracked connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// Entries in use.
    pub count: u64,
    /// Entries that there is room for.
    pub max: u64,
}

/// Returns the state of connection tracking; `None` if the kernel tracks no connections.
pub fn tracking() -> Option<Tracking> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse().ok();
    Some(Tracking { count: read("nf_conntrack_count")?, max: read("nf_conntrack_max")? })
}

/// Returns the ports that the kernel gives to sockets that do not ask for one.
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse::<u16>);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}

/// Whether the kernel never gives this port to a socket that does not ask for one.
pub fn is_reserved(port: u16) -> bool {
    is_listed(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default(), port)
}

/// Whether a list such as `3478-3479,5349` has the port.
fn is_listed(list: &str, port: u16) -> bool {
    list.trim().split(',').any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

/// Returns how many descriptors a process may have open at most; `u64::MAX` means no limit.
pub fn descriptors_of(pid: u32) -> Option<u64> {
    descriptors(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn descriptors(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Whether a signal has stopped a process.
pub fn is_stopped(pid: u32) -> bool {
    let state = |stat: String| stat.rsplit(')').next()?.trim_start().chars().next();
    // proc_pid_stat(5): the state follows the name in parentheses.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(state)
        .is_some_and(|state| matches!(state, 'T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts() {
        assert!(is_listed("3478-3479,5349\n", 3479) && is_listed("3478-3479,5349\n", 5349));
        assert!(!is_listed("3478-3479,5349\n", 3480) && !is_listed("\n", 1));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1048576              1048576              files     \n";
        assert_eq!(descriptors(limits), Some(1_048_576));
        assert_eq!(descriptors(""), None);
        assert!(descriptors_of(std::process::id()) > Some(2));
        assert!(!is_stopped(std::process::id()));
        assert!(ephemeral_ports().is_some_and(|ports| !ports.is_empty()));
    }
}
