//! Why a peer is denied, for the operator.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Origin, PeerPolicy, identities, is_own};
use crate::base::special_ranges;

/// The rule that denies a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The host has a list of peers, and this one is not in it.
    NotListed,
    /// An entry of `[peers] deny`.
    Denied(IpNet),
    /// A range that is closed unless the configuration opens it.
    Closed(&'static str),
    /// An address of this machine that carries no relayed addresses.
    Own,
    /// A port of this machine that is neither a relayed address nor allowed.
    Service,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NotListed => f.write_str("it is not in `peers` of the host"),
            Denial::Denied(net) => write!(f, "[peers] deny has {net}"),
            Denial::Closed(name) => write!(f, "{name} (closed unless [peers] allow opens it)"),
            Denial::Own => f.write_str("it is an address of this machine"),
            Denial::Service => f.write_str("this port of this machine is no relayed address"),
        }
    }
}

impl PeerPolicy {
    /// Returns the rule that denies this peer to a host with this list, after [`PeerPolicy::judge`] has.
    pub fn denial(&self, peer: IpAddr, allowed: Option<&[IpNet]>) -> Denial {
        if allowed.is_some_and(|nets| !nets.iter().any(|net| net.contains(&peer))) {
            return Denial::NotListed;
        }
        let denied = identities(peer).find(|&ip| !self.permits(ip, allowed)).unwrap_or(peer);
        if is_own(&self.own, denied) {
            return Denial::Own;
        }
        match self.entries.longest(denied) {
            Some((length, Origin::Denied)) => {
                Denial::Denied(IpNet::new(denied, length).map_or(denied.into(), |net| net.trunc()))
            }
            _ => Denial::Closed(
                special_ranges::covering(denied.into()).map_or("other addresses", |range| range.name),
            ),
        }
    }
}
