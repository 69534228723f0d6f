//! The limit on packets that wait for the hardware address of a neighbour, by ARP or neighbour discovery.

use std::fs;
use std::path::Path;

/// How many bytes may wait for one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnresolvedLimit {
    /// The limit, in the unit of a socket's send buffer.
    pub bytes: u64,
    /// The name for `sysctl`.
    pub setting: String,
}

/// Returns the largest limit of any interface and family; `None` if this process cannot read them.
pub fn largest_unresolved_limit() -> Option<UnresolvedLimit> {
    largest(Path::new("/proc/sys/net"))
}

fn largest(root: &Path) -> Option<UnresolvedLimit> {
    let mut found = Vec::new();
    for family in ["ipv6", "ipv4"] {
        let interfaces = fs::read_dir(root.join(family).join("neigh")).into_iter().flatten().flatten();
        for interface in interfaces {
            let name = interface.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(interface.path().join("unres_qlen_bytes"));
            // Loopback resolves no addresses.
            if name != "lo"
                && let Some(bytes) = text.ok().and_then(|text| text.trim().parse().ok())
            {
                // `sysctl` writes a dot in the name of an interface as a slash.
                let setting = format!("net.{family}.neigh.{}.unres_qlen_bytes", name.replace('.', "/"));
                found.push((UnresolvedLimit { bytes, setting }, name == "default"));
            }
        }
    }
    // Interfaces without a value of their own follow the default, so that is the one to change. Of equals, the last one is
    // returned: IPv4.
    found.into_iter().max_by_key(|(limit, is_default)| (limit.bytes, *is_default)).map(|(limit, _)| limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_limit_is_named_and_the_default_before_interfaces() {
        let root = std::env::temp_dir().join(format!("hallpass-neighbours-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let directory = root.join(path);
            fs::create_dir_all(&directory).expect("made");
            fs::write(directory.join("unres_qlen_bytes"), text).expect("written");
        };
        let largest = || largest(&root).map(|limit| (limit.bytes, limit.setting));
        let named = |bytes, name: &str| Some((bytes, format!("net.{name}.unres_qlen_bytes")));
        assert_eq!(largest(), None);
        write("ipv4/neigh/lo", "999999\n");
        write("ipv4/neigh/broken", "many\n");
        assert_eq!(largest(), None);
        write("ipv4/neigh/default", "8192\n");
        assert_eq!(largest(), named(8192, "ipv4.neigh.default"));
        write("ipv6/neigh/eth0.7", "212992\n");
        assert_eq!(largest(), named(212_992, "ipv6.neigh.eth0/7"));
        for other in ["ipv4/neigh/eth0", "ipv6/neigh/default", "ipv4/neigh/default"] {
            write(other, "212992\n");
        }
        assert_eq!(largest(), named(212_992, "ipv4.neigh.default"));
        fs::remove_dir_all(root).expect("removed");
    }
}
