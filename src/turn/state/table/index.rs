//! Finds the entries of a slab by their keys.
//!
//! An index stores numbers only: the key is read from the entry, which is needed next anyway. With the keys of permissions and
//! channels in it, an idle allocation would take 150 bytes more.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::IpAddr;

use hashbrown::HashTable;
use slab::Slab;

use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;
use crate::turn::id::RelayId;
use crate::turn::keyed_hash::KeyedState;
use crate::turn::state::allocation::{Allocation, Channel, Permission};

/// Below this capacity an index keeps its memory.
pub const KEEP: usize = 1024;

/// Relay and address, as 128 bits; IPv4 in its mapped form.
type IpKey = (u32, u128);
/// Relay, address and port.
type PeerKey = (u32, u128, u16);

/// The key of a permission.
pub(super) fn ip_key(relay: RelayId, ip: IpAddr) -> IpKey {
    let bits = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (relay.0, bits)
}

/// The key of a channel's peer.
pub(super) fn peer_key(relay: RelayId, peer: OnWire) -> PeerKey {
    let (relay, bits) = ip_key(relay, peer.ip());
    (relay, bits, peer.port())
}

/// What entries are found by. No two entries of a slab have the same key.
pub(super) trait Lookup {
    /// What is found.
    type Entry;
    /// What it is found by.
    type Key: Hash + PartialEq;

    /// The key of an entry.
    fn key(entry: &Self::Entry) -> Self::Key;
}

/// Allocations by client.
pub(super) enum ByClient {}

impl Lookup for ByClient {
    type Entry = Allocation;
    type Key = Client;

    fn key(allocation: &Allocation) -> Client {
        allocation.client
    }
}

/// Permissions by relay and address.
pub(super) enum ByIp {}

impl Lookup for ByIp {
    type Entry = Permission;
    type Key = IpKey;

    fn key(permission: &Permission) -> IpKey {
        ip_key(permission.relay, permission.ip)
    }
}

/// Channels by allocation and number.
pub(super) enum ByNumber {}

impl Lookup for ByNumber {
    type Entry = Channel;
    type Key = (u32, u16);

    fn key(channel: &Channel) -> (u32, u16) {
        (channel.allocation.0, channel.number)
    }
}

/// Channels by relay and peer.
pub(super) enum ByPeer {}

impl Lookup for ByPeer {
    type Entry = Channel;
    type Key = PeerKey;

    fn key(channel: &Channel) -> PeerKey {
        peer_key(channel.relay, channel.peer)
    }
}

/// An index of a slab. All calls are made with the same hasher and the same slab.
pub(super) struct Index<L> {
    positions: HashTable<u32>,
    lookup: PhantomData<L>,
}

impl<L> Default for Index<L> {
    fn default() -> Self {
        Self { positions: HashTable::new(), lookup: PhantomData }
    }
}

impl<L> fmt::Debug for Index<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.positions.fmt(f)
    }
}

fn hash<'a, L: Lookup>(hasher: &'a KeyedState, slab: &'a Slab<L::Entry>) -> impl Fn(&u32) -> u64 + 'a {
    |position| hasher.hash(&L::key(&slab[*position as usize]))
}

impl<L: Lookup> Index<L> {
    /// The position of the entry with this key.
    pub fn find(&self, hasher: &KeyedState, slab: &Slab<L::Entry>, key: &L::Key) -> Option<u32> {
        let same = |position: &u32| L::key(&slab[*position as usize]) == *key;
        self.positions.find(hasher.hash(key), same).copied()
    }

    /// Adds the entry at this position.
    pub fn insert(&mut self, hasher: &KeyedState, slab: &Slab<L::Entry>, position: u32) {
        let hash = hash::<L>(hasher, slab);
        self.positions.insert_unique(hash(&position), position, hash);
    }

    /// Removes an entry that has left the slab.
    pub fn remove(&mut self, hasher: &KeyedState, position: u32, entry: &L::Entry) {
        let hash = hasher.hash(&L::key(entry));
        if let Ok(found) = self.positions.find_entry(hash, |other| *other == position) {
            found.remove();
        }
    }

    /// Returns memory if the index is nearly empty.
    pub fn give_back_memory(&mut self, hasher: &KeyedState, slab: &Slab<L::Entry>) {
        let (capacity, len) = (self.positions.capacity(), self.positions.len());
        if capacity > KEEP && len < capacity / 8 {
            self.positions.shrink_to(len * 2, hash::<L>(hasher, slab));
        }
    }
}
