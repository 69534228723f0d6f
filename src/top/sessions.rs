//! The sessions of `/sessions`, with the rates since the answer before.

use std::collections::HashMap;

use serde_json::Value;

use super::reading::Flow;
use crate::base::text::clean;
use crate::base::time::Instant;

/// Longest text of a session, in characters.
const TEXT_MAX: usize = 500;
/// Most peers and hints read of a session. The server lists at most 64 peers.
const LIST_MAX: usize = 64;

/// One relayed address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The address that clients are told.
    pub address: String,
    /// Lifetime left, in seconds.
    pub expires_in: u64,
    /// Permissions held.
    pub permissions: u64,
    /// Channels held.
    pub channels: u64,
    /// Addresses with a permission.
    pub peers: Vec<String>,
    /// Addresses and ports with a channel.
    pub bound: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Identifies it in the answers of one server.
    pub id: String,
    /// The host whose secret verified.
    pub host: String,
    /// The user, or a pseudonym.
    pub user: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Address and port of the client, or `-`.
    pub client: String,
    /// The address that the client reached.
    pub server: String,
    /// Age in seconds.
    pub seconds: u64,
    /// From the client to its peers.
    pub from_client: Flow,
    /// From its peers to the client.
    pub from_peer: Flow,
    /// Bits per second since the answer before, from the client and from its peers; `None` if it is new.
    pub bits: Option<[f64; 2]>,
    /// One or two relayed addresses.
    pub relayed: Vec<Relayed>,
    /// What looks wrong.
    pub hints: Vec<String>,
    /// What is normal, although it may look wrong.
    pub notes: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sessions {
    /// When it arrived.
    pub at: Instant,
    /// The sessions, the newest first.
    pub all: Vec<Session>,
    /// How many the server has.
    pub total: u64,
    /// Whether every worker answered.
    pub is_complete: bool,
}

impl Sessions {
    /// Reads an answer that arrived at `at`; `before` is the previous one.
    pub fn of(page: &Value, at: Instant, before: Option<&Self>) -> Self {
        let known = before.map(|before| {
            let all = before.all.iter().map(|session| (session.id.as_str(), session));
            (at.since(before.at).as_secs_f64(), all.collect::<HashMap<_, _>>())
        });
        let mut all: Vec<Session> = items(&page["sessions"]).iter().map(Session::of).collect();
        if let Some((seconds, known)) = known.filter(|(seconds, _)| *seconds > 0.0) {
            for session in &mut all {
                let earlier = known.get(session.id.as_str());
                session.bits = earlier.and_then(|earlier| session.bits_since(earlier, seconds));
            }
        }
        let total = page["total"].as_u64().unwrap_or(all.len() as u64);
        Self { at, total, is_complete: page["complete"].as_bool().unwrap_or(true), all }
    }

    /// Returns a session by its id.
    pub fn get(&self, id: &str) -> Option<&Session> {
        self.all.iter().find(|session| session.id == id)
    }
}

impl Session {
    fn of(value: &Value) -> Self {
        let relayed: Vec<Relayed> = items(&value["relayed"]).iter().take(2).map(Relayed::of).collect();
        let [host, user, transport, client, server] =
            ["host", "user", "transport", "client", "server"].map(|key| text(&value[key]));
        let address = relayed.first().map_or("", |relayed| &relayed.address);
        Self {
            // A port is not relayed from twice at a time, and the user tells its next owner apart.
            id: format!("{address} {transport} {client} {host} {user}"),
            seconds: number(&value["seconds"]),
            from_client: flow(&value["from_client"]),
            from_peer: flow(&value["from_peer"]),
            bits: None,
            hints: texts(&value["hints"]),
            notes: texts(&value["notes"]),
            host,
            user,
            transport,
            client,
            server,
            relayed,
        }
    }

    /// Returns the rates since an earlier answer; `None` if the counters began anew.
    fn bits_since(&self, earlier: &Self, seconds: f64) -> Option<[f64; 2]> {
        let rate = |now: Flow, before: Flow| {
            now.bytes.checked_sub(before.bytes).map(|bytes| bytes as f64 * 8.0 / seconds)
        };
        Some([rate(self.from_client, earlier.from_client)?, rate(self.from_peer, earlier.from_peer)?])
    }

    /// Returns the rate in both directions together; 0 if it is not known yet.
    pub fn total_bits(&self) -> f64 {
        self.bits.map_or(0.0, |[from_client, from_peer]| from_client + from_peer)
    }

    /// Returns whether one of its texts contains `part`, which is in lower case.
    pub fn contains(&self, part: &str) -> bool {
        let texts = [&self.host, &self.user, &self.transport, &self.client, &self.server];
        let peers =
            self.relayed.iter().flat_map(|relayed| [&relayed.address].into_iter().chain(&relayed.peers));
        texts.into_iter().chain(peers).any(|text| text.to_lowercase().contains(part))
    }
}

impl Relayed {
    fn of(value: &Value) -> Self {
        Self {
            address: text(&value["address"]),
            expires_in: number(&value["expires_in"]),
            permissions: number(&value["permissions"]),
            channels: number(&value["channels"]),
            peers: texts(&value["peers"]),
            bound: texts(&value["bound"]),
        }
    }
}

/// Returns the entries of a list; none if it is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns a text without characters that control a terminal.
pub fn text(value: &Value) -> String {
    clean(value.as_str().unwrap_or_default(), TEXT_MAX)
}

/// Returns a number; 0 if it is none.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().take(LIST_MAX).map(text).collect()
}

fn flow(value: &Value) -> Flow {
    Flow { packets: number(&value["packets"]), bytes: number(&value["bytes"]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn page(users: &[(&str, u64)]) -> Value {
        let session = |&(user, bytes): &(&str, u64)| {
            json!({
                "host": "ping", "user": user, "transport": "udp", "client": "192.0.2.1:5", "seconds": 9,
                "from_client": { "packets": 1, "bytes": bytes }, "from_peer": { "packets": 2, "bytes": 500 },
                "relayed": [{ "address": "198.51.100.1:50000", "expires_in": 600, "peers": ["203.0.113.9"] }],
            })
        };
        json!({ "sessions": users.iter().map(session).collect::<Vec<_>>(), "total": 7, "complete": false })
    }

    #[test]
    fn rates_are_known_from_the_second_answer_on() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let first = Sessions::of(&page(&[("ann", 1000), ("bob", 1000)]), at(10), None);
        assert_eq!((first.total, first.is_complete, first.all[0].bits), (7, false, None));
        let second = Sessions::of(&page(&[("ann", 3000), ("bob", 10), ("cat", 5)]), at(12), Some(&first));
        let bits: Vec<_> = second.all.iter().map(|session| session.bits).collect();
        assert_eq!(bits, [Some([8000.0, 0.0]), None, None], "bob's counters began anew, cat is new");
        assert!(
            second.all[0].contains("203.0.113")
                && second.all[0].contains("ann")
                && !second.all[0].contains("bob")
        );
        assert!(second.get(&second.all[2].id).is_some_and(|session| session.user == "cat"));
    }

    #[test]
    fn another_answer_has_no_sessions() {
        for page in [json!(null), json!([1, 2]), json!({ "sessions": 5 })] {
            assert!(Sessions::of(&page, Instant::default(), None).all.is_empty());
        }
        let odd = Sessions::of(
            &json!({ "sessions": [7, { "user": 5, "relayed": "x" }] }),
            Instant::default(),
            None,
        );
        assert_eq!((odd.all.len(), odd.all[1].user.as_str()), (2, ""));
    }

    proptest! {
        #[test]
        fn texts_are_cleaned(user in any::<String>()) {
            let all = Sessions::of(&page(&[(&user, 1)]), Instant::default(), None).all;
            prop_assert!(!all[0].user.chars().any(crate::base::text::is_hidden));
        }
    }
}
