//! What one turn of a worker's loop may use, and what is left over for the next.

use std::time::Duration;

use super::token::Token;
use crate::base::time::{Instant, Now};
use crate::turn::action::UserId;

/// Bytes that web clients and their servers may send in one turn: 0.2 ms of sealing and copying, for which packets wait.
const WEB_BYTES: usize = 256 << 10;

/// The time of one slice. Each [`Rank`] of relayed addresses has one in a turn, each of streams, and of those to be written
/// to. So a peer's datagrams wait for no more than 5 ms, whatever others and streams bring, and no rank keeps the others
/// waiting; UDP listeners wait for no more than [`LISTENERS_WAIT`].
const SLICE: Duration = Duration::from_micros(500);
/// Units of work between two looks at the clock. A unit is a datagram or a short message: about a microsecond.
const LOOK: u32 = 64;
/// Units of one socket: a system call or two, and sometimes a TLS record.
pub const SOCKET_UNITS: u32 = 4;
/// Units of one request: it is authenticated, and answered.
pub const REQUEST_UNITS: u32 = 16;
/// Bytes read from a stream that count as one unit: they may be TLS records of 23 bytes each.
pub const BYTES_PER_UNIT: usize = 128;
/// Bytes written to a stream that count as one unit: each TLS record counts besides.
pub const WRITTEN_BYTES_PER_UNIT: usize = 2048;
/// Units from which the work for a stream at once is large: two packets of video that arrive together are not.
pub const LARGE_UNITS: u32 = 32;
/// Nanoseconds in which one unit of a user's work is forgotten. 50,000 units a second are ten videos over TLS.
const UNIT_NANOS: u64 = 20_000;
/// Nanoseconds until all of a user's work is forgotten, from which it is much: 1,000 units, a picture of a shared screen. One
/// user's sockets, of which it may have hundreds, keep others of the first rank waiting for so many units at most.
const MUCH_NANOS: u64 = 1_000 * UNIT_NANOS;
/// The most that is remembered: soon after the work is over, the user is like others.
const MOST_NANOS: u64 = 5 * MUCH_NANOS;
/// The longest time between two looks at UDP listeners within a turn: their buffers must not overflow meanwhile.
const LISTENERS_WAIT: Duration = Duration::from_micros(200);

/// The budget of a turn.
#[derive(Debug)]
pub struct Budget {
    clock: fn() -> Now,
    /// Counts turns; wraps.
    pub turn: u32,
    slice: Slice,
    /// Units of all work; wraps.
    spent: u32,
    /// When the turn began, in nanoseconds.
    now: u64,
    /// By number of the user: when all of its work is forgotten, in nanoseconds.
    users: Vec<u64>,
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
    /// The first look at the clock.
    began: Option<Instant>,
    /// Units of work since the last look.
    units: u32,
    is_spent: bool,
}

/// The order in which sockets are handled when there is no time for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Relayed addresses and clients of users with little work: calls. They come before the next turn's events.
    First,
    /// Clients without an allocation whose last share was small, and QUIC flows.
    Second,
    /// Those of users with much work, and clients without an allocation whose last share was large.
    Last,
}

impl Rank {
    /// All of them, in order.
    pub const ALL: [Rank; 3] = [Rank::First, Rank::Second, Rank::Last];
}

/// Sockets to be handled in the next turn without an event, by rank. Whoever waits longest comes first.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Those that have to wait again; after [`Budget::take_leftovers`] all others behind them.
    waiting: [Vec<Token>; 3],
    /// Those that have to wait for the first time.
    new: [Vec<Token>; 3],
    /// Those that had their share in this turn and may have more.
    served: [Vec<Token>; 3],
}

impl Leftovers {
    /// Returns those of a rank.
    pub fn of(&self, rank: Rank) -> &[Token] {
        &self.waiting[rank as usize]
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        [&self.waiting, &self.new, &self.served].into_iter().flatten().all(Vec::is_empty)
    }

    /// Empties the lists and keeps their memory.
    pub fn clear(&mut self) {
        self.waiting.iter_mut().for_each(Vec::clear);
    }
}

impl Budget {
    /// Creates a budget that measures by `clock`.
    pub fn new(clock: fn() -> Now) -> Self {
        Self {
            clock,
            turn: 0,
            slice: Slice::default(),
            spent: 0,
            now: 0,
            users: Vec::new(),
            listeners_seen: None,
            are_listeners_due: false,
            short: [false; 2],
            web_bytes: 0,
            left: Leftovers::default(),
        }
    }

    /// Begins another turn.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now.as_nanos();
        self.turn = self.turn.wrapping_add(1);
        self.web_bytes = WEB_BYTES;
        (self.listeners_seen, self.are_listeners_due) = (None, false);
        self.short = [false, self.short[0]];
    }

    /// Begins a slice.
    pub fn begin_slice(&mut self) {
        self.slice = Slice::default();
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

    /// Returns whether a socket with an event has its share at once.
    pub fn has_share(&mut self, rank: Rank) -> bool {
        (rank == Rank::First || !self.was_short()) && !self.is_time_spent()
    }

    /// Notes work, in units.
    pub fn spend(&mut self, units: u32) {
        self.slice.units = self.slice.units.saturating_add(units);
        self.spent = self.spent.wrapping_add(units);
    }

    /// Records work for a user.
    pub fn charge(&mut self, user: UserId, units: u32) {
        let index = user.0 as usize;
        if index >= self.users.len() {
            self.users.resize(index + 1, 0);
        }
        let until = self.users[index].max(self.now) + u64::from(units) * UNIT_NANOS;
        self.users[index] = until.min(self.now + MOST_NANOS);
    }

    /// Returns whether there was much work for a user lately, on all its sockets together.
    pub fn is_much(&self, user: UserId) -> bool {
        self.users.get(user.0 as usize).is_some_and(|&until| until > self.now + MUCH_NANOS)
    }

    /// Returns the rank of a relayed address, by the user of its allocation.
    pub fn rank(&self, user: Option<UserId>) -> Rank {
        if user.is_some_and(|user| self.is_much(user)) { Rank::Last } else { Rank::First }
    }

    /// Returns the units of all work so far; wraps. The difference between two calls is the work between them.
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// Returns whether UDP listeners have waited so long that they are to be read now.
    pub fn take_listeners_due(&mut self) -> bool {
        std::mem::take(&mut self.are_listeners_due)
    }

    /// Returns whether a slice of the last turn was too short. Then the order of [`Rank`] holds; else everything is
    /// handled as it comes.
    pub fn was_short(&self) -> bool {
        self.short[1]
    }

    /// Leaves a socket that had no share to the next turn.
    pub fn postpone(&mut self, token: Token, rank: Rank) {
        self.left.new[rank as usize].push(token);
    }

    /// Leaves a socket that has waited already to the next turn again, before those that have not.
    pub fn wait_again(&mut self, token: Token, rank: Rank) {
        self.left.waiting[rank as usize].push(token);
    }

    /// Notes that a socket may have more to read than its share.
    pub fn read_again(&mut self, token: Token, rank: Rank) {
        self.left.served[rank as usize].push(token);
    }

    /// Makes a slice of this turn too short.
    #[cfg(test)]
    pub fn end_short(&mut self) {
        self.short[0] = true;
    }

    /// Returns whether sockets are left over.
    #[cfg(test)]
    pub fn has_leftovers(&self) -> bool {
        !self.left.is_empty()
    }

    /// Exchanges the leftovers of the last turn for an empty list.
    pub fn take_leftovers(&mut self, leftovers: &mut Leftovers) {
        let Leftovers { waiting, new, served } = &mut self.left;
        for (waiting, behind) in waiting.iter_mut().zip(new.iter_mut().zip(served)) {
            waiting.append(behind.0);
            waiting.append(behind.1);
        }
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

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((1_000 + millis) * 1_000_000)
    }

    #[test]
    fn a_user_has_much_work_beyond_its_burst_until_that_is_forgotten() {
        let (mut budget, user) = (budget(), UserId(3));
        let is_much = |budget: &mut Budget, millis| {
            budget.begin_turn(at(millis));
            budget.is_much(user)
        };
        assert!(!is_much(&mut budget, 0));
        budget.charge(user, 1_000);
        assert!(!is_much(&mut budget, 0), "its burst");
        budget.charge(user, 1);
        assert!(is_much(&mut budget, 0) && !is_much(&mut budget, 1));
        budget.charge(user, u32::MAX);
        assert!(is_much(&mut budget, 80) && !is_much(&mut budget, 81), "no more is remembered");
        assert!(!budget.is_much(UserId(2)) && !budget.is_much(UserId(9)), "others have none");
        // A user that has as much as is forgotten meanwhile never has much.
        let steady = (1_000..3_000).step_by(10).all(|millis| {
            let is_much = is_much(&mut budget, millis);
            budget.charge(user, 500);
            !is_much
        });
        assert!(steady);
    }

    #[test]
    fn each_slice_has_half_a_millisecond_whatever_the_others_used() {
        let mut budget = budget();
        for _ in 0..3 {
            budget.begin_turn(at(0));
            budget.begin_slice();
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
        budget.begin_turn(at(0));
        assert!(budget.was_short());
        budget.begin_turn(at(0));
        assert!(!budget.was_short());
    }

    #[test]
    fn listeners_are_due_while_others_use_their_slices() {
        let mut budget = budget();
        budget.begin_turn(at(0));
        let due = (0..2).map(|_| {
            budget.begin_slice();
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
    fn of_each_rank_those_that_waited_longest_come_first() {
        let mut budget = budget();
        budget.begin_turn(at(0));
        budget.read_again(Token::Udp(1), Rank::Last);
        for (index, rank) in [(2, Rank::First), (3, Rank::Last), (4, Rank::Second)] {
            budget.postpone(Token::Udp(index), rank);
        }
        budget.wait_again(Token::Udp(5), Rank::Last);
        assert!(budget.has_leftovers());
        let mut leftovers = Leftovers::default();
        budget.take_leftovers(&mut leftovers);
        assert_eq!(leftovers.of(Rank::First), [Token::Udp(2)]);
        assert_eq!(leftovers.of(Rank::Second), [Token::Udp(4)]);
        assert_eq!(leftovers.of(Rank::Last), [5, 3, 1].map(Token::Udp));
        assert!(!budget.has_leftovers() && !leftovers.is_empty());
        leftovers.clear();
        assert!(leftovers.is_empty());
    }

    /// Of three sockets that always have more, one is handled in a turn: in three turns each has a share.
    #[test]
    fn nobody_waits_for_ever_behind_those_with_new_events() {
        let (mut budget, mut leftovers, mut served) = (budget(), Leftovers::default(), Vec::new());
        (0..3).for_each(|index| budget.postpone(Token::Udp(index), Rank::Last));
        for _ in 0..6 {
            budget.take_leftovers(&mut leftovers);
            let (first, others) = leftovers.of(Rank::Last).split_first().expect("three wait");
            // The event of the one that had its share last came before those that wait were looked at.
            served.last().into_iter().for_each(|&token| budget.postpone(token, Rank::Last));
            others.iter().for_each(|&token| budget.wait_again(token, Rank::Last));
            served.push(*first);
            leftovers.clear();
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2].map(Token::Udp));
    }

    #[test]
    fn work_is_the_difference_between_two_looks() {
        let mut budget = budget();
        budget.spent = u32::MAX - 2;
        let before = budget.spent();
        budget.spend(7);
        assert_eq!(budget.spent().wrapping_sub(before), 7);
    }

    #[test]
    fn each_turn_has_its_bytes_of_the_web() {
        let mut budget = budget();
        budget.begin_turn(at(0));
        budget.spend_web(WEB_BYTES - 1);
        assert!(!budget.is_web_spent());
        budget.spend_web(9);
        assert!(budget.is_web_spent());
        budget.begin_turn(at(0));
        assert!(!budget.is_web_spent());
    }
}
