//! Executes the actions of the protocol: sends answers, opens and closes relayed addresses, and writes the log.

use std::net::SocketAddr;

use super::Worker;
use crate::net::counters::Refusal;
use crate::net::front::end_reason;
use crate::net::log;
use crate::net::stream::outbox::{Kind, Pushed};
use crate::net::token::Token;
use crate::turn::action::{Action, DropReason, OpenError, RelayId};
use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;

impl Worker {
    /// Executes all pending actions of the protocol.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Reply { client, message, authenticated } => {
                    self.reply(client, message, authenticated);
                }
                Action::OpenRelay { relay, address: OnWire(address) } => {
                    let outcome = self.open_relay(relay, address);
                    self.server.handle_relay_opened(self.now, relay, outcome);
                    self.count_relays();
                }
                Action::CloseRelay { relay } => {
                    // Its queued datagrams are sent first, because its number may be reused at once.
                    self.flush();
                    self.count_lost(relay);
                    self.datagrams.close_relay(relay);
                    self.count_relays();
                }
                // If the control thread is late, the report is lost; the metrics have every refusal.
                Action::Refused(refusal) => drop(self.controls.refusals.try_send(*refusal)),
                Action::Began(beginning) => self.log.began(self.now.instant, &beginning),
                Action::Ended(session) => {
                    Token::unpack(session.link.0)
                        .into_iter()
                        .for_each(|token| self.front.session_ended(token));
                    self.log.ended(self.now.instant, &session);
                }
                Action::Reviewed(review) => log::reviewed(review),
                // Reported only after `handle_mirror`, which nothing calls yet.
                Action::Changed(_) => {}
            }
        }
    }

    fn reply(&mut self, client: Client, message: Vec<u8>, authenticated: bool) {
        match Token::unpack(client.link.0) {
            Some(Token::Udp(listener)) => {
                // The source of a datagram may be forged. Good credentials include a nonce that was sent to this
                // address, and an allocation was made with them.
                let proven = authenticated || self.server.has_allocation(&client);
                let full = self.datagrams.reply((listener, proven), client, message);
                self.flush_if(full);
            }
            Some(token) => {
                let now = self.now.instant;
                if authenticated {
                    self.front.authenticated(token, self.server.user_of(&client), now);
                }
                match self.front.push(token, &[&message], Kind::Control, now) {
                    Some(pushed) => self.count_drops(&client, pushed),
                    None => self.dropped(DropReason::ConnectionClosed),
                }
            }
            None => {}
        }
    }

    fn open_relay(&mut self, relay: RelayId, address: SocketAddr) -> Result<(), OpenError> {
        let counters = &self.controls.counters;
        let place = self.controls.gate.relay().map_err(|refusal| {
            counters.relays_refused(refusal).add(1);
            OpenError::Unavailable
        })?;
        let opened = self.datagrams.open_relay(relay, address, place);
        match opened {
            Err(OpenError::Unavailable) => counters.relays_refused(Refusal::Descriptors).add(1),
            Err(OpenError::NoAddress) => counters.relays_refused(Refusal::Address).add(1),
            Ok(()) | Err(OpenError::InUse) => {}
        }
        opened
    }

    fn count_relays(&self) {
        self.controls.counters.relays.set(self.datagrams.relays() as u64);
    }

    /// Counts the media of `client` that a new message displaced.
    pub(super) fn count_drops(&mut self, client: &Client, pushed: Pushed) {
        if let Pushed::Queued { dropped } = pushed
            && dropped.packets > 0
        {
            self.server.handle_unsent_media(DropReason::QueueFull, client, dropped);
        }
    }

    pub(super) fn dropped(&self, reason: DropReason) {
        self.server.counters().dropped(reason).add(1);
    }

    /// Ends the allocations of clients whose connections were closed, after counting the media that was not sent to them.
    pub(super) fn end_allocations(&mut self) {
        while let Some((client, reason, unsent)) = self.front.connections().reports.next_unsent() {
            self.server.handle_unsent_media(reason, &client, unsent);
        }
        while let Some((client, reason)) = self.front.connections().reports.next_gone() {
            self.server.handle_client_gone(self.now, &client, end_reason(reason));
            self.act();
        }
    }
}
