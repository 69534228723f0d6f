//! Allocate (RFC 8656 section 7).

use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;

use super::answer::{has_alternate, refuse, succeed};
use crate::base::family::{DefaultFamily, Family};
use crate::base::time::{Instant, Now};
use crate::turn::action::{Action, Beginning, FromClient, OpenError};
use crate::turn::address::OnWire;
use crate::turn::five_tuple::FiveTuple;
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::auth::Identity;
use crate::turn::identity::own_test::is_trial;
use crate::turn::identity::refusal::Reason;
use crate::turn::settings::{Limits, RelayAddress};
use crate::turn::state::State;
use crate::turn::state::allocate_requests::{AllocateRequest, Opening};
use crate::turn::state::allocation::Owner;
use crate::turn::state::port_pool::{Token, Want};
use crate::turn::state::quota::Place;
use crate::turn::ticket::Ticket;
use crate::wire::request::Allocate;

/// The default lifetime of an allocation (RFC 8656 section 3.2).
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);
/// IANA protocol number of UDP, the only transport that is relayed.
const UDP: u8 = 17;
/// Ports tried before the answer is 508: other programs on this machine may hold some of our range.
const TRIES_MAX: usize = 32;

/// A name that expires within this time shows that the clocks of its issuer and of this machine agree: BigBlueButton's are valid
/// for a day. Two minutes are the difference of two clocks.
const TIMELY: Duration = Duration::from_secs(86_400 + 120);

/// Handles Allocate (RFC 8656 section 7.2). The comments give the number of each check in the RFC.
pub fn allocate(state: &mut State, now: Now, ticket: Ticket, request: &Allocate) -> FromClient {
    // 2: one allocation per five-tuple; a retransmission gets the same answer.
    if let Some(id) = state.table.find(&ticket.client) {
        return repeat(state, now.instant, id, &ticket);
    }
    match check_and_open(state, now, &ticket, request) {
        Ok(()) => FromClient::Control,
        Err(reason) => refuse(state, now.instant, &ticket, &reason),
    }
}

fn check_and_open(state: &mut State, now: Now, ticket: &Ticket, request: &Allocate) -> Result<(), Reason> {
    let malformed = |what| Err(Reason::Malformed { what });
    // 3: REQUESTED-TRANSPORT.
    match request.transport {
        None => return malformed("the request has no REQUESTED-TRANSPORT"),
        Some(UDP) => {}
        Some(_) => return Err(Reason::UnsupportedTransport),
    }
    // 4: DONT-FRAGMENT is supported.
    // 5: a reservation excludes every other option.
    let others =
        request.even_port.is_some() || request.family.is_some() || request.additional_family.is_some();
    if request.reservation_token.is_some() && others {
        return malformed("a reservation excludes every other option");
    }
    // 6 and 9: two ways to ask for families; the additional one can only be IPv6.
    if request.additional_family.is_some() && request.family.is_some() {
        return malformed("the request names its families in two ways");
    }
    if request.additional_family.is_some_and(|family| family != Ok(Family::V6)) {
        return malformed("the additional family can only be IPv6");
    }
    let five_tuple = ticket.client.five_tuple;
    // 7: the family asked for, else the operator's default, which is IPv4 unless configured.
    let family = match request.family {
        None => default_family(state, &five_tuple),
        Some(Ok(family)) => family,
        Some(Err(_)) => return Err(Reason::NoFamily { family: None, is_default: false }),
    };
    // 8: EVEN-PORT with R = 1 is not defined for two families.
    if request.even_port == Some(true) && request.additional_family.is_some() {
        return malformed("a pair of ports is not defined for two families");
    }
    let families: &[Family] = match request.additional_family {
        None => &[family],
        Some(_) => &Family::ALL,
    };
    if request.additional_family.is_none()
        && request.reservation_token.is_none()
        && relay_address(state, family, &five_tuple).is_none()
    {
        return Err(no_address(state, family, request.family.is_none()));
    }
    // 10: quotas. While draining, new users are refused. One with an allocation may have another: an ICE restart of a running
    // call needs it.
    let asker = ticket.asker.as_ref().ok_or(Reason::FirstRequest)?;
    if state.draining && !state.shared.quota.holds(asker.identity.host, &asker.identity.account()) {
        return Err(match has_alternate(state, ticket) {
            true => Reason::Alternate,
            false => Reason::Draining,
        });
    }
    let identity = Arc::clone(&asker.identity);
    let redeemed = match &request.reservation_token {
        None => None,
        Some(token) => Some(state.ports.redeem(now.instant, token).ok_or(Reason::NoReservation)?),
    };
    let account = identity.account();
    let confined = state.host(identity.host).and_then(|host| host.confined);
    let limits = confined.map(|confined| Limits {
        allocations_per_user: confined.allocations_per_user,
        allocations_per_host: confined.allocations,
        ..state.settings.limits.clone()
    });
    let limits = limits.as_ref().unwrap_or(&state.settings.limits);
    let take = || state.shared.quota.take(identity.host, &account, limits);
    let (place, redeemed) = match redeemed {
        // The reserved port already has a place in the quota.
        Some((address, place)) if place.is_of(identity.host, &account) => (place, Some(address)),
        Some((address, _)) => match take() {
            Ok(place) => (place, Some(address)),
            Err(reason) => {
                state.ports.release(address);
                return Err(reason);
            }
        },
        None => (take()?, None),
    };

    let want = match request.even_port {
        None => Want::Any,
        Some(false) => Want::Even,
        Some(true) => Want::Pair,
    };
    let mut claims = Vec::with_capacity(2);
    let (mut address_error, mut refusal) = (None, None);
    // A reserved port counts in the quota like a relayed address, even if it is never used.
    let reserved = if want == Want::Pair { Some(take()?) } else { None };
    if let Some(address) = redeemed {
        claims.push(address);
    } else {
        for &family in families {
            match claim(state, family, &five_tuple, want, place.held()) {
                Ok(claim) => claims.push(claim),
                Err(reason) => {
                    address_error = reason.code().map(|code| (family, code.number()));
                    let takes_precedence = matches!(reason, Reason::FewPorts { .. });
                    refusal = if takes_precedence { Some(reason) } else { refusal.or(Some(reason)) };
                }
            }
        }
    }
    if claims.is_empty() {
        return Err(match refusal {
            Some(Reason::NoFamily { .. } | Reason::NoAddress) | None => Reason::NoPort { foreign: false },
            Some(reason) => reason,
        });
    }

    let (now, mut lifetime) = (now.instant, lifetime(&state.settings.limits, request.lifetime));
    if confined.is_some() {
        lifetime = until_expiry(&identity, now, lifetime);
    }
    let id = state.table.add_allocation(ticket.client, identity, now, place, confined.is_some());
    for local in &claims {
        let (relay, owner) =
            state.table.add_relay(id, *local, state.policy.to_announced(*local), now + lifetime);
        state.deadlines.push(now + lifetime, owner);
        state.actions.push_back(Action::OpenRelay { relay, address: *local });
    }
    state.allocate_requests.insert(
        id,
        AllocateRequest {
            transaction_id: ticket.transaction_id,
            token: None,
            address_error,
            opening: Some(Box::new(Opening {
                ticket: ticket.clone(),
                lifetime,
                want,
                waiting: claims.len(),
                held: Vec::new(),
                exchangeable: request.reservation_token.is_none(),
                reserved,
                failed: None,
            })),
        },
    );
    Ok(())
}

/// Handles the outcome of [`Action::OpenRelay`]. The Allocate is answered when every socket is open or refused.
pub fn relay_opened(state: &mut State, now: Now, relay: RelayId, outcome: Result<(), OpenError>) {
    let Some(found) = state.table.relay(relay) else { return };
    let (id, local) = (found.allocation, found.local);
    let request = state.allocate_requests.get_mut(id);
    let Some(mut opening) = request.and_then(|request| request.opening.take()) else { return };
    match outcome {
        Ok(()) => {
            state.table.mark_open(relay);
            if let Some(owner) = state.table.allocation(id).filter(|_| state.confined(id).is_some()) {
                state.ports.confine(local, &owner.place);
            }
            state.ports.mark_open(local);
        }
        Err(OpenError::InUse) if opening.exchangeable && opening.held.len() < TRIES_MAX => {
            opening.held.push(local);
            if opening.want == Want::Pair {
                opening.held.push(local.next_port());
            }
            let random = state.rng.next_u32();
            if let Some(port) = state.ports.claim(local.ip(), opening.want, random) {
                let address = OnWire::new(local.ip(), port);
                let announced = state.policy.to_announced(address);
                state.table.exchange_address(relay, address, announced);
                put_back(state, id, opening);
                state.actions.push_back(Action::OpenRelay { relay, address });
                return;
            }
            opening.failed = Some(Reason::NoPort { foreign: true });
            give_up(state, id, relay, local, &opening, true);
        }
        Err(OpenError::InUse) => {
            opening.failed = Some(Reason::NoPort { foreign: true });
            give_up(state, id, relay, local, &opening, false);
        }
        Err(_) => {
            opening.failed = Some(Reason::NoSocket);
            give_up(state, id, relay, local, &opening, false);
        }
    }
    opening.waiting -= 1;
    if opening.waiting > 0 {
        return put_back(state, id, opening);
    }
    for address in &opening.held {
        state.ports.release(*address);
    }
    conclude(state, now.instant, id, *opening);
}

/// Removes a relay whose socket cannot be opened. Releases its port unless it is one of those `held`.
fn give_up(
    state: &mut State,
    id: AllocationId,
    relay: RelayId,
    local: OnWire,
    opening: &Opening,
    held: bool,
) {
    state.table.remove_relay(relay);
    state.actions.push_back(Action::CloseRelay { relay });
    if !held {
        state.ports.release(local);
        if opening.want == Want::Pair {
            state.ports.release(local.next_port());
        }
    }
    if let Some(request) = state.allocate_requests.get_mut(id) {
        request.address_error = Reason::NoSocket.code().map(|code| (Family::of(local.ip()), code.number()));
    }
}

fn put_back(state: &mut State, id: AllocationId, opening: Box<Opening>) {
    if let Some(request) = state.allocate_requests.get_mut(id) {
        request.opening = Some(opening);
    }
}

/// Establishes the allocation once every socket is open or refused, or answers 508 if none is open or the requested
/// reservation is not possible (RFC 8656 section 7.2, step 8).
fn conclude(state: &mut State, now: Instant, id: AllocationId, mut opening: Opening) {
    let relays = state.table.allocation(id).map_or([None; 2], |allocation| allocation.relays);
    let first = relays.into_iter().flatten().next();
    let succeeded = first.is_some_and(|first| {
        opening.reserved.take().is_none_or(|place| reserve_next(state, now, id, first, place))
    });
    if !succeeded {
        for relay in relays.into_iter().flatten() {
            state.close_relay(relay);
        }
        state.table.remove_allocation(id);
        state.allocate_requests.remove(id);
        state.sweep();
        refuse(state, now, &opening.ticket, &opening.failed.unwrap_or(Reason::NoReservation));
        return;
    }
    if let Some(allocation) = state.table.establish(id, now, now + opening.lifetime) {
        let rung = state.counters.host(allocation.host, opening.ticket.client.five_tuple.transport);
        rung.allocations.add(1);
        rung.allocated.add(1);
        let trial = is_trial(&allocation.identity.name, &opening.ticket.client.five_tuple);
        match allocation.identity.expires {
            _ if trial => rung.tested.add(1),
            Some(expires) => {
                rung.issued.add(1);
                if expires <= now + TIMELY {
                    rung.timely.add(1);
                }
            }
            // A fixed password proves nothing about secrets and clocks.
            None => {}
        }
    }
    note_beginning(state, id);
    report(state, now, id, &opening.ticket);
}

fn note_beginning(state: &mut State, id: AllocationId) {
    let Some(allocation) = state.table.allocation(id) else { return };
    let relays = allocation.relays.iter().flatten();
    state.actions.push_back(Action::Began(Box::new(Beginning {
        five_tuple: allocation.client.five_tuple,
        user: Arc::clone(&allocation.identity.name),
        host: Arc::clone(&allocation.identity.host_name),
        host_id: allocation.identity.host,
        relayed: relays.filter_map(|&relay| Some(state.table.relay(relay)?.announced)).collect(),
    })));
}

/// EVEN-PORT with R = 1: reserves the next port under a token. If there are too many reservations, releases the port and
/// returns `false`.
fn reserve_next(state: &mut State, now: Instant, id: AllocationId, relay: RelayId, place: Place) -> bool {
    let Some(local) = state.table.relay(relay).map(|relay| relay.local) else { return false };
    let mut token: Token = [0; 8];
    state.rng.fill_bytes(&mut token);
    let next = local.next_port();
    let Some(until) = state.ports.reserve(now, token, next, place) else { return false };
    state.deadlines.push(until, Owner::Reservation(token));
    if let Some(request) = state.allocate_requests.get_mut(id) {
        request.token = Some(token);
    }
    true
}

/// Answers an Allocate from a client that has an allocation: with 437, unless it is a retransmission (RFC 8656 section 7.2).
fn repeat(state: &mut State, now: Instant, id: AllocationId, ticket: &Ticket) -> FromClient {
    let (allocation, request) = (state.table.allocation(id), state.allocate_requests.get(id));
    let (Some(allocation), Some(request)) = (allocation, request) else {
        return refuse(state, now, ticket, &Reason::HasAllocation);
    };
    let belongs = ticket.asker.as_ref().is_some_and(|asker| allocation.belongs_to(&asker.identity));
    if !belongs || request.transaction_id != ticket.transaction_id {
        return refuse(state, now, ticket, &Reason::HasAllocation);
    }
    if request.opening.is_some() { FromClient::Control } else { report(state, now, id, ticket) }
}

/// Answers with the current state of the allocation.
fn report(state: &mut State, now: Instant, id: AllocationId, ticket: &Ticket) -> FromClient {
    let (allocation, request) = (state.table.allocation(id), state.allocate_requests.get(id));
    let (Some(allocation), Some(request)) = (allocation, request) else { return FromClient::Control };
    let relays = allocation.relays.iter().flatten().filter_map(|&relay| state.table.relay(relay));
    let mut response = ticket.success();
    let mut lifetime = 0;
    for relay in relays {
        response = response.xor_relayed_address(relay.announced.0);
        lifetime = relay.expires.since(now).as_secs();
    }
    response = response.xor_mapped_address(ticket.client.five_tuple.client).lifetime(lifetime as u32);
    if let Some(token) = request.token {
        response = response.reservation_token(token);
    }
    if let Some((family, code)) = request.address_error {
        response = response.address_error(family, code);
    }
    succeed(state, ticket, response)
}

/// Claims a port for a user that has `held` allocations.
///
/// # Errors
/// 440 without an address of this family, 486 when few ports are left and the user holds many, 508 without a port.
fn claim(
    state: &mut State,
    family: Family,
    five_tuple: &FiveTuple,
    want: Want,
    held: u32,
) -> Result<OnWire, Reason> {
    let address = relay_address(state, family, five_tuple).ok_or_else(|| no_address(state, family, false))?;
    if !state.ports.has_room_for(address.local, held) {
        return Err(Reason::FewPorts { held });
    }
    let random = state.rng.next_u32();
    let port = state.ports.claim(address.local, want, random).ok_or(Reason::NoPort { foreign: false })?;
    Ok(OnWire::new(address.local, port))
}

/// The address to relay from: the one that the client connected to; for a client on this machine that connected to loopback,
/// another loopback address; else the first of the family. Behind a proxy, both addresses of the client's connection are those
/// of the PROXY header.
fn relay_address(state: &State, family: Family, five_tuple: &FiveTuple) -> Option<RelayAddress> {
    let reached = five_tuple.server.ip();
    let is_local = five_tuple.client.ip().is_loopback() && reached.is_loopback();
    let of_family = || {
        let relays = state.settings.relay_addresses.iter();
        relays.filter(|relay| Family::of(relay.local) == family && (is_local || !relay.only_local))
    };
    of_family()
        .find(|relay| relay.local == reached)
        .or_else(|| of_family().find(|relay| is_local && relay.local.is_loopback()))
        .or_else(|| of_family().find(|relay| !relay.only_local))
        .copied()
}

/// The family for a client that names none. Falls back to IPv4, so that such a client is not refused for lack of an IPv6
/// address.
fn default_family(state: &State, five_tuple: &FiveTuple) -> Family {
    let preferred = match state.settings.default_family {
        DefaultFamily::V4 => Family::V4,
        DefaultFamily::V6 => Family::V6,
        DefaultFamily::Client => Family::of(five_tuple.client.ip()),
    };
    let is_available = relay_address(state, preferred, five_tuple).is_some();
    if is_available { preferred } else { Family::V4 }
}

/// The answer without a relay address: 440 if this family is not offered, 508 if the server has no address at the moment.
/// `is_default`: the client named no family.
fn no_address(state: &State, family: Family, is_default: bool) -> Reason {
    let has_any = state.settings.relay_addresses.iter().any(|relay| !relay.only_local);
    if has_any { Reason::NoFamily { family: Some(family), is_default } } else { Reason::NoAddress }
}

/// RFC 8656 section 7.2: the lifetime that the client asks for, within our maximum, but not below the default.
pub fn lifetime(limits: &Limits, wish: Option<u32>) -> Duration {
    let wish = wish.map_or(LIFETIME_DEFAULT, |secs| Duration::from_secs(secs.into()));
    wish.min(limits.lifetime_max).max(LIFETIME_DEFAULT)
}

/// The lifetime of a confined user's allocation, which ends with the user's name.
pub fn until_expiry(identity: &Identity, now: Instant, lifetime: Duration) -> Duration {
    identity.expires.map_or(lifetime, |expires| lifetime.min(expires.since(now)))
}
