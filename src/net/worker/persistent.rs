//! What a worker has from the threads that started it, and what outlives it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;

use crate::net::Command;
use crate::net::admission::Gate;
use crate::net::counters::Counters;
use crate::net::front::first_bytes::Web;
use crate::net::log::SessionLog;
use crate::net::stream::tls::TlsChooser;
use crate::net::syscall::Waker;
use crate::turn::server::Server;

/// What a worker shares with the threads that started it.
pub struct Controls {
    /// What it is told to do.
    pub commands: Receiver<Command>,
    /// Wakes it when a command was sent.
    pub waker: Waker,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Allocations alive; read by the thread that waits for the end of a drain.
    pub allocations: Arc<AtomicU64>,
    /// The places of this worker; asked when a socket is opened.
    pub gate: Arc<Gate>,
}

/// What outlives a worker that failed.
pub struct Persistent {
    /// The protocol, with all allocations.
    pub server: Server,
    /// Chooses the configuration of TLS clients.
    pub tls: Option<Arc<dyn TlsChooser>>,
    /// Where web clients go.
    pub web: Option<Arc<Web>>,
    /// What it shares.
    pub controls: Controls,
    /// The log of sessions.
    pub log: SessionLog,
}
