//! The sessions of the running server, for the page `/sessions`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::refusals::{self, Book};

/// The most sessions on one page. The others are counted.
const SHOWN_MAX: usize = 10_000;
/// Packets in one direction from which the other one should have some, too.
const ONE_WAY: u64 = 50;
/// An address that is kept private.
const HIDDEN: &str = "-";
/// Seconds for which a new session may be silent.
const SETTLING: u64 = 10;

/// One session, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The host whose secret verified.
    pub host: String,
    /// The user, without the time of a REST name. With `privacy`, a pseudonym.
    pub user: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// Address and port of the client. With `privacy`, `-`.
    pub client: String,
    /// The address that the client reached.
    pub server: String,
    /// Time since its allocation was made, in seconds.
    pub seconds: u64,
    /// Relayed towards peers.
    pub from_client: Traffic,
    /// Relayed towards the client.
    pub from_peer: Traffic,
    /// Datagrams for peers that could not be sent.
    pub unsent: u32,
    /// Those among them for which this machine has no route.
    pub no_route: u32,
    /// Datagrams dropped because of a bandwidth limit.
    pub over_rate: u32,
    /// One or two relayed addresses.
    pub relayed: Vec<Relayed>,
}

/// Payload relayed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// One relayed address of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The address as clients are told.
    pub address: String,
    /// Lifetime left, in seconds.
    pub expires_in: u64,
    /// Permissions held.
    pub permissions: usize,
    /// Channels held.
    pub channels: usize,
    /// Addresses with a permission, the first ones.
    pub peers: Vec<String>,
    /// Addresses and ports with a channel, the first ones.
    pub bound: Vec<String>,
}

/// Reads the sessions of the running server.
pub trait SessionSource: Send + Sync {
    /// Calls `take` with every session. Blocks for some milliseconds. Returns whether all workers answered.
    fn read(&self, take: &mut dyn FnMut(Session)) -> bool;
    /// Returns the limit of allocations per user; 0: no limit.
    fn allocations_per_user(&self) -> u32;
    /// Returns the time in seconds since 1970.
    fn now(&self) -> u64;
}

/// The sessions to select. An empty string selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The host.
    pub host: String,
    /// A part of the user's name.
    pub user: String,
}

/// Sorts sessions by their age, and removes the oldest beyond [`SHOWN_MAX`]. Returns how many these are.
fn keep_newest(found: &mut Vec<Session>) -> u64 {
    found.sort_by_key(|session| session.seconds);
    let beyond = found.len().saturating_sub(SHOWN_MAX);
    found.truncate(SHOWN_MAX);
    beyond as u64
}

/// Returns the selected sessions as JSON, the newest first. `refused` knows whose peers were refused.
pub fn json(source: &dyn SessionSource, filter: &Filter, refused: &Book) -> Value {
    let mut found: Vec<Session> = Vec::new();
    let mut of_user: HashMap<(String, String), u32> = HashMap::new();
    let mut has_peer: HashSet<(String, String)> = HashSet::new();
    let (mut total, mut omitted) = (0u64, 0u64);
    let is_complete = source.read(&mut |session| {
        total += 1;
        *of_user.entry((session.host.clone(), session.user.clone())).or_default() += 1;
        if session.relayed.iter().any(|relayed| relayed.permissions > 0) {
            has_peer.insert((session.host.clone(), session.user.clone()));
        }
        if (!filter.host.is_empty() && filter.host != session.host) || !session.user.contains(&filter.user) {
            return;
        }
        found.push(session);
        // Those of one user that makes allocations in a loop must not take the places of newer ones.
        if found.len() >= 2 * SHOWN_MAX {
            omitted += keep_newest(&mut found);
        }
    });
    omitted += keep_newest(&mut found);
    let (now, limit) = (source.now(), source.allocations_per_user());
    let denied = refusals::Filter { reason: "peer_denied".to_owned(), ..refusals::Filter::default() };
    let denied: HashSet<(String, String)> =
        refused.select(&denied).into_iter().map(|entry| (entry.host, entry.user)).collect();
    let sessions: Vec<Value> = found
        .into_iter()
        .map(|session| {
            let key = (session.host, session.user);
            let held = of_user.get(&key).copied().unwrap_or(0);
            // Browsers ask for several peers on one allocation, and keep others that are never used.
            let is_denied = denied.contains(&key) && !has_peer.contains(&key);
            let session = Session { host: key.0, user: key.1, ..session };
            let remarks = remarks(&session, (held, limit), is_denied);
            session.json(now, &remarks)
        })
        .collect();
    json!({ "sessions": sessions, "total": total, "omitted": omitted, "complete": is_complete })
}

impl Session {
    fn json(&self, now: u64, Remarks { hints, notes }: &Remarks) -> Value {
        json!({
            "host": self.host,
            "user": self.user,
            "transport": self.transport,
            "client": self.client,
            "server": self.server,
            "since": now.saturating_sub(self.seconds),
            "seconds": self.seconds,
            "from_client": self.from_client.json(),
            "from_peer": self.from_peer.json(),
            "unsent": self.unsent,
            "no_route": self.no_route,
            "over_rate": self.over_rate,
            "relayed": self.relayed.iter().map(Relayed::json).collect::<Vec<_>>(),
            "hints": hints,
            "notes": notes,
        })
    }
}

impl Traffic {
    fn json(self) -> Value {
        json!({ "packets": self.packets, "bytes": self.bytes })
    }
}

impl Relayed {
    fn json(&self) -> Value {
        json!({
            "address": self.address,
            "expires_in": self.expires_in,
            "permissions": self.permissions,
            "channels": self.channels,
            "peers": self.peers,
            "bound": self.bound,
        })
    }
}

/// What can be said of a session, in words.
#[derive(Default)]
struct Remarks {
    /// What looks wrong.
    hints: Vec<String>,
    /// What is normal although it may look wrong.
    notes: Vec<&'static str>,
}

/// Returns what can be said of a session. `held` is the number of its user's sessions, `limit` the most. `is_denied`: a peer of its
/// user was refused lately, and none is permitted.
fn remarks(session: &Session, (held, limit): (u32, u32), is_denied: bool) -> Remarks {
    let Remarks { mut hints, mut notes } = Remarks::default();
    let (up, down) = (session.from_client.packets, session.from_peer.packets);
    let permissions: usize = session.relayed.iter().map(|relayed| relayed.permissions).sum();
    if session.seconds >= SETTLING {
        let unsent = u64::from(session.unsent);
        if unsent >= ONE_WAY && unsent > up && 2 * u64::from(session.no_route) > unsent {
            let peer = session.relayed.iter().find_map(|relayed| relayed.peers.first());
            let peer = peer.filter(|peer| *peer != HIDDEN).map_or("PEER", String::as_str);
            let to = if peer == "PEER" { "its peers" } else { peer };
            hints.push(format!(
                "{unsent} of its packets to the peers could not be sent: this machine has no route to {to}: `ip route get {peer}`"
            ));
        } else if unsent >= ONE_WAY && unsent > up {
            hints.push(format!(
                "{unsent} of its packets to the peers could not be sent: the kernel refuses them, as with a firewall rule of this \
                 machine for output, which hallpass doctor names"
            ));
        } else if up >= ONE_WAY && down == 0 {
            hints.push(
                "nothing comes back from the peers: does the media server run? If so, do the firewalls of this host and of the \
                 media server let UDP to the relay ports through?"
                    .to_owned(),
            );
        } else if down >= ONE_WAY && up == 0 {
            hints.push("the client sends nothing to its peers".to_owned());
        } else if permissions == 0 && is_denied {
            hints.push(format!("its peer was refused (403): hallpass refusals --user {}", session.user));
        } else if permissions == 0 {
            notes.push("no peer yet: browsers keep unused allocations for a while");
        }
    }
    let over_rate = u64::from(session.over_rate);
    if over_rate >= ONE_WAY && over_rate * 50 > up + down {
        hints.push(format!(
            "{over_rate} of its packets were dropped by a bandwidth limit (limits.kbit_per_allocation, kbit_per_user or kbit_per_host)"
        ));
    }
    if limit > 0 && u64::from(held) * 5 >= u64::from(limit) * 4 {
        hints.push(format!("the user has {held} of {limit} allocations (limits.allocations_per_user)"));
    }
    Remarks { hints, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<Session>);

    impl SessionSource for Fixed {
        fn read(&self, take: &mut dyn FnMut(Session)) -> bool {
            self.0.iter().cloned().for_each(take);
            true
        }

        fn allocations_per_user(&self) -> u32 {
            5
        }

        fn now(&self) -> u64 {
            5000
        }
    }

    fn session(host: &str, user: &str, seconds: u64, up: u64, down: u64) -> Session {
        let traffic = |packets| Traffic { packets, bytes: 100 * packets };
        Session {
            host: host.into(),
            user: user.into(),
            transport: "tls",
            seconds,
            from_client: traffic(up),
            from_peer: traffic(down),
            ..Session::default()
        }
    }

    /// One user makes allocations in a loop.
    #[test]
    fn the_newest_are_shown_wherever_they_are_in_the_table() {
        let mut sessions: Vec<Session> =
            (0..25_000).map(|age| session("ping", "loop", 100 + age, 0, 0)).collect();
        sessions.push(session("ping", "ann", 1, 0, 0));
        let page = json(&Fixed(sessions), &Filter::default(), &Book::default());
        assert_eq!(page["sessions"][0]["user"], "ann");
        assert_eq!((&page["total"], &page["omitted"]), (&json!(25_001), &json!(15_001)));
    }

    #[test]
    fn the_newest_come_first_with_what_looks_wrong() {
        let source = Fixed(vec![
            session("ping", "ann", 60, 100, 0),
            session("tuit", "bob", 5, 3, 4),
            session("ping", "cat", 30, 0, 80),
            session("ping", "dan", 90, 0, 0),
        ]);
        let page = json(&source, &Filter::default(), &Book::default());
        let users: Vec<_> = (0..4).map(|at| page["sessions"][at]["user"].as_str().expect("a user")).collect();
        assert_eq!(users, ["bob", "cat", "ann", "dan"]);
        assert_eq!(
            (&page["total"], &page["omitted"], &page["complete"]),
            (&json!(4), &json!(0), &json!(true))
        );
        assert_eq!(page["sessions"][0]["since"], 4995);
        assert_eq!(page["sessions"][0]["hints"], json!([]));
        let hint = |at: usize| page["sessions"][at]["hints"][0].as_str().expect("a hint");
        assert_eq!(hint(1), "the client sends nothing to its peers");
        assert!(hint(2).starts_with("nothing comes back"), "{}", hint(2));
        // Normal, so no hint.
        assert_eq!(page["sessions"][3]["hints"], json!([]));
        let note = |at: usize| page["sessions"][at]["notes"][0].as_str();
        assert!(note(3).is_some_and(|note| note.starts_with("no peer yet")), "{page:#}");
        assert_eq!([note(0), note(1), note(2)], [None; 3]);
        assert_eq!(page["sessions"][2]["from_client"], json!({ "packets": 100, "bytes": 10_000 }));
    }

    /// The refusals of a server that has denied a peer to ann of host ping.
    fn book_with_a_denied_peer() -> Book {
        let book = Book::default();
        let denied = refusals::Entry {
            time: 1,
            host: "ping".into(),
            user: "ann".into(),
            client: "192.0.2.1:5".into(),
            transport: "udp",
            request: "create_permission",
            reason: "peer_denied",
            code: Some(403),
            text: "the peer is not allowed".into(),
            next_step: "add it".into(),
        };
        book.add(refusals::Proof::Credentials, std::net::Ipv4Addr::LOCALHOST.into(), denied);
        book
    }

    #[test]
    fn a_user_without_a_peer_whose_peer_was_refused_is_named() {
        let book = book_with_a_denied_peer();
        let source = Fixed(vec![session("ping", "ann", 60, 0, 0), session("tuit", "ann", 70, 0, 0)]);
        let page = json(&source, &Filter::default(), &book);
        assert_eq!(
            page["sessions"][0]["hints"][0],
            "its peer was refused (403): hallpass refusals --user ann"
        );
        assert_eq!(page["sessions"][0]["notes"], json!([]));
        assert!(page["sessions"][1]["notes"][0].as_str().is_some_and(|note| note.starts_with("no peer yet")));
    }

    /// Of two allocations of a browser, one has its peer and a 403 for another one, and one is idle.
    #[test]
    fn an_idle_session_beside_one_with_a_peer_is_normal() {
        let book = book_with_a_denied_peer();
        let mut used = session("ping", "ann", 60, 100, 100);
        used.relayed = vec![Relayed { permissions: 1, ..Relayed::default() }];
        let page = json(&Fixed(vec![used, session("ping", "ann", 70, 0, 0)]), &Filter::default(), &book);
        for at in 0..2 {
            assert_eq!(page["sessions"][at]["hints"], json!([]), "{page:#}");
        }
    }

    /// What could not be sent does not count as sent, so a silent microphone must not be suspected.
    #[test]
    fn packets_that_could_not_be_sent_are_named() {
        let slow = Session { over_rate: 1384, ..session("ping", "ann", 60, 28, 28) };
        let page = json(&Fixed(vec![slow]), &Filter::default(), &Book::default());
        let hint = page["sessions"][0]["hints"][0].as_str().unwrap_or_default();
        assert!(hint.contains("1384 of its packets were dropped by a bandwidth limit"), "{page:#}");
        let blocked = Session { unsent: 3000, ..session("ping", "ann", 60, 0, 0) };
        let page = json(&Fixed(vec![blocked]), &Filter::default(), &Book::default());
        let hint = page["sessions"][0]["hints"][0].as_str().unwrap_or_default();
        assert!(hint.contains("3000 of its packets to the peers could not be sent"), "{page:#}");
        assert_eq!(page["sessions"][0]["unsent"], 3000);
        assert!(!hint.contains("route"), "{hint}");
        let relayed =
            |peer: &str| vec![Relayed { permissions: 1, peers: vec![peer.into()], ..Relayed::default() }];
        for (peer, told) in [
            ("198.51.100.20", "has no route to 198.51.100.20: `ip route get 198.51.100.20`"),
            ("-", "has no route to its peers: `ip route get PEER`"),
        ] {
            let routeless = session("ping", "ann", 60, 0, 0);
            let routeless = Session { unsent: 3000, no_route: 2990, relayed: relayed(peer), ..routeless };
            let page = json(&Fixed(vec![routeless]), &Filter::default(), &Book::default());
            let hint = page["sessions"][0]["hints"][0].as_str().unwrap_or_default();
            assert!(hint.ends_with(told) && !hint.contains("firewall"), "{hint}");
            assert_eq!(page["sessions"][0]["no_route"], 2990);
        }
    }

    #[test]
    fn a_filter_selects_by_host_and_a_part_of_the_user() {
        let source = Fixed(vec![session("ping", "ann", 1, 0, 0), session("tuit", "ann", 2, 0, 0)]);
        let count = |host: &str, user: &str| {
            let filter = Filter { host: host.into(), user: user.into() };
            json(&source, &filter, &Book::default())["sessions"].as_array().expect("a list").len()
        };
        assert_eq!([count("", ""), count("ping", ""), count("", "nn"), count("ping", "bob")], [2, 1, 2, 0]);
    }

    #[test]
    fn a_user_near_the_limit_is_named() {
        let source = Fixed((0..4).map(|_| session("ping", "ann", 1, 0, 0)).collect());
        let page = json(&source, &Filter::default(), &Book::default());
        let hint = page["sessions"][0]["hints"][0].as_str().expect("a hint");
        assert!(hint.contains("the user has 4 of 5 allocations"), "{hint}");
    }
}
