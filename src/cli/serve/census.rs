//! Who is left in a drain: the users with allocations, and whether they still hold it up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::client_names::ClientNames;
use crate::base::transport::Transport;
use crate::net::sessions::SessionReader;
use crate::turn::snapshot::LiveSession;

/// A UDP client that has sent nothing for this long does not hold up a drain. A permission lasts 300 s and only a request of
/// the client renews it (RFC 8656 section 9), so without one nothing can be relayed any more, whatever is left of the
/// lifetime; clients renew it a minute before its end. A stream is closed when its client is gone, so it needs no such limit.
const SILENCE: Duration = Duration::from_secs(300);
/// Users that are listed by name.
const LISTED: usize = 100;

/// The users with allocations.
#[derive(Debug, Default)]
pub struct Census {
    users: BTreeMap<(String, String), User>,
    /// Whether every worker answered.
    is_complete: bool,
}

/// The allocations of one user.
#[derive(Debug)]
struct User {
    /// Those that hold up the drain.
    allocations: u64,
    /// Those of UDP clients that are silent.
    silent: u64,
    transports: Vec<&'static str>,
    /// Time since the client last sent something, over all allocations.
    idle: Duration,
}

impl Census {
    /// Reads the sessions of all workers. Blocks.
    pub fn take(reader: &SessionReader, names: &ClientNames) -> Self {
        let mut census = Self::default();
        census.is_complete = reader.read(|session| census.add(&session, names));
        census
    }

    fn add(&mut self, session: &LiveSession, names: &ClientNames) {
        let transport = session.client.five_tuple.transport;
        let is_silent = transport == Transport::Udp && session.idle >= SILENCE;
        let key = (session.host.to_string(), names.user(&session.user));
        let user = self.users.entry(key).or_insert_with(|| User {
            allocations: 0,
            silent: 0,
            transports: Vec::new(),
            idle: session.idle,
        });
        user.allocations += u64::from(!is_silent);
        user.silent += u64::from(is_silent);
        user.idle = user.idle.min(session.idle);
        if !user.transports.contains(&transport.name()) {
            user.transports.push(transport.name());
        }
    }

    /// Returns the answer to `GET /drain`, without the state of the drain. The users that hold it up come first.
    pub fn to_json(&self) -> Value {
        let holding: Vec<_> = self.users.iter().filter(|(_, user)| user.allocations > 0).collect();
        let silent = self.users.iter().filter(|(_, user)| user.allocations == 0);
        let listed = holding.iter().copied().chain(silent).take(LISTED);
        let list: Vec<Value> = listed
            .map(|((host, name), user)| {
                json!({
                    "host": host,
                    "user": name,
                    "transports": user.transports,
                    "allocations": user.allocations,
                    "silent_allocations": user.silent,
                    "idle_seconds": user.idle.as_secs(),
                })
            })
            .collect();
        json!({
            "complete": self.is_complete,
            "users": holding.len(),
            "allocations": holding.iter().map(|(_, user)| user.allocations).sum::<u64>(),
            "silent_allocations": self.users.values().map(|user| user.silent).sum::<u64>(),
            "left": list,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::host::HostId;
    use crate::turn::action::Traffic;
    use crate::turn::five_tuple::{Client, FiveTuple, Link};

    fn session(user: &str, transport: Transport, idle: u64) -> LiveSession {
        let address = "192.0.2.1:5".parse().expect("literal");
        LiveSession {
            client: Client {
                five_tuple: FiveTuple { transport, client: address, server: address },
                link: Link(0),
            },
            user: Arc::from(user),
            host: Arc::from("ping"),
            host_id: HostId(0),
            age: Duration::from_secs(1000),
            idle: Duration::from_secs(idle),
            from_client: Traffic::default(),
            from_peer: Traffic::default(),
            unsent: 0,
            no_route: 0,
            over_rate: 0,
            relays: Vec::new(),
        }
    }

    #[test]
    fn silent_udp_clients_do_not_hold_up_a_drain() {
        let names = ClientNames::default();
        let mut census = Census { is_complete: true, ..Census::default() };
        for (user, transport, idle) in [
            ("1:ann", Transport::Udp, 3),
            ("1:ann", Transport::Tls, 900),
            ("1:bob", Transport::Udp, 300),
            ("1:eve", Transport::Udp, 299),
        ] {
            census.add(&session(user, transport, idle), &names);
        }
        let shown = census.to_json();
        assert_eq!((&shown["users"], &shown["allocations"]), (&json!(2), &json!(3)));
        assert_eq!(shown["silent_allocations"], json!(1));
        let of = |index: usize| &shown["left"][index];
        assert_eq!((&of(0)["allocations"], &of(0)["idle_seconds"]), (&json!(2), &json!(3)));
        assert_eq!(of(0)["transports"], json!(["udp", "tls"]));
        assert_eq!((&of(1)["user"], &of(1)["idle_seconds"]), (&json!("eve"), &json!(299)));
        assert_eq!(
            (&of(2)["user"], &of(2)["allocations"]),
            (&json!("bob"), &json!(0)),
            "the silent ones come last"
        );
    }
}
