//! Answers to authenticated senders, and to Bindings.

use std::net::SocketAddr;

use crate::turn::action::{Action, FromClient};
use crate::turn::counters::Request;
use crate::turn::error::Code;
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::response::Response;

/// Queues a finished answer.
pub fn succeed(state: &mut State, ticket: &Ticket, response: Response) -> FromClient {
    let (message, authenticated) = (ticket.seal(response), ticket.asker.is_some());
    state.actions.push_back(Action::Reply { client: ticket.client, message, authenticated });
    FromClient::Control
}

/// Queues an error answer to an authenticated sender.
pub fn refuse(state: &mut State, ticket: &Ticket, code: Code) -> FromClient {
    count_error(state, ticket, code);
    let mut response = ticket.error(code);
    if code == Code::TryAlternate
        && let Some(server) = next_alternate(state, ticket)
    {
        response = response.alternate_server(server);
    }
    succeed(state, ticket, response)
}

/// Queues a 420 that lists the unknown attributes.
pub fn refuse_unknown(state: &mut State, ticket: &Ticket, unknown: &[u16]) -> FromClient {
    count_error(state, ticket, Code::UnknownAttribute);
    succeed(state, ticket, ticket.error(Code::UnknownAttribute).unknown_attributes(unknown))
}

/// Whether there is an alternate server for this client.
pub fn has_alternate(state: &State, ticket: &Ticket) -> bool {
    let five_tuple = &ticket.client.five_tuple;
    state.settings.alternates.serve(five_tuple.transport, five_tuple.client)
}

fn next_alternate(state: &State, ticket: &Ticket) -> Option<SocketAddr> {
    let five_tuple = &ticket.client.five_tuple;
    state.settings.alternates.next(five_tuple.transport, five_tuple.client)
}

/// Counts an error answer by transport, method and code.
pub fn count_error(state: &State, ticket: &Ticket, code: Code) {
    let (transport, request) = (ticket.client.five_tuple.transport, Request::of(ticket.method));
    state.counters.error(transport, request, code.number()).add(1);
}
