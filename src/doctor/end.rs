//! One client of the relay: a link and the protocol on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::link::Link;
use super::stage::Cause;
use super::watch::now;
use crate::base::time::Instant;
use crate::client::{self, Allocate, Allocation, Client, Config, Credentials, Event};
use crate::system::entropy;

/// The longest message that is read at once.
const BUFFER: usize = 16 << 10;
/// ICMP errors after which a UDP port counts as closed. Anybody can forge one.
const REFUSALS: u32 = 2;
/// Limit for the answer to one request. Over UDP it is sent at 0, 0.5, 1.5 and 3.5 s.
const ANSWER: Duration = Duration::from_secs(5);
/// Limit for the end of an allocation.
const RELEASE: Duration = Duration::from_millis(700);

/// One client of the relay.
pub struct End {
    link: Link,
    client: Client,
    server: SocketAddr,
    buffer: Box<[u8]>,
    /// Whether anything was received.
    has_heard: bool,
    refusals: u32,
    /// The shortest round trip of a request.
    round_trip: Option<Duration>,
}

impl End {
    /// Creates a client without credentials on an open link. Over UDP the relay answers from `server`.
    ///
    /// # Errors
    /// The system has no randomness for transaction ids.
    pub fn new(link: Link, server: SocketAddr) -> Result<Self, Cause> {
        let client = make(&link, server, None)?;
        let buffer = vec![0; BUFFER].into();
        Ok(Self { link, client, server, buffer, has_heard: false, refusals: 0, round_trip: None })
    }

    /// The shortest round trip of a request so far. The first one may have waited for handshakes of other rungs.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// SOFTWARE of the relay.
    pub fn software(&self) -> Option<&str> {
        self.client.software()
    }

    /// Finds out whether anything answers STUN, without credentials: by a Binding and an Allocate, because some servers
    /// answer only one of them. Returns this computer's address as the relay sees it, if it was told.
    ///
    /// # Errors
    /// Nothing answers, or not in STUN.
    pub async fn probe(&mut self, until: Instant) -> Result<Option<SocketAddr>, Cause> {
        let busy = |error: client::SendError| Cause::System(error.to_string());
        self.client.binding(now()).map_err(busy)?;
        self.client.allocate(now(), Allocate::default()).map_err(busy)?;
        match self.answer(until).await? {
            Event::Mapped { address, .. } => Ok(Some(address)),
            Event::Failed { failure, .. } => Err(Cause::of_failure(&failure, ANSWER)),
            // An error answer is an answer. A server without passwords has granted an allocation.
            Event::Allocated { .. } => {
                self.release(until).await;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Starts again with credentials on the same link.
    ///
    /// # Errors
    /// The system has no randomness for transaction ids.
    pub fn log_in(&mut self, credentials: Credentials) -> Result<(), Cause> {
        self.client = make(&self.link, self.server, Some(credentials))?;
        Ok(())
    }

    /// Asks for an allocation.
    ///
    /// # Errors
    /// Whether the relay accepted the credentials, and why there is no allocation.
    pub async fn allocate(&mut self, until: Instant) -> Result<Allocation, (bool, Cause)> {
        let busy = |error: client::SendError| (false, Cause::System(error.to_string()));
        self.client.allocate(now(), Allocate::default()).map_err(busy)?;
        match self.answer(until).await.map_err(|cause| (false, cause))? {
            Event::Allocated { allocation, .. } => Ok(*allocation),
            Event::Refused { refusal, .. } => Err((refusal.is_authentic, Cause::of_refusal(&refusal))),
            Event::Failed { failure, .. } => Err((false, Cause::of_failure(&failure, ANSWER))),
            other => Err((false, unexpected(&other))),
        }
    }

    /// Asks for a permission for `peer` and for a channel to it. Returns whether the relay allows this peer (403).
    ///
    /// # Errors
    /// Any other reason why there is no channel.
    pub async fn reach(&mut self, peer: SocketAddr, until: Instant) -> Result<bool, Cause> {
        let busy = |error: client::SendError| Cause::System(error.to_string());
        self.client.permit(now(), peer).map_err(busy)?;
        let permitted = self.answer(until).await?;
        if let Event::Permitted { .. } = permitted {
            self.client.bind(now(), peer).map_err(busy)?;
            return match self.answer(until).await? {
                Event::Bound { .. } => Ok(true),
                other => refused(&other),
            };
        }
        refused(&permitted)
    }

    /// Queues a datagram to a peer.
    ///
    /// # Errors
    /// The client cannot send it.
    pub fn queue(&mut self, peer: SocketAddr, payload: &[u8]) -> Result<(), Cause> {
        self.client.send(now(), peer, payload).map_err(|error| Cause::System(error.to_string()))
    }

    /// Ends the allocation, if there is one. The relay's answer is awaited only shortly: the allocation expires anyway.
    pub async fn release(&mut self, until: Instant) {
        if self.client.refresh(now(), 0).is_ok() {
            let _ = self.answer(until.min(now() + RELEASE)).await;
        }
    }

    /// Waits for the event that ends the request in flight.
    async fn answer(&mut self, until: Instant) -> Result<Event, Cause> {
        let begun = now();
        let until = until.min(begun + ANSWER);
        while let Some(event) = self.event(until).await? {
            if event.ends_a_request() {
                return Ok(event);
            }
        }
        Err(Cause::NoAnswer(until.since(begun)))
    }

    /// Waits for the next event; `None` at `until`.
    async fn event(&mut self, until: Instant) -> Result<Option<Event>, Cause> {
        loop {
            self.flush().await?;
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let now = now();
            if now >= until {
                return Ok(None);
            }
            let wake = self.client.poll_timeout().map_or(until, |due| due.min(until));
            let received = timeout(wake.since(now), self.link.receive(&mut self.buffer)).await;
            self.after(received.ok())?;
        }
    }

    /// Sends what is queued.
    async fn flush(&mut self) -> Result<(), Cause> {
        while let Some(bytes) = self.client.poll_transmit() {
            let Err(error) = self.link.send(bytes).await else { continue };
            self.refusals += 1;
            if self.link.is_stream() || self.refusals >= REFUSALS {
                return Err(Cause::of_error(&error));
            }
            // The kernel reports the ICMP error of an earlier datagram instead of sending this one.
            if let Err(error) = self.link.send(bytes).await {
                return Err(Cause::of_error(&error));
            }
        }
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<Event>, Cause> {
        let event = self.client.poll_event();
        let exchange = match &event {
            Some(Event::Broken) => return Err(Cause::NotTurn("an unknown protocol")),
            Some(
                Event::Challenged { exchange, .. }
                | Event::Mapped { exchange, .. }
                | Event::Permitted { exchange, .. }
                | Event::Bound { exchange, .. }
                | Event::Refused { exchange, .. },
            ) => Some(exchange),
            // An allocation takes the relay longer than the way does.
            _ => None,
        };
        let took = exchange.and_then(client::Exchange::round_trip);
        self.round_trip = self.round_trip.into_iter().chain(took).min();
        Ok(event)
    }

    /// Handles what [`Link::receive`] returned; `None` if there was nothing until the client's next timer.
    fn after(&mut self, received: Option<std::io::Result<usize>>) -> Result<(), Cause> {
        match received {
            None => self.client.handle_timeout(now()),
            Some(Err(error)) => self.failed(&error)?,
            Some(Ok(len)) => {
                let bytes = &self.buffer[..len];
                if !self.link.is_stream() {
                    self.client.handle_datagram(now(), self.server, bytes);
                    return Ok(());
                }
                if !std::mem::replace(&mut self.has_heard, true)
                    && let Some(what) = foreign(bytes)
                {
                    return Err(Cause::NotTurn(what));
                }
                self.client.handle_bytes(now(), bytes);
            }
        }
        Ok(())
    }

    /// Over UDP an error may come from an ICMP message, so it ends nothing at once.
    fn failed(&mut self, error: &std::io::Error) -> Result<(), Cause> {
        self.refusals += 1;
        if self.link.is_stream() || self.refusals >= REFUSALS { Err(Cause::of_error(error)) } else { Ok(()) }
    }
}

/// Waits for the next event of one of two clients and returns which; `None` at `until`.
///
/// # Errors
/// A link failed.
pub async fn either(ends: &mut [End; 2], until: Instant) -> Result<Option<(usize, Event)>, Cause> {
    loop {
        for (index, end) in ends.iter_mut().enumerate() {
            end.flush().await?;
            if let Some(event) = end.next_event()? {
                return Ok(Some((index, event)));
            }
        }
        let now = now();
        if now >= until {
            return Ok(None);
        }
        let due = ends.iter().filter_map(|end| end.client.poll_timeout());
        let wake = due.chain([until]).min().unwrap_or(until);
        let [one, two] = ends;
        tokio::select! {
            received = one.link.receive(&mut one.buffer) => one.after(Some(received))?,
            received = two.link.receive(&mut two.buffer) => two.after(Some(received))?,
            () = tokio::time::sleep(wake.since(now)) => {
                one.after(None)?;
                two.after(None)?;
            }
        }
    }
}

fn make(link: &Link, server: SocketAddr, credentials: Option<Credentials>) -> Result<Client, Cause> {
    let kind = if link.is_stream() { client::Link::Stream } else { client::Link::Datagrams { server } };
    let key = entropy::key().map_err(|error| Cause::System(error.to_string()))?;
    let config = Config { credentials: credentials.map(Arc::new), ..Config::new(kind) };
    Ok(Client::new(config, key))
}

/// A permission or a channel that was not granted.
fn refused(event: &Event) -> Result<bool, Cause> {
    match event {
        Event::Refused { refusal, .. } if refusal.code == 403 => Ok(false),
        Event::Refused { refusal, .. } => Err(Cause::of_refusal(refusal)),
        Event::Failed { failure, .. } => Err(Cause::of_failure(failure, ANSWER)),
        other => Err(unexpected(other)),
    }
}

fn unexpected(event: &Event) -> Cause {
    Cause::BadAnswer(format!("{event:?}").chars().take_while(|c| c.is_alphanumeric()).collect())
}

/// Names the protocol that a stream's first bytes belong to, if it is a well-known one. Read as TURN, the letters of HTTP
/// would be the start of a long message that never ends.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => Some("a web server (HTTP)"),
        [b'S', b'S', b'H', b'-', ..] => Some("an SSH server"),
        [0x14..=0x17, 3, ..] => Some("a TLS server"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_protocols_have_names() {
        assert_eq!(foreign(b"HTTP/1.1 400 Bad Request"), Some("a web server (HTTP)"));
        assert_eq!(foreign(b"\x15\x03\x01\x00\x02"), Some("a TLS server"));
        assert_eq!(foreign(b"SSH-2.0-x"), Some("an SSH server"));
        assert_eq!(foreign(b"\x01\x01\x00\x0c\x21\x12\xa4\x42"), None);
    }
}
