//! CreatePermission (RFC 8656 sections 9 and 10), and which peers may be permitted.

use std::net::IpAddr;
use std::time::Duration;

use super::answer::{refuse, succeed};
use crate::base::family::Family;
use crate::base::time::{Instant, Now};
use crate::turn::action::FromClient;
use crate::turn::address::{Announced, OnWire};
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::peer_policy::Reach;
use crate::turn::identity::peer_policy::denial::Denial;
use crate::turn::identity::refusal::Reason;
use crate::turn::state::State;
use crate::turn::state::allocation::PermissionId;
use crate::turn::state::quota::Place;
use crate::turn::ticket::Ticket;
use crate::wire::request::CreatePermission;

/// The lifetime of a permission (RFC 8656 section 3.3).
pub const LIFETIME: Duration = Duration::from_secs(300);

/// A peer that the client may be permitted to reach.
#[derive(Clone, Copy, Debug)]
pub(in crate::turn) struct Permitted {
    pub relay: RelayId,
    pub peer: OnWire,
    pub reach: Reach,
}

/// Handles CreatePermission (RFC 8656 section 10.2): all of the request takes effect, or nothing.
pub fn create_permission(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    request: &CreatePermission<'_>,
) -> FromClient {
    match check_and_permit(state, now, ticket, request) {
        Ok(()) => succeed(state, ticket, ticket.success()),
        Err(reason) => refuse(state, now.instant, ticket, &reason),
    }
}

fn check_and_permit(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    request: &CreatePermission<'_>,
) -> Result<(), Reason> {
    let id = state.owned(ticket)?;
    let mut permitted = Vec::new();
    let mut refused: Option<Reason> = None;
    for peer in request.peers() {
        match judge(state, now, id, Announced(peer)) {
            Ok(peer) => permitted.push(peer),
            // A mismatched family (443) takes precedence over a denied peer (403).
            Err(reason) => {
                let is_first = |first: &Reason| matches!(first, Reason::PeerFamily { .. });
                refused = refused.filter(is_first).or(Some(reason));
            }
        }
    }
    if let Some(reason) = refused {
        return Err(reason);
    }
    if permitted.is_empty() {
        return Err(Reason::Malformed { what: "the request names no peer" });
    }
    // A permission is for an address without its port, so several ports of a peer are one permission.
    permitted.sort_unstable_by_key(|permitted| permitted.peer.ip());
    permitted.dedup_by_key(|permitted| permitted.peer.ip());
    check_room(state, &permitted)?;
    for peer in permitted {
        permit(state, now.instant, peer);
    }
    Ok(())
}

/// Judges whether the allocation's owner may reach this peer.
///
/// # Errors
/// 443 if the allocation has no relayed address of the peer's family; 403 if the policy denies the peer, or the credential is
/// withdrawn and the peer is not permitted yet.
pub fn judge(state: &State, now: Now, id: AllocationId, peer: Announced) -> Result<Permitted, Reason> {
    let allocation = state.table.allocation(id).ok_or(Reason::NoAllocation)?;
    let named = peer.ip();
    let relay = allocation.relays[Family::of(named) as usize].ok_or(Reason::PeerFamily { peer: named })?;
    let denied = |denial| Reason::PeerDenied { peer: named, denial };
    // The settings have every host with an allocation.
    let host = state.host(allocation.identity.host).ok_or_else(|| denied(Denial::NotListed))?;
    let why = || match host.confined {
        Some(_) => Denial::Confined,
        None => state.policy.denial(named, host.peers.as_deref()),
    };
    let reach = state.policy.judge_for(host, named).ok_or_else(|| denied(why()))?;
    let peer = state.policy.to_on_wire(peer);
    // A permission is for an address without its port (RFC 8656 section 9): the port is checked for each packet.
    if matches!(reach, Reach::OwnRelayed | Reach::OwnUser) && !carries_relays(state, relay, peer.ip()) {
        return Err(denied(Denial::Own));
    }
    // With a withdrawn credential, existing permissions can be refreshed, but no peer is added.
    if state.is_withdrawn(&allocation.identity, now.instant)
        && !state.table.is_permitted(relay, peer.ip(), now.instant)
    {
        let why = allocation.identity.withdrawal(now.instant);
        return Err(Reason::Withdrawn { peer: named, why });
    }
    Ok(Permitted { relay, peer, reach })
}

/// Whether `ip`, an address of this machine, has relayed addresses that the client of `relay` may have as peers. Those on
/// loopback are peers only of each other, because packets from elsewhere never reach loopback.
fn carries_relays(state: &State, relay: RelayId, ip: IpAddr) -> bool {
    let is_local = || state.table.relay(relay).is_some_and(|relay| relay.local.ip().is_loopback());
    let relays = &state.settings.relay_addresses;
    relays.iter().any(|relay| relay.local == ip && (!relay.only_local || is_local()))
}

/// Checks the limits of permissions for the new ones among these.
///
/// # Errors
/// 508 if a limit would be exceeded.
pub fn check_room(state: &State, permitted: &[Permitted]) -> Result<(), Reason> {
    let limit = state.settings.limits.permissions_per_allocation;
    for family in Family::ALL {
        let of_family = || permitted.iter().filter(|p| Family::of(p.peer.ip()) == family);
        let Some(relay) = of_family().next().map(|p| p.relay) else { continue };
        let new = of_family().filter(|p| !state.table.has_permission(relay, p.peer.ip())).count();
        if state.table.permission_count(relay) + new > limit as usize {
            return Err(Reason::Permissions { limit });
        }
        check_user(state, relay, new)?;
    }
    Ok(())
}

/// Checks whether the relay's user may hold `new` more permissions and channels in all its allocations together, and memory is
/// not short. A name without a user part counts as one user here: it is one credential, and its entries need as much memory no
/// matter how many people share it.
///
/// # Errors
/// 508 if not.
pub fn check_user(state: &State, relay: RelayId, new: usize) -> Result<(), Reason> {
    if new == 0 {
        return Ok(());
    }
    if state.short_of_memory {
        return Err(Reason::Memory);
    }
    let limit = state.settings.limits.permissions_per_user;
    let owner = state.table.relay(relay).and_then(|relay| state.table.allocation(relay.allocation));
    let has_room = |place: &Place| limit == 0 || place.entries() as usize + new <= limit as usize;
    match owner.is_some_and(|owner| has_room(&owner.place)) {
        true => Ok(()),
        false => Err(Reason::UserPermissions { limit }),
    }
}

/// Counts an allocation at its first permission.
fn note_permitted(state: &mut State, relay: RelayId) {
    let owner = state.table.relay(relay).map(|relay| relay.allocation);
    if let Some(allocation) = owner.and_then(|id| state.table.allocation_mut(id))
        && !std::mem::replace(&mut allocation.permitted, true)
    {
        let rung = state.counters.host(allocation.identity.host, allocation.client.five_tuple.transport);
        rung.permitted.add(1);
    }
}

/// Installs or refreshes one permission.
pub fn permit(state: &mut State, now: Instant, permitted: Permitted) -> PermissionId {
    let expires = now + LIFETIME;
    let (id, new) = state.table.permit(permitted.relay, permitted.peer.ip(), permitted.reach, now, expires);
    if let Some(owner) = new {
        state.deadlines.push(expires, owner);
        note_permitted(state, permitted.relay);
    }
    id
}
