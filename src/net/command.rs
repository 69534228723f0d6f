//! Commands to a running worker.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::front::first_bytes::Web;
use super::listening::ListenerChange;
use super::stream::tls::TlsChooser;
use crate::turn;
use crate::turn::snapshot::{Cursor, Page};

/// A request for a page of sessions.
#[derive(Clone)]
pub struct PageRequest {
    /// Where the page begins.
    pub cursor: Cursor,
    /// Takes the page.
    pub reply: SyncSender<Page>,
}

/// What is missing of the kernel's memory for TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpShortage {
    /// Bytes that the worker is to free.
    pub bytes: u64,
    /// Bytes that the worker's connections of one user or one source may hold.
    pub of_owner: u64,
}

/// A command to a running worker.
#[derive(Clone)]
pub enum Command {
    /// Replaces the settings of the protocol.
    Settings(Arc<turn::settings::Settings>),
    /// Replaces the certificates; open connections keep theirs.
    Tls(Arc<dyn TlsChooser>),
    /// Replaces the web servers; open connections keep theirs.
    Web(Arc<Web>),
    /// Adds, changes and removes listeners. Every worker has its own change, which it takes out.
    Listen(Arc<Mutex<ListenerChange>>),
    /// Starts or stops refusing the allocations of new users. Listeners stay open for those that have one.
    Drain(bool),
    /// Closes connections that hold the kernel's memory for TCP without a use; `None`: there is enough again.
    FreeTcpMemory(Option<TcpShortage>),
    /// Sends a page of sessions to the sender in the request.
    Sessions(PageRequest),
    /// Ends every allocation and the streams of their clients. The server keeps running.
    EndSessions,
    /// Ends every allocation and every stream, then the thread.
    Stop {
        /// How long to go on answering newcomers, so that they learn of other servers.
        answer: Duration,
    },
}
