//! Which connection makes room for another: a stranger, or a web client, of the source that has most of them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Instant;
use crate::net::admission::Class;
use crate::net::token::Token;

/// A web client that was silent for so long may be displaced. Websockets ping more often than that.
const SILENT: Duration = Duration::from_secs(60);
/// By how many web clients a source must be ahead of a newcomer's to make room for it. Afterwards it still has at least as
/// many, so the two do not displace each other in turn.
const AHEAD: u32 = 2;
/// Strangers of a source that count as one step when sources are compared. A school is one source, and its pupils join
/// together: below this number, sources are equal, and the oldest makes room.
const STEP: u32 = 256;
/// Connections looked at for one that arrives, so that the search costs the same whatever their number.
const LOOKS: usize = 64;
/// Entries of an order that may be out of date before it is cleaned up, besides one for each connection.
const STALE_MAX: usize = 64;

/// What is asked of a connection that may have to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whom it serves.
    pub class: Class,
    /// Whether a request of its client ever authenticated.
    pub proven: bool,
    /// Whether its client has an allocation: such a connection never makes room.
    pub serves: bool,
    /// What shares places with it: see [`site`](super::handshakes::site).
    pub source: IpAddr,
    /// When it was last of use.
    pub active: Instant,
}

/// The connections of a worker in the order in which they make room. Entries of connections that are gone or serve
/// another class are skipped, and cleaned up once they are the majority.
#[derive(Default)]
pub struct Displacement {
    strangers: VecDeque<Token>,
    web: VecDeque<Token>,
    /// How many connections of each of the two kinds a source has.
    strangers_by_source: Held,
    web_by_source: Held,
}

/// How many connections each source has.
#[derive(Default)]
struct Held(HashMap<IpAddr, u32>);

impl Held {
    fn add(&mut self, source: IpAddr) {
        *self.0.entry(source).or_insert(0) += 1;
    }

    fn remove(&mut self, source: IpAddr) {
        if let Some(held) = self.0.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.0.remove(&source);
            }
        }
    }

    fn of(&self, source: IpAddr) -> u32 {
        self.0.get(&source).copied().unwrap_or(0)
    }
}

impl Displacement {
    /// Notes the arrival of a stranger, from `source` if that is known already; `live` connections are open.
    pub fn arrived(
        &mut self,
        token: Token,
        source: IpAddr,
        live: usize,
        look: impl Fn(Token) -> Option<Candidate>,
    ) {
        self.strangers_by_source.add(source);
        note(&mut self.strangers, token, live, |token| is(Class::Stranger, look(token)));
    }

    /// Notes that a PROXY header named another source of a stranger.
    pub fn renamed(&mut self, before: IpAddr, after: IpAddr) {
        self.strangers_by_source.remove(before);
        self.strangers_by_source.add(after);
    }

    /// Notes that a stranger is one no longer, but an authenticated client.
    pub fn settled(&mut self, source: IpAddr) {
        self.strangers_by_source.remove(source);
    }

    /// Notes that a stranger from `source` became a web client; `live` connections are open.
    pub fn became_web(
        &mut self,
        token: Token,
        source: IpAddr,
        live: usize,
        look: impl Fn(Token) -> Option<Candidate>,
    ) {
        self.strangers_by_source.remove(source);
        self.web_by_source.add(source);
        note(&mut self.web, token, live, |token| is(Class::Web, look(token)));
    }

    /// Notes that a connection is gone.
    pub fn left(&mut self, gone: Candidate) {
        match gone.class {
            Class::Stranger => self.strangers_by_source.remove(gone.source),
            Class::Web => self.web_by_source.remove(gone.source),
            Class::Authenticated => {}
        }
    }

    /// The stranger that makes room for a newcomer: of those that have been here longest, one of a source that has many.
    /// So a flood from one source displaces itself. Among equals, those that never authenticated come first, the oldest
    /// before the others. None with an allocation is taken.
    pub fn stranger(&mut self, look: impl Fn(Token) -> Option<Candidate>) -> Option<Token> {
        let mut best: Option<((u32, bool), usize)> = None;
        let (mut index, mut looked) = (0, 0);
        while looked < LOOKS
            && let Some(&token) = self.strangers.get(index)
        {
            let Some(stranger) = look(token).filter(|candidate| candidate.class == Class::Stranger) else {
                // At most LOOKS entries are shifted.
                self.strangers.remove(index);
                continue;
            };
            looked += 1;
            let rank = (self.strangers_by_source.of(stranger.source) / STEP, !stranger.proven);
            if stranger.serves {
                // It is looked at again when all others were.
                self.strangers.remove(index);
                self.strangers.push_back(token);
                continue;
            }
            if best.is_none_or(|(highest, _)| highest < rank) {
                best = Some((rank, index));
            }
            index += 1;
        }
        self.strangers.remove(best?.1)
    }

    /// The web client that makes room for `newcomer` from `source`, if one is to: of the source that has most, the one that
    /// was silent longest; or else one that was silent for a minute. Of many, some are looked at, and others the next time.
    ///
    /// A byte now and then keeps a client from being silent, so silence alone lets two sources hold all that the web has.
    /// A school is one source with hundreds of websockets. It loses one only while all places of the web are taken and
    /// no source holds more, and never so many that it has fewer than the newcomer's source.
    pub fn web_client(
        &mut self,
        (newcomer, source): (Token, IpAddr),
        now: Instant,
        look: impl Fn(Token) -> Option<Candidate>,
    ) -> Option<Token> {
        let own = self.web_by_source.of(source);
        let mut largest: Option<(u32, Duration, Token)> = None;
        let mut silent: Option<(Duration, Token)> = None;
        for _ in 0..LOOKS.min(self.web.len()) {
            let Some(token) = self.web.pop_front() else { break };
            let Some(client) = look(token).filter(|candidate| candidate.class == Class::Web) else {
                continue;
            };
            self.web.push_back(token);
            if token == newcomer {
                continue;
            }
            let silence = now.since(client.active);
            let held = self.web_by_source.of(client.source);
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

    #[cfg(test)]
    pub fn remembered(&self) -> (usize, usize) {
        (self.strangers.len(), self.strangers_by_source.0.len() + self.web_by_source.0.len())
    }
}

fn is(class: Class, candidate: Option<Candidate>) -> bool {
    candidate.is_some_and(|candidate| candidate.class == class)
}

fn note(order: &mut VecDeque<Token>, token: Token, live: usize, is_current: impl Fn(Token) -> bool) {
    order.push_back(token);
    if order.len() > 2 * live + STALE_MAX {
        order.retain(|&token| is_current(token));
    }
}
