//! What a response means: whether it is trusted, what it grants, and whether the client asks again.

use std::sync::Arc;
use std::time::Duration;

use super::allocation::Allocation;
use super::event::{Discard, Event, Failure, Refusal, Stage};
use super::login::{Login, Protection};
use super::request::Request;
use super::transaction::Transaction;
use super::{Client, Instant};
use crate::wire::WireError;
use crate::wire::answer::Answer;
use crate::wire::attribute::kind;
use crate::wire::message::{Message, MessageClass};

impl Client {
    /// Handles a response that [`super::data::read`] returned. One to no request in flight is a late copy and ignored.
    pub fn handle_response(&mut self, now: Instant, message: &Message<'_>) {
        let id = message.transaction_id();
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        if message.method() != transaction.request.method() {
            return self.discard(Discard::Malformed(WireError::WrongKind));
        }
        self.stage = self.stage.max(Stage::Heard);
        let answer = Answer::parse(message);
        let code = match &answer {
            Ok(answer) => answer.error().map_or(0, |error| error.code),
            Err(_) if message.class() == MessageClass::Success => 0,
            // A malformed error response must be protected, as a 400 must be.
            Err(_) => 400,
        };
        let protection = transaction.login.as_ref().map(|login| login.check(message));
        // Challenges (401 and 438) have no integrity and are accepted without it (RFC 8489 section 9.2.5).
        let untrusted = match protection {
            Some(Protection::Missing) => Some(Discard::Unprotected(code)),
            Some(Protection::Wrong) => Some(Discard::WrongIntegrity(code)),
            Some(Protection::Holds) | None => None,
        };
        if let Some(discard) = untrusted.filter(|_| !matches!(code, 401 | 438)) {
            transaction.discarded = Some(discard);
            self.discard(discard);
            // Over UDP the right answer may still arrive; on a stream there is only one (section 9.2.5).
            if self.is_stream() {
                self.fail(now, &id, Failure::Untrusted(discard));
            }
            return;
        }
        match answer {
            Ok(answer) => self.handle_answer(now, &answer, protection == Some(Protection::Holds)),
            Err(error) => self.fail(now, &id, Failure::BadAnswer(error)),
        }
    }

    fn fail(&mut self, now: Instant, id: &[u8; 12], failure: Failure) {
        if let Some(transaction) = self.transactions.remove(id) {
            let exchange = transaction.exchange(now);
            self.end(transaction, Event::Failed { exchange, failure });
        }
    }

    fn handle_answer(&mut self, now: Instant, answer: &Answer<'_>, is_authentic: bool) {
        self.note_software(answer);
        let Some(transaction) = self.transactions.remove(&answer.message().transaction_id()) else { return };
        match Refusal::new(answer, is_authentic) {
            None => self.succeed(now, transaction, answer),
            Some(refusal) => self.refused(now, transaction, refusal, answer),
        }
    }

    fn note_software(&mut self, answer: &Answer<'_>) {
        if let Some(software) = answer.software()
            && self.software.as_deref().map(str::as_bytes) != Some(software)
        {
            self.software = Some(String::from_utf8_lossy(software).into());
        }
    }

    fn refused(&mut self, now: Instant, transaction: Transaction, refusal: Refusal, answer: &Answer<'_>) {
        let (exchange, code) = (transaction.exchange(now), refusal.code);
        if let (401 | 438, Some(credentials)) = (code, &self.config.credentials) {
            let before = transaction.login.as_deref().or(self.login.as_deref());
            match Login::take(credentials, self.config.algorithms, before, answer) {
                Ok((login, challenge)) if may_retry(&transaction, code, &login) => {
                    self.stage = self.stage.max(Stage::Challenged);
                    let login = Arc::new(login);
                    self.login = Some(Arc::clone(&login));
                    let retries = transaction.retries + u32::from(transaction.login.is_some());
                    self.end(transaction, Event::Challenged { exchange, code, challenge });
                    return self.begin(now, exchange.request, Some(login), retries);
                }
                // The server would refuse the same credentials again.
                Ok(_) => {}
                // A 401 to a signed request says that the credentials are wrong; it needs no realm or nonce.
                Err(_) if code == 401 && transaction.login.is_some() => {}
                Err(problem) => {
                    let failure = Failure::BadChallenge(problem);
                    return self.end(transaction, Event::Failed { exchange, failure });
                }
            }
        }
        if code == 437 && !matches!(exchange.request, Request::Allocate(_)) {
            self.forget_allocation();
        }
        self.end(transaction, Event::Refused { exchange, refusal: Box::new(refusal) });
    }

    fn succeed(&mut self, now: Instant, transaction: Transaction, answer: &Answer<'_>) {
        let (exchange, asked) = (transaction.exchange(now), transaction.started);
        let missing =
            |kind| Event::Failed { exchange, failure: Failure::BadAnswer(WireError::BadAttribute(kind)) };
        let event = match exchange.request {
            Request::Binding => match answer.mapped() {
                Some(address) => Event::Mapped { exchange, address },
                None => missing(kind::XOR_MAPPED_ADDRESS),
            },
            Request::Allocate(_) => match Allocation::read(now, answer) {
                Ok(allocation) => {
                    let allocation = Box::new(allocation);
                    self.stage = self.stage.max(Stage::Allocated);
                    self.allocation = Some(allocation.clone());
                    Event::Allocated { exchange, allocation }
                }
                Err(error) => Event::Failed { exchange, failure: Failure::BadAnswer(error) },
            },
            // The allocation has ended, no matter what LIFETIME the server returns.
            Request::Refresh { lifetime: 0 } => {
                self.forget_allocation();
                Event::Refreshed { exchange, lifetime: Duration::ZERO }
            }
            Request::Refresh { .. } => match answer.lifetime() {
                Some(seconds) => {
                    let lifetime = Duration::from_secs(seconds.into());
                    if let Some(allocation) = &mut self.allocation {
                        (allocation.lifetime, allocation.expires) = (lifetime, now + lifetime);
                    }
                    Event::Refreshed { exchange, lifetime }
                }
                None => missing(kind::LIFETIME),
            },
            Request::Permit { peer } => {
                self.stage = self.stage.max(Stage::Permitted);
                self.peers.permit(now, asked, peer.ip());
                Event::Permitted { exchange, peer }
            }
            Request::Bind { channel, peer } => {
                self.stage = self.stage.max(Stage::Bound);
                self.peers.bind(now, asked, channel, peer);
                Event::Bound { exchange, peer, channel }
            }
        };
        self.end(transaction, event);
    }
}

/// Whether to repeat a request after a challenge: always if it was unsigned. A signed one is repeated only once, and
/// only with a new nonce (438) or under another realm or algorithm (RFC 8489 section 9.2.5).
fn may_retry(transaction: &Transaction, code: u16, login: &Login) -> bool {
    match &transaction.login {
        None => true,
        Some(before) => transaction.retries == 0 && (code == 438 || !before.has_same_key(login)),
    }
}
