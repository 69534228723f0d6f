//! A map from address prefixes to values. Lookups return the longest prefix that covers an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// An immutable map from prefixes to values. A look-up costs one binary search for each prefix length in use.
#[derive(Debug)]
pub struct Prefixes<T> {
    v4: Vec<Level<T>>,
    v6: Vec<Level<T>>,
}

/// All prefixes of one family and one length, sorted by their bits.
#[derive(Debug)]
struct Level<T> {
    length: u8,
    nets: Vec<(u128, T)>,
}

impl<T: Copy> Prefixes<T> {
    /// Builds the map. If a prefix occurs more than once, its first value counts.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut families: [BTreeMap<u8, Vec<(u128, T)>>; 2] = Default::default();
        for (net, value) in entries {
            let family = &mut families[usize::from(net.addr().is_ipv6())];
            let length = net.prefix_len();
            family.entry(length).or_default().push((bits(net.addr()) & mask(length), value));
        }
        let [v4, v6] = families.map(|family| {
            let longest_first = family.into_iter().rev();
            longest_first.map(|(length, nets)| Level { length, nets: sorted(nets) }).collect()
        });
        Self { v4, v6 }
    }

    /// The length and the value of the longest prefix that covers `ip`.
    pub fn longest(&self, ip: IpAddr) -> Option<(u8, T)> {
        let levels = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let bits = bits(ip);
        levels.iter().find_map(|level| {
            let at = level.nets.binary_search_by_key(&(bits & mask(level.length)), |&(net, _)| net).ok()?;
            Some((level.length, level.nets[at].1))
        })
    }

    /// Whether any prefix covers `ip`.
    pub fn cover(&self, ip: IpAddr) -> bool {
        self.longest(ip).is_some()
    }
}

/// Sorts by prefix and removes duplicates. The sort is stable, so the first of equal prefixes stays.
fn sorted<T>(mut nets: Vec<(u128, T)>) -> Vec<(u128, T)> {
    nets.sort_by_key(|&(net, _)| net);
    nets.dedup_by_key(|&mut (net, _)| net);
    nets
}

/// The address in the upper bits of a number.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_the_family_is_found_and_the_first_value_stays() {
        let entries = [
            ("0.0.0.0/0", 0),
            ("10.0.0.0/8", 1),
            ("10.1.2.3/8", 2),
            ("10.1.0.0/16", 3),
            ("10.1.2.3/32", 4),
            ("2a00::/16", 5),
            ("2a00::1/128", 6),
        ];
        let map = Prefixes::new(entries.map(|(net, value)| (net.parse().expect("literal"), value)));
        let found = |text: &str| map.longest(text.parse().expect("literal"));
        assert_eq!(found("9.9.9.9"), Some((0, 0)));
        assert_eq!(found("10.2.0.0"), Some((8, 1)));
        assert_eq!(found("10.1.255.255"), Some((16, 3)));
        assert_eq!(found("10.1.2.3"), Some((32, 4)));
        assert_eq!(found("2a00:ffff::"), Some((16, 5)));
        assert_eq!(found("2a00::1"), Some((128, 6)));
        assert_eq!(found("::ffff:10.1.2.3"), None, "another family");
        assert!(!map.cover("::".parse().expect("literal")));
    }
}
