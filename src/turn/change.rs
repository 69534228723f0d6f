//! Changes of the table, for a mirror of it elsewhere, such as a fast path in the kernel.
//!
//! They are reported only after [`Server::handle_mirror`](super::server::Server::handle_mirror). A mirror that applies all of
//! them in order relays exactly what the table relays: it compares every `expires` with the clock at use, as the table does,
//! because the table removes expired entries later.

use std::net::IpAddr;

use super::address::{Announced, OnWire};
use super::five_tuple::Client;
use super::id::RelayId;
use super::identity::peer_policy::Reach;
use crate::base::host::HostId;
use crate::base::time::Instant;

/// One change of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableChange {
    /// A client's allocation was established. Its relays follow.
    AllocationCreated {
        /// Five-tuple and link.
        client: Client,
        /// The host that its packets count for.
        host: HostId,
    },
    /// An allocation ended; its relays were closed before.
    AllocationEnded {
        /// Five-tuple and link.
        client: Client,
    },
    /// A relayed address of an established allocation is open.
    RelayOpened {
        /// Its number, until it is closed.
        relay: RelayId,
        /// The owner of the allocation.
        client: Client,
        /// The address of its socket.
        address: OnWire,
        /// The address that clients are told.
        announced: Announced,
        /// The end of its lifetime.
        expires: Instant,
    },
    /// A Refresh set the lifetime of a relay.
    RelayRefreshed {
        /// The relay.
        relay: RelayId,
        /// The new end of its lifetime.
        expires: Instant,
    },
    /// A relay was closed; its channels and permissions ended before.
    RelayClosed {
        /// The relay.
        relay: RelayId,
    },
    /// A permission was installed, refreshed, or judged again by new settings. One with an `expires` in the past permits nothing.
    PermissionInstalled {
        /// The relay.
        relay: RelayId,
        /// The address of the peer, as packets carry it.
        ip: IpAddr,
        /// Which ports of the peer it covers.
        reach: Reach,
        /// The end of its lifetime.
        expires: Instant,
    },
    /// A permission was removed.
    PermissionRemoved {
        /// The relay.
        relay: RelayId,
        /// The address of the peer, as packets carry it.
        ip: IpAddr,
    },
    /// A channel was bound or refreshed. Data passes only while its peer's permission is live as well.
    ChannelBound {
        /// The relay.
        relay: RelayId,
        /// The channel number.
        number: u16,
        /// The peer.
        peer: OnWire,
        /// The end of its lifetime.
        expires: Instant,
    },
    /// A channel was removed.
    ChannelRemoved {
        /// The relay.
        relay: RelayId,
        /// The channel number.
        number: u16,
        /// The peer.
        peer: OnWire,
    },
}
