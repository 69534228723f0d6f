//! Datagrams of UDP clients and of peers.

use std::io;
use std::ops::Range;

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

/// Datagrams that a listener is asked for at least: a burst of video is not cut. To have asked for sixty-four and got
/// one costs a twentieth of relaying that one.
pub(super) const LISTENER_SHARE_MIN: usize = 16;

/// How many to ask a listener for, when of `limit` asked for `count` came.
fn next_share(limit: usize, count: usize) -> usize {
    if count == limit {
        (2 * limit).min(BATCH)
    } else if count < limit / 4 {
        (limit / 2).max(LISTENER_SHARE_MIN)
    } else {
        limit
    }
}

impl Worker {
    /// Takes one batch from a listener and sends what follows from it.
    pub(super) fn on_udp(&mut self, index: u16) {
        // The frames are about to be used again.
        self.flush();
        self.frames_used = 0;
        let Some(listener) = self.udp.get(usize::from(index)) else { return };
        let local = listener.local;
        let share = &mut self.shares[usize::from(index)];
        share.turn = self.turn;
        let limit = share.limit;
        let received = self.received.receive(&listener.socket, 0, limit);
        // Nothing there ends it; what else fails is a passing shortage of memory.
        let drained = match &received {
            Ok(count) => *count < limit,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !drained {
            self.again.push((Token::Udp(index).pack(), ready::READ));
        }
        let Ok(count) = received else { return };
        share.limit = next_share(limit, count);
        self.ties.counters.batches.add(1);
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
            self.each_datagram(frame, |worker, range| {
                if !worker.is_quic(index, frame, &range, client) {
                    worker.on_client_datagram(frame, range, client);
                }
            });
        }
        self.flush();
    }

    /// Calls `deal_with` for each datagram in the frame: mostly it is one.
    fn each_datagram(&mut self, frame: usize, mut deal_with: impl FnMut(&mut Self, Range<usize>)) {
        let len = self.received.frames[frame].bytes().len();
        let (mut start, segment) = (0, self.received.origins[frame].segment);
        // An empty datagram is one, too.
        loop {
            let end = if segment == 0 { len } else { len.min(start + segment) };
            self.ties.counters.datagrams.add(1);
            deal_with(self, start..end);
            start = end;
            if start >= len {
                return;
            }
        }
    }

    fn on_client_datagram(&mut self, frame: usize, range: Range<usize>, client: Client) {
        let bytes = &self.received.frames[frame].bytes()[range.clone()];
        match self.server.handle_client(self.now, client, bytes) {
            FromClient::Relay { relay, peer, payload, dont_fragment } => {
                let payload = range.start + payload.start..range.start + payload.end;
                self.push(Outgoing {
                    route: Route::Relay { relay, dont_fragment },
                    to: peer,
                    source: None,
                    head: None,
                    payload: Payload::Frame(frame, payload),
                });
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
        for frame in first..first + count {
            let peer = self.received.origins[frame].from;
            let coalesced = self.received.origins[frame].segment != 0;
            self.each_datagram(frame, |worker, range| {
                let decided = worker.server.handle_peer(worker.now, relay, peer, range.len());
                if let FromPeer::Relay { client, header } = decided {
                    if coalesced {
                        worker.cut_for_client(frame, range, client, header);
                    } else {
                        worker.wrap_for_client(frame, client, header);
                    }
                }
            });
        }
    }

    fn receive_from_peers(&mut self, relay: RelayId, generation: Generation, first: usize) -> Option<usize> {
        let limit = self.relays.share(relay, self.turn, PER_RELAY);
        let socket = self.relays.get(relay, generation)?;
        let count = match self.received.receive(socket, first, limit) {
            Ok(count) => count,
            // The error of an ICMP message that came after the look at the error queue. Reporting cleared it.
            Err(error) if is_peer_error(&error) => self.received.receive(socket, first, limit).ok()?,
            Err(_) => return None,
        };
        self.relays.note_share(relay, self.turn, count);
        Some(count)
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
        let len = self.received.frames[frame].bytes().len();
        match Token::unpack(client.link.0) {
            Some(Token::Udp(index)) => {
                self.push(self.for_client(index, client, None, Payload::Frame(frame, 0..len)));
            }
            Some(token) => {
                let message = &[self.received.frames[frame].bytes()];
                let pushed = self.streams.push(token, message, Kind::Media, self.now.instant);
                self.on_pushed(token, pushed);
            }
            None => {}
        }
    }

    /// The same for one datagram out of several in a frame, which has neighbours where its header would go.
    fn cut_for_client(&mut self, frame: usize, range: Range<usize>, client: Client, header: PeerHeader) {
        let payload = &self.received.frames[frame].bytes()[range.clone()];
        match header {
            PeerHeader::Channel(number) => {
                let mut head = [0; channel_data::HEADER_LEN];
                // Less than a frame.
                channel_data::write_header(&mut head, number, payload.len() as u16);
                match Token::unpack(client.link.0) {
                    Some(Token::Udp(index)) => {
                        self.push(self.for_client(index, client, Some(head), Payload::Frame(frame, range)));
                    }
                    Some(token) => {
                        let padding = &[0; 3][..channel_data::padding(payload.len())];
                        let message = &[&head, payload, padding];
                        let pushed = self.streams.push(token, message, Kind::Media, self.now.instant);
                        self.on_pushed(token, pushed);
                    }
                    None => {}
                }
            }
            // The way of a call's first packets, before it has a channel: one copy each.
            PeerHeader::Data { peer, transaction_id } => {
                self.spare.fill(payload);
                if indication::prepend_data(&mut self.spare, peer, transaction_id).is_none() {
                    self.server.counters().dropped(Drop::TooLarge).add(1);
                    return;
                }
                match Token::unpack(client.link.0) {
                    Some(Token::Udp(index)) => {
                        let whole = 0..self.spare.bytes().len();
                        self.push(self.for_client(index, client, None, Payload::Spare(whole)));
                        // It is filled again by the next one.
                        self.flush();
                    }
                    Some(token) => {
                        let message = &[self.spare.bytes()];
                        let pushed = self.streams.push(token, message, Kind::Media, self.now.instant);
                        self.on_pushed(token, pushed);
                    }
                    None => {}
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_taken_in_whole_batches_after_two_turns_and_a_trickle_in_small_ones() {
        let mut share = LISTENER_SHARE_MIN;
        for expected in [32, 64, 64] {
            share = next_share(share, share);
            assert_eq!(share, expected);
        }
        assert_eq!(next_share(64, 16), 64);
        for expected in [32, 16, 16] {
            share = next_share(share, 0);
            assert_eq!(share, expected);
        }
    }
}
