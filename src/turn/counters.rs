//! Counters and gauges of the protocol. One set per worker: a single writer, any number of readers, no lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::action::{DropReason, Traffic};
use crate::base::host::{HOSTS_MAX, HostId};
use crate::base::transport::Transport;
use crate::wire::message::method;

/// A number with one writer. Adding is a plain load and store, so it costs no more than a field.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`. Only the owning worker may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The current value. Any thread may call this.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// STUN error codes that are counted by name (RFC 8489 section 14.8, RFC 8656 section 19).
pub const ERROR_CODES: [u16; 15] =
    [300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508];

/// Reasons of refusals that can be counted; there are fewer.
pub const REASONS_MAX: usize = 40;

/// Requests that are counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Binding.
    Binding,
    /// Allocate.
    Allocate,
    /// Refresh.
    Refresh,
    /// CreatePermission.
    CreatePermission,
    /// ChannelBind.
    ChannelBind,
    /// Any other method.
    Other,
}

impl Request {
    /// The kind of a STUN method (RFC 8489 section 18.2, RFC 8656 section 17).
    pub const fn of(number: u16) -> Self {
        match number {
            method::BINDING => Request::Binding,
            method::ALLOCATE => Request::Allocate,
            method::REFRESH => Request::Refresh,
            method::CREATE_PERMISSION => Request::CreatePermission,
            method::CHANNEL_BIND => Request::ChannelBind,
            _ => Request::Other,
        }
    }

    /// Every kind, in the order of its number.
    pub const ALL: [Request; 6] = [
        Request::Binding,
        Request::Allocate,
        Request::Refresh,
        Request::CreatePermission,
        Request::ChannelBind,
        Request::Other,
    ];

    /// The label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Request::Binding => "binding",
            Request::Allocate => "allocate",
            Request::Refresh => "refresh",
            Request::CreatePermission => "create_permission",
            Request::ChannelBind => "channel_bind",
            Request::Other => "other",
        }
    }
}

/// Payload relayed in one direction. A datagram is counted when the protocol decides to relay it, and subtracted if it could
/// not be sent: in the same turn, or after it has waited for a stream. Meanwhile the number is too high.
#[derive(Debug, Default)]
pub struct Flow {
    /// Datagrams.
    pub packets: Counter,
    /// Payload bytes.
    pub bytes: Counter,
}

impl Flow {
    /// Counts one datagram.
    pub fn add(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }

    /// Subtracts datagrams that were counted and then could not be sent.
    pub fn take_back(&self, unsent: Traffic) {
        self.packets.sub(unsent.packets);
        self.bytes.sub(unsent.bytes);
    }
}

/// The counters of one host on one transport.
#[derive(Debug, Default)]
pub struct HostRung {
    /// Current allocations.
    pub allocations: Counter,
    /// Allocations made since the start.
    pub allocated: Counter,
    /// Those of [`allocated`](Self::allocated) that say nothing about the users: see
    /// [`is_trial`](super::identity::own_test::is_trial).
    pub tested: Counter,
    /// Allocations with a name that a secret verified and that says nothing of [`tested`](Self::tested): the issuer has that secret.
    pub issued: Counter,
    /// Those of [`issued`](Self::issued) whose names expire within a day: the clocks of the issuer and of this machine agree.
    pub timely: Counter,
    /// Allocations that got a permission.
    pub permitted: Counter,
    /// Allocations whose client sent data to a peer.
    pub sent: Counter,
    /// Allocations that received data from a peer.
    pub received: Counter,
    /// Towards peers.
    pub from_client: Flow,
    /// Towards clients.
    pub from_peer: Flow,
}

/// All counters of one worker's protocol side.
#[derive(Debug)]
pub struct Counters {
    hosts: Vec<[HostRung; Transport::ALL.len()]>,
    drops: [Counter; DropReason::ALL.len()],
    errors: [[[Counter; ERROR_CODES.len()]; Request::ALL.len()]; Transport::ALL.len()],
    authenticated: [Counter; Transport::ALL.len()],
    requests: [[Counter; Request::ALL.len()]; Transport::ALL.len()],
    /// By host, those without one last, and then by transport and reason. A host's are made at its first refusal.
    refusals: Vec<OnceLock<Box<[Counter]>>>,
    /// Current permissions.
    pub permissions: Counter,
    /// Current channels.
    pub channels: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            hosts: (0..HOSTS_MAX).map(|_| Default::default()).collect(),
            drops: Default::default(),
            errors: Default::default(),
            authenticated: Default::default(),
            requests: Default::default(),
            refusals: (0..=HOSTS_MAX).map(|_| OnceLock::new()).collect(),
            permissions: Counter::default(),
            channels: Counter::default(),
        }
    }
}

impl Counters {
    /// The counters of one host on one transport.
    pub fn host(&self, host: HostId, transport: Transport) -> &HostRung {
        // A HostId is always below HOSTS_MAX; the minimum only rules out a panic.
        &self.hosts[usize::from(host.0).min(HOSTS_MAX - 1)][transport.index()]
    }

    /// Resets the gauges after the server that set them is gone.
    pub fn forget_alive(&self) {
        self.hosts.iter().flatten().for_each(|rung| rung.allocations.set(0));
        self.permissions.set(0);
        self.channels.set(0);
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.drops[reason.index()]
    }

    /// Allocate requests with good credentials.
    pub fn authenticated(&self, transport: Transport) -> &Counter {
        &self.authenticated[transport.index()]
    }

    /// Error answers with this code to requests of this kind over this transport. Unknown codes count as 500.
    pub fn error(&self, transport: Transport, request: Request, code: u16) -> &Counter {
        let position = |code| ERROR_CODES.iter().position(|&known| known == code);
        // 500 is in the list, so the fallback is always found.
        let errors = &self.errors[transport.index()][request as usize];
        &errors[position(code).or_else(|| position(500)).unwrap_or(0)]
    }

    /// Error answers with this code to all requests.
    pub fn errors(&self, code: u16) -> u64 {
        let all = Transport::ALL.into_iter().flat_map(|t| Request::ALL.map(|request| (t, request)));
        all.map(|(transport, request)| self.error(transport, request, code).get()).sum()
    }

    /// Refusals for this reason ([`Reason::index`](super::identity::refusal::Reason::index)); of no host if no secret verified.
    pub fn refusal(&self, host: Option<HostId>, transport: Transport, reason: usize) -> &Counter {
        let make = || (0..Transport::ALL.len() * REASONS_MAX).map(|_| Counter::default()).collect();
        let of_host = self.refusals[Self::refusals_of(host)].get_or_init(make);
        &of_host[transport.index() * REASONS_MAX + reason.min(REASONS_MAX - 1)]
    }

    /// The number of refusals for this reason. Unlike [`Counters::refusal`], makes no counters.
    pub fn refused(&self, host: Option<HostId>, transport: Transport, reason: usize) -> u64 {
        let is_made = self.refusals[Self::refusals_of(host)].get().is_some();
        if is_made { self.refusal(host, transport, reason).get() } else { 0 }
    }

    fn refusals_of(host: Option<HostId>) -> usize {
        host.map_or(HOSTS_MAX, |host| usize::from(host.0).min(HOSTS_MAX - 1))
    }

    /// Requests of this kind over this transport.
    pub fn request(&self, transport: Transport, request: Request) -> &Counter {
        &self.requests[transport.index()][request as usize]
    }
}
