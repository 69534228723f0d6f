//! CreatePermission (RFC 8656 sections 9 and 10), and whom a permission may be for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::answer::Ticket;
use crate::base::family::Family;
use crate::base::time::{Instant, Now};
use crate::turn::action::{FromClient, RelayId};
use crate::turn::error::Code;
use crate::turn::identity::peer_policy::Reach;
use crate::turn::server::Server;
use crate::turn::state::quota::Place;
use crate::turn::state::table::{AllocationId, FAMILIES, PermissionId};
use crate::wire::request::CreatePermission;

/// RFC 8656 section 3.3.
pub const LIFETIME: Duration = Duration::from_secs(300);

/// A peer that the client may be permitted to reach.
#[derive(Clone, Copy, Debug)]
pub(in crate::turn) struct Permitted {
    pub relay: RelayId,
    /// As packets travel.
    pub peer: SocketAddr,
    pub reach: Reach,
}

impl Server {
    /// RFC 8656 section 10.2: all of the request takes effect, or nothing.
    pub(in crate::turn) fn create_permission(
        &mut self,
        now: Now,
        ticket: &Ticket,
        request: &CreatePermission<'_>,
    ) -> FromClient {
        match self.check_and_permit(now, ticket, request) {
            Ok(()) => self.succeed(ticket, ticket.success()),
            Err(code) => self.refuse(ticket, code),
        }
    }

    fn check_and_permit(
        &mut self,
        now: Now,
        ticket: &Ticket,
        request: &CreatePermission<'_>,
    ) -> Result<(), Code> {
        let id = self.owned(ticket)?;
        let mut permitted = Vec::new();
        let mut refused = None;
        for peer in request.peers() {
            match self.judge(now, id, peer) {
                Ok(peer) => permitted.push(peer),
                // A family that does not match is said before a peer that is not allowed.
                Err(code) => {
                    refused = refused.filter(|&first| first == Code::PeerAddressFamilyMismatch).or(Some(code))
                }
            }
        }
        if let Some(code) = refused {
            return Err(code);
        }
        if permitted.is_empty() {
            return Err(Code::BadRequest);
        }
        // A permission is for an address, whatever the port: several ports are one.
        permitted.sort_unstable_by_key(|permitted| permitted.peer.ip());
        permitted.dedup_by_key(|permitted| permitted.peer.ip());
        self.check_room(&permitted)?;
        for peer in permitted {
            self.permit(now.instant, peer);
        }
        Ok(())
    }

    /// Whether the allocation's owner may reach this peer: family, then policy.
    pub(in crate::turn) fn judge(
        &self,
        now: Now,
        id: AllocationId,
        peer: SocketAddr,
    ) -> Result<Permitted, Code> {
        let allocation = self.table.allocation(id).ok_or(Code::AllocationMismatch)?;
        let relay =
            allocation.relays[Family::of(peer.ip()) as usize].ok_or(Code::PeerAddressFamilyMismatch)?;
        let host = self.host(allocation.identity.host).ok_or(Code::Forbidden)?;
        let reach = self.policy.judge(peer.ip(), host.peers.as_deref()).ok_or(Code::Forbidden)?;
        let peer = self.policy.to_local(peer);
        // A permission is for an address whatever the port (RFC 8656 section 9): each packet's port is judged when it flows.
        if reach == Reach::OwnRelayed && !self.carries_relays(peer.ip()) {
            return Err(Code::Forbidden);
        }
        // A withdrawn credential keeps what it has and gets nothing beyond it.
        if self.is_withdrawn(&allocation.identity, now.instant)
            && !self.table.is_permitted(relay, peer.ip(), now.instant)
        {
            return Err(Code::Forbidden);
        }
        Ok(Permitted { relay, peer, reach })
    }

    /// Whether there are relayed addresses at this address of this machine.
    fn carries_relays(&self, ip: IpAddr) -> bool {
        self.settings.relay_addresses.iter().any(|relay| relay.local == ip)
    }

    /// Whether a permission of this reach covers this very port. One load where the peer is another machine.
    pub(in crate::turn) fn may_reach(&self, peer: SocketAddr, reach: Reach) -> bool {
        match reach {
            Reach::All => true,
            Reach::OwnOpened => !self.policy.is_service(peer),
            Reach::OwnRelayed => self.shared.ports.is_open(peer) && !self.policy.is_service(peer),
        }
    }

    /// Whether memory is short: while it is, no permission and no channel is added. Those that are there are refreshed.
    pub fn handle_pressure(&mut self, is_low: bool) {
        self.short_of_memory = is_low;
    }

    /// Whether there is room for the new ones among these permissions.
    pub(in crate::turn) fn check_room(&self, permitted: &[Permitted]) -> Result<(), Code> {
        let max = self.settings.limits.permissions_per_allocation as usize;
        for family in FAMILIES {
            let of_family = || permitted.iter().filter(|p| Family::of(p.peer.ip()) == family);
            let Some(relay) = of_family().next().map(|p| p.relay) else { continue };
            let new = of_family().filter(|p| !self.table.has_permission(relay, p.peer.ip())).count();
            if self.table.permission_count(relay) + new > max || !self.has_room_for(relay, new) {
                return Err(Code::InsufficientCapacity);
            }
        }
        Ok(())
    }

    /// Whether the relay's user may hold so many more permissions and channels, counting all of its allocations, and there
    /// is memory for them. A name without a user part is one user here: it is one credential, and its entries take as much
    /// memory from wherever it is used.
    pub(in crate::turn) fn has_room_for(&self, relay: RelayId, new: usize) -> bool {
        let max = self.settings.limits.permissions_per_user;
        let owner = self.table.relay(relay).and_then(|relay| self.table.allocation(relay.allocation));
        let has_room = |place: &Place| max == 0 || place.entries() as usize + new <= max as usize;
        new == 0 || (!self.short_of_memory && owner.is_some_and(|owner| has_room(&owner.place)))
    }

    /// Counts an allocation that got its first permission.
    fn note_permitted(&mut self, relay: RelayId) {
        let owner = self.table.relay(relay).map(|relay| relay.allocation);
        if let Some(allocation) = owner.and_then(|id| self.table.allocation_mut(id))
            && !std::mem::replace(&mut allocation.permitted, true)
        {
            let rung = self.counters.host(allocation.identity.host, allocation.client.five_tuple.transport);
            rung.permitted.add(1);
        }
    }

    /// Installs or refreshes one permission.
    pub(in crate::turn) fn permit(&mut self, now: Instant, permitted: Permitted) -> PermissionId {
        let expires = now + LIFETIME;
        let (id, new) =
            self.table.permit(permitted.relay, permitted.peer.ip(), permitted.reach, now, expires);
        if let Some(owner) = new {
            self.deadlines.push(expires, owner);
            self.note_permitted(permitted.relay);
        }
        id
    }
}
