//! Carries out the commands of other threads.

use std::time::Duration;

use super::Worker;
use super::stop::Stop;
use crate::net::command::{Command, PageRequest};
use crate::net::sessions::PAGE;

impl Worker {
    pub(super) fn on_commands(&mut self) {
        self.controls.waker.clear();
        while let Ok(command) = self.controls.commands.try_recv() {
            match command {
                Command::Settings(settings) => self.server.handle_settings(self.now, settings),
                Command::Tls(chooser) => self.front.set_tls(chooser),
                Command::Web(web) => self.front.set_web(web),
                Command::FreeTcpMemory(shortage) => {
                    self.kernel_memory.free(self.front.connections(), shortage, self.now.instant);
                }
                Command::Sessions(PageRequest { cursor, reply }) => {
                    let page = self.server.snapshot(self.now, cursor, PAGE);
                    // Nobody waits for it any more if this fails.
                    let _ = reply.try_send(page);
                }
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
        }
    }
}
