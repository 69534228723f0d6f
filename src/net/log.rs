//! The log of a worker: on a normal day one line per session, and nothing else.
//!
//! A session is an allocation that ended. Each user has a budget of lines per worker, and another one for sessions
//! without traffic, so no client can fill the log. Sessions beyond the budget are summed up, and one line reports the
//! sums.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::field;

use super::syscall::Offloads;
use crate::base::host::HostId;
use crate::base::time::Instant;
use crate::turn::action::{Beginning, Review, Session, Traffic};
use crate::turn::address::Announced;
use crate::turn::five_tuple::FiveTuple;
use crate::turn::identity::rest::user_part;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle, slowed};

/// Lines for ends, and for beginnings, of sessions of one user, on the slowed clock: 20 at once, then one every 10 s.
const LINES: Limit = Limit { per_second: 20 };
/// Lines for sessions of one user without traffic: 5 at once, then one every 40 s. A browser opens several
/// allocations for each connection and uses one of them.
const IDLE_LINES: Limit = Limit { per_second: 5 };
/// The time from the first session without a line of its own to the line with the sums.
const SUMMARY_AFTER: Duration = Duration::from_secs(10);

/// The session log of one worker.
#[derive(Debug)]
pub(super) struct SessionLog {
    privacy: bool,
    budgets: Throttle,
    unlisted: Unlisted,
    /// When to log the sums; `None` if there are none.
    due: Option<Instant>,
}

impl SessionLog {
    /// Creates a log; with `privacy`, no line contains a client's address. `seed` must come from a cryptographic random
    /// generator.
    pub fn new(privacy: bool, seed: [u8; 32]) -> Self {
        let word = |at: usize| seed[at..at + 8].iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        Self { privacy, budgets: Throttle::new([word(0), word(8)]), unlisted: Unlisted::default(), due: None }
    }

    /// Logs the beginning of a session at debug level, within the budget of its user.
    pub fn began(&mut self, now: Instant, beginning: &Beginning) {
        if !tracing::enabled!(target: "session", tracing::Level::DEBUG) {
            return;
        }
        let Beginning { five_tuple, user, host, host_id, relayed } = beginning;
        let subject = subject(*host_id, user, five_tuple);
        if self.budgets.take(slowed(now), Purpose::BeginningLine, subject, 1, LINES) {
            tracing::debug!(
                target: "session",
                host = %host,
                user = shown(user),
                transport = five_tuple.transport.name(),
                client = %shown_client(five_tuple, self.privacy),
                relayed = %joined(relayed),
                "began"
            );
        }
    }

    /// Logs the end of a session, or adds it to the sums.
    pub fn ended(&mut self, now: Instant, session: &Session) {
        if self.takes_line(now, session) {
            log_session(session, self.privacy);
        } else {
            self.unlisted.add(session);
            self.due.get_or_insert(now + SUMMARY_AFTER);
        }
    }

    /// Returns when to call [`SessionLog::summarise`].
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Logs the sums, if there are any, and resets them.
    pub fn summarise(&mut self) {
        if self.due.take().is_some() {
            std::mem::take(&mut self.unlisted).log(self.privacy);
        }
    }

    /// Takes a line for this session from the user's budget; returns `false` if none is left.
    fn takes_line(&mut self, now: Instant, session: &Session) -> bool {
        let (purpose, limit) =
            if is_idle(session) { (Purpose::IdleLogLine, IDLE_LINES) } else { (Purpose::LogLine, LINES) };
        let subject = subject(session.host_id, &session.user, &session.five_tuple);
        self.budgets.take(slowed(now), purpose, subject, 1, limit)
    }
}

/// Returns whose budget a line about this user takes.
fn subject<'a>(host: HostId, name: &'a str, five_tuple: &FiveTuple) -> Subject<'a> {
    match user_part(name) {
        Some(user) => Subject::User(host, user),
        None => Subject::Source(five_tuple.client.ip()),
    }
}

fn shown_client(five_tuple: &FiveTuple, privacy: bool) -> String {
    if privacy { String::from("-") } else { five_tuple.client.to_string() }
}

fn joined(relayed: &[Announced]) -> String {
    relayed.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Returns whether the session relayed no packet in either direction.
fn is_idle(session: &Session) -> bool {
    session.from_client.packets == 0 && session.from_peer.packets == 0
}

/// Escapes the user's name for a log line. The client chose it, so it must not add lines or control a terminal. Log it
/// as a string and not with `%`: the text format quotes strings, so a name with blanks adds no fields.
fn shown(name: &str) -> String {
    user_part(name).unwrap_or(name).escape_debug().to_string()
}

/// Logs one session.
fn log_session(session: &Session, privacy: bool) {
    let five_tuple = session.five_tuple;
    tracing::info!(
        target: "session",
        host = %session.host,
        user = shown(&session.user),
        transport = five_tuple.transport.name(),
        client = %shown_client(&five_tuple, privacy),
        relayed = %joined(&session.relayed),
        seconds = session.duration.as_secs(),
        from_client_packets = session.from_client.packets,
        from_client_bytes = session.from_client.bytes,
        from_peer_packets = session.from_peer.packets,
        from_peer_bytes = session.from_peer.bytes,
        reason = session.reason.name(),
        "ended"
    );
}

/// Logs what new settings ended on one worker.
pub fn reviewed(review: Review) {
    let Review { permissions, allocations } = review;
    tracing::info!(
        permissions,
        allocations,
        "reload: ended permissions for peers that are denied now, and allocations whose secret is revoked or whose user is gone"
    );
}

/// Sums over the sessions without a line of their own.
#[derive(Debug, Default)]
struct Unlisted {
    sessions: u64,
    /// Sessions without traffic among them.
    idle: u64,
    from_client: Traffic,
    from_peer: Traffic,
    leader: Option<Leader>,
}

/// The user who may have more than half of the sessions: the candidate of a majority vote (Boyer and Moore), which
/// needs constant memory for any number of users.
#[derive(Debug)]
struct Leader {
    user: Arc<str>,
    host: Arc<str>,
    host_id: HostId,
    client: IpAddr,
    votes: u64,
    /// Sessions since this user became the candidate: a lower bound of the user's sessions.
    sessions: u64,
}

impl Unlisted {
    fn add(&mut self, session: &Session) {
        self.sessions += 1;
        self.idle += u64::from(is_idle(session));
        for (sum, part) in
            [(&mut self.from_client, session.from_client), (&mut self.from_peer, session.from_peer)]
        {
            sum.packets = sum.packets.saturating_add(part.packets);
            sum.bytes = sum.bytes.saturating_add(part.bytes);
        }
        match &mut self.leader {
            Some(leader) if leader.has(session) => {
                leader.votes += 1;
                leader.sessions += 1;
            }
            Some(leader) if leader.votes > 0 => leader.votes -= 1,
            leader => *leader = Some(Leader::of(session)),
        }
    }

    /// Returns the user who certainly has more than half of the sessions.
    fn majority(&self) -> Option<&Leader> {
        self.leader.as_ref().filter(|leader| leader.sessions > self.sessions / 2)
    }

    fn log(self, privacy: bool) {
        let most = self.majority();
        let address = most.filter(|leader| !privacy && user_part(&leader.user).is_none());
        tracing::info!(
            target: "session",
            sessions = self.sessions,
            without_traffic = self.idle,
            most_of_host = most.map(|leader| field::display(&leader.host)),
            most_of_user = most.map(|leader| shown(&leader.user)),
            most_of_client = address.map(|leader| field::display(leader.client)),
            from_client_packets = self.from_client.packets,
            from_client_bytes = self.from_client.bytes,
            from_peer_packets = self.from_peer.packets,
            from_peer_bytes = self.from_peer.bytes,
            "more sessions ended, without a line for each"
        );
    }
}

impl Leader {
    fn of(session: &Session) -> Self {
        Self {
            user: Arc::clone(&session.user),
            host: Arc::clone(&session.host),
            host_id: session.host_id,
            client: session.five_tuple.client.ip(),
            votes: 1,
            sessions: 1,
        }
    }

    /// Returns whether the session belongs to this user, or to this address if the name has no user.
    fn has(&self, session: &Session) -> bool {
        let (ours, theirs) = (user_part(&self.user), user_part(&session.user));
        self.host_id == session.host_id
            && ours == theirs
            && (ours.is_some() || self.client == session.five_tuple.client.ip())
    }
}

/// Logs that a worker failed and is restarted, without its calls.
pub(super) fn worker_failed(worker: usize, failure: &str, allocations: u64) {
    tracing::error!(
        worker,
        allocations,
        "a worker failed: {failure}. Its calls ended, calls on other workers continue, and it restarts; please report this"
    );
}

/// Logs which offloads the kernel lacks. Everything works without them, at the price of more CPU.
pub(super) fn missing(offloads: Offloads) {
    if !offloads.segmentation {
        tracing::info!("the kernel does not segment UDP (needs Linux 4.18): every datagram is sent alone");
    }
    if !offloads.coalescing {
        tracing::info!(
            "the kernel does not coalesce UDP (needs Linux 5.0): every datagram is received alone"
        );
    }
}

/// Logs that the kernel refused segmentation on a route.
pub(super) fn segmentation_refused() {
    tracing::info!(
        "a network card or an IPsec route refuses UDP segmentation: on such routes most datagrams are sent alone"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::turn::action::EndReason;
    use crate::turn::address::Announced;
    use crate::turn::five_tuple::{FiveTuple, Link};

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn log() -> SessionLog {
        SessionLog::new(false, [7; 32])
    }

    /// Returns a session of this user that relayed `packets` packets of 100 bytes in each direction.
    fn session(user: &str, packets: u64) -> Session {
        let address = "127.0.0.1:3478".parse().expect("literal");
        let traffic = Traffic { packets, bytes: 100 * packets };
        Session {
            five_tuple: FiveTuple { transport: Transport::Udp, client: address, server: address },
            link: Link(0),
            user: user.into(),
            host: "ping".into(),
            host_id: HostId(0),
            relayed: vec![Announced(address)],
            duration: Duration::from_secs(1),
            from_client: traffic,
            from_peer: traffic,
            reason: EndReason::Deleted,
        }
    }

    /// Returns how many of `count` such sessions get a line.
    fn lines(log: &mut SessionLog, seconds: u64, session: &Session, count: u32) -> usize {
        (0..count).filter(|_| log.takes_line(at(seconds), session)).count()
    }

    #[test]
    fn the_user_excludes_the_time_in_a_name() {
        assert_eq!(user_part("1700000000:w_abc"), Some("w_abc"));
        assert_eq!(user_part("1700000000:a:b"), Some("a:b"));
        for whole in ["alice", "alice:bob", ":bob"] {
            assert_eq!(user_part(whole), Some(whole));
        }
        for nobody in ["1700000000", "1700000000:", ""] {
            assert_eq!((user_part(nobody), shown(nobody)), (None, nobody.to_owned()));
        }
    }

    #[test]
    fn the_budget_of_a_user_covers_names_with_any_time() {
        let mut log = log();
        assert_eq!(lines(&mut log, 1000, &session("1700000000:ann", 1), 1000), 20);
        assert_eq!(lines(&mut log, 1000, &session("1700000001:ann", 1), 1000), 0, "the same user");
        assert_eq!(lines(&mut log, 1100, &session("1700000000:ann", 1), 1000), 10, "one every 10 s");
        assert_eq!(lines(&mut log, 9000, &session("1700000000:ann", 1), 1000), 20);
        let elsewhere = Session { host_id: HostId(1), ..session("1700000000:ann", 1) };
        assert_eq!(lines(&mut log, 9000, &elsewhere, 1000), 20, "the namesake of another host");
        assert_eq!(lines(&mut log, 9000, &session("1700000000:bob", 1), 1), 1);
    }

    #[test]
    fn sessions_without_traffic_have_a_smaller_budget_of_their_own() {
        let mut log = log();
        assert_eq!(lines(&mut log, 1000, &session("ann", 0), 1000), 5);
        assert_eq!(lines(&mut log, 1000, &session("ann", 1), 20), 20, "calls are logged");
        let one_way = Session { from_peer: Traffic { packets: 1, bytes: 9 }, ..session("bob", 0) };
        assert_eq!(lines(&mut log, 1000, &one_way, 20), 20);
    }

    #[test]
    fn names_without_a_user_are_counted_by_address() {
        let mut log = log();
        let from = |client: &str| {
            let mut session = session("1700000000", 1);
            session.five_tuple.client = client.parse().expect("literal");
            session
        };
        assert_eq!(lines(&mut log, 1000, &from("192.0.2.1:1"), 1000), 20);
        assert_eq!(lines(&mut log, 1000, &from("192.0.2.1:2"), 1000), 0, "another port");
        assert_eq!(lines(&mut log, 1000, &from("192.0.2.2:1"), 1), 1);
    }

    #[test]
    fn sums_are_due_ten_seconds_after_the_first_and_are_then_reset() {
        let mut log = log();
        (0..20).for_each(|_| log.ended(at(1000), &session("ann", 3)));
        assert_eq!((log.due(), log.unlisted.sessions), (None, 0));
        log.ended(at(1001), &session("ann", 3));
        log.ended(at(1009), &session("ann", 3));
        assert_eq!(log.due(), Some(at(1011)));
        let Unlisted { sessions, idle, from_client, from_peer, .. } = log.unlisted;
        assert_eq!((sessions, idle), (2, 0));
        assert_eq!([from_client, from_peer], [Traffic { packets: 6, bytes: 600 }; 2]);
        log.summarise();
        assert_eq!((log.due(), log.unlisted.sessions), (None, 0));
        log.ended(at(1009), &session("ann", 3));
        assert_eq!(log.due(), Some(at(1019)), "no summary sooner than ten seconds after the last");
    }

    #[test]
    fn only_a_user_with_most_of_the_sessions_is_named() {
        let leader = |users: &[&str]| {
            let mut unlisted = Unlisted::default();
            users.iter().for_each(|user| unlisted.add(&session(user, 0)));
            assert_eq!((unlisted.sessions, unlisted.idle), (users.len() as u64, users.len() as u64));
            unlisted.majority().map(|leader| leader.user.to_string())
        };
        assert_eq!(leader(&["1:ann", "2:ann", "bob", "3:ann"]).as_deref(), Some("1:ann"));
        assert_eq!(leader(&["bob", "cat", "ann", "ann", "ann", "ann", "ann"]).as_deref(), Some("ann"));
        assert_eq!(leader(&["ann", "bob", "cat", "dan"]), None);
        assert_eq!(leader(&["ann", "ann", "bob", "bob"]), None, "half is not more than half");
    }
}
