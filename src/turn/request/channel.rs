//! ChannelBind (RFC 8656 section 12).

use std::time::Duration;

use super::answer::{refuse, succeed};
use super::permission::{check_room, check_user, judge, permit};
use crate::base::time::Now;
use crate::turn::action::FromClient;
use crate::turn::address::Announced;
use crate::turn::identity::peer_policy::Reach;
use crate::turn::identity::peer_policy::denial::Denial;
use crate::turn::identity::refusal::Reason;
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::request::ChannelBind;

/// The lifetime of a channel binding (RFC 8656 section 12).
pub const LIFETIME: Duration = Duration::from_secs(600);
/// The first channel number (RFC 8656 section 12).
const NUMBER_MIN: u16 = 0x4000;
/// The last channel number of RFC 8656 section 12.
const NUMBER_MAX_STRICT: u16 = 0x4FFF;
/// The last channel number of RFC 5766 section 11, whose range some clients still use.
const NUMBER_MAX: u16 = 0x7FFF;

/// Handles ChannelBind (RFC 8656 section 12.2).
pub fn channel_bind(state: &mut State, now: Now, ticket: &Ticket, request: &ChannelBind) -> FromClient {
    match check_and_bind(state, now, ticket, request) {
        Ok(()) => succeed(state, ticket, ticket.success()),
        Err(reason) => refuse(state, now.instant, ticket, &reason),
    }
}

fn check_and_bind(state: &mut State, now: Now, ticket: &Ticket, request: &ChannelBind) -> Result<(), Reason> {
    let id = state.owned(ticket)?;
    let malformed = |what| Err(Reason::Malformed { what });
    let (Some(number), Some(peer)) = (request.number, request.peer) else {
        return malformed("the request names no channel or no peer");
    };
    let max = if state.settings.strict_channels { NUMBER_MAX_STRICT } else { NUMBER_MAX };
    if !(NUMBER_MIN..=max).contains(&number) {
        return malformed("the channel number is outside the range");
    }
    // Number and peer must be bound to each other, or both unbound.
    let peer = Announced(peer);
    let on_wire = state.policy.to_on_wire(peer);
    let relays = state.table.allocation(id).map_or([None; 2], |allocation| allocation.relays);
    for relay in relays.into_iter().flatten() {
        let (bound_peer, bound_number) = state.table.bindings(id, relay, number, on_wire, now.instant);
        if bound_peer.is_some_and(|bound| bound != on_wire)
            || bound_number.is_some_and(|bound| bound != number)
        {
            return malformed("the channel or the peer is bound to another one");
        }
    }
    let permitted = judge(state, now, id, peer)?;
    if !state.may_reach(id, permitted.peer, permitted.reach) {
        let denial = match permitted.reach {
            _ if state.policy.is_service(permitted.peer) => Denial::Service,
            Reach::OwnUser => Denial::Confined,
            _ => Denial::NotRelayed,
        };
        return Err(Reason::PeerDenied { peer: permitted.peer.ip(), denial });
    }
    check_room(state, &[permitted])?;
    let known = state.table.bindings(id, permitted.relay, number, permitted.peer, now.instant).0.is_some();
    let limit = state.settings.limits.channels_per_allocation;
    if !known {
        if state.table.channel_count(permitted.relay) >= limit as usize {
            return Err(Reason::Channels { limit });
        }
        check_user(state, permitted.relay, 1)?;
    }
    let permission = permit(state, now.instant, permitted);
    let expires = now.instant + LIFETIME;
    if let Some(owner) = state.table.bind(permitted.relay, number, permitted.peer, permission, expires) {
        state.deadlines.push(expires, owner);
    }
    Ok(())
}
