//! Carries out the commands of other threads.

use std::time::Duration;

use super::Worker;
use super::stop::Stop;
use crate::base::lock::lock;
use crate::net::command::{Command, PageRequest};
use crate::net::listening::ListenerChange;
use crate::net::sessions::PAGE;

/// Interval of the checks whether a removed listener is still needed: each one reads the whole table.
const REMOVED_CHECK: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn on_commands(&mut self) {
        self.controls.waker.clear();
        while let Ok(command) = self.controls.commands.try_recv() {
            match command {
                Command::Settings(settings) => self.server.handle_settings(self.now, settings),
                Command::Tls(chooser) => self.front.set_tls(chooser),
                Command::Web(web) => self.front.set_web(web),
                Command::FreeTcpMemory(shortage) => {
                    self.kernel_memory.begin(self.front.connections(), shortage);
                }
                Command::Sessions(PageRequest { cursor, reply }) => {
                    let page = self.server.snapshot(self.now, cursor, PAGE);
                    // Nobody waits for it any more if this fails.
                    let _ = reply.try_send(page);
                }
                Command::Listen(change) => self.change_listeners(std::mem::take(&mut *lock(&change))),
                Command::Drain(draining) => self.server.handle_drain(draining),
                Command::EndSessions => self.end_sessions(),
                Command::Stop { answer } => self.begin_stop(answer),
            }
            self.act();
        }
    }

    /// Ends every allocation and every connection. Until the end, newcomers are refused.
    fn begin_stop(&mut self, answer: Duration) {
        self.server.handle_drain(true);
        self.server.handle_shutdown(self.now);
        self.act();
        self.front.end_all(self.now.instant);
        self.stop.get_or_insert_with(|| Stop::new(self.now.instant, answer));
    }

    /// Ends every allocation and the streams of their clients.
    fn end_sessions(&mut self) {
        self.server.handle_shutdown(self.now);
        self.act();
        self.front.end_turn_clients(self.now.instant);
    }

    /// Ends the loop once every client is told, or the time for it is over.
    pub(super) fn stop_if_over(&mut self) {
        let (now, is_ending) = (self.now.instant, self.front.is_ending());
        if self.stop.as_ref().is_some_and(|stop| stop.is_over(now, is_ending)) {
            self.running = false;
            self.front.close_all();
            self.front.close_marked(true);
        }
    }

    /// Adds, changes and removes listeners. New ones are opened before others are closed.
    fn change_listeners(&mut self, change: ListenerChange) {
        let ListenerChange { added, spare, common } = change;
        let opened = self.datagrams.add_listeners(added.udp);
        if let Err(error) = opened.and_then(|()| self.front.change_listeners(added.streams, &common)) {
            tracing::error!("a worker cannot watch a new listener: {error}");
        }
        let revived = self.datagrams.change_listeners(&common);
        self.kept.change(spare, revived, &common);
        self.check_removed_listeners();
    }

    /// Releases removed listeners without clients, and plans the next check if any is left.
    pub(super) fn check_removed_listeners(&mut self) {
        let server = &self.server;
        self.datagrams.release_listeners(|link| server.has_allocation_on(link));
        let next = self.now.instant + REMOVED_CHECK;
        self.removed_check = self.datagrams.has_held_listeners().then_some(next);
    }
}
