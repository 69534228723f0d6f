//! The sessions of the workers, for the admin pages.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::client_names::ClientNames;
use crate::admin::sessions::{Relayed, Session, SessionSource, Traffic};
use crate::net::sessions::SessionReader;
use crate::system::clock;
use crate::turn::action;
use crate::turn::snapshot::{LiveRelay, LiveSession};

/// Reads the sessions; there are none until the workers have started.
#[derive(Default)]
pub struct DeferredSessions {
    source: OnceLock<(SessionReader, ClientNames)>,
    allocations_per_user: AtomicU32,
}

impl DeferredSessions {
    /// Begins to read from `reader`. Later calls have no effect.
    pub fn set(&self, reader: SessionReader, names: ClientNames) {
        // The server starts once.
        let _ = self.source.set((reader, names));
    }

    /// Sets the limit of allocations per user.
    pub fn set_limit(&self, allocations_per_user: u32) {
        self.allocations_per_user.store(allocations_per_user, Relaxed);
    }
}

impl SessionSource for DeferredSessions {
    fn read(&self, take: &mut dyn FnMut(Session)) -> bool {
        self.source.get().is_none_or(|(reader, names)| reader.read(|session| take(in_words(&session, names))))
    }

    fn allocations_per_user(&self) -> u32 {
        self.allocations_per_user.load(Relaxed)
    }

    fn now(&self) -> u64 {
        clock::unix_seconds()
    }
}

fn in_words(session: &LiveSession, names: &ClientNames) -> Session {
    let five_tuple = session.client.five_tuple;
    Session {
        host: session.host.to_string(),
        user: names.user(&session.user),
        transport: five_tuple.transport.name(),
        client: names.address(five_tuple.client),
        server: five_tuple.server.to_string(),
        seconds: session.age.as_secs(),
        from_client: traffic(session.from_client),
        from_peer: traffic(session.from_peer),
        unsent: session.unsent,
        no_route: session.no_route,
        over_rate: session.over_rate,
        relayed: session.relays.iter().map(|relay| relayed(relay, names)).collect(),
    }
}

fn traffic(action::Traffic { packets, bytes }: action::Traffic) -> Traffic {
    Traffic { packets, bytes }
}

fn relayed(relay: &LiveRelay, names: &ClientNames) -> Relayed {
    Relayed {
        address: relay.announced.0.to_string(),
        expires_in: relay.left.as_secs(),
        permissions: relay.permission_count,
        channels: relay.channel_count,
        peers: relay.permissions.iter().map(|permission| names.address(permission.ip)).collect(),
        bound: relay.channels.iter().map(|channel| names.address(channel.peer.0)).collect(),
    }
}
