//! The state that a worker shares with other threads, and the state that outlives it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::net::Command;
use crate::net::admission::Gate;
use crate::net::counters::Counters;
use crate::net::front::first_bytes::Web;
use crate::net::log::SessionLog;
use crate::net::socket::WorkerSockets;
use crate::net::stream::tls::TlsChooser;
use crate::net::syscall::Waker;
use crate::turn::identity::refusal::Refusal;
use crate::turn::server::Server;

/// The state that a worker shares with the threads that started it.
pub struct Controls {
    /// Commands to the worker.
    pub commands: Receiver<Command>,
    /// Takes reports of refused requests.
    pub refusals: SyncSender<Refusal>,
    /// Wakes the worker after a command was sent.
    pub waker: Waker,
    /// The counters of the worker.
    pub counters: Arc<Counters>,
    /// The number of allocations; read by the thread that waits for the end of a drain.
    pub allocations: Arc<AtomicU64>,
    /// The limits of this worker; checked when a socket is opened.
    pub gate: Arc<Gate>,
}

/// The state that outlives a failed worker.
pub struct Persistent {
    /// The protocol, with all allocations.
    pub server: Server,
    /// The listeners. The worker uses duplicates: while either copy is open, the port stays bound.
    pub sockets: WorkerSockets,
    /// Chooses the configuration of TLS clients.
    pub tls: Option<Arc<dyn TlsChooser>>,
    /// The back ends of web clients.
    pub web: Option<Arc<Web>>,
    /// The state that it shares.
    pub controls: Controls,
    /// The log of sessions.
    pub log: SessionLog,
}
