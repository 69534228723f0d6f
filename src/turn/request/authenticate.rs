//! Authentication of a request (RFC 8489 section 9.2.4), and the answers to senders without good credentials.

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{drop_over_rate, note};
use crate::base::time::Now;
use crate::turn::action::{Action, DropReason, FromClient};
use crate::turn::counters::Request;
use crate::turn::error::Code;
use crate::turn::five_tuple::Client;
use crate::turn::identity::auth::{Attempt, Checked, Failure, Identity, PASSWORD_ALGORITHMS};
use crate::turn::identity::gate::{Gate, Payer};
use crate::turn::identity::nonce::{Features, Issued};
use crate::turn::identity::rate_limit::RateLimit;
use crate::turn::identity::refusal::Reason;
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::message::Message;
use crate::wire::request::Credentials;

/// Returns the ticket of an authenticated request, its sender, and the nanoseconds spent on the search for its secret.
/// `holder` is the owner of the client's allocation, `payer` pays for an answer without credentials.
///
/// The nonce is checked first: for the cost of one short hash it proves the address, so forged addresses never cause the
/// computation of a password. A client on UDP with an allocation is also known by its key, which needs no search: if the key
/// verifies a request with an expired nonce, the answer is charged to the user. So a flood of forged requests cannot keep the
/// client from a fresh nonce.
///
/// # Errors
/// The verdict on a request that is not authenticated; its answer is queued.
pub fn authenticate(
    state: &mut State,
    now: Now,
    client: Client,
    message: &Message<'_>,
    holder: Option<&Arc<Identity>>,
    payer: Payer,
) -> Result<(Ticket, Arc<Identity>, u32), FromClient> {
    let mut ticket = Ticket::of(client, message);
    let asked = message.bytes();
    let Ok(credentials) = Credentials::parse(message) else {
        return Err(bad_request(state, now, &ticket, "", asked, payer));
    };
    if message.integrity().is_none() {
        return Err(challenge(state, now, &ticket, ("", Reason::FirstRequest), asked, payer));
    }
    let name = credentials.username.unwrap_or_default();
    let named = credentials.username.is_some() || credentials.userhash.is_some();
    let (true, Some(nonce), Some(_)) = (named, credentials.nonce, credentials.realm) else {
        return Err(bad_request(state, now, &ticket, name, asked, payer));
    };
    let issued = state.shared.nonces.check(now.instant, client.five_tuple.client, nonce);
    let is_ours = issued.is_some();
    let Some(Issued { features, is_fresh }) =
        issued.filter(|issued| issued.is_fresh || payer == Payer::Client)
    else {
        let reason = if is_ours { Reason::ExpiredNonce } else { Reason::ForeignNonce };
        return Err(challenge(state, now, &ticket, (name, reason), asked, payer));
    };
    let limits = &state.settings.limits;
    let kind = Request::of(message.method());
    // Once the client's budget is used up, only its user's key is tried.
    let is_spent = payer == Payer::Client && !state.gate.has_budget(now, limits, &client, kind, payer, false);
    // A client with an allocation whose search for another name was deferred a moment ago: its user's requests go on.
    let repeated = match payer {
        Payer::Source => None,
        Payer::Client | Payer::User => state.gate.may_try_again(now, &client).err(),
    };
    let holder_alone = is_spent || !is_fresh || repeated.is_some();
    let may_search = state.gate.may_search(now, &client, message, name.len());
    let settings = &state.settings;
    let attempt = Attempt {
        now,
        source: client.five_tuple.client.ip(),
        settings,
        message,
        credentials: &credentials,
        features,
        holder,
        holder_alone,
        may_search: may_search.is_ok(),
    };
    let Checked { result, tried } = state.authenticator.check(&attempt);
    let is_wrong = matches!(result, Err(Failure::Wrong(_)));
    let searched = state.gate.spend_search(now, &client, tried, message, name.len(), is_wrong);
    if !is_fresh {
        let limits = &state.settings.limits;
        let payer = match result {
            Ok(asker) if state.gate.may_ask(now, limits, &client, &asker.identity, message, searched) => {
                Payer::User
            }
            _ => payer,
        };
        return Err(challenge(state, now, &ticket, (name, Reason::ExpiredNonce), asked, payer));
    }
    if let (Err(Failure::Refused(Reason::OtherPassword)), Some(limit)) = (&result, repeated) {
        spend(state, now, &ticket, payer);
        return Err(drop_over_rate(state, now.instant, &ticket, None, (DropReason::Throttled, limit)));
    }
    match result {
        Ok(asker) => {
            let identity = Arc::clone(&asker.identity);
            ticket.asker = Some(asker);
            Ok((ticket, identity, searched))
        }
        Err(Failure::Refused(Reason::MalformedCredentials)) => {
            Err(bad_request(state, now, &ticket, name, asked, payer))
        }
        Err(Failure::Refused(reason) | Failure::Wrong(reason)) => {
            Err(challenge(state, now, &ticket, (name, reason), asked, payer))
        }
        // No answer, not even over a stream: browsers take a second 401 as final, and those built on libwebrtc repeat
        // requests over TCP as over UDP. The stream stays open for the repetition.
        Err(Failure::SearchNeeded) => {
            spend(state, now, &ticket, payer);
            state.gate.defer_search(now, &state.settings.limits, &client, payer, asked.len(), name.len());
            // A search is needed only if it is not allowed.
            let limit = may_search.err().unwrap_or(RateLimit::SourceSearch(0));
            Err(drop_over_rate(state, now.instant, &ticket, None, (DropReason::SearchDeferred, limit)))
        }
    }
}

/// Counts a request that is answered without credentials. Returns whether it may be answered.
fn spend(state: &mut State, now: Now, ticket: &Ticket, payer: Payer) -> bool {
    state.gate.spend(now, &state.settings.limits, &ticket.client, Request::of(ticket.method), payer)
}

/// Drops a request that its payer has no budget for.
fn over_budget(state: &mut State, now: Now, ticket: &Ticket, payer: Payer) -> FromClient {
    let (limits, kind) = (&state.settings.limits, Request::of(ticket.method));
    let limit = Gate::limit_of(limits, &ticket.client, kind, payer);
    drop_over_rate(state, now.instant, ticket, None, (DropReason::Throttled, limit))
}

/// Answers 400 without credentials (RFC 8489 section 9.2.4, second check). `asked` is the request.
fn bad_request(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    name: &str,
    asked: &[u8],
    payer: Payer,
) -> FromClient {
    if !spend(state, now, ticket, payer) {
        return over_budget(state, now, ticket, payer);
    }
    let reason = Reason::MalformedCredentials;
    let message = ticket.seal(ticket.error(Code::BadRequest));
    answer_unauthenticated(state, now, ticket, (name, reason), asked, message)
}

/// Answers 401 or 438 with a fresh nonce (RFC 8489 section 9.2.4). `refused`: the user name as sent, and the reason. `asked` is
/// the request.
fn challenge(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    refused: (&str, Reason),
    asked: &[u8],
    payer: Payer,
) -> FromClient {
    if !spend(state, now, ticket, payer) {
        return over_budget(state, now, ticket, payer);
    }
    let client = ticket.client.five_tuple.client;
    let username_anonymity = state.authenticator.offers_anonymity();
    // A client with an allocation keeps the realm of its key, even if the settings have a new one.
    let holder = state.table.find(&ticket.client).and_then(|id| state.table.allocation(id));
    let realm = holder.map_or(state.settings.realm.as_str(), |allocation| &*allocation.identity.realm);
    let code = refused.1.code().unwrap_or(Code::Unauthenticated);
    let with = |features: Features| {
        let nonce = state.shared.nonces.make(now.instant, client, features);
        let response = ticket.error(code).realm(realm).nonce(nonce.as_bytes());
        ticket.seal(match features.password_algorithms {
            true => response.password_algorithms(&PASSWORD_ALGORITHMS),
            false => response,
        })
    };
    let full = with(Features { password_algorithms: true, username_anonymity });
    if within_amplification(ticket, asked.len(), full.len()) {
        return answer_unauthenticated(state, now, ticket, refused, asked, full);
    }
    let short = with(Features::default());
    answer_unauthenticated(state, now, ticket, refused, asked, short)
}

fn answer_unauthenticated(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    (name, reason): (&str, Reason),
    asked: &[u8],
    message: Vec<u8>,
) -> FromClient {
    if !within_amplification(ticket, asked.len(), message.len()) {
        return state.dropped(DropReason::Amplification);
    }
    note(state, now.instant, ticket, (name, asked), &reason);
    state.actions.push_back(Action::Reply { client: ticket.client, message, authenticated: false });
    FromClient::Control
}

/// Whether an answer to an unauthenticated sender has at most five times the size of its request, and at most two and a half
/// times including IP and UDP headers. Always true on a stream, where the handshake has proved the address.
fn within_amplification(ticket: &Ticket, asked: usize, answer: usize) -> bool {
    let five_tuple = &ticket.client.five_tuple;
    let headers = match five_tuple.client.ip() {
        IpAddr::V4(_) => 20 + 8,
        IpAddr::V6(_) => 40 + 8,
    };
    five_tuple.transport.is_stream()
        || (answer <= 5 * asked && 2 * (answer + headers) <= 5 * (asked + headers))
}
