//! How much may be relayed: bits and packets a second of an allocation, a user and a host, both directions together.
//!
//! What comes too soon is dropped and counted, never queued. The meters belong to one worker, so that no packet touches
//! another core's memory: a user or a host with allocations on several workers has the limit on each of them.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::action::Drop;
use super::settings::HostId;
use super::time::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A limit; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Payload, in 1,000 bits a second.
    pub kbit: u32,
    /// Datagrams a second.
    pub packets: u32,
}

/// The limits of everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of each allocation.
    pub allocation: Rate,
    /// Of each user, by the part of a REST user name after the first colon; none where that is empty.
    pub user: Rate,
    /// Of each named host.
    pub host: Rate,
}

impl Rates {
    /// Whether nothing is limited.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What one holder has used: when all of it would be paid off at his rate, in nanoseconds. A second's worth may come at
/// once, as a picture of a shared screen does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bits_until: u64,
    packets_until: u64,
}

impl Meter {
    /// The meter after one more datagram of `len` bytes; `None` when it comes too soon.
    fn after(self, now: Instant, rate: Rate, len: usize) -> Option<Self> {
        let now = now.as_nanos();
        let paid = |until: u64, units: u64, rate: u64| {
            if rate == 0 {
                return Some(until);
            }
            let until = until.max(now) + units * NANOS_PER_SECOND / rate;
            (until <= now + NANOS_PER_SECOND).then_some(until)
        };
        // A datagram is below 2^16 bytes: the product is below 2^50.
        Some(Self {
            bits_until: paid(self.bits_until, len as u64 * 8, u64::from(rate.kbit) * 1000)?,
            packets_until: paid(self.packets_until, 1, u64::from(rate.packets))?,
        })
    }
}

/// Names a user's meter within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserId(u32);

#[derive(Debug)]
struct User {
    key: (HostId, Arc<str>),
    meter: Meter,
    /// How many allocations he has here.
    allocations: u32,
}

/// The meters of users and hosts on one worker; those of allocations stand with them.
#[derive(Debug, Default)]
pub struct Meters {
    users: Slab<User>,
    by_user: HashMap<(HostId, Arc<str>), UserId>,
    hosts: Vec<Meter>,
}

impl Meters {
    /// One more allocation of this user.
    pub fn join(&mut self, host: HostId, user: &Arc<str>) -> UserId {
        let key = (host, Arc::clone(user));
        let id = match self.by_user.get(&key) {
            Some(&id) => id,
            None => {
                let entry = User { key: key.clone(), meter: Meter::default(), allocations: 0 };
                let id = UserId(self.users.insert(entry) as u32);
                self.by_user.insert(key, id);
                id
            }
        };
        self.users[id.0 as usize].allocations += 1;
        id
    }

    /// One less. After his last one nobody is remembered.
    pub fn leave(&mut self, id: UserId) {
        let Some(user) = self.users.get_mut(id.0 as usize) else { return };
        user.allocations -= 1;
        if user.allocations == 0 {
            let user = self.users.remove(id.0 as usize);
            self.by_user.remove(&user.key);
        }
        if self.users.is_empty() {
            self.users.shrink_to_fit();
            self.by_user.shrink_to_fit();
        }
    }

    /// Users with an allocation here.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody has an allocation here.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Counts a datagram of `len` bytes for an allocation with this `meter`, its user and its host; for none of them
    /// when one has had too much.
    ///
    /// # Errors
    /// Who has.
    pub fn count(
        &mut self,
        now: Instant,
        rates: &Rates,
        meter: &mut Meter,
        (host, user): (HostId, UserId),
        len: usize,
    ) -> Result<(), Drop> {
        let host = usize::from(host.0);
        if host >= self.hosts.len() {
            self.hosts.resize_with(host + 1, Meter::default);
        }
        let user = &mut self.users[user.0 as usize];
        // Whoever names no user is not known to be one.
        let user_rate = if user.key.1.is_empty() { Rate::default() } else { rates.user };
        let allocation_after = meter.after(now, rates.allocation, len).ok_or(Drop::AllocationOverRate)?;
        let user_after = user.meter.after(now, user_rate, len).ok_or(Drop::UserOverRate)?;
        let host_after = self.hosts[host].after(now, rates.host, len).ok_or(Drop::HostOverRate)?;
        (*meter, user.meter, self.hosts[host]) = (allocation_after, user_after, host_after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(10 * NANOS_PER_SECOND + millis * 1_000_000)
    }

    const HOST: HostId = HostId(3);

    fn rates() -> Rates {
        Rates {
            allocation: Rate { kbit: 800, packets: 0 },
            user: Rate { kbit: 0, packets: 150 },
            host: Rate { kbit: 0, packets: 200 },
        }
    }

    #[test]
    fn each_has_a_second_at_once_and_then_his_rate() {
        let mut meters = Meters::default();
        let (user, mut meter) = (meters.join(HOST, &"ann".into()), Meter::default());
        let mut count = |now, len| meters.count(now, &rates(), &mut meter, (HOST, user), len);
        // 800,000 bits are a hundred datagrams of 1,000 bytes.
        assert!((0..100).all(|_| count(at(0), 1000).is_ok()));
        assert_eq!(count(at(0), 1000), Err(Drop::AllocationOverRate));
        assert_eq!((0..100).filter(|_| count(at(500), 1000).is_ok()).count(), 50);
        assert_eq!((0..999).filter(|_| count(at(9000), 1).is_ok()).count(), 150, "the user's packets");
        assert_eq!(count(at(9000), 1), Err(Drop::UserOverRate));
    }

    #[test]
    fn users_share_their_allocations_limit_and_a_host_that_of_its_users() {
        let mut meters = Meters::default();
        let [ann, again, bob] = ["ann", "ann", "bob"].map(|user| meters.join(HOST, &user.into()));
        assert_eq!((ann, meters.len()), (again, 2));
        let mut meter = [Meter::default(); 3];
        let mut count = |n: usize, user| meters.count(at(0), &rates(), &mut meter[n], (HOST, user), 10);
        assert!((0..90).all(|_| count(0, ann).is_ok()));
        assert_eq!((0..90).filter(|_| count(1, ann).is_ok()).count(), 60);
        assert_eq!((0..90).filter(|_| count(2, bob).is_ok()).count(), 50);
        assert_eq!(count(2, bob), Err(Drop::HostOverRate));
        let other = meters.join(HostId(4), &"ann".into());
        assert_eq!(meters.count(at(0), &rates(), &mut Meter::default(), (HostId(4), other), 10), Ok(()));
        for user in [ann, again, bob, other] {
            meters.leave(user);
        }
        assert!(meters.is_empty() && meters.by_user.is_empty());
    }

    #[test]
    fn nothing_is_limited_by_zero() {
        let mut meters = Meters::default();
        let (user, mut meter) = (meters.join(HOST, &"ann".into()), Meter::default());
        assert!(Rates::default().are_none());
        for _ in 0..100_000 {
            assert_eq!(meters.count(at(0), &Rates::default(), &mut meter, (HOST, user), 65_507), Ok(()));
        }
    }
}
