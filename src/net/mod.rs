//! The network: the only sockets of the relay.
//!
//! [`bind`] makes every listener before any thread starts, [`spawn`] starts one worker per core, the [`Handle`]
//! tells them what changes. A worker owns everything its packets need:
//!
//! ```text
//!                     worker: loop, clock, routing of events          budget: what one turn may use
//!            _____________|______________________________
//!           |                             |              |
//!       datagram                        front       turn::server
//!   listener relay batch      doors of stream clients    the protocol
//!           |                  stream: socket, TLS, outbox
//!        syscall                       syscall
//! ```
//!
//! A ChannelData packet of a UDP client: [`datagram`] receives it, the worker asks the protocol, [`datagram`] sends it. One
//! of a stream client: [`front`] reads and frames it, then the same. A web request: [`front`] decides on its first bytes
//! and splices it to its back end.

pub mod admission;
mod budget;
pub mod counters;
pub mod datagram;
pub mod front;
mod log;
pub mod scratch;
pub mod socket;
pub mod stream;
mod supervisor;
pub mod syscall;
pub mod token;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use admission::{Admission, Gate};
use counters::Counters;
pub use front::first_bytes::Web;
use ipnet::IpNet;
use log::SessionLog;
pub use socket::{BindError, WorkerSockets, bind};
pub use stream::tls::{Choice, TlsChooser};
use supervisor::Supervisor;
use syscall::{Offloads, Waker};
use worker::{Controls, Persistent};

use crate::base::time::Now;
use crate::base::transport::Transport;
use crate::system::entropy;
use crate::turn;
use crate::turn::server::Server;

/// Commands that may wait for a worker. They are rare; a full queue makes the sender wait.
const COMMANDS: usize = 16;

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// For what.
    pub transport: Transport,
    /// Where; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether an IPv6 wildcard leaves IPv4 clients to another listener.
    pub only_v6: bool,
    /// Who may connect, and must say for whom (PROXY protocol); empty: anybody, for himself.
    pub proxies: Vec<IpNet>,
    /// Whether web clients come in here too.
    pub web: bool,
    /// Whether TLS and plain clients come in, whatever `transport` says: the first byte tells them apart.
    pub either: bool,
    /// The QUIC server that shares this UDP port.
    pub quic: Option<SocketAddr>,
}

impl Listener {
    /// For TURN alone and without a proxy.
    pub fn new(transport: Transport, address: SocketAddr) -> Self {
        Self {
            transport,
            address,
            only_v6: false,
            proxies: Vec::new(),
            web: false,
            either: false,
            quic: None,
        }
    }
}

/// What the operator decided about sockets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Threads, each with sockets of its own; at least one.
    pub workers: usize,
    /// TCP_MAXSEG of stream listeners; 0 = the kernel's choice.
    pub mss: u16,
    /// How many streams there may be.
    pub admission: admission::Rules,
    /// How many sockets there may be for clients, peers and web servers; `None` = no limit.
    pub descriptors: Option<u32>,
    /// Whether client addresses are left out of the log.
    pub privacy: bool,
}

/// What workers are told while they run.
#[derive(Clone)]
pub enum Command {
    /// New settings of the protocol.
    Settings(Arc<turn::settings::Settings>),
    /// New certificates; running connections keep theirs.
    Tls(Arc<dyn TlsChooser>),
    /// New web servers; running connections keep theirs.
    Web(Arc<Web>),
    /// Whether new allocations are refused. The listeners stay, for clients that have one.
    Drain(bool),
    /// End every allocation, close every stream, end the thread.
    Stop,
}

/// The end of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which one.
    pub worker: usize,
    /// What went wrong; `None` after [`Command::Stop`].
    pub failure: Option<String>,
}

/// The running workers.
pub struct Handle {
    workers: Vec<Running>,
    exits: Receiver<Exit>,
    admission: Arc<Admission>,
}

struct Running {
    commands: SyncSender<Command>,
    waker: Waker,
    counters: Arc<Counters>,
    allocations: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Tells every worker. Waits only when one has many commands before it.
    pub fn send(&self, command: &Command) {
        for worker in &self.workers {
            // A worker that ended has said so by its `Exit`.
            if worker.commands.send(command.clone()).is_ok() {
                worker.waker.wake();
            }
        }
    }

    /// Allocations alive, as of each worker's last turn.
    pub fn allocations(&self) -> u64 {
        self.workers.iter().map(|worker| worker.allocations.load(Relaxed)).sum()
    }

    /// The counters of every worker, in order.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.counters)).collect()
    }

    /// Who may come in, and how many are.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The next end of a worker within `timeout`. One with a failure leaves its clients without service: the
    /// process should end and be started again.
    pub fn next_exit(&self, timeout: Duration) -> Option<Exit> {
        self.exits.recv_timeout(timeout).ok()
    }

    /// Waits for the end of every worker; gives the ends not yet taken.
    pub fn join(self) -> Vec<Exit> {
        for worker in self.workers {
            // Panics are caught inside and reported as a failure.
            let _ = worker.thread.join();
        }
        self.exits.try_iter().collect()
    }
}

/// Starts a worker for each of `sockets`, with the protocol state at the same place of `servers`. `clock` is read
/// once per turn of a worker; `tls` chooses the configuration of TLS clients, which are refused without it; `web` is
/// for the shared ports, where web clients are refused without it.
///
/// # Errors
/// The kernel has no epoll, eventfd, thread or randomness for us, or the lengths differ.
pub fn spawn(
    settings: &Settings,
    sockets: Vec<WorkerSockets>,
    servers: Vec<Server>,
    clock: fn() -> Now,
    tls: Option<Arc<dyn TlsChooser>>,
    web: Option<Arc<Web>>,
) -> io::Result<Handle> {
    if sockets.len() != servers.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "every worker needs its sockets and its state",
        ));
    }
    let offloads = Offloads::probe();
    log::missing(offloads);
    let descriptors = settings.descriptors.unwrap_or(u32::MAX);
    let admission = Arc::new(Admission::new(settings.admission.clone(), descriptors));
    let (exit, exits) = channel();
    let count = servers.len();
    let mut workers = Vec::with_capacity(count);
    for (number, (sockets, server)) in sockets.into_iter().zip(servers).enumerate() {
        let (commands, received) = sync_channel(COMMANDS);
        let (waker, counters, allocations) = (Waker::new()?, Arc::default(), Arc::default());
        let controls = Controls {
            commands: received,
            waker: waker.clone(),
            counters: Arc::clone(&counters),
            allocations: Arc::clone(&allocations),
            gate: Gate::new(Arc::clone(&admission), count),
        };
        let log = SessionLog::new(settings.privacy, entropy::seed().map_err(io::Error::other)?);
        let persistent = Persistent { server, tls: tls.clone(), web: web.clone(), controls, log };
        let supervisor = Supervisor { number, sockets, clock, offloads };
        let exit = exit.clone();
        // The worker is made on its thread: its buffers hold pointers for the kernel, and its memory is local.
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let failure = supervisor.run(persistent);
            // Nobody listens when the handle is gone.
            let _ = exit.send(Exit { worker: number, failure });
        })?;
        workers.push(Running { commands, waker, counters, allocations, thread });
    }
    Ok(Handle { workers, exits, admission })
}
