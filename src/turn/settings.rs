//! The settings of the protocol. `cli::serve` builds them from the configuration.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::family::DefaultFamily;
use crate::base::host::HostId;
use crate::base::transport::Transport;

/// All settings of the protocol; a reload replaces them as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// REALM; at most 52 bytes, so that the first 401 stays within 2.5 times the request.
    pub realm: String,
    /// The hosts whose users may use the relay.
    pub hosts: Vec<Host>,
    /// Users with a fixed password.
    pub users: Vec<StaticUser>,
    /// Addresses to relay from; the one the client reached is preferred, then the first of the family.
    pub relay_addresses: Vec<RelayAddress>,
    /// The family of the relayed address for a client that names none.
    pub default_family: DefaultFamily,
    /// Ports to relay from.
    pub relay_ports: RangeInclusive<u16>,
    /// Which peers may be reached.
    pub peers: PeerRules,
    /// Limits.
    pub limits: Limits,
    /// The servers that new clients are sent to while draining.
    pub alternates: Alternates,
    /// Whether channels above 0x4FFF are refused (RFC 8656) instead of accepted (RFC 5766).
    pub strict_channels: bool,
    /// Whether clients are told of ICMP errors (RFC 8656 section 11.5), by Data indications without DATA.
    pub icmp_to_clients: bool,
}

impl Settings {
    /// Whether both have the same credentials, so that identities verified under one are valid under the other.
    pub fn same_credentials(&self, other: &Self) -> bool {
        let [hosts, others] = [self, other].map(|settings| settings.hosts.iter().map(Host::credentials));
        self.realm == other.realm && self.users == other.users && hosts.eq(others)
    }
}

/// One BBB host, or any other party that issues credentials.
#[derive(Clone)]
pub struct Host {
    /// The index of its counters.
    pub id: HostId,
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Shared secrets. All of them are valid, except those that any host lists as `revoked`.
    pub secrets: Vec<String>,
    /// Secrets that are not valid for any host, no matter which one lists them. Allocations made with one end at once.
    pub revoked: Vec<String>,
    /// Allow-list: if present, this host's users reach only these peers.
    pub peers: Option<Vec<IpNet>>,
    /// If present, a user of this host reaches only its own relayed addresses, and `peers` has no effect.
    pub confined: Option<Confined>,
}

/// The limits of users who may only test the relay. Each reaches nothing but its own relayed addresses, until its name expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Allocations of one user; 0 = no limit.
    pub allocations_per_user: u32,
    /// Allocations of all users of the host; 0 = no limit.
    pub allocations: u32,
    /// How much may be relayed.
    pub rates: Rates,
}

impl Host {
    /// Everything that the verification of its users depends on.
    fn credentials(&self) -> (HostId, &str, &[String], &[String]) {
        (self.id, &self.name, &self.secrets, &self.revoked)
    }
}

/// Prints how many secrets there are, not the secrets.
impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("secrets", &self.secrets.len())
            .field("revoked", &self.revoked.len())
            .field("peers", &self.peers)
            .field("confined", &self.confined)
            .finish()
    }
}

/// A user with a fixed password, for tests and small installations. If it is removed, its allocations end at once. If its
/// password changes, its allocations continue, but cannot add peers.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticUser {
    /// User name, as in USERNAME.
    pub name: String,
    /// Password.
    pub password: String,
    /// The host whose peers and limits apply; its name must be in [`Settings::hosts`].
    pub host: HostId,
}

/// Does not print the password.
impl fmt::Debug for StaticUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticUser")
            .field("name", &self.name)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// One local address to relay from, and the one that clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The address that sockets are bound to.
    pub local: IpAddr,
    /// The address in XOR-RELAYED-ADDRESS; differs from `local` behind 1:1 NAT.
    pub announced: IpAddr,
    /// Whether it serves only clients on this machine that connected to loopback.
    pub only_local: bool,
}

/// Other servers (RFC 8489 section 10), by the transport and the address family of the clients that are sent there.
#[derive(Clone, Debug, Default)]
pub struct Alternates {
    udp: [RoundRobin; 2],
    tcp: [RoundRobin; 2],
    tls: [RoundRobin; 2],
}

/// Servers that are named round-robin, across all workers.
#[derive(Clone, Debug, Default)]
struct RoundRobin {
    servers: Vec<SocketAddr>,
    named: Arc<AtomicUsize>,
}

impl Alternates {
    /// The servers for clients on UDP, TCP and TLS.
    pub fn new(udp: Vec<SocketAddr>, tcp: Vec<SocketAddr>, tls: Vec<SocketAddr>) -> Self {
        let by_family = |servers: Vec<SocketAddr>| {
            let (v4, v6) = servers.into_iter().partition(SocketAddr::is_ipv4);
            [v4, v6].map(|servers| RoundRobin { servers, named: Arc::default() })
        };
        Self { udp: by_family(udp), tcp: by_family(tcp), tls: by_family(tls) }
    }

    /// Whether there is a server for a client of this transport and address family (RFC 8489 section 14.15).
    pub fn serve(&self, transport: Transport, client: SocketAddr) -> bool {
        !self.of(transport, client).servers.is_empty()
    }

    /// The next server, round-robin, for a client of this transport and address family.
    pub fn next(&self, transport: Transport, client: SocketAddr) -> Option<SocketAddr> {
        let RoundRobin { servers, named } = self.of(transport, client);
        let turn = named.fetch_add(1, Relaxed);
        servers.get(turn.checked_rem(servers.len())?).copied()
    }

    fn of(&self, transport: Transport, client: SocketAddr) -> &RoundRobin {
        let [v4, v6] = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
            Transport::Tls => &self.tls,
        };
        if client.is_ipv4() { v4 } else { v6 }
    }
}

/// The peer policy on top of the built-in denies.
#[derive(Clone, Debug, Default)]
pub struct PeerRules {
    /// Allowed prefixes.
    pub allow: Vec<IpNet>,
    /// Denied prefixes.
    pub deny: Vec<IpNet>,
    /// This machine's own addresses, including announced ones and local prefixes. They are denied except for live relayed
    /// addresses, unless an allowed prefix names them.
    pub own: Vec<IpNet>,
    /// Our own services, including back ends. No rule makes them reachable: a service on this machine is refused at all own
    /// addresses, one on another machine at its own address.
    pub services: Vec<SocketAddr>,
}

/// Limits of the protocol. Zero means no limit where the field says so.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Allocations one user may hold; 0 = no limit.
    pub allocations_per_user: u32,
    /// Allocations of one host's users together; 0 = no limit.
    pub allocations_per_host: u32,
    /// Allocations in all; 0 = no limit.
    pub allocations_total: u32,
    /// Requests without good credentials, a second, from one source over UDP; four times as many over TCP and TLS
    /// together. Limits of Bindings and of the first requests of a connection are multiples of it. 0 = no limit.
    pub unauthenticated_per_source: u32,
    /// Requests a second with the credentials of one user; 0 = no limit.
    pub requests_per_user: u32,
    /// Permissions one allocation may hold.
    pub permissions_per_allocation: u32,
    /// Channels one allocation may hold.
    pub channels_per_allocation: u32,
    /// Permissions and channels that all allocations of one user may hold together; 0 = no limit.
    pub permissions_per_user: u32,
    /// The longest LIFETIME granted.
    pub lifetime_max: Duration,
    /// How much may be relayed.
    pub rates: Rates,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations_per_user: 0,
            allocations_per_host: 0,
            allocations_total: 0,
            unauthenticated_per_source: 500,
            requests_per_user: 1000,
            permissions_per_allocation: 1000,
            channels_per_allocation: 1000,
            permissions_per_user: 20_000,
            lifetime_max: Duration::from_secs(3600),
            rates: Rates::default(),
        }
    }
}

/// A rate limit; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Payload, in 1,000 bits a second.
    pub kbit: u32,
    /// Datagrams a second.
    pub packets: u32,
}

impl Rate {
    /// Bits a second.
    pub(super) fn bits(self) -> u64 {
        u64::from(self.kbit) * 1000
    }
}

/// The rate limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of each allocation.
    pub allocation: Rate,
    /// Of each user, by the part of a REST user name after the first colon; no limit if that is empty.
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
