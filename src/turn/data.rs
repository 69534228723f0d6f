//! Data between clients and peers (RFC 8656 sections 11 and 12): the path of nearly every packet.

use std::net::SocketAddr;

use rand_core::RngCore;

use super::action::{Action, DropReason, FromClient, FromPeer, PeerHeader, PeerIcmp, RelayId, Traffic};
use super::address::{Announced, OnWire};
use super::five_tuple::{Client, FiveTuple};
use super::id::AllocationId;
use super::identity::peer_policy::Reach;
use super::state::State;
use super::state::table::route::Route;
use crate::base::time::{Instant, Now};
use crate::wire::attribute::Icmp;
use crate::wire::message::Message;
use crate::wire::{channel_data, indication};

/// ChannelData from a client (RFC 8656 section 12.6).
pub fn channel_data(state: &mut State, now: Instant, client: &Client, bytes: &[u8]) -> FromClient {
    let Ok(data) = channel_data::parse_datagram(bytes) else {
        return state.dropped(DropReason::MalformedChannelData);
    };
    match state.table.route_from_channel(client, data.number, now) {
        Ok(route) => relay(state, now, route, data.payload, false),
        Err(reason) => state.dropped(reason),
    }
}

/// A Send indication from a client (RFC 8656 section 11.2).
pub fn send_indication(
    state: &mut State,
    now: Instant,
    client: &Client,
    message: &Message<'_>,
) -> FromClient {
    let Ok(send) = indication::parse_send(message) else {
        return state.dropped(DropReason::MalformedIndication);
    };
    let peer = state.policy.to_on_wire(Announced(send.peer));
    // Over UDP, DONT-FRAGMENT is ignored unless both sides are IPv4 (RFC 8656 section 13); over a stream it applies (section 15).
    let FiveTuple { transport, client: from, .. } = client.five_tuple;
    let applies = transport.is_stream() || (from.is_ipv4() && peer.0.is_ipv4());
    match state.table.route_from_send(client, peer, now) {
        Ok(route) => relay(state, now, route, send.payload, send.dont_fragment && applies),
        Err(reason) => state.dropped(reason),
    }
}

fn relay(
    state: &mut State,
    now: Instant,
    route: Route,
    payload: std::ops::Range<usize>,
    dont_fragment: bool,
) -> FromClient {
    if route.reach != Reach::All && !state.may_reach(route.allocation, route.peer, route.reach) {
        return state.dropped(DropReason::PeerDenied);
    }
    let confined = state.confined_rates(route.allocation, route.reach);
    let rates = confined.as_ref().unwrap_or(&state.settings.limits.rates);
    let allocation = match state.table.count(route.allocation, now, rates, payload.len(), true) {
        Ok(allocation) => allocation,
        Err(reason) => return state.dropped(reason),
    };
    let first = !std::mem::replace(&mut allocation.sent, true);
    allocation.heard = now;
    allocation.from_client.packets += 1;
    allocation.from_client.bytes += payload.len() as u64;
    let transport = allocation.client.five_tuple.transport;
    let rung = state.counters.host(allocation.host, transport);
    rung.from_client.add(payload.len());
    if first {
        rung.sent.add(1);
    }
    FromClient::Relay { relay: route.relay, peer: route.peer, payload, dont_fragment }
}

/// A datagram of `len` bytes from a peer (RFC 8656 sections 11.3 and 12.7).
pub fn from_peer(state: &mut State, now: Now, relay: RelayId, peer: OnWire, len: usize) -> FromPeer {
    let found = state.table.route_from_peer(relay, peer, now.instant);
    let found = found.and_then(|found| match found.reach {
        Reach::OwnRelayed | Reach::OwnUser if !state.may_reach(found.allocation, peer, found.reach) => {
            Err(DropReason::PeerDenied)
        }
        _ => Ok(found),
    });
    let confined = found.ok().and_then(|found| state.confined_rates(found.allocation, found.reach));
    let rates = confined.as_ref().unwrap_or(&state.settings.limits.rates);
    let counted = found
        .and_then(|found| Ok((found, state.table.count(found.allocation, now.instant, rates, len, false)?)));
    let (found, allocation) = match counted {
        Ok(counted) => counted,
        Err(reason) => {
            state.counters.dropped(reason).add(1);
            return FromPeer::Dropped(reason);
        }
    };
    let first = !std::mem::replace(&mut allocation.received, true);
    allocation.from_peer.packets += 1;
    allocation.from_peer.bytes += len as u64;
    let client = allocation.client;
    let rung = state.counters.host(allocation.host, client.five_tuple.transport);
    rung.from_peer.add(len);
    if first {
        rung.received.add(1);
    }
    let header = match found.channel {
        Some(number) => PeerHeader::Channel(number),
        None => PeerHeader::Data {
            peer: as_announced(state, peer, found.reach),
            transaction_id: transaction_id(state),
        },
    };
    FromPeer::Relay { client, header }
}

/// Subtracts data from what was counted as relayed by an allocation, because it could not be sent. If the allocation has ended
/// in the same turn, its host's counters keep it.
pub fn unsent(
    state: &mut State,
    allocation: Option<AllocationId>,
    (from_client, reason): (bool, DropReason),
    unsent: Traffic,
) {
    let Some(allocation) = allocation.and_then(|id| state.table.allocation_mut(id)) else { return };
    let rung = state.counters.host(allocation.host, allocation.client.five_tuple.transport);
    if from_client {
        let packets = u32::try_from(unsent.packets).unwrap_or(u32::MAX);
        allocation.unsent = allocation.unsent.saturating_add(packets);
        if reason == DropReason::NoRoute {
            allocation.no_route = allocation.no_route.saturating_add(packets);
        }
    }
    let (total, of_host) = match from_client {
        true => (&mut allocation.from_client, &rung.from_client),
        false => (&mut allocation.from_peer, &rung.from_peer),
    };
    // The number of a relay that ended in this turn may belong to another allocation, so this may not be its own. Host and
    // allocation stay consistent all the same.
    of_host.take_back(total.take_back(unsent));
}

/// An ICMP error about a datagram that `relay` sent (RFC 8656 section 11.5). The client is told if the settings say so and it
/// has a permission for the datagram's destination.
pub fn peer_icmp(state: &mut State, now: Now, relay: RelayId, error: PeerIcmp) {
    if !state.settings.icmp_to_clients {
        return;
    }
    let relevant = match error.peer.0 {
        SocketAddr::V4(_) => matches!(error.kind, 3 | 11),
        SocketAddr::V6(_) => matches!(error.kind, 1..=3),
    };
    let Ok(found) = state.table.route_from_peer(relay, error.peer, now.instant) else { return };
    let Some(client) = state.table.allocation(found.allocation).map(|allocation| allocation.client) else {
        return;
    };
    if relevant {
        let peer = as_announced(state, error.peer, found.reach);
        let transaction_id = transaction_id(state);
        // Section 18.13: the MTU if the error has one, otherwise zero.
        let has_mtu = match error.peer.0 {
            SocketAddr::V4(_) => (error.kind, error.code) == (3, 4),
            SocketAddr::V6(_) => error.kind == 2,
        };
        let data = if has_mtu { error.data } else { 0 };
        let icmp = Icmp { icmp_type: error.kind, code: error.code, data: data.to_be_bytes() };
        let message = indication::write_icmp(peer.0, icmp, transaction_id);
        state.actions.push_back(Action::Reply { client, message, authenticated: false });
    }
}

/// The peer's address as the client knows it. Behind 1:1 NAT it differs for peers at one of our own addresses.
fn as_announced(state: &State, peer: OnWire, reach: Reach) -> Announced {
    match reach {
        Reach::All => Announced(peer.0),
        Reach::OwnOpened | Reach::OwnRelayed | Reach::OwnUser => state.policy.to_announced(peer),
    }
}

fn transaction_id(state: &mut State) -> [u8; 12] {
    let mut id = [0; 12];
    state.rng.fill_bytes(&mut id);
    id
}
