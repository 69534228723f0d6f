//! Counters of socket events, one set per worker: a single writer, any number of readers.

mod turns;

pub use turns::Turns;

use std::net::IpAddr;
use std::sync::Mutex;

use crate::base::lock::lock;
use crate::base::transport::Transport;
use crate::turn::counters::Counter;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident: $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All variants, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// Returns the label in metrics.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// Why a stream was closed.
    CloseReason:
    /// The client closed it.
    Closed = "closed",
    /// Reset, or found dead by keepalive or TCP_USER_TIMEOUT.
    Reset = "reset",
    /// Bytes that are not TURN.
    Garbage = "garbage",
    /// The TLS handshake or a later record failed.
    TlsFailed = "tls_failed",
    /// The TLS handshake took too long.
    HandshakeTimeout = "handshake_timeout",
    /// Idle for too long: a client that sent no first byte, a TURN client without an authenticated request or an
    /// allocation, or a web client without traffic.
    Idle = "idle",
    /// The client does not read its answers.
    Stuck = "stuck",
    /// The server is stopping.
    Shutdown = "shutdown",
    /// No PROXY header at the start, or not in time.
    NotProxied = "not_proxied",
    /// The connection to the back end failed.
    BackEnd = "back_end",
    /// A limit was exceeded: the streams of one source behind a proxy, the requests or bytes of a client that does not
    /// authenticate, or the number of web clients.
    TooMany = "too_many",
    /// Closed to make room for another client. Only web clients and clients without an allocation are displaced.
    Displaced = "displaced",
    /// Closed because the kernel's memory for TCP runs low and it holds much of it for this connection without a use.
    KernelMemory = "kernel_memory",
}

labels! {
    /// Why a new stream or relay was refused.
    Refusal:
    /// The limit of all streams.
    Total = "connections_total",
    /// The limit of streams of one source.
    Source = "connections_per_source",
    /// No descriptors left, or the kernel refused one.
    Descriptors = "descriptors",
    /// Too little memory.
    Memory = "memory",
    /// The address to relay from does not belong to this machine.
    Address = "address",
}

labels! {
    /// How far a stream got.
    Stage:
    /// Accepted.
    Accepted = "accepted",
    /// The TLS handshake is done.
    Tls = "tls",
    /// Forwarded to a web server or to the built-in site.
    Web = "web",
    /// A STUN message arrived.
    Stun = "stun",
    /// An allocation was created.
    Allocated = "allocated",
}

impl Stage {
    /// Returns the position of the stage.
    pub const fn index(self) -> usize {
        self as usize
    }
}

labels! {
    /// What a client on a shared port was recognised as.
    Decision:
    /// A TURN client.
    Turn = "turn",
    /// A client of the HTTP/1.1 back end.
    Http1 = "http1",
    /// A client of the HTTP/2 back end.
    H2 = "h2",
    /// A client of the built-in site.
    Site = "site",
    /// A web client without TLS, which is redirected to HTTPS.
    Redirect = "redirect",
    /// A client of another TLS server, by name.
    PassThrough = "pass_through",
}

labels! {
    /// How a TLS handshake ended.
    TlsOutcome:
    /// Done.
    Done = "ok",
    /// The client does not trust the issuer of the certificate: a private root is not installed, or TLS is
    /// intercepted.
    UnknownCa = "unknown_ca",
    /// The client rejects the certificate.
    BadCertificate = "bad_certificate",
    /// The client sent another alert.
    OtherAlert = "other_alert",
    /// No common version, cipher suite, group or protocol.
    NothingShared = "nothing_shared",
    /// Not TLS, or broken TLS.
    Garbage = "garbage",
    /// Not finished in time.
    Timeout = "timeout",
    /// The client left before the end.
    Left = "left",
    /// An internal error.
    Internal = "internal",
}

/// The streams of one transport.
#[derive(Debug, Default)]
pub struct Streams {
    /// Accepted since the start.
    pub accepted: Counter,
    refused: [Counter; Refusal::ALL.len()],
    /// Open now.
    pub open: Counter,
    /// Bytes read from the sockets of clients.
    pub received: Counter,
    /// Bytes written to the sockets of clients.
    pub sent: Counter,
    /// Media messages that waited too long and were dropped.
    pub stale: Counter,
    closed: [[Counter; CloseReason::ALL.len()]; Stage::ALL.len()],
}

impl Streams {
    /// Returns the counter of streams closed on arrival for this reason.
    pub fn refused(&self, refusal: Refusal) -> &Counter {
        &self.refused[refusal as usize]
    }

    /// Returns the counter of streams closed at this stage for this reason.
    pub fn closed(&self, stage: Stage, reason: CloseReason) -> &Counter {
        &self.closed[stage.index()][reason as usize]
    }
}

/// The address of the last event of a kind. Only for events that are rare: it takes a lock, which no other worker needs.
#[derive(Debug, Default)]
pub struct LastAddress(Mutex<Option<IpAddr>>);

impl LastAddress {
    /// Sets it.
    pub fn set(&self, address: IpAddr) {
        *lock(&self.0) = Some(address);
    }

    /// Returns it; `None` without such an event.
    pub fn get(&self) -> Option<IpAddr> {
        *lock(&self.0)
    }
}

/// All counters of one worker's sockets.
#[derive(Debug, Default)]
pub struct Counters {
    streams: [Streams; Transport::ALL.len()],
    tls: [Counter; TlsOutcome::ALL.len()],
    decisions: [Counter; Decision::ALL.len()],
    relays_refused: [Counter; Refusal::ALL.len()],
    /// Web clients whose back end was unreachable.
    pub back_end_down: Counter,
    /// Connections to a listener behind a proxy from an untrusted source.
    pub untrusted: Counter,
    /// Where the last one of these came from.
    pub untrusted_from: LastAddress,
    /// The last peer that there was no route to.
    pub no_route_to: LastAddress,
    /// How often `epoll_wait(2)` returned.
    pub wakeups: Counter,
    /// How long the turns of the loop take.
    pub turns: Turns,
    /// Receive calls that found datagrams.
    pub batches: Counter,
    /// Datagrams received from clients and peers.
    pub datagrams: Counter,
    /// Datagrams sent to clients and peers.
    pub sent: Counter,
    /// Listeners paused because descriptors or memory ran out.
    pub accept_paused: Counter,
    /// Relay sockets open now.
    pub relays: Counter,
    /// ICMP errors received about relayed datagrams.
    pub icmp: Counter,
    /// How often the worker failed and was started again.
    pub restarts: Counter,
}

impl Counters {
    /// Returns the counters of `transport`; those of UDP are always zero.
    pub fn streams(&self, transport: Transport) -> &Streams {
        &self.streams[transport.index()]
    }

    /// Returns the counter of relayed addresses that were refused for this reason.
    pub fn relays_refused(&self, refusal: Refusal) -> &Counter {
        &self.relays_refused[refusal as usize]
    }

    /// Resets the counters of open streams and relays when a worker restarts.
    pub fn forget_open(&self) {
        self.streams.iter().for_each(|streams| streams.open.set(0));
        self.relays.set(0);
    }

    /// Returns the counter of clients on shared ports that were recognised as `decision`.
    pub fn decided(&self, decision: Decision) -> &Counter {
        &self.decisions[decision as usize]
    }

    /// Returns the counter of TLS handshakes that ended with `outcome`.
    pub fn tls(&self, outcome: TlsOutcome) -> &Counter {
        &self.tls[outcome as usize]
    }
}
