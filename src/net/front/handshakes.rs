//! Limits the time of TLS handshakes, per worker and per source.
//!
//! A signature costs 0.05 to 5 ms, depending on the key, so the limit is on time and not on the number of handshakes.
//! A step is never interrupted: with a slow key, packets wait for one signature and then have the worker for at least
//! as long.
//!
//! Answering a ClientHello is the expensive step, so a handshake waits before it. Each source has a queue. Sites are
//! served round-robin, and so are the sources within a site: a flood delays itself, and a newcomer from elsewhere waits
//! for one handshake of each flooding site. If a source has used up its time, its queue waits until it has time again.
//! The later steps of a handshake never wait; otherwise the work done so far could be lost.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::network::Network;
use crate::base::time::{Instant, Now};
use crate::net::admission::Admission;
use crate::net::token::Token;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle};

/// Handshake time that may be used in one burst, and so in one turn of the loop.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Handshakes may use one part in this many of the worker's time.
const SHARE: u32 = 2;
/// The longest pause after a step. A step that would require a longer one was slow because the machine stalled.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Nanoseconds per second for one source: a quarter of a worker. Enough for a thousand handshakes with an ECDSA key.
const PER_SOURCE: Limit = Limit { per_second: 250_000_000 };
/// Limit of sources examined in one turn, and so of handshakes resumed. It bounds what the time limit does not: sources
/// whose clients are gone or whose time is used up cost no handshake time.
const RESUMED_PER_TURN: usize = 32;
/// Limit of closed connections removed from the queues in one turn: about 0.1 ms.
const REMOVED_PER_TURN: usize = 1024;
/// Time until the next attempt if all waiting sources have used up their time.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One worker's handshakes.
pub struct Handshakes {
    throttle: Throttle,
    /// Contains the sources that are exempt from the limit per source.
    admission: Arc<Admission>,
    clock: fn() -> Now,
    /// The start of this turn.
    now: Instant,
    /// GCRA: the theoretical arrival time.
    full_at: Instant,
    /// Remaining handshakes to examine in this turn.
    resumable: usize,
    /// Remaining closed connections to remove in this turn.
    removable: usize,
    /// Handshakes whose ClientHello waits for a later turn, by source. Their epoll interest is clear; otherwise the
    /// kernel would report thousands of them in every turn, ahead of the sockets of calls.
    waiting: HashMap<Network, VecDeque<(Token, IpAddr)>>,
    /// The sources of each site that have waiting handshakes, in round-robin order.
    sources: HashMap<Network, VecDeque<Network>>,
    /// The sites that have waiting handshakes, in round-robin order.
    turns: VecDeque<Network>,
    /// When to try again; set while all waiting sources have used up their time.
    pause: Option<Instant>,
}

impl Handshakes {
    /// Creates the limiter. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2], admission: Arc<Admission>, clock: fn() -> Now) -> Self {
        let start = Instant::default();
        Self {
            throttle: Throttle::new(key),
            admission,
            clock,
            now: start,
            full_at: start,
            resumable: 0,
            removable: 0,
            waiting: HashMap::new(),
            sources: HashMap::new(),
            turns: VecDeque::new(),
            pause: None,
        }
    }

    /// Begins a turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        (self.now, self.resumable, self.removable) = (now, RESUMED_PER_TURN, REMOVED_PER_TURN);
    }

    /// Returns whether a ClientHello of this source would have to wait for another turn.
    #[cfg(test)]
    fn must_wait(&self, source: IpAddr) -> bool {
        self.is_spent() || !self.waiting.is_empty() || !self.has_time(source, self.now)
    }

    /// Returns when the first waiting handshake may continue; `None` if none waits.
    pub fn next(&self) -> Option<Instant> {
        let ahead = (SHARE * AT_ONCE).as_nanos() as u64;
        let next = Instant::from_nanos((self.full_at.as_nanos() + 1).saturating_sub(ahead));
        (!self.waiting.is_empty()).then_some(self.pause.map_or(next, |pause| pause.max(next)))
    }

    fn is_spent(&self) -> bool {
        self.full_at >= self.now + SHARE * AT_ONCE
    }

    /// Returns whether this source has time left.
    fn has_time(&self, source: IpAddr, now: Instant) -> bool {
        self.admission.is_exempt(source)
            || self.throttle.has_some(now, Purpose::Handshake, Subject::Source(source), PER_SOURCE)
    }

    /// Appends a handshake to the queue of its source.
    pub fn wait(&mut self, token: Token, source: IpAddr) {
        let network = Network::customer(source);
        let queue = self.waiting.entry(network).or_default();
        if queue.is_empty() {
            let site = Network::site(source);
            let sources = self.sources.entry(site).or_default();
            if sources.is_empty() {
                self.turns.push_back(site);
            }
            sources.push_back(network);
        }
        queue.push_back((token, source));
        self.pause = None;
    }

    /// Returns the next handshake to continue in this turn, round-robin over sites, and within a site over sources with
    /// time left.
    pub fn resume(&mut self, is_open: impl Fn(Token) -> bool) -> Option<Token> {
        let (sources, mut examined) = (self.waiting.len(), 0);
        while examined < sources && !self.is_spent() && self.resumable > 0 {
            let site = self.turns.pop_front()?;
            for _ in 0..self.sources.get(&site).map_or(0, VecDeque::len).min(self.resumable) {
                self.resumable -= 1;
                examined += 1;
                if let Some(token) = self.resume_source(site, &is_open) {
                    self.end_visit(site);
                    self.pause = None;
                    return Some(token);
                }
            }
            self.end_visit(site);
        }
        if examined > 0 && !self.is_spent() {
            self.pause = Some(self.now + LOOK_AGAIN);
        }
        None
    }

    /// Returns the next handshake of the first source of a site, if the source has time left.
    fn resume_source(&mut self, site: Network, is_open: impl Fn(Token) -> bool) -> Option<Token> {
        let network = self.sources.get_mut(&site)?.pop_front()?;
        let mut queue = self.waiting.remove(&network)?;
        while self.removable > 0 && queue.front().is_some_and(|&(token, _)| !is_open(token)) {
            self.removable -= 1;
            queue.pop_front();
        }
        let has_time = queue.front().is_some_and(|&(_, source)| self.has_time(source, self.now));
        let resumed = if has_time { queue.pop_front() } else { None };
        if !queue.is_empty() {
            self.waiting.insert(network, queue);
            self.sources.get_mut(&site)?.push_back(network);
        }
        resumed.map(|(token, _)| token)
    }

    /// Moves a site to the end of the order, or removes it if none of its handshakes waits.
    fn end_visit(&mut self, site: Network) {
        if self.sources.get(&site).is_some_and(VecDeque::is_empty) {
            self.sources.remove(&site);
        } else {
            self.turns.push_back(site);
        }
        if self.waiting.is_empty() {
            // Free the memory after a flood.
            (self.waiting, self.sources, self.turns) = Default::default();
        }
    }

    /// Runs one step of a handshake with a client at `source`, and charges its duration.
    pub fn step<T>(&mut self, source: IpAddr, step: impl FnOnce() -> T) -> T {
        let begun = (self.clock)().instant;
        let outcome = step();
        let took = (self.clock)().instant.since(begun);
        self.full_at = (self.full_at.max(self.now) + took * SHARE).min(begun + took + PAUSE_MAX);
        if !self.admission.is_exempt(source) {
            let subject = Subject::Source(source);
            // Capped at four seconds: a longer step was slow because the machine stalled.
            let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            self.throttle.charge(begun, Purpose::Handshake, subject, nanos, PER_SOURCE);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::net::admission::Rules;
    use crate::net::token::Generation;

    thread_local! {
        static MICROS: Cell<u64> = const { Cell::new(1_000_000) };
    }

    fn clock() -> Now {
        Now { instant: Instant::from_nanos(MICROS.get() * 1000), unix: 0 }
    }

    fn handshakes() -> Handshakes {
        let rules = Rules { exempt: vec!["127.0.0.0/8".parse().expect("net")], ..Rules::default() };
        Handshakes::new([1, 2], Arc::new(Admission::new(rules, 100)), clock)
    }

    /// Runs one step that takes `micros`.
    fn step(handshakes: &mut Handshakes, source: &str, micros: u64) {
        handshakes.step(source.parse().expect("address"), || MICROS.set(MICROS.get() + micros));
    }

    /// Returns how many steps of 5 ms the source may begin before its time is used up.
    fn steps(handshakes: &mut Handshakes, source: &str) -> usize {
        (0..1000)
            .take_while(|_| {
                let may = handshakes.has_time(ip(source), clock().instant);
                if may {
                    step(handshakes, source, 5000);
                }
                may
            })
            .count()
    }

    #[test]
    fn a_turn_has_one_millisecond_and_handshakes_have_half_of_all_time() {
        let mut handshakes = handshakes();
        let mut steps = |micros: u64, pause: u64| {
            MICROS.set(MICROS.get() + pause);
            handshakes.begin_turn(clock().instant);
            let mut done = 0;
            while !handshakes.must_wait([127, 0, 0, 1].into()) {
                step(&mut handshakes, "127.0.0.1", micros);
                done += 1;
            }
            done
        };
        assert_eq!(steps(300, 1_000_000), 4);
        // It took 5 ms, so the next one waits 5 ms, less the 1 ms that may be used in advance.
        assert_eq!([steps(5000, 1_000_000), steps(5000, 2000), steps(5000, 2000)], [1, 0, 1]);
        // The debt of a long step is capped.
        assert_eq!([steps(3_000_000, 1_000_000), steps(300, 10_000), steps(300, 100_000)], [1, 0, 4]);
    }

    #[test]
    fn a_source_has_a_quarter_of_the_time_without_affecting_others() {
        let mut handshakes = handshakes();
        // The burst is one second's worth, and more accrues during the steps.
        let burst = steps(&mut handshakes, "192.0.2.1");
        assert!((50..70).contains(&burst), "{burst}");
        assert_eq!(steps(&mut handshakes, "192.0.2.1"), 0);
        assert!(handshakes.has_time(ip("192.0.2.2"), clock().instant));
        MICROS.set(MICROS.get() + 100_000);
        assert!((3..10).contains(&steps(&mut handshakes, "192.0.2.1")), "a quarter of 0.1 s is five");
        assert_eq!(steps(&mut handshakes, "127.0.0.1"), 1000, "exempt");
    }

    fn token(slot: u32) -> Token {
        Token::Stream { slot, generation: Generation::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn waiting_handshakes_continue_in_order() {
        let (mut handshakes, source) = (handshakes(), ip("192.0.2.1"));
        (0..50).for_each(|slot| handshakes.wait(token(slot), source));
        assert_eq!(handshakes.resume(|_| true), None, "not before another turn");
        handshakes.begin_turn(clock().instant);
        assert!(handshakes.must_wait(ip("192.0.2.2")), "others came before");
        assert!(handshakes.next() <= Some(clock().instant));
        let resumed: Vec<_> = std::iter::from_fn(|| handshakes.resume(|_| true)).collect();
        assert_eq!(resumed, (0..RESUMED_PER_TURN as u32).map(token).collect::<Vec<_>>());
        handshakes.begin_turn(clock().instant);
        assert_eq!(std::iter::from_fn(|| handshakes.resume(|_| true)).count(), 50 - RESUMED_PER_TURN);
        assert!(!handshakes.must_wait(source) && handshakes.next().is_none());
    }

    #[test]
    fn sites_take_turns_and_so_do_the_sources_within_a_site() {
        let mut handshakes = handshakes();
        (0..1000).for_each(|slot| handshakes.wait(token(slot), ip(&format!("2001:db8:0:{slot:x}::1"))));
        (1000..1003).for_each(|slot| handshakes.wait(token(slot), ip("192.0.2.1")));
        handshakes.begin_turn(clock().instant);
        let resumed: Vec<_> = std::iter::from_fn(|| handshakes.resume(|_| true)).take(7).collect();
        assert_eq!(resumed, [0, 1000, 1, 1001, 2, 1002, 3].map(token));
    }

    /// A source that has no time left is skipped. Its handshakes stay queued and continue when it has time again.
    #[test]
    fn a_source_that_used_up_its_time_waits() {
        let (mut handshakes, busy) = (handshakes(), ip("192.0.2.1"));
        MICROS.set(MICROS.get() + 1_000_000);
        steps(&mut handshakes, "192.0.2.1");
        // The pause of the worker ends before the source has time again.
        MICROS.set(MICROS.get() + PAUSE_MAX.as_micros() as u64 * 2);
        steps(&mut handshakes, "192.0.2.1");
        handshakes.full_at = clock().instant;
        handshakes.begin_turn(clock().instant);
        assert!(handshakes.must_wait(busy) && !handshakes.must_wait(ip("192.0.2.2")));
        handshakes.wait(token(1), busy);
        handshakes.wait(token(2), ip("192.0.2.2"));
        assert_eq!([handshakes.resume(|_| true), handshakes.resume(|_| true)], [Some(token(2)), None]);
        assert_eq!(handshakes.next(), Some(clock().instant + LOOK_AGAIN), "no busy loop");
        MICROS.set(MICROS.get() + 200_000);
        handshakes.begin_turn(clock().instant);
        assert_eq!(handshakes.resume(|_| true), Some(token(1)));
    }

    /// One customer of an IPv6 site that has no time left does not hold up the other customers of the site, no matter
    /// how many of its handshakes wait.
    #[test]
    fn a_customer_without_time_does_not_hold_up_others_of_its_site() {
        let mut handshakes = handshakes();
        let [busy, other] = ["2001:db8:0:1::1", "2001:db8:0:2::1"].map(ip);
        while handshakes.has_time(busy, clock().instant) {
            step(&mut handshakes, "2001:db8:0:1::1", 5000);
        }
        assert!(handshakes.has_time(other, clock().instant), "the /56 has twice as much");
        handshakes.full_at = clock().instant;
        (0..7000).for_each(|slot| handshakes.wait(token(slot), busy));
        handshakes.wait(token(7000), other);
        handshakes.begin_turn(clock().instant);
        assert_eq!(handshakes.resume(|_| true), Some(token(7000)), "in the first turn");
        assert_eq!(handshakes.resume(|_| true), None);
        assert_eq!(handshakes.next(), Some(clock().instant + LOOK_AGAIN), "no busy loop");
    }

    /// Connections that closed while they waited are removed in bulk, and cost their source no handshake time.
    #[test]
    fn closed_connections_leave_the_queue_at_once() {
        let (mut handshakes, source) = (handshakes(), ip("192.0.2.1"));
        let last = REMOVED_PER_TURN as u32 + 10;
        (0..=last).for_each(|slot| handshakes.wait(token(slot), source));
        let is_open = |open: Token| open == token(last);
        handshakes.begin_turn(clock().instant);
        assert!(
            handshakes.resume(is_open).is_some_and(|closed| closed != token(last)),
            "removals per turn are limited"
        );
        handshakes.begin_turn(clock().instant);
        assert_eq!([handshakes.resume(is_open), handshakes.resume(is_open)], [Some(token(last)), None]);
        assert!(handshakes.next().is_none() && handshakes.sources.is_empty() && handshakes.turns.is_empty());
    }
}
