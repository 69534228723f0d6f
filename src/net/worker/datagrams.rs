//! Datagrams of UDP clients and of peers.

use super::Worker;
use crate::net::batch::{Outgoing, Payload, Route};
use crate::net::outbox::Kind;
use crate::net::syscall::{self, BATCH, is_peer_error, ready, receive_icmp};
use crate::net::token::{Generation, Token};
use crate::turn::action::{Drop, FromClient, FromPeer, PeerHeader, PeerIcmp, RelayId};
use crate::turn::five_tuple::{Client, FiveTuple, Link, Transport};
use crate::wire::{channel_data, indication};

/// Datagrams taken from one relayed address per turn, so that one busy peer does not delay the others.
const PER_RELAY: usize = 16;
/// ICMP errors taken from one relayed address per turn.
const ICMP_PER_RELAY: usize = 8;

impl Worker {
    /// Takes one batch from a listener and sends what follows from it.
    pub(super) fn on_udp(&mut self, index: u16) {
        // The frames are about to be used again.
        self.flush();
        self.frames_used = 0;
        let Some(listener) = self.udp.get(usize::from(index)) else { return };
        let local = listener.local;
        // Nothing there, or a passing shortage of memory: level-triggered, so it is asked again.
        let Ok(count) = self.received.receive(&listener.socket, 0, BATCH) else { return };
        self.ties.counters.batches.add(1);
        self.ties.counters.datagrams.add(count as u64);
        for frame in 0..count {
            let origin = self.received.origins[frame];
            if origin.from.port() == 0 {
                continue;
            }
            let server = origin.reached.map_or(local, |reached| reached.with_port(local.port()));
            let five_tuple = FiveTuple {
                transport: Transport::Udp,
                client: origin.from,
                server: syscall::canonical(server),
            };
            let client = Client { five_tuple, link: Link(Token::Udp(index).pack()) };
            self.on_client_datagram(frame, client);
        }
        self.flush();
    }

    fn on_client_datagram(&mut self, frame: usize, client: Client) {
        match self.server.handle_client(self.now, client, self.received.frames[frame].bytes()) {
            FromClient::Relay { relay, peer, payload, dont_fragment } => {
                self.received.frames[frame].keep(payload);
                let route = Route::Relay { relay, dont_fragment };
                self.push(Outgoing { route, to: peer, source: None, payload: Payload::Frame(frame) });
            }
            FromClient::Control => self.act(),
            FromClient::Dropped(_) => {}
        }
    }

    /// Takes a share from a relayed address. Several of them share one batch towards the clients.
    pub(super) fn on_relay(&mut self, relay: RelayId, generation: Generation, readiness: u32) {
        if readiness & ready::ERROR != 0 {
            self.on_icmp(relay, generation);
        }
        if BATCH - self.frames_used < PER_RELAY {
            self.flush();
            self.frames_used = 0;
        }
        let first = self.frames_used;
        let Some(count) = self.receive_from_peers(relay, generation, first) else { return };
        self.frames_used += count;
        self.ties.counters.batches.add(1);
        self.ties.counters.datagrams.add(count as u64);
        for frame in first..first + count {
            let peer = self.received.origins[frame].from;
            let len = self.received.frames[frame].bytes().len();
            if let FromPeer::Relay { client, header } = self.server.handle_peer(self.now, relay, peer, len) {
                self.wrap_for_client(frame, client, header);
            }
        }
    }

    fn receive_from_peers(&mut self, relay: RelayId, generation: Generation, first: usize) -> Option<usize> {
        let socket = self.relays.get(relay, generation)?;
        match self.received.receive(socket, first, PER_RELAY) {
            Ok(count) => Some(count),
            // The error of an ICMP message that came after the look at the error queue. Reporting cleared it.
            Err(error) if is_peer_error(&error) => self.received.receive(socket, first, PER_RELAY).ok(),
            Err(_) => None,
        }
    }

    /// Puts the header in front of a peer's datagram and sends it on its way to the client.
    fn wrap_for_client(&mut self, frame: usize, client: Client, header: PeerHeader) {
        let datagram = &mut self.received.frames[frame];
        let stream = client.five_tuple.transport.is_stream();
        let fits = match header {
            PeerHeader::Channel(number) => channel_data::prepend(datagram, number).and_then(|()| {
                let padding = if stream { channel_data::padding(datagram.bytes().len()) } else { 0 };
                datagram.pad(padding)
            }),
            PeerHeader::Data { peer, transaction_id } => {
                indication::prepend_data(datagram, peer, transaction_id)
            }
        };
        if fits.is_none() {
            self.server.counters().dropped(Drop::TooLarge).add(1);
            return;
        }
        match Token::unpack(client.link.0) {
            Some(Token::Udp(index)) => self.push(self.for_client(index, client, Payload::Frame(frame))),
            Some(token) => self.media_to_stream(token, frame),
            None => {}
        }
    }

    fn media_to_stream(&mut self, token: Token, frame: usize) {
        let message = self.received.frames[frame].bytes();
        let pushed = self.streams.push(token, message, Kind::Media, self.now.instant);
        self.on_pushed(token, pushed);
    }

    fn on_icmp(&mut self, relay: RelayId, generation: Generation) {
        for _ in 0..ICMP_PER_RELAY {
            let Some(socket) = self.relays.get(relay, generation) else { return };
            let Ok(Some(icmp)) = receive_icmp(socket) else { return };
            self.ties.counters.icmp.add(1);
            let error = PeerIcmp { peer: icmp.to, kind: icmp.kind, code: icmp.code, data: icmp.info };
            self.server.handle_peer_icmp(self.now, relay, error);
            self.act();
        }
    }
}
