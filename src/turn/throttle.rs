//! Rate limits for unauthenticated clients and for the requests of authenticated ones: how much of the server one source
//! address or one user may use each second.
//!
//! The table of token buckets has a fixed size, so memory does not grow with the number of sources. Each subject has four
//! places in the table, found through a keyed hash, so that no client can choose which one it shares a place with. A place is
//! free again when its bucket is full. A subject shares a place only while all its four are in use by others.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use super::keyed_hash::KeyedState;
use crate::base::host::HostId;
use crate::base::time::Instant;

/// Buckets; 16 bytes each. A source that sends one request a second at a limit of 500 a second holds its bucket for
/// 2 ms, so the table is nearly empty with thousands of them.
const BUCKETS: usize = 16_384;
/// One second's worth may come at once.
const BURST: u64 = 1_000_000_000;
/// How far a bucket may be overdrawn by a cost that was known only afterwards.
const OVERDRAFT: u64 = BURST;
/// How far the bucket of [`Purpose::RecentGuess`] may be overdrawn: the longest time that a guess is remembered.
const MEMORY: u64 = 60 * BURST;
/// The limit of an IPv6 site (/48, RFC 6177), in limits of one of its networks (/64). The second number applies to expensive
/// work.
const NETWORKS_OF_A_SITE: [u64; 2] = [8, 2];
/// The same for a provider (/32).
const NETWORKS_OF_A_PROVIDER: [u64; 2] = [64, 4];
/// The same for searches: more than all sources together may take, so that two sites do not keep out the others of their provider.
const SEARCHES_OF_A_PROVIDER: u64 = 16;

/// What is limited. Purposes do not share their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Answers to requests without good credentials, over UDP.
    Challenge,
    /// Answers to Binding requests over UDP.
    Binding,
    /// Requests without good credentials over TCP and TLS.
    Stream,
    /// An additional budget for the first requests of each TCP connection, without good credentials.
    OpeningTcp,
    /// The same over TLS, where [`Purpose::Handshake`] was charged before.
    OpeningTls,
    /// Bindings over TCP and TLS.
    StreamBinding,
    /// Searching for the secret that verifies a password, in nanoseconds, for clients with a recent wrong guess.
    Search,
    /// The same for other clients at the sources of such clients, counted for all sources together.
    NeighbourSearch,
    /// The share of one source in that. An IPv6 site (/48) is one source.
    NeighbourShare,
    /// Counting a source among those that share, once a second.
    NeighbourTurn,
    /// The same for clients without a recent wrong guess.
    FirstSearch,
    /// The same for clients at sources with an earlier wrong guess, counted for all sources together.
    RecentSearch,
    /// Wrong guesses.
    Guess,
    /// Wrong guesses, remembered for longer than any other purpose: charge as many units as there are seconds to remember, at
    /// one unit a second. An IPv6 site (/48) is one source.
    RecentGuess,
    /// Tries of a client that were deferred because nothing is left for a search.
    Deferred,
    /// TLS handshakes, in nanoseconds.
    Handshake,
    /// Requests of a user: with good credentials, or over the stream of its allocation.
    Request,
    /// Bindings over the streams of a user's allocations.
    UserBinding,
    /// Requests from the address of a client that has an allocation, without good credentials, over UDP.
    ClientChallenge,
    /// Bindings from the address of a client that has an allocation, over UDP.
    ClientBinding,
    /// Log lines about sessions that begin.
    BeginningLine,
    /// Log lines about sessions with traffic.
    LogLine,
    /// Log lines about sessions that relayed nothing.
    IdleLogLine,
    /// Reports of refusals of one user, for the reason with this number.
    ReportOfUser(u8),
    /// Reports of refusals of one source.
    ReportOfSource,
}

/// The subject that a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// A source address: one IPv4 address, or the /64, the /48 and the /32 of an IPv6 address.
    Source(IpAddr),
    /// A user of a named host.
    User(HostId, &'a str),
    /// A user name that no secret has verified, at one source.
    Name(IpAddr, &'a str),
    /// One client address and port.
    Client(SocketAddr),
    /// All sources together.
    Everybody,
}

/// A limit in units a second, with a burst of one second's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Units a second; 0 means no limit.
    pub per_second: u32,
}

/// Returns the time on a clock that is 200 times slower, for limits on what may happen a few times in minutes: a throttle
/// refills a budget within one second of its clock.
pub fn slowed(now: Instant) -> Instant {
    Instant::from_nanos(now.as_nanos() / 200)
}

/// Token buckets by purpose and subject.
pub struct Throttle {
    // Two lists of zeros, which take no memory until they are written.
    /// When each bucket is full again, in nanoseconds: the theoretical arrival time of GCRA.
    full_at: Vec<u64>,
    /// The hash of the subject that owns each bucket.
    tags: Vec<u64>,
    hasher: KeyedState,
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Throttle(..)")
    }
}

impl Throttle {
    /// An empty table. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        Self { full_at: vec![0; BUCKETS], tags: vec![0; BUCKETS], hasher: KeyedState::new(key) }
    }

    /// Takes `units` if the subject has at least one left, even if that overdraws the limit. Returns whether it had.
    pub fn take(
        &mut self,
        now: Instant,
        purpose: Purpose,
        subject: Subject<'_>,
        units: u32,
        limit: Limit,
    ) -> bool {
        let allowed = self.has_some(now, purpose, subject, limit);
        if allowed {
            self.charge(now, purpose, subject, units, limit);
        }
        allowed
    }

    /// Whether the subject has at least one unit left. Takes nothing.
    pub fn has_some(&self, now: Instant, purpose: Purpose, subject: Subject<'_>, limit: Limit) -> bool {
        let now = now.as_nanos();
        limit.per_second == 0
            || levels(purpose, subject).into_iter().flatten().all(|(key, share)| {
                let (index, _) = self.place(now, purpose, &key);
                self.is_left(index, now, limit, share)
            })
    }

    /// Whether the subject has at least three quarters of a second's worth left.
    pub fn has_three_quarters(
        &self,
        now: Instant,
        purpose: Purpose,
        subject: Subject<'_>,
        limit: Limit,
    ) -> bool {
        let now = now.as_nanos();
        limit.per_second == 0
            || levels(purpose, subject).into_iter().flatten().all(|(key, _)| {
                let (index, _) = self.place(now, purpose, &key);
                self.full_at[index] <= now + BURST / 4
            })
    }

    /// Whether the subject itself has used up the limit. In a full table it may share the places of others: their use does not
    /// count.
    pub fn has_used_up(&self, now: Instant, purpose: Purpose, subject: Subject<'_>, limit: Limit) -> bool {
        let now = now.as_nanos();
        levels(purpose, subject).into_iter().flatten().any(|(key, share)| {
            let (index, tag) = self.place(now, purpose, &key);
            self.tags[index] == tag && !self.is_left(index, now, limit, share)
        })
    }

    /// Whether at least one unit is left in a bucket.
    fn is_left(&self, index: usize, now: u64, limit: Limit, share: u64) -> bool {
        let one = BURST / (u64::from(limit.per_second) * share);
        self.full_at[index].max(now) + one <= now + BURST
    }

    /// Takes `units` that were used already, even if the subject has none left.
    pub fn charge(&mut self, now: Instant, purpose: Purpose, subject: Subject<'_>, units: u32, limit: Limit) {
        if limit.per_second == 0 {
            return;
        }
        let now = now.as_nanos();
        for (key, share) in levels(purpose, subject).into_iter().flatten() {
            let cost = u64::from(units) * BURST / (u64::from(limit.per_second) * share);
            let (index, tag) = self.place(now, purpose, &key);
            let full_at = &mut self.full_at[index];
            if *full_at <= now {
                self.tags[index] = tag;
            }
            let overdraft = if purpose == Purpose::RecentGuess { MEMORY } else { OVERDRAFT };
            *full_at = (now.max(*full_at) + cost).min(now + BURST + overdraft);
        }
    }

    /// The bucket of this key and its tag: its own, else a free one of its four places, else the fullest of them.
    fn place(&self, now: u64, purpose: Purpose, key: &impl Hash) -> (usize, u64) {
        let hash = self.hasher.hash(&(purpose, key));
        let (low, high) = (hash as usize % BUCKETS, (hash >> 32) as usize % BUCKETS);
        let places = [low, low ^ 1, high, high ^ 1];
        let in_use = |&&index: &&usize| self.full_at[index] > now;
        let own = places.iter().filter(in_use).find(|&&index| self.tags[index] == hash);
        let fullest = || places.iter().min_by_key(|&&index| self.full_at[index]);
        // There are four places, so one is found.
        (own.or_else(fullest).copied().unwrap_or(low), hash)
    }
}

/// The keys that a subject is counted under, each with its multiple of the limit.
fn levels(purpose: Purpose, subject: Subject<'_>) -> [Option<(Key<'_>, u64)>; 3] {
    let expensive = usize::from(matches!(
        purpose,
        Purpose::Search | Purpose::FirstSearch | Purpose::Guess | Purpose::Handshake
    ));
    match subject {
        Subject::Source(IpAddr::V4(ip)) => [Some((Key::V4(ip.to_bits()), 1)), None, None],
        Subject::Source(IpAddr::V6(ip)) => {
            let network = (ip.to_bits() >> 64) as u64;
            if matches!(purpose, Purpose::RecentGuess | Purpose::NeighbourShare | Purpose::NeighbourTurn) {
                return [Some((Key::Site(network >> 16), 1)), None, None];
            }
            let of_provider = match purpose {
                // A guess says nothing about other sites.
                Purpose::Guess => None,
                Purpose::Search | Purpose::FirstSearch => Some(SEARCHES_OF_A_PROVIDER),
                _ => Some(NETWORKS_OF_A_PROVIDER[expensive]),
            };
            [
                Some((Key::Network(network), 1)),
                Some((Key::Site(network >> 16), NETWORKS_OF_A_SITE[expensive])),
                of_provider.map(|share| (Key::Provider(network >> 32), share)),
            ]
        }
        Subject::User(host, user) => [Some((Key::User(host, user), 1)), None, None],
        Subject::Name(source, name) => [Some((Key::Name(source, name), 1)), None, None],
        Subject::Client(client) => [Some((Key::Client(client), 1)), None, None],
        Subject::Everybody => [Some((Key::Everybody, 1)), None, None],
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    V4(u32),
    Network(u64),
    Site(u64),
    Provider(u64),
    User(HostId, &'a str),
    Name(IpAddr, &'a str),
    Client(SocketAddr),
    Everybody,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { per_second: 500 };

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn throttle() -> Throttle {
        Throttle::new([1, 2])
    }

    fn source(text: &str) -> Subject<'static> {
        Subject::Source(text.parse().expect("literal"))
    }

    fn granted(throttle: &mut Throttle, millis: u64, subject: Subject<'_>, tries: u32) -> usize {
        let take = |_: &u32| throttle.take(at(millis), Purpose::Challenge, subject, 1, LIMIT);
        (0..tries).filter(take).count()
    }

    #[test]
    fn a_source_gets_its_rate_and_recovers() {
        let (mut throttle, flooder) = (throttle(), source("192.0.2.7"));
        assert_eq!(granted(&mut throttle, 10, flooder, 10_000), 500);
        assert_eq!(granted(&mut throttle, 110, flooder, 1000), 50);
        assert_eq!(granted(&mut throttle, 2110, flooder, 10_000), 500, "nothing is owed two seconds later");
    }

    #[test]
    fn others_and_other_purposes_are_served_meanwhile_and_zero_is_no_limit() {
        let (mut throttle, flooder) = (throttle(), source("192.0.2.7"));
        granted(&mut throttle, 10, flooder, 1000);
        assert_eq!(granted(&mut throttle, 10, source("192.0.2.8"), 1), 1);
        assert!(throttle.take(at(10), Purpose::Binding, flooder, 1, LIMIT));
        assert!(throttle.take(at(10), Purpose::Challenge, flooder, 1, Limit { per_second: 0 }));
        assert!(!throttle.take(at(10), Purpose::Challenge, flooder, 1, LIMIT));
        let user = |host, name| Subject::User(HostId(host), name);
        granted(&mut throttle, 10, user(1, "ann"), 1000);
        assert_eq!(granted(&mut throttle, 10, user(1, "ann"), 1), 0);
        assert_eq!(
            granted(&mut throttle, 10, user(2, "ann"), 1) + granted(&mut throttle, 10, user(1, "bob"), 1),
            2
        );
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_site_is_eight() {
        let mut throttle = throttle();
        assert_eq!(granted(&mut throttle, 10, source("2001:db8::1"), 1000), 500);
        assert_eq!(granted(&mut throttle, 10, source("2001:db8::2"), 1), 0, "the same /64");
        let site = (1..100).map(|n| granted(&mut throttle, 10, source(&format!("2001:db8:0:{n:x}::1")), 500));
        assert_eq!(site.sum::<usize>(), 7 * 500, "the same /48");
        let provider =
            (1..100).map(|n| granted(&mut throttle, 10, source(&format!("2001:db8:{n:x}::1")), 500));
        assert_eq!(provider.sum::<usize>(), 56 * 500, "the same /32");
        assert_eq!(granted(&mut throttle, 10, source("2001:db9::1"), 1), 1, "another provider");
    }

    /// Half as many sources as there are places flood; most of as many others are still served.
    #[test]
    fn many_floods_at_once_leave_most_other_sources_alone() {
        let mut throttle = throttle();
        let address = |n: u32| Subject::Source(IpAddr::from(n.to_be_bytes()));
        let crowd = BUCKETS as u32 / 2;
        for n in 0..crowd {
            granted(&mut throttle, 10, address(n), 600);
        }
        let refused = (crowd..2 * crowd).filter(|&n| granted(&mut throttle, 10, address(n), 1) == 0).count();
        assert!(refused < crowd as usize / 4, "{refused} of {crowd}");
    }

    /// One source floods: a source that shares one place with it has three others.
    #[test]
    fn no_single_source_takes_the_places_of_another() {
        let mut throttle = throttle();
        let address = |n: u32| Subject::Source(IpAddr::from(n.to_be_bytes()));
        granted(&mut throttle, 10, address(0), 100_000);
        assert!((1..200_000).all(|n| throttle.has_some(at(10), Purpose::Challenge, address(n), LIMIT)));
    }

    #[test]
    fn a_recent_guess_is_remembered_for_its_seconds() {
        let (mut throttle, one) = (throttle(), Limit { per_second: 1 });
        let has_some = |throttle: &Throttle, millis, text| {
            throttle.has_some(at(millis), Purpose::RecentGuess, source(text), one)
        };
        for text in ["192.0.2.7", "2001:db8::1"] {
            throttle.charge(at(10), Purpose::RecentGuess, source(text), 30, one);
            assert!(!has_some(&throttle, 30_000, text) && has_some(&throttle, 30_020, text));
            (0..10).for_each(|_| throttle.charge(at(40_000), Purpose::RecentGuess, source(text), 30, one));
            assert!(has_some(&throttle, 102_000, text), "about a minute, no matter how many guesses");
        }
        throttle.charge(at(10), Purpose::RecentGuess, source("2001:db8::1"), 30, one);
        assert!(
            !has_some(&throttle, 1000, "2001:db8:0:ffff::1") && has_some(&throttle, 1000, "2001:db8:1::1")
        );
    }

    /// A crowd that fills the table makes nobody else a guesser.
    #[test]
    fn a_full_table_counts_against_those_that_filled_it_alone() {
        let (mut throttle, one) = (throttle(), Limit { per_second: 1 });
        let address = |n: u32| Subject::Source(IpAddr::from(n.to_be_bytes()));
        let crowd = 4 * BUCKETS as u32;
        (0..crowd).for_each(|n| throttle.charge(at(10), Purpose::Guess, address(n), 1, one));
        let has_used_up = |n: &u32| throttle.has_used_up(at(10), Purpose::Guess, address(*n), one);
        assert!((0..1000).filter(has_used_up).count() > 900);
        assert_eq!((crowd..crowd + 1000).filter(has_used_up).count(), 0);
        assert!((crowd..crowd + 1000).any(|n| !throttle.has_some(at(10), Purpose::Guess, address(n), one)));
    }

    #[test]
    fn a_cost_known_afterwards_is_paid_off_in_time() {
        let (mut throttle, subject) = (throttle(), source("192.0.2.7"));
        let limit = Limit { per_second: 20_000_000 };
        let has_some =
            |throttle: &Throttle, millis| throttle.has_some(at(millis), Purpose::Search, subject, limit);
        throttle.charge(at(10), Purpose::Search, subject, 30_000_000, limit);
        assert!(!has_some(&throttle, 10) && !has_some(&throttle, 500));
        assert!(has_some(&throttle, 520), "half a second later");
        (0..100).for_each(|_| throttle.charge(at(520), Purpose::Search, subject, u32::MAX, limit));
        assert!(!has_some(&throttle, 1500) && has_some(&throttle, 1530), "the overdraft is limited");
    }
}
