//! The networks of an address: what a limit per source counts, because a customer of an IPv6 provider has more than one
//! address.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The counted IPv6 prefix lengths, each with its multiple of the limit: a network, the smallest assignment to a home, and
/// a site (RFC 6177). A home of 256 networks gets twice as much as one network, not 256 times.
const LEVELS: [(u8, u32); 3] = [(64, 1), (56, 2), (48, 4)];

/// A unit of counting: an IPv4 address, or an IPv6 prefix, and the prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr, u8);

impl Network {
    /// Returns the smallest network that counts as one source: an IPv4 address, or an IPv6 network of one customer (/64).
    pub fn customer(ip: IpAddr) -> Self {
        let (length, _) = LEVELS[0];
        Self::of(ip, length)
    }

    /// Returns the largest network that counts as one source: an IPv4 address, or an IPv6 site.
    pub fn site(ip: IpAddr) -> Self {
        let (length, _) = LEVELS[LEVELS.len() - 1];
        Self::of(ip, length)
    }

    /// Returns its first address.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// Returns the network of an IPv6 address with this prefix length; of an IPv4 address, the address.
    fn of(ip: IpAddr, length: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let mask = u128::MAX << (128 - length);
                Self(Ipv6Addr::from_bits(v6.to_bits() & mask).into(), length)
            }
            v4 => Self(v4, 32),
        }
    }
}

/// Returns the networks of an address, the smallest first, each with its multiple of the limit.
pub fn networks(ip: IpAddr) -> impl Iterator<Item = (Network, u32)> {
    let levels = match ip.to_canonical() {
        IpAddr::V4(_) => &LEVELS[..1],
        IpAddr::V6(_) => &LEVELS[..],
    };
    levels.iter().map(move |&(length, share)| (Network::of(ip, length), share))
}

/// Returns a prefix as operators write it: a single address without its length.
pub fn shown(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_network_and_an_ipv6_address_is_in_three() {
        let all = |text: &str| -> Vec<_> {
            let ip = text.parse().expect("literal");
            networks(ip).map(|(Network(prefix, length), share)| (prefix.to_string(), length, share)).collect()
        };
        for same in ["192.0.2.7", "::ffff:192.0.2.7"] {
            assert_eq!(all(same), [("192.0.2.7".to_owned(), 32, 1)]);
        }
        let [network, home, site] =
            [("2001:db8:1:203::", 64, 1), ("2001:db8:1:200::", 56, 2), ("2001:db8:1::", 48, 4)]
                .map(|(prefix, length, share)| (prefix.to_owned(), length, share));
        assert_eq!(all("2001:db8:1:203:3:4:5:6"), [network, home, site]);
        for text in ["192.0.2.7", "2001:db8:1:203::1"] {
            let ip = text.parse().expect("literal");
            assert_eq!(networks(ip).last().map(|(network, _)| network), Some(Network::site(ip)));
            assert_eq!(networks(ip).next().map(|(network, _)| network), Some(Network::customer(ip)));
        }
    }
}
