//! Reads relayed addresses. Datagrams of peers go through the protocol to clients over UDP, TCP and TLS, so these are methods of
//! the worker.

use super::Worker;
use crate::net::budget::{Rank, SOCKET_UNITS};
use crate::net::datagram::Datagram;
use crate::net::datagram::relay::Standing;
use crate::net::stream::outbox::Kind;
use crate::net::syscall::ready;
use crate::net::token::{Generation, Token};
use crate::turn::action::{DropReason, FromPeer, PeerHeader, RelayId, Relayed};
use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;

/// ICMP errors read from one relayed address per turn.
const ICMP_PER_RELAY: usize = 8;
/// Datagrams relayed from one relayed address per turn. Refused ones cost little and do not count, so a flood takes nothing of a
/// call's share.
const SHARE: u32 = 16;
/// Reads of one relayed address per turn, each of at most 16 messages.
const READS: usize = 32;
/// In one of this many turns the kernel is asked how many datagrams it has dropped at an address that has more to read.
const LOST_TURNS: u32 = 64;

/// What one read of a relayed address brought.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// Whether the socket may hold more.
    more: bool,
    /// Datagrams that went on to the client.
    relayed: u32,
    /// Datagrams that were refused.
    refused: u32,
}

impl Worker {
    /// Reads a share from a relayed address with an event, or postpones it.
    pub(super) fn on_relay_event(&mut self, relay: RelayId, generation: Generation, readiness: u32) {
        let token = Token::Relay { relay, generation };
        let has_share = match self.datagrams.standing(relay, generation, self.budget.turn) {
            Standing::Served => return,
            Standing::LeftOver => false,
            Standing::New => {
                // While there is time for all, the rank does not matter, and reading it costs a look at the user.
                let rank = if self.budget.was_short() { self.rank(token) } else { Rank::First };
                self.budget.has_share(rank)
            }
        };
        if has_share {
            self.on_relay(relay, generation, readiness);
        } else if self.datagrams.leave_over(relay, generation, readiness) {
            // If it is listed already, the readiness was added.
            let rank = self.rank(token);
            self.budget.postpone(token, rank);
        }
    }

    /// Reads a share from a relayed address. While datagrams are refused, which anybody may send, it reads on until a share is relayed:
    /// otherwise they would fill the receive buffer.
    pub(super) fn on_relay(&mut self, relay: RelayId, generation: Generation, readiness: u32) {
        if readiness & ready::ERROR != 0 {
            let before = self.budget.spent();
            self.on_icmp(relay, generation);
            let units = self.budget.spent().wrapping_sub(before);
            self.budget.charge(self.server.user_of_relay(relay), units);
        }
        let (mut more, mut relayed) = (true, 0);
        for _ in 0..READS {
            let read = self.read_relay(relay, generation);
            (more, relayed) = (read.more, relayed + read.relayed);
            if !more || read.refused == 0 || relayed >= SHARE || self.budget.is_time_spent() {
                break;
            }
        }
        if !more {
            return;
        }
        if self.budget.turn.is_multiple_of(LOST_TURNS) {
            self.count_lost(relay);
        }
        let rank = self.rank(Token::Relay { relay, generation });
        // Its event alone would be postponed by a turn while the slices are short.
        if rank != Rank::First && self.datagrams.leave_over(relay, generation, ready::READ) {
            self.budget.read_again(Token::Relay { relay, generation }, rank);
        }
    }

    /// Reads from a relayed address once. Several relayed addresses fill one batch of datagrams to clients.
    fn read_relay(&mut self, relay: RelayId, generation: Generation) -> Read {
        let before = self.budget.spent();
        self.make_frames_available();
        self.budget.spend(SOCKET_UNITS);
        let turn = self.budget.turn;
        let arrived = self.datagrams.receive_from_peers(relay, generation, turn);
        self.controls.counters.batches.add(u64::from(arrived.is_some()));
        let mut arrived = arrived.unwrap_or_default();
        let mut read = Read { more: arrived.more, ..Read::default() };
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.budget.spend(1);
            self.controls.counters.datagrams.add(1);
            let peer = self.datagrams.sender(&datagram);
            let decided = self.server.handle_peer(self.now, relay, OnWire(peer), datagram.range.len());
            if let FromPeer::Relay { client, header } = decided {
                self.request_time.media(self.now.instant);
                // No UDP datagram has more bytes.
                let bytes = datagram.range.len() as u16;
                let relayed = Relayed { relay, from_client: false, bytes };
                self.send_to_client(&datagram, client, header, relayed);
                read.relayed += 1;
            } else {
                read.refused += 1;
            }
        }
        let (user, units) = (self.server.user_of_relay(relay), self.budget.spent().wrapping_sub(before));
        // A read in which nothing was relayed is not the work of the user.
        let refused = if read.refused > 0 && read.relayed == 0 { units } else { read.refused };
        self.budget.charge_refused(user, refused);
        self.budget.charge(user, units.wrapping_sub(refused));
        read
    }

    /// Counts the datagrams of peers that the kernel has dropped.
    pub(super) fn count_lost(&mut self, relay: RelayId) {
        let lost = self.datagrams.take_lost(relay);
        self.server.counters().dropped(DropReason::ReceiveFull).add(lost);
    }

    fn on_icmp(&mut self, relay: RelayId, generation: Generation) {
        for _ in 0..ICMP_PER_RELAY {
            let Some(error) = self.datagrams.next_icmp(relay, generation) else { return };
            self.controls.counters.icmp.add(1);
            self.budget.spend(SOCKET_UNITS);
            self.server.handle_peer_icmp(self.now, relay, error);
            self.act();
        }
    }

    /// Adds the header to a peer's datagram and queues it to the client.
    fn send_to_client(&mut self, datagram: &Datagram, client: Client, header: PeerHeader, relayed: Relayed) {
        let wrapped = match self.datagrams.wrap(datagram, header, client.five_tuple.transport) {
            Ok(wrapped) => wrapped,
            Err(reason) => return self.server.handle_unsent(reason, Some(relayed)),
        };
        match Token::unpack(client.link.0) {
            Some(Token::Udp(listener)) => {
                let full = self.datagrams.send_wrapped(listener, client, wrapped, relayed);
                self.flush_if(full);
            }
            Some(token) => {
                let message = self.datagrams.pieces(&wrapped);
                let kind = Kind::Media { payload: relayed.bytes };
                match self.front.push(token, &message, kind, self.now.instant) {
                    Some(pushed) => self.count_drops(&client, pushed),
                    None => self.server.handle_unsent(DropReason::ConnectionClosed, Some(relayed)),
                }
            }
            None => {}
        }
    }
}
