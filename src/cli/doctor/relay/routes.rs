//! Whether this machine has routes to the peers of each host. The kernel is asked; no packet is sent.

use std::net::IpAddr;

use ipnet::IpNet;

use super::site::Site;
use crate::base::family::Family;
use crate::base::network::shown;
use crate::config::Host;
use crate::doctor::finding::Finding;
use crate::system::local_addresses::has_route;

/// The shortest prefixes that are asked for. Of a larger one, only a part may be in use.
const PREFIX_MIN_V4: u8 = 24;
const PREFIX_MIN_V6: u8 = 64;
/// Maximum number of peers of one host that are asked for, and of those in a message.
const PEERS_MAX: usize = 256;
const LISTED: usize = 3;

/// Warns about hosts with peers that no relay address has a route to.
pub fn check(site: &Site<'_>) -> Vec<Finding> {
    let relays: Vec<IpAddr> = site.relays.iter().map(|relay| relay.local).collect();
    let own: Vec<IpAddr> = relays.into_iter().filter(|local| site.machine.have(*local)).collect();
    // If the kernel does not answer, nothing is known.
    let has_route = |address, source| has_route(address, source).unwrap_or(true);
    site.config.hosts.iter().filter_map(|host| of_host(host, &own, has_route)).collect()
}

fn of_host(host: &Host, own: &[IpAddr], has_route: impl Fn(IpAddr, IpAddr) -> bool) -> Option<Finding> {
    let peers = host.peers.as_deref()?.iter().take(PEERS_MAX);
    let is_lost = |peer: &&IpNet| {
        let Some(address) = one_of(peer) else { return false };
        // A missing family is reported by itself.
        let mut sources = own.iter().filter(|own| own.is_ipv4() == address.is_ipv4()).peekable();
        sources.peek().is_some() && !sources.any(|source| has_route(address, *source))
    };
    let lost: Vec<&IpNet> = peers.filter(is_lost).collect();
    let first = one_of(lost.first()?)?;
    let mut listed: Vec<String> = lost.iter().take(LISTED).map(|peer| shown(peer)).collect();
    if lost.len() > LISTED {
        listed.push(format!("{} others", lost.len() - LISTED));
    }
    Some(Finding::warning(
        "no_route_to_peers",
        format!(
            "this machine has no route to the peers {} of host {} ({}): media to them is dropped",
            listed.join(", "),
            host.name,
            Family::of(first).name()
        ),
        format!("ip route get {first}: add a route, or bring the interface up that leads there"),
    ))
}

/// An address to ask for; `None` for a network that is too large, and for this machine itself.
fn one_of(peer: &IpNet) -> Option<IpAddr> {
    let least = if peer.addr().is_ipv4() { PREFIX_MIN_V4 } else { PREFIX_MIN_V6 };
    if peer.prefix_len() < least || peer.addr().is_loopback() {
        return None;
    }
    peer.hosts().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(peers: &[&str]) -> Host {
        let peers = peers.iter().map(|peer| peer.parse().expect("literal")).collect();
        Host { name: "ping".to_owned(), secrets: Vec::new(), revoked: Vec::new(), peers: Some(peers) }
    }

    #[test]
    fn peers_without_a_route_are_named() {
        let own: Vec<IpAddr> = vec!["192.0.2.10".parse().expect("literal")];
        let only = |known: &'static str| move |to: IpAddr, _| to.to_string().starts_with(known);
        let peers = ["198.51.100.20/32", "203.0.113.0/24", "10.0.0.0/8", "127.0.0.1/32", "2001:db8::1/128"];
        assert_eq!(of_host(&host(&peers), &own, |_, _| true), None);
        let found = of_host(&host(&peers), &own, only("203.0.113.")).expect("a warning");
        assert!(found.text.contains("no route to the peers 198.51.100.20 of host ping (IPv4)"), "{found:?}");
        assert!(found.remedy.is_some_and(|remedy| remedy.starts_with("ip route get 198.51.100.20:")));
        let found = of_host(&host(&peers), &own, |_, _| false).expect("a warning");
        assert!(found.text.contains("198.51.100.20, 203.0.113.0/24 of host"), "{found:?}");
        // Without an address of the family there is another finding, and a large network may be used in part.
        assert_eq!(of_host(&host(&peers[2..]), &own, |_, _| false), None);
    }
}
