//! Commands to a running worker.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::front::first_bytes::Web;
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

/// A command to a running worker.
#[derive(Clone)]
pub enum Command {
    /// Replaces the settings of the protocol.
    Settings(Arc<turn::settings::Settings>),
    /// Replaces the certificates; open connections keep theirs.
    Tls(Arc<dyn TlsChooser>),
    /// Replaces the web servers; open connections keep theirs.
    Web(Arc<Web>),
    /// Starts or stops refusing new allocations. Listeners stay open for clients that have one.
    Drain(bool),
    /// Closes connections that hold this many bytes of the kernel's memory for TCP without a use.
    FreeTcpMemory(u64),
    /// Sends a page of sessions to the sender in the request.
    Sessions(PageRequest),
    /// Ends every allocation, closes every stream and ends the thread.
    Stop,
}
