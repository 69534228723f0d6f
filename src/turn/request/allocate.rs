//! Allocate (RFC 8656 section 7).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::RngCore;

use super::answer::Ticket;
use crate::base::family::Family;
use crate::base::time::{Instant, Now};
use crate::turn::action::{Action, FromClient, OpenError, RelayId};
use crate::turn::error::Code;
use crate::turn::server::Server;
use crate::turn::settings::RelayAddress;
use crate::turn::state::port_pool::{Token, Want};
use crate::turn::state::quota::Place;
use crate::turn::state::table::{AllocationId, FAMILIES, Owner};
use crate::wire::request::Allocate;

/// RFC 8656 section 3.2.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);
/// IANA protocol number of UDP, the only transport that is relayed.
const UDP: u8 = 17;
/// Ports tried before the client is told that there is none: others on this machine may hold some of our range.
const TRIES_MAX: usize = 32;

/// An Allocate that waits for its sockets.
#[derive(Debug)]
pub struct Opening {
    ticket: Ticket,
    lifetime: Duration,
    want: Want,
    /// Relays whose sockets are not there yet.
    waiting: usize,
    /// Ports that somebody else holds; kept until the end, so that none is tried twice.
    held: Vec<SocketAddr>,
    /// Whether the port may be exchanged for another.
    exchangeable: bool,
    /// The user's place for the port that will be reserved.
    reserved: Option<Place>,
}

impl Opening {
    /// The ports claimed for this request beside those of its `relays`.
    pub(in crate::turn) fn claimed_beside(&self, relays: &[SocketAddr]) -> Vec<SocketAddr> {
        let pairs = if self.want == Want::Pair { relays } else { &[] };
        let next = pairs.iter().map(|local| SocketAddr::new(local.ip(), local.port() + 1));
        self.held.iter().copied().chain(next).collect()
    }
}

impl Server {
    /// RFC 8656 section 7.2, check by check.
    pub(in crate::turn) fn allocate(&mut self, now: Now, ticket: Ticket, request: &Allocate) -> FromClient {
        // 2: one allocation per five-tuple; the same transaction again gets the same answer.
        if let Some(id) = self.table.find(&ticket.client) {
            return self.repeat(now.instant, id, &ticket);
        }
        match self.check_and_open(now, &ticket, request) {
            Ok(()) => FromClient::Control,
            Err(code) => self.refuse(&ticket, code),
        }
    }

    fn check_and_open(&mut self, now: Now, ticket: &Ticket, request: &Allocate) -> Result<(), Code> {
        // 3: REQUESTED-TRANSPORT.
        match request.transport {
            None => return Err(Code::BadRequest),
            Some(UDP) => {}
            Some(_) => return Err(Code::UnsupportedTransportProtocol),
        }
        // 4: DONT-FRAGMENT is supported.
        // 5: a reserved port excludes every other wish.
        let wishes =
            request.even_port.is_some() || request.family.is_some() || request.additional_family.is_some();
        if request.reservation_token.is_some() && wishes {
            return Err(Code::BadRequest);
        }
        // 6 and 9: two ways to ask for families; the additional one can only be IPv6.
        if request.additional_family.is_some() && request.family.is_some() {
            return Err(Code::BadRequest);
        }
        if request.additional_family.is_some_and(|family| family != Ok(Family::V6)) {
            return Err(Code::BadRequest);
        }
        // 7: the family asked for, or IPv4.
        let family = match request.family {
            None => Family::V4,
            Some(Ok(family)) => family,
            Some(Err(_)) => return Err(Code::AddressFamilyNotSupported),
        };
        // 8: a pair of ports of two families is not defined.
        if request.even_port == Some(true) && request.additional_family.is_some() {
            return Err(Code::BadRequest);
        }
        let reached = ticket.client.five_tuple.server.ip();
        let families: &[Family] = match request.additional_family {
            None => &[family],
            Some(_) => &FAMILIES,
        };
        if request.additional_family.is_none()
            && request.reservation_token.is_none()
            && self.relay_address(family, reached).is_none()
        {
            return Err(Code::AddressFamilyNotSupported);
        }
        // 10: quotas; and while draining there is no room for newcomers.
        let asker = ticket.asker.as_ref().ok_or(Code::Unauthenticated)?;
        if self.draining {
            return Err(match self.alternate(ticket) {
                Some(_) => Code::TryAlternate,
                None => Code::InsufficientCapacity,
            });
        }
        let identity = std::sync::Arc::clone(&asker.identity);
        let redeemed = match &request.reservation_token {
            None => None,
            Some(token) => {
                Some(self.shared.ports.redeem(now.instant, token).ok_or(Code::InsufficientCapacity)?)
            }
        };
        let account = identity.account();
        let take = || self.shared.quota.take(identity.host, &account, &self.settings.limits);
        let (place, redeemed) = match redeemed {
            // The reserved port has its place in the quota already.
            Some((address, place)) if place.is_of(identity.host, &account) => (place, Some(address)),
            Some((address, _)) => match take() {
                Ok(place) => (place, Some(address)),
                Err(code) => {
                    self.shared.ports.release(address);
                    return Err(code);
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
        let (mut address_error, mut refusal) = (None, Code::InsufficientCapacity);
        // A reserved port counts like a relayed address, whether it is ever used or not.
        let reserved = if want == Want::Pair { Some(take()?) } else { None };
        if let Some(address) = redeemed {
            claims.push(address);
        } else {
            for &family in families {
                match self.claim(family, reached, want, place.held()) {
                    Ok(claim) => claims.push(claim),
                    Err(code) => {
                        address_error = Some((family, code.number()));
                        refusal = if code == Code::AllocationQuotaReached { code } else { refusal };
                    }
                }
            }
        }
        if claims.is_empty() {
            return Err(refusal);
        }

        let (now, lifetime) = (now.instant, self.lifetime(request.lifetime));
        let id = self.table.add_allocation(ticket.client, identity, now, ticket.transaction_id, place);
        for local in &claims {
            let (relay, owner) = self.table.add_relay(id, *local, self.announced(*local), now + lifetime);
            self.deadlines.push(now + lifetime, owner);
            self.actions.push_back(Action::OpenRelay { relay, address: *local });
        }
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.address_error = address_error;
            allocation.opening = Some(Box::new(Opening {
                ticket: ticket.clone(),
                lifetime,
                want,
                waiting: claims.len(),
                held: Vec::new(),
                exchangeable: request.reservation_token.is_none(),
                reserved,
            }));
        }
        Ok(())
    }

    /// The answer to [`Action::OpenRelay`]. The client hears of his allocation only now.
    pub fn handle_relay_opened(&mut self, now: Now, relay: RelayId, outcome: Result<(), OpenError>) {
        let Some(found) = self.table.relay_mut(relay) else { return };
        let (id, local) = (found.allocation, found.local);
        let Some(mut opening) =
            self.table.allocation_mut(id).and_then(|allocation| allocation.opening.take())
        else {
            return;
        };
        match outcome {
            Ok(()) => {
                if let Some(found) = self.table.relay_mut(relay) {
                    found.open = true;
                    self.shared.ports.mark_open(local);
                }
            }
            Err(OpenError::InUse) if opening.exchangeable && opening.held.len() < TRIES_MAX => {
                opening.held.push(local);
                if opening.want == Want::Pair {
                    opening.held.push(SocketAddr::new(local.ip(), local.port() + 1));
                }
                let random = self.rng.next_u32();
                if let Some(port) = self.shared.ports.claim(local.ip(), opening.want, random) {
                    let address = SocketAddr::new(local.ip(), port);
                    let announced = self.announced(address);
                    if let Some(found) = self.table.relay_mut(relay) {
                        (found.local, found.announced) = (address, announced);
                    }
                    self.put_back(id, opening);
                    self.actions.push_back(Action::OpenRelay { relay, address });
                    return;
                }
                self.give_up(id, relay, local, &opening, true);
            }
            Err(_) => self.give_up(id, relay, local, &opening, false),
        }
        opening.waiting -= 1;
        if opening.waiting > 0 {
            return self.put_back(id, opening);
        }
        for address in &opening.held {
            self.shared.ports.release(*address);
        }
        self.conclude(now.instant, id, *opening);
    }

    /// No socket for this relay. Its port goes back with the relay, unless it is among those `held`.
    fn give_up(
        &mut self,
        id: AllocationId,
        relay: RelayId,
        local: SocketAddr,
        opening: &Opening,
        held: bool,
    ) {
        self.table.remove_relay(relay);
        self.actions.push_back(Action::CloseRelay { relay });
        if !held {
            self.shared.ports.release(local);
            if opening.want == Want::Pair {
                self.shared.ports.release(SocketAddr::new(local.ip(), local.port() + 1));
            }
        }
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.address_error = Some((Family::of(local.ip()), Code::InsufficientCapacity.number()));
        }
    }

    fn put_back(&mut self, id: AllocationId, opening: Box<Opening>) {
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.opening = Some(opening);
        }
    }

    /// Every socket is there or refused: the allocation stands, or it never was. Nor was it without the reservation that was
    /// asked for (RFC 8656 section 7.2, step 8).
    fn conclude(&mut self, now: Instant, id: AllocationId, mut opening: Opening) {
        let relays = self.table.allocation(id).map_or([None; 2], |allocation| allocation.relays);
        let first = relays.into_iter().flatten().next();
        let stands = first.is_some_and(|first| {
            opening.reserved.take().is_none_or(|place| self.reserve_next(now, id, first, place))
        });
        if !stands {
            for relay in relays.into_iter().flatten() {
                self.close_relay(relay);
            }
            self.table.remove_allocation(id);
            self.sweep();
            self.refuse(&opening.ticket, Code::InsufficientCapacity);
            return;
        }
        for relay in relays.into_iter().flatten() {
            if let Some(relay) = self.table.relay_mut(relay) {
                relay.expires = now + opening.lifetime;
            }
        }
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.created = now;
            let host = allocation.identity.host;
            let rung = self.counters.host(host, opening.ticket.client.five_tuple.transport);
            rung.allocations.add(1);
            rung.allocated.add(1);
        }
        self.report(now, id, &opening.ticket);
    }

    /// EVEN-PORT with R = 1: keeps the next port under a token. `false`, and the port is released, when too many are kept.
    fn reserve_next(&mut self, now: Instant, id: AllocationId, relay: RelayId, place: Place) -> bool {
        let Some(local) = self.table.relay(relay).map(|relay| relay.local) else { return false };
        let mut token: Token = [0; 8];
        self.rng.fill_bytes(&mut token);
        let next = SocketAddr::new(local.ip(), local.port() + 1);
        let Some(until) = self.shared.ports.reserve(now, token, next, place) else { return false };
        self.deadlines.push(until, Owner::Reservation(token));
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.token = Some(token);
        }
        true
    }

    /// RFC 8656 section 7.2, the note on retransmissions: 437, unless it is the very same request.
    fn repeat(&mut self, now: Instant, id: AllocationId, ticket: &Ticket) -> FromClient {
        let same = |allocation: &crate::turn::state::table::Allocation| {
            allocation.transaction_id == ticket.transaction_id && allocation.belongs_to(ticket)
        };
        match self.table.allocation(id) {
            Some(allocation) if same(allocation) && allocation.opening.is_some() => FromClient::Control,
            Some(allocation) if same(allocation) => self.report(now, id, ticket),
            _ => self.refuse(ticket, Code::AllocationMismatch),
        }
    }

    /// The success response, made from the allocation as it stands.
    fn report(&mut self, now: Instant, id: AllocationId, ticket: &Ticket) -> FromClient {
        let Some(allocation) = self.table.allocation(id) else { return FromClient::Control };
        let relays = allocation.relays.iter().flatten().filter_map(|&relay| self.table.relay(relay));
        let mut response = ticket.success();
        let mut lifetime = 0;
        for relay in relays {
            response = response.xor_relayed_address(relay.announced);
            lifetime = relay.expires.since(now).as_secs();
        }
        response = response.xor_mapped_address(ticket.client.five_tuple.client).lifetime(lifetime as u32);
        if let Some(token) = allocation.token {
            response = response.reservation_token(token);
        }
        if let Some((family, code)) = allocation.address_error {
            response = response.address_error(family, code);
        }
        self.succeed(ticket, response)
    }

    /// A port for a user that holds `held`.
    ///
    /// # Errors
    /// 440 without an address of this family, 486 when few ports are left and the user holds many, 508 without a port.
    fn claim(&mut self, family: Family, reached: IpAddr, want: Want, held: u32) -> Result<SocketAddr, Code> {
        let address = self.relay_address(family, reached).ok_or(Code::AddressFamilyNotSupported)?;
        if !self.shared.ports.has_room_for(address.local, held) {
            return Err(Code::AllocationQuotaReached);
        }
        let random = self.rng.next_u32();
        let port = self.shared.ports.claim(address.local, want, random).ok_or(Code::InsufficientCapacity)?;
        Ok(SocketAddr::new(address.local, port))
    }

    /// The address the client reached, else one as near, else the first of the family.
    fn relay_address(&self, family: Family, reached: IpAddr) -> Option<RelayAddress> {
        let of_family =
            || self.settings.relay_addresses.iter().filter(|relay| Family::of(relay.local) == family);
        let near = |relay: &&RelayAddress| relay.local.is_loopback() && reached.is_loopback();
        of_family()
            .find(|relay| relay.local == reached)
            .or_else(|| of_family().find(near))
            .or_else(|| of_family().find(|relay| !relay.only_if_reached))
            .copied()
    }

    fn announced(&self, local: SocketAddr) -> SocketAddr {
        self.policy.to_announced(local)
    }

    /// RFC 8656 section 7.2: the client's wish within our maximum, but not below the default.
    pub(in crate::turn) fn lifetime(&self, wish: Option<u32>) -> Duration {
        let wish = wish.map_or(LIFETIME_DEFAULT, |secs| Duration::from_secs(secs.into()));
        wish.min(self.settings.limits.lifetime_max).max(LIFETIME_DEFAULT)
    }
}
