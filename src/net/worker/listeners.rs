//! Reads the UDP listeners. Datagrams of clients go through the protocol to relayed addresses, and actions come back, so these
//! are methods of the worker.

use super::Worker;
use super::request_time::Sender;
use crate::net::budget::Rank;
use crate::net::datagram::Datagram;
use crate::net::front::quic::Claim;
use crate::net::token::Token;
use crate::turn::action::{DropReason, FromClient};
use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;
use crate::wire::demux;

/// Datagrams in one read after which media of others may be waiting behind them.
const WAITING: usize = 16;

impl Worker {
    /// Receives one batch from a listener, handles it, and sends the results.
    pub(super) fn on_udp(&mut self, listener: u16) {
        // The frames are about to be overwritten.
        self.flush();
        let Some(mut arrived) = self.datagrams.receive_from_clients(listener, self.budget.turn) else {
            return;
        };
        if arrived.more {
            self.budget.read_again(Token::Udp(listener), Rank::Last);
        }
        self.controls.counters.batches.add(1);
        let is_removed = self.datagrams.is_removed(listener);
        let (more, mut read) = (arrived.more, 0);
        while let Some(datagram) = self.datagrams.next(&mut arrived) {
            self.controls.counters.datagrams.add(1);
            read += 1;
            // One read can hold thousands, coalesced.
            let waiting = more || read >= WAITING;
            if let Some(client) = self.datagrams.client(listener, &datagram)
                && (!is_removed || self.server.has_allocation(&client))
                && !self.is_quic(listener, &datagram, client, waiting)
            {
                self.server.handle_backlog(waiting);
                match demux::is_request(self.datagrams.bytes(&datagram)) {
                    true => self.on_request(&datagram, client, waiting),
                    false => drop(self.on_client_datagram(&datagram, client)),
                }
            }
        }
        self.flush();
    }

    /// Reads the UDP listeners again if relayed addresses or streams have used much time since.
    pub(super) fn read_due_listeners(&mut self) {
        if self.budget.take_listeners_due() {
            (0..self.datagrams.listeners()).for_each(|listener| self.on_udp(listener));
        }
    }

    /// Returns whether a datagram belongs to QUIC; if so, it was forwarded or refused, or dropped because media may be waiting and
    /// the time for QUIC is used up.
    fn is_quic(&mut self, listener: u16, datagram: &Datagram, client: Client, waiting: bool) -> bool {
        let Some(to) = self.datagrams.quic_server(listener) else { return false };
        let bytes = self.datagrams.bytes(datagram);
        let began = waiting.then(|| (self.clock)().instant);
        if began.is_some_and(|began| !self.request_time.is_left(began, Sender::Quic))
            && self.front.flows().is_quic(&client, bytes, || self.server.has_allocation(&client))
        {
            self.dropped(DropReason::Backlog);
            return true;
        }
        match self.front.claim(client, to, bytes, &self.server, self.now.instant) {
            Claim::Turn => return false,
            Claim::Quic { .. } => {}
            Claim::Refused => self.dropped(DropReason::QuicRefused),
        }
        if let Some(began) = began {
            self.request_time.spend(began, (self.clock)().instant, Sender::Quic, false);
        }
        true
    }

    /// Handles a request. If media may be waiting and the time for requests is used up, it is dropped.
    fn on_request(&mut self, datagram: &Datagram, client: Client, waiting: bool) {
        let sender = Sender::of_request(self.server.has_allocation(&client));
        let began = (self.clock)().instant;
        if waiting && !self.request_time.is_left(began, sender) {
            return self.dropped(DropReason::Backlog);
        }
        let is_answered = self.on_client_datagram(datagram, client);
        self.request_time.spend(began, (self.clock)().instant, sender, is_answered);
    }

    /// Handles a datagram of TURN. Returns whether the protocol answered it.
    fn on_client_datagram(&mut self, datagram: &Datagram, client: Client) -> bool {
        match self.server.handle_client(self.now, client, self.datagrams.bytes(datagram)) {
            FromClient::Relay { relay, peer: OnWire(peer), payload, dont_fragment } => {
                self.request_time.media(self.now.instant);
                let full = self.datagrams.send_from_client((relay, dont_fragment), peer, datagram, payload);
                self.flush_if(full);
                false
            }
            FromClient::Control => {
                self.act();
                true
            }
            FromClient::Dropped(_) => false,
        }
    }
}
