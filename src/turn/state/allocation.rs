//! The entries of the table: allocations, relays, permissions and channels.
//!
//! Only the table and its submodules change the fields that are not public.

use std::net::IpAddr;
use std::sync::Arc;

use super::meter::{Meter, Payers};
use super::port_pool::Token;
use super::quota::Place;
use crate::base::host::HostId;
use crate::base::time::Instant;
use crate::turn::action::Traffic;
use crate::turn::address::{Announced, OnWire};
use crate::turn::change::TableChange;
use crate::turn::five_tuple::Client;
use crate::turn::id::{AllocationId, RelayId};
use crate::turn::identity::auth::Identity;
use crate::turn::identity::peer_policy::Reach;

/// Identifies a permission within its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PermissionId(pub(super) u32);

/// Identifies a channel within its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(super) u32);

/// The owner of a deadline. A generation tells it from a later owner with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A relay, and with its last one the allocation.
    Relay(RelayId, u32),
    /// A permission.
    Permission(PermissionId, u32),
    /// A channel.
    Channel(ChannelId, u32),
    /// A reservation in the port pool.
    Reservation(Token),
}

/// One client's allocation: one or two relays on one five-tuple (RFC 8656 section 3.2).
// The fields that every packet needs come first, so that they share few cache lines.
#[repr(C)]
#[derive(Debug)]
pub struct Allocation {
    /// Five-tuple and link.
    pub client: Client,
    /// The route of the last ChannelData.
    pub(super) recent: Option<RecentChannel>,
    /// Relayed towards peers.
    pub from_client: Traffic,
    /// Relayed towards the client.
    pub from_peer: Traffic,
    /// When its client last sent data or an authenticated request.
    pub heard: Instant,
    /// The used part of its rate limit.
    pub(super) meter: Meter,
    /// The user that its packets count for, and who shares the worker's time for it.
    pub(super) payers: Payers,
    /// The host that its packets count for.
    pub host: HostId,
    /// Whether it ever had a permission.
    pub permitted: bool,
    /// Whether its sockets are open and the client has been told. Before that, the client has no allocation.
    pub established: bool,
    /// Whether its client ever sent data to a peer.
    pub sent: bool,
    /// Whether a peer ever sent data to it.
    pub received: bool,
    /// The authenticated user that made it.
    pub identity: Arc<Identity>,
    /// Its relays, by family.
    pub relays: [Option<RelayId>; 2],
    /// When it was established.
    pub created: Instant,
    /// Its place in the quota, held until it ends.
    pub place: Place,
    /// Datagrams for peers that could not be sent.
    pub unsent: u32,
    /// Those among them for which this machine has no route.
    pub no_route: u32,
    /// Datagrams dropped because of a bandwidth limit.
    pub over_rate: u32,
}

impl Allocation {
    /// Whether this user made the allocation.
    pub fn belongs_to(&self, identity: &Identity) -> bool {
        self.identity.name == identity.name && self.identity.host == identity.host
    }

    /// Whether the same user made it, perhaps under a name with another time. A name without a user part identifies no user.
    pub fn has_user(&self, identity: &Identity) -> bool {
        let user = &self.identity.user;
        !user.is_empty() && *user == identity.user && self.identity.host == identity.host
    }

    /// The change that tells a mirror about this allocation.
    pub(super) fn as_created(&self) -> TableChange {
        TableChange::AllocationCreated { client: self.client, host: self.host }
    }
}

/// One relayed transport address.
// The fields that every packet needs come first, so that they share few cache lines.
#[repr(C)]
#[derive(Debug)]
pub struct Relay {
    /// Its allocation.
    pub allocation: AllocationId,
    /// Whether the socket is open.
    pub open: bool,
    /// How the last datagram of a peer reached the client.
    pub(super) recent: Option<RecentPeer>,
    /// The end of its lifetime.
    pub expires: Instant,
    /// The address of its socket.
    pub local: OnWire,
    /// The address that clients are told.
    pub announced: Announced,
    /// The deadline in effect. Other deadlines of this relay in the heap are left over from longer lifetimes.
    pub(super) due: Instant,
    pub(super) generation: u32,
    pub(super) permissions: Vec<PermissionId>,
    pub(super) channels: Vec<ChannelId>,
}

impl Relay {
    /// The change that tells a mirror about this relay of `client`.
    pub(super) fn as_opened(&self, relay: RelayId, client: Client) -> TableChange {
        let Self { local: address, announced, expires, .. } = *self;
        TableChange::RelayOpened { relay, client, address, announced, expires }
    }
}

/// One permission of a relay (RFC 8656 section 9).
#[derive(Debug)]
pub(super) struct Permission {
    pub relay: RelayId,
    pub ip: IpAddr,
    pub reach: Reach,
    pub expires: Instant,
    /// The latest end of a channel that refers to it.
    pub held_until: Instant,
    /// Channels that refer to it; while there are any, the entry stays.
    pub channels: u32,
    pub generation: u32,
    /// Its index in its relay's list.
    pub position: u32,
}

impl Permission {
    /// The change that tells a mirror about this permission.
    pub fn as_installed(&self) -> TableChange {
        let Self { relay, ip, reach, expires, .. } = *self;
        TableChange::PermissionInstalled { relay, ip, reach, expires }
    }
}

/// One channel binding of a relay (RFC 8656 section 12).
#[derive(Debug)]
pub(super) struct Channel {
    pub allocation: AllocationId,
    pub relay: RelayId,
    pub number: u16,
    pub peer: OnWire,
    pub permission: PermissionId,
    pub expires: Instant,
    pub generation: u32,
    /// Its index in its relay's list.
    pub position: u32,
}

impl Channel {
    /// The change that tells a mirror about this channel.
    pub fn as_bound(&self) -> TableChange {
        let Self { relay, number, peer, expires, .. } = *self;
        TableChange::ChannelBound { relay, number, peer, expires }
    }

    /// The change that tells a mirror that this channel is gone.
    pub fn as_removed(&self) -> TableChange {
        let Self { relay, number, peer, .. } = *self;
        TableChange::ChannelRemoved { relay, number, peer }
    }
}

/// Where a channel leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentChannel {
    /// When the first of channel, permission and relay expires.
    pub until: Instant,
    pub relay: RelayId,
    pub number: u16,
    pub reach: Reach,
    pub peer: OnWire,
}

/// How a peer's datagrams reach the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentPeer {
    /// When the first of relay, permission and channel expires.
    pub until: Instant,
    pub channel: Option<u16>,
    pub reach: Reach,
    pub peer: OnWire,
}
