//! The addresses of this machine as the control side knows them: at the start, and what came and went since.

use std::fmt::Write;

use ipnet::IpNet;

use crate::system::addresses::{self, Addresses};
use crate::system::interfaces;
use crate::system::local_addresses::LocalAddress;

/// Addresses named in one line; of the others only the number.
const NAMED: usize = 16;

/// The own addresses at the start: the interfaces' alone where the kernel does not list its local routes.
pub fn at_start() -> Addresses {
    addresses::read().unwrap_or_else(|error| {
        tracing::warn!(
            "cannot list this machine's local routes ({error}): clients may reach services of this machine at \
             addresses that neither its interfaces nor the configuration name; allow AF_NETLINK to this service"
        );
        let found = interfaces::addresses().unwrap_or_default();
        let found: Vec<_> = found.into_iter().map(|interface| interface.address).collect();
        Addresses {
            own: found.iter().copied().map(IpNet::from).collect(),
            local: found.into_iter().map(LocalAddress::unknown).collect(),
        }
    })
}

/// Logs what came and what went. Both lists are sorted.
pub fn tell(before: &[IpNet], after: &[IpNet]) {
    let came = listed(after.iter().filter(|net| before.binary_search(net).is_err()));
    let went = listed(before.iter().filter(|net| after.binary_search(net).is_err()));
    tracing::info!(came, went, "own addresses changed");
}

fn listed<'a>(nets: impl Iterator<Item = &'a IpNet>) -> String {
    let (mut text, mut count) = (String::new(), 0);
    for net in nets {
        count += 1;
        if count <= NAMED {
            let separator = if count == 1 { "" } else { " " };
            // Writing to a string does not fail.
            let _ = match net.prefix_len() == net.max_prefix_len() {
                true => write!(text, "{separator}{}", net.addr()),
                false => write!(text, "{separator}{net}"),
            };
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
    fn a_line_names_addresses_and_prefixes_and_ends() {
        let nets: Vec<IpNet> =
            ["192.0.2.1/32", "203.0.113.0/24", "2001:db8::1/128"].map(|net| net.parse().unwrap()).into();
        assert_eq!(listed(nets.iter()), "192.0.2.1 203.0.113.0/24 2001:db8::1");
        assert_eq!(listed([].iter()), "none");
        let many: Vec<IpNet> = (0..40).map(|last| std::net::IpAddr::from([192, 0, 2, last]).into()).collect();
        assert!(listed(many.iter()).ends_with("192.0.2.15 and 24 more"));
    }
}
