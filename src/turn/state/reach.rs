//! Which peers' ports a permission covers, asked for each packet, and the limits of users who reach only themselves.

use super::State;
use crate::turn::address::OnWire;
use crate::turn::id::AllocationId;
use crate::turn::identity::peer_policy::Reach;
use crate::turn::settings::{Confined, Rates};

impl State {
    /// Whether a permission of this reach covers the peer's port. For a peer on another machine without a service of ours,
    /// this costs one comparison.
    pub fn may_reach(&self, allocation: AllocationId, peer: OnWire, reach: Reach) -> bool {
        match reach {
            Reach::All => true,
            Reach::OwnOpened => !self.policy.is_service(peer),
            Reach::OwnRelayed => self.ports.is_open(peer) && !self.policy.is_service(peer),
            Reach::OwnUser => {
                let allocation = self.table.allocation(allocation);
                allocation.is_some_and(|allocation| self.ports.is_confined_to(peer, &allocation.place))
            }
        }
    }

    /// The rate limits of a confined user's packets, which have a reach of their own; `None` for those of all others.
    pub fn confined_rates(&self, allocation: AllocationId, reach: Reach) -> Option<Rates> {
        match reach {
            Reach::OwnUser => self.confined(allocation).map(|confined| confined.rates),
            _ => None,
        }
    }

    /// The limits of the allocation's user, if it is confined.
    pub fn confined(&self, allocation: AllocationId) -> Option<&Confined> {
        self.host(self.table.allocation(allocation)?.host)?.confined.as_ref()
    }
}
