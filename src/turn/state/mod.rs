//! The protocol state of a worker: allocations with their relays, permissions and channels, deadlines, ports, quotas, rates.
//!
//! [`State`] joins the components; requests and data act on it. Every established allocation ends in
//! [`State::end_allocation`], which also releases its ports.

pub mod allocate_requests;
pub mod allocation;
pub mod budget;
pub mod changes;
pub mod deadline;
pub mod meter;
pub mod port_pool;
pub mod quota;
mod reach;
pub mod removals;
pub mod reports;
mod review;
pub mod table;
mod unreported;

use std::collections::VecDeque;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use self::allocate_requests::AllocateRequests;
use self::allocation::Owner;
use self::deadline::Deadlines;
use self::port_pool::RelayPorts;
use self::removals::Removals;
use self::reports::Reports;
use self::review::Reviewing;
use self::table::Table;
use crate::base::host::HostId;
use crate::base::time::{Instant, Now};
use crate::base::transport::Transport;
use crate::turn::action::{Action, DropReason, EndReason, FromClient, Review, Session};
use crate::turn::address::{Announced, OnWire};
use crate::turn::counters::Counters;
use crate::turn::five_tuple::Client;
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::auth::{Authenticator, Identity};
use crate::turn::identity::directory::Standing;
use crate::turn::identity::gate::Gate;
use crate::turn::identity::peer_policy::PeerPolicy;
use crate::turn::identity::peer_policy::difference::Difference;
use crate::turn::identity::refusal::Reason;
use crate::turn::settings::{Host, Settings};
use crate::turn::shared::Shared;
use crate::turn::ticket::Ticket;

/// Capacity for actions that is kept after a burst, such as the end of many allocations at once.
const ACTIONS_KEPT: usize = 1024;

/// One worker's protocol state.
#[derive(Debug)]
pub struct State {
    pub(super) settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) policy: PeerPolicy,
    pub(super) ports: RelayPorts,
    pub(super) authenticator: Authenticator,
    pub(super) gate: Gate,
    pub(super) table: Table,
    pub(super) allocate_requests: AllocateRequests,
    pub(super) deadlines: Deadlines<Owner>,
    pub(super) actions: VecDeque<Action>,
    pub(super) rng: ChaCha12Rng,
    pub(super) draining: bool,
    /// The budget for reports of refusals.
    pub(super) reports: Reports,
    pub(super) short_of_memory: bool,
    /// Hosts that new settings left out while they had allocations.
    retired: Vec<Host>,
    /// The review of permissions that is under way.
    reviewing: Option<Reviewing>,
    /// What may be removed at once.
    pub(super) removals: Removals,
    /// Clients whose connection has closed, and whose allocation ends with the next pages.
    leaving: VecDeque<(Client, EndReason)>,
}

impl State {
    /// A state without allocations. `seed` must come from the operating system's randomness.
    pub fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        seed: [u8; 32],
    ) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let policy = PeerPolicy::new(&settings.peers, &settings.relay_addresses);
        let authenticator = Authenticator::new(&settings);
        let ports = relay_ports(&shared, &settings);
        Self {
            settings,
            shared,
            counters,
            policy,
            ports,
            authenticator,
            gate: Gate::new([rng.next_u64(), rng.next_u64()]),
            table: Table::new([rng.next_u64(), rng.next_u64()]),
            allocate_requests: AllocateRequests::default(),
            deadlines: Deadlines::default(),
            actions: VecDeque::new(),
            draining: false,
            reports: Reports::new([rng.next_u64(), rng.next_u64()]),
            short_of_memory: false,
            retired: Vec::new(),
            reviewing: None,
            removals: Removals::default(),
            leaving: VecDeque::new(),
            rng,
        }
    }

    // --- settings -------------------------------------------------------------------------------------------

    /// Applies new settings and judges what is running by them.
    pub fn apply(&mut self, now: Instant, settings: Arc<Settings>) {
        let difference = Difference::between(&self.settings, &settings);
        self.policy = PeerPolicy::new(&settings.peers, &settings.relay_addresses);
        let same_credentials = settings.same_credentials(&self.settings);
        if !same_credentials {
            self.authenticator.follow(&settings);
        }
        self.retire_hosts(&settings);
        let ports = relay_ports(&self.shared, &settings);
        // Before `self.ports` is replaced: the new ports cannot release those of an address that is gone.
        self.end_where_gone(now, &ports);
        self.ports = ports;
        self.settings = settings;
        let revoked = if same_credentials { 0 } else { self.end_revoked(now) };
        self.begin_review(now, difference, revoked);
    }

    /// Keeps the hosts that are missing in `next` and still have allocations: which peers these may reach depends on the host.
    fn retire_hosts(&mut self, next: &Settings) {
        let known = self.settings.hosts.iter().chain(&self.retired);
        let is_gone = |host: &&Host| next.hosts.iter().all(|other| other.id != host.id);
        let has_allocations = |host: &&Host| {
            Transport::ALL
                .iter()
                .any(|&transport| self.counters.host(host.id, transport).allocations.get() > 0)
        };
        self.retired = known.filter(is_gone).filter(has_allocations).cloned().collect();
    }

    /// Ends the relays whose address is not in `ports`. An allocation ends with its last relay. One whose sockets are still
    /// being opened ends as a whole, and the client's next request is served from another address.
    fn end_where_gone(&mut self, now: Instant, ports: &RelayPorts) {
        for id in self.table.relays_where(|local| !ports.contains(local.ip())) {
            let allocation = self.table.relay(id).map(|relay| relay.allocation);
            let is_opening = |&id: &AllocationId| {
                self.table.allocation(id).is_some_and(|allocation| !allocation.established)
            };
            match allocation.filter(is_opening) {
                Some(allocation) => self.end_allocation(now, allocation, EndReason::AddressGone),
                None => self.end_relay(now, id, EndReason::AddressGone),
            }
        }
    }

    /// Ends the allocations whose secret is revoked or whose static user is gone. Returns how many.
    fn end_revoked(&mut self, now: Instant) -> usize {
        let is_revoked = |id: &AllocationId| {
            let identity = self.table.allocation(*id).map(|allocation| &allocation.identity);
            identity.is_some_and(|identity| self.authenticator.standing(identity) == Standing::Revoked)
        };
        let revoked: Vec<AllocationId> = self.table.ids().into_iter().filter(is_revoked).collect();
        for &id in &revoked {
            self.end_allocation(now, id, EndReason::Revoked);
        }
        revoked.len()
    }

    /// Begins a review of the permissions that `difference` concerns, and completes its first page. `allocations` is the number
    /// of those that the same settings have ended already.
    fn begin_review(&mut self, now: Instant, difference: Difference, allocations: usize) {
        let mut ended = Review { allocations, permissions: 0 };
        let difference = match self.reviewing.take() {
            // What the last change concerns may not have been judged yet.
            Some(unfinished) => {
                ended.allocations += unfinished.ended.allocations;
                ended.permissions += unfinished.ended.permissions;
                Difference::Anything
            }
            None if matches!(difference, Difference::Nothing) => {
                if ended != Review::default() {
                    self.actions.push_back(Action::Reviewed(ended));
                }
                return;
            }
            None => difference,
        };
        self.reviewing = Some(Reviewing { difference, next: 0, ended });
        self.continue_review(now);
    }

    /// Judges the next page of permissions, if a review is under way.
    pub fn continue_review(&mut self, now: Instant) {
        let Some(mut reviewing) = self.reviewing.take() else { return };
        let Self { table, policy, settings, retired, .. } = self;
        let page = reviewing.page();
        let concerns = |ip| reviewing.difference.concerns(ip);
        let (ended, next) = table.review_permissions(now, page, concerns, |allocation, peer| {
            let host = settings.hosts.iter().chain(&*retired).find(|host| host.id == allocation.host)?;
            policy.judge_either(host, peer)
        });
        reviewing.ended.permissions += ended;
        match next {
            Some(next) => self.reviewing = Some(Reviewing { next, ..reviewing }),
            None if reviewing.ended == Review::default() => {}
            None => self.actions.push_back(Action::Reviewed(reviewing.ended)),
        }
    }

    /// The settings of a host, or the last ones of a host that a reload removed.
    pub fn host(&self, id: HostId) -> Option<&Host> {
        self.settings.hosts.iter().chain(&self.retired).find(|host| host.id == id)
    }

    /// Whether this identity cannot add peers: its name has expired, or its credential is no longer in the settings.
    pub fn is_withdrawn(&self, identity: &Identity, now: Instant) -> bool {
        identity.expires.is_some_and(|expires| expires <= now)
            || self.authenticator.standing(identity) != Standing::Valid
    }

    // --- lookups for requests and data ----------------------------------------------------------------------

    /// Whether this client has an allocation, or waits for one.
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.table.find(client).is_some()
    }

    /// The asker's allocation (RFC 8656 section 5). An allocation whose sockets are still being opened does not count: the
    /// client has not been told about it yet.
    ///
    /// # Errors
    /// 437 if there is none on this five-tuple, 441 if another user made it.
    pub fn owned(&self, ticket: &Ticket) -> Result<AllocationId, Reason> {
        let id = self.table.find(&ticket.client).ok_or(Reason::NoAllocation)?;
        let allocation = self.table.allocation(id).filter(|allocation| allocation.established);
        let allocation = allocation.ok_or(Reason::NoAllocation)?;
        match &ticket.asker {
            Some(asker) if allocation.belongs_to(&asker.identity) => Ok(id),
            asker => {
                let is_same_user = asker.as_ref().is_some_and(|asker| allocation.has_user(&asker.identity));
                Err(Reason::NotOwner { is_same_user })
            }
        }
    }

    /// Counts a dropped message.
    pub fn dropped(&self, reason: DropReason) -> FromClient {
        self.counters.dropped(reason).add(1);
        FromClient::Dropped(reason)
    }

    // --- ends of relays and allocations ---------------------------------------------------------------------

    /// Begins a page of removals, and ends the allocations of clients that have left first.
    pub fn begin_removals(&mut self, now: Instant) {
        self.removals.begin(now);
        while self.removals.has_room(now)
            && let Some((client, reason)) = self.leaving.pop_front()
        {
            self.end_of_client(now, &client, reason);
        }
        if self.leaving.is_empty() {
            self.leaving.shrink_to_fit();
        }
    }

    /// Ends the allocation of a client whose connection has closed: now, or with one of the next pages.
    pub fn leave(&mut self, now: Instant, client: &Client, reason: EndReason) {
        if self.leaving.is_empty() && self.removals.has_room(now) {
            self.end_of_client(now, client, reason);
        } else if self.has_allocation(client) {
            self.leaving.push_back((*client, reason));
        }
    }

    fn end_of_client(&mut self, now: Instant, client: &Client, reason: EndReason) {
        if let Some(id) = self.table.find(client) {
            self.end_allocation(now, id, reason);
        }
    }

    /// Ends what has expired of this client's allocation before its request is handled: a Refresh must not revive it. Returns
    /// `false` if the page is full. Streams have a limit of time in each turn, and some clients do not repeat requests over them.
    pub fn expire_of(&mut self, now: Instant, client: &Client) -> bool {
        let allocation = self.table.find(client).and_then(|id| self.table.allocation(id));
        let relays = allocation.map_or([None; 2], |allocation| allocation.relays);
        let has_expired = |&id: &RelayId| self.table.relay(id).is_some_and(|relay| relay.expires <= now);
        let expired = relays.map(|relay| relay.filter(has_expired));
        let may_wait = !client.five_tuple.transport.is_stream();
        for relay in expired.into_iter().flatten() {
            if may_wait && !self.removals.has_room(now) {
                return false;
            }
            self.end_relay(now, relay, EndReason::Expired);
        }
        true
    }

    /// Removes what has expired, as much as fits into the page.
    pub fn expire(&mut self, now: Now) {
        while self.removals.has_room(now.instant)
            && let Some((at, owner)) = self.deadlines.pop_due(now.instant)
        {
            self.removals.count_entry();
            match (self.table.end_of(owner), owner) {
                (_, Owner::Reservation(token)) => self.ports.expire(now.instant, &token),
                // Pushed back even if `end` has passed too: in the order of their ends, channels are removed before the
                // permission they refer to, no matter how late this call is.
                (Some(end), owner) if end > at => {
                    if self.table.postpone(owner, at, end) {
                        self.deadlines.push(end, owner);
                    }
                }
                (Some(_), Owner::Relay(id, _)) => self.end_relay(now.instant, id, EndReason::Expired),
                (Some(_), Owner::Permission(id, _)) => self.table.remove_permission(id),
                (Some(_), Owner::Channel(id, _)) => self.table.remove_channel(id),
                (None, _) => {}
            }
        }
    }

    /// Ends one relay, and the allocation with its last one.
    pub fn end_relay(&mut self, now: Instant, id: RelayId, reason: EndReason) {
        let Some(relay) = self.table.relay(id) else { return };
        let allocation = relay.allocation;
        let others = self.table.allocation(allocation).map_or(0, |a| a.relays.iter().flatten().count());
        if others <= 1 {
            self.end_allocation(now, allocation, reason);
        } else {
            self.close_relay(id);
            self.sweep();
        }
    }

    /// Ends an allocation with everything that belongs to it.
    pub fn end_allocation(&mut self, now: Instant, id: AllocationId, reason: EndReason) {
        let Some(allocation) = self.table.allocation(id) else { return };
        let relays: Vec<RelayId> = allocation.relays.iter().flatten().copied().collect();
        let local: Vec<_> = relays.iter().filter_map(|&id| Some(self.table.relay(id)?.local)).collect();
        for port in self.claimed_beside(id, &local) {
            self.ports.release(port);
        }
        let relayed: Vec<Announced> = relays.iter().filter_map(|&id| self.close_relay(id)).collect();
        self.allocate_requests.remove(id);
        if let Some(allocation) = self.table.remove_allocation(id) {
            let identity = allocation.identity;
            let transport = allocation.client.five_tuple.transport;
            if allocation.established {
                self.counters.host(identity.host, transport).allocations.sub(1);
                self.actions.push_back(Action::Ended(Box::new(Session {
                    five_tuple: allocation.client.five_tuple,
                    link: allocation.client.link,
                    user: Arc::clone(&identity.name),
                    host: Arc::clone(&identity.host_name),
                    host_id: identity.host,
                    relayed,
                    duration: now.since(allocation.created),
                    from_client: allocation.from_client,
                    from_peer: allocation.from_peer,
                    reason,
                })));
            }
        }
        self.sweep();
        self.publish();
    }

    /// The ports that an allocation has claimed in addition to those of its relays, while its sockets are being opened.
    fn claimed_beside(&self, id: AllocationId, local: &[OnWire]) -> Vec<OnWire> {
        let opening = self.allocate_requests.get(id).and_then(|request| request.opening.as_ref());
        opening.map_or_else(Vec::new, |opening| opening.claimed_beside(local))
    }

    /// Closes a relay and releases its port. Returns its announced address.
    pub fn close_relay(&mut self, id: RelayId) -> Option<Announced> {
        let relay = self.table.remove_relay(id)?;
        self.removals.count_relay(relay.permissions.len() + relay.channels.len());
        self.ports.release(relay.local);
        self.actions.push_back(Action::CloseRelay { relay: id });
        Some(relay.announced)
    }

    /// Removes the deadlines that are not in effect, if there are many.
    pub fn sweep(&mut self) {
        let table = &self.table;
        let ports = &self.ports;
        let is_in_effect = |at, owner: &Owner| match owner {
            Owner::Reservation(token) => ports.is_reserved(token),
            owner => table.is_in_effect(*owner, at),
        };
        self.deadlines.sweep(table.owners() + ports.reserved(), is_in_effect);
    }

    /// Publishes the gauges of permissions and channels.
    pub fn publish(&self) {
        let (permissions, channels) = self.table.permissions_and_channels();
        self.counters.permissions.set(permissions as u64);
        self.counters.channels.set(channels as u64);
    }

    /// The time of the next deadline; the start of the clock if a review is under way, or clients that have left still have
    /// allocations.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.reviewing.is_some() || !self.leaving.is_empty() {
            true => Some(Instant::default()),
            false => self.deadlines.next().into_iter().chain(self.reports.due()).min(),
        }
    }

    /// Reports how many refusals of a source were not reported, if that is due.
    pub fn report_hidden(&mut self, now: Instant) {
        while let Some(refusal) = self.reports.next_hidden(now) {
            self.actions.push_back(Action::Refused(Box::new(refusal)));
        }
    }

    /// Sets the end of a relay's lifetime.
    pub fn refresh_relay(&mut self, relay: RelayId, expires: Instant) {
        if let Some(owner) = self.table.refresh_relay(relay, expires) {
            self.deadlines.push(expires, owner);
            // The later deadline is no longer in effect.
            self.sweep();
        }
    }

    /// Whether an action is queued.
    pub fn has_action(&self) -> bool {
        !self.actions.is_empty() || self.table.has_change()
    }

    /// The next action for the network side. The changes of an input come before its other actions, so that a mirror is up to
    /// date when the client gets its answer, and when a socket is closed.
    pub fn next_action(&mut self) -> Option<Action> {
        if let Some(change) = self.table.next_change() {
            return Some(Action::Changed(Box::new(change)));
        }
        let action = self.actions.pop_front();
        if action.is_none() && self.actions.capacity() > ACTIONS_KEPT {
            self.actions.shrink_to(ACTIONS_KEPT);
        }
        action
    }
}

/// The ports of the relay addresses in these settings.
fn relay_ports(shared: &Shared, settings: &Settings) -> RelayPorts {
    let addresses = settings.relay_addresses.iter().map(|relay| relay.local);
    shared.ports.on(addresses, settings.relay_ports.clone())
}

/// Releases the ports, so that a worker that panics holds none. Places in the quota are released with their allocations.
impl Drop for State {
    fn drop(&mut self) {
        let ports = &self.ports;
        for id in self.table.ids() {
            let Some(allocation) = self.table.allocation(id) else { continue };
            let relays = allocation.relays.iter().flatten();
            let local: Vec<_> = relays.filter_map(|&id| Some(self.table.relay(id)?.local)).collect();
            for port in self.claimed_beside(id, &local).into_iter().chain(local) {
                ports.release(port);
            }
        }
        for owner in self.deadlines.owners() {
            if let Owner::Reservation(token) = owner {
                ports.cancel(token);
            }
        }
    }
}

#[cfg(test)]
mod tests;
