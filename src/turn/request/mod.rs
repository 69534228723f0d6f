//! Requests (RFC 8489 section 6.3.1 and RFC 8656): the checks common to all of them, and one file for each method.

pub mod allocate;
mod answer;
mod authenticate;
mod channel;
mod permission;
mod refresh;

use std::sync::Arc;

use crate::base::time::Now;
use crate::base::transport::Transport;
use crate::turn::action::{DropReason, FromClient};
use crate::turn::address::Announced;
use crate::turn::counters::Request as Kind;
use crate::turn::five_tuple::Client;
use crate::turn::identity::auth::Identity;
use crate::turn::identity::gate::{Gate, Payer};
use crate::turn::identity::refusal::Reason;
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::message::Message;
use crate::wire::request::{Request, unknown_required};

/// Handles a request. The checks follow RFC 8489 section 6.3.1: method, then authentication, then unknown attributes, then
/// the method's own rules.
pub fn handle(
    state: &mut State,
    now: Now,
    client: Client,
    message: &Message<'_>,
    opening: bool,
) -> FromClient {
    let kind = Kind::of(message.method());
    let transport = client.five_tuple.transport;
    state.counters.request(transport, kind).add(1);
    if kind == Kind::Other {
        return state.dropped(DropReason::UnknownMethod);
    }
    // A request from one of our own relayed addresses: a client tries to reach our listeners through the relay.
    if transport == Transport::Udp
        && state.ports.is_open(state.policy.to_on_wire(Announced(client.five_tuple.client)))
    {
        return state.dropped(DropReason::PeerDenied);
    }
    let holder = state.table.find(&client).and_then(|id| state.table.allocation(id));
    let holder = holder.map(|allocation| Arc::clone(&allocation.identity));
    let payer = Payer::of(&client, holder.is_some());
    // Its source does not pay for it: somebody who tries again at once would use up the requests of newcomers. The requests of a
    // client with an allocation count for its user, and are not dropped for another name that it has tried.
    if payer == Payer::Source
        && kind != Kind::Binding
        && let Err(limit) = state.gate.may_try_again(now, &client)
    {
        let reason = (DropReason::Throttled, limit);
        return answer::drop_over_rate(state, now.instant, &Ticket::of(client, message), None, reason);
    }
    if let Err(reason) = admit(state, now, &client, message, holder.as_deref(), payer, opening) {
        let user = holder.as_deref().filter(|_| reason == DropReason::RequestsOverRate);
        let limits = &state.settings.limits;
        let limit = match user {
            Some(_) => Gate::limit_of_user(limits, kind),
            None => Gate::limit_of(limits, &client, kind, payer),
        };
        return answer::drop_over_rate(
            state,
            now.instant,
            &Ticket::of(client, message),
            user,
            (reason, limit),
        );
    }
    if kind == Kind::Binding {
        return binding(state, now, client, message, payer);
    }
    let authenticated = authenticate::authenticate(state, now, client, message, holder.as_ref(), payer);
    let (ticket, asker, searched) = match authenticated {
        Ok(authenticated) => authenticated,
        Err(done) => return done,
    };
    if holder.is_some()
        && let Some(id) = state.table.find(&client)
        && let Some(allocation) = state.table.allocation_mut(id).filter(|held| held.belongs_to(&asker))
    {
        allocation.heard = now.instant;
    }
    let limits = &state.settings.limits;
    if payer != Payer::User && !state.gate.may_ask(now, limits, &client, &asker, message, searched) {
        state.gate.spend(now, limits, &client, kind, payer);
        let reason = (DropReason::RequestsOverRate, Gate::limit_of_user(limits, kind));
        return answer::drop_over_rate(state, now.instant, &ticket, Some(&asker), reason);
    }
    if kind == Kind::Allocate {
        state.counters.authenticated(transport).add(1);
    }
    let unknown = unknown_required(message);
    if !unknown.is_empty() {
        return answer::refuse_unknown(state, now.instant, &ticket, unknown.kinds());
    }
    match Request::parse(message) {
        Ok(Request::Allocate(request)) => allocate::allocate(state, now, ticket, &request),
        Ok(Request::Refresh(request)) => refresh::refresh(state, now.instant, &ticket, &request),
        Ok(Request::CreatePermission(request)) => {
            permission::create_permission(state, now, &ticket, &request)
        }
        Ok(Request::ChannelBind(request)) => channel::channel_bind(state, now, &ticket, &request),
        Ok(_) => state.dropped(DropReason::UnknownMethod),
        // RFC 8656 sections 5 and 7.2: the five-tuple is checked before the request's attributes.
        Err(_) => {
            let malformed = Reason::Malformed { what: "an attribute is malformed" };
            let reason = match (kind, state.table.find(&ticket.client)) {
                (Kind::Allocate, Some(_)) => Reason::HasAllocation,
                (Kind::Allocate, None) => malformed,
                _ => state.owned(&ticket).err().unwrap_or(malformed),
            };
            answer::refuse(state, now.instant, &ticket, &reason)
        }
    }
}

/// Checks the budgets, before anything is computed. `holder` is the owner of the client's allocation.
///
/// # Errors
/// The reason to drop the request.
fn admit(
    state: &mut State,
    now: Now,
    client: &Client,
    message: &Message<'_>,
    holder: Option<&Identity>,
    payer: Payer,
    opening: bool,
) -> Result<(), DropReason> {
    let kind = Kind::of(message.method());
    let limits = &state.settings.limits;
    let (may, reason) = match (holder, payer) {
        // Nobody else can send over the client's stream, so every request counts for the user at once.
        (Some(user), Payer::User) => {
            (state.gate.may_ask(now, limits, client, user, message, 0), DropReason::RequestsOverRate)
        }
        // Over UDP, who pays is known once the request is verified or refused.
        (Some(user), _) if kind != Kind::Binding => {
            (state.gate.may_ask_more(now, limits, client, user), DropReason::RequestsOverRate)
        }
        _ => (state.gate.has_budget(now, limits, client, kind, payer, opening), DropReason::Throttled),
    };
    if may { Ok(()) } else { Err(reason) }
}

/// RFC 8489 section 6.3.1: a Binding request needs no credentials; the answer is XOR-MAPPED-ADDRESS.
fn binding(state: &mut State, now: Now, client: Client, message: &Message<'_>, payer: Payer) -> FromClient {
    state.gate.spend(now, &state.settings.limits, &client, Kind::Binding, payer);
    let ticket = Ticket::of(client, message);
    let unknown = unknown_required(message);
    if !unknown.is_empty() {
        return answer::refuse_unknown(state, now.instant, &ticket, unknown.kinds());
    }
    let response = ticket.success().xor_mapped_address(client.five_tuple.client);
    answer::succeed(state, &ticket, response)
}
