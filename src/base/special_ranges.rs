//! Special-purpose address ranges, and how the peer policy judges an address in one.
//!
//! `turn::identity::peer_policy` refuses these ranges, and `config` tells the operator what an allow entry opens. Both read this
//! table.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How the peer policy judges an address in a special-purpose range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Refused unless the operator opens the range.
    Closed,
    /// Judged like the IPv4 address inside. The range itself is neither open nor closed.
    ByIpv4Inside,
    /// Refused unless the operator opens the range, and the IPv4 addresses inside are open too.
    ClosedAndByIpv4Inside,
}

/// One special-purpose range.
#[derive(Clone, Copy, Debug)]
pub struct SpecialRange {
    /// The prefix.
    pub range: IpNet,
    /// What the range is for, in words for the operator.
    pub name: &'static str,
    /// The document that defines the range.
    pub source: &'static str,
    /// How addresses in the range are judged.
    pub judgement: Judgement,
}

/// The IANA IPv4 and IPv6 special-purpose address registries (RFC 6890) without the ranges that are globally reachable,
/// multicast, and the ranges that carry an IPv4 address.
pub static SPECIAL_RANGES: [SpecialRange; 35] = [
    closed(v4([0, 0, 0, 0], 8), "this network", "RFC 791"),
    closed(v4([10, 0, 0, 0], 8), "private addresses", "RFC 1918"),
    closed(v4([100, 64, 0, 0], 10), "carrier-grade NAT", "RFC 6598"),
    closed(v4([127, 0, 0, 0], 8), "loopback: services that trust this host", "RFC 1122"),
    closed(
        v4([169, 254, 0, 0], 16),
        "link-local addresses, among them the cloud's metadata service",
        "RFC 3927",
    ),
    closed(v4([172, 16, 0, 0], 12), "private addresses", "RFC 1918"),
    closed(v4([192, 0, 0, 0], 24), "protocol assignments", "RFC 6890"),
    closed(v4([192, 0, 2, 0], 24), "documentation", "RFC 5737"),
    closed(v4([192, 88, 99, 0], 24), "6to4 anycast", "RFC 7526"),
    closed(v4([192, 168, 0, 0], 16), "private addresses", "RFC 1918"),
    closed(v4([198, 18, 0, 0], 15), "benchmarks", "RFC 2544"),
    closed(v4([198, 51, 100, 0], 24), "documentation", "RFC 5737"),
    closed(v4([203, 0, 113, 0], 24), "documentation", "RFC 5737"),
    closed(v4([224, 0, 0, 0], 4), "multicast", "RFC 5771"),
    closed(v4([240, 0, 0, 0], 4), "reserved", "RFC 1112"),
    closed(v4([255, 255, 255, 255], 32), "broadcast", "RFC 8190"),
    by_ipv4_inside(v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4-compatible addresses", "RFC 4291 section 2.5.5.1"),
    closed(v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "the unspecified address", "RFC 4291"),
    closed(v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback: services that trust this host", "RFC 4291"),
    by_ipv4_inside(
        v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
        "IPv4-mapped addresses",
        "RFC 4291 section 2.5.5.2",
    ),
    by_ipv4_inside(
        v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
        "IPv4-translated addresses",
        "RFC 2765 section 2.1",
    ),
    by_ipv4_inside(v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "NAT64", "RFC 6052"),
    // Each network chooses its own prefixes here, also to translate private addresses. Only it knows their length.
    closed_and_by_ipv4_inside(v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "local NAT64", "RFC 8215"),
    closed(v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only", "RFC 6666"),
    closed(v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64), "placeholder addresses", "RFC 9780"),
    closed(v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments", "RFC 2928"),
    // RFC 8656 section 21.4 forbids Teredo and 6to4 for peers.
    closed_and_by_ipv4_inside(v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo", "RFC 4380"),
    closed(v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation", "RFC 3849"),
    closed_and_by_ipv4_inside(v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4", "RFC 3056"),
    closed(v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation", "RFC 9637"),
    closed(v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment routing", "RFC 9602"),
    closed(v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private addresses", "RFC 4193"),
    closed(v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local addresses", "RFC 4291"),
    closed(v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local addresses", "RFC 3879"),
    closed(v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast", "RFC 4291"),
];

/// The narrowest special-purpose range that contains all of `prefix`.
pub fn covering(prefix: IpNet) -> Option<&'static SpecialRange> {
    let covering = SPECIAL_RANGES.iter().filter(|special| special.range.contains(&prefix));
    covering.max_by_key(|special| special.range.prefix_len())
}

/// The IPv4 addresses that an IPv6 address carries: one in IPv4-mapped, IPv4-translated, IPv4-compatible, 6to4 and most NAT64
/// addresses, two in Teredo addresses (server and client), and up to four in NAT64 addresses whose prefix length is unknown.
pub fn ipv4_inside(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bits = address.to_bits();
    let at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let one = |inside| [Some(inside), None, None, None];
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => one(at(0)),
        // Without :: and ::1, which carry no IPv4 address.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 || low > 1 => one(at(0)),
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => one(at(0)),
        [0x64, 0xff9b, 1, ..] => ipv4_of_local_nat64(bits),
        [0x2002, ..] => one(at(80)),
        // RFC 4380 section 4: the client's address is stored in complement.
        [0x2001, 0, ..] => [Some(Ipv4Addr::from_bits(!at(0).to_bits())), Some(at(64)), None, None],
        _ => [None; 4],
    }
}

/// The IPv4 addresses that an address carries if its NAT64 prefix has 48, 56, 64 or 96 bits (RFC 6052 section 2.2). Bits 64 to
/// 71 are skipped, and the suffix is usually zero. A reading whose host part is only such zeros, or that begins with 0, is left
/// out.
fn ipv4_of_local_nat64(bits: u128) -> [Option<Ipv4Addr>; 4] {
    let at = |shift: u32| (bits >> shift) as u32;
    let low = Ipv4Addr::from_bits(at(0));
    if at(32) == 0 {
        return [Some(low), None, None, None];
    }
    let after_48 = at(64) << 16 | at(40) & 0xffff;
    let after_56 = at(64) << 24 | at(32) & 0xff_ffff;
    let after_64 = at(24);
    let host = |bits: u32| (bits >> 24 != 0).then(|| Ipv4Addr::from_bits(bits));
    let after_96 = (at(0) & 0xff_ffff != 0).then_some(low);
    [host(after_48), host(after_56), host(after_64), after_96]
}

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

const fn closed(range: IpNet, name: &'static str, source: &'static str) -> SpecialRange {
    SpecialRange { range, name, source, judgement: Judgement::Closed }
}

const fn by_ipv4_inside(range: IpNet, name: &'static str, source: &'static str) -> SpecialRange {
    SpecialRange { range, name, source, judgement: Judgement::ByIpv4Inside }
}

const fn closed_and_by_ipv4_inside(range: IpNet, name: &'static str, source: &'static str) -> SpecialRange {
    SpecialRange { range, name, source, judgement: Judgement::ClosedAndByIpv4Inside }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;

    use super::*;
    use crate::config::{self, Report};
    use crate::turn::identity::peer_policy::PeerPolicy;
    use crate::turn::settings::PeerRules;

    /// An address of the range that no narrower row covers. Where the row is judged by the IPv4 address inside, that is
    /// `inside`.
    fn sample(special: &SpecialRange, inside: Ipv4Addr) -> IpAddr {
        match (special.range, special.judgement) {
            (IpNet::V4(range), _) => range.addr().into(),
            (IpNet::V6(range), Judgement::Closed) => {
                // The upper half of the range: 2001::/23 has Teredo in the lower one.
                let half = 1_u128.checked_shl(127_u32.wrapping_sub(range.prefix_len().into())).unwrap_or(0);
                Ipv6Addr::from_bits(range.addr().to_bits() | half).into()
            }
            (IpNet::V6(range), _) => {
                let bits = range.addr().to_bits();
                let placed = match range.addr().segments()[0] {
                    0x2001 => u128::from(!inside.to_bits()) | u128::from(inside.to_bits()) << 64,
                    0x2002 => u128::from(inside.to_bits()) << 80,
                    _ => inside.to_bits().into(),
                };
                Ipv6Addr::from_bits(bits | placed).into()
            }
        }
    }

    fn policy(allow: &[IpNet]) -> PeerPolicy {
        PeerPolicy::new(&PeerRules { allow: allow.to_vec(), ..PeerRules::default() }, &[])
    }

    /// What `hallpass check` reports about an allow entry.
    fn checked(entry: &str) -> Report {
        let text = format!(
            "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:3479'\n[[host]]\nname = 'h'\n\
             secret = '0123456789abcdef'\n[peers]\nallow = ['{entry}']\n"
        );
        config::parse(&text, "f", Path::new("")).map_or_else(|report| report, |loaded| loaded.warnings)
    }

    #[test]
    fn the_policy_refuses_an_address_of_every_range_until_the_operator_opens_it() {
        let private = Ipv4Addr::new(10, 0, 0, 1);
        let public = Ipv4Addr::new(8, 8, 8, 8);
        for special in &SPECIAL_RANGES {
            let refused = sample(special, private);
            assert!(special.range.contains(&refused), "{refused} is not in {}", special.range);
            assert_eq!(policy(&[]).judge(refused, None), None, "{refused}, {}", special.name);
            let (inner, outer) = (policy(&[IpNet::from(IpAddr::from(private))]), policy(&[special.range]));
            let is_open = |policy: &PeerPolicy, ip| policy.judge(ip, None).is_some();
            match special.judgement {
                Judgement::Closed => assert!(is_open(&outer, refused), "{refused} is opened by its range"),
                Judgement::ByIpv4Inside => {
                    assert!(is_open(&inner, refused), "{refused} is opened by the address inside");
                    assert!(!is_open(&outer, refused), "{refused} is not opened by its range");
                    assert!(is_open(&policy(&[]), sample(special, public)), "{}", special.range);
                }
                Judgement::ClosedAndByIpv4Inside => {
                    assert!(!is_open(&inner, refused) && !is_open(&outer, refused), "{refused} needs both");
                    assert!(!is_open(&policy(&[]), sample(special, public)), "{}", special.range);
                    assert!(is_open(&outer, sample(special, public)), "{}", special.range);
                }
            }
        }
    }

    #[test]
    fn check_says_what_an_allow_entry_for_every_range_opens() {
        for special in &SPECIAL_RANGES {
            let report = checked(&special.range.to_string());
            let reported = |part: &str| {
                let of_entry = report.problems.iter().filter(|problem| problem.key == "peers.allow");
                of_entry
                    .flat_map(|problem| [&problem.message, &problem.remedy])
                    .any(|text| text.contains(part))
            };
            match special.judgement {
                Judgement::ByIpv4Inside if report.has_errors() => {
                    assert!(reported("IPv4 address itself"), "{report}")
                }
                Judgement::ByIpv4Inside => assert!(reported("opens nothing"), "{report}"),
                _ => assert!(reported(&format!("within {} ({})", special.range, special.name)), "{report}"),
            }
        }
        assert_eq!(checked("8.8.8.8").problems, []);
    }

    #[test]
    fn rows_are_prefixes_with_a_source_and_are_listed_once() {
        for (index, special) in SPECIAL_RANGES.iter().enumerate() {
            assert_eq!(special.range, special.range.trunc());
            assert!(special.source.starts_with("RFC ") && !special.name.is_empty());
            assert!(SPECIAL_RANGES[..index].iter().all(|other| other.range != special.range));
        }
    }

    #[test]
    fn the_narrowest_range_covers_a_prefix_and_a_wider_prefix_is_not_covered() {
        let name = |prefix: &str| covering(prefix.parse().unwrap()).map(|special| special.name);
        assert_eq!(name("2001::/32"), Some("Teredo"));
        assert_eq!(name("2001:2::/48"), Some("protocol assignments"));
        assert_eq!(name("::1/128"), Some("loopback: services that trust this host"));
        assert!(name("169.254.169.254/32").is_some_and(|name| name.contains("metadata")));
        for wide in ["0.0.0.0/0", "::/0", "8.0.0.0/6", "192.0.0.0/8", "9.9.9.9/32", "2a00::/16"] {
            assert_eq!(name(wide), None, "{wide}");
        }
    }
}
