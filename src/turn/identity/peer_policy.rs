//! Peer policy: which peers a client may reach through the relay.
//!
//! One rule: of all entries that cover the address, built-in and configured, the longest prefix decides. A
//! configured entry with the same prefix as a built-in one replaces it; between two configured ones a tie
//! denies. Addresses that contain an IPv4 address are judged by both.

pub mod denial;
pub mod difference;
pub mod prefixes;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use prefixes::Prefixes;

use crate::base::special_ranges::{Judgement, SPECIAL_RANGES, ipv4_inside};
use crate::turn::address::{Announced, OnWire};
use crate::turn::settings::{Host, PeerRules, RelayAddress};

/// Which ports of an address a permission covers, ordered from the widest reach to the narrowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Another machine without a service of ours: every port.
    All,
    /// An address of this machine that the operator allowed, or the address of a back end on another machine: every port
    /// except those of our services ([`PeerPolicy::is_service`]).
    OwnOpened,
    /// An address of this machine that is not allowed: only ports that are live relayed addresses and not a service.
    OwnRelayed,
    /// An address of this machine, for a confined user: only ports that are live relayed addresses of the same user.
    OwnUser,
}

/// The origin of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Denied,
    Allowed,
    BuiltIn,
}

/// The policy, indexed.
#[derive(Debug)]
pub struct PeerPolicy {
    /// The entry that decides about a prefix.
    entries: Prefixes<Origin>,
    /// Addresses that the kernel delivers to this machine, and announced addresses that are translated to them.
    own: Prefixes<()>,
    /// Ports of services on this machine, sorted.
    ports: Vec<u16>,
    /// Services on other machines, sorted.
    elsewhere: Vec<(IpAddr, u16)>,
    /// Pairs of announced and local address: clients are told the first, packets carry the second.
    translations: Vec<(IpAddr, IpAddr)>,
}

impl PeerPolicy {
    /// Prepares the operator's rules.
    pub fn new(rules: &PeerRules, relays: &[RelayAddress]) -> Self {
        let denied = rules.deny.iter().map(|&net| (net, Origin::Denied));
        let allowed = rules.allow.iter().map(|&net| (net, Origin::Allowed));
        // Loopback is a built-in range. Entries for single loopback addresses would keep an allow of the whole range from
        // taking effect.
        let own = rules.own.iter().copied().filter(|net| !net.addr().is_loopback());
        let built_in = built_in().chain(own).map(|net| (net, Origin::BuiltIn));
        let own = Prefixes::new(rules.own.iter().map(|&net| (net, ())));
        let services = rules.services.iter().map(|service| (service.ip().to_canonical(), service.port()));
        let (here, mut elsewhere): (Vec<_>, Vec<_>) = services.partition(|&(ip, _)| is_own(&own, ip));
        let mut ports: Vec<u16> = here.into_iter().map(|(_, port)| port).collect();
        ports.sort_unstable();
        elsewhere.sort_unstable();
        Self {
            // Of several entries for one prefix the first one counts.
            entries: Prefixes::new(denied.chain(allowed).chain(built_in)),
            own,
            ports,
            elsewhere,
            translations: relays
                .iter()
                .filter(|relay| relay.local != relay.announced)
                .map(|relay| (relay.announced, relay.local))
                .collect(),
        }
    }

    /// Which ports of `peer` this host's clients may reach; `None` for none. `allowed` is the host's own list.
    pub fn judge(&self, peer: IpAddr, allowed: Option<&[IpNet]>) -> Option<Reach> {
        let listed = |ip: IpAddr| allowed.is_none_or(|nets| nets.iter().any(|net| net.contains(&ip)));
        let open = identities(peer).all(|ip| self.permits(ip, allowed));
        let own = identities(peer).any(|ip| is_own(&self.own, ip));
        match (open && listed(peer), own) {
            (true, false) if identities(peer).any(|ip| self.has_service_elsewhere(ip)) => {
                Some(Reach::OwnOpened)
            }
            (true, false) => Some(Reach::All),
            (true, true) => Some(Reach::OwnOpened),
            (false, true) if allowed.is_none() && self.own.cover(peer) => Some(Reach::OwnRelayed),
            (false, _) => None,
        }
    }

    /// The same for a confined user.
    fn judge_confined(&self, peer: IpAddr) -> Option<Reach> {
        self.own.cover(peer).then_some(Reach::OwnUser)
    }

    /// Which ports of `peer` users of this host may reach; `None` for none.
    pub fn judge_for(&self, host: &Host, peer: IpAddr) -> Option<Reach> {
        match host.confined {
            Some(_) => self.judge_confined(peer),
            None => self.judge(peer, host.peers.as_deref()),
        }
    }

    /// The reach of a permission for `local`, the address on the wire. Behind 1:1 NAT a client may have named the
    /// announced address or the local one, and the rules may allow only one of them, so the wider reach of the two counts.
    pub fn judge_either(&self, host: &Host, local: IpAddr) -> Option<Reach> {
        let announced = self.to_announced(OnWire::new(local, 0)).ip();
        [local, announced].into_iter().filter_map(|ip| self.judge_for(host, ip)).min()
    }

    /// Whether `peer` is one of our own services, which no client may reach through the relay. A service on this machine
    /// is refused at all its addresses, no matter which one it listens on; a service elsewhere at its own address.
    pub fn is_service(&self, peer: OnWire) -> bool {
        let (ip, port) = (peer.ip(), peer.port());
        let here = self.ports.binary_search(&port).is_ok();
        (here && identities(ip).any(|ip| is_own(&self.own, ip)))
            || identities(ip).any(|ip| self.elsewhere.binary_search(&(ip, port)).is_ok())
    }

    /// The address that packets for `peer` go to.
    pub fn to_on_wire(&self, peer: Announced) -> OnWire {
        let local = self.translations.iter().find(|(announced, _)| *announced == peer.ip());
        OnWire(local.map_or(peer.0, |&(_, local)| SocketAddr::new(local, peer.0.port())))
    }

    /// The address under which clients know `peer`.
    pub fn to_announced(&self, peer: OnWire) -> Announced {
        let announced = self.translations.iter().find(|(_, local)| *local == peer.ip());
        Announced(announced.map_or(peer.0, |&(announced, _)| SocketAddr::new(announced, peer.port())))
    }

    fn has_service_elsewhere(&self, ip: IpAddr) -> bool {
        self.elsewhere.binary_search_by_key(&ip, |&(service, _)| service).is_ok()
    }

    /// Whether the longest prefix that covers `ip` allows it. The entries of the host's own list count as allowing.
    fn permits(&self, ip: IpAddr, allowed: Option<&[IpNet]>) -> bool {
        let decided = self.entries.longest(ip);
        let listed =
            allowed.into_iter().flatten().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max();
        match (decided, listed) {
            (None, _) | (Some((_, Origin::Allowed)), _) => true,
            (Some(_), None) => false,
            (Some((prefix, Origin::Denied)), Some(length)) => length > prefix,
            (Some((prefix, Origin::BuiltIn)), Some(length)) => length >= prefix,
        }
    }
}

fn is_own(own: &Prefixes<()>, ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || own.cover(ip)
}

fn built_in() -> impl Iterator<Item = IpNet> {
    let closed = SPECIAL_RANGES.iter().filter(|special| special.judgement != Judgement::ByIpv4Inside);
    closed.map(|special| special.range)
}

/// The address itself and the IPv4 addresses inside it.
fn identities(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let inside = match ip {
        IpAddr::V4(_) => [None; 4],
        IpAddr::V6(v6) => ipv4_inside(v6),
    };
    std::iter::once(ip).chain(inside.into_iter().flatten().map(IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("literal")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    fn policy(allow: &[&str], deny: &[&str]) -> PeerPolicy {
        let service = |text: &str| text.parse().expect("literal");
        let rules = PeerRules {
            allow: nets(allow),
            deny: nets(deny),
            own: nets(&["127.0.0.1/32", "9.9.9.9/32", "2620::9/128", "45.1.0.0/16"]),
            services: vec![
                service("0.0.0.0:3479"),
                service("127.0.0.1:9641"),
                service("11.0.0.5:81"),
                service("11.0.0.5:80"),
                service("9.9.9.9:8443"),
            ],
        };
        PeerPolicy::new(&rules, &[])
    }

    #[test]
    fn special_ranges_are_closed_and_the_internet_is_open() {
        let policy = policy(&[], &[]);
        for denied in [
            "0.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.2",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "64:ff9b:1:a00:0:100::",
            "64:ff9b:1:808:8:800:8.8.8.8",
            "::ffff:0:10.0.0.1",
            "::2",
            "::ffff",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001:0:808:808:0:0:80ff:fffe",
            "2001:0:7f00:1:0:0:f7f7:f7f7",
        ] {
            assert_eq!(policy.judge(ip(denied), None), None, "{denied}");
        }
        for open in [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2a00::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "::8.8.8.8",
        ] {
            assert_eq!(policy.judge(ip(open), None), Some(Reach::All), "{open}");
        }
    }

    /// RFC 8215: the operator opens the network's NAT64 prefix, in `peers` of a host or for all hosts. The IPv4 address inside
    /// is still judged, for every prefix length.
    #[test]
    fn within_an_opened_prefix_of_nat64_the_ipv4_address_decides() {
        let prefixes = nets(&["64:ff9b:1:2a00::/56", "64:ff9b:1:abcd::/64", "64:ff9b:1:fffe::/96"]);
        let (closed, opened) = (policy(&[], &[]), policy(&["64:ff9b:1::/48"], &[]));
        let judged = |peer: &str| [closed.judge(ip(peer), Some(&prefixes)), opened.judge(ip(peer), None)];
        for private in [
            // 10.0.0.1 after a /56, with a suffix of zeros and with another one, which a translator ignores.
            "64:ff9b:1:2a0a:0:1::",
            "64:ff9b:1:2a0a:0:1:808:808",
            // 10.0.0.1, 169.254.169.254 and 127.0.0.1 after a /64.
            "64:ff9b:1:abcd:a:0:100:0",
            "64:ff9b:1:abcd:a9:fea9:fe00:0",
            "64:ff9b:1:abcd:7f:0:100:0",
            "64:ff9b:1:fffe::10.0.0.1",
            "64:ff9b:1:fffe::192.168.0.1",
        ] {
            assert_eq!(judged(private), [None, None], "{private}");
        }
        for public in ["64:ff9b:1:2a08:8:808::", "64:ff9b:1:abcd:8:808:800:0", "64:ff9b:1:fffe::8.8.8.8"] {
            assert_eq!(judged(public), [Some(Reach::All); 2], "{public}");
            assert_eq!(closed.judge(ip(public), None), None, "{public}");
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_a_tie_denies() {
        let policy = policy(
            &["10.20.0.0/16", "0.0.0.0/0", "8.8.0.0/16", "127.0.0.0/8", "192.168.7.0/24"],
            &["10.20.30.0/24", "8.8.0.0/16", "8.0.0.0/8", "192.168.0.0/16"],
        );
        let judged = |text| policy.judge(ip(text), None);
        assert_eq!(judged("10.20.1.1"), Some(Reach::All), "opened inside a special range");
        assert_eq!(judged("10.20.30.1"), None, "closed inside the opened");
        assert_eq!(judged("10.21.0.1"), None, "a broad allow does not open a special range");
        assert_eq!(judged("8.8.8.8"), None, "tie");
        assert_eq!(judged("8.9.0.1"), None);
        assert_eq!(judged("192.168.7.1"), Some(Reach::All));
        assert_eq!(judged("192.168.8.1"), None);
        assert_eq!(judged("127.0.0.2"), Some(Reach::OwnOpened), "replaces the built-in entry of this prefix");
        assert_eq!(judged("::ffff:127.0.0.1"), Some(Reach::OwnOpened), "judged by the address inside");
    }

    #[test]
    fn a_hosts_list_is_all_its_clients_may_reach() {
        let policy = policy(&["127.0.0.0/8"], &["8.8.8.8/32"]);
        let list = nets(&["8.8.0.0/16", "10.0.0.7/32", "9.9.9.9/32", "172.16.0.0/12", "0.0.0.0/2"]);
        let judged = |text| policy.judge(ip(text), Some(&list));
        assert_eq!(judged("8.8.4.4"), Some(Reach::All));
        assert_eq!(judged("8.8.8.8"), None, "the operator's deny is longer");
        assert_eq!(judged("10.0.0.7"), Some(Reach::All), "named, so opened");
        assert_eq!(judged("10.0.0.8"), None, "a broad entry does not open a special range");
        assert_eq!(judged("172.16.0.1"), Some(Reach::All), "the same prefix as the built-in entry");
        assert_eq!(judged("9.9.9.9"), Some(Reach::OwnOpened), "this machine, named");
        assert_eq!(judged("99.0.0.1"), None);
        assert_eq!(judged("127.0.0.1"), None, "open in general, not on the list");
        assert_eq!(
            policy.judge(ip("9.9.9.9"), Some(&nets(&["9.9.9.0/24"]))),
            None,
            "this machine must be named"
        );
    }

    #[test]
    fn own_addresses_are_reached_at_relayed_ports_and_services_never() {
        let policy = policy(&["9.9.9.9/32", "45.1.2.0/24"], &[]);
        assert_eq!(policy.judge(ip("127.0.0.1"), None), Some(Reach::OwnRelayed));
        assert_eq!(policy.judge(ip("2620::9"), None), Some(Reach::OwnRelayed));
        assert_eq!(policy.judge(ip("9.9.9.9"), None), Some(Reach::OwnOpened));
        assert_eq!(policy.judge(ip("45.1.1.1"), None), Some(Reach::OwnRelayed), "a local prefix");
        assert_eq!(policy.judge(ip("45.1.2.1"), None), Some(Reach::OwnOpened), "opened inside it");
        let service = |text: &str| policy.is_service(OnWire(text.parse().expect("literal")));
        let own = ["9.9.9.9", "127.0.0.77", "0.0.0.0", "45.1.2.3", "[2620::9]", "[::1]", "[::ffff:9.9.9.9]"];
        for (ip, port) in own.iter().flat_map(|ip| [3479, 9641, 8443].map(|port| (ip, port))) {
            assert!(service(&format!("{ip}:{port}")), "{ip}:{port}");
        }
        assert!(!service("9.9.9.9:3480") && !service("8.8.8.8:3479") && !service("9.9.9.9:81"));
    }

    #[test]
    fn a_back_end_elsewhere_is_refused_at_its_address_and_port() {
        let policy = policy(&[], &[]);
        assert_eq!(policy.judge(ip("11.0.0.5"), None), Some(Reach::OwnOpened));
        assert_eq!(policy.judge(ip("64:ff9b::b00:5"), None), Some(Reach::OwnOpened));
        assert_eq!(policy.judge(ip("11.0.0.6"), None), Some(Reach::All));
        let service = |text: &str| policy.is_service(OnWire(text.parse().expect("literal")));
        assert!(service("11.0.0.5:80") && service("11.0.0.5:81") && service("[64:ff9b::b00:5]:81"));
        assert!(!service("11.0.0.5:82") && !service("11.0.0.5:3479") && !service("11.0.0.6:81"));
    }

    #[test]
    fn announced_addresses_are_reached_by_their_local_ones() {
        let relays = [RelayAddress { local: ip("10.0.0.5"), announced: ip("9.9.9.9"), only_local: false }];
        let policy = PeerPolicy::new(&PeerRules::default(), &relays);
        let [public, private] =
            ["9.9.9.9:50000", "10.0.0.5:50000"].map(|text| text.parse().expect("literal"));
        assert_eq!(policy.to_on_wire(Announced(public)), OnWire(private));
        assert_eq!(policy.to_announced(OnWire(private)), Announced(public));
        assert_eq!(policy.to_on_wire(Announced(private)), OnWire(private));
    }
}
