//! Answers: whom to, for which transaction, under which key.

use std::net::{IpAddr, SocketAddr};

use crate::base::time::Now;
use crate::turn::action::DropReason;
use crate::turn::action::{Action, FromClient};
use crate::turn::counters::Request;
use crate::turn::error::Code;
use crate::turn::five_tuple::Client;
use crate::turn::identity::auth::{Authenticated, PASSWORD_ALGORITHMS};
use crate::turn::identity::nonce::Features;
use crate::turn::server::Server;
use crate::wire::message::{Message, method};
use crate::wire::response::{Reason, Response};

/// SOFTWARE (RFC 8489 section 14.14), for those who logged in.
const SOFTWARE: &str = concat!("Hallpass ", env!("CARGO_PKG_VERSION"));

/// Everything an answer needs to know of its request. Kept while a relay is being opened.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Whom to answer.
    pub client: Client,
    /// The request's method.
    pub method: u16,
    /// The request's transaction.
    pub transaction_id: [u8; 12],
    /// Whether the request had FINGERPRINT, so the answer has one too (RFC 8489 section 7).
    pub fingerprint: bool,
    /// Who asked, once known; his key protects the answer.
    pub asker: Option<Authenticated>,
}

impl Ticket {
    /// For a request of somebody unknown.
    pub fn of(client: Client, message: &Message<'_>) -> Self {
        Self {
            client,
            method: message.method(),
            transaction_id: message.transaction_id(),
            fingerprint: message.has_fingerprint(),
            asker: None,
        }
    }

    /// A success response to this request, without attributes yet.
    pub fn success(&self) -> Response {
        self.with_software(Response::success(self.method, self.transaction_id))
    }

    /// An error response to this request. Strangers get no reason phrase: it would only amplify.
    pub fn error(&self, code: Code) -> Response {
        let reason = if self.asker.is_some() { Reason::Phrase } else { Reason::Empty };
        self.with_software(Response::error(self.method, self.transaction_id, code.number(), reason))
    }

    /// RFC 8656 section 5: in answers to Allocate and Refresh. Strangers learn nothing.
    fn with_software(&self, response: Response) -> Response {
        match self.asker.is_some() && matches!(self.method, method::ALLOCATE | method::REFRESH) {
            true => response.software(SOFTWARE),
            false => response,
        }
    }

    /// The finished message.
    pub fn seal(&self, response: Response) -> Vec<u8> {
        let key = self.asker.as_ref().map(|asker| (asker.key(), asker.answer));
        response.finish(key, self.fingerprint)
    }
}

impl Server {
    /// Queues a success answer.
    pub(in crate::turn) fn succeed(&mut self, ticket: &Ticket, response: Response) -> FromClient {
        let (message, authenticated) = (ticket.seal(response), ticket.asker.is_some());
        self.actions.push_back(Action::Reply { client: ticket.client, message, authenticated });
        FromClient::Control
    }

    /// Queues an error answer to somebody whose credentials are good.
    pub(in crate::turn) fn refuse(&mut self, ticket: &Ticket, code: Code) -> FromClient {
        self.count_error(ticket, code);
        let mut response = ticket.error(code);
        if code == Code::TryAlternate
            && let Some(server) = self.alternate(ticket)
        {
            response = response.alternate_server(server);
        }
        self.succeed(ticket, response)
    }

    /// The server that this client may be sent to instead.
    pub(in crate::turn) fn alternate(&self, ticket: &Ticket) -> Option<SocketAddr> {
        let five_tuple = &ticket.client.five_tuple;
        self.settings.alternates.for_client(five_tuple.transport, five_tuple.client)
    }

    /// Counts an error answer where it belongs.
    pub(in crate::turn) fn count_error(&self, ticket: &Ticket, code: Code) {
        let (transport, request) = (ticket.client.five_tuple.transport, Request::of(ticket.method));
        self.counters.error(transport, request, code.number()).add(1);
    }

    /// 400 to a stranger (RFC 8489 section 9.2.4, second check).
    pub(in crate::turn) fn refuse_stranger(&mut self, now: Now, ticket: &Ticket, asked: usize) -> FromClient {
        self.spend(now, &ticket.client, Request::of(ticket.method));
        let message = ticket.seal(ticket.error(Code::BadRequest));
        self.answer_stranger(ticket, Code::BadRequest, asked, message)
    }

    /// 401 or 438 with a fresh nonce (RFC 8489 section 9.2.4). `asked` is the size of the request.
    pub(in crate::turn) fn challenge(
        &mut self,
        now: Now,
        ticket: &Ticket,
        code: Code,
        asked: usize,
    ) -> FromClient {
        self.spend(now, &ticket.client, Request::of(ticket.method));
        let client = ticket.client.five_tuple.client;
        let username_anonymity = self.offers_anonymity();
        // Who holds an allocation goes on with the realm of its key.
        let holder = self.table.find(&ticket.client).and_then(|id| self.table.allocation(id));
        let realm = holder.map_or(self.settings.realm.as_str(), |allocation| &*allocation.identity.realm);
        let with = |features: Features| {
            let nonce = self.shared.nonces.make(now.instant, client, features);
            let response = ticket.error(code).realm(realm).nonce(nonce.as_bytes());
            ticket.seal(match features.password_algorithms {
                true => response.password_algorithms(&PASSWORD_ALGORITHMS),
                false => response,
            })
        };
        let full = with(Features { password_algorithms: true, username_anonymity });
        if within_amplification(ticket, asked, full.len()) {
            return self.answer_stranger(ticket, code, asked, full);
        }
        let short = with(Features::default());
        self.answer_stranger(ticket, code, asked, short)
    }

    fn answer_stranger(&mut self, ticket: &Ticket, code: Code, asked: usize, message: Vec<u8>) -> FromClient {
        if !within_amplification(ticket, asked, message.len()) {
            return self.dropped(DropReason::Amplification);
        }
        self.count_error(ticket, code);
        self.actions.push_back(Action::Reply { client: ticket.client, message, authenticated: false });
        FromClient::Control
    }
}

/// Whether an answer to a stranger stays below five times what he sent, and below two and a half times counting IP
/// and UDP headers. On a stream the address is proven, so it always does.
fn within_amplification(ticket: &Ticket, asked: usize, answer: usize) -> bool {
    let five_tuple = &ticket.client.five_tuple;
    let headers = match five_tuple.client.ip() {
        IpAddr::V4(_) => 20 + 8,
        IpAddr::V6(_) => 40 + 8,
    };
    five_tuple.transport.is_stream()
        || (answer <= 5 * asked && 2 * (answer + headers) <= 5 * (asked + headers))
}
