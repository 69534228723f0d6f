//! Snapshots: a worker's sessions at one moment, as values.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::action::Traffic;
use super::address::{Announced, OnWire};
use super::five_tuple::Client;
use super::id::RelayId;
use crate::base::host::HostId;

/// The most permissions, and the most channels, of one relay that a snapshot reads; the others are only counted.
pub const ENTRIES_MAX: usize = 64;

/// A position in a worker's sessions. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub(super) u32);

/// One page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Established allocations, in no particular order.
    pub sessions: Vec<LiveSession>,
    /// Where the next page begins; `None` after the last one.
    ///
    /// A session that lives from the first page to the last is on exactly one of them. One that begins or ends meanwhile may
    /// be missing.
    pub next: Option<Cursor>,
}

/// One established allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// Five-tuple and link.
    pub client: Client,
    /// The user name as sent (REST: `expiry:user`).
    pub user: Arc<str>,
    /// The named host whose secret verified.
    pub host: Arc<str>,
    /// That host's number.
    pub host_id: HostId,
    /// Time since the Allocate success.
    pub age: Duration,
    /// Time since its client last sent data or an authenticated request.
    pub idle: Duration,
    /// Payload relayed towards peers.
    pub from_client: Traffic,
    /// Payload relayed towards the client.
    pub from_peer: Traffic,
    /// Datagrams for peers that could not be sent.
    pub unsent: u32,
    /// Those among them for which this machine has no route.
    pub no_route: u32,
    /// Datagrams dropped because of a bandwidth limit.
    pub over_rate: u32,
    /// One or two relayed addresses.
    pub relays: Vec<LiveRelay>,
}

/// One relayed address of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRelay {
    /// Its number.
    pub relay: RelayId,
    /// The address of its socket.
    pub address: OnWire,
    /// The address that clients are told.
    pub announced: Announced,
    /// Lifetime left; zero if it has expired and is not removed yet.
    pub left: Duration,
    /// Permissions held, including those that have expired and are not removed yet.
    pub permission_count: usize,
    /// The live ones among the first [`ENTRIES_MAX`].
    pub permissions: Vec<LivePermission>,
    /// Channels held, including those that have expired and are not removed yet.
    pub channel_count: usize,
    /// The live ones among the first [`ENTRIES_MAX`].
    pub channels: Vec<LiveChannel>,
}

/// One live permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePermission {
    /// The address of the peer, as packets carry it.
    pub ip: IpAddr,
    /// Lifetime left.
    pub left: Duration,
}

/// One live channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveChannel {
    /// The channel number.
    pub number: u16,
    /// The peer.
    pub peer: OnWire,
    /// Lifetime left. Data passes only while the peer's permission is live as well.
    pub left: Duration,
}
