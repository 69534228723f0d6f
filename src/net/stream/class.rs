//! Whom a stream serves, and which one makes room for another: the oldest stranger, or a silent web client.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Stream, Streams};
use crate::net::admission::Class;
use crate::net::counters::{CloseReason, Refusal, Stage};
use crate::net::token::Token;
use crate::turn::time::Instant;

/// Requests in a row that may fail to authenticate. A login takes two or three, and a browser tries few passwords.
const UNPROVEN_MAX: u8 = 100;
/// A web client that was silent for so long may be displaced. Websockets ping more often than that.
const SILENT: Duration = Duration::from_secs(60);
/// Web clients looked at for one that arrives, so that the search costs the same whatever their number.
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
        // An authenticated client may keep its stream open by Binding requests, which never authenticate.
        let keepalive = (first, second) == (0, 1) && self.class() == Class::Authenticated;
        if request && !keepalive {
            self.unproven = self.unproven.saturating_add(1);
        }
        if self.unproven > UNPROVEN_MAX { Err(CloseReason::TooMany) } else { Ok(()) }
    }

    /// Notes that a request of the client authenticated. Nothing else gives a TURN stream more time, but an allocation.
    pub fn authenticated(&mut self, now: Instant) {
        self.unproven = 0;
        self.active = now;
        if self.class() != Class::Authenticated {
            self.entry.authenticate();
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
            self.note(Class::Web, token);
        }
        Ok(())
    }

    /// The stranger that has been here longest.
    pub fn oldest_stranger(&mut self) -> Option<Token> {
        loop {
            let token = self.strangers.0.pop_front()?;
            if self.is(Class::Stranger, token) {
                return Some(token);
            }
        }
    }

    /// The web client that was silent longest, if it was so for a minute. Of many, some are looked at, and others the
    /// next time.
    pub fn silent_web(&mut self, now: Instant) -> Option<Token> {
        let mut silent: Option<(Instant, Token)> = None;
        for _ in 0..LOOKS.min(self.web.0.len()) {
            let Some(token) = self.web.0.pop_front() else { break };
            let Some(stream) = self.get(token).filter(|stream| stream.class() == Class::Web) else {
                continue;
            };
            let active = stream.active;
            self.web.0.push_back(token);
            if now.since(active) > SILENT && silent.is_none_or(|(longest, _)| active < longest) {
                silent = Some((active, token));
            }
        }
        silent.map(|(_, token)| token)
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
