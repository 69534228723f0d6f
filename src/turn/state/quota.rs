//! Quotas: the number of allocations by user, by host and in all, across all workers (RFC 8656 section 7.2, steps 8
//! and 10). Allocations are counted even without a limit, so that a limit set by a reload is exact at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;

use super::budget::Budget;
use crate::base::host::{HOSTS_MAX, HostId};
use crate::base::lock::lock;
use crate::turn::identity::account::Account;
use crate::turn::identity::refusal::Reason;
use crate::turn::settings::Limits;

/// Capacity for users kept after the last one is gone.
const USERS_KEPT: usize = 4096;
/// Users kept after their last allocation has ended. Otherwise one that ends and makes its allocation again and again would have
/// a full budget each time.
const RESTING: usize = 1024;

type UserKey = (HostId, Account);

/// The quotas, shared by all workers. Workers change the counts only when an allocation is made or ends; in between they draw
/// from the budgets.
#[derive(Debug)]
pub struct Quota {
    total: AtomicU32,
    hosts: Box<[Host]>,
    users: DashMap<UserKey, User>,
    /// The number of users with at least one place.
    active: AtomicUsize,
    /// Users that lost their last place, in this order. Some have one again.
    resting: Mutex<VecDeque<UserKey>>,
}

#[derive(Debug, Default)]
struct Host {
    held: AtomicU32,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct User {
    held: u32,
    /// Whether it is listed in `resting`.
    is_listed: bool,
    budget: Arc<Budget>,
}

impl Default for Quota {
    fn default() -> Self {
        let hosts = (0..HOSTS_MAX).map(|_| Host::default()).collect();
        Self {
            total: AtomicU32::new(0),
            hosts,
            users: DashMap::new(),
            active: AtomicUsize::new(0),
            resting: Mutex::default(),
        }
    }
}

/// One allocation's place in the quota, released when dropped.
#[derive(Debug)]
pub struct Place {
    quota: Arc<Quota>,
    host: HostId,
    account: Account,
    budget: Arc<Budget>,
    /// Places that the account held when it took this one, including this one.
    held: u32,
    /// Permissions and channels of this allocation.
    entries: u32,
}

/// Counts one more unless `limit` is reached; 0 means no limit.
fn count(number: &AtomicU32, limit: u32) -> bool {
    number.fetch_update(Relaxed, Relaxed, |n| (limit == 0 || n < limit).then(|| n + 1)).is_ok()
}

impl Quota {
    /// Takes a place for one more allocation of this account. `allocations_per_user` does not apply to a name without a
    /// user part: many people may share it.
    ///
    /// # Errors
    /// 508 if the limit of the server or of the host is reached, 486 if the user's is.
    pub fn take(self: &Arc<Self>, host: HostId, account: &Account, limits: &Limits) -> Result<Place, Reason> {
        if !count(&self.total, limits.allocations_total) {
            return Err(Reason::TotalAllocations { limit: limits.allocations_total });
        }
        if !count(&self.of(host).held, limits.allocations_per_host) {
            self.total.fetch_sub(1, Relaxed);
            return Err(Reason::HostAllocations { limit: limits.allocations_per_host });
        }
        let mut entry = self.users.entry((host, account.clone())).or_default();
        let limit = match account {
            Account::User(_) => limits.allocations_per_user,
            Account::Name(_) => 0,
        };
        if limit > 0 && entry.held >= limit {
            self.of(host).held.fetch_sub(1, Relaxed);
            self.total.fetch_sub(1, Relaxed);
            return Err(Reason::UserAllocations { limit });
        }
        if entry.held == 0 {
            self.active.fetch_add(1, Relaxed);
        }
        entry.held += 1;
        let (budget, held) = (Arc::clone(&entry.budget), entry.held);
        Ok(Place { quota: Arc::clone(self), host, account: account.clone(), budget, held, entries: 0 })
    }

    fn of(&self, host: HostId) -> &Host {
        // A HostId is always below HOSTS_MAX.
        &self.hosts[usize::from(host.0).min(HOSTS_MAX - 1)]
    }

    /// The number of allocations.
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Whether this account has an allocation or a reserved port, on any worker.
    pub fn holds(&self, host: HostId, account: &Account) -> bool {
        self.users.get(&(host, account.clone())).is_some_and(|user| user.held > 0)
    }

    /// The number of users with at least one allocation.
    pub fn users(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Lists a user that has lost its last place. If too many are listed, forgets the one that was listed first, unless it has
    /// a place again.
    fn rest(&self, user: UserKey) {
        let mut resting = lock(&self.resting);
        resting.push_back(user);
        let first = if resting.len() > RESTING { resting.pop_front() } else { None };
        drop(resting);
        if let Some(first) = first {
            self.users.remove_if_mut(&first, |_, user| {
                user.is_listed = false;
                user.held == 0
            });
        }
    }
}

impl Place {
    /// Whether this account holds the place.
    pub fn is_of(&self, host: HostId, account: &Account) -> bool {
        self.host == host && self.account == *account
    }

    /// Places that the account held when it took this one, including this one.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Permissions and channels of all of the account's allocations.
    pub fn entries(&self) -> u32 {
        self.budget.entries.load(Relaxed)
    }

    /// Counts one more permission or channel of this allocation.
    pub fn add_entry(&mut self) {
        self.entries += 1;
        self.budget.entries.fetch_add(1, Relaxed);
    }

    /// Counts `gone` permissions and channels fewer.
    pub fn remove_entries(&mut self, gone: usize) {
        // `entries` counts them and has 32 bits, so `gone` fits.
        self.entries -= gone as u32;
        self.budget.entries.fetch_sub(gone as u32, Relaxed);
    }

    /// The host of the account.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The account that holds the place.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The user's budget, shared by all workers.
    pub fn user_budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The host's budget, shared by all workers.
    pub fn host_budget(&self) -> &Arc<Budget> {
        &self.quota.of(self.host).budget
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { quota, host, account, budget, entries, .. } = self;
        budget.entries.fetch_sub(*entries, Relaxed);
        quota.of(*host).held.fetch_sub(1, Relaxed);
        let key = (*host, account.clone());
        // The lock of the entry is released before `rest` takes another.
        let rests = quota.users.get_mut(&key).is_some_and(|mut user| {
            user.held = user.held.saturating_sub(1);
            if user.held == 0 {
                quota.active.fetch_sub(1, Relaxed);
            }
            user.held == 0 && !std::mem::replace(&mut user.is_listed, true)
        });
        if rests {
            quota.rest(key);
        }
        let last = quota.total.fetch_sub(1, Relaxed) == 1;
        // Returns the memory of a burst once its last user is gone.
        if last && quota.users.capacity() > USERS_KEPT {
            quota.users.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::error::Code;

    fn user(name: &str) -> Account {
        Account::User(name.into())
    }

    #[test]
    fn places_are_exact_and_are_released() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 2, allocations_total: 3, ..Limits::default() };
        let (alice, bob) = (user("alice"), user("bob"));
        let first = quota.take(HostId(0), &alice, &limits).expect("free");
        let _second = quota.take(HostId(0), &alice, &limits).expect("free");
        assert_eq!(
            quota.take(HostId(0), &alice, &limits).expect_err("full").code(),
            Some(Code::AllocationQuotaReached)
        );
        assert_eq!(quota.total(), 2, "a refusal holds nothing");
        let _other_host = quota.take(HostId(1), &alice, &limits).expect("another host's alice");
        assert_eq!(
            quota.take(HostId(0), &bob, &limits).expect_err("full").code(),
            Some(Code::InsufficientCapacity)
        );
        drop(first);
        let _bob = quota.take(HostId(0), &bob, &limits).expect("a place was released");
    }

    #[test]
    fn the_limit_of_a_host_applies_to_all_its_users_together() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_host: 2, allocations_per_user: 2, ..Limits::default() };
        let (alice, bob) = (user("alice"), user("bob"));
        let first = quota.take(HostId(3), &alice, &limits).expect("free");
        let _second = quota.take(HostId(3), &bob, &limits).expect("free");
        assert_eq!(
            quota.take(HostId(3), &bob, &limits).expect_err("full").code(),
            Some(Code::InsufficientCapacity)
        );
        let _other = quota.take(HostId(4), &bob, &limits).expect("another host");
        assert_eq!((quota.total(), quota.users()), (3, 3), "a refusal holds nothing");
        drop(first);
        let _bob = quota.take(HostId(3), &bob, &limits).expect("a place was released");
        assert_eq!(
            quota.take(HostId(3), &alice, &limits).expect_err("full").code(),
            Some(Code::InsufficientCapacity)
        );
        assert_eq!((quota.total(), quota.users()), (3, 2));
    }

    #[test]
    fn names_without_a_user_part_are_counted_and_have_no_user_limit() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 1, allocations_per_host: 3, ..Limits::default() };
        let nobody = Account::Name("1700000000".into());
        let _held = [(); 3].map(|()| quota.take(HostId(0), &nobody, &limits).expect("no limit of a user"));
        assert_eq!(
            quota.take(HostId(0), &nobody, &limits).expect_err("full").code(),
            Some(Code::InsufficientCapacity)
        );
        assert_eq!((quota.total(), quota.users()), (3, 1));
    }

    #[test]
    fn a_limit_set_later_counts_existing_allocations() {
        let quota = Arc::new(Quota::default());
        let alice = user("alice");
        let _held = [(); 2].map(|()| quota.take(HostId(0), &alice, &Limits::default()).expect("no limit"));
        let limits = Limits { allocations_per_user: 2, ..Limits::default() };
        assert_eq!(
            quota.take(HostId(0), &alice, &limits).expect_err("full").code(),
            Some(Code::AllocationQuotaReached)
        );
    }

    #[test]
    fn a_user_is_forgotten_with_its_last_place() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 1, ..Limits::default() };
        for n in 0..100 {
            drop(quota.take(HostId(0), &user(&n.to_string()), &limits).expect("free"));
        }
        assert_eq!((quota.total(), quota.users()), (0, 0));
    }

    /// A user that ends and makes its allocation again has the same budget.
    #[test]
    fn a_budget_outlives_the_last_allocation_of_its_user() {
        let quota = Arc::new(Quota::default());
        let take = |name: &str| quota.take(HostId(0), &user(name), &Limits::default()).expect("free");
        let first = take("alice");
        let budget = Arc::clone(first.user_budget());
        drop(first);
        for _ in 0..3 {
            assert!(Arc::ptr_eq(take("alice").user_budget(), &budget), "also if it does so again and again");
        }
        // Of those without an allocation, the last ones are kept.
        let held = take("held");
        let budget_of_held = Arc::clone(held.user_budget());
        (0..2 * RESTING).for_each(|number| drop(take(&number.to_string())));
        assert_eq!((quota.users(), quota.total(), quota.users.len()), (1, 1, RESTING + 1));
        assert!(!Arc::ptr_eq(take("alice").user_budget(), &budget));
        assert!(Arc::ptr_eq(take("held").user_budget(), &budget_of_held));
    }
}
