//! Whom a stream serves, and which one makes room for another: the oldest stranger, or a web client of the source that
//! has most of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::{Phase, Stream, Streams};
use crate::net::admission::Class;
use crate::net::counters::{CloseReason, Refusal, Stage};
use crate::net::handshakes::site;
use crate::net::scratch::READ_MAX;
use crate::net::token::Token;
use crate::turn::time::Instant;

/// Requests in a row that may fail to authenticate. A login takes two or three, and a browser tries few passwords.
const UNPROVEN_MAX: u8 = 100;
/// Bytes read at once from a client that has not authenticated. In TLS they may all be changes of keys, 28 bytes and 3
/// to 8 us each, and a read is not interrupted.
const UNPROVEN_READ_MAX: usize = 4 << 10;
/// Bytes in all from a TURN client before its first authenticated request: many times what a login takes.
const UNPROVEN_BYTES_MAX: u32 = 512 << 10;
/// A web client that was silent for so long may be displaced. Websockets ping more often than that.
const SILENT: Duration = Duration::from_secs(60);
/// By how many web clients a source must be ahead of a newcomer's to make room for it. Afterwards it still has at least as
/// many, so the two do not displace each other in turn.
const AHEAD: u32 = 2;
/// Streams looked at for one that arrives, so that the search costs the same whatever their number.
const LOOKS: usize = 64;
/// Entries of an order that may be out of date before it is cleaned up, besides one for each stream.
const STALE_MAX: usize = 64;

/// Streams of one class, by arrival. Entries of streams that are gone or serve another class are skipped, and cleaned up
/// once they are the most.
#[derive(Default)]
pub(super) struct Order(VecDeque<Token>);

#[cfg(test)]
impl Order {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Stream {
    /// Whom it serves.
    pub fn class(&self) -> Class {
        self.entry.class()
    }

    /// Notes a message of a TURN client.
    ///
    /// # Errors
    /// `Garbage` if TURN does not start like that, `TooMany` after too many requests in a row that proved nothing.
    pub fn greet(&mut self, message: &[u8]) -> Result<(), CloseReason> {
        let [first @ 0..=3, second, ..] = *message else {
            return if self.greeted { Ok(()) } else { Err(CloseReason::Garbage) };
        };
        self.greeted = true;
        self.reached(Stage::Stun);
        // Both bits of the class are 0 in a request (RFC 8489 section 5).
        let request = first & 0x01 == 0 && second & 0x10 == 0;
        // Binding requests never authenticate, and the protocol limits them by source and user.
        let binding = (first, second) == (0, 1);
        if request && !binding {
            self.unproven = self.unproven.saturating_add(1);
        }
        if self.unproven > UNPROVEN_MAX { Err(CloseReason::TooMany) } else { Ok(()) }
    }

    /// Notes that a request of the client authenticated. Nothing else gives a TURN stream more time, but an allocation.
    /// Without one it is the first request alone that does so: one user could keep any number of streams otherwise.
    pub fn authenticated(&mut self, now: Instant, has_allocation: bool) {
        self.unproven = 0;
        self.proven = true;
        if has_allocation || !self.renewed {
            self.active = now;
        }
        self.renewed = !has_allocation;
        // It stays a stranger's while the streams of others have all that they may have.
        self.entry.authenticate();
    }

    /// How much to read at once.
    pub(super) fn read_max(&self) -> usize {
        // Bytes that are handed on as they come cost nothing here.
        let opaque = self.tls.is_none() && matches!(self.phase, Phase::Web(_));
        if self.proven || opaque { READ_MAX } else { UNPROVEN_READ_MAX }
    }

    /// Counts what was read of a client that has not authenticated; the reason to close it if that is too much.
    pub(super) fn take_bytes(&mut self, len: usize) -> Option<CloseReason> {
        if self.proven || !matches!(self.phase, Phase::Undecided | Phase::Turn) {
            return None;
        }
        // Less than READ_MAX.
        self.unproven_bytes = self.unproven_bytes.saturating_add(len as u32);
        (self.unproven_bytes > UNPROVEN_BYTES_MAX).then_some(CloseReason::TooMany)
    }

    fn source(&self) -> IpAddr {
        site(self.client.five_tuple.client.ip())
    }
}

/// Counts a stream that is gone no longer.
pub(super) fn left(web_by_source: &mut HashMap<IpAddr, u32>, stream: &Stream) {
    if stream.class() != Class::Web {
        return;
    }
    let source = stream.source();
    if let Some(held) = web_by_source.get_mut(&source) {
        *held -= 1;
        if *held == 0 {
            web_by_source.remove(&source);
        }
    }
}

impl Streams {
    /// Notes the arrival of a stranger.
    pub(super) fn arrived(&mut self, token: Token) {
        self.note(Class::Stranger, token);
    }

    /// Makes a stranger's stream the web's.
    ///
    /// # Errors
    /// The exhausted resource of the web.
    pub fn to_web(&mut self, token: Token) -> Result<(), Refusal> {
        let Some(stream) = self.get(token) else { return Ok(()) };
        if stream.class() == Class::Stranger {
            stream.entry.to_web()?;
            let source = stream.source();
            *self.web_by_source.entry(source).or_insert(0) += 1;
            self.note(Class::Web, token);
        }
        Ok(())
    }

    /// The stranger that has been here longest. Those that authenticated and found no room go after the others.
    pub fn oldest_stranger(&mut self) -> Option<Token> {
        let mut looks = LOOKS;
        loop {
            let token = self.strangers.0.pop_front()?;
            let stranger = self.get(token).filter(|stream| stream.class() == Class::Stranger);
            match stranger.map(|stream| stream.proven) {
                Some(true) if looks > 0 => {
                    looks -= 1;
                    self.strangers.0.push_back(token);
                }
                Some(_) => return Some(token),
                None => {}
            }
        }
    }

    /// The web client that makes room for `newcomer`, if one is to: of the source that has most, the one that was silent
    /// longest; or else one that was silent for a minute. Of many, some are looked at, and others the next time.
    ///
    /// A byte now and then keeps a client from being silent, so silence alone lets two sources hold all that the web has.
    /// A school is one source with hundreds of websockets. It loses one only while all places of the web are taken and
    /// no source holds more, and never so many that it has fewer than the newcomer's source.
    pub fn displaceable_web(&mut self, newcomer: Token, now: Instant) -> Option<Token> {
        let own = self.get(newcomer)?.source();
        let own = self.web_by_source.get(&own).copied().unwrap_or(0);
        let mut largest: Option<(u32, Duration, Token)> = None;
        let mut silent: Option<(Duration, Token)> = None;
        for _ in 0..LOOKS.min(self.web.0.len()) {
            let Some(token) = self.web.0.pop_front() else { break };
            let Some(stream) = self.get(token).filter(|stream| stream.class() == Class::Web) else {
                continue;
            };
            let (source, silence) = (stream.source(), now.since(stream.active));
            self.web.0.push_back(token);
            if token == newcomer {
                continue;
            }
            let held = self.web_by_source.get(&source).copied().unwrap_or(0);
            if largest.is_none_or(|(most, longest, _)| (most, longest) < (held, silence)) {
                largest = Some((held, silence, token));
            }
            if silence > SILENT && silent.is_none_or(|(longest, _)| longest < silence) {
                silent = Some((silence, token));
            }
        }
        let ahead = largest.filter(|&(held, _, _)| held >= own + AHEAD).map(|(_, _, token)| token);
        ahead.or(silent.map(|(_, token)| token))
    }

    fn is(&mut self, class: Class, token: Token) -> bool {
        self.get(token).is_some_and(|stream| stream.class() == class)
    }

    fn note(&mut self, class: Class, token: Token) {
        let mut order = std::mem::take(self.order(class));
        order.0.push_back(token);
        if order.0.len() > 2 * self.len() + STALE_MAX {
            order.0.retain(|&token| self.is(class, token));
        }
        *self.order(class) = order;
    }

    fn order(&mut self, class: Class) -> &mut Order {
        if class == Class::Web { &mut self.web } else { &mut self.strangers }
    }
}
