//! How many allocations there are, by user, by host and in all, across every worker (RFC 8656 section 7.2, steps 8
//! and 10). Everybody is counted whether there is a limit or not, so that a limit that comes by a reload is exact at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dashmap::DashMap;

use super::counters::HOSTS_MAX;
use super::error::Code;
use super::settings::{HostId, Limits};

/// Room for users that stays when all are gone.
const USERS_KEPT: usize = 4096;

type UserKey = (HostId, Arc<str>);

/// Shared by all workers; touched when an allocation is made and when it ends.
#[derive(Debug)]
pub struct Quota {
    total: AtomicU32,
    hosts: Box<[AtomicU32]>,
    users: DashMap<UserKey, u32>,
}

impl Default for Quota {
    fn default() -> Self {
        let hosts = (0..HOSTS_MAX).map(|_| AtomicU32::new(0)).collect();
        Self { total: AtomicU32::new(0), hosts, users: DashMap::new() }
    }
}

/// One allocation's place. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    quota: Arc<Quota>,
    host: Option<HostId>,
    user: Option<Arc<str>>,
}

/// One more, unless there are `limit`; 0 = no limit.
fn count(number: &AtomicU32, limit: u32) -> bool {
    number.fetch_update(Relaxed, Relaxed, |n| (limit == 0 || n < limit).then(|| n + 1)).is_ok()
}

impl Quota {
    /// Takes a place for one more allocation of this user (the part of a REST user name after the first colon). Where
    /// that part is empty, as in names that are a time stamp alone, it is not known who is whose second, and the limit of
    /// a user is not applied.
    ///
    /// # Errors
    /// 508 when the server is full or the host has its share, 486 when the user has his.
    pub fn take(self: &Arc<Self>, host: HostId, user: &Arc<str>, limits: &Limits) -> Result<Place, Code> {
        if !count(&self.total, limits.allocations_total) {
            return Err(Code::InsufficientCapacity);
        }
        // What is counted by now is given back when the place is dropped.
        let mut place = Place { quota: Arc::clone(self), host: None, user: None };
        if !count(self.of(host), limits.allocations_per_host) {
            return Err(Code::InsufficientCapacity);
        }
        place.host = Some(host);
        let mut held = self.users.entry((host, Arc::clone(user))).or_insert(0);
        if limits.allocations_per_user > 0 && !user.is_empty() && *held >= limits.allocations_per_user {
            return Err(Code::AllocationQuotaReached);
        }
        *held += 1;
        place.user = Some(Arc::clone(user));
        Ok(place)
    }

    fn of(&self, host: HostId) -> &AtomicU32 {
        // HostId is made below HOSTS_MAX only.
        &self.hosts[usize::from(host.0).min(HOSTS_MAX - 1)]
    }

    /// Allocations alive.
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Users who hold at least one.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let last = self.quota.total.fetch_sub(1, Relaxed) == 1;
        if let Some(host) = self.host {
            self.quota.of(host).fetch_sub(1, Relaxed);
            if let Some(user) = self.user.take() {
                self.quota.users.remove_if_mut(&(host, user), |_, held| {
                    *held = held.saturating_sub(1);
                    *held == 0
                });
            }
        }
        // After a rush of users, memory goes back once nobody is left.
        if last && self.quota.users.capacity() > USERS_KEPT {
            self.quota.users.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_exact_and_come_back() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 2, allocations_total: 3, ..Limits::default() };
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let first = quota.take(HostId(0), &alice, &limits).expect("free");
        let _second = quota.take(HostId(0), &alice, &limits).expect("free");
        assert_eq!(quota.take(HostId(0), &alice, &limits).expect_err("full"), Code::AllocationQuotaReached);
        assert_eq!(quota.total(), 2, "a refusal holds nothing");
        let _other_host = quota.take(HostId(1), &alice, &limits).expect("another host's alice");
        assert_eq!(quota.take(HostId(0), &bob, &limits).expect_err("full"), Code::InsufficientCapacity);
        drop(first);
        let _bob = quota.take(HostId(0), &bob, &limits).expect("a place came back");
    }

    #[test]
    fn a_host_has_its_share_whoever_its_users_are() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_host: 2, allocations_per_user: 2, ..Limits::default() };
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let first = quota.take(HostId(3), &alice, &limits).expect("free");
        let _second = quota.take(HostId(3), &bob, &limits).expect("free");
        assert_eq!(quota.take(HostId(3), &bob, &limits).expect_err("full"), Code::InsufficientCapacity);
        let _other = quota.take(HostId(4), &bob, &limits).expect("another host");
        assert_eq!((quota.total(), quota.users()), (3, 3), "a refusal holds nothing");
        drop(first);
        let _bob = quota.take(HostId(3), &bob, &limits).expect("a place came back");
        assert_eq!(quota.take(HostId(3), &alice, &limits).expect_err("full"), Code::InsufficientCapacity);
        assert_eq!((quota.total(), quota.users()), (3, 2));
    }

    #[test]
    fn names_without_a_user_are_counted_and_not_limited_as_one() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 1, allocations_per_host: 3, ..Limits::default() };
        let nobody: Arc<str> = "".into();
        let _held = [(); 3].map(|()| quota.take(HostId(0), &nobody, &limits).expect("no limit of a user"));
        assert_eq!(quota.take(HostId(0), &nobody, &limits).expect_err("full"), Code::InsufficientCapacity);
        assert_eq!((quota.total(), quota.users()), (3, 1));
    }

    #[test]
    fn a_limit_that_comes_later_knows_who_is_there() {
        let quota = Arc::new(Quota::default());
        let alice: Arc<str> = "alice".into();
        let _held = [(); 2].map(|()| quota.take(HostId(0), &alice, &Limits::default()).expect("no limit"));
        let limits = Limits { allocations_per_user: 2, ..Limits::default() };
        assert_eq!(quota.take(HostId(0), &alice, &limits).expect_err("full"), Code::AllocationQuotaReached);
    }

    #[test]
    fn nobody_is_remembered_after_the_last_place() {
        let quota = Arc::new(Quota::default());
        let limits = Limits { allocations_per_user: 1, ..Limits::default() };
        for n in 0..100 {
            let user: Arc<str> = n.to_string().into();
            drop(quota.take(HostId(0), &user, &limits).expect("free"));
        }
        assert_eq!((quota.total(), quota.users.len()), (0, 0));
    }
}
