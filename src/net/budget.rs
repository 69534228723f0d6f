//! What one turn of a worker's loop may use, and what is left over for the next.

use std::time::Duration;

use super::token::Token;
use crate::base::time::{Instant, Now};

/// Bytes that web clients and their servers may send in one turn: 0.2 ms of sealing and copying, for which packets wait.
const WEB_BYTES: usize = 256 << 10;

/// The time of one slice. A turn has four: relayed addresses and then streams, of each first the new ones and then those
/// left over. So UDP clients wait for no more than 2 ms, whatever peers and streams bring, and neither the new ones nor
/// those left over keep the others waiting.
const SLICE: Duration = Duration::from_micros(500);
/// Units of work between two looks at the clock. A unit is a datagram or a short message: about a microsecond.
const LOOK: u32 = 64;
/// Units of one socket: a system call or two, and sometimes a TLS record.
pub const SOCKET_UNITS: u32 = 4;
/// Units of one request: it is authenticated, and answered.
pub const REQUEST_UNITS: u32 = 16;
/// Bytes read from a stream that count as one unit: they may be TLS records of 23 bytes each.
pub const BYTES_PER_UNIT: usize = 128;
/// The longest time between two looks at UDP listeners within a turn: their buffers must not overflow meanwhile.
const LISTENERS_WAIT: Duration = Duration::from_micros(200);

/// The budget of a turn.
#[derive(Debug)]
pub struct Budget {
    clock: fn() -> Now,
    /// Counts turns; wraps.
    pub turn: u32,
    slice: Slice,
    /// When UDP listeners were looked at, if a slice has looked at the clock in this turn.
    listeners_seen: Option<Instant>,
    /// Whether UDP listeners have waited for [`LISTENERS_WAIT`].
    are_listeners_due: bool,
    /// Whether a slice was too short, in this turn and in the last one.
    short: [bool; 2],
    /// Bytes that the web may still send.
    web_bytes: usize,
    left: Leftovers,
}

/// The time that some sockets share.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// Whether these sockets are left over from the last turn.
    is_second: bool,
    /// The first look at the clock.
    began: Option<Instant>,
    /// Units of work since the last look.
    units: u32,
    is_spent: bool,
}

/// Sockets to be handled in the next turn without an event.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Those with an event in this turn, for which there was no time. They come before the next turn's events.
    pub new: Vec<Token>,
    /// Those that were left over already, and then those that had their share and may have more.
    pub old: Vec<Token>,
    /// Those that had their share in this turn.
    served: Vec<Token>,
}

impl Leftovers {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty() && self.served.is_empty()
    }

    /// Empties the lists and keeps their memory.
    pub fn clear(&mut self) {
        self.new.clear();
        self.old.clear();
    }
}

impl Budget {
    /// Creates a budget that measures by `clock`.
    pub fn new(clock: fn() -> Now) -> Self {
        Self {
            clock,
            turn: 0,
            slice: Slice::default(),
            listeners_seen: None,
            are_listeners_due: false,
            short: [false; 2],
            web_bytes: 0,
            left: Leftovers::default(),
        }
    }

    /// Begins another turn.
    pub fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.web_bytes = WEB_BYTES;
        (self.listeners_seen, self.are_listeners_due) = (None, false);
        self.short = [false, self.short[0]];
    }

    /// Begins a slice: for sockets with an event, or for those left over.
    pub fn begin_slice(&mut self, is_second: bool) {
        self.slice = Slice { is_second, ..Slice::default() };
    }

    /// Returns whether nothing more is to be handled in this slice. Reads the clock every [`LOOK`] units of work.
    pub fn is_time_spent(&mut self) -> bool {
        let slice = &mut self.slice;
        if slice.is_spent || slice.units < LOOK {
            return slice.is_spent;
        }
        slice.units = 0;
        let now = (self.clock)().instant;
        // What came before the first look took about as long as the way to the next one.
        slice.is_spent = now.since(*slice.began.get_or_insert(now)) > SLICE;
        self.short[0] |= slice.is_spent;
        if now.since(*self.listeners_seen.get_or_insert(now)) > LISTENERS_WAIT {
            (self.listeners_seen, self.are_listeners_due) = (Some(now), true);
        }
        slice.is_spent
    }

    /// Notes work, in units.
    pub fn spend(&mut self, units: u32) {
        self.slice.units = self.slice.units.saturating_add(units);
    }

    /// Returns whether UDP listeners have waited so long that they are to be read now.
    pub fn take_listeners_due(&mut self) -> bool {
        std::mem::take(&mut self.are_listeners_due)
    }

    /// Returns whether a slice of the last turn was too short. Then those whose last share was large
    /// come last.
    pub fn was_short(&self) -> bool {
        self.short[1]
    }

    /// Leaves a socket that had no share to the next turn.
    pub fn postpone(&mut self, token: Token) {
        let list = if self.slice.is_second { &mut self.left.old } else { &mut self.left.new };
        list.push(token);
    }

    /// Notes that a socket may have more to read than its share.
    pub fn read_again(&mut self, token: Token) {
        self.left.served.push(token);
    }

    /// Returns whether sockets are left over.
    #[cfg(test)]
    pub fn has_leftovers(&self) -> bool {
        !self.left.is_empty()
    }

    /// Exchanges the leftovers of the last turn for an empty list.
    pub fn take_leftovers(&mut self, leftovers: &mut Leftovers) {
        self.left.old.append(&mut self.left.served);
        std::mem::swap(&mut self.left, leftovers);
    }

    /// Whether the web may send no more in this turn. Its sockets are level-triggered: they are reported again.
    pub fn is_web_spent(&self) -> bool {
        self.web_bytes == 0
    }

    /// Notes bytes that the web sent.
    pub fn spend_web(&mut self, bytes: usize) {
        self.web_bytes = self.web_bytes.saturating_sub(bytes);
    }
}

/// With which readiness a socket is among the leftovers of a turn; none: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOver(u32);

impl LeftOver {
    /// Adds this readiness. Returns whether there was none: each socket is listed once, and what comes meanwhile is added, or
    /// an edge would be lost.
    pub fn leave(&mut self, readiness: u32) -> bool {
        let is_new = self.0 == 0;
        self.0 |= readiness;
        is_new
    }

    /// Whether it is among the leftovers.
    pub fn is_some(&self) -> bool {
        self.0 != 0
    }

    /// Takes the readiness.
    pub fn take(&mut self) -> u32 {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static MICROS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    fn budget() -> Budget {
        Budget::new(|| Now { instant: Instant::from_nanos(MICROS.get() * 1000), unix: 0 })
    }

    #[test]
    fn each_slice_has_half_a_millisecond_whatever_the_others_used() {
        let mut budget = budget();
        for is_second in [false, true, false] {
            budget.begin_turn();
            budget.begin_slice(is_second);
            let handled = (0..10_000).take_while(|_| {
                let may = !budget.is_time_spent();
                budget.spend(1);
                MICROS.set(MICROS.get() + 2);
                may
            });
            // 128 us pass before the first look, and the last look is up to 128 us late.
            let micros = 2 * handled.count();
            assert!((500..=128 + 500 + 128).contains(&micros), "{micros}");
            assert!(budget.is_time_spent(), "it stays spent");
        }
        budget.begin_turn();
        assert!(budget.was_short());
        budget.begin_turn();
        assert!(!budget.was_short());
    }

    #[test]
    fn listeners_are_due_while_others_use_their_slices() {
        let mut budget = budget();
        budget.begin_turn();
        let due = (0..2).map(|slice| {
            budget.begin_slice(slice > 0);
            let looks = (0..1000).take_while(|_| {
                budget.spend(LOOK);
                MICROS.set(MICROS.get() + 60);
                !budget.is_time_spent()
            });
            let looks = looks.count();
            assert!(looks > 5, "{looks}");
            budget.take_listeners_due()
        });
        assert_eq!(due.collect::<Vec<_>>(), [true, true]);
        assert!(!budget.take_listeners_due());
    }

    #[test]
    fn those_without_a_share_come_before_those_that_had_one() {
        let mut budget = budget();
        budget.begin_turn();
        budget.begin_slice(false);
        budget.read_again(Token::Udp(1));
        budget.postpone(Token::Udp(2));
        budget.begin_slice(true);
        budget.postpone(Token::Udp(3));
        assert!(budget.has_leftovers());
        let mut leftovers = Leftovers::default();
        budget.take_leftovers(&mut leftovers);
        assert_eq!(leftovers.new, [Token::Udp(2)]);
        assert_eq!(leftovers.old, [Token::Udp(3), Token::Udp(1)]);
        assert!(!budget.has_leftovers() && !leftovers.is_empty());
    }

    #[test]
    fn each_turn_has_its_bytes_of_the_web() {
        let mut budget = budget();
        budget.begin_turn();
        budget.spend_web(WEB_BYTES - 1);
        assert!(!budget.is_web_spent());
        budget.spend_web(9);
        assert!(budget.is_web_spent());
        budget.begin_turn();
        assert!(!budget.is_web_spent());
    }
}
