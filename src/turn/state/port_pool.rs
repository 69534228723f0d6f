//! The pool of relay ports, across all workers, and the reservations of EVEN-PORT (RFC 8656 section 7.2).
//!
//! Two bitmaps per relay address: the ports that are taken, and those of them whose relay socket is open. A port is
//! taken before its socket is bound and while it is reserved; another program may hold it then, so only an open port
//! counts as a live relayed address. Claims are one atomic operation, so no worker waits for another; checking whether a
//! port is open is a plain load.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dashmap::DashMap;

use super::quota::Place;
use crate::base::host::HostId;
use crate::base::lock::lock;
use crate::base::time::Instant;
use crate::turn::address::OnWire;
use crate::turn::identity::account::Account;

/// RFC 8656 section 7.2: a reservation is held for at least 30 seconds.
pub const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);
/// Limit of reservations; each needs an authenticated allocation.
const RESERVATIONS_MAX: usize = 4096;
/// Limit of reservations of one account. A user usually reaches its quota first; a name without a user part has none, so
/// without this limit one credential could hold all reservations.
const RESERVATIONS_OF_ACCOUNT: u32 = 256;

/// While ports are scarce, a user gets one only if it holds at most one part in this many of an address's ports: 128 of the
/// usual 16,384. That is more than a browser needs in a lesson with a dozen peer connections, and 32 such users fit into the
/// last quarter.
const SHARE: u32 = 128;
/// The least number of ports that such a user may hold, for small pools: a browser holds up to ten for a peer connection.
const SHARE_MIN: u32 = 16;

const WORDS: usize = 65_536 / 64;
const EVEN: u64 = 0x5555_5555_5555_5555;

/// The kind of port that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any port.
    Any,
    /// EVEN-PORT with R = 0.
    Even,
    /// EVEN-PORT with R = 1: an even port, with the next one reserved.
    Pair,
}

/// RESERVATION-TOKEN.
pub type Token = [u8; 8];

/// The ports of one local address, for all workers.
#[derive(Debug)]
struct Ports {
    address: IpAddr,
    taken: Box<[AtomicU64]>,
    open: Box<[AtomicU64]>,
    /// The number of taken ports.
    held: AtomicU32,
}

#[derive(Debug)]
struct Reservation {
    ports: Arc<Ports>,
    port: u16,
    until: Instant,
    /// The reserved port's place in the quota of its user.
    place: Place,
}

/// What the workers share: the ports of each address that any of them relays from, and the reservations.
#[derive(Debug, Default)]
pub struct PortPool {
    /// Weak, so that an address that no worker relays from any more is forgotten.
    ports: Mutex<Vec<Weak<Ports>>>,
    reservations: Mutex<Reservations>,
    /// The users of open ports that only their own user may have as peers.
    confined: DashMap<OnWire, (HostId, Account)>,
    /// Whether there ever was one: ports are released without a look at an empty map.
    has_confined: AtomicBool,
}

#[derive(Debug, Default)]
struct Reservations {
    by_token: HashMap<Token, Reservation>,
    by_account: HashMap<(HostId, Account), u32>,
}

impl Reservations {
    /// Whether this account may have one more.
    fn have_room_for(&self, place: &Place) -> bool {
        let held = self.by_account.get(&owner(place)).copied().unwrap_or(0);
        self.by_token.len() < RESERVATIONS_MAX && held < RESERVATIONS_OF_ACCOUNT
    }

    fn insert(&mut self, token: Token, reservation: Reservation) {
        *self.by_account.entry(owner(&reservation.place)).or_insert(0) += 1;
        self.by_token.insert(token, reservation);
    }

    fn remove(&mut self, token: &Token) -> Option<Reservation> {
        let reservation = self.by_token.remove(token)?;
        let owner = owner(&reservation.place);
        if let Some(held) = self.by_account.get_mut(&owner) {
            *held -= 1;
            if *held == 0 {
                self.by_account.remove(&owner);
            }
        }
        Some(reservation)
    }
}

fn owner(place: &Place) -> (HostId, Account) {
    (place.host(), place.account().clone())
}

/// The relay addresses of one worker, with the ports it may claim on each. Built from the worker's settings and replaced
/// together with them.
#[derive(Debug)]
pub struct RelayPorts {
    pool: Arc<PortPool>,
    range: RangeInclusive<u16>,
    ports: Vec<Arc<Ports>>,
}

impl PortPool {
    /// Returns the ports of `range` on every one of `addresses`. Ports that other workers hold there are taken.
    pub fn on(
        self: &Arc<Self>,
        addresses: impl IntoIterator<Item = IpAddr>,
        range: RangeInclusive<u16>,
    ) -> RelayPorts {
        let mut known = lock(&self.ports);
        known.retain(|ports| ports.strong_count() > 0);
        let mut ports: Vec<Arc<Ports>> = Vec::new();
        for address in addresses {
            if ports.iter().any(|one| one.address == address) {
                continue;
            }
            let shared = known.iter().filter_map(Weak::upgrade).find(|one| one.address == address);
            ports.push(shared.unwrap_or_else(|| {
                let new = Arc::new(Ports::new(address));
                known.push(Arc::downgrade(&new));
                new
            }));
        }
        RelayPorts { pool: Arc::clone(self), range, ports }
    }

    /// The number of reservations.
    pub fn reserved(&self) -> usize {
        lock(&self.reservations).by_token.len()
    }

    /// The number of ports taken, reserved ones included.
    pub fn taken(&self) -> usize {
        let known = lock(&self.ports);
        known.iter().filter_map(Weak::upgrade).map(|ports| ports.held.load(Relaxed) as usize).sum()
    }

    /// The number of addresses that are relayed from.
    pub fn addresses(&self) -> usize {
        lock(&self.ports).iter().filter(|ports| ports.strong_count() > 0).count()
    }

    /// Whether this port is claimed or reserved. It may have no socket yet.
    pub fn is_taken(&self, address: OnWire) -> bool {
        let known = lock(&self.ports);
        let mut known = known.iter().filter_map(Weak::upgrade);
        known.any(|ports| ports.address == address.ip() && is_set(&ports.taken, address.port()))
    }
}

impl RelayPorts {
    /// Claims a port of this kind, searching from a `random` position. Returns the even port of a pair.
    pub fn claim(&self, address: IpAddr, want: Want, random: u32) -> Option<u16> {
        let ports = self.of(address)?;
        let (low, high) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let start = low + random % (high - low + 1);
        // Visits the words of the range in a circle, starting with the upper bits of one word and ending with all its bits.
        let (first, last) = (low / 64, high / 64);
        let count = last - first + 1;
        for step in 0..=count {
            let word = first + (start / 64 - first + step) % count;
            let mut candidates = bits_between(word, low, high);
            if step == 0 {
                candidates &= u64::MAX << (start % 64);
            }
            if let Some(port) = ports.claim_in(word, candidates, want) {
                return Some(port);
            }
        }
        None
    }

    /// Whether a user that holds `held` ports may have one more of this address. The last quarter of the ports is for users
    /// that hold few.
    pub fn has_room_for(&self, address: IpAddr, held: u32) -> bool {
        let size = u32::from(*self.range.end()) - u32::from(*self.range.start()) + 1;
        held <= (size / SHARE).max(SHARE_MIN)
            || self.of(address).is_none_or(|ports| ports.held.load(Relaxed) < size - size / 4)
    }

    /// Releases a port.
    pub fn release(&self, address: OnWire) {
        if let Some(ports) = self.of(address.ip()) {
            if self.pool.has_confined.load(Relaxed) {
                self.pool.confined.remove(&address);
            }
            ports.clear(address.port());
        }
    }

    /// Notes that only the user who holds `place` may have this claimed port as a peer. Ends when the port is released.
    pub fn confine(&self, address: OnWire, place: &Place) {
        self.pool.has_confined.store(true, Relaxed);
        self.pool.confined.insert(address, owner(place));
    }

    /// Whether this is a live relayed address of the confined user who holds `place`.
    pub fn is_confined_to(&self, address: OnWire, place: &Place) -> bool {
        let found = self.pool.confined.get(&address);
        found.is_some_and(|found| place.is_of(found.0, &found.1)) && self.is_open(address)
    }

    /// Notes that the relay socket of a claimed port is open.
    pub fn mark_open(&self, address: OnWire) {
        if let Some(ports) = self.of(address.ip()) {
            let (word, bit) = position(address.port());
            ports.open[word].fetch_or(bit, Relaxed);
        }
    }

    /// Whether this is the relayed address of a live allocation: its socket is open.
    pub fn is_open(&self, address: OnWire) -> bool {
        self.of(address.ip()).is_some_and(|ports| is_set(&ports.open, address.port()))
    }

    /// Reserves a claimed port under `token` for 30 seconds from `now`, and returns when the reservation ends. `place` is the
    /// port's place in its user's quota. With too many reservations, releases the port and returns `None`.
    pub fn reserve(&self, now: Instant, token: Token, address: OnWire, place: Place) -> Option<Instant> {
        let until = now + RESERVATION_LIFETIME;
        let ports = Arc::clone(self.of(address.ip())?);
        let mut reservations = lock(&self.pool.reservations);
        if !reservations.have_room_for(&place) {
            drop(reservations);
            self.release(address);
            return None;
        }
        reservations.insert(token, Reservation { ports, port: address.port(), until, place });
        Some(until)
    }

    /// Ends a reservation and returns its address and place, which now belong to the caller. `None` if there is no such
    /// reservation, it has expired, or the worker no longer relays from that address.
    pub fn redeem(&self, now: Instant, token: &Token) -> Option<(OnWire, Place)> {
        let mut reservations = lock(&self.pool.reservations);
        let reservation = reservations.by_token.get(token)?;
        if reservation.until <= now || self.of(reservation.ports.address).is_none() {
            return None;
        }
        let Reservation { ports, port, place, .. } = reservations.remove(token)?;
        Some((OnWire::new(ports.address, port), place))
    }

    /// Releases the port of an expired reservation.
    pub fn expire(&self, now: Instant, token: &Token) {
        let mut reservations = lock(&self.pool.reservations);
        if reservations.by_token.get(token).is_some_and(|reservation| reservation.until <= now)
            && let Some(reservation) = reservations.remove(token)
        {
            drop(reservations);
            reservation.ports.clear(reservation.port);
        }
    }

    /// Releases the port of a reservation before it expires.
    pub fn cancel(&self, token: &Token) {
        let reservation = lock(&self.pool.reservations).remove(token);
        if let Some(reservation) = reservation {
            reservation.ports.clear(reservation.port);
        }
    }

    /// Whether this reservation exists.
    pub fn is_reserved(&self, token: &Token) -> bool {
        lock(&self.pool.reservations).by_token.contains_key(token)
    }

    /// The number of reservations of all workers.
    pub fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    /// Whether this is one of the addresses to relay from.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.of(address).is_some()
    }

    fn of(&self, address: IpAddr) -> Option<&Arc<Ports>> {
        self.ports.iter().find(|ports| ports.address == address)
    }
}

impl Ports {
    /// The ports of an address, all free.
    fn new(address: IpAddr) -> Self {
        let bitmap = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { address, taken: bitmap(), open: bitmap(), held: AtomicU32::new(0) }
    }

    fn claim_in(&self, word: u32, candidates: u64, want: Want) -> Option<u16> {
        let cell = &self.taken[word as usize];
        let mut taken = cell.load(Relaxed);
        loop {
            let free = candidates & !taken;
            let fitting = match want {
                Want::Any => free,
                Want::Even => free & EVEN,
                // 64 is even, so a pair never spans two words.
                Want::Pair => free & (free >> 1) & EVEN,
            };
            if fitting == 0 {
                return None;
            }
            let bit = fitting.trailing_zeros();
            let mask = if want == Want::Pair { 3 << bit } else { 1 << bit };
            match cell.compare_exchange_weak(taken, taken | mask, Acquire, Relaxed) {
                Ok(_) => {
                    self.held.fetch_add(mask.count_ones(), Relaxed);
                    return Some((word * 64 + bit) as u16);
                }
                Err(changed) => taken = changed,
            }
        }
    }

    fn clear(&self, port: u16) {
        let (word, bit) = position(port);
        // `open` first: once `taken` is clear, another worker may claim the port, and must not lose its own `open` bit.
        self.open[word].fetch_and(!bit, Relaxed);
        if self.taken[word].fetch_and(!bit, Release) & bit != 0 {
            self.held.fetch_sub(1, Relaxed);
        }
    }
}

/// The word of a port's bit, and the bit.
fn position(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

fn is_set(bitmap: &[AtomicU64], port: u16) -> bool {
    let (word, bit) = position(port);
    bitmap[word].load(Relaxed) & bit != 0
}

/// The bits of `word` whose ports lie in `low..=high`.
fn bits_between(word: u32, low: u32, high: u32) -> u64 {
    let base = word * 64;
    let mut bits = u64::MAX;
    if low > base {
        bits &= u64::MAX << (low - base);
    }
    if high < base + 63 {
        bits &= u64::MAX >> (base + 63 - high);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn place() -> Place {
        place_of(Account::User("ann".into()))
    }

    fn place_of(account: Account) -> Place {
        let limits = crate::turn::settings::Limits { allocations_per_user: 0, ..Default::default() };
        let quota = Arc::new(crate::turn::state::quota::Quota::default());
        quota.take(HostId(0), &account, &limits).expect("no limit")
    }

    /// A name without a user part has no quota, but cannot hold every reservation either.
    #[test]
    fn one_account_cannot_hold_all_reservations() {
        let pool = pool(49_152..=65_535);
        let mut tokens = (0_u64..).map(u64::to_be_bytes);
        let mut reserve = |name: &str| {
            let even = pool.claim(IP, Want::Pair, 0).expect("free");
            pool.release(OnWire::new(IP, even));
            let token = tokens.next().expect("endless");
            let next = OnWire::new(IP, even + 1);
            pool.reserve(Instant::from_nanos(1), token, next, place_of(Account::Name(name.into())))?;
            Some(token)
        };
        let held: Vec<_> = (0..RESERVATIONS_MAX).map_while(|_| reserve("1700000000")).collect();
        assert_eq!(held.len(), RESERVATIONS_OF_ACCOUNT as usize);
        assert!(reserve("1700000001").is_some(), "another name");
        assert_eq!(pool.pool.taken(), held.len() + 1, "the refused port is free");
        pool.cancel(&held[0]);
        assert!(reserve("1700000000").is_some() && reserve("1700000000").is_none());
        let end = Instant::from_nanos(1) + RESERVATION_LIFETIME;
        (0..RESERVATIONS_MAX as u64).for_each(|token| pool.expire(end, &token.to_be_bytes()));
        assert!(pool.reserved() == 0 && pool.pool.taken() == 0);
        assert!(lock(&pool.pool.reservations).by_account.is_empty());
    }

    #[test]
    fn a_port_is_open_only_while_its_socket_is() {
        let pool = pool(50_000..=50_003);
        let address = OnWire::new(IP, pool.claim(IP, Want::Pair, 0).expect("free"));
        assert!(pool.pool.is_taken(address) && !pool.is_open(address), "claimed, and nothing is bound");
        pool.mark_open(address);
        assert!(pool.is_open(address) && !pool.is_open(address.next_port()));
        pool.release(address);
        pool.claim(IP, Want::Any, address.port().into()).expect("free");
        assert!(!pool.is_open(address), "the next owner has no socket yet");
    }

    fn pool(range: RangeInclusive<u16>) -> RelayPorts {
        Arc::new(PortPool::default()).on([IP, IP], range)
    }

    #[test]
    fn workers_share_an_address_and_the_last_one_frees_it() {
        let (pool, other) = (Arc::new(PortPool::default()), IpAddr::from([192, 0, 2, 1]));
        let (one, two) = (pool.on([IP], 50_000..=50_001), pool.on([other, IP], 50_000..=50_001));
        let port = one.claim(IP, Want::Any, 0).expect("free");
        assert_ne!(two.claim(IP, Want::Any, 0).expect("the other"), port);
        assert_eq!(
            (one.claim(IP, Want::Any, 0), two.contains(other), one.contains(other)),
            (None, true, false)
        );
        // A new set of addresses and another range leave what is taken as it is.
        let wider = pool.on([IP], 50_000..=50_002);
        drop(two);
        assert_eq!((wider.claim(IP, Want::Any, 0), pool.taken()), (Some(50_002), 3));
        one.release(OnWire::new(IP, port));
        drop((one, wider));
        assert_eq!(pool.on([IP], 50_000..=50_001).claim(IP, Want::Any, 0), Some(50_000));
        assert_eq!(pool.taken(), 0, "these ports are dropped too");
    }

    /// The port of a reservation is released even though its address is not relayed from any more.
    #[test]
    fn a_reservation_on_an_address_that_is_gone_is_not_redeemed() {
        let shared = Arc::new(PortPool::default());
        let before = shared.on([IP], 50_000..=50_001);
        let even = before.claim(IP, Want::Pair, 0).expect("free");
        let until = before.reserve(Instant::from_nanos(5), [1; 8], OnWire::new(IP, even + 1), place());
        before.release(OnWire::new(IP, even));
        let after = shared.on([IpAddr::from([192, 0, 2, 1])], 50_000..=50_001);
        drop(before);
        assert!(after.redeem(Instant::from_nanos(6), &[1; 8]).is_none());
        assert_eq!(shared.taken(), 1);
        after.expire(until.expect("room"), &[1; 8]);
        assert_eq!((shared.taken(), shared.reserved()), (0, 0));
    }

    #[test]
    fn every_port_of_the_range_is_used_once_and_again_after_release() {
        for range in [49_152..=65_535, 50_000..=50_000, 50_001..=50_130, 63..=65] {
            let pool = pool(range.clone());
            for round in 0..2 {
                let mut ports: Vec<u16> = range
                    .clone()
                    .map(|n| pool.claim(IP, Want::Any, u32::from(n) * 7919).expect("free"))
                    .collect();
                assert_eq!(pool.claim(IP, Want::Any, 1), None, "round {round}");
                ports.sort_unstable();
                assert!(ports.iter().copied().eq(range.clone()), "each once");
                for port in ports {
                    pool.release(OnWire::new(IP, port));
                }
                assert_eq!(pool.pool.taken(), 0);
            }
        }
    }

    #[test]
    fn the_last_quarter_is_for_users_that_hold_few() {
        for (range, share) in [(50_000..=50_099, 16), (49_152..=65_535, 128)] {
            let (pool, size) = (pool(range.clone()), range.len() as u32);
            for n in 0..size - size / 4 {
                assert!(pool.has_room_for(IP, u32::MAX), "{n} of {size}");
                pool.claim(IP, Want::Any, n).expect("free");
            }
            assert!(pool.has_room_for(IP, share) && !pool.has_room_for(IP, share + 1));
            let even = pool.claim(IP, Want::Pair, 0).expect("free");
            for port in [even, even + 1, even, range.start() + 1] {
                pool.release(OnWire::new(IP, port));
            }
            assert_eq!(pool.pool.taken() as u32, size - size / 4 - 1, "a port is released once");
            assert!(pool.has_room_for(IP, share + 1));
        }
    }

    #[test]
    fn even_ports_are_even_and_pairs_stay_in_the_range() {
        let pool = pool(50_001..=50_010);
        let mut even: Vec<u16> = (0..5).map(|n| pool.claim(IP, Want::Even, n * 3).expect("free")).collect();
        even.sort_unstable();
        assert_eq!(even, [50_002, 50_004, 50_006, 50_008, 50_010]);
        assert_eq!(pool.claim(IP, Want::Even, 0), None);
        for port in (50_002..=50_010).step_by(2) {
            pool.release(OnWire::new(IP, port));
        }
        let mut pairs: Vec<u16> = (0..4).map(|n| pool.claim(IP, Want::Pair, n).expect("free")).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, [50_002, 50_004, 50_006, 50_008]);
        assert_eq!(pool.claim(IP, Want::Pair, 0), None, "50010 has no neighbour in the range");
        assert_eq!(pool.pool.taken(), 8);
    }

    #[test]
    fn a_reservation_is_redeemed_once_or_expires() {
        let pool = pool(50_000..=50_001);
        let now = Instant::from_nanos(5);
        let even = pool.claim(IP, Want::Pair, 0).expect("free");
        let kept = OnWire::new(IP, even + 1);
        let until = pool.reserve(now, [1; 8], kept, place()).expect("room");
        let redeem = |at, token| pool.redeem(at, &token).map(|(address, _)| address);
        assert_eq!(redeem(now, [2; 8]), None);
        assert_eq!(redeem(now, [1; 8]), Some(kept));
        assert_eq!(redeem(now, [1; 8]), None);
        assert!(pool.pool.is_taken(kept), "the claim went to the new allocation");
        pool.reserve(now, [3; 8], kept, place()).expect("room");
        pool.expire(now, &[3; 8]);
        assert!(pool.pool.is_taken(kept), "not yet");
        assert_eq!(redeem(until, [3; 8]), None, "too late");
        pool.expire(until, &[3; 8]);
        assert!(!pool.pool.is_taken(kept));
    }

    #[test]
    fn an_address_that_is_not_ours_has_no_ports() {
        let pool = pool(50_000..=50_001);
        assert_eq!(pool.claim("192.0.2.1".parse().expect("literal"), Want::Any, 0), None);
        assert!(!pool.pool.is_taken(OnWire("192.0.2.1:50000".parse().expect("literal"))));
    }
}
