//! Meters: rate limits in bits and packets a second for an allocation, a user and a host, both directions together.
//!
//! Excess packets are dropped and counted, never queued. An allocation belongs to one worker, and so does its meter. A user
//! or a host may have allocations on several workers. These draw from one shared budget, a hundredth of a second's worth at a
//! time, so a packet rarely touches shared memory. The limit applies once across all workers, within 1 % per worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use slab::Slab;

use super::budget::{Budget, NANOS_PER_SECOND, draw, pay};
use super::quota::Place;
use crate::base::host::HostId;
use crate::base::time::Instant;
use crate::turn::action::{DropReason, UserId};
use crate::turn::identity::account::Account;
use crate::turn::settings::{Rate, Rates};

/// A worker draws one part in this many of a second's worth at a time, if that much is available.
const DRAWS_PER_SECOND: u64 = 100;

/// While more datagrams are waiting at a listener than one read takes, the media of all clients waits behind them. Then the users
/// of a worker share its time, in periods of this length.
const PERIOD: u64 = NANOS_PER_SECOND / 50;
/// What one user may have had relayed in a period, by what all users have had together. A user alone has 1,000 at once: a full
/// frame of a shared screen has some hundred. Users with many names, and those that come late, have less, so that a period is not
/// longer than the worker needs for some 3,000 datagrams; but a call goes on.
const SHARES: [(u32, u32); 3] = [(1_000, 1_000), (2_000, 250), (3_000, 50)];
const LAST_SHARE: u32 = 10;
/// These numbers are for users that may send so many datagrams a second. If they may send more, the numbers grow with it.
const AT_RATE: u32 = 100_000;
/// Users that are remembered until the period ends after their last allocation has ended. Joining and leaving takes two requests, so
/// a worker hardly has time for more in a period.
const DEPARTED_MAX: usize = 1024;

/// A datagram to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Its length in bytes.
    pub len: usize,
    /// Whether it comes from a client over UDP, through the queue of a listener.
    pub queued: bool,
}

/// The rate limit of one allocation by GCRA: theoretical arrival times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bits_until: u64,
    packets_until: u64,
}

impl Meter {
    /// The meter after one more datagram; `None` if that exceeds the rate.
    fn after(self, now: Instant, rate: Rate, len: usize) -> Option<Self> {
        let now = now.as_nanos();
        let (bits, packets) = (rate.bits(), u64::from(rate.packets));
        let mut after = self;
        // Without a limit the rate is 0. A datagram is below 2^16 bytes: the product is below 2^50.
        if let Some(cost) = (len as u64 * 8 * NANOS_PER_SECOND).checked_div(bits) {
            after.bits_until = pay(self.bits_until, now, cost, NANOS_PER_SECOND).ok()?;
        }
        if let Some(cost) = NANOS_PER_SECOND.checked_div(packets) {
            after.packets_until = pay(self.packets_until, now, cost, NANOS_PER_SECOND).ok()?;
        }
        Some(after)
    }
}

/// The unused units that a worker has drawn from a [`Budget`], of bits or of packets.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    left: u64,
    /// Size of the last refused draw, and the earliest time to retry it.
    refused: u64,
    refused_until: u64,
}

impl Share {
    /// Whether the share has `units`, after a draw from the budget if necessary.
    fn covers(&mut self, units: u64, until: &AtomicU64, now: u64, rate: u64) -> bool {
        if rate == 0 || self.left >= units {
            return true;
        }
        let missing = units - self.left;
        if missing >= self.refused && now < self.refused_until {
            return false;
        }
        // Near the limit, the budget may have enough for this datagram alone.
        for wanted in [missing.max(rate / DRAWS_PER_SECOND), missing] {
            match draw(until, now, wanted, rate) {
                Ok(()) => {
                    self.left += wanted;
                    return true;
                }
                Err(then) => (self.refused, self.refused_until) = (wanted, then),
            }
        }
        false
    }

    fn spend(&mut self, units: u64) {
        // Without a limit, nothing was drawn.
        self.left = self.left.saturating_sub(units);
    }
}

/// The shares of a user or a host on one worker.
#[derive(Debug)]
struct Holder {
    budget: Arc<Budget>,
    bits: Share,
    packets: Share,
}

impl Holder {
    fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bits: Share::default(), packets: Share::default() }
    }

    /// Whether one more datagram may pass.
    fn covers(&mut self, now: Instant, rate: Rate, len: usize) -> bool {
        let (now, packets) = (now.as_nanos(), u64::from(rate.packets));
        self.bits.covers(len as u64 * 8, &self.budget.bits_until, now, rate.bits())
            && self.packets.covers(1, &self.budget.packets_until, now, packets)
    }

    fn spend(&mut self, len: usize) {
        self.bits.spend(len as u64 * 8);
        self.packets.spend(1);
    }
}

/// Datagrams that came through the queue of a listener while others waited there.
#[derive(Debug, Default)]
struct Backlog {
    /// Whether others wait now.
    is_waiting: bool,
    /// When the period began, in nanoseconds.
    began: u64,
    /// Datagrams relayed in it.
    relayed: u32,
    /// Users that left in this period, and how many datagrams each of them had relayed: a user that returns goes on with them.
    departed: HashMap<(HostId, Account), u32>,
    /// The most that a user had which left when `departed` was full. Every user that joins in this period begins with it.
    forgotten: u32,
}

impl Backlog {
    /// Begins a new period if the last one is over.
    fn follow(&mut self, now: Instant) {
        if now.as_nanos() >= self.began + PERIOD {
            (self.began, self.relayed, self.forgotten) = (now.as_nanos(), 0, 0);
            self.departed.clear();
        }
    }

    /// Returns the period of a user that joins.
    fn join(&mut self, key: &(HostId, Account)) -> (u64, u32) {
        (self.began, self.departed.remove(key).unwrap_or(self.forgotten))
    }

    /// Remembers a user that leaves.
    fn leave(&mut self, key: (HostId, Account), (began, relayed): (u64, u32)) {
        if began != self.began || relayed == 0 {
            return;
        }
        if self.departed.len() < DEPARTED_MAX {
            self.departed.insert(key, relayed);
        } else {
            self.forgotten = self.forgotten.max(relayed);
        }
    }

    /// Returns what a user may have had relayed in this period, if it may send `user_rate` datagrams a second.
    fn share(&self, user_rate: u32) -> u32 {
        let scale = (user_rate / AT_RATE).max(1);
        let found = SHARES.iter().find(|(relayed, _)| self.relayed < relayed.saturating_mul(scale));
        found.map_or(LAST_SHARE, |(_, share)| *share).saturating_mul(scale)
    }
}

#[derive(Debug)]
struct User {
    key: (HostId, Account),
    holder: Holder,
    /// The period of the backlog in which it had datagrams relayed, and how many.
    period: (u64, u32),
    /// The user's allocations on this worker.
    allocations: u32,
}

/// The meters of users and hosts on one worker; the meter of an allocation is in its entry of the table.
#[derive(Debug, Default)]
pub struct Meters {
    users: Slab<User>,
    by_user: HashMap<(HostId, Account), UserId>,
    backlog: Backlog,
    /// By host id.
    hosts: Vec<Option<Holder>>,
}

/// Who an allocation's packets count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payers {
    /// The user, by whose rate limit.
    pub user: UserId,
    /// Who has a share of the worker's time: the user, or all users of its host together if anybody can be any number of them.
    pub sharer: UserId,
}

impl Meters {
    /// Adds an allocation of the user that holds this place. `confined`: anybody can be any number of users of this host.
    pub fn join(&mut self, place: &Place, confined: bool) -> Payers {
        let host = usize::from(place.host().0);
        if host >= self.hosts.len() {
            self.hosts.resize_with(host + 1, || None);
        }
        self.hosts[host].get_or_insert_with(|| Holder::new(place.host_budget()));
        let user = self.join_as(place, place.account().clone());
        let sharer = if confined { self.join_as(place, Account::Name(Arc::from(""))) } else { user };
        Payers { user, sharer }
    }

    fn join_as(&mut self, place: &Place, account: Account) -> UserId {
        let key = (place.host(), account);
        let id = match self.by_user.get(&key) {
            Some(&id) => id,
            None => {
                let holder = Holder::new(place.user_budget());
                let period = self.backlog.join(&key);
                let user = User { key: key.clone(), holder, period, allocations: 0 };
                let id = UserId(self.users.insert(user) as u32);
                self.by_user.insert(key, id);
                id
            }
        };
        self.users[id.0 as usize].allocations += 1;
        id
    }

    /// Removes an allocation of a user, and the user with its last one.
    pub fn leave(&mut self, payers: Payers) {
        self.leave_as(payers.user);
        if payers.sharer != payers.user {
            self.leave_as(payers.sharer);
        }
    }

    fn leave_as(&mut self, id: UserId) {
        let Some(user) = self.users.get_mut(id.0 as usize) else { return };
        user.allocations -= 1;
        if user.allocations == 0 {
            let user = self.users.remove(id.0 as usize);
            self.by_user.remove(&user.key);
            self.backlog.leave(user.key, user.period);
        }
        if self.users.is_empty() {
            self.users.shrink_to_fit();
            self.by_user.shrink_to_fit();
        }
    }

    /// Sets whether others are waiting behind the next datagrams at their listener.
    pub fn set_backlog(&mut self, is_waiting: bool) {
        self.backlog.is_waiting = is_waiting;
    }

    /// The number of users with an allocation on this worker.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether no user has an allocation on this worker.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Counts a datagram for an allocation with this `meter`, its user and its host. If a limit is exceeded,
    /// counts it for none of them.
    ///
    /// # Errors
    /// The limit that was exceeded.
    pub fn count(
        &mut self,
        now: Instant,
        rates: &Rates,
        meter: &mut Meter,
        payers: Payers,
        counted: Counted,
    ) -> Result<(), DropReason> {
        let Counted { len, queued } = counted;
        let Payers { user, sharer } = payers;
        // Applies to a name that many people may share, too: it is one credential.
        let shares = queued && self.backlog.is_waiting && rates.user.packets != 0;
        if shares {
            self.backlog.follow(now);
            let period = &mut self.users[sharer.0 as usize].period;
            if period.0 != self.backlog.began {
                *period = (self.backlog.began, 0);
            }
            if period.1 >= self.backlog.share(rates.user.packets) {
                return Err(DropReason::Backlog);
            }
        }
        let User { key: (host, account), holder: user, .. } = &mut self.users[user.0 as usize];
        // `join` adds a host with its first user.
        let host = self.hosts.get_mut(usize::from(host.0)).and_then(Option::as_mut);
        let user_rate = match account {
            Account::User(_) => rates.user,
            Account::Name(_) => Rate::default(),
        };
        let after = meter.after(now, rates.allocation, len).ok_or(DropReason::AllocationOverRate)?;
        if !user.covers(now, user_rate, len) {
            return Err(DropReason::UserOverRate);
        }
        if let Some(host) = host {
            if !host.covers(now, rates.host, len) {
                return Err(DropReason::HostOverRate);
            }
            host.spend(len);
        }
        user.spend(len);
        *meter = after;
        if shares {
            self.users[sharer.0 as usize].period.1 += 1;
            self.backlog.relayed += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::settings::Limits;
    use crate::turn::state::quota::Quota;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(10 * NANOS_PER_SECOND + millis * 1_000_000)
    }

    const HOST: HostId = HostId(3);

    /// A datagram that waits in no queue.
    fn stream(len: usize) -> Counted {
        Counted { len, queued: false }
    }

    fn rates() -> Rates {
        Rates {
            allocation: Rate { kbit: 800, packets: 0 },
            user: Rate { kbit: 0, packets: 150 },
            host: Rate { kbit: 0, packets: 200 },
        }
    }

    fn place(quota: &Arc<Quota>, host: HostId, user: &str) -> Place {
        let account = match user {
            "" => Account::Name("1700000000".into()),
            user => Account::User(user.into()),
        };
        quota.take(host, &account, &Limits::default()).expect("no limit")
    }

    /// Users of a confined host are one at the queue, and each has its own rate.
    #[test]
    fn users_that_anybody_can_be_share_one_place() {
        let (quota, mut meters, rates) = (Arc::default(), Meters::default(), of_user(100_000));
        meters.set_backlog(true);
        let users: Vec<_> =
            (0..20).map(|n| meters.join(&place(&quota, HOST, &format!("check-{n}")), true)).collect();
        let passed: usize =
            users.iter().map(|&user| passed_queue(&mut meters, at(0), &rates, user, 1000)).sum();
        assert_eq!(passed, 1000);
        assert_eq!(users.iter().filter(|user| user.sharer == users[0].sharer).count(), 20);
        let pupil = meters.join(&place(&quota, HostId(4), "ann"), false);
        assert_eq!(pupil.sharer, pupil.user);
        assert!(passed_queue(&mut meters, at(1), &rates, pupil, 100) > 0);
        users.into_iter().chain([pupil]).for_each(|user| meters.leave(user));
        assert!(meters.is_empty());
    }

    #[test]
    fn one_seconds_worth_may_come_at_once_and_then_the_rate_applies() {
        let (mut meters, mut meter) = (Meters::default(), Meter::default());
        let user = meters.join(&place(&Arc::default(), HOST, "ann"), false);
        let mut count = |now, len| meters.count(now, &rates(), &mut meter, user, stream(len));
        // 800,000 bits are a hundred datagrams of 1,000 bytes.
        assert!((0..100).all(|_| count(at(0), 1000).is_ok()));
        assert_eq!(count(at(0), 1000), Err(DropReason::AllocationOverRate));
        assert_eq!((0..100).filter(|_| count(at(500), 1000).is_ok()).count(), 50);
        assert_eq!((0..999).filter(|_| count(at(9000), 1).is_ok()).count(), 150, "the user's packets");
        assert_eq!(count(at(9000), 1), Err(DropReason::UserOverRate));
    }

    /// Returns how many of `many` datagrams of a user pass that come through the queue of a listener.
    fn passed_queue(meters: &mut Meters, now: Instant, rates: &Rates, user: Payers, many: usize) -> usize {
        let counted = Counted { len: 9, queued: true };
        (0..many).filter(|_| meters.count(now, rates, &mut Meter::default(), user, counted).is_ok()).count()
    }

    fn of_user(packets: u32) -> Rates {
        Rates { user: Rate { kbit: 0, packets }, ..Rates::default() }
    }

    /// The media of others waits behind what comes at once over UDP.
    #[test]
    fn while_others_wait_a_user_has_a_thousand_datagrams_at_once() {
        for name in ["ann", ""] {
            let mut meters = Meters::default();
            let user = meters.join(&place(&Arc::default(), HOST, name), false);
            assert_eq!(passed_queue(&mut meters, at(0), &of_user(100_000), user, 5000), 5000, "nobody waits");
            meters.set_backlog(true);
            for time in [0, 20, 45] {
                assert_eq!(passed_queue(&mut meters, at(time), &of_user(100_000), user, 5000), 1000);
            }
            assert_eq!(passed_queue(&mut meters, at(46), &of_user(100_000), user, 5000), 0);
            let counted = stream(9);
            let rates = of_user(100_000);
            assert_eq!(meters.count(at(46), &rates, &mut Meter::default(), user, counted), Ok(()));
            let raised = of_user(1_000_000);
            assert_eq!(passed_queue(&mut meters, at(90), &raised, user, 50_000), 10_000, "a raised limit");
            assert_eq!(passed_queue(&mut meters, at(120), &of_user(0), user, 50_000), 50_000, "no limit");
        }
    }

    /// Many names in one hand are not many times the load, and those who send little lose nothing.
    #[test]
    fn while_others_wait_users_share_the_time() {
        let (quota, mut meters) = (Arc::default(), Meters::default());
        let mut join = |name: String| meters.join(&place(&quota, HOST, &name), false);
        let users: Vec<Payers> = (0..100).map(|number| join(format!("pupil{number}"))).collect();
        let [late, quiet] = ["late", "quiet"].map(|name| join(name.to_owned()));
        meters.set_backlog(true);
        let rates = of_user(100_000);
        let mut passed = |now, user, many| passed_queue(&mut meters, at(now), &rates, user, many);
        assert_eq!(passed(0, users[0], 2000), 1000);
        assert_eq!(passed(0, late, 150), 150, "a frame of a camera beside one user that sends all it can");
        let all: usize = users.iter().map(|&user| passed(0, user, 2000)).sum();
        assert_eq!(all, 3 * 250 + 100 + 20 * 50 + 75 * 10, "of the other users");
        assert_eq!(passed(0, quiet, 10), 10);
    }

    /// Users that join, have datagrams relayed, and leave.
    struct Visits {
        quota: Arc<Quota>,
        meters: Meters,
    }

    impl Visits {
        fn new() -> Self {
            let mut meters = Meters::default();
            meters.set_backlog(true);
            Self { quota: Arc::default(), meters }
        }

        /// Returns how many of `many` datagrams of this user are relayed.
        fn relayed(&mut self, millis: u64, name: &str, many: usize) -> usize {
            let user = self.meters.join(&place(&self.quota, HOST, name), false);
            let relayed = passed_queue(&mut self.meters, at(millis), &of_user(100_000), user, many);
            self.meters.leave(user);
            relayed
        }
    }

    /// A user may end its last allocation and make another one within a period.
    #[test]
    fn a_user_that_leaves_and_joins_again_has_its_share_once() {
        let mut visits = Visits::new();
        for millis in [0, 20] {
            let of_ann = [1000, 250, 250].map(|many| visits.relayed(millis, "ann", many));
            assert_eq!(of_ann, [1000, 0, 0], "at {millis} ms");
            assert_eq!(visits.relayed(millis, "bob", 150), 150);
            assert_eq!(visits.relayed(millis, "bob", 150), 100, "the rest of its share");
        }
    }

    #[test]
    fn departed_users_are_remembered_in_bounded_memory_and_the_rest_shares_one_count() {
        let mut visits = Visits::new();
        visits.relayed(0, "quiet", 0);
        assert!(visits.meters.backlog.departed.is_empty(), "one that had nothing relayed needs no memory");
        assert!((0..DEPARTED_MAX).all(|number| visits.relayed(0, &format!("pupil{number}"), 1) == 1));
        assert_eq!(visits.relayed(0, "ann", 200), 200);
        assert_eq!(visits.meters.backlog.departed.len(), DEPARTED_MAX);
        assert_eq!(visits.relayed(0, "ann", 200), 50, "not forgotten");
        assert_eq!(visits.relayed(0, "bob", 1), 0, "a newcomer has the rest of the others");
        assert_eq!(visits.relayed(0, "pupil7", 10), 10, "one that is remembered goes on");
        assert_eq!(visits.relayed(20, "bob", 400), 400, "in the next period");
        assert_eq!(visits.meters.backlog.departed.len(), 1);
    }

    #[test]
    fn allocations_share_the_limit_of_their_user_and_users_that_of_their_host() {
        let (quota, mut meters) = (Arc::default(), Meters::default());
        let [ann, again, bob] =
            ["ann", "ann", "bob"].map(|user| meters.join(&place(&quota, HOST, user), false));
        assert_eq!((ann, meters.len()), (again, 2));
        let mut meter = [Meter::default(); 3];
        let mut count = |n: usize, user| meters.count(at(0), &rates(), &mut meter[n], user, stream(10));
        assert!((0..90).all(|_| count(0, ann).is_ok()));
        assert_eq!((0..90).filter(|_| count(1, ann).is_ok()).count(), 60);
        assert_eq!((0..90).filter(|_| count(2, bob).is_ok()).count(), 50);
        assert_eq!(count(2, bob), Err(DropReason::HostOverRate));
        let other = meters.join(&place(&quota, HostId(4), "ann"), false);
        assert_eq!(meters.count(at(0), &rates(), &mut Meter::default(), other, stream(10)), Ok(()));
        for user in [ann, again, bob, other] {
            meters.leave(user);
        }
        assert!(meters.is_empty() && meters.by_user.is_empty());
    }

    /// Runs three workers that offer far more than the limit, unevenly and in random order. Returns how many datagrams passed.
    fn passed(rates: &Rates, seconds: u64, len: usize) -> u64 {
        let quota = Arc::default();
        let places: Vec<Place> = (0..3).map(|_| place(&quota, HOST, "ann")).collect();
        let mut workers: Vec<_> = places
            .iter()
            .map(|place| {
                let mut meters = Meters::default();
                let user = meters.join(place, false);
                (meters, user, Meter::default())
            })
            .collect();
        let (mut passed, mut random) = (0, 0_u32);
        for micros in (0..seconds * 1_000_000).step_by(20) {
            let now = Instant::from_nanos(NANOS_PER_SECOND + micros * 1000);
            // Two thirds of all datagrams go to the first worker.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (meters, user, meter) = &mut workers[[0, 0, 0, 0, 1, 2][(random >> 16) as usize % 6]];
            passed += u64::from(meters.count(now, rates, meter, *user, stream(len)).is_ok());
        }
        passed
    }

    #[test]
    fn workers_together_have_a_limit_once() {
        let few = Rate { kbit: 0, packets: 10_000 };
        let bits = Rate { kbit: 8_000, packets: 0 };
        // 1,000 bytes are 8,000 bits: 1,000 datagrams a second.
        for (rate, len, per_second) in [(few, 100, 10_000), (bits, 1000, 1000)] {
            for rates in [
                Rates { user: rate, ..Rates::default() },
                Rates { host: rate, ..Rates::default() },
                Rates { user: rate, host: rate, ..Rates::default() },
            ] {
                let all = per_second * (1 + 4);
                let passed = passed(&rates, 4, len);
                let tolerance = 3 * per_second / 100;
                assert!((all - tolerance..=all + tolerance).contains(&passed), "{passed} of {all}");
            }
        }
    }

    #[test]
    fn a_single_worker_gets_the_whole_limit() {
        let rates = Rates { user: Rate { kbit: 0, packets: 1000 }, ..Rates::default() };
        let (mut meters, mut meter) = (Meters::default(), Meter::default());
        let user = meters.join(&place(&Arc::default(), HOST, "ann"), false);
        let mut many = |now| {
            (0..5000).filter(|_| meters.count(now, &rates, &mut meter, user, stream(9)).is_ok()).count()
        };
        assert_eq!([0, 0, 1, 500, 502].map(|millis| many(at(millis))), [1000, 0, 1, 499, 2]);
    }

    #[test]
    fn a_datagram_larger_than_the_burst_is_refused_and_the_next_is_not() {
        let rates = Rates { host: Rate { kbit: 1, packets: 0 }, ..Rates::default() };
        let (mut meters, mut meter) = (Meters::default(), Meter::default());
        let user = meters.join(&place(&Arc::default(), HOST, "ann"), false);
        let mut count = |now, len| meters.count(now, &rates, &mut meter, user, stream(len));
        assert_eq!(count(at(0), 1000), Err(DropReason::HostOverRate));
        assert_eq!(count(at(0), 100), Ok(()), "800 of 1,000 bits");
        assert_eq!(count(at(0), 100), Err(DropReason::HostOverRate));
        assert_eq!(count(at(600), 100), Ok(()));
    }

    #[test]
    fn zero_is_no_limit() {
        let (mut meters, mut meter) = (Meters::default(), Meter::default());
        let user = meters.join(&place(&Arc::default(), HOST, "ann"), false);
        assert!(Rates::default().are_none());
        for _ in 0..100_000 {
            assert_eq!(meters.count(at(0), &Rates::default(), &mut meter, user, stream(65_507)), Ok(()));
        }
    }

    #[test]
    fn names_without_a_user_part_have_no_user_limit() {
        let rates = Rates { user: Rate { kbit: 1, packets: 1 }, ..Rates::default() };
        let (mut meters, mut meter) = (Meters::default(), Meter::default());
        let nobody = meters.join(&place(&Arc::default(), HOST, ""), false);
        assert!((0..100).all(|_| meters.count(at(0), &rates, &mut meter, nobody, stream(1000)).is_ok()));
    }
}
