//! The addresses of this machine: reads them at the start and logs changes.

use std::fmt::Write;

use ipnet::IpNet;

use crate::base::network::shown;
use crate::system::addresses::{self, Addresses};
use crate::system::interfaces;
use crate::system::local_addresses::LocalAddress;

/// Maximum number of addresses in a log line. The others are only counted.
const NAMED: usize = 16;

/// Returns the addresses of this machine. If the kernel does not list its local routes, logs a warning and returns the
/// addresses of the interfaces only.
pub fn at_start() -> Addresses {
    addresses::read().unwrap_or_else(|error| {
        tracing::warn!(
            "cannot list this machine's local routes ({error}): clients may reach services of this machine at local \
             addresses that belong to no interface and are not in the configuration; allow AF_NETLINK in the unit"
        );
        let found = interfaces::addresses().unwrap_or_default();
        let found: Vec<_> = found.into_iter().map(|interface| interface.address).collect();
        Addresses {
            own: found.iter().copied().map(IpNet::from).collect(),
            local: found.into_iter().map(LocalAddress::unknown).collect(),
            is_whole: false,
        }
    })
}

/// Logs the difference between two sorted lists.
pub fn log_change(before: &[IpNet], after: &[IpNet]) {
    let added = listed(after.iter().filter(|net| before.binary_search(net).is_err()));
    let removed = listed(before.iter().filter(|net| after.binary_search(net).is_err()));
    tracing::info!(added, removed, "own addresses changed");
}

fn listed<'a>(nets: impl Iterator<Item = &'a IpNet>) -> String {
    let (mut text, mut count) = (String::new(), 0);
    for net in nets {
        count += 1;
        if count <= NAMED {
            let separator = if count == 1 { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{}", shown(net));
        }
    }
    match count {
        0 => "none".to_owned(),
        1..=NAMED => text,
        _ => format!("{text} and {} more", count - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lists_addresses_and_prefixes_and_is_bounded() {
        let nets: Vec<IpNet> =
            ["192.0.2.1/32", "203.0.113.0/24", "2001:db8::1/128"].map(|net| net.parse().unwrap()).into();
        assert_eq!(listed(nets.iter()), "192.0.2.1 203.0.113.0/24 2001:db8::1");
        assert_eq!(listed([].iter()), "none");
        let many: Vec<IpNet> = (0..40).map(|last| std::net::IpAddr::from([192, 0, 2, last]).into()).collect();
        assert!(listed(many.iter()).ends_with("192.0.2.15 and 24 more"));
    }
}
