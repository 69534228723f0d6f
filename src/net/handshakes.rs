//! The time that TLS handshakes may take from everything else: of a worker, and for one source.
//!
//! A signature costs 0.05 to 5 ms, depending on the key, so what is limited is time and not the number of handshakes. A
//! step that has begun is finished, so with a slow key packets wait for one signature; after it they have the worker for
//! as long as it took.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::counters::TlsOutcome;
use super::token::Token;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle};
use crate::turn::time::{Instant, Now};

/// What handshakes may use at once, and so in one turn of the loop.
const AT_ONCE: Duration = Duration::from_millis(1);
/// They have one part in two of the time that passes.
const SHARE: u32 = 2;
/// The longest pause. A step that took longer than this allows for met a machine that stood still.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Nanoseconds a second for one source: a quarter of a worker. Enough for a thousand handshakes with an ECDSA key.
const PER_SOURCE: Limit = Limit { per_second: 250_000_000 };
/// What TLS takes for traffic at most: for one read, and for each byte of it.
const TRAFFIC: Duration = Duration::from_micros(5);
const TRAFFIC_NANOS_PER_BYTE: u64 = 10;
/// Handshakes resumed in one turn. The limit matters where they are only closed, which costs no time of handshakes.
const RESUMED_PER_TURN: usize = 32;

/// One worker's handshakes.
pub struct Handshakes {
    throttle: Throttle,
    /// Knows whom the limit of one source does not concern.
    admission: Arc<Admission>,
    clock: fn() -> Now,
    /// When this turn began.
    now: Instant,
    /// When all that was used is paid off: the theoretical arrival time of GCRA.
    full_at: Instant,
    /// Handshakes that may be resumed in this turn.
    resumable: usize,
    /// Those whose bytes wait for another turn, first come, first served. Each is muted, so the kernel does not report
    /// thousands of them again and again before the sockets of calls.
    waiting: VecDeque<Token>,
}

impl Handshakes {
    /// `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2], admission: Arc<Admission>, clock: fn() -> Now) -> Self {
        let (throttle, waiting) = (Throttle::new(key), VecDeque::new());
        let start = Instant::default();
        Self { throttle, admission, clock, now: start, full_at: start, resumable: 0, waiting }
    }

    /// Another turn of the loop.
    pub fn begin_turn(&mut self, now: Instant) {
        (self.now, self.resumable) = (now, RESUMED_PER_TURN);
    }

    /// Whether a handshake has to wait: the time is used up, or others came before.
    pub fn must_wait(&self) -> bool {
        self.is_spent() || !self.waiting.is_empty()
    }

    /// When the first of those that wait may go on.
    pub fn next(&self) -> Option<Instant> {
        let ahead = (SHARE * AT_ONCE).as_nanos() as u64;
        let next = Instant::from_nanos((self.full_at.as_nanos() + 1).saturating_sub(ahead));
        (!self.waiting.is_empty()).then_some(next)
    }

    fn is_spent(&self) -> bool {
        self.full_at >= self.now + SHARE * AT_ONCE
    }

    /// Puts a handshake behind those that wait.
    pub fn wait(&mut self, token: Token) {
        self.waiting.push_back(token);
    }

    /// The next that may go on in this turn.
    pub fn resume(&mut self) -> Option<Token> {
        if self.is_spent() || self.resumable == 0 {
            return None;
        }
        self.resumable -= 1;
        let token = self.waiting.pop_front();
        if self.waiting.is_empty() {
            // No memory stays after a flood.
            self.waiting = VecDeque::new();
        }
        token
    }

    /// Runs one step of a handshake with a client at `source`, and charges its time.
    ///
    /// # Errors
    /// `Throttled` if the source has no time left, otherwise the error of `step`.
    pub fn step<T>(
        &mut self,
        source: IpAddr,
        step: impl FnOnce() -> Result<T, TlsOutcome>,
    ) -> Result<T, TlsOutcome> {
        let begun = (self.clock)().instant;
        let limited = !self.admission.is_exempt(source);
        let subject = Subject::Source(source);
        if limited && !self.throttle.has_some(begun, Purpose::Handshake, subject, PER_SOURCE) {
            return Err(TlsOutcome::Throttled);
        }
        let outcome = step();
        let took = (self.clock)().instant.since(begun);
        self.full_at = (self.full_at.max(self.now) + took * SHARE).min(begun + took + PAUSE_MAX);
        if limited {
            // Four seconds at most: a longer step met a machine that stood still.
            let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            self.throttle.charge(begun, Purpose::Handshake, subject, nanos, PER_SOURCE);
        }
        outcome
    }

    /// Runs what TLS does with `len` bytes of a client at `source` after its handshake. What takes longer than traffic
    /// does is work of handshakes, above all changes of keys (RFC 8446 section 4.6.3), and is charged as such. `false` if
    /// the source had no time left for it.
    pub fn after<T>(&mut self, source: IpAddr, len: usize, receive: impl FnOnce() -> T) -> (T, bool) {
        let begun = (self.clock)().instant;
        let outcome = receive();
        let took = (self.clock)().instant.since(begun);
        let usual = TRAFFIC + Duration::from_nanos(TRAFFIC_NANOS_PER_BYTE * len as u64);
        let excess = took.saturating_sub(usual);
        if excess.is_zero() || self.admission.is_exempt(source) {
            return (outcome, true);
        }
        let nanos = u32::try_from(excess.as_nanos()).unwrap_or(u32::MAX);
        let subject = Subject::Source(source);
        (outcome, self.throttle.take(begun, Purpose::Handshake, subject, nanos, PER_SOURCE))
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

    /// One step that takes so long.
    fn step(handshakes: &mut Handshakes, source: &str, micros: u64) -> Result<(), TlsOutcome> {
        handshakes.step(source.parse().expect("address"), || {
            MICROS.set(MICROS.get() + micros);
            Ok(())
        })
    }

    #[test]
    fn a_turn_has_a_millisecond_and_handshakes_half_of_the_time() {
        let mut handshakes = handshakes();
        let mut steps = |micros: u64, pause: u64| {
            MICROS.set(MICROS.get() + pause);
            handshakes.begin_turn(clock().instant);
            let mut done = 0;
            while !handshakes.must_wait() {
                step(&mut handshakes, "127.0.0.1", micros).expect("exempt");
                done += 1;
            }
            done
        };
        assert_eq!(steps(300, 1_000_000), 4);
        // It took 5 ms, so the next one waits until 5 ms more have passed, less the millisecond in advance.
        assert_eq!([steps(5000, 1_000_000), steps(5000, 2000), steps(5000, 2000)], [1, 0, 1]);
        // Whatever a step took, it is forgotten soon.
        assert_eq!([steps(3_000_000, 1_000_000), steps(300, 10_000), steps(300, 100_000)], [1, 0, 4]);
    }

    #[test]
    fn a_source_has_a_quarter_of_the_time_and_others_have_theirs() {
        let mut handshakes = handshakes();
        let count = |handshakes: &mut Handshakes, source| {
            (0..1000).take_while(|_| step(handshakes, source, 5000).is_ok()).count()
        };
        // A second's worth at once, and what comes in while it is used.
        let burst = count(&mut handshakes, "192.0.2.1");
        assert!((50..70).contains(&burst), "{burst}");
        assert_eq!(step(&mut handshakes, "192.0.2.1", 1), Err(TlsOutcome::Throttled));
        assert_eq!(step(&mut handshakes, "192.0.2.2", 1), Ok(()));
        MICROS.set(MICROS.get() + 100_000);
        assert!((3..10).contains(&count(&mut handshakes, "192.0.2.1")), "a quarter of 0.1 s is five");
        assert_eq!(count(&mut handshakes, "127.0.0.1"), 1000, "exempt");
    }

    #[test]
    fn after_the_handshake_only_what_takes_longer_than_traffic_is_charged() {
        let mut handshakes = handshakes();
        let mut paid = |source: &str, len: usize, micros: u64| {
            let receive = || MICROS.set(MICROS.get() + micros);
            handshakes.after(source.parse().expect("address"), len, receive).1
        };
        assert!((0..10_000).all(|_| paid("192.0.2.1", 16_000, 165)), "traffic");
        // 4 KiB of changes of keys: 1 ms, of which 46 us are what traffic would take.
        let reads = (0..10_000).take_while(|_| paid("192.0.2.1", 4096, 1000)).count();
        assert!((250..400).contains(&reads), "{reads}");
        assert!(paid("192.0.2.1", 16_000, 165), "traffic needs nothing that is left");
        assert!(paid("192.0.2.2", 4096, 1000), "others have theirs");
        assert!((0..1000).all(|_| paid("127.0.0.1", 4096, 1000)), "exempt");
    }

    #[test]
    fn those_that_wait_go_on_in_their_order() {
        let mut handshakes = handshakes();
        let token = |slot| Token::Stream { slot, generation: Generation::default() };
        (0..50).for_each(|slot| handshakes.wait(token(slot)));
        assert_eq!(handshakes.resume(), None, "not before another turn");
        handshakes.begin_turn(clock().instant);
        assert!(handshakes.must_wait() && handshakes.next() <= Some(clock().instant), "others came before");
        let resumed: Vec<_> = std::iter::from_fn(|| handshakes.resume()).collect();
        assert_eq!(resumed, (0..RESUMED_PER_TURN as u32).map(token).collect::<Vec<_>>());
        handshakes.begin_turn(clock().instant);
        assert_eq!(std::iter::from_fn(|| handshakes.resume()).count(), 50 - RESUMED_PER_TURN);
        assert!(!handshakes.must_wait() && handshakes.next().is_none());
    }
}
