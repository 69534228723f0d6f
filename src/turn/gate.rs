//! What requests may cost: the budgets of a source without credentials and of a user.
//!
//! A source that uses up its budget is not heard, with one exception: clients that have an allocation. Behind one school
//! address, a flood does not end running calls.

use super::answer::Ticket;
use super::counters::Request;
use super::five_tuple::Client;
use super::server::Server;
use super::throttle::{Limit, Purpose, Subject};
use super::time::Now;
use crate::wire::message::Message;

/// Requests over TCP and TLS for each one over UDP: the handshake has proved the source, and a stream has no retransmission.
const STREAM_SHARE: u32 = 4;
/// Trying one secret: a password, a key and an HMAC over the request, in nanoseconds.
const SEARCH_COST: usize = 700;
/// Nanoseconds of searching each second that one source may cause: 2 % of a worker.
const SEARCH_OF_SOURCE: Limit = Limit { per_second: 20_000_000 };
/// The same for all sources together: a quarter of a worker.
const SEARCH_OF_ALL: Limit = Limit { per_second: 250_000_000 };
/// Bytes of a request that count as one request more. What a request names, such as peers, costs time.
const BYTES_PER_REQUEST: usize = 256;

impl Server {
    /// Whether this source may still cause an answer without credentials.
    pub(super) fn has_budget(&self, now: Now, client: &Client, kind: Request) -> bool {
        let (purpose, limit) = self.budget_of(client, kind);
        self.throttle.has_some(now.instant, purpose, source(client), limit)
    }

    /// Counts a request of this source that is answered without credentials.
    pub(super) fn spend(&mut self, now: Now, client: &Client, kind: Request) {
        let (purpose, limit) = self.budget_of(client, kind);
        self.throttle.charge(now.instant, purpose, source(client), 1, limit);
    }

    fn budget_of(&self, client: &Client, kind: Request) -> (Purpose, Limit) {
        let rate = self.settings.limits.unauthenticated_per_source;
        match (client.five_tuple.transport.is_stream(), kind) {
            (true, _) => (Purpose::Stream, Limit { per_second: rate.saturating_mul(STREAM_SHARE) }),
            (false, Request::Binding) => (Purpose::Binding, Limit { per_second: rate }),
            (false, _) => (Purpose::Challenge, Limit { per_second: rate }),
        }
    }

    /// Whether all secrets may be tried on a request of this source.
    pub(super) fn may_search(&self, now: Now, client: &Client) -> bool {
        let may = |subject, limit| self.throttle.has_some(now.instant, Purpose::Search, subject, limit);
        may(source(client), SEARCH_OF_SOURCE) && may(Subject::Everybody, SEARCH_OF_ALL)
    }

    /// Counts `tried` secrets that did not fit.
    pub(super) fn spend_search(&mut self, now: Now, client: &Client, tried: usize) {
        let cost = u32::try_from(tried * SEARCH_COST).unwrap_or(u32::MAX);
        let mut spend =
            |subject, limit| self.throttle.charge(now.instant, Purpose::Search, subject, cost, limit);
        spend(source(client), SEARCH_OF_SOURCE);
        spend(Subject::Everybody, SEARCH_OF_ALL);
    }

    /// Whether the user may make this request now; counts it. A name without a user part is shared by many, so its
    /// requests count for their source.
    pub(super) fn may_ask(&mut self, now: Now, ticket: &Ticket, message: &Message<'_>) -> bool {
        let Some(asker) = &ticket.asker else { return false };
        let identity = &asker.identity;
        let subject = match identity.user.is_empty() {
            true => source(&ticket.client),
            false => Subject::User(identity.host, &identity.user),
        };
        let limit = Limit { per_second: self.settings.limits.requests_per_user };
        // A request is at most 2 KiB long.
        let units = 1 + (message.bytes().len() / BYTES_PER_REQUEST) as u32;
        self.throttle.take(now.instant, Purpose::Request, subject, units, limit)
    }
}

fn source(client: &Client) -> Subject<'static> {
    Subject::Source(client.five_tuple.client.ip())
}
