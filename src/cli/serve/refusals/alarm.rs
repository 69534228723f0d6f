//! Recognises causes that concern many users: a secret that does not match, and a clock that is wrong.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::base::calendar::utc;
use crate::base::network::Network;

/// Different users whose passwords fit no secret, for a warning. Fewer may be mistyped static passwords or guesses.
const USERS: usize = 3;
/// Users that are remembered to count them.
const USERS_MAX: usize = 1000;
/// After this many seconds the users are counted anew: a guess now and then is not a wrong configuration.
const PERIOD: u64 = 600;
/// Different users whose names have expired, for a warning about clocks. They may be at one address: perhaps all are in one school.
/// Somebody alone can make up as many names, so the warning counts as one of so few addresses.
const EXPIRED: usize = 5;
/// The same while other users succeed: a class whose pages stayed open since yesterday is no alarm yet.
const EXPIRED_BESIDE: usize = 15;
/// Names used soon after they were issued, under a wrong clock, expired the same time ago, within so many seconds.
const SPREAD: u64 = 120;
/// Sources whose expired names are remembered, and the latest names of each.
const SOURCES_MAX: usize = 128;
const NAMES_OF_SOURCE: usize = 15;
/// Seconds between two warnings. Anybody can make up names, so a warning may be false, and a true one must be able to follow: at
/// once if it concerns so many times as many source addresses as the last one.
const PAUSE: u64 = 600;
const GROWN: usize = 3;
/// How long the names of BigBlueButton are valid, in seconds.
const DAY: u64 = 86_400;

/// Users whose password fits no secret, since the start or the last reload.
#[derive(Debug, Default)]
pub struct Secrets {
    event: &'static str,
    /// When it happened, in seconds since 1970.
    since: u64,
    /// Allocations of each host at that time.
    before: Vec<u64>,
    users: HashSet<String>,
    /// Their sources: a site of IPv6 is one.
    sources: HashSet<Network>,
    /// When the first of them was refused.
    first: u64,
    /// When the last warning was given, and how many source addresses it concerned.
    told: Option<(u64, usize)>,
}

/// A warning that the secret of a host does not match.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretAlarm {
    users: usize,
    sources: usize,
    event: &'static str,
    since: u64,
    /// Allocations of each host at the time of the event.
    pub before: Vec<u64>,
}

impl Secrets {
    /// Begins to count anew. `event` is `start` or `reload`, `before` the number of allocations of each host.
    pub fn begin(&mut self, event: &'static str, now: u64, before: Vec<u64>) {
        *self = Self { event, since: now, before, ..Self::default() };
    }

    /// Returns the allocations of each host at the time of the event.
    pub fn before(&self) -> &[u64] {
        &self.before
    }

    /// Counts a user with a wrong password, at this source address. Returns a warning at most every ten minutes, and again after
    /// each reload, or when it concerns many more.
    pub fn refused(&mut self, user: &str, source: IpAddr, now: u64) -> Option<SecretAlarm> {
        if now.saturating_sub(self.first) > PERIOD || self.users.len() == USERS_MAX {
            self.users.clear();
            self.sources.clear();
        }
        if self.users.is_empty() {
            self.first = now;
        }
        self.users.insert(user.to_owned());
        self.sources.insert(Network::site(source));
        let (users, sources) = (self.users.len(), self.sources.len());
        let is_pause = self
            .told
            .is_some_and(|(told, before)| now.saturating_sub(told) < PAUSE && sources < GROWN * before);
        if users < USERS || is_pause {
            return None;
        }
        self.told = Some((now, sources));
        Some(SecretAlarm {
            users,
            sources,
            event: self.event,
            since: self.since,
            before: self.before.clone(),
        })
    }
}

impl SecretAlarm {
    /// Returns the warning. `hosts`: those that the users may belong to, and whether a user has succeeded with the present secrets.
    /// One of several hosts without success is not to blame for that alone: perhaps nobody came.
    pub fn text(&self, hosts: &[(Arc<str>, bool)]) -> String {
        let begin = self.begin("fit no secret");
        let names = |succeeded: bool| {
            let of = hosts.iter().filter(|(_, other)| *other == succeeded);
            of.map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")
        };
        let (good, silent) = (names(true), names(false));
        match hosts {
            [(host, false)] => format!(
                "{begin}, and no user of {host} has succeeded since: does the secret match turn-stun-servers.xml of {host}?"
            ),
            [(host, true)] => format!(
                "{begin}; users of {host} have succeeded, so one of several servers behind it may have another secret in its \
                 turn-stun-servers.xml"
            ),
            _ if good.is_empty() => format!(
                "{begin}, and no user of {silent} has succeeded since: do the secrets match their turn-stun-servers.xml?"
            ),
            _ if silent.is_empty() => format!(
                "{begin}; users of every host have succeeded, so one of several servers behind a host may have another secret in \
                 its turn-stun-servers.xml"
            ),
            _ => format!(
                "{begin}. Their host is not known: users of {good} have succeeded, of {silent} nobody has, which may be because \
                 nobody came. Compare turn-stun-servers.xml of all their servers"
            ),
        }
    }

    /// Returns the warning about users with an old secret of this host.
    pub fn outdated(&self, host: &str) -> String {
        format!(
            "{}: its turn-stun-servers.xml has not got the present one; hallpass bbb-xml --output writes it",
            self.begin(&format!("are made with a revoked or removed secret of {host}"))
        )
    }

    fn begin(&self, why: &str) -> String {
        let Self { users, sources, event, since, .. } = self;
        // An age would be wrong a minute later on the dashboard.
        let since = utc(*since);
        let addresses = if *sources == 1 { "address" } else { "addresses" };
        format!(
            "{users} users at {sources} {addresses} were refused since the {event} at {since}, because their passwords {why}"
        )
    }
}

/// A user whose name has expired.
#[derive(Debug)]
struct Expired {
    /// Where it was used: a site of IPv6 is one source.
    source: Network,
    user: String,
    /// Seconds since the name expired.
    seconds: u64,
    /// When it was refused.
    at: u64,
    /// How many allocations users had made by then.
    allocated: u64,
}

/// Users whose names have expired, and how long ago.
#[derive(Debug, Default)]
pub struct Clocks {
    /// The earliest refusal first.
    names: VecDeque<Expired>,
    told: Option<ToldClocks>,
}

/// The last warning about clocks.
#[derive(Debug)]
struct ToldClocks {
    /// When it was given.
    at: u64,
    /// How many users it concerned, and the sources of these.
    users: usize,
    sources: HashSet<Network>,
}

impl Clocks {
    /// Takes a user at this source address whose name expired `seconds` ago. Returns a warning if many names expired the same time
    /// ago. `allocated`: how many allocations users have made so far. Those who succeed meanwhile prove this clock right; then some
    /// pages of yesterday are normal, and it takes more of them.
    pub fn expired(
        &mut self,
        user: &str,
        source: IpAddr,
        seconds: u64,
        now: u64,
        allocated: u64,
    ) -> Option<String> {
        let source = Network::site(source);
        self.names.retain(|name| name.user != user && now.saturating_sub(name.at) <= PERIOD);
        self.make_room(source);
        self.names.push_back(Expired { source, user: user.to_owned(), seconds, at: now, allocated });
        let alike = || self.names.iter().filter(|name| name.seconds.abs_diff(seconds) <= SPREAD);
        let users = alike().count();
        let sources: HashSet<Network> = alike().map(|name| name.source).collect();
        // Again at once if it concerns many more addresses, or many users at others: a school may have one address.
        let is_pause = self.told.as_ref().is_some_and(|told| {
            let elsewhere = alike().filter(|name| !told.sources.contains(&name.source)).count();
            now.saturating_sub(told.at) < PAUSE
                && sources.len() < GROWN * told.sources.len()
                && elsewhere < GROWN * told.users
        });
        let some_succeed = alike().next().is_some_and(|first| first.allocated != allocated);
        let enough = if some_succeed { EXPIRED_BESIDE } else { EXPIRED };
        if users < enough || is_pause {
            return None;
        }
        let places = sources.len();
        self.told = Some(ToldClocks { at: now, users, sources });
        let addresses = if places == 1 { "address" } else { "addresses" };
        if some_succeed {
            return Some(format!(
                "the names of {users} users at {places} {addresses} all expired about {} ago. Others succeed meanwhile, so this clock \
                 is right: are these pages that stayed open, or is the clock of one host that issues names about {} behind?",
                words(seconds),
                words(seconds.saturating_add(DAY))
            ));
        }
        Some(format!(
            "the names of {users} users at {places} {addresses} all expired about {} ago: is the clock of this host right, {}, and \
             that of the host that issues them? If names are valid for a day, this clock is about {} ahead",
            words(seconds),
            utc(now),
            words(seconds.saturating_add(DAY))
        ))
    }

    /// Forgets the earliest name of this source if it has many, or of all others if there are many sources.
    fn make_room(&mut self, source: Network) {
        let of_source = |name: &Expired| name.source == source;
        if self.names.iter().filter(|name| of_source(name)).count() >= NAMES_OF_SOURCE {
            let first = self.names.iter().position(of_source);
            first.and_then(|first| self.names.remove(first));
        }
        let sources: HashSet<Network> = self.names.iter().map(|name| name.source).collect();
        if sources.len() >= SOURCES_MAX
            && !sources.contains(&source)
            && let Some(earliest) = self.names.front().map(|name| name.source)
        {
            self.names.retain(|name| name.source != earliest);
        }
    }
}

/// Returns a duration in words, in its largest unit.
fn words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..259_200 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc000_0200 + last).into()
    }

    #[test]
    fn three_users_with_wrong_passwords_give_a_warning_every_ten_minutes_and_after_each_reload() {
        let mut secrets = Secrets::default();
        secrets.begin("start", 1000, vec![5]);
        assert_eq!(secrets.refused("ann", ip(1), 1010), None);
        assert_eq!(secrets.refused("ann", ip(1), 1011), None, "the same user");
        assert_eq!(secrets.refused("bob", ip(1), 1020), None);
        let alarm = secrets.refused("cat", ip(2), 1040).expect("three users");
        assert_eq!((alarm.users, alarm.since, &alarm.before[..]), (3, 1000, &[5][..]));
        let text = alarm.text(&[("ping".into(), false)]);
        for part in [
            "3 users at 2 addresses were refused since the start at 1970-01-01 00:16 UTC",
            "no user of ping",
            "turn-stun-servers.xml of ping?",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let both = |ping, tuit| alarm.text(&[("ping".into(), ping), ("tuit".into(), tuit)]);
        assert!(both(false, false).contains("no user of ping, tuit has succeeded"));
        assert!(both(true, true).contains("users of every host have succeeded"));
        assert!(alarm.text(&[("ping".into(), true)]).contains("several servers behind it"));
        // Nobody came to the second host: it is named, and not blamed.
        let text = both(true, false);
        for part in ["host is not known", "users of ping have succeeded", "of tuit nobody has", "nobody came"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("does the secret match turn-stun-servers.xml of tuit"), "{text}");
        assert!(alarm.outdated("ping").contains("made with a revoked or removed secret of ping:"));
        assert_eq!(secrets.refused("dan", ip(1), 1050), None, "once");
        assert_eq!(["ann", "bob"].map(|user| secrets.refused(user, ip(1), 1640)), [None, None]);
        assert!(secrets.refused("cat", ip(1), 1640).is_some(), "ten minutes later");
        secrets.begin("reload", 2000, vec![7]);
        assert_eq!(["ann", "bob"].map(|user| secrets.refused(user, ip(1), 2001)), [None, None]);
        assert!(secrets.refused("cat", ip(1), 2001).is_some());
    }

    /// Somebody with three made-up names causes a false warning. It does not keep back the true one.
    #[test]
    fn many_more_addresses_give_a_warning_during_the_pause() {
        let mut secrets = Secrets::default();
        secrets.begin("start", 1000, Vec::new());
        let told = ["x", "y", "z"].map(|user| secrets.refused(user, ip(0), 1000).is_some());
        assert_eq!(told, [false, false, true]);
        let told: Vec<_> =
            (0..30).filter_map(|pupil| secrets.refused(&format!("p{pupil}"), ip(pupil + 1), 1060)).collect();
        let sources: Vec<_> = told.iter().map(|alarm| alarm.sources).collect();
        assert_eq!(sources, [3, 9, 27]);
    }

    #[test]
    fn a_guess_now_and_then_gives_no_warning() {
        let mut secrets = Secrets::default();
        secrets.begin("start", 0, Vec::new());
        assert!((0..100).all(|hour| secrets.refused(&format!("user{hour}"), ip(1), hour * 3600).is_none()));
    }

    #[test]
    fn names_that_expired_the_same_time_ago_give_a_warning() {
        let mut clocks = Clocks::default();
        let mut expired =
            |user: u32, seconds, now| clocks.expired(&format!("u{user}"), ip(user), seconds, now, 0);
        assert!((0..4).all(|user| expired(user, 86_400 + u64::from(user), 1000).is_none()));
        assert_eq!(expired(3, 86_410, 1001), None, "the same user");
        let text = expired(4, 86_420, 1002).expect("five users");
        assert!(text.contains("5 users at 5 addresses all expired about 24 hours ago"), "{text}");
        assert!(text.contains("1970-01-01 00:16 UTC") && text.contains("about 48 hours ahead"), "{text}");
        assert_eq!(expired(5, 86_420, 1003), None, "ten minutes have not passed");
        assert!(expired(6, 86_420, 1003 + PAUSE).is_none(), "the others were long ago");
    }

    /// Pages of yesterday that come back, while others log in with new names.
    #[test]
    fn expired_names_beside_users_that_succeed_are_old_pages() {
        let mut clocks = Clocks::default();
        let mut expired = |user: u32, allocated| {
            clocks.expired(&format!("u{user}"), ip(user), 3600, 1000 + u64::from(user), allocated)
        };
        assert!((0..14).all(|user| expired(user, 30 + u64::from(user)).is_none()));
        let text = expired(14, 44).expect("many");
        assert!(text.contains("Others succeed meanwhile, so this clock is right"), "{text}");
        assert!(text.contains("about 25 hours behind?"), "{text}");
        let mut clocks = Clocks::default();
        let mut expired = |user: u32| clocks.expired(&format!("u{user}"), ip(user), 3600, 1000, 30);
        assert!((0..4).all(|user| expired(user).is_none()));
        assert!(
            expired(4).is_some_and(|text| text.contains("is the clock of this host right")),
            "nobody succeeds"
        );
    }

    #[test]
    fn names_that_expired_at_different_times_give_none() {
        let mut clocks = Clocks::default();
        let mut expired =
            |user: u32| clocks.expired(&format!("u{user}"), ip(user), u64::from(user) * 1000, 1000, 0);
        assert!((0..100).all(|user| expired(user).is_none()));
    }

    /// A school is one address, and so is somebody that makes names up.
    #[test]
    fn expired_names_of_one_address_give_one_warning() {
        let mut clocks = Clocks::default();
        let mut expired = |user: u32| clocks.expired(&format!("u{user}"), ip(1), 3600, 1000, 0);
        assert!((0..4).all(|user| expired(user).is_none()));
        let text = expired(4).expect("five users");
        assert!(text.contains("5 users at 1 address all expired"), "{text}");
        assert!((5..1000).all(|user| expired(user).is_none()), "once");
    }

    /// Somebody with made-up names in one network causes a false warning at most. It does not keep back the true one.
    #[test]
    fn made_up_expired_names_of_one_network_keep_back_no_warning() {
        let mut clocks = Clocks::default();
        let network = |number: u32| format!("2001:db8:7:{number:x}::1").parse().expect("literal");
        let false_ones = (0..1000)
            .filter(|&user| clocks.expired(&format!("x{user}"), network(user), 172_800, 1000, 0).is_some());
        assert_eq!(false_ones.count(), 1);
        let told: Vec<u32> = (1..=60)
            .filter(|&user| clocks.expired(&format!("p{user}"), ip(user), 3600, 1001, 0).is_some())
            .collect();
        assert_eq!(told, [5, 15, 45]);
        let mut clocks = Clocks::default();
        let false_ones = (0..17)
            .filter(|&user| clocks.expired(&format!("x{user}"), network(7), 172_800, 1000, 0).is_some());
        assert_eq!(false_ones.count(), 1);
        let school = |user: u32| format!("2001:db8:8:{user:x}::1").parse().expect("literal");
        let told: Vec<u32> = (1..=60)
            .filter(|&user| clocks.expired(&format!("p{user}"), school(user), 3600, 1001, 0).is_some())
            .collect();
        assert_eq!(told, [15], "all in one other site");
        for number in 0..10_000 {
            clocks.expired(&format!("y{number}"), ip(number / 20), 10, 1002, 0);
        }
        assert!(clocks.names.len() <= SOURCES_MAX * NAMES_OF_SOURCE);
    }
}
