//! Chooses the connection to displace for a newcomer: a stranger or a web client, first from a source that holds many.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::base::network::Network;
use crate::base::time::Instant;
use crate::net::admission::Class;
use crate::net::token::Token;

/// A web client that was silent for this long may be displaced. Websockets ping more often.
const SILENT: Duration = Duration::from_secs(60);
/// A source loses a web client to a newcomer only if it holds at least this many more of them than the newcomer's
/// source. It still holds at least as many afterwards, so the two sources do not displace each other in turn.
const AHEAD: u32 = 2;
/// Step in which the numbers of strangers per source are compared. Sources with fewer strangers than one step count as
/// equal, and the oldest stranger is displaced. A school is one source, and its pupils all join at the same time.
const STEP: u32 = 256;
/// Maximum number of connections examined per newcomer, which bounds the cost.
const LOOKS: usize = 64;
/// Stale entries allowed in an order before it is cleaned up, in addition to one for each open connection.
const STALE_MAX: usize = 64;

/// The properties of a connection that decide whether it makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The class of client that it serves.
    pub class: Class,
    /// Whether a request of its client has ever authenticated.
    pub proven: bool,
    /// Whether its client has an allocation; such a connection is never displaced.
    pub serves: bool,
    /// The source that shares places: an IPv4 address or an IPv6 site.
    pub source: Network,
    /// When it was last active.
    pub active: Instant,
    /// Its latest arrival among the strangers. It arrives again whenever its last allocation ends.
    pub stamp: Stamp,
}

/// Identifies an arrival among the strangers; wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u32);

/// The connections of a worker in the order in which they are displaced. Stale entries belong to closed connections, or
/// to connections that changed their class. They are skipped, and removed once they are the majority.
#[derive(Default)]
pub struct Displacement {
    strangers: VecDeque<(Token, Stamp)>,
    /// The stamp of the latest arrival among the strangers.
    arrivals: Stamp,
    web: VecDeque<Token>,
    /// Strangers per source.
    strangers_by_source: Held,
    web_by_source: Held,
}

/// Connections per source.
#[derive(Default)]
struct Held(HashMap<Network, u32>);

impl Held {
    fn add(&mut self, source: Network) {
        *self.0.entry(source).or_insert(0) += 1;
    }

    fn remove(&mut self, source: Network) {
        if let Some(held) = self.0.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.0.remove(&source);
            }
        }
    }

    fn of(&self, source: Network) -> u32 {
        self.0.get(&source).copied().unwrap_or(0)
    }
}

impl Displacement {
    /// Records the arrival of a stranger from `source`; `live` connections are open. Returns the stamp of the arrival.
    /// The caller stores it with the connection, which makes earlier arrivals of the connection stale.
    pub fn arrived(
        &mut self,
        token: Token,
        source: Network,
        live: usize,
        look: impl Fn(Token) -> Option<Candidate>,
    ) -> Stamp {
        self.strangers_by_source.add(source);
        self.arrivals.0 = self.arrivals.0.wrapping_add(1);
        let arrival = (token, self.arrivals);
        append(&mut self.strangers, arrival, live, |one| one == arrival || stranger(one, &look).is_some());
        self.arrivals
    }

    /// Records that a PROXY header changed the source of a stranger.
    pub fn renamed(&mut self, before: Network, after: Network) {
        self.strangers_by_source.remove(before);
        self.strangers_by_source.add(after);
    }

    /// Records that a stranger became an authenticated client.
    pub fn settled(&mut self, source: Network) {
        self.strangers_by_source.remove(source);
    }

    /// Records that a stranger from `source` became a web client; `live` connections are open.
    pub fn became_web(
        &mut self,
        token: Token,
        source: Network,
        live: usize,
        look: impl Fn(Token) -> Option<Candidate>,
    ) {
        self.strangers_by_source.remove(source);
        self.web_by_source.add(source);
        append(&mut self.web, token, live, |token| has_class(Class::Web, look(token)));
    }

    /// Records that a connection closed.
    pub fn left(&mut self, gone: Candidate) {
        match gone.class {
            Class::Stranger => self.strangers_by_source.remove(gone.source),
            Class::Web => self.web_by_source.remove(gone.source),
            Class::Authenticated => {}
        }
    }

    /// Removes and returns the stranger to displace for a newcomer. Examines the strangers that have waited longest,
    /// and prefers those whose source has the most strangers, so that a flood from one source displaces itself. Among
    /// equals, it prefers those that never authenticated, then the oldest. A client with an allocation is never chosen.
    pub fn stranger(&mut self, look: impl Fn(Token) -> Option<Candidate>) -> Option<Token> {
        let mut best: Option<((u32, bool), usize)> = None;
        let (mut index, mut looked) = (0, 0);
        while looked < LOOKS
            && let Some(&arrival) = self.strangers.get(index)
        {
            let Some(stranger) = stranger(arrival, &look) else {
                // Shifts at most LOOKS entries.
                self.strangers.remove(index);
                continue;
            };
            looked += 1;
            let rank = (self.strangers_by_source.of(stranger.source) / STEP, !stranger.proven);
            if stranger.serves {
                // It is examined again after all others.
                self.strangers.remove(index);
                self.strangers.push_back(arrival);
                continue;
            }
            if best.is_none_or(|(highest, _)| highest < rank) {
                best = Some((rank, index));
            }
            index += 1;
        }
        self.strangers.remove(best?.1).map(|(token, _)| token)
    }

    /// Returns the web client to displace for `newcomer` from `source`, if any. If another source holds at least
    /// `AHEAD` more web clients, this is the longest-silent client of the source with the most. Otherwise it is the
    /// longest-silent client, if it was silent for more than a minute. Each call examines at most `LOOKS` web clients,
    /// in rotation.
    ///
    /// Silence alone is not enough: a client that sends an occasional byte never counts as silent, so two sources could
    /// hold all places of the web. A school is one source with hundreds of websockets. It loses one only while all
    /// places of the web are taken and no source holds more. It never drops below the number of the newcomer's source.
    pub fn web_client(
        &mut self,
        (newcomer, source): (Token, Network),
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

fn has_class(class: Class, candidate: Option<Candidate>) -> bool {
    candidate.is_some_and(|candidate| candidate.class == class)
}

/// Returns the stranger of an arrival; `None` if the arrival is stale.
fn stranger((token, stamp): (Token, Stamp), look: impl Fn(Token) -> Option<Candidate>) -> Option<Candidate> {
    look(token).filter(|candidate| candidate.class == Class::Stranger && candidate.stamp == stamp)
}

/// Appends an entry. Removes stale entries once they are the majority.
fn append<T: Copy>(order: &mut VecDeque<T>, entry: T, live: usize, is_current: impl Fn(T) -> bool) {
    order.push_back(entry);
    if order.len() > 2 * live + STALE_MAX {
        order.retain(|&entry| is_current(entry));
    }
}
