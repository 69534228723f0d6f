//! The server of one worker: every input comes in here, every action goes out here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use super::action::{Action, Drop, EndReason, FromClient, RelayId, Review, Session};
use super::answer::Ticket;
use super::auth::{Authenticator, Checked, Failure, Identity, Standing};
use super::counters::{Counters, Request as Kind};
use super::deadline::Deadlines;
use super::error::Code;
use super::five_tuple::Client;
use super::peer_policy::PeerPolicy;
use super::settings::{Host, Settings};
use super::shared::Shared;
use super::table::{AllocationId, Owner, Table};
use super::throttle::Throttle;
use crate::base::host::HostId;
use crate::base::time::{Instant, Now};
use crate::base::transport::Transport;
use crate::wire::demux;
use crate::wire::message::{Message, MessageClass, method};
use crate::wire::request::{self, Credentials};

/// Room for actions that stays after a rush, such as the end of many allocations at once.
const ACTIONS_KEPT: usize = 1024;
/// The longest request that is read, in bytes. Ours need 300; a CreatePermission of this length names 80 IPv6 peers.
const REQUEST_MAX: usize = 2048;
/// The first two bytes of a Send indication (RFC 8489 section 5, RFC 8656 section 17).
const SEND_INDICATION: [u8; 2] = [0x00, 0x16];

/// One worker's protocol state. See the [module's rule of use](super).
#[derive(Debug)]
pub struct Server {
    pub(super) settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) policy: PeerPolicy,
    pub(super) throttle: Throttle,
    pub(super) table: Table,
    pub(super) deadlines: Deadlines<Owner>,
    pub(super) actions: VecDeque<Action>,
    pub(super) rng: ChaCha12Rng,
    pub(super) draining: bool,
    pub(super) short_of_memory: bool,
    /// Hosts that new settings left out while they had allocations.
    retired: Vec<Host>,
    authenticator: Authenticator,
}

impl Server {
    /// A server without allocations. `seed` must come from the operating system's randomness and be different for
    /// each worker; relay ports and transaction ids follow from it.
    pub fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        seed: [u8; 32],
    ) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let policy = PeerPolicy::new(&settings.peers, &settings.relay_addresses);
        let authenticator = Authenticator::new(&settings);
        Self {
            settings,
            shared,
            counters,
            policy,
            throttle: Throttle::new([rng.next_u64(), rng.next_u64()]),
            table: Table::new([rng.next_u64(), rng.next_u64()]),
            deadlines: Deadlines::default(),
            actions: VecDeque::new(),
            rng,
            draining: false,
            short_of_memory: false,
            retired: Vec::new(),
            authenticator,
        }
    }

    /// A server in the place of one that failed: same settings, counters and drain, no allocation. `seed` as for
    /// [`Server::new`].
    pub fn successor(self, seed: [u8; 32]) -> Self {
        let (settings, shared) = (Arc::clone(&self.settings), Arc::clone(&self.shared));
        let (counters, draining) = (Arc::clone(&self.counters), self.draining);
        drop(self);
        counters.forget_alive();
        let mut successor = Self::new(settings, shared, counters, seed);
        successor.handle_drain(draining);
        successor
    }

    /// One datagram of a client, or one message of his stream without its padding.
    pub fn handle_client(&mut self, now: Now, client: Client, bytes: &[u8]) -> FromClient {
        self.handle_stream(now, client, bytes, false)
    }

    /// Does the same with a message of a stream; `opening`: whether it is among the first requests of its connection.
    pub fn handle_stream(&mut self, now: Now, client: Client, bytes: &[u8], opening: bool) -> FromClient {
        match bytes.first().map(|&first| demux::classify(first)) {
            Some(demux::Kind::ChannelData) => self.channel_data(now.instant, &client, bytes),
            Some(demux::Kind::Stun) => self.stun(now, client, bytes, opening),
            Some(demux::Kind::Other) | None => self.dropped(Drop::NotTurn),
        }
    }

    /// Ends the allocation of a client whose stream closed.
    pub fn handle_client_gone(&mut self, now: Now, client: &Client, reason: EndReason) {
        if let Some(id) = self.table.find(client) {
            self.end_allocation(now.instant, id, reason);
        }
    }

    /// Applies new settings. Existing allocations keep the identity they were created with, unless its secret is revoked;
    /// permissions for peers that are denied now end, with their channels.
    pub fn handle_settings(&mut self, now: Now, settings: Arc<Settings>) {
        self.policy = PeerPolicy::new(&settings.peers, &settings.relay_addresses);
        self.authenticator = Authenticator::new(&settings);
        self.retire_hosts(&settings);
        self.settings = settings;
        let review =
            Review { allocations: self.end_revoked(now.instant), permissions: self.review(now.instant) };
        if review != Review::default() {
            self.actions.push_back(Action::Reviewed(review));
        }
    }

    /// Keeps the hosts that are missing in `next` and still have allocations, for the peers that these may reach.
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

    /// Ends the allocations whose secret is revoked. Returns how many.
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

    /// Judges every permission by the settings as they are now. Returns how many ended.
    fn review(&mut self, now: Instant) -> usize {
        let Self { table, policy, settings, retired, .. } = self;
        table.review_permissions(now, |allocation, peer| {
            let host = settings.hosts.iter().chain(&*retired).find(|host| host.id == allocation.host)?;
            policy.judge_either(peer, host.peers.as_deref())
        })
    }

    /// Whether USERHASH may stand for USERNAME.
    pub(super) fn offers_anonymity(&self) -> bool {
        self.authenticator.offers_anonymity()
    }

    /// Whether this identity may get nothing new: its name has expired, or the settings no longer have its secret.
    pub(super) fn is_withdrawn(&self, identity: &Identity, now: Instant) -> bool {
        identity.expires.is_some_and(|expires| expires <= now)
            || self.authenticator.standing(identity) != Standing::Valid
    }

    /// While draining, no new allocation is made.
    pub fn handle_drain(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Ends every allocation.
    pub fn handle_shutdown(&mut self, now: Now) {
        for id in self.table.ids() {
            self.end_allocation(now.instant, id, EndReason::Shutdown);
        }
    }

    /// Takes out what has run out.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire(now);
        self.publish();
    }

    fn expire(&mut self, now: Now) {
        while let Some((at, owner)) = self.deadlines.pop_due(now.instant) {
            match (self.table.end_of(owner), owner) {
                (_, Owner::Reservation(token)) => self.shared.ports.expire(now.instant, &token),
                // Put back even when that end has come too: in order of their ends, channels go before the
                // permission they point to, however late this call is.
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

    /// The next work for the network side.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() && self.actions.capacity() > ACTIONS_KEPT {
            self.actions.shrink_to(ACTIONS_KEPT);
        }
        action
    }

    /// When [`Server::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Whether this client has an allocation.
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.table.find(client).is_some()
    }

    /// Allocations alive.
    pub fn allocations(&self) -> usize {
        self.table.len()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn stun(&mut self, now: Now, client: Client, bytes: &[u8], opening: bool) -> FromClient {
        // Checking a FINGERPRINT costs as much as the message is long, and a stranger has nothing to send at length.
        if bytes.len() > REQUEST_MAX && !self.may_be_long(&client, bytes) {
            return self.dropped(Drop::TooLarge);
        }
        let Ok(message) = Message::parse(bytes) else { return self.dropped(Drop::MalformedStun) };
        match (message.class(), message.method()) {
            (MessageClass::Request, _) => {
                // The timer may be late; a Refresh must not bring back what is over.
                self.expire(now);
                let answer = self.request(now, client, &message, opening);
                self.publish();
                if self.actions.is_empty() { answer } else { FromClient::Control }
            }
            (MessageClass::Indication, method::SEND) => self.send_indication(now.instant, &client, &message),
            _ => self.dropped(Drop::Unsolicited),
        }
    }

    /// Whether a message of more than [`REQUEST_MAX`] bytes is worth reading: a Send indication of a client that has an
    /// allocation.
    fn may_be_long(&self, client: &Client, bytes: &[u8]) -> bool {
        bytes.starts_with(&SEND_INDICATION) && self.has_allocation(client)
    }

    /// RFC 8489 section 6.3.1: method, then authentication, then unknown attributes, then the method's own rules.
    fn request(&mut self, now: Now, client: Client, message: &Message<'_>, opening: bool) -> FromClient {
        let (kind, transport) = (Kind::of(message.method()), client.five_tuple.transport);
        self.counters.request(transport, kind).add(1);
        if kind == Kind::Other {
            return self.dropped(Drop::UnknownMethod);
        }
        // A request out of one of our own relayed addresses: somebody reaches for our listeners through us.
        if transport == Transport::Udp
            && self.shared.ports.is_open(self.policy.to_local(client.five_tuple.client))
        {
            return self.dropped(Drop::PeerDenied);
        }
        let holder = self.table.find(&client).and_then(|id| self.table.allocation(id));
        let holder = holder.map(|allocation| Arc::clone(&allocation.identity));
        match &holder {
            Some(user) if !self.may_ask(now, &client, user, message, 0) => {
                return self.dropped(Drop::RequestsOverRate);
            }
            None if !self.has_budget(now, &client, kind, opening) => return self.dropped(Drop::Throttled),
            _ => {}
        }
        if kind == Kind::Binding {
            return self.binding(now, client, message);
        }
        let (ticket, asker, searched) = match self.authenticate(now, client, message, holder.as_ref()) {
            Ok(authenticated) => authenticated,
            Err(done) => return done,
        };
        if holder.is_none() && !self.may_ask(now, &client, &asker, message, searched) {
            self.spend(now, &client, kind);
            return self.dropped(Drop::RequestsOverRate);
        }
        if kind == Kind::Allocate {
            self.counters.authenticated(transport).add(1);
        }
        let unknown = request::unknown_required(message);
        if !unknown.is_empty() {
            return self.refuse_unknown(&ticket, unknown.kinds());
        }
        match request::Request::parse(message) {
            Ok(request::Request::Allocate(request)) => self.allocate(now, ticket, &request),
            Ok(request::Request::Refresh(request)) => self.refresh(now.instant, &ticket, &request),
            Ok(request::Request::CreatePermission(request)) => self.create_permission(now, &ticket, &request),
            Ok(request::Request::ChannelBind(request)) => self.channel_bind(now, &ticket, &request),
            Ok(_) => self.dropped(Drop::UnknownMethod),
            // RFC 8656 sections 5 and 7.2: the five-tuple comes before what is wrong with the request.
            Err(_) => {
                let code = match (kind, self.table.find(&ticket.client)) {
                    (Kind::Allocate, Some(_)) => Code::AllocationMismatch,
                    (Kind::Allocate, None) => Code::BadRequest,
                    _ => self.owned(&ticket).err().unwrap_or(Code::BadRequest),
                };
                self.refuse(&ticket, code)
            }
        }
    }

    /// RFC 8489 section 6.3.1: a Binding request needs no credentials; it is answered with XOR-MAPPED-ADDRESS.
    fn binding(&mut self, now: Now, client: Client, message: &Message<'_>) -> FromClient {
        self.spend(now, &client, Kind::Binding);
        let ticket = Ticket::of(client, message);
        let unknown = request::unknown_required(message);
        if !unknown.is_empty() {
            return self.refuse_unknown(&ticket, unknown.kinds());
        }
        self.succeed(&ticket, ticket.success().xor_mapped_address(client.five_tuple.client))
    }

    fn refuse_unknown(&mut self, ticket: &Ticket, unknown: &[u16]) -> FromClient {
        self.count_error(ticket, Code::UnknownAttribute);
        self.succeed(ticket, ticket.error(Code::UnknownAttribute).unknown_attributes(unknown))
    }

    /// RFC 8489 section 9.2.4. The nonce comes first: it proves the address for one short hash, so that a stranger
    /// cannot make us compute passwords. Returns the nanoseconds of searching too.
    fn authenticate(
        &mut self,
        now: Now,
        client: Client,
        message: &Message<'_>,
        holder: Option<&Arc<Identity>>,
    ) -> Result<(Ticket, Arc<Identity>, u32), FromClient> {
        let mut ticket = Ticket::of(client, message);
        let asked = message.bytes().len();
        let Ok(credentials) = Credentials::parse(message) else {
            return Err(self.refuse_stranger(now, &ticket, asked));
        };
        if message.integrity().is_none() {
            return Err(self.challenge(now, &ticket, Code::Unauthenticated, asked));
        }
        let named = credentials.username.is_some() || credentials.userhash.is_some();
        let (true, Some(nonce), Some(_)) = (named, credentials.nonce, credentials.realm) else {
            return Err(self.refuse_stranger(now, &ticket, asked));
        };
        let Some(features) = self.shared.nonces.check(now.instant, client.five_tuple.client, nonce) else {
            return Err(self.challenge(now, &ticket, Code::StaleNonce, asked));
        };
        let may_search = self.may_search(now, &client);
        let Self { authenticator, settings, .. } = self;
        let Checked { result, tried } =
            authenticator.check(now, settings, message, &credentials, features, holder, may_search);
        let (name, wrong) = (credentials.username.map_or(0, str::len), matches!(result, Err(Failure::Wrong)));
        let searched = self.spend_search(now, &client, tried, message, name, wrong);
        match result {
            Ok(asker) => {
                let identity = Arc::clone(&asker.identity);
                ticket.asker = Some(asker);
                Ok((ticket, identity, searched))
            }
            Err(Failure::Refused(Code::BadRequest)) => Err(self.refuse_stranger(now, &ticket, asked)),
            Err(Failure::Refused(code)) => Err(self.challenge(now, &ticket, code, asked)),
            Err(Failure::Wrong) => Err(self.challenge(now, &ticket, Code::Unauthenticated, asked)),
            // Silence, over a stream too: browsers take a second 401 as final, and those built on libwebrtc repeat a
            // request over TCP as over UDP. The stream stays open for that.
            Err(Failure::SearchNeeded) => {
                self.spend(now, &client, Kind::of(message.method()));
                Err(self.dropped(Drop::SearchDeferred))
            }
        }
    }

    /// The asker's allocation (RFC 8656 section 5). One whose sockets are still being opened takes no orders: its
    /// client has not heard of it yet.
    ///
    /// # Errors
    /// 437 when there is none on this five-tuple, 441 when it is somebody else's.
    pub(super) fn owned(&self, ticket: &Ticket) -> Result<AllocationId, Code> {
        let id = self.table.find(&ticket.client).ok_or(Code::AllocationMismatch)?;
        let allocation = self.table.allocation(id).filter(|allocation| allocation.opening.is_none());
        match allocation.ok_or(Code::AllocationMismatch)?.belongs_to(ticket) {
            true => Ok(id),
            false => Err(Code::WrongCredentials),
        }
    }

    /// The settings of a host, or those it had when a reload took it away.
    pub(super) fn host(&self, id: HostId) -> Option<&Host> {
        self.settings.hosts.iter().chain(&self.retired).find(|host| host.id == id)
    }

    pub(super) fn dropped(&self, reason: Drop) -> FromClient {
        self.counters.dropped(reason).add(1);
        FromClient::Dropped(reason)
    }

    /// Takes out one relay, and the allocation with its last one.
    pub(super) fn end_relay(&mut self, now: Instant, id: RelayId, reason: EndReason) {
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

    /// Takes out an allocation with everything that belongs to it.
    pub(super) fn end_allocation(&mut self, now: Instant, id: AllocationId, reason: EndReason) {
        let Some(allocation) = self.table.allocation(id) else { return };
        let relays: Vec<RelayId> = allocation.relays.iter().flatten().copied().collect();
        if let Some(opening) = &allocation.opening {
            let local: Vec<_> = relays.iter().filter_map(|&id| Some(self.table.relay(id)?.local)).collect();
            opening.claimed_beside(&local).into_iter().for_each(|port| self.shared.ports.release(port));
        }
        let relayed: Vec<SocketAddr> = relays.iter().filter_map(|&id| self.close_relay(id)).collect();
        if let Some(allocation) = self.table.remove_allocation(id) {
            let (identity, transport) = (allocation.identity, allocation.client.five_tuple.transport);
            if allocation.opening.is_none() {
                self.counters.host(identity.host, transport).allocations.sub(1);
                self.actions.push_back(Action::Ended(Box::new(Session {
                    five_tuple: allocation.client.five_tuple,
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

    /// Closes a relay, gives its port back and tells its announced address.
    pub(super) fn close_relay(&mut self, id: RelayId) -> Option<SocketAddr> {
        let relay = self.table.remove_relay(id)?;
        self.shared.ports.release(relay.local);
        self.actions.push_back(Action::CloseRelay { relay: id });
        Some(relay.announced)
    }

    /// Drops the deadlines of what is gone, when there are many.
    pub(super) fn sweep(&mut self) {
        let (table, ports) = (&self.table, &self.shared.ports);
        let is_alive = |owner: &Owner| match owner {
            Owner::Reservation(token) => ports.is_reserved(token),
            owner => table.end_of(*owner).is_some(),
        };
        self.deadlines.sweep(table.owners() + ports.reserved(), is_alive);
    }

    fn publish(&self) {
        let (permissions, channels) = self.table.permissions_and_channels();
        self.counters.permissions.set(permissions as u64);
        self.counters.channels.set(channels as u64);
    }
}

/// A server that is gone holds no port, however it came to its end. (Places of the quota go with their allocations.)
impl std::ops::Drop for Server {
    fn drop(&mut self) {
        let ports = &self.shared.ports;
        for id in self.table.ids() {
            let Some(allocation) = self.table.allocation(id) else { continue };
            let relays = allocation.relays.iter().flatten();
            let local: Vec<_> = relays.filter_map(|&id| Some(self.table.relay(id)?.local)).collect();
            if let Some(opening) = &allocation.opening {
                opening.claimed_beside(&local).into_iter().for_each(|port| ports.release(port));
            }
            local.into_iter().for_each(|port| ports.release(port));
        }
        for owner in self.deadlines.owners() {
            if let Owner::Reservation(token) = owner {
                ports.cancel(token);
            }
        }
    }
}
