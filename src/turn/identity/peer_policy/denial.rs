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
    /// A range that is closed unless the configuration opens it, for a host without a list.
    Closed(&'static str),
    /// The same range, covered by an entry of the host's list that is too broad to open it.
    TooBroad(&'static str),
    /// An address of this machine that carries no relayed addresses.
    Own,
    /// A port of this machine that is no live relayed address.
    NotRelayed,
    /// Anything but the user's own relayed addresses, for a user that may only test the relay.
    Confined,
    /// A port of a listener or of another service of the relay.
    Service,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::NotListed => f.write_str("it is not in `peers` of the host"),
            Denial::Denied(net) => write!(f, "[peers] deny has {net}"),
            Denial::Closed(name) => write!(f, "{name} (closed unless [peers] allow opens it)"),
            Denial::TooBroad(name) => {
                write!(f, "{name} (the entry in `peers` of the host is too broad to open it)")
            }
            Denial::Own => f.write_str("it is an address of this machine"),
            Denial::NotRelayed => f.write_str("this port of this machine is no relayed address"),
            Denial::Confined => {
                f.write_str("users of the test page reach nothing but their own relayed addresses")
            }
            Denial::Service => f.write_str("this port is one of the relay's own services"),
        }
    }
}

impl Denial {
    /// Returns what the operator can do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Denial::NotListed => {
                "if this is an address of the host's BigBlueButton server, add it to `peers` of this [[host]] and reload"
            }
            Denial::Denied(_) => {
                "if this is a conference server, remove or narrow this entry of [peers] deny and reload"
            }
            Denial::Closed(_) => {
                "if this is a conference server, add it to [peers] allow and reload; else nothing: browsers ask for private \
                 addresses, too"
            }
            Denial::TooBroad(_) => {
                "if this is an address of the host's BigBlueButton server, write the address itself into `peers` and reload"
            }
            Denial::Own | Denial::NotRelayed => {
                "if a conference server runs on this machine, add this address to `peers` of the [[host]], or to [peers] allow if \
                 it has no `peers`"
            }
            Denial::Confined => {
                "nothing: the test page needs no other peers, so somebody used its login for something else"
            }
            Denial::Service => "nothing: no rule opens the relay's own services to peers",
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
            _ => {
                let range = special_ranges::covering(denied.into());
                let name = range.map_or("other addresses", |range| range.name);
                if allowed.is_some() { Denial::TooBroad(name) } else { Denial::Closed(name) }
            }
        }
    }
}
