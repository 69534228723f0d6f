//! Tickets: what is kept of a request to answer it.

use super::error::Code;
use super::five_tuple::Client;
use super::identity::auth::Authenticated;
use crate::wire::message::{Message, method};
use crate::wire::response::{Reason, Response};

/// SOFTWARE (RFC 8489 section 14.14), sent to authenticated clients only.
const SOFTWARE: &str = concat!("Hallpass ", env!("CARGO_PKG_VERSION"));

/// The parts of a request that its answer depends on. Kept while sockets are being opened.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The client to answer.
    pub client: Client,
    /// The request's method.
    pub method: u16,
    /// The request's transaction.
    pub transaction_id: [u8; 12],
    /// Whether the request had FINGERPRINT, so that the answer has one too (RFC 8489 section 7).
    pub fingerprint: bool,
    /// The authenticated sender; its key protects the answer.
    pub asker: Option<Authenticated>,
}

impl Ticket {
    /// A ticket for a request that is not authenticated yet.
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

    /// An error response to this request. Unauthenticated senders get no reason phrase: it would only amplify.
    pub fn error(&self, code: Code) -> Response {
        let reason = if self.asker.is_some() { Reason::Phrase } else { Reason::Empty };
        self.with_software(Response::error(self.method, self.transaction_id, code.number(), reason))
    }

    /// Adds SOFTWARE to answers to Allocate and Refresh (RFC 8656 section 5), for authenticated senders only.
    fn with_software(&self, response: Response) -> Response {
        match self.asker.is_some() && matches!(self.method, method::ALLOCATE | method::REFRESH) {
            true => response.software(SOFTWARE),
            false => response,
        }
    }

    /// Encodes the response, with integrity for an authenticated sender.
    pub fn seal(&self, response: Response) -> Vec<u8> {
        let key = self.asker.as_ref().map(|asker| (asker.key(), asker.answer));
        response.finish(key, self.fingerprint)
    }
}
