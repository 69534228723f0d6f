//! Reads of the whole table: snapshots, and the changes that bring a new mirror up to date. They need every field of
//! [`Table`], so they are methods of it.

use super::Table;
use crate::base::time::Instant;
use crate::turn::change::TableChange;
use crate::turn::five_tuple::Link;
use crate::turn::id::RelayId;
use crate::turn::snapshot::{Cursor, ENTRIES_MAX, LiveChannel, LivePermission, LiveRelay, LiveSession, Page};
use crate::turn::state::allocation::{Allocation, Channel, Permission};

impl Table {
    /// The established allocations in the next `max` slots from `after` on. Slots may be vacant, so any page may have fewer
    /// than `max` sessions, or none.
    pub fn page(&self, now: Instant, after: Cursor, max: usize) -> Page {
        let start = after.0 as usize;
        let end = start.saturating_add(max.max(1)).min(self.allocations.capacity());
        let allocations = (start..end).filter_map(|slot| self.allocations.get(slot));
        let established = allocations.filter(|allocation| allocation.established);
        Page {
            sessions: established.map(|allocation| self.session(now, allocation)).collect(),
            // Ids have 32 bits.
            next: (end < self.allocations.capacity()).then_some(Cursor(end as u32)),
        }
    }

    /// Whether any client on this link has an allocation.
    pub fn has_link(&self, link: Link) -> bool {
        self.allocations.iter().any(|(_, allocation)| allocation.client.link == link)
    }

    fn session(&self, now: Instant, allocation: &Allocation) -> LiveSession {
        let identity = &allocation.identity;
        LiveSession {
            client: allocation.client,
            user: identity.name.clone(),
            host: identity.host_name.clone(),
            host_id: identity.host,
            age: now.since(allocation.created),
            idle: now.since(allocation.heard),
            from_client: allocation.from_client,
            from_peer: allocation.from_peer,
            unsent: allocation.unsent,
            no_route: allocation.no_route,
            over_rate: allocation.over_rate,
            relays: allocation.relays.iter().flatten().filter_map(|&id| self.live_relay(now, id)).collect(),
        }
    }

    fn live_relay(&self, now: Instant, id: RelayId) -> Option<LiveRelay> {
        let relay = self.relay(id)?;
        // Truncated before the filter, so that the work for a page has an upper bound.
        let permissions =
            relay.permissions.iter().take(ENTRIES_MAX).map(|id| &self.permissions[id.0 as usize]);
        let channels = relay.channels.iter().take(ENTRIES_MAX).map(|id| &self.channels[id.0 as usize]);
        let permission = |permission: &Permission| LivePermission {
            ip: permission.ip,
            left: permission.expires.since(now),
        };
        let channel = |channel: &Channel| LiveChannel {
            number: channel.number,
            peer: channel.peer,
            left: channel.expires.since(now),
        };
        Some(LiveRelay {
            relay: id,
            address: relay.local,
            announced: relay.announced,
            left: relay.expires.since(now),
            permission_count: relay.permissions.len(),
            permissions: permissions.filter(|permission| permission.expires > now).map(permission).collect(),
            channel_count: relay.channels.len(),
            channels: channels.filter(|channel| channel.expires > now).map(channel).collect(),
        })
    }

    /// Switches the report of changes on or off. Switched on, it begins with what the table holds.
    pub fn report_changes(&mut self, on: bool) {
        self.changes.set(on);
        if !on {
            return;
        }
        let established = self.allocations.iter().filter(|(_, allocation)| allocation.established);
        for (_, allocation) in established {
            self.changes.note(|| allocation.as_created());
            for &id in allocation.relays.iter().flatten() {
                let relay = &self.relays[id.0 as usize];
                self.changes.note(|| relay.as_opened(id, allocation.client));
                for id in &relay.permissions {
                    self.changes.note(|| self.permissions[id.0 as usize].as_installed());
                }
                for id in &relay.channels {
                    self.changes.note(|| self.channels[id.0 as usize].as_bound());
                }
            }
        }
    }

    /// Whether a change is queued.
    pub fn has_change(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The next change, in order.
    pub fn next_change(&mut self) -> Option<TableChange> {
        self.changes.pop()
    }
}
