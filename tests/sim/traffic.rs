//! Inputs and outputs of the servers: requests, data, relay sockets, timers.

use std::net::SocketAddr;
use std::time::Duration;

use hallpass::base::transport::Transport;
use hallpass::turn::action::{
    Action, DropReason, FromClient, FromPeer, OpenError, PeerHeader, PeerIcmp, RelayId,
};
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::five_tuple::Client;
use hallpass::wire::frame::Frame;
use hallpass::wire::{channel_data, indication};

use crate::client::{self, below, chance};
use crate::invariant::{Checked, Invariant, ensure};
use crate::judge::Before;
use crate::model::{Ask, SECOND};
use crate::stun::{Id, Reader};
use crate::world::{Event, Fault, MILLI, Sent, What, Worker, World};

impl World {
    pub fn arrive_at_server(&mut self, from: Client, bytes: &[u8], what: What) -> Checked {
        let (n, five_tuple) = (self.client_of(&from.five_tuple)?, from.five_tuple);
        let (worker, now) = (self.worker_of(n), self.now());
        let before = Before::of(&self.model, self.now, &five_tuple);
        let expected = match &what {
            What::Request(_) => {
                self.model.end_reservations(self.now, worker);
                None
            }
            What::Channel(number, packet) => {
                let peer = self.model.channel(self.now, &five_tuple, *number);
                Some((
                    *packet,
                    peer.and_then(|peer| self.model.route_from_client(self.now, &five_tuple, peer)),
                ))
            }
            What::Send(peer, packet) => {
                Some((*packet, self.model.route_from_client(self.now, &five_tuple, *peer)))
            }
            What::Junk => None,
        };
        let verdict = self.workers[worker].server.handle_client(now, from, bytes);
        match (verdict, expected) {
            (FromClient::Relay { relay, peer: OnWire(peer), payload, .. }, Some((packet, expected))) => {
                let detail = || format!("{from:?} by {relay:?} to {peer}, expected {expected:?}");
                ensure(expected == Ok((relay, peer)), Invariant::OnlyPermittedDataIsRelayed, detail)?;
                let unchanged = bytes.get(payload.clone()) == Some(&client::payload(packet)[..]);
                ensure(unchanged, Invariant::DataIsUnchanged, || format!("{payload:?} of {bytes:?}"))?;
                self.relay_to_peer(n, relay, peer, packet)?;
            }
            (FromClient::Dropped(reason), expected) => {
                let relayed = matches!(expected, Some((_, Ok(_))));
                let detail = || format!("{from:?}: {reason:?}, expected {expected:?}");
                ensure(!relayed, Invariant::OnlyPermittedDataIsRelayed, detail)?;
                self.drops(reason);
            }
            (FromClient::Control, None) => {}
            (verdict, _) => {
                ensure(false, Invariant::OnlyPermittedDataIsRelayed, || format!("{from:?}: {verdict:?}"))?;
            }
        }
        let What::Request(id) = what else {
            return self.draw(worker, None, false);
        };
        let deletes = matches!(self.requests[&id].ask, Ask::Refresh { lifetime: 0 });
        self.cause = deletes.then_some(five_tuple);
        self.draw(worker, Some((id, &before)), true)?;
        self.cause = None;
        Ok(())
    }

    fn drops(&mut self, reason: DropReason) {
        let missed = self.fault == Some(Fault::DropUncounted) && self.steps > 2000;
        *self.seen.drops.entry(reason).or_default() += u64::from(!missed);
    }

    fn relay_to_peer(&mut self, n: usize, relay: RelayId, peer: SocketAddr, packet: u64) -> Checked {
        let mut payload = client::payload(packet);
        if self.fault == Some(Fault::ByteFlipped) && packet.is_multiple_of(97) {
            payload[8] ^= 1;
        }
        let five_tuple = self.clients[n].at.five_tuple;
        let Some(allocation) = self.model.allocations.get_mut(&five_tuple) else { return Ok(()) };
        allocation.from_client.packets += 1;
        allocation.from_client.bytes += payload.len() as u64;
        self.seen.from_client += 1;
        let local = allocation.relay_for(peer).map(|relay| (relay.id, relay.local));
        let Some((_, from)) = local.filter(|(id, local)| *id == relay && self.net.contains_key(local)) else {
            return ensure(false, Invariant::RelaysAreOpenedAndClosedOnce, || {
                format!("{relay:?} has no socket")
            });
        };
        self.sent.insert(packet, Sent { client: n, to: peer, at: self.now });
        if chance(&mut self.rng, 3) {
            let (worker, now) = (self.worker_of(n), self.now());
            let (kind, code) = if peer.is_ipv4() { (3, 3) } else { (1, 4) };
            let error = PeerIcmp { peer: OnWire(peer), kind, code, data: 0 };
            self.workers[worker].server.handle_peer_icmp(now, relay, error);
            return self.draw(worker, None, false);
        }
        for _ in 0..self.copies(Transport::Udp) {
            let time = self.arrival(five_tuple, true).min(self.now + 3 * SECOND);
            let payload = payload.clone();
            let event = match self.model.own.contains(&peer.ip()) {
                true => Event::AtRelay { to: peer, from, payload },
                false => Event::ToPeer { from, peer, payload },
            };
            self.at(time, event);
        }
        Ok(())
    }

    /// Checks what a peer receives; the peer usually sends it back.
    pub fn arrive_at_peer(&mut self, from: SocketAddr, peer: SocketAddr, payload: Vec<u8>) -> Checked {
        let Some(packet) = client::recognise(&payload) else {
            return ensure(false, Invariant::DataIsUnchanged, || format!("at {peer}: {payload:?}"));
        };
        let intended = self.sent.get(&packet).is_some_and(|sent| sent.to == peer);
        ensure(intended, Invariant::NothingIsMisrouted, || format!("packet {packet} at {peer}"))?;
        let time = self.now + MILLI + below(&mut self.rng, 100 * MILLI);
        // Sometimes it comes from another port, sometimes from an unknown host.
        let from_there = match below(&mut self.rng, 20) {
            0..=13 => peer,
            14..=16 => SocketAddr::new(peer.ip(), 7777),
            17 if peer.is_ipv4() => SocketAddr::from(([9, 9, 9, 9], 7000)),
            _ => return Ok(()),
        };
        self.at(time, Event::AtRelay { to: from, from: from_there, payload });
        Ok(())
    }

    pub fn at_relay(&mut self, to: SocketAddr, from: SocketAddr, payload: Vec<u8>) -> Checked {
        let Some(&(worker, relay, since)) = self.net.get(&to) else { return Ok(()) };
        let now = self.now();
        let verdict = self.workers[worker].server.handle_peer(now, relay, OnWire(from), payload.len());
        let expected = self.model.route_from_peer(self.now, worker, relay, from);
        let (mut client, header) = match (verdict, &expected) {
            (FromPeer::Relay { client, header }, Ok(_)) => (client, header),
            (FromPeer::Dropped(reason), Err(_)) => {
                self.drops(reason);
                return self.draw(worker, None, false);
            }
            _ => {
                let detail = || format!("{from} at {to} ({relay:?}): {verdict:?}, expected {expected:?}");
                return ensure(false, Invariant::OnlyPermittedDataIsRelayed, detail);
            }
        };
        if self.fault == Some(Fault::WrongClient) && payload.len().is_multiple_of(50) {
            client = self.clients[0].at;
        }
        let mut frame = Frame::new();
        frame.fill(&payload);
        let (number, written) = match header {
            PeerHeader::Channel(number) => (Some(number), channel_data::prepend(&mut frame, number)),
            PeerHeader::Data { peer: Announced(peer), transaction_id } => {
                let known = self.model.to_announced(from) == peer;
                ensure(known, Invariant::NothingIsMisrouted, || format!("{from} is announced as {peer}"))?;
                (None, indication::prepend_data(&mut frame, peer, transaction_id))
            }
        };
        let detail = || format!("{from} at {to}: {verdict:?}, expected {expected:?}");
        ensure(expected == Ok((client, number)), Invariant::NothingIsMisrouted, detail)?;
        ensure(written.is_some(), Invariant::DataIsUnchanged, || {
            format!("no header in front of {payload:?}")
        })?;
        let n = self.client_of(&client.five_tuple)?;
        let origin = client::recognise(&payload).and_then(|packet| self.sent.get(&packet));
        // An echo must reach the client that sent the packet, unless its port now belongs to another client.
        let astray = origin.is_some_and(|o| o.client != n && o.to == from && since <= o.at);
        ensure(!astray, Invariant::NothingIsMisrouted, || format!("{from}'s answer reaches client {n}"))?;
        if let Some(allocation) = self.model.allocations.get_mut(&client.five_tuple) {
            allocation.from_peer.packets += 1;
            allocation.from_peer.bytes += payload.len() as u64;
        }
        self.seen.from_peer += 1;
        self.to(client, frame.bytes().to_vec());
        self.draw(worker, None, false)
    }

    fn to(&mut self, to: Client, bytes: Vec<u8>) {
        for _ in 0..self.copies(to.five_tuple.transport) {
            let time = self.arrival(to.five_tuple, false);
            self.at(time, Event::ToClient { to, bytes: bytes.clone() });
        }
    }

    pub fn opened(
        &mut self,
        worker: usize,
        relay: RelayId,
        ticket: u64,
        outcome: Result<(), OpenError>,
    ) -> Checked {
        let opening = &mut self.workers[worker].opening;
        if opening.get(&relay) != Some(&ticket) {
            return Ok(()); // closed while it was being opened
        }
        opening.remove(&relay);
        if outcome.is_ok() {
            let owner = self.model.by_relay.get(&(worker, relay));
            let allocation = owner.and_then(|owner| self.model.allocations.get(owner));
            let local = allocation.and_then(|a| a.relays.iter().find(|r| r.id == relay)).map(|r| r.local);
            let free = local.is_some_and(|local| self.net.insert(local, (worker, relay, self.now)).is_none());
            ensure(free, Invariant::RelaysAreOpenedAndClosedOnce, || format!("{local:?} is bound twice"))?;
            self.model.opened(worker, relay);
        }
        let now = self.now();
        self.workers[worker].server.handle_relay_opened(now, relay, outcome);
        self.draw(worker, None, true)
    }

    pub fn timeouts(&mut self) -> Checked {
        for worker in 0..self.workers.len() {
            let now = self.now();
            self.workers[worker].server.handle_timeout(now);
            self.model.end_reservations(self.now, worker);
            self.draw(worker, None, true)?;
            self.model.timed_out(self.now, worker)?;
            let Worker { server, mirror, .. } = &self.workers[worker];
            if self.steps.is_multiple_of(8) {
                mirror.compare(server, now);
            }
            let late = server.poll_timeout().filter(|next| next.as_nanos() <= self.now);
            ensure(late.is_none(), Invariant::DeadlinesAreKept, || format!("{late:?} at {}", self.now))?;
            let (channels, expected) =
                (server.counters().channels.get(), self.model.channels(self.now, worker));
            ensure(channels == expected, Invariant::CountersAgree, || {
                format!("{channels} channels, {expected} bound")
            })?;
        }
        Ok(())
    }

    /// Carries out the actions after one input. `may_act`: whether it may open relays.
    pub fn draw(&mut self, worker: usize, asked: Option<(Id, &Before)>, may_act: bool) -> Checked {
        while let Some(action) = self.workers[worker].server.poll_action() {
            match action {
                Action::Reply { client, message, .. } => {
                    let Some(reply) = Reader::parse(&message) else {
                        return ensure(false, Invariant::AnswersFitTheirRequest, || format!("{message:?}"));
                    };
                    self.judge(client, &reply, asked)?;
                    self.to(client, message);
                }
                Action::OpenRelay { relay, address: OnWire(address) } => {
                    ensure(may_act, Invariant::RelaysAreOpenedAndClosedOnce, || {
                        format!("{relay:?} is opened without a request")
                    })?;
                    let request = asked.and_then(|(id, _)| Some((id, self.requests.get(&id)?)));
                    let cause = request.as_ref().map(|(id, r)| (r.client, id, &r.name[..], &r.ask));
                    let may_hold = |name: &str| self.model.may_hold(name);
                    let is_newcomer = cause.is_some_and(|(_, _, name, _)| self.draining && !may_hold(name));
                    ensure(!is_newcomer, Invariant::AnswersFitTheirRequest, || {
                        format!("{relay:?} is opened for a newcomer while draining")
                    })?;
                    self.model.opens(self.now, worker, (relay, address), cause)?;
                    self.start_opening(worker, relay);
                }
                Action::CloseRelay { relay } => {
                    if self.fault == Some(Fault::CloseLost) && self.steps > 2000 {
                        continue;
                    }
                    self.workers[worker].opening.remove(&relay);
                    let shut_down = self.events.is_empty();
                    let owner = self.model.by_relay.get(&(worker, relay)).copied().filter(|_| shut_down);
                    let local =
                        self.model.closes(self.now, (worker, relay), owner.or(self.cause).as_ref())?;
                    self.net.remove(&local);
                }
                Action::Ended(session) => {
                    self.seen.ended += 1;
                    self.model.ended(&session)?;
                }
                Action::Changed(change) => self.workers[worker].mirror.apply(*change),
                Action::Refused(_) | Action::Began(_) => {}
                Action::Reviewed(review) => {
                    ensure(review.allocations == 0, Invariant::OnlyPermittedDataIsRelayed, || {
                        format!("{review:?}, but nothing was revoked")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn start_opening(&mut self, worker: usize, relay: RelayId) {
        self.number += 1;
        let outcome = match below(&mut self.rng, 30) {
            0..=2 => Err(OpenError::InUse),
            3 => Err(OpenError::Unavailable),
            _ => Ok(()),
        };
        let delay = if chance(&mut self.rng, 20) { Duration::from_millis(800) } else { Duration::ZERO };
        self.workers[worker].opening.insert(relay, self.number);
        let (time, ticket) = (self.now + delay.as_nanos() as u64, self.number);
        self.at(time, Event::Opened { worker, relay, ticket, outcome });
    }

    pub fn forgets_permissions(&self) -> bool {
        self.fault == Some(Fault::PermissionNeverGiven) && self.steps > 1000
    }
}
