//! What happened on the sockets, as numbers. One set per worker: a single writer, any number of readers.

use crate::base::transport::Transport;
use crate::turn::counters::Counter;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident: $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every one, in the order of its number.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The label in metrics.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// Why a stream was closed.
    CloseReason:
    /// The client ended it.
    Closed = "closed",
    /// Reset, or dead by keepalive or TCP_USER_TIMEOUT.
    Reset = "reset",
    /// Bytes that are not TURN.
    Garbage = "garbage",
    /// The TLS handshake or a later record failed.
    TlsFailed = "tls_failed",
    /// The TLS handshake took too long.
    HandshakeTimeout = "handshake_timeout",
    /// No authenticated request and no allocation for too long.
    Idle = "idle",
    /// The client does not read even its answers.
    Stuck = "stuck",
    /// The server stops.
    Shutdown = "shutdown",
    /// No PROXY header came first.
    NotProxied = "not_proxied",
    /// The web server behind us ended it.
    BackEnd = "back_end",
    /// More than one may have: streams of a source behind a proxy, requests in a row that do not authenticate, time for
    /// TLS handshakes, or web clients.
    TooMany = "too_many",
    /// It made room for another client: the oldest stranger, or a silent web client.
    Displaced = "displaced",
}

labels! {
    /// Why somebody new was not let in.
    Refusal:
    /// As many streams as there may be.
    Total = "connections_total",
    /// As many streams as one source may have.
    Source = "connections_per_source",
    /// No descriptors left, or the kernel gave none.
    Descriptors = "descriptors",
    /// Too little memory left.
    Memory = "memory",
    /// The address to relay from is not this machine's.
    Address = "address",
}

labels! {
    /// How far a stream got.
    Stage:
    /// Accepted.
    Accepted = "accepted",
    /// The TLS handshake is done.
    Tls = "tls",
    /// It is the web's.
    Web = "web",
    /// A STUN message came.
    Stun = "stun",
    /// An allocation was made.
    Allocated = "allocated",
}

impl Stage {
    /// Its place on the way.
    pub const fn index(self) -> usize {
        self as usize
    }
}

labels! {
    /// Whose a client on a shared port turned out to be.
    Decision:
    /// TURN.
    Turn = "turn",
    /// The web server for HTTP/1.1.
    Http1 = "http1",
    /// The web server for HTTP/2.
    H2 = "h2",
    /// The built-in site.
    Site = "site",
    /// The web without TLS, which is redirected to it.
    Redirect = "redirect",
    /// Another TLS server, by name.
    PassThrough = "pass_through",
}

labels! {
    /// How a TLS handshake ended.
    TlsOutcome:
    /// Done.
    Done = "ok",
    /// The client does not know who signed our certificate: an own root missing, or TLS is intercepted.
    UnknownCa = "unknown_ca",
    /// The client refuses our certificate.
    BadCertificate = "bad_certificate",
    /// The client sent another alert.
    OtherAlert = "other_alert",
    /// No version, cipher suite, group or protocol in common.
    NothingShared = "nothing_shared",
    /// Not TLS, or broken TLS.
    Garbage = "garbage",
    /// Not done in time.
    Timeout = "timeout",
    /// The client left before the end.
    Left = "left",
    /// Our side could not go on.
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
    /// Bytes from clients, as they came from the socket.
    pub received: Counter,
    /// Bytes to clients, as they went to the socket.
    pub sent: Counter,
    /// Media messages that waited too long and were dropped.
    pub stale: Counter,
    closed: [[Counter; CloseReason::ALL.len()]; Stage::ALL.len()],
}

impl Streams {
    /// Streams closed at once for this reason.
    pub fn refused(&self, refusal: Refusal) -> &Counter {
        &self.refused[refusal as usize]
    }

    /// Streams closed for this reason after they had come so far.
    pub fn closed(&self, stage: Stage, reason: CloseReason) -> &Counter {
        &self.closed[stage.index()][reason as usize]
    }
}

/// All counters of one worker's network side.
#[derive(Debug, Default)]
pub struct Counters {
    streams: [Streams; Transport::ALL.len()],
    tls: [Counter; TlsOutcome::ALL.len()],
    decisions: [Counter; Decision::ALL.len()],
    relays_refused: [Counter; Refusal::ALL.len()],
    /// Web clients whose web server could not be had.
    pub back_end_down: Counter,
    /// Connections to a listener behind a proxy that came from somebody else.
    pub untrusted: Counter,
    /// Returns from waiting.
    pub wakeups: Counter,
    /// Receive calls that found datagrams, and how many they found.
    pub batches: Counter,
    /// Datagrams received from clients and peers.
    pub datagrams: Counter,
    /// Datagrams sent to clients and peers.
    pub sent: Counter,
    /// Listeners paused because descriptors or memory ran out.
    pub accept_paused: Counter,
    /// Relay sockets open now.
    pub relays: Counter,
    /// ICMP errors that peers' networks sent.
    pub icmp: Counter,
    /// How often the worker failed and was started again.
    pub restarts: Counter,
}

impl Counters {
    /// The streams of `transport`; of UDP always zero.
    pub fn streams(&self, transport: Transport) -> &Streams {
        &self.streams[transport.index()]
    }

    /// Relayed addresses that were not opened for this reason.
    pub fn relays_refused(&self, refusal: Refusal) -> &Counter {
        &self.relays_refused[refusal as usize]
    }

    /// Nothing is open any more: the worker is another one.
    pub fn forget_open(&self) {
        self.streams.iter().for_each(|streams| streams.open.set(0));
        self.relays.set(0);
    }

    /// Clients of shared ports that turned out to be so.
    pub fn decided(&self, decision: Decision) -> &Counter {
        &self.decisions[decision as usize]
    }

    /// TLS handshakes that ended so.
    pub fn tls(&self, outcome: TlsOutcome) -> &Counter {
        &self.tls[outcome as usize]
    }
}
