//! What requests may cost: the budgets of a source without credentials and of a user.
//!
//! A source that uses up its budget is not heard, with one exception: a client that has an allocation. Its requests
//! count for its user, good or bad, and not for its source: behind one school address, a flood does not end running calls,
//! and running calls do not keep newcomers out.

use super::auth::Identity;
use super::counters::Request;
use super::five_tuple::Client;
use super::server::Server;
use super::throttle::{Limit, Purpose, Subject};
use super::time::Now;
use crate::wire::message::Message;

/// Requests over TCP and TLS for each one over UDP: the handshake has proved the source, and a stream has no retransmission.
const STREAM_SHARE: u32 = 4;
/// Bindings over UDP for each other request: an answer costs a tenth, and browsers repeat them to keep a NAT open.
const BINDING_SHARE: u32 = 4;
/// Bindings over TCP and TLS: many arrive in one read and are answered by one write, for half a microsecond each.
const STREAM_BINDING_SHARE: u32 = 100;
/// Bindings of one user for each other request.
const USER_BINDING_SHARE: u32 = 20;
/// Nanoseconds of searching secrets each second that one source may cause: 2 % of a worker.
const SEARCH_OF_SOURCE: Limit = Limit { per_second: 20_000_000 };
/// The same for all sources together that guessed wrong within the last second, and for all others: an eighth of a worker
/// each, so those who guess do not keep newcomers out.
const SEARCH_OF_ALL: Limit = Limit { per_second: 125_000_000 };
/// One wrong guess within a second makes a source one of those who guess.
const GUESSES: Limit = Limit { per_second: 1 };
/// Bytes of a request that count as one request more. What a request names, such as peers, costs time.
const BYTES_PER_REQUEST: usize = 256;

/// Nanoseconds that trying one secret takes: an HMAC over the name, a key over name, realm and password, and an HMAC over the
/// whole request. Measured: 1,650 at 180 bytes, 2,900 at 1,850, 4,070 with 700 bytes of name in 1,868 under SHA-256.
fn search_cost(request: usize, name: usize) -> usize {
    1_500 + request + 2 * name
}

impl Server {
    /// Whether this source may still cause an answer without credentials.
    pub(super) fn has_budget(&self, now: Now, client: &Client, kind: Request) -> bool {
        let (purpose, limit) = self.budget_of(client, kind);
        self.throttle.has_some(now.instant, purpose, source(client), limit)
    }

    /// Counts a request of this source that is answered without credentials, unless the client has an allocation: then it
    /// has counted for its user.
    pub(super) fn spend(&mut self, now: Now, client: &Client, kind: Request) {
        if !self.has_allocation(client) {
            let (purpose, limit) = self.budget_of(client, kind);
            self.throttle.charge(now.instant, purpose, source(client), 1, limit);
        }
    }

    fn budget_of(&self, client: &Client, kind: Request) -> (Purpose, Limit) {
        let rate = self.settings.limits.unauthenticated_per_source;
        let (purpose, share) = match (client.five_tuple.transport.is_stream(), kind) {
            (true, Request::Binding) => (Purpose::StreamBinding, STREAM_BINDING_SHARE),
            (true, _) => (Purpose::Stream, STREAM_SHARE),
            (false, Request::Binding) => (Purpose::Binding, BINDING_SHARE),
            (false, _) => (Purpose::Challenge, 1),
        };
        (purpose, Limit { per_second: rate.saturating_mul(share) })
    }

    /// Whether all secrets may be tried on a request of this source.
    pub(super) fn may_search(&self, now: Now, client: &Client) -> bool {
        let may = |purpose, subject, limit| self.throttle.has_some(now.instant, purpose, subject, limit);
        may(Purpose::Search, source(client), SEARCH_OF_SOURCE)
            && may(self.search_of_all(now, client), Subject::Everybody, SEARCH_OF_ALL)
    }

    /// Counts `tried` secrets that did not fit the request.
    pub(super) fn spend_search(
        &mut self,
        now: Now,
        client: &Client,
        tried: usize,
        message: &Message<'_>,
        name: usize,
    ) {
        let cost = tried * search_cost(message.bytes().len(), name);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let of_all = self.search_of_all(now, client);
        let mut spend = |purpose, subject, units, limit| {
            self.throttle.charge(now.instant, purpose, subject, units, limit)
        };
        spend(Purpose::Search, source(client), cost, SEARCH_OF_SOURCE);
        spend(of_all, Subject::Everybody, cost, SEARCH_OF_ALL);
        spend(Purpose::Guess, source(client), 1, GUESSES);
    }

    /// Which budget of all sources a search of this one counts for.
    fn search_of_all(&self, now: Now, client: &Client) -> Purpose {
        match self.throttle.has_some(now.instant, Purpose::Guess, source(client), GUESSES) {
            true => Purpose::FirstSearch,
            false => Purpose::Search,
        }
    }

    /// Whether the user may make this request now; counts it. A name without a user part is shared by many, so its
    /// requests count for their client's address and port.
    pub(super) fn may_ask(
        &mut self,
        now: Now,
        client: &Client,
        user: &Identity,
        message: &Message<'_>,
    ) -> bool {
        let subject = match user.user.is_empty() {
            true => Subject::Client(client.five_tuple.client),
            false => Subject::User(user.host, &user.user),
        };
        let (purpose, share) = match Request::of(message.method()) {
            Request::Binding => (Purpose::UserBinding, USER_BINDING_SHARE),
            _ => (Purpose::Request, 1),
        };
        let limit = Limit { per_second: self.settings.limits.requests_per_user.saturating_mul(share) };
        // A request is at most 2 KiB long.
        let units = 1 + (message.bytes().len() / BYTES_PER_REQUEST) as u32;
        self.throttle.take(now.instant, purpose, subject, units, limit)
    }
}

fn source(client: &Client) -> Subject<'static> {
    Subject::Source(client.five_tuple.client.ip())
}
