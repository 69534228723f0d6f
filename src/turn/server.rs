//! The server of one worker: every input enters here, every action leaves here.

use std::sync::Arc;

use super::action::{
    Action, DropReason, EndReason, FromClient, FromPeer, OpenError, PeerIcmp, RelayId, Relayed, Traffic,
    UserId,
};
use super::address::OnWire;
use super::counters::Counters;
use super::five_tuple::{Client, Link};
use super::request::allocate;
use super::settings::Settings;
use super::shared::Shared;
use super::snapshot::{Cursor, Page};
use super::state::State;
use super::{data, request};
use crate::base::time::{Instant, Now};
use crate::wire::demux;
use crate::wire::message::{self, Message};

/// The longest request that is read, in bytes. Usual ones need 300; a CreatePermission of this length names 80 IPv6 peers.
const REQUEST_MAX: usize = 2048;
/// The first two bytes of a Send indication (RFC 8489 section 5, RFC 8656 section 17).
const SEND_INDICATION: [u8; 2] = [0x00, 0x16];

/// One worker's protocol. The [module](super) describes how to use it.
#[derive(Debug)]
pub struct Server {
    state: State,
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
        Self { state: State::new(settings, shared, counters, seed) }
    }

    /// Replaces a server that failed, with the same settings, counters and drain state and no allocations. `seed` is as for
    /// [`Server::new`].
    pub fn successor(self, seed: [u8; 32]) -> Self {
        let State { settings, shared, counters, draining, .. } = &self.state;
        let (settings, shared, draining) = (Arc::clone(settings), Arc::clone(shared), *draining);
        let counters = Arc::clone(counters);
        drop(self);
        counters.forget_alive();
        let mut successor = Self::new(settings, shared, counters, seed);
        successor.handle_drain(draining);
        successor
    }

    /// Returns how many permissions, channels and relays were removed so far; a relay counts as 16. It wraps around. A Refresh to 0
    /// over a stream removes thousands at once, so the caller compares the number before and after a message.
    pub fn removed(&self) -> u32 {
        self.state.removals.total()
    }

    /// Handles one datagram of a client, or one message of its stream without the padding.
    pub fn handle_client(&mut self, now: Now, client: Client, bytes: &[u8]) -> FromClient {
        self.handle_stream(now, client, bytes, false)
    }

    /// Handles a message of a stream like [`Server::handle_client`]. `opening` says whether it is one of the first requests of
    /// its connection, which have an additional budget.
    pub fn handle_stream(&mut self, now: Now, client: Client, bytes: &[u8], opening: bool) -> FromClient {
        match bytes.first().map(|&first| demux::classify(first)) {
            Some(demux::Kind::ChannelData) => {
                data::channel_data(&mut self.state, now.instant, &client, bytes)
            }
            Some(demux::Kind::Stun) => self.stun(now, client, bytes, opening),
            Some(demux::Kind::Other) | None => self.state.dropped(DropReason::NotTurn),
        }
    }

    fn stun(&mut self, now: Now, client: Client, bytes: &[u8], opening: bool) -> FromClient {
        let state = &mut self.state;
        // The cost of a FINGERPRINT check grows with the message. Only Send indications, within an allocation, need to be long.
        if bytes.len() > REQUEST_MAX
            && !(bytes.starts_with(&SEND_INDICATION) && state.has_allocation(&client))
        {
            return state.dropped(DropReason::TooLarge);
        }
        let is_request = demux::is_request(bytes);
        // A server expects nothing else, and no limit applies to it: its attributes are not read.
        if !is_request && !bytes.starts_with(&SEND_INDICATION) {
            return state.dropped(match message::header(bytes) {
                Ok(_) => DropReason::Unsolicited,
                Err(_) => DropReason::MalformedStun,
            });
        }
        let Ok(message) = Message::parse(bytes) else { return state.dropped(DropReason::MalformedStun) };
        if !is_request {
            return data::send_indication(state, now.instant, &client, &message);
        }
        // The timer may be late.
        state.expire(now);
        if !state.expire_of(now.instant, &client) {
            return state.dropped(DropReason::Backlog);
        }
        let answer = request::handle(state, now, client, &message, opening);
        state.publish();
        if state.has_action() { FromClient::Control } else { answer }
    }

    /// Handles a datagram of `len` bytes from a peer (RFC 8656 sections 11.3 and 12.7).
    pub fn handle_peer(&mut self, now: Now, relay: RelayId, peer: OnWire, len: usize) -> FromPeer {
        data::from_peer(&mut self.state, now, relay, peer, len)
    }

    /// Counts a drop: a datagram that could not be sent. If it was counted as relayed, it no longer is.
    pub fn handle_unsent(&mut self, reason: DropReason, relayed: Option<Relayed>) {
        self.state.counters.dropped(reason).add(1);
        if let Some(Relayed { relay, from_client, bytes }) = relayed {
            let allocation = self.state.table.relay(relay).map(|relay| relay.allocation);
            let unsent = Traffic { packets: 1, bytes: bytes.into() };
            data::unsent(&mut self.state, allocation, (from_client, reason), unsent);
        }
    }

    /// Does the same for media that waited for the stream of `client`.
    pub fn handle_unsent_media(&mut self, reason: DropReason, client: &Client, unsent: Traffic) {
        self.state.counters.dropped(reason).add(unsent.packets);
        let allocation = self.state.table.find(client);
        data::unsent(&mut self.state, allocation, (false, reason), unsent);
    }

    /// Handles an ICMP error about a datagram that `relay` sent (RFC 8656 section 11.5). The client is told if the settings
    /// say so and it has a permission for the datagram's destination.
    pub fn handle_peer_icmp(&mut self, now: Now, relay: RelayId, error: PeerIcmp) {
        data::peer_icmp(&mut self.state, now, relay, error);
    }

    /// Handles the outcome of [`Action::OpenRelay`]. The Allocate is answered when every socket is open or refused.
    pub fn handle_relay_opened(&mut self, now: Now, relay: RelayId, outcome: Result<(), OpenError>) {
        allocate::relay_opened(&mut self.state, now, relay, outcome);
    }

    /// Ends the allocation of a client whose stream closed. If much has ended at this time already, it ends with the next calls of
    /// [`Server::handle_timeout`].
    pub fn handle_client_gone(&mut self, now: Now, client: &Client, reason: EndReason) {
        self.state.leave(now.instant, client, reason);
    }

    /// Applies new settings. Existing allocations keep the identity they were created with, unless its secret is revoked or its
    /// static user is gone; permissions for peers that are denied now end, with their channels.
    pub fn handle_settings(&mut self, now: Now, settings: Arc<Settings>) {
        self.state.apply(now.instant, settings);
    }

    /// Sets whether memory is short. While it is, no permission and no channel is added; existing ones can be refreshed.
    pub fn handle_pressure(&mut self, is_low: bool) {
        self.state.short_of_memory = is_low;
    }

    /// Sets whether more datagrams are waiting behind the next one at its listener than one read takes.
    pub fn handle_backlog(&mut self, is_waiting: bool) {
        self.state.table.set_backlog(is_waiting);
    }

    /// Sets whether the server drains. While it does, only users with an allocation get another one.
    pub fn handle_drain(&mut self, draining: bool) {
        self.state.draining = draining;
    }

    /// Switches the report of table changes on or off ([`Action::Changed`]). Switched on, it begins with what the table
    /// holds; while it is off, it costs nothing on the path of a packet and one comparison for each change of the table.
    pub fn handle_mirror(&mut self, on: bool) {
        self.state.table.report_changes(on);
    }

    /// Ends every allocation.
    pub fn handle_shutdown(&mut self, now: Now) {
        for id in self.state.table.ids() {
            self.state.end_allocation(now.instant, id, EndReason::Shutdown);
        }
    }

    /// Removes what has expired, a page at a time: if there is more, [`Server::poll_timeout`] is not later than `now`. What waits
    /// for its removal relays nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.state.begin_removals(now.instant);
        self.state.expire(now);
        self.state.report_hidden(now.instant);
        self.state.continue_review(now.instant);
        self.state.publish();
    }

    /// The next action for the network side.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.state.next_action()
    }

    /// The time of the next call of [`Server::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.state.next_deadline()
    }

    /// The sessions in the next `max` slots of the table from `after` on; see [`Page`]. For each slot a page reads at most
    /// [`ENTRIES_MAX`](super::snapshot::ENTRIES_MAX) permissions and as many channels of each relay. A caller with many
    /// sessions should take small pages and handle packets between them.
    pub fn snapshot(&self, now: Now, after: Cursor, max: usize) -> Page {
        self.state.table.page(now.instant, after, max)
    }

    /// Whether this client has an allocation.
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.state.has_allocation(client)
    }

    /// Whether any client on this link has an allocation. Reads the whole table.
    pub fn has_allocation_on(&self, link: Link) -> bool {
        self.state.table.has_link(link)
    }

    /// The user of this client's allocation, if it has one or waits for one.
    pub fn user_of(&self, client: &Client) -> Option<UserId> {
        self.state.table.user_of(client)
    }

    /// The user of the allocation that this relay belongs to.
    pub fn user_of_relay(&self, relay: RelayId) -> Option<UserId> {
        self.state.table.user_of_relay(relay)
    }

    /// The number of allocations.
    pub fn allocations(&self) -> usize {
        self.state.table.len()
    }

    /// The counters of this worker.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.state.counters
    }
}
