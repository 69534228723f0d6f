//! Authentication of a request (RFC 8489 section 9.2.4), and the answers to senders without good credentials.

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::count_error;
use crate::base::time::Now;
use crate::turn::action::{Action, DropReason, FromClient};
use crate::turn::counters::Request;
use crate::turn::error::Code;
use crate::turn::five_tuple::Client;
use crate::turn::identity::auth::{Attempt, Checked, Failure, Identity, PASSWORD_ALGORITHMS};
use crate::turn::identity::gate::Payer;
use crate::turn::identity::nonce::{Features, Issued};
use crate::turn::state::State;
use crate::turn::ticket::Ticket;
use crate::wire::message::Message;
use crate::wire::request::Credentials;

/// Returns the ticket of an authenticated request, its sender, and the nanoseconds spent on searching the sender's secret.
/// `holder` is the owner of the client's allocation, `payer` pays for an answer without credentials.
///
/// The nonce is checked first: it proves the address for one short hash, so that a stranger cannot make us compute
/// passwords. A client on UDP with an allocation has one more proof, its key, which is at hand: an expired nonce under it is
/// answered at its user's cost, so that no flood of forged ones keeps the client from a fresh nonce.
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
    let asked = message.bytes().len();
    let Ok(credentials) = Credentials::parse(message) else {
        return Err(refuse_stranger(state, now, &ticket, asked, payer));
    };
    if message.integrity().is_none() {
        return Err(challenge(state, now, &ticket, Code::Unauthenticated, asked, payer));
    }
    let named = credentials.username.is_some() || credentials.userhash.is_some();
    let (true, Some(nonce), Some(_)) = (named, credentials.nonce, credentials.realm) else {
        return Err(refuse_stranger(state, now, &ticket, asked, payer));
    };
    let issued = state.shared.nonces.check(now.instant, client.five_tuple.client, nonce);
    let Some(Issued { features, is_fresh }) =
        issued.filter(|issued| issued.is_fresh || payer == Payer::Client)
    else {
        return Err(challenge(state, now, &ticket, Code::StaleNonce, asked, payer));
    };
    let limits = &state.settings.limits;
    let kind = Request::of(message.method());
    // Beyond the client's budget, nothing but its user's key is tried.
    let is_spent = payer == Payer::Client && !state.gate.has_budget(now, limits, &client, kind, payer, false);
    let holder_alone = is_spent || !is_fresh;
    let may_search = state.gate.may_search(now, &client);
    let settings = &state.settings;
    let attempt = Attempt {
        now,
        settings,
        message,
        credentials: &credentials,
        features,
        holder,
        holder_alone,
        may_search,
    };
    let Checked { result, tried } = state.authenticator.check(&attempt);
    let name = credentials.username.map_or(0, str::len);
    let is_wrong = matches!(result, Err(Failure::Wrong));
    let searched = state.gate.spend_search(now, &client, tried, message, name, is_wrong);
    if !is_fresh {
        let limits = &state.settings.limits;
        let payer = match result {
            Ok(asker) if state.gate.may_ask(now, limits, &client, &asker.identity, message, searched) => {
                Payer::User
            }
            _ => payer,
        };
        return Err(challenge(state, now, &ticket, Code::StaleNonce, asked, payer));
    }
    match result {
        Ok(asker) => {
            let identity = Arc::clone(&asker.identity);
            ticket.asker = Some(asker);
            Ok((ticket, identity, searched))
        }
        Err(Failure::Refused(Code::BadRequest)) => Err(refuse_stranger(state, now, &ticket, asked, payer)),
        Err(Failure::Refused(code)) => Err(challenge(state, now, &ticket, code, asked, payer)),
        Err(Failure::Wrong) => Err(challenge(state, now, &ticket, Code::Unauthenticated, asked, payer)),
        // Silence, over a stream too: browsers take a second 401 as final, and those built on libwebrtc repeat a
        // request over TCP as over UDP. The stream stays open for that.
        Err(Failure::SearchNeeded) => {
            spend(state, now, &ticket, payer);
            Err(state.dropped(DropReason::SearchDeferred))
        }
    }
}

/// Counts a request that is answered without credentials. Returns whether it may be answered.
fn spend(state: &mut State, now: Now, ticket: &Ticket, payer: Payer) -> bool {
    state.gate.spend(now, &state.settings.limits, &ticket.client, Request::of(ticket.method), payer)
}

/// 400 to a stranger (RFC 8489 section 9.2.4, second check).
fn refuse_stranger(state: &mut State, now: Now, ticket: &Ticket, asked: usize, payer: Payer) -> FromClient {
    if !spend(state, now, ticket, payer) {
        return state.dropped(DropReason::Throttled);
    }
    let message = ticket.seal(ticket.error(Code::BadRequest));
    answer_stranger(state, ticket, Code::BadRequest, asked, message)
}

/// 401 or 438 with a fresh nonce (RFC 8489 section 9.2.4). `asked` is the size of the request.
fn challenge(
    state: &mut State,
    now: Now,
    ticket: &Ticket,
    code: Code,
    asked: usize,
    payer: Payer,
) -> FromClient {
    if !spend(state, now, ticket, payer) {
        return state.dropped(DropReason::Throttled);
    }
    let client = ticket.client.five_tuple.client;
    let username_anonymity = state.authenticator.offers_anonymity();
    // A client with an allocation goes on with the realm of its key.
    let holder = state.table.find(&ticket.client).and_then(|id| state.table.allocation(id));
    let realm = holder.map_or(state.settings.realm.as_str(), |allocation| &*allocation.identity.realm);
    let with = |features: Features| {
        let nonce = state.shared.nonces.make(now.instant, client, features);
        let response = ticket.error(code).realm(realm).nonce(nonce.as_bytes());
        ticket.seal(match features.password_algorithms {
            true => response.password_algorithms(&PASSWORD_ALGORITHMS),
            false => response,
        })
    };
    let full = with(Features { password_algorithms: true, username_anonymity });
    if within_amplification(ticket, asked, full.len()) {
        return answer_stranger(state, ticket, code, asked, full);
    }
    let short = with(Features::default());
    answer_stranger(state, ticket, code, asked, short)
}

fn answer_stranger(
    state: &mut State,
    ticket: &Ticket,
    code: Code,
    asked: usize,
    message: Vec<u8>,
) -> FromClient {
    if !within_amplification(ticket, asked, message.len()) {
        return state.dropped(DropReason::Amplification);
    }
    count_error(state, ticket, code);
    state.actions.push_back(Action::Reply { client: ticket.client, message, authenticated: false });
    FromClient::Control
}

/// Whether an answer to a stranger stays below five times the size of its request, and below two and a half times
/// counting IP and UDP headers. On a stream the address is proven, so it always does.
fn within_amplification(ticket: &Ticket, asked: usize, answer: usize) -> bool {
    let five_tuple = &ticket.client.five_tuple;
    let headers = match five_tuple.client.ip() {
        IpAddr::V4(_) => 20 + 8,
        IpAddr::V6(_) => 40 + 8,
    };
    five_tuple.transport.is_stream()
        || (answer <= 5 * asked && 2 * (answer + headers) <= 5 * (asked + headers))
}
