//! A mirror of one worker's table, built only from the reported changes, and its comparison with snapshots of the table.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hallpass::base::time::{Instant, Now};
use hallpass::turn::action::RelayId;
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::change::TableChange;
use hallpass::turn::five_tuple::Client;
use hallpass::turn::server::Server;
use hallpass::turn::snapshot::{Cursor, LiveSession};

/// Places covered by one page of a snapshot: few, so that there are several pages.
const PAGE: usize = 3;

#[derive(Debug)]
struct Relay {
    client: Client,
    address: OnWire,
    announced: Announced,
    expires: Instant,
    permissions: HashMap<IpAddr, Instant>,
    channels: HashMap<u16, (OnWire, Instant)>,
}

#[derive(Debug, Default)]
pub struct Mirror {
    /// The number of relays of each client.
    clients: HashMap<Client, u32>,
    relays: HashMap<RelayId, Relay>,
}

/// The compared properties of a relay: owner, addresses, remaining lifetime, live permissions and channels.
type Seen =
    (String, OnWire, Announced, Duration, BTreeMap<IpAddr, Duration>, BTreeMap<u16, (SocketAddr, Duration)>);

impl Mirror {
    /// Applies one change. Panics if it contradicts the mirror.
    pub fn apply(&mut self, change: TableChange) {
        match change {
            TableChange::AllocationCreated { client, .. } => {
                assert_eq!(self.clients.insert(client, 0), None, "created twice");
            }
            TableChange::AllocationEnded { client } => {
                assert_eq!(self.clients.remove(&client), Some(0), "ended with relays");
            }
            TableChange::RelayOpened { relay, client, address, announced, expires } => {
                *self.clients.get_mut(&client).expect("an allocation") += 1;
                let (permissions, channels) = (HashMap::new(), HashMap::new());
                let opened = Relay { client, address, announced, expires, permissions, channels };
                assert!(self.relays.insert(relay, opened).is_none(), "opened twice");
            }
            TableChange::RelayRefreshed { relay, expires } => self.relay(relay).expires = expires,
            TableChange::RelayClosed { relay } => {
                let closed = self.relays.remove(&relay).expect("an open relay");
                assert!(closed.permissions.is_empty() && closed.channels.is_empty(), "{closed:?}");
                *self.clients.get_mut(&closed.client).expect("an allocation") -= 1;
            }
            TableChange::PermissionInstalled { relay, ip, expires, .. } => {
                self.relay(relay).permissions.insert(ip, expires);
            }
            TableChange::PermissionRemoved { relay, ip } => {
                assert!(self.relay(relay).permissions.remove(&ip).is_some(), "no permission for {ip}");
            }
            TableChange::ChannelBound { relay, number, peer, expires } => {
                let before = self.relay(relay).channels.insert(number, (peer, expires));
                assert!(before.is_none_or(|(bound, _)| bound == peer), "{number} was bound to {before:?}");
            }
            TableChange::ChannelRemoved { relay, number, peer } => {
                let removed = self.relay(relay).channels.remove(&number);
                assert_eq!(removed.map(|(peer, _)| peer), Some(peer));
            }
        }
    }

    fn relay(&mut self, relay: RelayId) -> &mut Relay {
        self.relays.get_mut(&relay).expect("an open relay")
    }

    /// Compares the mirror with a snapshot of the table.
    pub fn compare(&self, server: &Server, now: Now) {
        let mut table: BTreeMap<RelayId, Seen> = BTreeMap::new();
        let sessions = sessions(server, now);
        for session in &sessions {
            assert!(self.clients.contains_key(&session.client), "{:?} is missing", session.client);
            for relay in &session.relays {
                let permissions = relay.permissions.iter().map(|permission| (permission.ip, permission.left));
                let channels =
                    relay.channels.iter().map(|channel| (channel.number, (channel.peer.0, channel.left)));
                table.insert(
                    relay.relay,
                    (
                        format!("{:?}", session.client),
                        relay.address,
                        relay.announced,
                        relay.left,
                        permissions.collect(),
                        channels.collect(),
                    ),
                );
            }
        }
        assert_eq!(self.clients.len(), sessions.len());
        let left = |expires: Instant| Some(expires.since(now.instant)).filter(|left| !left.is_zero());
        let mirrored: BTreeMap<RelayId, Seen> = self
            .relays
            .iter()
            .map(|(&id, relay)| {
                let permissions = relay.permissions.iter().filter_map(|(&ip, &end)| Some((ip, left(end)?)));
                let channels =
                    relay.channels.iter().filter_map(|(&n, &(peer, end))| Some((n, (peer.0, left(end)?))));
                let seen = (
                    format!("{:?}", relay.client),
                    relay.address,
                    relay.announced,
                    left(relay.expires).unwrap_or_default(),
                    permissions.collect(),
                    channels.collect(),
                );
                (id, seen)
            })
            .collect();
        assert_eq!(mirrored, table);
    }
}

/// Returns all sessions of a server, read page by page.
pub fn sessions(server: &Server, now: Now) -> Vec<LiveSession> {
    let (mut all, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = next {
        let page = server.snapshot(now, at, PAGE);
        assert!(page.sessions.len() <= PAGE);
        all.extend(page.sessions);
        next = page.next;
    }
    all
}
