//! How many allocations there are, by user and in all, across every worker (RFC 8656 section 7.2, steps 8 and 10).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dashmap::DashMap;

use super::error::Code;
use super::settings::{HostId, Limits};

/// Room for users that stays when all are gone.
const USERS_KEPT: usize = 4096;

type UserKey = (HostId, Arc<str>);

/// Shared by all workers; touched when an allocation is made and when it ends.
#[derive(Debug, Default)]
pub struct Quota {
    total: AtomicU32,
    users: DashMap<UserKey, u32>,
}

/// One allocation's place. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    quota: Arc<Quota>,
    user: Option<UserKey>,
}

impl Quota {
    /// Takes a place for one more allocation of this user (the part of a REST user name after the first colon).
    ///
    /// # Errors
    /// 508 when the server is full, 486 when the user has his share.
    pub fn take(self: &Arc<Self>, host: HostId, user: &Arc<str>, limits: &Limits) -> Result<Place, Code> {
        let total = limits.allocations_total;
        let counted = self.total.fetch_update(Relaxed, Relaxed, |n| (total == 0 || n < total).then(|| n + 1));
        if counted.is_err() {
            return Err(Code::InsufficientCapacity);
        }
        let mut place = Place { quota: Arc::clone(self), user: None };
        if limits.allocations_per_user > 0 {
            let key = (host, Arc::clone(user));
            let mut held = self.users.entry(key.clone()).or_insert(0);
            if *held >= limits.allocations_per_user {
                // Dropping the place gives back the total.
                return Err(Code::AllocationQuotaReached);
            }
            *held += 1;
            place.user = Some(key);
        }
        Ok(place)
    }

    /// Allocations alive.
    pub fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let last = self.quota.total.fetch_sub(1, Relaxed) == 1;
        if let Some(key) = self.user.take() {
            self.quota.users.remove_if_mut(&key, |_, held| {
                *held = held.saturating_sub(1);
                *held == 0
            });
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
