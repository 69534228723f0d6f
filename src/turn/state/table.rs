//! All allocations of one worker, with their relays, permissions and channels. The lookups for every packet are in
//! `table/route.rs`, permissions and channels are installed in `table/permit.rs`, and `table/sessions.rs` reads the whole table.
//!
//! Entries are stored in slabs and found through one index for each kind of lookup (`table/index.rs`): a lookup costs the same with one
//! channel or ten thousand. Lifetimes are compared with the clock at use, so expired entries may be removed later.

mod index;
pub mod permit;
pub mod route;
mod sessions;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use index::{ByClient, ByIp, ByNumber, ByPeer, Index, KEEP, ip_key, peer_key};
use slab::Slab;

use super::allocation::{Allocation, Channel, ChannelId, Owner, Permission, PermissionId, Relay};
use super::changes::Changes;
use super::meter::{Meter, Meters};
use super::quota::Place;
use crate::base::family::Family;
use crate::base::time::Instant;
use crate::turn::action::Traffic;
use crate::turn::address::{Announced, OnWire};
use crate::turn::change::TableChange;
use crate::turn::five_tuple::Client;
use crate::turn::id::{AllocationId, RelayId, UserId};
use crate::turn::identity::auth::Identity;
use crate::turn::keyed_hash::KeyedState;

/// All allocations of one worker.
#[derive(Debug)]
pub struct Table {
    allocations: Slab<Allocation>,
    relays: Slab<Relay>,
    permissions: Slab<Permission>,
    channels: Slab<Channel>,
    hasher: KeyedState,
    by_client: Index<ByClient>,
    by_ip: Index<ByIp>,
    by_number: Index<ByNumber>,
    by_peer: Index<ByPeer>,
    meters: Meters,
    /// Changes of the table that are not reported yet; see [`TableChange`].
    changes: Changes,
    generation: u32,
}

impl Table {
    /// An empty table. `key` must come from a cryptographic random generator: clients choose the keys of the maps.
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            allocations: Slab::new(),
            relays: Slab::new(),
            permissions: Slab::new(),
            channels: Slab::new(),
            hasher: KeyedState::new(key),
            by_client: Index::default(),
            by_ip: Index::default(),
            by_number: Index::default(),
            by_peer: Index::default(),
            meters: Meters::default(),
            changes: Changes::default(),
            generation: 0,
        }
    }

    // --- allocations and relays -----------------------------------------------------------------------------

    /// The allocation of this client.
    pub fn find(&self, client: &Client) -> Option<AllocationId> {
        self.by_client.find(&self.hasher, &self.allocations, client).map(AllocationId)
    }

    fn permission_of(&self, relay: RelayId, ip: IpAddr) -> Option<PermissionId> {
        self.by_ip.find(&self.hasher, &self.permissions, &ip_key(relay, ip)).map(PermissionId)
    }

    fn channel_with(&self, allocation: AllocationId, number: u16) -> Option<ChannelId> {
        self.by_number.find(&self.hasher, &self.channels, &(allocation.0, number)).map(ChannelId)
    }

    fn channel_to(&self, relay: RelayId, peer: OnWire) -> Option<ChannelId> {
        self.by_peer.find(&self.hasher, &self.channels, &peer_key(relay, peer)).map(ChannelId)
    }

    /// The allocation of this id.
    pub fn allocation(&self, id: AllocationId) -> Option<&Allocation> {
        self.allocations.get(id.0 as usize)
    }

    /// Who shares the worker's time for this client's allocation.
    pub fn user_of(&self, client: &Client) -> Option<UserId> {
        Some(self.allocation(self.find(client)?)?.payers.sharer)
    }

    /// Who shares the worker's time for this relay's allocation.
    pub fn user_of_relay(&self, id: RelayId) -> Option<UserId> {
        Some(self.allocation(self.relay(id)?.allocation)?.payers.sharer)
    }

    /// Mutable access to an allocation.
    pub fn allocation_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.allocations.get_mut(id.0 as usize)
    }

    /// A relay, open or not.
    pub fn relay(&self, id: RelayId) -> Option<&Relay> {
        self.relays.get(id.0 as usize)
    }

    /// The number of allocations.
    pub fn len(&self) -> usize {
        self.allocations.len()
    }

    /// Whether there is no allocation.
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    /// The number of relays, permissions and channels, which each have one deadline in effect.
    pub fn owners(&self) -> usize {
        self.relays.len() + self.permissions.len() + self.channels.len()
    }

    /// The numbers of permissions and of channels, for the gauges.
    pub fn permissions_and_channels(&self) -> (usize, usize) {
        (self.permissions.len(), self.channels.len())
    }

    /// All allocations, for reloads and the end of the server.
    pub fn ids(&self) -> Vec<AllocationId> {
        self.allocations.iter().map(|(id, _)| AllocationId(id as u32)).collect()
    }

    /// The relays whose local address `matches`.
    pub fn relays_where(&self, matches: impl Fn(OnWire) -> bool) -> Vec<RelayId> {
        let found = self.relays.iter().filter(|(_, relay)| matches(relay.local));
        found.map(|(id, _)| RelayId(id as u32)).collect()
    }

    /// Adds an allocation without relays. The client must have none. `confined`: anybody can be any number of users of this host.
    pub fn add_allocation(
        &mut self,
        client: Client,
        identity: Arc<Identity>,
        created: Instant,
        place: Place,
        confined: bool,
    ) -> AllocationId {
        let payers = self.meters.join(&place, confined);
        let id = AllocationId(self.allocations.insert(Allocation {
            client,
            recent: None,
            from_client: Traffic::default(),
            from_peer: Traffic::default(),
            heard: created,
            meter: Meter::default(),
            payers,
            host: identity.host,
            permitted: false,
            sent: false,
            received: false,
            established: false,
            identity,
            relays: [None; 2],
            created,
            place,
            unsent: 0,
            no_route: 0,
            over_rate: 0,
        }) as u32);
        self.by_client.insert(&self.hasher, &self.allocations, id.0);
        id
    }

    /// Adds a relay, not open yet, to an allocation that has none of its family.
    pub fn add_relay(
        &mut self,
        allocation: AllocationId,
        local: OnWire,
        announced: Announced,
        expires: Instant,
    ) -> (RelayId, Owner) {
        let generation = self.next_generation();
        let id = RelayId(self.relays.insert(Relay {
            allocation,
            open: false,
            recent: None,
            expires,
            local,
            announced,
            due: expires,
            generation,
            permissions: Vec::new(),
            channels: Vec::new(),
        }) as u32);
        self.allocations[allocation.0 as usize].relays[Family::of(local.ip()) as usize] = Some(id);
        (id, Owner::Relay(id, generation))
    }

    /// Marks the socket of a relay as open.
    pub fn mark_open(&mut self, id: RelayId) {
        if let Some(relay) = self.relays.get_mut(id.0 as usize) {
            relay.open = true;
        }
    }

    /// Replaces the addresses of a relay that is not open yet. The new ones are of the same family.
    pub fn exchange_address(&mut self, id: RelayId, local: OnWire, announced: Announced) {
        if let Some(relay) = self.relays.get_mut(id.0 as usize) {
            (relay.local, relay.announced) = (local, announced);
        }
    }

    /// Marks an allocation whose sockets are open as established, from `now` until `expires`.
    pub fn establish(&mut self, id: AllocationId, now: Instant, expires: Instant) -> Option<&Allocation> {
        let allocation = self.allocations.get_mut(id.0 as usize)?;
        (allocation.created, allocation.established) = (now, true);
        self.changes.note(|| allocation.as_created());
        for id in allocation.relays.into_iter().flatten() {
            let relay = &mut self.relays[id.0 as usize];
            relay.expires = expires;
            self.changes.note(|| relay.as_opened(id, allocation.client));
        }
        Some(allocation)
    }

    /// Sets the end of a relay's lifetime (RFC 8656 section 8.2). Returns the owner if the caller must add a
    /// deadline, because the new end is earlier than the relay's deadline in effect.
    pub fn refresh_relay(&mut self, id: RelayId, expires: Instant) -> Option<Owner> {
        self.forget_recent(id);
        let relay = self.relays.get_mut(id.0 as usize)?;
        relay.expires = expires;
        self.changes.note(|| TableChange::RelayRefreshed { relay: id, expires });
        let sooner = expires < relay.due;
        relay.due = relay.due.min(expires);
        sooner.then_some(Owner::Relay(id, relay.generation))
    }

    /// Returns whether the deadline `at` of an owner is in effect. It is not if the owner is gone, or if a refresh to
    /// an earlier end gave the relay another deadline.
    pub fn is_in_effect(&self, owner: Owner, at: Instant) -> bool {
        match owner {
            Owner::Relay(id, generation) => self
                .relays
                .get(id.0 as usize)
                .is_some_and(|relay| relay.generation == generation && relay.due == at),
            owner => self.end_of(owner).is_some(),
        }
    }

    /// Moves the deadline in effect of a relay from `at` to `end`. Returns `false` if `at` is not in effect any more and
    /// must not be added again. Always returns `true` for other owners, because each has only one deadline.
    pub fn postpone(&mut self, owner: Owner, at: Instant, end: Instant) -> bool {
        match owner {
            Owner::Relay(id, _) => self.relays.get_mut(id.0 as usize).is_some_and(|relay| {
                let in_effect = relay.due == at;
                relay.due = if in_effect { end } else { relay.due };
                in_effect
            }),
            _ => true,
        }
    }

    /// Removes a relay with all its permissions and channels.
    pub fn remove_relay(&mut self, id: RelayId) -> Option<Relay> {
        let relay = self.relays.try_remove(id.0 as usize)?;
        self.entries_gone(relay.allocation, relay.permissions.len() + relay.channels.len());
        for &id in &relay.channels {
            let channel = self.channels.remove(id.0 as usize);
            self.forget_channel(id, &channel);
            self.changes.note(|| channel.as_removed());
        }
        for &PermissionId(position) in &relay.permissions {
            let permission = self.permissions.remove(position as usize);
            self.by_ip.remove(&self.hasher, position, &permission);
            self.changes.note(|| TableChange::PermissionRemoved { relay: id, ip: permission.ip });
        }
        if let Some(allocation) = self.allocations.get_mut(relay.allocation.0 as usize) {
            if allocation.established {
                self.changes.note(|| TableChange::RelayClosed { relay: id });
            }
            allocation.relays[Family::of(relay.local.ip()) as usize] = None;
            allocation.recent = None;
        }
        self.give_back_memory();
        Some(relay)
    }

    /// Removes an allocation whose relays are gone.
    pub fn remove_allocation(&mut self, id: AllocationId) -> Option<Allocation> {
        let allocation = self.allocations.try_remove(id.0 as usize)?;
        self.meters.leave(allocation.payers);
        if allocation.established {
            self.changes.note(|| TableChange::AllocationEnded { client: allocation.client });
        }
        self.by_client.remove(&self.hasher, id.0, &allocation);
        self.give_back_memory();
        Some(allocation)
    }

    /// The end of an owner's entry, or `None` if it is gone. The entry of a permission is kept as long as channels refer to it.
    /// Whether data may pass depends on the permission's own lifetime.
    pub fn end_of(&self, owner: Owner) -> Option<Instant> {
        match owner {
            Owner::Relay(id, generation) => self
                .relays
                .get(id.0 as usize)
                .filter(|relay| relay.generation == generation)
                .map(|relay| relay.expires),
            Owner::Permission(id, generation) => {
                let permission =
                    self.permissions.get(id.0 as usize).filter(|p| p.generation == generation)?;
                match permission.channels {
                    0 => Some(permission.expires),
                    _ => Some(permission.expires.max(permission.held_until) + Duration::from_secs(1)),
                }
            }
            Owner::Channel(id, generation) => {
                self.channels.get(id.0 as usize).filter(|c| c.generation == generation).map(|c| c.expires)
            }
            Owner::Reservation(_) => None,
        }
    }

    /// Removes an expired permission.
    pub fn remove_permission(&mut self, id: PermissionId) {
        let Some(permission) = self.permissions.try_remove(id.0 as usize) else { return };
        self.entry_gone(permission.relay);
        self.forget_recent(permission.relay);
        self.by_ip.remove(&self.hasher, id.0, &permission);
        let Permission { relay, ip, .. } = permission;
        self.changes.note(|| TableChange::PermissionRemoved { relay, ip });
        let list = &mut self.relays[permission.relay.0 as usize].permissions;
        list.swap_remove(permission.position as usize);
        if let Some(moved) = list.get(permission.position as usize) {
            self.permissions[moved.0 as usize].position = permission.position;
        }
        self.give_back_memory();
    }

    /// Removes an expired channel.
    pub fn remove_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.try_remove(id.0 as usize) else { return };
        self.forget_channel(id, &channel);
        self.changes.note(|| channel.as_removed());
        self.permissions[channel.permission.0 as usize].channels -= 1;
        self.entry_gone(channel.relay);
        self.forget_recent(channel.relay);
        let list = &mut self.relays[channel.relay.0 as usize].channels;
        list.swap_remove(channel.position as usize);
        if let Some(moved) = list.get(channel.position as usize) {
            self.channels[moved.0 as usize].position = channel.position;
        }
        self.give_back_memory();
    }

    /// Removes a channel that has left the slab from the indexes.
    fn forget_channel(&mut self, id: ChannelId, channel: &Channel) {
        self.by_number.remove(&self.hasher, id.0, channel);
        self.by_peer.remove(&self.hasher, id.0, channel);
    }

    /// Counts one permission or channel fewer for this relay's user.
    fn entry_gone(&mut self, relay: RelayId) {
        self.entries_gone(self.relays[relay.0 as usize].allocation, 1);
    }

    fn entries_gone(&mut self, allocation: AllocationId, gone: usize) {
        if let Some(allocation) = self.allocations.get_mut(allocation.0 as usize) {
            allocation.place.remove_entries(gone);
        }
    }

    /// Counts one permission or channel more for this relay's user.
    fn entry_added(&mut self, relay: RelayId) {
        let allocation = self.relays[relay.0 as usize].allocation;
        self.allocations[allocation.0 as usize].place.add_entry();
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Returns memory once a structure is nearly empty after a burst; in steady state this does nothing.
    fn give_back_memory(&mut self) {
        self.by_client.give_back_memory(&self.hasher, &self.allocations);
        self.by_ip.give_back_memory(&self.hasher, &self.permissions);
        self.by_number.give_back_memory(&self.hasher, &self.channels);
        self.by_peer.give_back_memory(&self.hasher, &self.channels);
        fn shrink_slab<T>(slab: &mut Slab<T>) {
            if slab.is_empty() && slab.capacity() > KEEP {
                slab.shrink_to_fit();
            }
        }
        shrink_slab(&mut self.permissions);
        shrink_slab(&mut self.channels);
        shrink_slab(&mut self.relays);
        shrink_slab(&mut self.allocations);
    }
}
