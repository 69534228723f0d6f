//! Which peers clients may reach: coturn's ranges as prefixes.
//!
//! In coturn an allowed range beats every denied one, no matter how large each is, and a peer in no range is allowed. Here the
//! longest prefix decides, and special-purpose ranges are denied to begin with. Prefixes contain each other or have nothing in
//! common. So without the denied prefixes that an allowed one contains, both rules give the same answer, apart from the
//! special-purpose ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use super::values::{self, NotAnAddress};

/// A range of addresses as coturn matches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its prefixes.
    pub prefixes: Vec<IpNet>,
    /// How it differs from what is written.
    pub difference: Option<&'static str>,
}

/// Why a range is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRange {
    /// It contains a host name.
    Name,
    /// coturn ignores the line, because this is no address.
    Lost,
    /// The first address is above the last one.
    Empty,
}

/// Reads `FIRST-LAST` or one address as coturn matches it (`add_ip_list_range`, `ioa_addr_in_range`). Of an allowed range,
/// only what coturn allows is taken.
///
/// # Errors
/// Why there is no range.
pub fn range(value: &[u8], allowed: bool) -> Result<Range, NoRange> {
    let (first, last) = match value.iter().position(|&byte| byte == b'-') {
        Some(at) => (&value[..at], Some(&value[at + 1..])),
        None => (value, None),
    };
    let parse = |text| {
        values::address(text).map_err(|error| match error {
            NotAnAddress::Name => NoRange::Name,
            NotAnAddress::Nothing => NoRange::Lost,
        })
    };
    let min = parse(first)?;
    let max = last.map_or(Ok(min), parse)?;
    let ipv4 = ipv4(min, max);
    let ipv6 = ipv6(min, max);
    let difference = match (min, max) {
        _ if last.is_none() && min.is_unspecified() => {
            Some("to coturn this single address means all addresses")
        }
        (IpAddr::V4(_), IpAddr::V4(_)) if ipv6.is_some() => Some("coturn matches all IPv6 addresses, too"),
        (IpAddr::V6(_), IpAddr::V6(_)) if ipv4.is_some() => Some("coturn matches all IPv4 addresses, too"),
        (min, max) if min.is_ipv4() != max.is_ipv4() => {
            Some("a range between IPv4 and IPv6, as coturn matches it")
        }
        _ => None,
    };
    let mut prefixes: Vec<IpNet> = Vec::new();
    if let Some((low, high)) = ipv4 {
        prefixes.extend(Ipv4Subnets::new(low, high, 0).map(IpNet::V4));
    }
    if let Some((low, high)) = ipv6 {
        let all = Ipv6Subnets::new(low, high, 0);
        prefixes.extend(all.filter(|prefix| !allowed || within_bytes(prefix, low, high)).map(IpNet::V6));
    }
    if prefixes.is_empty() { Err(NoRange::Empty) } else { Ok(Range { prefixes, difference }) }
}

/// The IPv4 addresses of a range. To coturn every IPv4 address is below every IPv6 address, and the unspecified address of
/// either family is no bound at all.
fn ipv4(min: IpAddr, max: IpAddr) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let low = match min {
        _ if min.is_unspecified() => Ipv4Addr::UNSPECIFIED,
        IpAddr::V4(min) => min,
        IpAddr::V6(_) => return None,
    };
    let high = match max {
        IpAddr::V4(max) if !max.is_unspecified() => max,
        _ => Ipv4Addr::BROADCAST,
    };
    (low <= high).then_some((low, high))
}

/// The IPv6 addresses of a range, by the same rules.
fn ipv6(min: IpAddr, max: IpAddr) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let low = match min {
        IpAddr::V6(min) => min,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    };
    let high = match max {
        _ if max.is_unspecified() => Ipv6Addr::from_bits(u128::MAX),
        IpAddr::V6(max) => max,
        IpAddr::V4(_) => return None,
    };
    (low <= high).then_some((low, high))
}

/// Whether coturn matches the whole prefix: it compares IPv6 addresses byte by byte, each for itself (`addr_less_eq`).
fn within_bytes(prefix: &Ipv6Net, low: Ipv6Addr, high: Ipv6Addr) -> bool {
    let (first, last) = (prefix.network().octets(), prefix.broadcast().octets());
    let (low, high) = (low.octets(), high.octets());
    (0..16).all(|at| low[at] <= first[at] && last[at] <= high[at])
}

/// Reads a denied range that coturn ignores as its author meant it: prefixes, lists, and what precedes a comment.
pub fn as_meant(value: &[u8]) -> Vec<IpNet> {
    let text = String::from_utf8_lossy(value);
    let text = text.split(['#', ';']).next().unwrap_or_default();
    let mut prefixes = Vec::new();
    for part in text.split([',', ' ', '\t']).filter(|part| !part.is_empty()) {
        match part.parse::<IpNet>() {
            Ok(prefix) => prefixes.push(prefix.trunc()),
            Err(_) => {
                prefixes.extend(range(part.as_bytes(), false).map(|range| range.prefixes).unwrap_or_default())
            }
        }
    }
    prefixes
}

/// The rules for `[peers]` or for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether every address is denied that is not allowed.
    pub only_allowed: bool,
    /// Prefixes that clients may reach.
    pub allow: Vec<IpNet>,
    /// Prefixes that clients may not reach.
    pub deny: Vec<IpNet>,
    /// Private networks that coturn lets clients reach, at least in part, and that are closed here.
    pub closed: Vec<IpNet>,
}

/// Private networks (RFC 1918, RFC 4193).
const PRIVATE: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)),
];
/// Loopback: refused unless `allow-loopback-peers` opens it.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];
/// Addresses that no entry opens: "this network" and multicast, and IPv4 inside IPv6, which is judged as IPv4.
const NEVER: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    MAPPED,
];
const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));
const EVERYTHING: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Whether no rule is written for this prefix, because its addresses are judged by the IPv4 address inside.
pub fn is_mapped(prefix: &IpNet) -> bool {
    MAPPED.contains(prefix)
}

/// Whether an allowed prefix stays closed: `loopback` says whether loopback is open.
pub fn stays_closed(prefix: &IpNet, loopback: bool) -> bool {
    let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(prefix));
    within(&NEVER) || !loopback && within(&LOOPBACK)
}

/// Turns coturn's ranges into rules. `loopback` says whether `allow-loopback-peers` is set.
pub fn policy(allowed: &[IpNet], denied: &[IpNet], loopback: bool) -> Policy {
    let mut policy = Policy::default();
    let covered = |prefixes: &[IpNet], what: &IpNet| {
        IpNet::aggregate(&prefixes.to_vec()).iter().any(|net| net.contains(what))
    };
    policy.only_allowed = EVERYTHING.iter().all(|all| covered(denied, all));
    for prefix in allowed.iter().filter(|prefix| !stays_closed(prefix, loopback)) {
        if !policy.allow.contains(prefix) {
            policy.allow.push(*prefix);
        }
    }
    if loopback {
        let open = LOOPBACK.iter().filter(|prefix| covered(allowed, prefix) || !covered(denied, prefix));
        let new: Vec<IpNet> = open.filter(|prefix| !policy.allow.contains(prefix)).copied().collect();
        policy.allow.extend(new);
    }
    let beaten = |prefix: &IpNet| allowed.iter().any(|allow| allow.contains(prefix));
    for prefix in denied.iter().filter(|prefix| !beaten(prefix) && !is_mapped(prefix)) {
        if !policy.deny.contains(prefix) {
            policy.deny.push(*prefix);
        }
    }
    // An allowed prefix that is wider than a private network does not open it here.
    let opens = |allow: &&IpNet| PRIVATE.iter().any(|private| private.contains(*allow));
    let ruled: Vec<IpNet> = allowed.iter().filter(opens).chain(&policy.deny).copied().collect();
    policy.closed = PRIVATE.into_iter().filter(|private| !covered(&ruled, private)).collect();
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("literal")).collect()
    }

    #[track_caller]
    fn prefixes(value: &str) -> Vec<IpNet> {
        range(value.as_bytes(), false).unwrap_or_else(|error| panic!("{value}: {error:?}")).prefixes
    }

    #[test]
    fn ranges_become_prefixes() {
        assert_eq!(prefixes("192.0.2.0-192.0.2.255"), nets(&["192.0.2.0/24"]));
        assert_eq!(prefixes("10.0.0.1 - 10.0.0.4"), nets(&["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]));
        assert_eq!(prefixes("203.0.113.50"), nets(&["203.0.113.50/32"]));
        assert_eq!(prefixes("0.0.0.0-255.255.255.255"), nets(&["0.0.0.0/0"]));
        assert_eq!(prefixes("fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), nets(&["fc00::/7"]));
        assert_eq!(prefixes("::1"), nets(&["::1/128"]));
        for (value, error) in [
            ("172.16.0.0/12", NoRange::Lost),
            ("10.0.0.0-10.255.255.255 # private", NoRange::Lost),
            ("10.0.0.5-10.0.0.1", NoRange::Empty),
            ("example.org", NoRange::Name),
        ] {
            assert_eq!(range(value.as_bytes(), false), Err(error), "{value}");
        }
    }

    #[test]
    fn the_unspecified_address_is_no_bound_and_families_are_in_order() {
        assert_eq!(prefixes("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!(prefixes("0.0.0.0"), nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!(prefixes("0.0.0.0-0.255.255.255"), nets(&["0.0.0.0/8"]));
        assert_eq!(prefixes("255.255.255.255-::"), nets(&["255.255.255.255/32", "::/0"]));
    }

    #[test]
    fn an_allowed_range_takes_only_what_coturn_matches_byte_by_byte() {
        let value = b"2001:db8::ff-2001:db8::1:1";
        let meant = range(value, false).expect("a range").prefixes;
        assert_eq!(
            meant,
            nets(&["2001:db8::ff/128", "2001:db8::100/120", "2001:db8::200/119"])
                .into_iter()
                .chain(meant[3..].to_vec())
                .collect::<Vec<_>>()
        );
        assert!(meant.iter().any(|net| net.contains(&"2001:db8::1:1".parse::<IpAddr>().expect("literal"))));
        assert_eq!(range(value, true), Err(NoRange::Empty));
        assert_eq!(
            range(b"2001:db8::10-2001:db8::1f", true).expect("a range").prefixes,
            nets(&["2001:db8::10/124"])
        );
    }

    #[test]
    fn lines_that_coturn_loses_are_read_as_meant() {
        assert_eq!(as_meant(b"172.16.5.0/12"), nets(&["172.16.0.0/12"]));
        assert_eq!(as_meant(b"10.0.0.1,10.0.0.2"), nets(&["10.0.0.1/32", "10.0.0.2/32"]));
        assert_eq!(as_meant(b"10.0.0.0-10.255.255.255 # private"), nets(&["10.0.0.0/8"]));
        assert_eq!(as_meant(b"[::1]"), []);
    }

    #[test]
    fn what_is_allowed_beats_what_is_denied() {
        let wide = policy(&nets(&["10.0.0.0/8"]), &nets(&["10.1.0.0/16", "9.0.0.0/8", "10.0.0.0/8"]), false);
        assert_eq!((wide.allow, wide.deny), (nets(&["10.0.0.0/8"]), nets(&["9.0.0.0/8"])));
        let narrow = policy(&nets(&["192.0.2.40/32"]), &nets(&["192.0.2.0/24"]), false);
        assert_eq!((narrow.allow, narrow.deny), (nets(&["192.0.2.40/32"]), nets(&["192.0.2.0/24"])));
    }

    #[test]
    fn only_the_allowed_peers_are_left_if_both_families_are_denied() {
        let all = nets(&["0.0.0.0/0", "::/0"]);
        assert!(policy(&[], &all, false).only_allowed);
        assert!(policy(&[], &nets(&["0.0.0.0/1", "128.0.0.0/1", "::/0"]), false).only_allowed);
        assert!(!policy(&[], &all[..1], false).only_allowed);
        assert_eq!(policy(&[], &all, false).closed, []);
        assert!(!policy(&nets(&["203.0.113.50/32"]), &[], false).only_allowed);
    }

    #[test]
    fn loopback_multicast_and_this_network_stay_closed() {
        let all = nets(&[
            "127.0.0.1/32",
            "224.0.0.0/4",
            "0.0.0.0/8",
            "::1/128",
            "ff02::1/128",
            "::ffff:10.0.0.1/128",
        ]);
        assert_eq!(policy(&all, &[], false).allow, []);
        assert_eq!(policy(&all, &[], true).allow, nets(&["127.0.0.1/32", "::1/128", "127.0.0.0/8"]));
        assert_eq!(policy(&[], &nets(&["127.0.0.0/8"]), true).allow, nets(&["::1/128"]));
    }

    #[test]
    fn private_networks_that_coturn_leaves_open_are_listed() {
        assert_eq!(policy(&[], &[], false).closed.len(), 4);
        let half = policy(&nets(&["10.0.0.0/9"]), &nets(&["10.128.0.0/9", "192.168.0.0/16"]), false);
        assert_eq!(half.closed, nets(&["172.16.0.0/12", "fc00::/7"]));
        let wide = policy(&nets(&["0.0.0.0/0"]), &nets(&["10.0.0.0/8"]), false);
        assert_eq!(wide.closed.len(), 4, "coturn opens all of it, and the longest prefix decides here");
    }
}
