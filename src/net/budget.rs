//! Limits the work of one turn of a worker's loop, and lists the sockets left over for the next turn.

use std::time::Duration;

use super::token::Token;
use crate::base::time::{Instant, Now};
use crate::turn::action::UserId;

/// Bytes that web clients and web servers may send in one turn. Encrypting and copying them delays packets by 0.2 ms.
const WEB_BYTES: usize = 256 << 10;
/// Bytes that a shorter read of the web counts as: its system calls and its TLS record cost as much.
const WEB_BYTES_MIN: usize = 2 << 10;

/// The length of a slice. In each turn, every [`Rank`] has slices of its own for relayed addresses, streams and
/// writing, so no rank delays the others. A peer's datagrams wait for at most 5 ms regardless of other load, and UDP
/// listeners for at most [`LISTENERS_WAIT`].
const SLICE: Duration = Duration::from_micros(500);
/// Units of work between two readings of the clock. A unit is a datagram or a short message: about a microsecond.
const LOOK: u32 = 64;
/// Units for one socket: a system call or two, and sometimes a TLS record.
pub const SOCKET_UNITS: u32 = 4;
/// Connections closed in one turn: a millisecond, if they have TLS and an allocation. What their allocations hold is removed in pages of
/// its own bound (`turn::state::removals`).
pub const CLOSED: usize = 32;
/// Units for one request, which is authenticated and answered.
pub const REQUEST_UNITS: u32 = 16;
/// Bytes read from a stream that count as one unit. The number is low, because TLS records may be as short as 23 bytes.
const BYTES_PER_UNIT: usize = 128;
/// Bytes written to a stream that count as one unit. Each TLS record counts as another.
pub const WRITTEN_BYTES_PER_UNIT: usize = 2048;
/// A stream's share of at least this many units is large. Two video packets that arrive together are below it.
pub const LARGE_UNITS: u32 = 32;
/// Nanoseconds after which one unit of a user's work is forgotten. This is 50,000 units per second, the work of ten
/// video streams over TLS.
const UNIT_NANOS: u64 = 20_000;
/// A user is busy while more of their work than this is remembered, in units: one frame of a shared screen. The sockets of one user,
/// perhaps hundreds, delay others of the first rank by at most this much work.
const BUSY: u64 = 1_000;
/// What counts as a burst while so much work of all users that are not busy is remembered, in units: twenty users with one each would
/// delay a call by that of all. Sound stays below.
const BURST_AMONG_MANY: [(u64, u64); 2] = [(3_000, 50), (2_000, 250)];
/// Nanoseconds after which one unit of all users' work is forgotten. 3,000 units are remembered after 20 ms with 5,000.
const UNIT_OF_ALL_NANOS: u64 = 10_000;
/// Cap on a user's remembered work, in nanoseconds. It ends a user's busy state soon after their work ends.
const MOST_NANOS: u64 = 5 * BUSY * UNIT_NANOS;
/// The same for the work of all.
const MOST_OF_ALL_NANOS: u64 = 5_000 * UNIT_OF_ALL_NANOS;
/// The longest time between two reads of the UDP listeners within a turn, so that their buffers do not overflow.
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
    /// When all work of a user is forgotten, in nanoseconds; indexed by user ID.
    users: Vec<u64>,
    /// The same for datagrams that arrived at their relayed addresses without permission.
    refused: Vec<u64>,
    /// When all work of all users is forgotten, in nanoseconds.
    all: u64,
    /// A user with more remembered work than this has a burst, in nanoseconds until it is forgotten.
    burst_nanos: u64,
    /// The start of the UDP listeners' wait; `None` until the clock is read in this turn.
    listeners_seen: Option<Instant>,
    /// Whether UDP listeners have waited for [`LISTENERS_WAIT`].
    are_listeners_due: bool,
    /// Whether a slice was too short, in this turn and in the last one.
    short: [bool; 2],
    /// Whether a slice of the first rank was too short, likewise.
    first_short: [bool; 2],
    /// Bytes that web clients and web servers may still send in this turn.
    web_bytes: usize,
    left: Leftovers,
}

/// The use of the current slice.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    rank: Rank,
    len: Duration,
    /// The first reading of the clock.
    began: Option<Instant>,
    /// Units of work since the last reading.
    units: u32,
    is_spent: bool,
}

/// The order in which sockets are handled when there is no time for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Relayed addresses and clients of users that are not busy: calls. Their leftovers precede the next turn's events.
    #[default]
    First,
    /// Users with a burst while all together cause much work: pictures. And relayed addresses of users to whom much is sent without
    /// permission: the datagrams of their peers may lie behind it.
    Later,
    /// Clients without an allocation whose last share was small, and QUIC flows.
    Second,
    /// Relayed addresses and clients of busy users, and clients without an allocation whose last share was large.
    Last,
}

impl Rank {
    /// All ranks, in order.
    pub const ALL: [Rank; 4] = [Rank::First, Rank::Later, Rank::Second, Rank::Last];
}

/// Sockets to be handled in the next turn without a new event, by rank. Within a rank, the longest-waiting come first.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Sockets that have already waited. [`Budget::take_leftovers`] appends the other two lists.
    waiting: [Vec<Token>; 4],
    /// Sockets that wait for the first time.
    new: [Vec<Token>; 4],
    /// Sockets that were served in this turn and may have more to read.
    served: [Vec<Token>; 4],
}

impl Leftovers {
    /// Returns the sockets of a rank.
    pub fn of(&self, rank: Rank) -> &[Token] {
        &self.waiting[rank as usize]
    }

    /// Returns whether no socket is left over.
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
            refused: Vec::new(),
            all: 0,
            burst_nanos: BUSY * UNIT_NANOS,
            listeners_seen: None,
            are_listeners_due: false,
            short: [false; 2],
            first_short: [false; 2],
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
        self.first_short = [false, self.first_short[0]];
        let of_all = self.all.saturating_sub(self.now) / UNIT_OF_ALL_NANOS;
        let found = BURST_AMONG_MANY.iter().find(|(remembered, _)| of_all >= *remembered);
        self.burst_nanos = found.map_or(BUSY, |(_, busy)| *busy) * UNIT_NANOS;
    }

    /// Begins a slice.
    pub fn begin_slice(&mut self, rank: Rank) {
        let is_cut = rank != Rank::First && self.first_short[1];
        self.slice = Slice { rank, len: if is_cut { SLICE / 4 } else { SLICE }, ..Slice::default() };
    }

    /// Returns whether the time of this slice is used up. Reads the clock every [`LOOK`] units of work.
    pub fn is_time_spent(&mut self) -> bool {
        let slice = &mut self.slice;
        if slice.is_spent || slice.units < LOOK {
            return slice.is_spent;
        }
        slice.units = 0;
        let now = (self.clock)().instant;
        // A slice is timed from its first reading of the clock. The work before that is not timed; it is about as much
        // as between any two readings.
        slice.is_spent = now.since(*slice.began.get_or_insert(now)) > slice.len;
        self.short[0] |= slice.is_spent;
        self.first_short[0] |= slice.is_spent && slice.rank == Rank::First;
        if now.since(*self.listeners_seen.get_or_insert(now)) > LISTENERS_WAIT {
            (self.listeners_seen, self.are_listeners_due) = (Some(now), true);
        }
        slice.is_spent
    }

    /// Returns whether a socket of this rank with a new event is served now; otherwise it is left over.
    pub fn has_share(&mut self, rank: Rank) -> bool {
        (rank == Rank::First || !self.was_short()) && !self.is_time_spent()
    }

    /// Records work, in units.
    pub fn spend(&mut self, units: u32) {
        self.slice.units = self.slice.units.saturating_add(units);
        self.spent = self.spent.wrapping_add(units);
    }

    /// Records the work of reading a stream. After a step of a handshake the clock is read: a signature or a key exchange takes
    /// as long as hundreds of units.
    pub fn spend_read(&mut self, received: usize, is_handshake: bool) {
        self.spend(SOCKET_UNITS + (received / BYTES_PER_UNIT) as u32);
        if is_handshake {
            self.slice.units = self.slice.units.max(LOOK);
        }
    }

    /// Records work for a user.
    pub fn charge(&mut self, user: Option<UserId>, units: u32) {
        // The work of busy users comes last anyway, and makes nobody else busy.
        let counts = user.is_some_and(|user| !self.is_busy(user));
        remember(&mut self.users, user, units, self.now);
        if counts {
            let until = self.all.max(self.now) + u64::from(units) * UNIT_OF_ALL_NANOS;
            self.all = until.min(self.now + MOST_OF_ALL_NANOS);
        }
    }

    /// Records work for datagrams that a user's relayed addresses refused. Anybody can cause it, so it is no work of the user.
    pub fn charge_refused(&mut self, user: Option<UserId>, units: u32) {
        remember(&mut self.refused, user, units, self.now);
    }

    /// Returns whether a user is busy: all their sockets together recently caused much work.
    pub fn is_busy(&self, user: UserId) -> bool {
        self.is_above(&self.users, user, BUSY * UNIT_NANOS)
    }

    fn is_above(&self, work: &[u64], user: UserId, nanos: u64) -> bool {
        work.get(user.0 as usize).is_some_and(|&until| until > self.now + nanos)
    }

    /// Returns the rank of a client with an allocation, by its user.
    pub fn rank(&self, user: Option<UserId>) -> Rank {
        match user {
            Some(user) if self.is_busy(user) => Rank::Last,
            Some(user) if self.is_above(&self.users, user, self.burst_nanos) => Rank::Later,
            _ => Rank::First,
        }
    }

    /// Returns the rank of a relayed address, by the user of its allocation.
    pub fn rank_of_relay(&self, user: Option<UserId>) -> Rank {
        match self.rank(user) {
            Rank::First if user.is_some_and(|user| self.is_above(&self.refused, user, BUSY * UNIT_NANOS)) => {
                Rank::Later
            }
            rank => rank,
        }
    }

    /// Returns the units of all work so far; wraps. The difference between two calls is the work between them.
    pub fn spent(&self) -> u32 {
        self.spent
    }

    /// Returns whether UDP listeners must be read now, and clears the mark.
    pub fn take_listeners_due(&mut self) -> bool {
        std::mem::take(&mut self.are_listeners_due)
    }

    /// Returns whether a slice of the last turn was too short. Only then does the order of [`Rank`] apply; otherwise
    /// sockets are served in the order of their events.
    pub fn was_short(&self) -> bool {
        self.short[1]
    }

    /// Defers an unserved socket to the next turn.
    pub fn postpone(&mut self, token: Token, rank: Rank) {
        self.left.new[rank as usize].push(token);
    }

    /// Defers a socket that has already waited once more, ahead of those that have not.
    pub fn wait_again(&mut self, token: Token, rank: Rank) {
        self.left.waiting[rank as usize].push(token);
    }

    /// Records that a served socket may have more to read.
    pub fn read_again(&mut self, token: Token, rank: Rank) {
        self.left.served[rank as usize].push(token);
    }

    /// Records that a slice of this turn was too short.
    #[cfg(test)]
    pub fn end_short(&mut self) {
        self.short[0] = true;
    }

    /// Returns whether sockets are left over.
    #[cfg(test)]
    pub fn has_leftovers(&self) -> bool {
        !self.left.is_empty()
    }

    /// Moves the leftovers of the last turn to `leftovers`, which must be empty.
    pub fn take_leftovers(&mut self, leftovers: &mut Leftovers) {
        let Leftovers { waiting, new, served } = &mut self.left;
        for (waiting, behind) in waiting.iter_mut().zip(new.iter_mut().zip(served)) {
            waiting.append(behind.0);
            waiting.append(behind.1);
        }
        std::mem::swap(&mut self.left, leftovers);
    }

    /// Returns whether the web's bytes of this turn are used up. Its sockets are level-triggered, so they are reported
    /// again.
    pub fn is_web_spent(&self) -> bool {
        self.web_bytes == 0
    }

    /// Records bytes that the web sent.
    pub fn spend_web(&mut self, bytes: usize) {
        self.web_bytes = self.web_bytes.saturating_sub(bytes.max(WEB_BYTES_MIN));
    }
}

/// Adds work to that of a user. `work` has the end of each user's remembered work, in nanoseconds.
fn remember(work: &mut Vec<u64>, user: Option<UserId>, units: u32, now: u64) {
    let Some(UserId(index)) = user else { return };
    let index = index as usize;
    if index >= work.len() {
        work.resize(index + 1, 0);
    }
    let until = work[index].max(now) + u64::from(units) * UNIT_NANOS;
    work[index] = until.min(now + MOST_NANOS);
}

/// The readiness with which a socket was left over; empty if it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOver(u32);

impl LeftOver {
    /// Adds readiness, so that no edge is lost. Returns `true` if the socket was not left over before and must be
    /// listed, because each socket is listed once.
    pub fn leave(&mut self, readiness: u32) -> bool {
        let is_new = self.0 == 0;
        self.0 |= readiness;
        is_new
    }

    /// Returns whether the socket is left over.
    pub fn is_some(&self) -> bool {
        self.0 != 0
    }

    /// Returns the readiness and clears it.
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

    /// Twenty users with a small burst each: pictures come after sound. One user with a large one changes nothing for others.
    #[test]
    fn a_small_burst_comes_later_while_many_have_one() {
        let mut budget = budget();
        let [busy, picture, sound] = [1, 2, 3].map(UserId);
        budget.begin_turn(at(0));
        (0..50).for_each(|_| budget.charge(Some(busy), 1_000));
        budget.charge(Some(picture), 80);
        budget.begin_turn(at(0));
        let rank = |budget: &Budget, user| budget.rank(Some(user));
        assert_eq!((rank(&budget, busy), rank(&budget, picture)), (Rank::Last, Rank::First));
        (10..30).for_each(|user| budget.charge(Some(UserId(user)), 160));
        budget.charge(Some(sound), 30);
        budget.begin_turn(at(0));
        let ranks = [busy, picture, sound].map(|user| rank(&budget, user));
        assert_eq!(ranks, [Rank::Last, Rank::Later, Rank::First]);
        budget.begin_turn(at(50));
        assert_eq!(rank(&budget, picture), Rank::First, "it is forgotten");
    }

    #[test]
    fn a_user_is_busy_beyond_its_burst_until_its_work_is_forgotten() {
        let (mut budget, user) = (budget(), UserId(3));
        let is_busy = |budget: &mut Budget, millis| {
            budget.begin_turn(at(millis));
            budget.is_busy(user)
        };
        assert!(!is_busy(&mut budget, 0));
        budget.charge(Some(user), 1_000);
        assert!(!is_busy(&mut budget, 0), "within its burst");
        budget.charge(Some(user), 1);
        assert!(is_busy(&mut budget, 0) && !is_busy(&mut budget, 1));
        budget.charge(Some(user), u32::MAX);
        assert!(is_busy(&mut budget, 80) && !is_busy(&mut budget, 81), "remembered work is capped");
        assert!(!budget.is_busy(UserId(2)) && !budget.is_busy(UserId(9)), "others are not");
        // A user whose work is forgotten as fast as it comes is never busy.
        let steady = (1_000..3_000).step_by(10).all(|millis| {
            let is_busy = is_busy(&mut budget, millis);
            budget.charge(Some(user), 500);
            !is_busy
        });
        assert!(steady);
    }

    #[test]
    fn refused_datagrams_change_the_rank_of_relayed_addresses_alone() {
        let (mut budget, user) = (budget(), Some(UserId(3)));
        budget.begin_turn(at(0));
        budget.charge_refused(user, 1_000);
        assert_eq!(budget.rank_of_relay(user), Rank::First, "within its burst");
        budget.charge_refused(user, 1);
        assert_eq!((budget.rank_of_relay(user), budget.rank(user)), (Rank::Later, Rank::First));
        assert_eq!(budget.rank_of_relay(Some(UserId(2))), Rank::First);
        budget.charge(user, 1_001);
        assert_eq!(budget.rank_of_relay(user), Rank::Last, "work of its own comes after all");
    }

    #[test]
    fn each_slice_has_half_a_millisecond_whatever_the_others_used() {
        let mut budget = budget();
        for _ in 0..3 {
            budget.begin_turn(at(0));
            budget.begin_slice(Rank::First);
            let handled = (0..10_000).take_while(|_| {
                let may = !budget.is_time_spent();
                budget.spend(1);
                MICROS.set(MICROS.get() + 2);
                may
            });
            // 128 us pass before the first reading, and the last reading is up to 128 us late.
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
    fn the_clock_is_read_after_each_step_of_a_handshake() {
        let mut budget = budget();
        budget.begin_turn(at(0));
        budget.begin_slice(Rank::Second);
        let steps = (0..100).take_while(|_| {
            budget.spend_read(200, true);
            MICROS.set(MICROS.get() + 200);
            !budget.is_time_spent()
        });
        // The first reading begins the slice of 500 us.
        assert_eq!(steps.count(), 3);
    }

    #[test]
    fn other_ranks_have_a_quarter_of_a_slice_while_calls_lack_time() {
        let mut budget = budget();
        let micros = |budget: &mut Budget, rank| {
            let start = MICROS.get();
            budget.begin_slice(rank);
            while !budget.is_time_spent() {
                budget.spend(LOOK);
                MICROS.set(MICROS.get() + 10);
            }
            MICROS.get() - start
        };
        for (turn, expected) in [(0, 500), (1, 125)] {
            budget.begin_turn(at(turn));
            let last = micros(&mut budget, Rank::Last);
            assert!((expected..=expected + 30).contains(&last), "{last}");
            micros(&mut budget, Rank::First);
        }
    }

    #[test]
    fn listeners_are_due_while_others_use_their_slices() {
        let mut budget = budget();
        budget.begin_turn(at(0));
        let due = (0..2).map(|_| {
            budget.begin_slice(Rank::First);
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

    /// Three sockets always have more to read, and each turn serves one. After three turns, each has been served once.
    #[test]
    fn waiting_sockets_are_served_before_those_with_new_events() {
        let (mut budget, mut leftovers, mut served) = (budget(), Leftovers::default(), Vec::new());
        (0..3).for_each(|index| budget.postpone(Token::Udp(index), Rank::Last));
        for _ in 0..6 {
            budget.take_leftovers(&mut leftovers);
            let (first, others) = leftovers.of(Rank::Last).split_first().expect("three wait");
            // The socket served last has a new event, which is handled before the waiting sockets.
            served.last().into_iter().for_each(|&token| budget.postpone(token, Rank::Last));
            others.iter().for_each(|&token| budget.wait_again(token, Rank::Last));
            served.push(*first);
            leftovers.clear();
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2].map(Token::Udp));
    }

    #[test]
    fn the_work_between_two_calls_is_right_even_if_the_count_wraps() {
        let mut budget = budget();
        budget.spent = u32::MAX - 2;
        let before = budget.spent();
        budget.spend(7);
        assert_eq!(budget.spent().wrapping_sub(before), 7);
    }

    #[test]
    fn each_turn_has_its_own_budget_of_web_bytes() {
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
