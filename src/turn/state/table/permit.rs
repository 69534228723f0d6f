//! Installs permissions (RFC 8656 section 9) and binds channels (section 12). Both need most fields of [`Table`], so these are
//! methods of it.

use std::net::IpAddr;

use super::Table;
use crate::base::time::Instant;
use crate::turn::address::OnWire;
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::peer_policy::Reach;
use crate::turn::state::allocation::{Allocation, Channel, ChannelId, Owner, Permission, PermissionId};

/// One page of a review of the permissions.
#[derive(Clone, Copy, Debug)]
pub struct ReviewPage {
    /// The first position in the table.
    pub from: usize,
    /// The page ends after this many looks at a position.
    pub looks: usize,
    /// The looks that judging a permission counts for.
    pub judged: usize,
}

impl Table {
    /// The number of permissions of this relay.
    pub fn permission_count(&self, relay: RelayId) -> usize {
        self.relays.get(relay.0 as usize).map_or(0, |relay| relay.permissions.len())
    }

    /// The number of channels of this relay.
    pub fn channel_count(&self, relay: RelayId) -> usize {
        self.relays.get(relay.0 as usize).map_or(0, |relay| relay.channels.len())
    }

    /// Whether there is a permission for this address, live or expired.
    pub fn has_permission(&self, relay: RelayId, ip: IpAddr) -> bool {
        self.permission_of(relay, ip).is_some()
    }

    /// Whether packets for this address may pass now.
    pub fn is_permitted(&self, relay: RelayId, ip: IpAddr, now: Instant) -> bool {
        self.permission_of(relay, ip).is_some_and(|id| self.permissions[id.0 as usize].expires > now)
    }

    /// Judges a page of the permissions again: those whose peer `concerns` selects. Those that `judge` refuses end now, and
    /// their channels relay nothing; the others get their new reach. Returns how many ended, and where the next page begins.
    pub fn review_permissions(
        &mut self,
        now: Instant,
        page: ReviewPage,
        concerns: impl Fn(IpAddr) -> bool,
        judge: impl Fn(&Allocation, IpAddr) -> Option<Reach>,
    ) -> (usize, Option<usize>) {
        let (mut ended, mut looks) = (0, 0);
        for position in page.from..self.permissions.capacity() {
            if looks >= page.looks {
                return (ended, Some(position));
            }
            looks += 1;
            let Some(permission) = self.permissions.get_mut(position) else { continue };
            if !concerns(permission.ip) {
                continue;
            }
            looks += page.judged;
            let relay = &mut self.relays[permission.relay.0 as usize];
            let allocation = &mut self.allocations[relay.allocation.0 as usize];
            match judge(allocation, permission.ip) {
                Some(reach) if reach == permission.reach => continue,
                Some(reach) => permission.reach = reach,
                None => {
                    ended += usize::from(permission.expires > now);
                    permission.expires = Instant::default();
                }
            }
            (relay.recent, allocation.recent) = (None, None);
            self.changes.note(|| permission.as_installed());
        }
        (ended, None)
    }

    /// Installs or refreshes a permission (RFC 8656 section 9). Returns the owner of a new one, which needs a deadline. A live
    /// permission keeps its reach if that is wider: the client may name the same address in another form.
    pub fn permit(
        &mut self,
        relay: RelayId,
        ip: IpAddr,
        reach: Reach,
        now: Instant,
        expires: Instant,
    ) -> (PermissionId, Option<Owner>) {
        self.forget_recent(relay);
        if let Some(id) = self.permission_of(relay, ip) {
            let permission = &mut self.permissions[id.0 as usize];
            permission.reach = if permission.expires > now { permission.reach.min(reach) } else { reach };
            permission.expires = expires;
            self.changes.note(|| permission.as_installed());
            return (id, None);
        }
        let generation = self.next_generation();
        let position = self.relays[relay.0 as usize].permissions.len() as u32;
        let permission =
            Permission { relay, ip, reach, expires, held_until: expires, channels: 0, generation, position };
        self.changes.note(|| permission.as_installed());
        let id = PermissionId(self.permissions.insert(permission) as u32);
        self.relays[relay.0 as usize].permissions.push(id);
        self.entry_added(relay);
        self.by_ip.insert(&self.hasher, &self.permissions, id.0);
        (id, Some(Owner::Permission(id, generation)))
    }

    /// The peer that `number` is bound to, and the number that `peer` is bound to. Expired bindings do not count.
    pub fn bindings(
        &self,
        allocation: AllocationId,
        relay: RelayId,
        number: u16,
        peer: OnWire,
        now: Instant,
    ) -> (Option<OnWire>, Option<u16>) {
        let alive =
            |id: ChannelId| Some(&self.channels[id.0 as usize]).filter(|channel| channel.expires > now);
        (
            self.channel_with(allocation, number).and_then(alive).map(|channel| channel.peer),
            self.channel_to(relay, peer).and_then(alive).map(|channel| channel.number),
        )
    }

    /// Binds or refreshes a channel (RFC 8656 section 12.2) whose number and peer are unbound or bound to each other. Returns
    /// the owner of a new one, which needs a deadline.
    pub fn bind(
        &mut self,
        relay: RelayId,
        number: u16,
        peer: OnWire,
        permission: PermissionId,
        expires: Instant,
    ) -> Option<Owner> {
        self.forget_recent(relay);
        let allocation = self.relays[relay.0 as usize].allocation;
        let same = self.channel_with(allocation, number);
        let other = self.channel_to(relay, peer);
        let hold = &mut self.permissions[permission.0 as usize];
        hold.held_until = hold.held_until.max(expires);
        if let (Some(id), true) = (same, same == other) {
            let channel = &mut self.channels[id.0 as usize];
            channel.expires = expires;
            self.changes.note(|| channel.as_bound());
            return None;
        }
        // Conflicting bindings have expired and are not removed yet.
        for id in [same, other].into_iter().flatten() {
            self.remove_channel(id);
        }
        let generation = self.next_generation();
        let position = self.relays[relay.0 as usize].channels.len() as u32;
        let channel = Channel { allocation, relay, number, peer, permission, expires, generation, position };
        self.changes.note(|| channel.as_bound());
        let id = ChannelId(self.channels.insert(channel) as u32);
        self.permissions[permission.0 as usize].channels += 1;
        self.relays[relay.0 as usize].channels.push(id);
        self.entry_added(relay);
        self.by_number.insert(&self.hasher, &self.channels, id.0);
        self.by_peer.insert(&self.hasher, &self.channels, id.0);
        Some(Owner::Channel(id, generation))
    }
}
