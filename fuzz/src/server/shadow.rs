//! A shadow of the server, derived only from its answers: who holds what, until when, and who may send where.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hallpass::turn::action::{PeerHeader, RelayId, Session, Traffic};
use hallpass::turn::address::Announced;
use hallpass::turn::five_tuple::Client;

use super::stun::{self, Reader};

/// Peers on other machines, some of which the policy refuses. The last one is a listener of the server itself.
const PEERS: [&str; 9] = [
    "9.9.0.1:7000",
    "9.9.0.1:7001",
    "9.9.0.2:7000",
    "[2a00:9::1]:7000",
    "[2a00:9::2]:7000",
    "[::ffff:9.9.0.1]:7000",
    "10.0.0.1:7000",
    "[fc00::1]:7000",
    "5.5.5.5:3478",
];
/// The relay's IPv4 address as clients know it, and as it is bound.
const ANNOUNCED: &str = "5.5.5.5";
const LOCAL: &str = "10.1.1.1";
const LOCAL6: &str = "2a00:5::5";

const PERMISSION: u64 = 300;
const CHANNEL: u64 = 600;
const LIFETIME_MIN: u64 = 600;
const MAPPED: u16 = 0x0020;

/// The input that caused the server's actions.
pub enum Cause<'a> {
    Client(usize, &'a [u8]),
    Socket(RelayId),
    Icmp(RelayId, SocketAddr),
    Gone(usize),
    Time,
    Reload,
    Shutdown,
}

#[derive(Debug)]
struct Relay {
    owner: usize,
    address: SocketAddr,
    open: bool,
    /// When it was requested.
    since: u64,
    /// When it ends; `None` until the client has the answer.
    end: Option<u64>,
}

#[derive(Debug, Default)]
struct Allocation {
    user: Vec<u8>,
    is_granted: bool,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
    from_client: Traffic,
    from_peer: Traffic,
}

#[derive(Debug, Default)]
pub struct Shadow {
    relays: BTreeMap<RelayId, Relay>,
    allocations: BTreeMap<usize, Allocation>,
    /// Ended allocations whose end is still to be reported.
    over: Vec<(usize, Allocation)>,
    /// Relays whose sockets are being opened.
    pub opening: Vec<RelayId>,
    /// The last RESERVATION-TOKEN.
    pub token: [u8; 8],
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the address that packets for `peer` are sent to.
pub fn local(peer: SocketAddr) -> SocketAddr {
    if peer.ip() == ip(ANNOUNCED) { SocketAddr::new(ip(LOCAL), peer.port()) } else { peer }
}

fn announced(local: SocketAddr) -> SocketAddr {
    if local.ip() == ip(LOCAL) { SocketAddr::new(ip(ANNOUNCED), local.port()) } else { local }
}

/// Returns whether this is the relay's own machine.
pub fn is_own(peer: SocketAddr) -> bool {
    [LOCAL, LOCAL6, ANNOUNCED].iter().any(|own| peer.ip() == ip(own))
}

/// RFC 8489 section 5: a request by its first two bytes, the cookie and the length.
pub fn is_request(bytes: &[u8]) -> bool {
    bytes.len() >= 20
        && bytes[0] & 0xc1 == 0
        && bytes[1] & 0x10 == 0
        && bytes[4..8] == [0x21, 0x12, 0xa4, 0x42]
        && usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) + 20 == bytes.len()
}

impl Shadow {
    /// Returns a peer: of another machine, or a relayed address.
    pub fn peer(&self, index: u8) -> SocketAddr {
        let index = usize::from(index);
        let beyond = index.checked_sub(PEERS.len());
        let relayed = beyond.and_then(|index| {
            let at = index.checked_rem(self.relays.len())?;
            self.relays.values().nth(at)
        });
        match relayed {
            Some(relay) => announced(relay.address),
            None => PEERS[index % PEERS.len()].parse().expect("an address"),
        }
    }

    /// Returns a relay, or an unused number.
    pub fn relay(&self, index: u8) -> RelayId {
        let known = self.relays.keys().nth(usize::from(index) % (self.relays.len() + 1));
        known.copied().unwrap_or(RelayId(u32::from(index) << 16))
    }

    /// Whether a socket of this relay can receive from this peer: the families match, and it is not a mapped address.
    pub fn can_receive(&self, relay: RelayId, peer: SocketAddr) -> bool {
        let is_canonical = peer.ip().to_canonical() == peer.ip();
        let relay = self.relays.get(&relay);
        is_canonical && relay.is_none_or(|relay| relay.address.is_ipv4() == peer.is_ipv4())
    }

    pub fn owner(&self, relay: RelayId) -> usize {
        self.relays[&relay].owner
    }

    pub fn has(&self, client: usize) -> bool {
        self.allocations.contains_key(&client)
    }

    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    pub fn addresses(&self) -> usize {
        self.relays.len()
    }

    /// An upper limit of the allocations whose sockets are not all open yet.
    pub fn opening(&self) -> usize {
        self.relays.values().filter(|relay| !relay.open).count()
    }

    pub fn all_taken(&self, is_taken: impl Fn(SocketAddr) -> bool) -> bool {
        self.relays.values().all(|relay| is_taken(relay.address))
    }

    /// Counts live channels.
    pub fn channels(&self, now: u64) -> usize {
        let channels = self.allocations.values().flat_map(|allocation| allocation.channels.values());
        channels.filter(|(_, end)| *end > now).count()
    }

    /// After the timer, nothing expired is left.
    pub fn nothing_is_over(&self, now: u64) {
        for relay in self.relays.values() {
            let end = relay.end.unwrap_or(relay.since + super::LIFETIME_MAX);
            assert!(end > now, "over: {relay:?}");
        }
    }

    /// A socket is requested: by an Allocate, or in place of one that could not be opened.
    pub fn open(&mut self, now: u64, cause: &Cause<'_>, id: RelayId, address: SocketAddr) {
        assert!(is_own(address) && address.ip() != ip(ANNOUNCED) && address.port() >= 49_152, "{address}");
        assert!(self.relays.values().all(|relay| relay.address != address), "{address} is used twice");
        assert!(!self.opening.contains(&id));
        self.opening.push(id);
        match cause {
            Cause::Socket(failed) => {
                assert_eq!(*failed, id);
                let relay = self.relays.get_mut(&id).expect("known");
                assert_eq!(relay.address.ip(), address.ip());
                relay.address = address;
            }
            Cause::Client(owner, bytes) => {
                let owner = *owner;
                let request = Reader::parse(bytes).expect("an Allocate of ours");
                let user = request.get(stun::USERNAME).expect("signed").to_vec();
                let allocation = self.allocations.entry(owner).or_default();
                assert!(!allocation.is_granted, "one allocation for one client");
                allocation.user = user;
                let relay = Relay { owner, address, open: false, since: now, end: None };
                assert!(self.relays.insert(id, relay).is_none(), "a relay id is used twice");
            }
            _ => panic!("a socket without a request"),
        }
    }

    pub fn opened(&mut self, id: RelayId, open: bool) {
        self.relays.get_mut(&id).expect("known").open = open;
    }

    /// A relay is closed only when it expires, when its owner ends it, or if it never opened.
    pub fn closed(&mut self, now: u64, cause: &Cause<'_>, id: RelayId) {
        let relay = self.relays.remove(&id).expect("opened before, and not closed yet");
        self.opening.retain(|opening| *opening != id);
        let is_over = match relay.end {
            Some(end) => end <= now,
            None => relay.since + LIFETIME_MIN <= now,
        };
        let wanted = match cause {
            Cause::Client(owner, bytes) => *owner == relay.owner && bytes[..2] == stun::REFRESH.to_be_bytes(),
            Cause::Socket(failed) => *failed == id && relay.end.is_none(),
            Cause::Gone(owner) => *owner == relay.owner,
            Cause::Shutdown => true,
            Cause::Icmp(..) | Cause::Time | Cause::Reload => false,
        };
        assert!(is_over || wanted, "closed early: {relay:?}");
        let v6 = relay.address.is_ipv6();
        let allocation = self.allocations.get_mut(&relay.owner).expect("of an allocation");
        allocation.permissions.retain(|peer, _| peer.is_ipv6() != v6);
        allocation.channels.retain(|_, (peer, _)| peer.is_ipv6() != v6);
        if !self.relays.values().any(|other| other.owner == relay.owner)
            && let Some(allocation) = self.allocations.remove(&relay.owner)
            && allocation.is_granted
        {
            self.over.push((relay.owner, allocation));
        }
    }

    /// The session report contains the relayed traffic.
    pub fn ended(&mut self, clients: &[Client], session: &Session) {
        let mut over = self.over.iter();
        let at = over.position(|(owner, _)| clients[*owner].five_tuple == session.five_tuple);
        let (_, allocation) = self.over.remove(at.expect("its relays are closed"));
        assert_eq!(session.user.as_bytes(), allocation.user);
        assert_eq!(session.from_client, allocation.from_client);
        assert_eq!(session.from_peer, allocation.from_peer);
    }

    pub fn everything_is_reported(&self) {
        assert!(self.over.is_empty(), "ended without a report: {:?}", self.over);
    }

    /// Every socket was opened or refused, and the client is told about its allocation.
    pub fn allocated(&mut self, now: u64, owner: usize, to: &Client, answer: &Reader) {
        let lifetime = u64::from(answer.number(stun::LIFETIME).expect("LIFETIME"));
        assert!((LIFETIME_MIN..=super::LIFETIME_MAX).contains(&lifetime));
        for relay in self.relays.values_mut().filter(|relay| relay.owner == owner) {
            assert!(relay.open && relay.end.is_none());
            relay.end = Some(now + lifetime);
        }
        if let Some(token) = answer.get(stun::RESERVATION) {
            self.token.copy_from_slice(token);
        }
        let allocation = self.allocations.get_mut(&owner).expect("asked for");
        assert!(!std::mem::replace(&mut allocation.is_granted, true));
        self.check_granted(now, owner, to, answer);
    }

    fn check_granted(&self, now: u64, owner: usize, to: &Client, answer: &Reader) {
        assert_eq!(answer.addresses(MAPPED), [to.five_tuple.client]);
        let mut told = answer.addresses(stun::RELAYED);
        let of_owner = || self.relays.values().filter(|relay| relay.owner == owner);
        let mut held: Vec<SocketAddr> = of_owner().map(|relay| announced(relay.address)).collect();
        told.sort();
        held.sort();
        assert!(!held.is_empty() && told == held, "told {told:?}, held {held:?}");
        let lifetime = answer.number(stun::LIFETIME).map(u64::from);
        assert!(of_owner().any(|relay| relay.end.map(|end| end - now) == lifetime));
    }

    /// A request of this client was granted.
    pub fn succeeded(&mut self, now: u64, client: usize, to: &Client, bytes: &[u8], answer: &Reader) {
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(answer.kind, kind | 0x0100, "the answer to another method");
        if kind == stun::BINDING {
            assert_eq!(answer.addresses(MAPPED), [to.five_tuple.client]);
            return;
        }
        let request = Reader::parse(bytes).expect("only our own requests have a key");
        let user = request.get(stun::USERNAME).expect("signed");
        let number = |kind| request.number(kind).expect("four bytes");
        if kind == stun::REFRESH {
            return self.refreshed(now, client, user, &request, answer);
        }
        let allocation = self.allocations.get_mut(&client).expect("granted without an allocation");
        assert!(allocation.is_granted && allocation.user == user, "granted to another user");
        match kind {
            stun::ALLOCATE => self.check_granted(now, client, to, answer),
            stun::CREATE_PERMISSION => {
                let peers = request.addresses(stun::PEER);
                assert!(!peers.is_empty());
                peers.into_iter().for_each(|peer| self.permit(now, client, peer));
            }
            stun::CHANNEL_BIND => {
                let channel = (number(stun::CHANNEL_NUMBER) >> 16) as u16;
                let peer = request.addresses(stun::PEER)[0];
                assert!((0x4000..=0x7fff).contains(&channel));
                let bound = allocation.channels.iter().filter(|(_, (_, end))| *end > now);
                for (other, (to, _)) in bound {
                    assert_eq!(*other == channel, *to == local(peer), "a channel and a peer are one to one");
                }
                allocation.channels.insert(channel, (local(peer), now + CHANNEL));
                assert!(!Self::is_service(local(peer)), "a channel to {peer}");
                self.permit(now, client, peer);
            }
            _ => panic!("granted an unknown method: {kind:#06x}"),
        }
    }

    fn permit(&mut self, now: u64, client: usize, peer: SocketAddr) {
        let has_family = self
            .relays
            .values()
            .any(|relay| relay.owner == client && relay.address.is_ipv4() == peer.is_ipv4());
        assert!(has_family && !Self::is_refused(local(peer)), "a permission for {peer}");
        let allocation = self.allocations.get_mut(&client).expect("checked");
        allocation.permissions.insert(local(peer).ip(), now + PERMISSION);
    }

    /// Returns whether the policy refuses this one of [`PEERS`].
    fn is_refused(peer: SocketAddr) -> bool {
        ["10.0.0.1:7000", "[fc00::1]:7000"].iter().any(|text| text.parse() == Ok(peer))
    }

    /// The server's own listener among [`PEERS`]. Relayed addresses share its IP address, so a permission is allowed.
    fn is_service(peer: SocketAddr) -> bool {
        "10.1.1.1:3478".parse() == Ok(peer)
    }

    fn refreshed(&mut self, now: u64, client: usize, user: &[u8], request: &Reader, answer: &Reader) {
        let lifetime = u64::from(answer.number(stun::LIFETIME).expect("LIFETIME"));
        let family = request.get(stun::FAMILY).map(|value| value[0]);
        let chosen = |relay: &Relay| {
            relay.owner == client && family.is_none_or(|family| (family == 1) == relay.address.is_ipv4())
        };
        if lifetime == 0 {
            assert_eq!(request.number(stun::LIFETIME), Some(0));
            assert!(!self.relays.values().any(chosen), "deleted, but still there");
            return;
        }
        assert!((LIFETIME_MIN..=super::LIFETIME_MAX).contains(&lifetime));
        let allocation = self.allocations.get(&client).expect("refreshed what is not there");
        assert!(allocation.is_granted && allocation.user == user, "granted to another user");
        let relays: Vec<&mut Relay> = self.relays.values_mut().filter(|relay| chosen(relay)).collect();
        assert!(!relays.is_empty());
        relays.into_iter().for_each(|relay| relay.end = Some(now + lifetime));
    }

    fn lets_through(&self, now: u64, client: usize, peer: SocketAddr) -> bool {
        let alive = |relay: &Relay| {
            relay.owner == client
                && relay.address.is_ipv4() == peer.is_ipv4()
                && relay.end.is_some_and(|end| end > now)
        };
        let allocation = self.allocations.get(&client);
        self.relays.values().any(alive)
            && allocation.is_some_and(|a| a.permissions.get(&peer.ip()).is_some_and(|&end| end > now))
    }

    /// Returns where a Send indication to `peer` goes.
    pub fn route_send(&self, now: u64, client: usize, peer: SocketAddr) -> Option<SocketAddr> {
        let peer = local(peer);
        self.lets_through(now, client, peer).then_some(peer)
    }

    /// Returns where ChannelData goes.
    pub fn route_channel(&self, now: u64, client: usize, number: u16) -> Option<SocketAddr> {
        let (peer, end) = *self.allocations.get(&client)?.channels.get(&number)?;
        (end > now && self.lets_through(now, client, peer)).then_some(peer)
    }

    /// Returns the client that a datagram of `peer` reaches, and by which channel.
    pub fn route_from_peer(
        &self,
        now: u64,
        relay: RelayId,
        peer: SocketAddr,
    ) -> Option<(usize, Option<u16>)> {
        let relay = self.relays.get(&relay)?;
        let fits = relay.address.is_ipv4() == peer.is_ipv4() && relay.end.is_some_and(|end| end > now);
        if !fits || !self.lets_through(now, relay.owner, peer) {
            return None;
        }
        let channels = &self.allocations.get(&relay.owner)?.channels;
        let bound = channels.iter().find(|(_, (to, end))| *to == peer && *end > now);
        Some((relay.owner, bound.map(|(&number, _)| number)))
    }

    /// A client's data was relayed: only with an allocation and a permission, and unchanged.
    pub fn relayed(
        &mut self,
        now: u64,
        client: usize,
        relay: RelayId,
        peer: SocketAddr,
        bytes: &[u8],
        payload: &[u8],
    ) {
        let from = self.relays.get(&relay).expect("a relay that exists");
        assert!(from.owner == client && from.open && from.address.is_ipv4() == peer.is_ipv4());
        assert!(self.lets_through(now, client, peer), "without permission: {peer}");
        assert!(!Self::is_refused(peer) && !Self::is_service(peer), "the policy refuses {peer}");
        if bytes[0] >= 64 {
            let number = u16::from_be_bytes([bytes[0], bytes[1]]);
            assert_eq!(self.route_channel(now, client, number), Some(peer));
            let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert_eq!(payload, &bytes[4..4 + len]);
        } else if let Some(send) = Reader::parse(bytes) {
            assert_eq!(send.addresses(stun::PEER).first().map(|to| local(*to)), Some(peer));
            assert_eq!(send.get(stun::DATA), Some(payload));
        }
        let traffic = &mut self.allocations.get_mut(&client).expect("checked").from_client;
        traffic.packets += 1;
        traffic.bytes += payload.len() as u64;
    }

    /// A peer's data reaches its client, by the channel if there is one.
    pub fn relayed_back(
        &mut self,
        owner: usize,
        peer: SocketAddr,
        len: usize,
        channel: Option<u16>,
        header: PeerHeader,
    ) {
        match header {
            PeerHeader::Channel(number) => assert_eq!(channel, Some(number)),
            PeerHeader::Data { peer: Announced(told), .. } => {
                assert_eq!((channel, told), (None, announced(peer)));
            }
        }
        let traffic = &mut self.allocations.get_mut(&owner).expect("checked").from_peer;
        traffic.packets += 1;
        traffic.bytes += len as u64;
    }
}
