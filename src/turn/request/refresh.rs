//! Refresh (RFC 8656 section 8).

use super::allocate::{lifetime, until_expiry};
use super::answer::{refuse, succeed};
use crate::base::time::Instant;
use crate::turn::action::{EndReason, FromClient};
use crate::turn::id::RelayId;
use crate::turn::identity::refusal::Reason;
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::request::Refresh;

/// Handles Refresh (RFC 8656 section 8.2). A lifetime of zero deletes the allocation, or its relay of the named family, at
/// once. Without an allocation, the client's next Refresh is answered with 437.
pub fn refresh(state: &mut State, now: Instant, ticket: &Ticket, request: &Refresh) -> FromClient {
    match check_and_refresh(state, now, ticket, request) {
        Ok(lifetime) => succeed(state, ticket, ticket.success().lifetime(lifetime)),
        Err(reason) => refuse(state, now, ticket, &reason),
    }
}

fn check_and_refresh(
    state: &mut State,
    now: Instant,
    ticket: &Ticket,
    request: &Refresh,
) -> Result<u32, Reason> {
    let id = state.owned(ticket)?;
    let relays = state.table.allocation(id).ok_or(Reason::NoAllocation)?.relays;
    let chosen: Vec<RelayId> = match request.family {
        None => relays.into_iter().flatten().collect(),
        Some(family) => {
            let relay = family.ok().and_then(|family| relays[family as usize]);
            vec![relay.ok_or(Reason::AllocationFamily)?]
        }
    };
    if request.lifetime == Some(0) {
        for relay in chosen {
            state.end_relay(now, relay, EndReason::Deleted);
        }
        return Ok(0);
    }
    let mut lifetime = lifetime(&state.settings.limits, request.lifetime);
    if let Some(allocation) = state.table.allocation(id).filter(|_| state.confined(id).is_some()) {
        lifetime = until_expiry(&allocation.identity, now, lifetime);
    }
    for relay in chosen {
        state.refresh_relay(relay, now + lifetime);
    }
    Ok(lifetime.as_secs() as u32)
}
