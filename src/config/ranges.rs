//! Ranges that no peer may be in unless the operator opens them: the same list as the peer policy's, here to
//! tell the operator what an allow entry opens.

use ipnet::IpNet;

const DENIED: [(&str, &str); 29] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private addresses"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback: services that trust this host"),
    ("169.254.0.0/16", "link-local addresses, the cloud's metadata service among them"),
    ("172.16.0.0/12", "private addresses"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 anycast"),
    ("192.168.0.0/16", "private addresses"),
    ("198.18.0.0/15", "benchmarks"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "the unspecified address"),
    ("::1/128", "loopback: services that trust this host"),
    ("64:ff9b::/96", "NAT64, judged by the IPv4 address inside"),
    ("64:ff9b:1::/48", "NAT64, judged by the IPv4 address inside"),
    ("100::/64", "discard-only"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private addresses"),
    ("fe80::/10", "link-local addresses"),
    ("fec0::/10", "site-local addresses"),
    ("ff00::/8", "multicast"),
    ("2002::/16", "6to4, judged by the IPv4 address inside"),
];

/// The built-in denied range that allowing `prefix` opens (or opens a part of). A wider entry opens none,
/// because the longest prefix decides.
pub(super) fn opened_by(prefix: IpNet) -> Option<(IpNet, &'static str)> {
    DENIED.iter().find_map(|(range, what)| {
        let range: IpNet = range.parse().ok()?;
        range.contains(&prefix).then_some((range, *what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_the_table_is_a_prefix_and_opens_itself() {
        for (range, _) in DENIED {
            let range: IpNet = range.parse().unwrap();
            assert_eq!(range, range.trunc());
            assert!(opened_by(range).is_some(), "{range}");
        }
    }

    #[test]
    fn a_wide_entry_opens_nothing() {
        for wide in ["0.0.0.0/0", "::/0", "8.0.0.0/6", "192.0.0.0/8", "9.9.9.9/32", "2a00::/16"] {
            assert_eq!(opened_by(wide.parse().unwrap()), None, "{wide}");
        }
        let (range, what) = opened_by("169.254.169.254/32".parse().unwrap()).unwrap();
        assert_eq!(range.to_string(), "169.254.0.0/16");
        assert!(what.contains("metadata"));
    }
}
