//! What requests may cost: the budgets of a source without credentials, of a client with an allocation, and of a user.
//!
//! A source that uses up its budget is ignored, except for its clients that have an allocation. Their requests do not count
//! for the source: if a school shares one address, a flood does not end running calls, and running calls do not keep new
//! clients out. Over a stream they count for the user, whether they verify or not. Over UDP anybody can forge the client's
//! address, so only a request that the user's key verifies counts for the user; any other, and every Binding, counts for the
//! client ([`Payer`]).
//!
//! Each kind of budget has a table of its own, so that neither sources without credentials nor clients that guess take the
//! places of running calls.

use super::active_sources::ActiveSources;
use super::auth::Identity;
use super::rate_limit::RateLimit;
use crate::base::time::{Instant, Now};
use crate::base::transport::Transport;
use crate::turn::counters::Request;
use crate::turn::five_tuple::Client;
use crate::turn::settings::Limits;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle};
use crate::wire::message::Message;

/// Requests allowed over TCP and TLS for each one over UDP: the handshake has proved the source.
const STREAM_SHARE: u32 = 4;
/// First requests of TLS connections, allowed in addition to that share, for each request over UDP. The limit of handshakes
/// gives a source about a thousand full ones a second, some more if sessions are resumed, and each connection has four first
/// requests. So a flood from one source runs out of handshakes before it uses up this budget.
const OPENING_TLS_SHARE: u32 = 16;
/// The same over TCP, where a connection costs a client little: a flood that keeps reconnecting does use this budget up.
const OPENING_TCP_SHARE: u32 = 4;
/// Bindings over UDP for each other request: an answer costs a tenth as much, and browsers repeat Bindings to keep a NAT open.
const BINDING_SHARE: u32 = 4;
/// Bindings over TCP and TLS: many arrive in one read and are answered by one write, for half a microsecond each.
const STREAM_BINDING_SHARE: u32 = 100;
/// Bindings of one user over TCP and TLS for each other request.
const USER_BINDING_SHARE: u32 = 20;
/// Requests a second that the user's key does not verify, from a client on UDP with an allocation. Clients hardly send any;
/// most are forged.
const CLIENT_CHALLENGES: u32 = 50;
/// Bindings a second of a client on UDP with an allocation.
const CLIENT_BINDINGS: u32 = 100;
/// Nanoseconds of searching secrets each second for the clients of one source that have not guessed wrong within the last
/// second: 2 % of a worker.
const SEARCH_OF_SOURCE: Limit = Limit { per_second: 20_000_000 };
/// The same for the clients of one source that have: behind a school's NAT, one client that guesses does not keep the others
/// out. A client is an address and port, and a nonce is bound to both, so guessing from many ports takes a challenge for each
/// port. That does use up the budget of the others as well, and names of this source that are not cached then wait for the
/// next second. A source has 3 % of a worker in all.
const SEARCH_OF_GUESSERS: Limit = Limit { per_second: 10_000_000 };
/// The same for all sources together without a wrong guess within the last half minute: a tenth of a worker. With one guess
/// for each source, it takes thousands of sources to use it up, not hundreds.
const SEARCH_OF_ALL: Limit = Limit { per_second: 100_000_000 };
/// The same for all sources with a wrong guess within the last half minute, but none within the last second.
const SEARCH_OF_ALL_RECENT: Limit = Limit { per_second: 25_000_000 };
/// The same for all clients with a wrong guess within the last second, and once more for all other clients at their sources.
/// So clients that guess do not keep new clients out at their own source.
const SEARCH_OF_ALL_GUESSERS: Limit = Limit { per_second: 62_500_000 };
/// What the sources of these other clients share equally, whatever is left of that limit: guesses elsewhere do not keep out the new
/// clients of a school where somebody's password is wrong. All shares together are at most twice this: if attacks come from many sites
/// of one provider and from many providers at once, half as much more.
const SHARED_BY_NEIGHBOURS: u32 = 150_000_000;
/// A source counts once a second among those that share.
const ONCE: Limit = Limit { per_second: 1 };
/// One wrong guess within a second moves a client and its source to the budgets for guessers.
const GUESSES: Limit = Limit { per_second: 1 };
/// Parts of a second: a client whose search was deferred is not heard again within one of them, so that trying again at once
/// gains nothing. Clients repeat a request after 0.5 s (RFC 8489 section 6.2.1), libwebrtc after 0.25 s and pion after 0.2 s,
/// and then wait for longer each time.
const DEFERRALS_PER_SECOND: u64 = 6;
/// One deferral on a clock that is so many times faster.
const DEFERRALS: Limit = Limit { per_second: 1 };
/// How many more requests of its source over TCP and TLS a deferred one counts for: a client that repeats it makes others wait. The
/// first requests of a connection do not need that budget.
const DEFERRED_REQUESTS: u32 = 9;
/// Bytes of a request and of its name above which it is searched for in the time of clients that guess: a search for a long one
/// takes up to three times as long. Browsers send 150 to 300 bytes.
const LONG: [usize; 2] = [512, 128];
/// Seconds for which the wrong guess of a source counts as recent.
const RECENT_GUESS: u32 = 30;
/// Nanoseconds of searching that count as one more request of the user that was found.
const SEARCH_PER_REQUEST: u32 = 50_000;
const NANOS_PER_MILLI: u32 = 1_000_000;
/// Bytes of a request that count as one more request, because each item in it, such as a peer, costs time.
const BYTES_PER_REQUEST: usize = 256;

/// Nanoseconds that trying one secret takes: an HMAC over the name, a key over name, realm and password, and an HMAC over the
/// whole request. Measured: 1,650 at 180 bytes, 2,900 at 1,850, 4,070 with 700 bytes of name in 1,868 under SHA-256. Now 110
/// less, because the part of the first HMAC that depends on the secret alone is computed in advance.
fn search_cost(request: usize, name: usize) -> usize {
    1_400 + request + 2 * name
}

fn is_long(request: usize, name: usize) -> bool {
    request > LONG[0] || name > LONG[1]
}

/// A limit, and what draws from it.
type Budget = (Purpose, Subject<'static>, Limit);

/// Which budgets a client's search is charged to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Searcher {
    /// It has guessed wrong within the last second, or sends long requests.
    Guesser,
    /// Another client of its source has.
    Neighbour,
    /// Its source has within the last half minute.
    Recent,
    /// None of these.
    New,
}

/// Who pays for an answer to a request without good credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// The source of a client without an allocation.
    Source,
    /// The address and port of a client on UDP that has an allocation. Requests that forge it use up no other budget.
    Client,
    /// The user of a client that has an allocation and sends over its own stream.
    User,
}

impl Payer {
    /// The payer for this client.
    pub fn of(client: &Client, has_allocation: bool) -> Self {
        match (has_allocation, client.five_tuple.transport.is_stream()) {
            (false, _) => Self::Source,
            (true, false) => Self::Client,
            (true, true) => Self::User,
        }
    }
}

/// The budgets of one worker. Each table takes up to 256 KiB, as it is used.
#[derive(Debug)]
pub struct Gate {
    /// Of users, and of clients that have an allocation.
    clients: Throttle,
    /// Of sources, for requests without credentials and for searches.
    sources: Throttle,
    /// Wrong guesses of sources, which are remembered for up to a minute; every other budget is full again within two seconds.
    guesses: Throttle,
    /// Clients whose search was deferred, on a faster clock.
    deferred: Throttle,
    /// Sources with a wrong guess within the last second whose other clients need a search.
    neighbours: ActiveSources,
}

impl Gate {
    /// A gate with full budgets. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        // One key serves all tables, because the purpose is part of what is hashed.
        let table = || Throttle::new(key);
        Self {
            clients: table(),
            sources: table(),
            guesses: table(),
            deferred: table(),
            neighbours: ActiveSources::new(key),
        }
    }

    /// Whether the payer may still cause an answer without credentials. Called before anything is computed. The first requests
    /// of a connection (`opening`) have an additional budget, so that a flood on other connections does not keep a new client
    /// out.
    pub fn has_budget(
        &mut self,
        now: Now,
        limits: &Limits,
        client: &Client,
        kind: Request,
        payer: Payer,
        opening: bool,
    ) -> bool {
        match payer {
            Payer::User => true,
            Payer::Client => {
                let (purpose, limit) = budget_of_client(limits, kind);
                self.clients.has_some(now.instant, purpose, client_itself(client), limit)
            }
            Payer::Source => {
                let (purpose, limit) = budget_of_source(limits, client, kind);
                self.sources.has_some(now.instant, purpose, source(client), limit)
                    || opening && kind != Request::Binding && self.may_open(now, limits, client)
            }
        }
    }

    /// Counts one of the first requests of a connection. Returns whether the source had budget for it.
    fn may_open(&mut self, now: Now, limits: &Limits, client: &Client) -> bool {
        let (purpose, share) = match client.five_tuple.transport {
            Transport::Udp => return false,
            Transport::Tcp => (Purpose::OpeningTcp, OPENING_TCP_SHARE),
            Transport::Tls => (Purpose::OpeningTls, OPENING_TLS_SHARE),
        };
        let limit = Limit { per_second: limits.unauthenticated_per_source.saturating_mul(share) };
        self.sources.take(now.instant, purpose, source(client), 1, limit)
    }

    /// Counts a request that is answered without credentials. Returns whether it may be answered.
    pub fn spend(&mut self, now: Now, limits: &Limits, client: &Client, kind: Request, payer: Payer) -> bool {
        match payer {
            // Charged to the user in `may_ask`.
            Payer::User => true,
            Payer::Client => {
                let (purpose, limit) = budget_of_client(limits, kind);
                self.clients.take(now.instant, purpose, client_itself(client), 1, limit)
            }
            Payer::Source => {
                let (purpose, limit) = budget_of_source(limits, client, kind);
                // If the budget is used up, this is one of the first requests of its connection, already counted by `may_open`.
                self.sources.take(now.instant, purpose, source(client), 1, limit);
                true
            }
        }
    }

    /// Whether a search for this client was deferred a moment ago.
    ///
    /// # Errors
    /// The limit that this is by.
    pub fn may_try_again(&self, now: Now, client: &Client) -> Result<(), RateLimit> {
        let (now, client) = (hastened(now.instant), client_itself(client));
        match self.deferred.has_used_up(now, Purpose::Deferred, client, DEFERRALS) {
            true => Err(RateLimit::Repetition((1000 / DEFERRALS_PER_SECOND) as u32)),
            false => Ok(()),
        }
    }

    /// Counts a search for a request of these many bytes, and as many of the name, that is deferred.
    pub fn defer_search(
        &mut self,
        now: Now,
        limits: &Limits,
        client: &Client,
        payer: Payer,
        request: usize,
        name: usize,
    ) {
        let searcher = self.searcher(now, client, is_long(request, name));
        self.note_neighbour(now, client, searcher);
        if payer == Payer::Source && client.five_tuple.transport.is_stream() {
            let (purpose, limit) = budget_of_source(limits, client, Request::Refresh);
            self.sources.charge(now.instant, purpose, source(client), DEFERRED_REQUESTS, limit);
        }
        let (now, client) = (hastened(now.instant), client_itself(client));
        // One that is counted already is not counted again, so that it is heard when the time has passed.
        self.deferred.take(now, Purpose::Deferred, client, 1, DEFERRALS);
    }

    /// Whether all secrets may be tried on a request of this client with so many bytes, and as many of the name.
    ///
    /// # Errors
    /// The limit that is used up.
    pub fn may_search(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        name: usize,
    ) -> Result<(), RateLimit> {
        self.may_try_again(now, client)?;
        let searcher = self.searcher(now, client, is_long(message.bytes().len(), name));
        let budgets = self.search_budgets(now, client, searcher);
        // A source within its share needs nothing of the limit of all: those that begin may have used that up.
        let [_, share, _] = budgets;
        let is_within = share.is_some_and(|(purpose, subject, limit)| {
            self.sources.has_three_quarters(now.instant, purpose, subject, limit)
        });
        for (purpose, subject, limit) in budgets.into_iter().flatten() {
            let counts = !is_within || subject != Subject::Everybody;
            if counts && !self.sources.has_some(now.instant, purpose, subject, limit) {
                let millis = limit.per_second.div_ceil(NANOS_PER_MILLI);
                return Err(match subject {
                    Subject::Everybody => RateLimit::Search(millis),
                    _ => RateLimit::SourceSearch(millis),
                });
            }
        }
        Ok(())
    }

    /// Returns the limit of requests of this kind without good credentials, for this payer.
    pub fn limit_of(limits: &Limits, client: &Client, kind: Request, payer: Payer) -> RateLimit {
        let is_binding = kind == Request::Binding;
        match payer {
            Payer::Source => {
                let (_, limit) = budget_of_source(limits, client, kind);
                if is_binding {
                    RateLimit::SourceBindings(limit.per_second)
                } else {
                    RateLimit::Source(limit.per_second)
                }
            }
            Payer::Client => {
                let (_, limit) = budget_of_client(limits, kind);
                if is_binding {
                    RateLimit::ClientBindings(limit.per_second)
                } else {
                    RateLimit::Client(limit.per_second)
                }
            }
            Payer::User => Self::limit_of_user(limits, kind),
        }
    }

    /// Returns the limit of a user's requests of this kind.
    pub fn limit_of_user(limits: &Limits, kind: Request) -> RateLimit {
        let (_, limit) = budget_of_user(limits, kind);
        match kind {
            Request::Binding => RateLimit::UserBindings(limit.per_second),
            _ => RateLimit::User(limit.per_second),
        }
    }

    /// Counts `tried` keys, whether one of them verified the request or not: a client with an endless supply of valid names
    /// makes the server search as often as one that guesses. Only a wrong guess moves the client to the budgets for guessers.
    /// Returns the cost in nanoseconds.
    pub fn spend_search(
        &mut self,
        now: Now,
        client: &Client,
        tried: usize,
        message: &Message<'_>,
        name: usize,
        is_wrong: bool,
    ) -> u32 {
        if tried == 0 {
            return 0;
        }
        let cost = tried * search_cost(message.bytes().len(), name);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let searcher = self.searcher(now, client, is_long(message.bytes().len(), name));
        self.note_neighbour(now, client, searcher);
        for (purpose, subject, limit) in self.search_budgets(now, client, searcher).into_iter().flatten() {
            self.sources.charge(now.instant, purpose, subject, cost, limit);
        }
        if is_wrong {
            for subject in [source(client), client_itself(client)] {
                self.guesses.charge(now.instant, Purpose::Guess, subject, 1, GUESSES);
            }
            self.guesses.charge(now.instant, Purpose::RecentGuess, source(client), RECENT_GUESS, GUESSES);
        }
        cost
    }

    /// The budgets that a search for this client is charged to: those of its source, and one of all sources together.
    fn search_budgets(&mut self, now: Now, client: &Client, searcher: Searcher) -> [Option<Budget>; 3] {
        let of_source = |purpose, limit| Some((purpose, source(client), limit));
        let of_all = |purpose, limit| Some((purpose, Subject::Everybody, limit));
        let first = of_source(Purpose::FirstSearch, SEARCH_OF_SOURCE);
        match searcher {
            Searcher::Guesser => [
                of_source(Purpose::Search, SEARCH_OF_GUESSERS),
                None,
                of_all(Purpose::Search, SEARCH_OF_ALL_GUESSERS),
            ],
            Searcher::Neighbour => {
                let parts = self.neighbours.parts(now.instant, client.five_tuple.client.ip());
                let share = Limit { per_second: (SHARED_BY_NEIGHBOURS / parts).max(1) };
                let of_all = of_all(Purpose::NeighbourSearch, SEARCH_OF_ALL_GUESSERS);
                [first, of_source(Purpose::NeighbourShare, share), of_all]
            }
            Searcher::Recent => [first, None, of_all(Purpose::RecentSearch, SEARCH_OF_ALL_RECENT)],
            Searcher::New => [first, None, of_all(Purpose::FirstSearch, SEARCH_OF_ALL)],
        }
    }

    fn searcher(&self, now: Now, client: &Client, is_long: bool) -> Searcher {
        let guess = |purpose, subject| self.guesses.has_used_up(now.instant, purpose, subject, GUESSES);
        if is_long || guess(Purpose::Guess, client_itself(client)) {
            Searcher::Guesser
        } else if guess(Purpose::Guess, source(client)) {
            Searcher::Neighbour
        } else if guess(Purpose::RecentGuess, source(client)) {
            Searcher::Recent
        } else {
            Searcher::New
        }
    }

    /// Counts the source among those that share, if this client draws from a share.
    fn note_neighbour(&mut self, now: Now, client: &Client, searcher: Searcher) {
        if searcher == Searcher::Neighbour
            && self.sources.take(now.instant, Purpose::NeighbourTurn, source(client), 1, ONCE)
        {
            self.neighbours.note(now.instant, client.five_tuple.client.ip());
        }
    }

    /// Counts this request. Returns whether the user may make it now. A name without a user part may be shared by many, so its
    /// requests count for their client's address and port. `searched` is the time in nanoseconds that finding the user took.
    pub fn may_ask(
        &mut self,
        now: Now,
        limits: &Limits,
        client: &Client,
        user: &Identity,
        message: &Message<'_>,
        searched: u32,
    ) -> bool {
        let (purpose, limit) = budget_of_user(limits, Request::of(message.method()));
        // A request is at most 2 KiB long.
        let units = 1 + (message.bytes().len() / BYTES_PER_REQUEST) as u32 + searched / SEARCH_PER_REQUEST;
        self.clients.take(now.instant, purpose, subject_of(client, user), units, limit)
    }

    /// Whether the user may make any request now. Counts nothing.
    pub fn may_ask_more(&self, now: Now, limits: &Limits, client: &Client, user: &Identity) -> bool {
        let (purpose, limit) = budget_of_user(limits, Request::Refresh);
        self.clients.has_some(now.instant, purpose, subject_of(client, user), limit)
    }
}

/// Returns the time on the clock of deferrals.
fn hastened(now: Instant) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_mul(DEFERRALS_PER_SECOND))
}

/// The budget of a user's requests.
fn budget_of_user(limits: &Limits, kind: Request) -> (Purpose, Limit) {
    let (purpose, share) = match kind {
        Request::Binding => (Purpose::UserBinding, USER_BINDING_SHARE),
        _ => (Purpose::Request, 1),
    };
    (purpose, Limit { per_second: limits.requests_per_user.saturating_mul(share) })
}

/// The budget of a client on UDP that has an allocation. There is none if the operator has switched off the limit of requests
/// without credentials.
fn budget_of_client(limits: &Limits, kind: Request) -> (Purpose, Limit) {
    let (purpose, per_second) = match kind {
        Request::Binding => (Purpose::ClientBinding, CLIENT_BINDINGS),
        _ => (Purpose::ClientChallenge, CLIENT_CHALLENGES),
    };
    (purpose, Limit { per_second: if limits.unauthenticated_per_source == 0 { 0 } else { per_second } })
}

/// The budget of a source without credentials.
fn budget_of_source(limits: &Limits, client: &Client, kind: Request) -> (Purpose, Limit) {
    let (purpose, share) = match (client.five_tuple.transport.is_stream(), kind) {
        (true, Request::Binding) => (Purpose::StreamBinding, STREAM_BINDING_SHARE),
        (true, _) => (Purpose::Stream, STREAM_SHARE),
        (false, Request::Binding) => (Purpose::Binding, BINDING_SHARE),
        (false, _) => (Purpose::Challenge, 1),
    };
    (purpose, Limit { per_second: limits.unauthenticated_per_source.saturating_mul(share) })
}

fn source(client: &Client) -> Subject<'static> {
    Subject::Source(client.five_tuple.client.ip())
}

fn client_itself(client: &Client) -> Subject<'static> {
    Subject::Client(client.five_tuple.client)
}

/// The subject that a user's requests count for: the user, or the client if many may share the name.
fn subject_of<'a>(client: &Client, user: &'a Identity) -> Subject<'a> {
    match user.user.is_empty() {
        true => client_itself(client),
        false => Subject::User(user.host, &user.user),
    }
}
