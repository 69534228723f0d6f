//! Reads the sessions of all workers, page by page, so that no packet waits for long.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::command::{Command, PageRequest};
use super::syscall::Waker;
use crate::turn::snapshot::{Cursor, LiveSession, Page};

/// Sessions per page: a worker needs about 50 us for one.
pub(super) const PAGE: usize = 64;
/// How long to wait for a page. A worker that failed and restarts answers later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads sessions. Clones read from the same workers.
#[derive(Clone)]
pub struct SessionReader {
    pub(super) workers: Vec<(SyncSender<Command>, Waker)>,
}

impl SessionReader {
    /// Calls `take` with every session. Blocks. Returns `false` if a worker did not answer: its sessions are missing.
    pub fn read(&self, mut take: impl FnMut(LiveSession)) -> bool {
        let mut is_complete = true;
        for worker in &self.workers {
            let mut next = Some(Cursor::default());
            while let Some(cursor) = next {
                let Some(page) = Self::page(worker, cursor) else {
                    is_complete = false;
                    break;
                };
                page.sessions.into_iter().for_each(&mut take);
                next = page.next;
            }
        }
        is_complete
    }

    fn page((commands, waker): &(SyncSender<Command>, Waker), cursor: Cursor) -> Option<Page> {
        let (reply, page) = sync_channel(1);
        commands.send(Command::Sessions(PageRequest { cursor, reply })).ok()?;
        waker.wake();
        page.recv_timeout(PATIENCE).ok()
    }
}
