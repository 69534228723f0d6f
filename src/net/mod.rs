//! The network side of the relay, with all of its sockets.
//!
//! [`bind`] opens every listener before any thread starts, [`spawn`] starts one worker per core, and the [`Handle`]
//! sends them commands. A worker owns everything that its packets need:
//!
//! ```text
//!                     worker: loop, clock, dispatch of events         budget: limits of one turn
//!            _____________|______________________________
//!           |                             |              |
//!       datagram                        front       turn::server
//!   listener relay batch      stages of stream clients   the protocol
//!           |                  stream: socket, TLS, outbox
//!        syscall                       syscall
//! ```
//!
//! For a ChannelData packet of a UDP client, [`datagram`] receives it, the worker asks the protocol, and [`datagram`]
//! sends it. For one of a stream client, [`front`] reads and frames it, and the rest is the same. For a web request,
//! [`front`] decides by its first bytes and splices the connection to its back end.

pub mod admission;
mod budget;
mod command;
pub mod common_change;
pub mod counters;
pub mod datagram;
pub mod front;
pub mod listening;
mod log;
pub mod scratch;
pub mod sessions;
mod settings;
pub mod socket;
pub mod stream;
mod supervisor;
pub mod syscall;
pub mod token;
mod worker;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use admission::{Admission, Gate};
pub use command::{Command, TcpShortage};
use counters::Counters;
pub use front::first_bytes::Web;
use listening::ListenerChange;
use log::SessionLog;
use sessions::SessionReader;
pub use settings::{Listener, Settings};
pub use socket::{BindError, WorkerSockets, bind};
pub use stream::tls::{Choice, TlsChooser};
use supervisor::Supervisor;
use syscall::{Offloads, Waker};
use worker::{Controls, Persistent};

use crate::base::time::Now;
use crate::system::entropy;
use crate::turn::identity::refusal::Refusal;
use crate::turn::server::Server;

/// Commands that may wait for a worker. They are rare; a full queue blocks the sender.
const COMMANDS: usize = 16;
/// Reports of refusals that wait for the control thread, which takes them ten times a second.
const REFUSALS: usize = 256;

/// The end of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The number of the worker.
    pub worker: usize,
    /// The error; `None` after [`Command::Stop`].
    pub failure: Option<String>,
}

/// The running workers.
pub struct Handle {
    workers: Vec<Running>,
    exits: Receiver<Exit>,
    refusals: Receiver<Refusal>,
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
    /// Sends a command to every worker. Blocks while the queue of one is full.
    pub fn send(&self, command: &Command) {
        for worker in &self.workers {
            // A worker that has ended reports that through its `Exit`.
            if worker.commands.send(command.clone()).is_ok() {
                worker.waker.wake();
            }
        }
    }

    /// Returns the number of workers.
    #[allow(clippy::len_without_is_empty, reason = "there is always a worker")]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Sends each worker its change of the listeners. Blocks while the queue of one is full.
    pub fn change_listeners(&self, changes: Vec<ListenerChange>) {
        for (worker, change) in self.workers.iter().zip(changes) {
            // A worker that has ended reports that through its `Exit`.
            if worker.commands.send(Command::Listen(Arc::new(Mutex::new(change)))).is_ok() {
                worker.waker.wake();
            }
        }
    }

    /// Returns the number of allocations as of each worker's last turn.
    pub fn allocations(&self) -> u64 {
        self.workers.iter().map(|worker| worker.allocations.load(Relaxed)).sum()
    }

    /// Returns the counters of every worker, in order.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.counters)).collect()
    }

    /// Returns a reader of the sessions of all workers.
    pub fn sessions(&self) -> SessionReader {
        let workers = self.workers.iter().map(|worker| (worker.commands.clone(), worker.waker.clone()));
        SessionReader { workers: workers.collect() }
    }

    /// Returns the refused requests that were reported since the last call.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> {
        self.refusals.try_iter()
    }

    /// Returns the limits for streams and descriptors with their current use.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Returns the next exit of a worker, waiting at most `timeout`. After a failure the worker's clients have no
    /// service: the process should exit and be restarted.
    pub fn next_exit(&self, timeout: Duration) -> Option<Exit> {
        self.exits.recv_timeout(timeout).ok()
    }

    /// Waits until every worker has ended; returns the exits that `next_exit` has not returned.
    pub fn join(self) -> Vec<Exit> {
        for worker in self.workers {
            // The worker's thread catches panics and reports them as a failure.
            let _ = worker.thread.join();
        }
        self.exits.try_iter().collect()
    }
}

/// Starts a worker for each of `sockets`, with the protocol state at the same index of `servers`. A worker reads
/// `clock` at the start of each turn, and again during a turn to limit its length. `tls` chooses the configuration of
/// TLS clients; without it they are refused. `web` names the back ends of web clients on shared ports; without it they
/// are refused. Returns when every worker has its descriptors and waits for packets.
///
/// # Errors
/// `InvalidInput` if `sockets` and `servers` differ in length; otherwise the error of the kernel for an eventfd, a
/// thread or randomness, or the first failure of a worker that does not start.
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
            "`sockets` and `servers` must have the same length",
        ));
    }
    let offloads = Offloads::probe();
    log::missing(offloads);
    let descriptors = settings.descriptors.unwrap_or(u32::MAX);
    let admission = Arc::new(Admission::new(settings.admission.clone(), descriptors));
    let (exit, exits) = channel();
    let (refusals, reported) = sync_channel(REFUSALS);
    let count = servers.len();
    let (started, starts) = sync_channel(count);
    let mut workers = Vec::with_capacity(count);
    for (number, (sockets, server)) in sockets.into_iter().zip(servers).enumerate() {
        let (commands, received) = sync_channel(COMMANDS);
        let (waker, counters, allocations) = (Waker::new()?, Arc::default(), Arc::default());
        let controls = Controls {
            commands: received,
            refusals: refusals.clone(),
            waker: waker.clone(),
            counters: Arc::clone(&counters),
            allocations: Arc::clone(&allocations),
            gate: Gate::new(Arc::clone(&admission), count),
        };
        let log = SessionLog::new(settings.privacy, entropy::seed().map_err(io::Error::other)?);
        let persistent = Persistent { server, sockets, tls: tls.clone(), web: web.clone(), controls, log };
        let supervisor = Supervisor { number, clock, offloads };
        let (exit, started) = (exit.clone(), started.clone());
        // The worker is created on its own thread: its buffers hold raw pointers for the kernel, so it is not `Send`,
        // and its memory is allocated by the thread that uses it.
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let failure = supervisor.run(persistent, started);
            // Fails only if the handle has been dropped.
            let _ = exit.send(Exit { worker: number, failure });
        })?;
        workers.push(Running { commands, waker, counters, allocations, thread });
    }
    drop(started);
    for _ in 0..count {
        if starts.recv().is_err() {
            let failure = exits.recv().ok().and_then(|exit: Exit| exit.failure);
            return Err(io::Error::other(failure.unwrap_or_else(|| "it exited without a reason".to_owned())));
        }
    }
    Ok(Handle { workers, exits, refusals: reported, admission })
}
