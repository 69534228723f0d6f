//! A reference of RFC 8656 with plain maps: slow, without timers, and obviously correct. Times are whole seconds.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// An address family, also used as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn is_of(self, address: SocketAddr) -> bool {
        address.is_ipv6() == (self == Family::V6)
    }

    pub fn bytes(self) -> [u8; 4] {
        [self as u8 + 1, 0, 0, 0]
    }
}

/// The attributes of an Allocate except LIFETIME.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Plain,
    Family(Family),
    Dual,
    UnknownFamily,
    TwoFamilyAttributes,
    AdditionalV4,
    EvenPort(bool),
    EvenPortAndDual,
    TokenAndEvenPort,
    UnknownToken,
    NoTransport,
    Tcp,
}

/// A request. Peers and channel numbers are indexes.
#[derive(Clone, Debug)]
pub enum Ask {
    Allocate { wish: Wish, lifetime: Option<u32> },
    Refresh { lifetime: Option<u32>, family: Option<Family> },
    Permit { peers: Vec<u8> },
    Bind { number: Option<u8>, peer: Option<u8> },
}

/// The required answer.
#[derive(Debug)]
pub struct Expected {
    /// 0 for success.
    pub code: u16,
    /// LIFETIME of the answer.
    pub lifetime: Option<u64>,
}

#[derive(Debug)]
struct Allocation {
    user: u8,
    /// The expiry of each family's relayed address.
    relays: [Option<u64>; 2],
    permissions: HashMap<IpAddr, u64>,
    channels: HashMap<u16, (SocketAddr, u64)>,
}

pub struct Reference {
    allocations: HashMap<u8, Allocation>,
    permissions_max: usize,
    channels_max: usize,
    lifetime_max: u64,
}

impl Reference {
    pub fn new(permissions_max: usize, channels_max: usize, lifetime_max: u64) -> Self {
        Self { allocations: HashMap::new(), permissions_max, channels_max, lifetime_max }
    }

    pub fn ask(
        &mut self,
        now: u64,
        client: u8,
        user: u8,
        ask: &Ask,
        peer: impl Fn(u8) -> SocketAddr,
        number: impl Fn(u8) -> u16,
    ) -> Expected {
        self.remove_expired(now);
        let answer = match ask {
            Ask::Allocate { wish, lifetime } => self.allocate(now, client, user, *wish, *lifetime),
            Ask::Refresh { lifetime, family } => self.refresh(now, client, user, *lifetime, *family),
            Ask::Permit { peers } => {
                let peers: Vec<SocketAddr> = peers.iter().map(|&index| peer(index)).collect();
                self.permit(now, client, user, &peers).map(|()| None)
            }
            Ask::Bind { number: n, peer: p } => {
                self.bind(now, client, user, n.map(number), p.map(peer)).map(|()| None)
            }
        };
        match answer {
            Ok(lifetime) => Expected { code: 0, lifetime },
            Err(code) => Expected { code, lifetime: None },
        }
    }

    /// Section 7.2.
    fn allocate(&mut self, now: u64, client: u8, user: u8, wish: Wish, lifetime: Option<u32>) -> Answer {
        if self.allocations.contains_key(&client) {
            return Err(437);
        }
        let families: &[Family] = match wish {
            Wish::NoTransport
            | Wish::TokenAndEvenPort
            | Wish::TwoFamilyAttributes
            | Wish::AdditionalV4
            | Wish::EvenPortAndDual => return Err(400),
            Wish::Tcp => return Err(442),
            Wish::UnknownFamily => return Err(440),
            Wish::UnknownToken => return Err(508),
            Wish::Plain | Wish::EvenPort(_) | Wish::Family(Family::V4) => &[Family::V4],
            Wish::Family(Family::V6) => &[Family::V6],
            Wish::Dual => &[Family::V4, Family::V6],
        };
        let lifetime = self.lifetime(lifetime);
        let mut relays = [None; 2];
        families.iter().for_each(|&family| relays[family as usize] = Some(now + lifetime));
        let (permissions, channels) = (HashMap::new(), HashMap::new());
        self.allocations.insert(client, Allocation { user, relays, permissions, channels });
        Ok(Some(lifetime))
    }

    /// Section 8.2.
    fn refresh(
        &mut self,
        now: u64,
        client: u8,
        user: u8,
        wish: Option<u32>,
        family: Option<Family>,
    ) -> Answer {
        let lifetime = if wish == Some(0) { 0 } else { self.lifetime(wish) };
        let allocation = self.owned(client, user)?;
        if family.is_some_and(|family| allocation.relays[family as usize].is_none()) {
            return Err(443);
        }
        for chosen in [Family::V4, Family::V6] {
            if family.is_none_or(|family| family == chosen) {
                let relay = &mut allocation.relays[chosen as usize];
                *relay = relay.map(|_| now + lifetime);
            }
        }
        self.remove_expired(now);
        Ok(Some(lifetime))
    }

    /// Section 10.2.
    fn permit(&mut self, now: u64, client: u8, user: u8, peers: &[SocketAddr]) -> Result<(), u16> {
        let max = self.permissions_max;
        let allocation = self.owned(client, user)?;
        if peers.is_empty() {
            return Err(400);
        }
        if peers.iter().any(|&peer| !allocation.has_family(peer)) {
            return Err(443);
        }
        if peers.iter().any(|&peer| is_refused(peer)) {
            return Err(403);
        }
        allocation.room_for(now, peers, max)?;
        peers.iter().for_each(|peer| allocation.install(now, *peer));
        Ok(())
    }

    /// Section 12.2.
    fn bind(
        &mut self,
        now: u64,
        client: u8,
        user: u8,
        number: Option<u16>,
        peer: Option<SocketAddr>,
    ) -> Result<(), u16> {
        let (permissions_max, channels_max) = (self.permissions_max, self.channels_max);
        let allocation = self.owned(client, user)?;
        let (Some(number), Some(peer)) = (number, peer) else { return Err(400) };
        if !(0x4000..=0x7fff).contains(&number) {
            return Err(400);
        }
        let mut bound = allocation.channels.iter();
        if bound.any(|(&n, &(p, _))| (n == number) != (p == peer)) {
            return Err(400);
        }
        if !allocation.has_family(peer) {
            return Err(443);
        }
        if is_refused(peer) {
            return Err(403);
        }
        allocation.room_for(now, &[peer], permissions_max)?;
        let of_family = allocation.channels.values().filter(|(p, _)| p.is_ipv6() == peer.is_ipv6()).count();
        if !allocation.channels.contains_key(&number) && of_family >= channels_max {
            return Err(508);
        }
        allocation.install(now, peer);
        allocation.channels.insert(number, (peer, now + 600));
        Ok(())
    }

    /// Section 11.2: where a Send indication goes.
    pub fn send(&self, now: u64, client: u8, peer: SocketAddr) -> Option<SocketAddr> {
        let allocation = self.allocations.get(&client)?;
        allocation.lets_through(now, peer).then_some(peer)
    }

    /// Section 12.6: where ChannelData goes.
    pub fn channel_data(&self, now: u64, client: u8, number: u16) -> Option<SocketAddr> {
        let allocation = self.allocations.get(&client)?;
        let (peer, end) = *allocation.channels.get(&number)?;
        (end > now && allocation.lets_through(now, peer)).then_some(peer)
    }

    /// Sections 11.3 and 12.7: whether a peer's datagram reaches the client, and by which channel.
    pub fn route_from_peer(&self, now: u64, client: u8, peer: SocketAddr) -> Option<Option<u16>> {
        let allocation = self.allocations.get(&client)?;
        let mut channels = allocation.channels.iter();
        let channel =
            channels.find(|(_, (bound, end))| *bound == peer && *end > now).map(|(&number, _)| number);
        allocation.lets_through(now, peer).then_some(channel)
    }

    /// Counts live allocations.
    pub fn allocations(&mut self, now: u64) -> usize {
        self.remove_expired(now);
        self.allocations.len()
    }

    /// Counts live channels.
    pub fn channels(&mut self, now: u64) -> usize {
        self.remove_expired(now);
        self.allocations.values().map(|allocation| allocation.channels.len()).sum()
    }

    /// Section 5.
    fn owned(&mut self, client: u8, user: u8) -> Result<&mut Allocation, u16> {
        let allocation = self.allocations.get_mut(&client).ok_or(437_u16)?;
        if allocation.user == user { Ok(allocation) } else { Err(441) }
    }

    /// Section 7.2: the requested lifetime, but at least the default and at most the server's maximum.
    fn lifetime(&self, wish: Option<u32>) -> u64 {
        wish.map_or(600, u64::from).clamp(600, self.lifetime_max)
    }

    fn remove_expired(&mut self, now: u64) {
        for allocation in self.allocations.values_mut() {
            for (family, relay) in allocation.relays.iter_mut().enumerate() {
                if relay.is_some_and(|end| end <= now) {
                    *relay = None;
                    allocation.permissions.retain(|ip, _| usize::from(ip.is_ipv6()) != family);
                    allocation.channels.retain(|_, (peer, _)| usize::from(peer.is_ipv6()) != family);
                }
            }
            allocation.permissions.retain(|_, end| *end > now);
            allocation.channels.retain(|_, (_, end)| *end > now);
        }
        self.allocations.retain(|_, allocation| allocation.relays != [None; 2]);
    }
}

type Answer = Result<Option<u64>, u16>;

impl Allocation {
    fn has_family(&self, peer: SocketAddr) -> bool {
        self.relays[usize::from(peer.is_ipv6())].is_some()
    }

    fn lets_through(&self, now: u64, peer: SocketAddr) -> bool {
        self.relays[usize::from(peer.is_ipv6())].is_some_and(|end| end > now)
            && self.permissions.get(&peer.ip()).is_some_and(|&end| end > now)
    }

    /// Checks that there is room for permissions for all of `peers`. An address with a channel keeps its entry as long as the
    /// channel, so it counts even after its permission expired.
    ///
    /// # Errors
    /// 508 if there is not.
    fn room_for(&self, now: u64, peers: &[SocketAddr], max: usize) -> Result<(), u16> {
        for v6 in [false, true] {
            let bound = self.channels.values().filter(|(_, end)| *end > now).map(|(peer, _)| peer.ip());
            let mut held: Vec<IpAddr> = self.permissions.keys().copied().chain(bound).collect();
            let new = peers.iter().map(SocketAddr::ip).filter(|ip| !held.contains(ip)).collect::<Vec<_>>();
            let asked = new.iter().any(|ip| ip.is_ipv6() == v6);
            held.extend(new);
            held.retain(|ip| ip.is_ipv6() == v6);
            held.sort_unstable();
            held.dedup();
            if asked && held.len() > max {
                return Err(508);
            }
        }
        Ok(())
    }

    /// Section 9: 300 seconds.
    fn install(&mut self, now: u64, peer: SocketAddr) {
        self.permissions.insert(peer.ip(), now + 300);
    }
}

/// The built-in peer policy, for the addresses of this test.
fn is_refused(peer: SocketAddr) -> bool {
    match peer.ip() {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
