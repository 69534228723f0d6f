//! An independent model of the servers' state, derived only from their answers and the clock. Every verdict of a server is
//! compared with it. Times are nanoseconds.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use hallpass::turn::action::{DropReason, RelayId, Session, Traffic};
use hallpass::turn::five_tuple::{Client, FiveTuple};

use crate::invariant::{Broken, Checked, Invariant, ensure};
use crate::stun::{self, Reader};

pub const SECOND: u64 = 1_000_000_000;

/// The content of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Binding,
    Allocate { lifetime: Option<u32>, pair: bool, v6: bool, dual: bool, token: Option<[u8; 8]> },
    Refresh { lifetime: u32 },
    Permit(Vec<SocketAddr>),
    Bind(u16, SocketAddr),
}

/// The kind of credentials that the client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    None,
    WrongPassword,
    /// The right password for a name that expires at this Unix time.
    Until(u64),
}

/// A relayed address of an allocation.
#[derive(Debug)]
pub struct Relay {
    pub id: RelayId,
    pub local: SocketAddr,
    pub open: bool,
    pub expires: u64,
}

#[derive(Debug)]
pub struct Allocation {
    pub client: Client,
    pub worker: usize,
    pub transaction: stun::Id,
    pub name: String,
    pub opening: bool,
    pub pair: bool,
    pub relays: Vec<Relay>,
    pub permissions: HashMap<IpAddr, u64>,
    pub channels: HashMap<u16, (SocketAddr, u64)>,
    pub from_client: Traffic,
    pub from_peer: Traffic,
    /// Ports that were found in use while opening.
    held: Vec<SocketAddr>,
}

impl Allocation {
    pub fn relay_for(&self, peer: SocketAddr) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.local.is_ipv4() == peer.is_ipv4())
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub allocations: HashMap<FiveTuple, Allocation>,
    pub by_relay: HashMap<(usize, RelayId), FiveTuple>,
    pub taken: HashSet<SocketAddr>,
    /// The addresses in `taken` that have an open socket.
    pub live: HashSet<SocketAddr>,
    /// By token: address, end, and the worker whose timer ends it.
    pub reservations: HashMap<[u8; 8], (SocketAddr, u64, usize)>,
    /// Peers that the operator denied.
    pub denied: Vec<IpAddr>,
    pub lifetime_max: u64,
    /// Announced and local address behind 1:1 NAT.
    pub nat: Option<(IpAddr, IpAddr)>,
    pub own: Vec<IpAddr>,
}

fn v4_mapped(address: SocketAddr, from: IpAddr, to: IpAddr) -> SocketAddr {
    if address.ip() == from { SocketAddr::new(to, address.port()) } else { address }
}

impl Model {
    pub fn to_local(&self, peer: SocketAddr) -> SocketAddr {
        self.nat.map_or(peer, |(announced, local)| v4_mapped(peer, announced, local))
    }

    pub fn to_announced(&self, local: SocketAddr) -> SocketAddr {
        self.nat.map_or(local, |(announced, ip)| v4_mapped(local, ip, announced))
    }

    /// Removes the permissions for denied peers.
    pub fn deny(&mut self) {
        for allocation in self.allocations.values_mut() {
            allocation.permissions.retain(|peer, _| !self.denied.contains(peer));
        }
    }

    /// Returns whether the user of this name may hold an allocation or a reserved port. The model does not record whose a
    /// reservation is.
    pub fn may_hold(&self, name: &str) -> bool {
        let user = |name: &str| name.split_once(':').map_or(name, |(_, user)| user).to_owned();
        let mut names = self.allocations.values().map(|allocation| user(&allocation.name));
        !self.reservations.is_empty() || names.any(|held| held == user(name))
    }

    /// Counts the places in quotas: of allocations and of reserved ports.
    pub fn places(&self) -> usize {
        let pairs = self.allocations.values().filter(|allocation| allocation.opening && allocation.pair);
        self.allocations.len() + self.reservations.len() + pairs.count()
    }

    /// Returns whether packets may go to this port: at own addresses only to relayed ports in use.
    pub fn port_is_open(&self, local: SocketAddr) -> bool {
        !self.own.contains(&local.ip()) || self.live.contains(&local)
    }

    // --- verdicts -------------------------------------------------------------------------------------------

    /// Returns where data from a client to `peer` (the address that the client uses) must go.
    ///
    /// # Errors
    /// Why it must be dropped.
    pub fn route_from_client(
        &self,
        now: u64,
        from: &FiveTuple,
        peer: SocketAddr,
    ) -> Result<(RelayId, SocketAddr), DropReason> {
        let allocation = self.allocations.get(from).ok_or(DropReason::NoAllocation)?;
        let local = self.to_local(peer);
        let relay = allocation.relay_for(local).ok_or(DropReason::NoFamily)?;
        let permitted = allocation.permissions.get(&local.ip()).is_some_and(|&end| end > now);
        if !permitted {
            return Err(DropReason::NoPermission);
        }
        if !relay.open || relay.expires <= now {
            return Err(DropReason::NoRelay);
        }
        if !self.port_is_open(local) {
            return Err(DropReason::PeerDenied);
        }
        Ok((relay.id, local))
    }

    /// Returns the peer (its address on the wire) that this channel is bound to.
    pub fn channel(&self, now: u64, from: &FiveTuple, number: u16) -> Result<SocketAddr, DropReason> {
        let allocation = self.allocations.get(from).ok_or(DropReason::NoAllocation)?;
        let bound = allocation.channels.get(&number).filter(|(_, end)| *end > now);
        bound.map(|(peer, _)| *peer).ok_or(DropReason::NoChannel)
    }

    /// Returns the client that a datagram from `peer` (its address on the wire) at this relay must reach, and the channel.
    pub fn route_from_peer(
        &self,
        now: u64,
        worker: usize,
        relay: RelayId,
        peer: SocketAddr,
    ) -> Result<(Client, Option<u16>), DropReason> {
        let owner = self.by_relay.get(&(worker, relay)).ok_or(DropReason::NoRelay)?;
        let allocation = &self.allocations[owner];
        let relay = allocation.relays.iter().find(|found| found.id == relay).ok_or(DropReason::NoRelay)?;
        if !relay.open || relay.expires <= now {
            return Err(DropReason::NoRelay);
        }
        if allocation.permissions.get(&peer.ip()).is_none_or(|&end| end <= now) {
            return Err(DropReason::NoPermission);
        }
        if !self.port_is_open(peer) {
            return Err(DropReason::PeerDenied);
        }
        let bound = allocation.channels.iter().find(|(_, (bound, end))| *bound == peer && *end > now);
        Ok((allocation.client, bound.map(|(&number, _)| number)))
    }

    // --- actions of servers ---------------------------------------------------------------------------------

    /// Handles OpenRelay, for a new allocation or for another port after one was in use.
    pub fn opens(
        &mut self,
        now: u64,
        worker: usize,
        (id, local): (RelayId, SocketAddr),
        cause: Option<(Client, &stun::Id, &str, &Ask)>,
    ) -> Checked {
        let rule = Invariant::RelaysAreOpenedAndClosedOnce;
        if let Some(owner) = self.by_relay.get(&(worker, id)) {
            let Some(allocation) = self.allocations.get_mut(owner) else { return Ok(()) };
            let pair = allocation.pair;
            let relay = allocation.relays.iter_mut().find(|relay| relay.id == id);
            let relay = relay.filter(|relay| allocation.opening && !relay.open);
            ensure(relay.is_some(), rule, || format!("{id:?} is opened again"))?;
            if let Some(relay) = relay {
                allocation.held.push(relay.local);
                relay.local = local;
            }
            return self.takes(local, pair);
        }
        let Some((client, transaction, name, Ask::Allocate { lifetime, pair, token, .. })) = cause else {
            return ensure(false, rule, || format!("{id:?} is opened without a request"));
        };
        let (expires, from) = (now + self.lifetime(*lifetime), client.five_tuple);
        let allocation = self.allocations.entry(from).or_insert_with(|| Allocation {
            client,
            worker,
            transaction: *transaction,
            name: name.to_owned(),
            opening: true,
            pair: *pair,
            relays: Vec::new(),
            permissions: HashMap::new(),
            channels: HashMap::new(),
            from_client: Traffic::default(),
            from_peer: Traffic::default(),
            held: Vec::new(),
        });
        ensure(allocation.opening && allocation.transaction == *transaction, rule, || {
            format!("{from} has an allocation already")
        })?;
        allocation.relays.push(Relay { id, local, open: false, expires });
        self.by_relay.insert((worker, id), from);
        if let Some(token) = token {
            let kept = self.reservations.remove(token).filter(|(_, until, _)| *until > now);
            let detail = || format!("{local} for a token of {kept:?}");
            return ensure(
                kept.is_some_and(|(kept, ..)| kept == local),
                Invariant::PortsAreAccountedFor,
                detail,
            );
        }
        self.takes(local, *pair)
    }

    fn takes(&mut self, local: SocketAddr, pair: bool) -> Checked {
        let next = SocketAddr::new(local.ip(), local.port().wrapping_add(1));
        let free = self.taken.insert(local) && (!pair || self.taken.insert(next));
        ensure(free, Invariant::PortsAreAccountedFor, || format!("{local} is assigned twice"))
    }

    pub fn opened(&mut self, worker: usize, id: RelayId) {
        let owner = self.by_relay.get(&(worker, id)).copied();
        let allocation = owner.and_then(|owner| self.allocations.get_mut(&owner));
        if let Some(relay) = allocation.and_then(|a| a.relays.iter_mut().find(|relay| relay.id == id)) {
            relay.open = true;
            self.live.insert(relay.local);
        }
    }

    /// Handles CloseRelay and returns the address. Only a pending relay, or one of `cause`, may be closed before it expires.
    pub fn closes(
        &mut self,
        now: u64,
        (worker, id): (usize, RelayId),
        cause: Option<&FiveTuple>,
    ) -> Result<SocketAddr, Broken> {
        let owner = self.by_relay.remove(&(worker, id));
        let allocation = owner.and_then(|owner| Some((owner, self.allocations.get_mut(&owner)?)));
        let found = allocation.and_then(|(owner, allocation)| {
            let at = allocation.relays.iter().position(|relay| relay.id == id)?;
            Some((owner, allocation.relays.remove(at), allocation))
        });
        let Some((owner, relay, allocation)) = found else {
            let invariant = Invariant::RelaysAreOpenedAndClosedOnce;
            return Err(Broken { invariant, detail: format!("{id:?} is closed, but does not exist") });
        };
        let may = relay.expires <= now || allocation.opening || cause == Some(&owner);
        ensure(may, Invariant::DeadlinesAreKept, || {
            format!("{owner} loses {} before it expires", relay.local)
        })?;
        allocation.permissions.retain(|ip, _| ip.is_ipv4() != relay.local.is_ipv4());
        allocation.channels.retain(|_, (peer, _)| peer.is_ipv4() != relay.local.is_ipv4());
        self.live.remove(&relay.local);
        self.taken.remove(&relay.local);
        if allocation.opening && allocation.pair {
            self.taken.remove(&SocketAddr::new(relay.local.ip(), relay.local.port().wrapping_add(1)));
        }
        // An allocation that is still opening ends with its last relay, without an Ended action.
        if allocation.opening && allocation.relays.is_empty() {
            let allocation = self.allocations.remove(&owner);
            allocation.iter().for_each(|gone| self.release_held(&gone.held, gone.pair));
        }
        Ok(relay.local)
    }

    fn release_held(&mut self, held: &[SocketAddr], pair: bool) {
        for held in held {
            self.taken.remove(held);
            if pair {
                self.taken.remove(&SocketAddr::new(held.ip(), held.port().wrapping_add(1)));
            }
        }
    }

    /// Handles Ended.
    pub fn ended(&mut self, session: &Session) -> Checked {
        let Some(allocation) = self.allocations.remove(&session.five_tuple) else {
            let detail = || format!("{} ended, but did not exist", session.five_tuple);
            return ensure(false, Invariant::AllocationsAgree, detail);
        };
        let traffic = (session.from_client, session.from_peer);
        ensure(traffic == (allocation.from_client, allocation.from_peer), Invariant::CountersAgree, || {
            format!("session {session:?}, seen {allocation:?}")
        })?;
        ensure(
            allocation.relays.is_empty() && !allocation.opening,
            Invariant::RelaysAreOpenedAndClosedOnce,
            || format!("{} ended with open relays", session.five_tuple),
        )?;
        ensure(*session.user == *allocation.name, Invariant::AllocationsAgree, || format!("{session:?}"))
    }

    /// Handles the success response to an Allocate or to its retransmission.
    pub fn allocated(&mut self, now: u64, from: &FiveTuple, ask: &Ask, reply: &Reader) -> Checked {
        let fits = Invariant::AnswersFitTheirRequest;
        let Ask::Allocate { lifetime, .. } = ask else { return Ok(()) };
        let granted = self.lifetime(*lifetime);
        let own = |local| self.to_announced(local);
        let Some(allocation) = self.allocations.get(from) else {
            return ensure(false, Invariant::AllocationsAgree, || format!("{from} has no allocation"));
        };
        ensure(allocation.transaction == reply.id, fits, || format!("{from}: a second allocation"))?;
        let mut relayed: Vec<SocketAddr> = allocation.relays.iter().map(|relay| own(relay.local)).collect();
        let mut told = reply.addresses(stun::RELAYED);
        relayed.sort_unstable();
        told.sort_unstable();
        ensure(relayed == told, fits, || format!("{from}: told {told:?}, has {relayed:?}"))?;
        ensure(allocation.relays.iter().all(|relay| relay.open), fits, || format!("{from}: not open yet"))?;
        let Some(allocation) = self.allocations.get_mut(from) else { return Ok(()) };
        if allocation.opening {
            allocation.opening = false;
            for relay in &mut allocation.relays {
                relay.expires = now + granted;
            }
            let (held, pair, worker) =
                (std::mem::take(&mut allocation.held), allocation.pair, allocation.worker);
            let first = allocation.relays[0].local;
            self.release_held(&held, pair);
            let token = reply.get(stun::RESERVATION).and_then(|token| token.try_into().ok());
            let next = SocketAddr::new(first.ip(), first.port().wrapping_add(1));
            match token {
                Some(token) if pair => {
                    self.reservations.insert(token, (next, now + 30 * SECOND, worker));
                }
                None if pair => {
                    self.taken.remove(&next);
                }
                token => ensure(token.is_none(), fits, || "a token that was not requested".into())?,
            }
        }
        let ends = self.allocations[from].relays.iter().map(|relay| relay.expires);
        let left = ends.map(|end| end.saturating_sub(now) / SECOND).max();
        let told = reply.number(stun::LIFETIME).map(u64::from);
        ensure(told == left, fits, || format!("{from}: LIFETIME {told:?}, has {left:?}"))
    }

    /// Handles the success response to any other request.
    pub fn succeeded(&mut self, now: u64, from: &FiveTuple, ask: &Ask, reply: &Reader) -> Checked {
        let granted = |wish| self.lifetime(Some(wish));
        match ask {
            Ask::Binding | Ask::Allocate { .. } => return Ok(()),
            // Closing its relays and Ended came before the answer.
            Ask::Refresh { lifetime: 0 } => {
                let gone = !self.allocations.contains_key(from);
                return ensure(gone, Invariant::AllocationsAgree, || format!("{from} is not deleted"));
            }
            Ask::Refresh { lifetime } => {
                let granted = granted(*lifetime);
                let told = reply.number(stun::LIFETIME).map(u64::from);
                ensure(told == Some(granted / SECOND), Invariant::AnswersFitTheirRequest, || {
                    format!("{told:?}")
                })?;
                let Some(allocation) = self.living(now, from)? else { return Ok(()) };
                allocation.relays.iter_mut().for_each(|relay| relay.expires = now + granted);
            }
            Ask::Permit(peers) => {
                let peers: Vec<SocketAddr> = peers.iter().map(|&peer| self.to_local(peer)).collect();
                for peer in peers {
                    self.permits(now, from, peer)?;
                }
            }
            Ask::Bind(number, peer) => {
                let peer = self.to_local(*peer);
                self.permits(now, from, peer)?;
                let Some(allocation) = self.living(now, from)? else { return Ok(()) };
                allocation.channels.retain(|_, (_, end)| *end > now);
                let clash = allocation.channels.iter().any(|(n, (p, _))| (n == number) != (*p == peer));
                allocation.channels.insert(*number, (peer, now + 600 * SECOND));
                let detail = || format!("{from}: {number:#x} to {peer} conflicts with a binding");
                return ensure(!clash, Invariant::AnswersFitTheirRequest, detail);
            }
        }
        Ok(())
    }

    fn permits(&mut self, now: u64, from: &FiveTuple, peer: SocketAddr) -> Checked {
        ensure(!self.is_refused(peer), Invariant::OnlyPermittedDataIsRelayed, || {
            format!("{from}: permission for {peer}")
        })?;
        let Some(allocation) = self.living(now, from)? else { return Ok(()) };
        allocation.permissions.insert(peer.ip(), now + 300 * SECOND);
        Ok(())
    }

    fn living(&mut self, now: u64, from: &FiveTuple) -> Result<Option<&mut Allocation>, Broken> {
        let allocation = self.allocations.get_mut(from).filter(|allocation| {
            !allocation.opening && allocation.relays.iter().any(|relay| relay.expires > now)
        });
        ensure(allocation.is_some(), Invariant::AllocationsAgree, || format!("{from} has no allocation"))?;
        Ok(allocation)
    }

    /// Returns the lifetime granted by RFC 8656 section 7.2, in nanoseconds.
    pub fn lifetime(&self, wish: Option<u32>) -> u64 {
        wish.map_or(600, u64::from).clamp(600, self.lifetime_max) * SECOND
    }

    /// Checks that nothing expired remains after `handle_timeout` of `worker`.
    pub fn timed_out(&self, now: u64, worker: usize) -> Checked {
        for (from, allocation) in self.allocations.iter().filter(|(_, a)| a.worker == worker) {
            let expired = allocation.relays.iter().any(|relay| relay.expires <= now);
            ensure(!expired, Invariant::DeadlinesAreKept, || format!("{from} has expired and still exists"))?;
        }
        Ok(())
    }

    /// Ends reservations when the worker that made them runs its timers.
    pub fn end_reservations(&mut self, now: u64, worker: usize) {
        let taken = &mut self.taken;
        self.reservations.retain(|_, (address, until, made_by)| {
            let stays = *until > now || *made_by != worker;
            if !stays {
                taken.remove(address);
            }
            stays
        });
    }

    /// Counts the channels of this worker that have not expired.
    pub fn channels(&self, now: u64, worker: usize) -> u64 {
        let here = self.allocations.values().filter(|allocation| allocation.worker == worker);
        here.flat_map(|a| a.channels.values()).filter(|(_, end)| *end > now).count() as u64
    }

    /// The peer policy for the addresses used in the simulation.
    pub fn is_refused(&self, peer: SocketAddr) -> bool {
        let private = matches!(peer.ip(), IpAddr::V4(ip) if ip.is_private());
        (private && !self.own.contains(&peer.ip())) || self.denied.contains(&peer.ip())
    }
}
