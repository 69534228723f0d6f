//! Answers to authenticated senders, and to Bindings.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::time::Instant;
use crate::base::transport::Transport;
use crate::turn::action::{Action, DropReason, FromClient};
use crate::turn::counters::Request;
use crate::turn::error::Code;
use crate::turn::identity::auth::Identity;
use crate::turn::identity::rate_limit::RateLimit;
use crate::turn::identity::refusal::{Reason, Refusal, Sender};
use crate::turn::state::State;
use crate::turn::state::reports::Verdict;
use crate::turn::ticket::Ticket;
use crate::wire::response::Response;

/// Queues a finished answer.
pub fn succeed(state: &mut State, ticket: &Ticket, response: Response) -> FromClient {
    let (message, authenticated) = (ticket.seal(response), ticket.asker.is_some());
    state.actions.push_back(Action::Reply { client: ticket.client, message, authenticated });
    FromClient::Control
}

/// Queues an error answer to an authenticated sender.
pub fn refuse(state: &mut State, now: Instant, ticket: &Ticket, reason: &Reason) -> FromClient {
    note(state, now, ticket, ("", &[]), reason);
    // Every reason that is passed here has a code.
    let code = reason.code().unwrap_or(Code::BadRequest);
    let mut response = ticket.error(code);
    if code == Code::TryAlternate
        && let Some(server) = next_alternate(state, ticket)
    {
        response = response.alternate_server(server);
    }
    succeed(state, ticket, response)
}

/// Queues a 420 that lists the unknown attributes.
pub fn refuse_unknown(state: &mut State, now: Instant, ticket: &Ticket, unknown: &[u16]) -> FromClient {
    note(state, now, ticket, ("", &[]), &Reason::UnknownAttribute);
    succeed(state, ticket, ticket.error(Code::UnknownAttribute).unknown_attributes(unknown))
}

/// Returns whether there is an alternate server for this client.
pub fn has_alternate(state: &State, ticket: &Ticket) -> bool {
    let five_tuple = &ticket.client.five_tuple;
    state.settings.alternates.serve(five_tuple.transport, five_tuple.client)
}

fn next_alternate(state: &State, ticket: &Ticket) -> Option<SocketAddr> {
    let five_tuple = &ticket.client.five_tuple;
    state.settings.alternates.next(five_tuple.transport, five_tuple.client)
}

/// Counts an error answer by transport, method and code, and by its reason, and reports it if the budgets for reports permit.
/// `name` is the user name of a sender that is not authenticated; `message` is its request.
pub fn note(state: &mut State, now: Instant, ticket: &Ticket, unproven: (&str, &[u8]), reason: &Reason) {
    let asker = ticket.asker.as_ref().map(|asker| &*asker.identity);
    note_of(state, now, ticket, asker, unproven, reason);
}

/// The same for a request that belongs to `asker`.
fn note_of(
    state: &mut State,
    now: Instant,
    ticket: &Ticket,
    asker: Option<&Identity>,
    (name, message): (&str, &[u8]),
    reason: &Reason,
) {
    let (transport, request) = (ticket.client.five_tuple.transport, Request::of(ticket.method));
    if let Some(code) = reason.code() {
        state.counters.error(transport, request, code.number()).add(1);
    }
    state.counters.refusal(asker.map(|identity| identity.host), transport, reason.index()).add(1);
    if !reason.is_failure() {
        return;
    }
    let is_confined = asker.and_then(|asker| state.host(asker.host)?.confined).is_some();
    let sender = if is_confined { Sender::Confined } else { sender(asker, transport, reason) };
    let refusal = || Refusal {
        five_tuple: ticket.client.five_tuple,
        user: asker.map_or_else(|| name.into(), |identity| Arc::clone(&identity.name)),
        host: asker.map(|identity| (identity.host, Arc::clone(&identity.host_name))),
        request: request.name(),
        sender,
        reason: reason.clone(),
        unreported: 0,
        elsewhere: 0,
        message: None,
    };
    let user = asker.map(|identity| (identity.host, &*identity.user));
    let whole_name = asker.map_or(name, |identity| &identity.name);
    match state.reports.take(now, &ticket.client, (sender, user, whole_name), reason.index()) {
        Verdict::Reported => {
            let explained = match reason {
                Reason::WrongPassword { secrets } => *secrets > 0,
                Reason::FarExpiry { .. } | Reason::OtherPassword | Reason::ExpiredName { .. } => true,
                _ => false,
            };
            let message = explained.then(|| message.into());
            state.actions.push_back(Action::Refused(Box::new(Refusal { message, ..refusal() })));
        }
        Verdict::Hidden => state.reports.hide(now, &ticket.client, refusal),
        Verdict::Skipped => {}
    }
}

/// Returns what the sender of a refused request has proven. A handshake proves its address, and so does a nonce: a password is
/// checked, and a secret searched for, after the nonce.
fn sender(asker: Option<&Identity>, transport: Transport, reason: &Reason) -> Sender {
    match reason {
        _ if asker.is_some() => Sender::Authenticated,
        _ if transport.is_stream() => Sender::Proven,
        Reason::WrongPassword { .. }
        | Reason::OtherPassword
        | Reason::FarExpiry { .. }
        | Reason::ExpiredName { .. }
        | Reason::LifetimeName { .. }
        | Reason::MalformedName { .. }
        | Reason::UnknownUser
        | Reason::UnknownRealm
        | Reason::RateLimited { limit: RateLimit::SourceSearch(_) | RateLimit::Search(_) } => Sender::Proven,
        _ => Sender::Unproven,
    }
}

/// Drops a request without an answer because of this rate limit; counts and reports it like [`note`]. `user` is the one whose
/// limit it is.
pub fn drop_over_rate(
    state: &mut State,
    now: Instant,
    ticket: &Ticket,
    user: Option<&Identity>,
    (reason, limit): (DropReason, RateLimit),
) -> FromClient {
    note_of(state, now, ticket, user, ("", &[]), &Reason::RateLimited { limit });
    state.dropped(reason)
}
