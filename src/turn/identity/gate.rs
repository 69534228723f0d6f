//! What requests may cost: the budgets of a source without credentials and of a user.
//!
//! A source that uses up its budget is ignored, with one exception: a client that has an allocation. Its requests
//! count for its user, good or bad, and not for its source: behind one school address, a flood does not end running calls,
//! and running calls do not keep newcomers out.

use super::auth::Identity;
use crate::base::time::Now;
use crate::base::transport::Transport;
use crate::turn::counters::Request;
use crate::turn::five_tuple::Client;
use crate::turn::settings::Limits;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle};
use crate::wire::message::Message;

/// Requests over TCP and TLS for each one over UDP: the handshake has proved the source, and a stream has no retransmission.
const STREAM_SHARE: u32 = 4;
/// The first requests of connections over TLS for each one over UDP, beyond that share. A source has time for a thousand full
/// handshakes a second, some more if sessions are resumed, and each connection has four such requests: a flood of a source
/// does not use them up, because its handshakes end first.
const OPENING_TLS_SHARE: u32 = 16;
/// The same over TCP, where connections cost a client little: a flood that reconnects for them does use them up.
const OPENING_TCP_SHARE: u32 = 4;
/// Bindings over UDP for each other request: an answer costs a tenth, and browsers repeat them to keep a NAT open.
const BINDING_SHARE: u32 = 4;
/// Bindings over TCP and TLS: many arrive in one read and are answered by one write, for half a microsecond each.
const STREAM_BINDING_SHARE: u32 = 100;
/// Bindings of one user for each other request.
const USER_BINDING_SHARE: u32 = 20;
/// Nanoseconds of searching secrets each second for the clients of one source that have not guessed wrong within the last
/// second: 2 % of a worker.
const SEARCH_OF_SOURCE: Limit = Limit { per_second: 20_000_000 };
/// The same for the clients of one source that have: behind a school's NAT, one pupil who guesses does not keep the others
/// out. A client is an address and port, and a nonce is bound to both: guessing from many ports takes a challenge for each
/// port. That uses up the budget of the others, too, and then the names of this source that are not cached wait for the
/// next second; a source has 3 % of a worker in all.
const SEARCH_OF_GUESSERS: Limit = Limit { per_second: 10_000_000 };
/// The same for all sources together that have not guessed wrong within the last half minute: a tenth of a worker. To use it
/// up with one guess each takes thousands of sources, not hundreds.
const SEARCH_OF_ALL: Limit = Limit { per_second: 100_000_000 };
/// The same for those that have, but not within the last second.
const SEARCH_OF_ALL_RECENT: Limit = Limit { per_second: 25_000_000 };
/// The same for all clients that have, and once more for all other clients at their sources. Clients that guess do not keep
/// newcomers out, neither at their own source nor at others.
const SEARCH_OF_ALL_GUESSERS: Limit = Limit { per_second: 62_500_000 };
/// One wrong guess within a second moves a client and its source to the budgets for guessers.
const GUESSES: Limit = Limit { per_second: 1 };
/// Seconds for which the wrong guess of a source counts as recent.
const RECENT_GUESS: u32 = 30;
/// Nanoseconds of searching that count as one request more of the user that was found.
const SEARCH_PER_REQUEST: u32 = 50_000;
/// Bytes of a request that count as one request more. Each item in a request, such as a peer, costs time.
const BYTES_PER_REQUEST: usize = 256;

/// Nanoseconds that trying one secret takes: an HMAC over the name, a key over name, realm and password, and an HMAC over the
/// whole request. Measured: 1,650 at 180 bytes, 2,900 at 1,850, 4,070 with 700 bytes of name in 1,868 under SHA-256; 110
/// less since the part of the first HMAC that depends on the secret alone is computed once.
fn search_cost(request: usize, name: usize) -> usize {
    1_400 + request + 2 * name
}

/// The budgets of one worker.
#[derive(Debug)]
pub struct Gate {
    throttle: Throttle,
}

impl Gate {
    /// A gate with full budgets. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        Self { throttle: Throttle::new(key) }
    }

    /// Whether this source may still cause an answer without credentials. Asked before anything is computed. The first requests
    /// of a connection (`opening`) have a further budget, so that a flood on others does not keep a newcomer out.
    pub fn has_budget(
        &mut self,
        now: Now,
        limits: &Limits,
        client: &Client,
        kind: Request,
        opening: bool,
    ) -> bool {
        let (purpose, limit) = budget_of(limits, client, kind);
        self.throttle.has_some(now.instant, purpose, source(client), limit)
            || opening && kind != Request::Binding && self.may_open(now, limits, client)
    }

    /// Whether this source may make one more of the first requests of a connection; counts it.
    fn may_open(&mut self, now: Now, limits: &Limits, client: &Client) -> bool {
        let (purpose, share) = match client.five_tuple.transport {
            Transport::Udp => return false,
            Transport::Tcp => (Purpose::OpeningTcp, OPENING_TCP_SHARE),
            Transport::Tls => (Purpose::OpeningTls, OPENING_TLS_SHARE),
        };
        let limit = Limit { per_second: limits.unauthenticated_per_source.saturating_mul(share) };
        self.throttle.take(now.instant, purpose, source(client), 1, limit)
    }

    /// Counts a request of this source that is answered without credentials. Without budget left it was one of the first of
    /// its connection, and has counted as such.
    pub fn spend(&mut self, now: Now, limits: &Limits, client: &Client, kind: Request) {
        let (purpose, limit) = budget_of(limits, client, kind);
        self.throttle.take(now.instant, purpose, source(client), 1, limit);
    }

    /// Whether all secrets may be tried on a request of this client.
    pub fn may_search(&self, now: Now, client: &Client) -> bool {
        let has_some =
            |(purpose, subject, limit)| self.throttle.has_some(now.instant, purpose, subject, limit);
        self.search_budgets(now, client).into_iter().all(has_some)
    }

    /// Counts `tried` keys, whether one of them verified the request or not: a client with good names without number makes
    /// the server search as often as one that guesses. Only a wrong guess moves the client to the budgets for guessers.
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
        for (purpose, subject, limit) in self.search_budgets(now, client) {
            self.throttle.charge(now.instant, purpose, subject, cost, limit);
        }
        if is_wrong {
            for subject in [source(client), Subject::Client(client.five_tuple.client)] {
                self.throttle.charge(now.instant, Purpose::Guess, subject, 1, GUESSES);
            }
            self.throttle.charge(now.instant, Purpose::RecentGuess, source(client), RECENT_GUESS, GUESSES);
        }
        cost
    }

    /// The budgets that a search for this client is charged to: the one of its source, and one of all sources.
    fn search_budgets(&self, now: Now, client: &Client) -> [(Purpose, Subject<'static>, Limit); 2] {
        let guess = |purpose, subject| !self.throttle.has_some(now.instant, purpose, subject, GUESSES);
        let has_guessed = |subject| guess(Purpose::Guess, subject);
        let (of_source, of_all) = if has_guessed(Subject::Client(client.five_tuple.client)) {
            ((Purpose::Search, SEARCH_OF_GUESSERS), (Purpose::Search, SEARCH_OF_ALL_GUESSERS))
        } else if has_guessed(source(client)) {
            ((Purpose::FirstSearch, SEARCH_OF_SOURCE), (Purpose::NeighbourSearch, SEARCH_OF_ALL_GUESSERS))
        } else if guess(Purpose::RecentGuess, source(client)) {
            ((Purpose::FirstSearch, SEARCH_OF_SOURCE), (Purpose::RecentSearch, SEARCH_OF_ALL_RECENT))
        } else {
            ((Purpose::FirstSearch, SEARCH_OF_SOURCE), (Purpose::FirstSearch, SEARCH_OF_ALL))
        };
        [(of_source.0, source(client), of_source.1), (of_all.0, Subject::Everybody, of_all.1)]
    }

    /// Whether the user may make this request now; counts it. A name without a user part is shared by many, so its
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
        let subject = match user.user.is_empty() {
            true => Subject::Client(client.five_tuple.client),
            false => Subject::User(user.host, &user.user),
        };
        let (purpose, share) = match Request::of(message.method()) {
            Request::Binding => (Purpose::UserBinding, USER_BINDING_SHARE),
            _ => (Purpose::Request, 1),
        };
        let limit = Limit { per_second: limits.requests_per_user.saturating_mul(share) };
        // A request is at most 2 KiB long.
        let units = 1 + (message.bytes().len() / BYTES_PER_REQUEST) as u32 + searched / SEARCH_PER_REQUEST;
        self.throttle.take(now.instant, purpose, subject, units, limit)
    }
}

/// The budget that a request without credentials is charged to.
fn budget_of(limits: &Limits, client: &Client, kind: Request) -> (Purpose, Limit) {
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
