//! Data between clients and peers (RFC 8656 sections 11 and 12): the path of nearly every packet.

use std::net::SocketAddr;

use rand_core::RngCore;

use super::action::{Action, DropReason, FromClient, FromPeer, PeerHeader, PeerIcmp, RelayId};
use super::five_tuple::{Client, FiveTuple};
use super::identity::peer_policy::Reach;
use super::server::Server;
use super::state::table::Route;
use crate::base::time::{Instant, Now};
use crate::wire::attribute::Icmp;
use crate::wire::message::Message;
use crate::wire::{channel_data, indication};

impl Server {
    /// ChannelData from a client (RFC 8656 section 12.6).
    pub(super) fn channel_data(&mut self, now: Instant, client: &Client, bytes: &[u8]) -> FromClient {
        let Ok(data) = channel_data::parse_datagram(bytes) else {
            return self.dropped(DropReason::MalformedChannelData);
        };
        match self.table.route_from_channel(client, data.number, now) {
            Ok(route) => self.relay(now, route, data.payload, false),
            Err(reason) => self.dropped(reason),
        }
    }

    /// A Send indication from a client (RFC 8656 section 11.2).
    pub(super) fn send_indication(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
    ) -> FromClient {
        let Ok(send) = indication::parse_send(message) else {
            return self.dropped(DropReason::MalformedIndication);
        };
        let peer = self.policy.to_local(send.peer);
        // RFC 8656 section 13: datagrams ignore DONT-FRAGMENT unless both sides are IPv4; section 15: streams do not.
        let FiveTuple { transport, client: from, .. } = client.five_tuple;
        let counts = transport.is_stream() || (from.is_ipv4() && peer.is_ipv4());
        match self.table.route_from_send(client, peer, now) {
            Ok(route) => self.relay(now, route, send.payload, send.dont_fragment && counts),
            Err(reason) => self.dropped(reason),
        }
    }

    fn relay(
        &mut self,
        now: Instant,
        route: Route,
        payload: std::ops::Range<usize>,
        dont_fragment: bool,
    ) -> FromClient {
        if route.reach != Reach::All && !self.may_reach(route.peer, route.reach) {
            return self.dropped(DropReason::PeerDenied);
        }
        let rates = &self.settings.limits.rates;
        let allocation = match self.table.count(route.allocation, now, rates, payload.len()) {
            Ok(allocation) => allocation,
            Err(reason) => return self.dropped(reason),
        };
        let first = allocation.from_client.packets == 0;
        allocation.from_client.packets += 1;
        allocation.from_client.bytes += payload.len() as u64;
        let transport = allocation.client.five_tuple.transport;
        let rung = self.counters.host(allocation.host, transport);
        rung.from_client.add(payload.len());
        if first {
            rung.sent.add(1);
        }
        FromClient::Relay { relay: route.relay, peer: route.peer, payload, dont_fragment }
    }

    /// A datagram of `len` bytes from a peer (RFC 8656 sections 11.3 and 12.7).
    pub fn handle_peer(&mut self, now: Now, relay: RelayId, peer: SocketAddr, len: usize) -> FromPeer {
        let found = self.table.route_from_peer(relay, peer, now.instant);
        let found = found.and_then(|found| match found.reach {
            Reach::OwnRelayed if !self.may_reach(peer, found.reach) => Err(DropReason::PeerDenied),
            _ => Ok(found),
        });
        let rates = &self.settings.limits.rates;
        let counted =
            found.and_then(|found| Ok((found, self.table.count(found.allocation, now.instant, rates, len)?)));
        let (found, allocation) = match counted {
            Ok(counted) => counted,
            Err(reason) => {
                self.counters.dropped(reason).add(1);
                return FromPeer::Dropped(reason);
            }
        };
        let first = allocation.from_peer.packets == 0;
        allocation.from_peer.packets += 1;
        allocation.from_peer.bytes += len as u64;
        let client = allocation.client;
        let rung = self.counters.host(allocation.host, client.five_tuple.transport);
        rung.from_peer.add(len);
        if first {
            rung.received.add(1);
        }
        let header = match found.channel {
            Some(number) => PeerHeader::Channel(number),
            None => PeerHeader::Data {
                peer: self.as_announced(peer, found.reach),
                transaction_id: self.transaction_id(),
            },
        };
        FromPeer::Relay { client, header }
    }

    /// An ICMP error about a datagram that `relay` sent (RFC 8656 section 11.5): told to the client if the operator wants that
    /// and the client has a permission for the datagram's destination.
    pub fn handle_peer_icmp(&mut self, now: Now, relay: RelayId, error: PeerIcmp) {
        if !self.settings.icmp_to_clients {
            return;
        }
        let relevant = match error.peer {
            SocketAddr::V4(_) => matches!(error.kind, 3 | 11),
            SocketAddr::V6(_) => matches!(error.kind, 1..=3),
        };
        let Ok(found) = self.table.route_from_peer(relay, error.peer, now.instant) else { return };
        let Some(client) = self.table.allocation(found.allocation).map(|allocation| allocation.client) else {
            return;
        };
        if relevant {
            let peer = self.as_announced(error.peer, found.reach);
            let transaction_id = self.transaction_id();
            // Section 18.13: an MTU where there is one, else zero.
            let has_mtu = match error.peer {
                SocketAddr::V4(_) => (error.kind, error.code) == (3, 4),
                SocketAddr::V6(_) => error.kind == 2,
            };
            let data = if has_mtu { error.data } else { 0 };
            let icmp = Icmp { icmp_type: error.kind, code: error.code, data: data.to_be_bytes() };
            let message = indication::write_icmp(peer, icmp, transaction_id);
            self.actions.push_back(Action::Reply { client, message, authenticated: false });
        }
    }

    /// The peer as the client knows it: another relayed address of ours is known by its announced address.
    fn as_announced(&self, peer: SocketAddr, reach: Reach) -> SocketAddr {
        match reach {
            Reach::All => peer,
            Reach::OwnOpened | Reach::OwnRelayed => self.policy.to_announced(peer),
        }
    }

    fn transaction_id(&mut self) -> [u8; 12] {
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        id
    }
}
