//! Which peers a change of the settings may concern: only their permissions are judged again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::identities;
use super::prefixes::Prefixes;
use crate::turn::settings::{Host, RelayAddress, Settings};

/// The peers that two settings may judge differently.
#[derive(Debug)]
pub enum Difference {
    /// None.
    Nothing,
    /// Those at these addresses, or whose address contains one of them.
    Within(Prefixes<()>),
    /// Any.
    Anything,
}

impl Difference {
    /// Compares the settings in use with new ones.
    pub fn between(before: &Settings, after: &Settings) -> Self {
        let rules = |settings: &Settings| {
            let peers = &settings.peers;
            (peers.allow.clone(), peers.deny.clone(), peers.services.clone())
        };
        // A host that is gone keeps its peers for its remaining allocations. One that is new may be such a host that returns.
        let is_same = |host: &Host| {
            let (id, peers, is_confined) = (host.id, &host.peers, host.confined.is_some());
            let has =
                |known: &Host| (known.id, &known.peers, known.confined.is_some()) == (id, peers, is_confined);
            before.hosts.iter().any(has)
        };
        if rules(before) != rules(after) || !after.hosts.iter().all(is_same) {
            return Self::Anything;
        }
        let own = [before, after].map(|settings| settings.peers.own.iter().copied().collect::<BTreeSet<_>>());
        let is_common = |relay: &RelayAddress| {
            before.relay_addresses.contains(relay) && after.relay_addresses.contains(relay)
        };
        let relays = before.relay_addresses.iter().chain(&after.relay_addresses);
        let relays = relays.filter(|relay| !is_common(relay));
        let relayed = relays.flat_map(|relay| [relay.local, relay.announced]).map(IpNet::from);
        let changed: Vec<IpNet> = own[0].symmetric_difference(&own[1]).copied().chain(relayed).collect();
        match changed.is_empty() {
            true => Self::Nothing,
            false => Self::Within(Prefixes::new(changed.into_iter().map(|net| (net, ())))),
        }
    }

    /// Returns whether this peer may be judged differently.
    pub fn concerns(&self, peer: IpAddr) -> bool {
        match self {
            Self::Nothing => false,
            Self::Within(changed) => identities(peer).any(|ip| changed.cover(ip)),
            Self::Anything => true,
        }
    }
}
