//! The lookups on the path of every packet. They read and cache in the fields of [`Table`], so these are methods of it.
//!
//! Most packets go where the previous one went. That route is cached in the entry that is looked up anyway
//! ([`Allocation`], [`Relay`]) with the time until which it is valid. Between two packets of a client, the kernel's own
//! work evicts the CPU cache, so each additional cache line costs as much as all the arithmetic. Every change of a
//! relay, a permission or a channel clears the cached route.

use std::net::IpAddr;

use super::Table;
use crate::base::family::Family;
use crate::base::time::Instant;
use crate::turn::action::DropReason;
use crate::turn::address::OnWire;
use crate::turn::five_tuple::Client;
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::peer_policy::Reach;
use crate::turn::settings::Rates;
use crate::turn::state::allocation::{Allocation, Channel, Permission, RecentChannel, RecentPeer, Relay};
use crate::turn::state::meter::Counted;

/// Where a client's packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The allocation that the packet belongs to.
    pub allocation: AllocationId,
    /// The relay to send from.
    pub relay: RelayId,
    /// The destination.
    pub peer: OnWire,
    /// The reach of the permission.
    pub reach: Reach,
}

/// How a peer's packet reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// The allocation that the packet belongs to.
    pub allocation: AllocationId,
    /// The bound channel, if any.
    pub channel: Option<u16>,
    /// The reach of the permission.
    pub reach: Reach,
}

impl Table {
    /// Returns where ChannelData with this channel number goes (RFC 8656 section 12.6).
    ///
    /// # Errors
    /// `NoAllocation`, `NoChannel`, `NoPermission` or `NoRelay` if the named object does not exist or has expired.
    pub fn route_from_channel(
        &mut self,
        client: &Client,
        number: u16,
        now: Instant,
    ) -> Result<Route, DropReason> {
        let id = self.find(client).ok_or(DropReason::NoAllocation)?;
        if let Some(recent) = &self.allocations[id.0 as usize].recent
            && recent.number == number
            && recent.until > now
        {
            let RecentChannel { relay, reach, peer, .. } = *recent;
            return Ok(Route { allocation: id, relay, peer, reach });
        }
        let channel = self.channel_with(id, number).ok_or(DropReason::NoChannel)?;
        let channel = &self.channels[channel.0 as usize];
        let permission = &self.permissions[channel.permission.0 as usize];
        if channel.expires <= now {
            return Err(DropReason::NoChannel);
        }
        if permission.expires <= now {
            return Err(DropReason::NoPermission);
        }
        let relay = self.open_relay(channel.relay, now).ok_or(DropReason::NoRelay)?;
        let until = channel.expires.min(permission.expires).min(relay.expires);
        let Channel { relay, peer, .. } = *channel;
        let reach = permission.reach;
        self.allocations[id.0 as usize].recent = Some(RecentChannel { until, relay, number, reach, peer });
        Ok(Route { allocation: id, relay, peer, reach })
    }

    /// Returns where a Send indication for `peer` goes (RFC 8656 section 11.2).
    ///
    /// # Errors
    /// `NoAllocation`, `NoPermission` or `NoRelay` if the named object does not exist or has expired; `NoFamily` if the
    /// allocation has no relayed address of the peer's family.
    pub fn route_from_send(&self, client: &Client, peer: OnWire, now: Instant) -> Result<Route, DropReason> {
        let id = self.find(client).ok_or(DropReason::NoAllocation)?;
        let relay = self.allocations[id.0 as usize].relays[Family::of(peer.ip()) as usize]
            .ok_or(DropReason::NoFamily)?;
        let permission = self.permission(relay, peer.ip(), now).ok_or(DropReason::NoPermission)?;
        self.open_relay(relay, now).ok_or(DropReason::NoRelay)?;
        Ok(Route { allocation: id, relay, peer, reach: permission.reach })
    }

    /// Returns how a datagram from `peer` reaches the client (RFC 8656 section 11.3).
    ///
    /// # Errors
    /// `NoRelay` or `NoPermission` if the named object does not exist or has expired.
    pub fn route_from_peer(
        &mut self,
        relay: RelayId,
        peer: OnWire,
        now: Instant,
    ) -> Result<Return, DropReason> {
        let entry = self.open_relay(relay, now).ok_or(DropReason::NoRelay)?;
        let allocation = entry.allocation;
        if let Some(recent) = &entry.recent
            && recent.until > now
            && recent.peer == peer
        {
            return Ok(Return { allocation, channel: recent.channel, reach: recent.reach });
        }
        let mut until = entry.expires;
        let mut channel = None;
        let permission = match self.channel_to(relay, peer) {
            Some(id) => {
                let bound = &self.channels[id.0 as usize];
                if bound.expires > now {
                    until = until.min(bound.expires);
                    channel = Some(bound.number);
                }
                Some(&self.permissions[bound.permission.0 as usize]).filter(|found| found.expires > now)
            }
            None => self.permission(relay, peer.ip(), now),
        };
        let permission = permission.ok_or(DropReason::NoPermission)?;
        let (reach, until) = (permission.reach, until.min(permission.expires));
        self.relays[relay.0 as usize].recent = Some(RecentPeer { until, channel, reach, peer });
        Ok(Return { allocation, channel, reach })
    }

    /// Counts `len` relayed bytes, from the client or from a peer, for an allocation, its user and its host. Returns the
    /// allocation.
    ///
    /// # Errors
    /// The limit that was exceeded, or `NoAllocation`.
    pub fn count(
        &mut self,
        id: AllocationId,
        now: Instant,
        rates: &Rates,
        len: usize,
        from_client: bool,
    ) -> Result<&mut Allocation, DropReason> {
        let allocation = self.allocations.get_mut(id.0 as usize).ok_or(DropReason::NoAllocation)?;
        if !rates.are_none() {
            let queued = from_client && !allocation.client.five_tuple.transport.is_stream();
            let counted = Counted { len, queued };
            let counted = self.meters.count(now, rates, &mut allocation.meter, allocation.payers, counted);
            if let Err(reason) = counted {
                if reason != DropReason::Backlog {
                    allocation.over_rate = allocation.over_rate.saturating_add(1);
                }
                return Err(reason);
            }
        }
        Ok(allocation)
    }

    /// Sets whether others are waiting behind the next datagrams of clients over UDP.
    pub fn set_backlog(&mut self, is_waiting: bool) {
        self.meters.set_backlog(is_waiting);
    }

    fn open_relay(&self, relay: RelayId, now: Instant) -> Option<&Relay> {
        self.relays.get(relay.0 as usize).filter(|relay| relay.open && relay.expires > now)
    }

    /// Clears the cached routes of this relay after a change.
    pub(super) fn forget_recent(&mut self, relay: RelayId) {
        if let Some(relay) = self.relays.get_mut(relay.0 as usize) {
            relay.recent = None;
            if let Some(allocation) = self.allocations.get_mut(relay.allocation.0 as usize) {
                allocation.recent = None;
            }
        }
    }

    fn permission(&self, relay: RelayId, ip: IpAddr, now: Instant) -> Option<&Permission> {
        let id = self.permission_of(relay, ip)?;
        Some(&self.permissions[id.0 as usize]).filter(|permission| permission.expires > now)
    }
}
