//! One client of the load: decides which request comes next. [`crate::client`] implements the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cause::Cause;
use crate::base::time::Instant;
use crate::client::{
    self, Algorithms, Allocate, Config, Credentials, Event, Link, Refusal, Request, SendError,
};
use crate::wire::message::Message;

/// Interval of refreshing everything: well below a permission's 300 s (RFC 8656 section 9).
const KEEPALIVE: Duration = Duration::from_secs(200);

/// The state of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Before its first packet.
    Starting,
    /// Packets may flow.
    Ready,
    /// Packets may flow while everything is refreshed.
    Keeping,
    /// It is releasing the allocation.
    Releasing,
    Over,
}

/// A change of a client's state that the engine must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Packets may flow.
    Ready,
    /// The allocation is released.
    Done,
    /// The client has failed.
    Failed(Failure),
}

/// Why a client failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason in words.
    pub text: String,
    /// What to count it as.
    pub cause: Cause,
}

/// A client of the load.
pub struct Client {
    number: u32,
    peer: SocketAddr,
    channel: Option<u16>,
    core: client::Client,
    step: Step,
    relayed: Option<SocketAddr>,
    /// When to refresh everything.
    keepalive: Option<Instant>,
    /// The earliest time at which the engine will call [`Client::handle_timeout`].
    armed: Option<Instant>,
    /// A milestone that [`Client::poll`] has not returned yet.
    milestone: Option<Milestone>,
}

impl Client {
    /// Creates a client that will reach `peer`, by `channel` if there is one.
    pub fn new(
        number: u32,
        peer: SocketAddr,
        channel: Option<u16>,
        link: Link,
        login: &Arc<Credentials>,
    ) -> Self {
        // Browsers ignore offered algorithms, and the figures are about browsers. The tag in a response names its
        // client. The rest of the transaction id can be predictable, because the load defends against no attacker.
        let config = Config { algorithms: Algorithms::Old, tag: Some(number), ..Config::new(link) };
        let core = client::Client::new(config.with_credentials(Arc::clone(login)), [number.into(), 0]);
        Self {
            number,
            peer,
            channel,
            core,
            step: Step::Starting,
            relayed: None,
            keepalive: None,
            armed: None,
            milestone: None,
        }
    }

    /// Returns the client's number, which its transaction ids contain.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the relayed address, once it is allocated.
    pub fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Returns the channel to the peer.
    pub fn channel(&self) -> Option<u16> {
        self.channel
    }

    /// Returns the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns whether packets may flow.
    pub fn is_ready(&self) -> bool {
        matches!(self.step, Step::Ready | Step::Keeping)
    }

    /// Returns the number of the client that a response is for, from its transaction id.
    pub fn of_transaction(message: &Message<'_>) -> u32 {
        let [a, b, c, d, ..] = message.transaction_id();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Starts with an Allocate.
    pub fn start(&mut self, now: Instant) {
        let asked = self.core.allocate(now, Allocate::default());
        self.check(asked);
    }

    /// Starts releasing the allocation.
    pub fn release(&mut self, now: Instant) {
        self.step = Step::Releasing;
        self.keepalive = None;
        let asked = self.core.refresh(now, 0);
        self.check(asked);
    }

    /// Handles timers that are due. The engine calls it at the time that [`Client::arm`] returned, or later.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.armed = None;
        self.core.handle_timeout(now);
        if self.keepalive.is_some_and(|at| at <= now) {
            self.keepalive = None;
            self.step = Step::Keeping;
            let lifetime = self.core.allocation().map_or(0, |allocation| allocation.lifetime.as_secs());
            let asked = self.core.refresh(now, u32::try_from(lifetime).unwrap_or(u32::MAX));
            self.check(asked);
        }
    }

    /// Handles a response.
    pub fn handle_response(&mut self, now: Instant, message: &Message<'_>) {
        self.core.handle_response(now, message);
    }

    /// Returns the next message to send.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.core.poll_transmit()
    }

    /// Handles the events so far and queues the next requests. Returns a milestone that was reached.
    pub fn poll(&mut self, now: Instant) -> Option<Milestone> {
        while self.milestone.is_none()
            && let Some(event) = self.core.poll_event()
        {
            match self.step {
                Step::Releasing => self.on_release(event),
                _ => self.on_event(now, event),
            }
        }
        self.milestone.take()
    }

    /// Returns when to call [`Client::handle_timeout`], unless the engine knows it already.
    pub fn arm(&mut self) -> Option<Instant> {
        let next = self.core.poll_timeout().into_iter().chain(self.keepalive).min()?;
        if self.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed = Some(next);
        self.armed
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Allocated { allocation, .. } => {
                self.relayed = Some(allocation.relayed);
                self.permit(now);
            }
            Event::Refreshed { .. } => self.permit(now),
            Event::Permitted { .. } => match self.channel {
                Some(channel) => {
                    let asked = self.core.bind_as(now, channel, self.peer);
                    self.check(asked);
                }
                None => self.ready(now),
            },
            Event::Bound { .. } => self.ready(now),
            Event::Refused { exchange, refusal } => self.fail_refused(exchange.request, &refusal),
            Event::Failed { exchange, failure } => self.fail_unanswered(exchange.request, failure),
            Event::Expired => {
                self.fail("the allocation ended: no refresh got through".to_owned(), Cause::Other)
            }
            Event::Challenged { .. }
            | Event::Mapped { .. }
            | Event::Discarded(_)
            | Event::Data { .. }
            | Event::Unreachable { .. }
            | Event::Broken => {}
        }
    }

    /// Only the answer to the last Refresh counts; a refresh of the keepalive may still be in flight.
    fn on_release(&mut self, event: Event) {
        const RELEASE: Request = Request::Refresh { lifetime: 0 };
        match event {
            Event::Refreshed { exchange, .. } if exchange.request == RELEASE => self.done(),
            // An allocation that does not exist counts as released.
            Event::Refused { exchange, refusal } if exchange.request == RELEASE => match refusal.code {
                437 => self.done(),
                _ => self.fail_refused(RELEASE, &refusal),
            },
            Event::Failed { exchange, failure } if exchange.request == RELEASE => {
                self.fail_unanswered(RELEASE, failure);
            }
            _ => {}
        }
    }

    fn permit(&mut self, now: Instant) {
        let asked = self.core.permit(now, self.peer);
        self.check(asked);
    }

    fn ready(&mut self, now: Instant) {
        self.keepalive = Some(now + KEEPALIVE);
        if std::mem::replace(&mut self.step, Step::Ready) == Step::Starting {
            self.milestone = Some(Milestone::Ready);
        }
    }

    fn done(&mut self) {
        self.step = Step::Over;
        self.milestone = Some(Milestone::Done);
    }

    fn check(&mut self, asked: Result<(), SendError>) {
        if let Err(error) = asked {
            self.fail(error.to_string(), Cause::Other);
        }
    }

    fn fail_refused(&mut self, request: Request, refusal: &Refusal) {
        let cause = Cause::Refused { request: request.name(), code: refusal.code };
        self.fail(format!("{request}: {refusal}"), cause);
    }

    fn fail_unanswered(&mut self, request: Request, failure: client::Failure) {
        let cause = match failure {
            client::Failure::TimedOut => Cause::Unanswered { request: request.name() },
            _ => Cause::Other,
        };
        self.fail(format!("{request}: {failure}"), cause);
    }

    fn fail(&mut self, text: String, cause: Cause) {
        self.step = Step::Over;
        self.keepalive = None;
        self.milestone = Some(Milestone::Failed(Failure { text, cause }));
    }
}
