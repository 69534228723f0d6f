//! Clients on TCP and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Worker;
use crate::net::admission::Entry;
use crate::net::batch::{Outgoing, Payload, Route};
use crate::net::counters::{CloseReason, Refusal, Stage, TlsOutcome};
use crate::net::outbox::{Kind, Pushed};
use crate::net::stream::set::Expected;
use crate::net::stream::{Life, Owner};
use crate::net::syscall::{canonical, ready};
use crate::net::token::Token;
use crate::turn::action::{Drop, FromClient};
use crate::turn::five_tuple::{FiveTuple, Transport};
use crate::turn::time::Instant;
use crate::wire::stream::{self, Framed};

/// Connections accepted from one listener per turn.
const ACCEPTS: usize = 16;
/// How long a listener rests when descriptors or memory ran out. It stays readable, so without a rest the loop
/// would spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Streams closed at most for one newcomer. One is enough, unless the operator lowered a limit below what is open.
pub(super) const DISPLACED_MAX: usize = 2;

/// What to do after a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterAccept {
    /// Nobody else waits.
    Done,
    /// That one is gone; the next may be there.
    Next,
    /// It will fail again for a while.
    Rest,
}

fn after_accept(error: &io::Error) -> AfterAccept {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => AfterAccept::Done,
        // accept(2): errors of the new connection are to be taken like EAGAIN by retrying.
        Some(
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => AfterAccept::Next,
        _ => AfterAccept::Rest,
    }
}

impl Worker {
    pub(super) fn on_accept(&mut self, index: u16) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.acceptors.get(usize::from(index)) else { return };
            let (transport, web) = (listener.transport, listener.web);
            match listener.socket.accept() {
                Ok((socket, client)) => {
                    let proxied = !listener.proxies.is_empty();
                    let ip = canonical(client).ip();
                    if proxied && !listener.proxies.iter().any(|trusted| trusted.contains(&ip)) {
                        self.ties.counters.untrusted.add(1);
                        continue;
                    }
                    let expected = Expected { tls: transport == Transport::Tls, proxied, web };
                    // A proxy will say whose stream it is.
                    let entry = self.enter((!proxied).then_some(ip));
                    let taken = entry.and_then(|entry| {
                        let taken = self.take_in(socket, client, transport, expected, entry);
                        taken.map_err(|_| Refusal::Descriptors)
                    });
                    if let Err(refusal) = taken {
                        self.ties.counters.streams(transport).refused(refusal).add(1);
                    }
                }
                Err(error) => match after_accept(&error) {
                    AfterAccept::Done => return,
                    AfterAccept::Next => {}
                    AfterAccept::Rest => return self.rest_from_accepting(index),
                },
            }
        }
    }

    /// A place for a newcomer. When strangers have all that they may have, those of this worker make room, the oldest
    /// first: a client that authenticates does so within seconds, so those who hold a place longest are the least likely to.
    fn enter(&mut self, source: Option<IpAddr>) -> Result<Entry, Refusal> {
        for _ in 0..DISPLACED_MAX {
            match self.ties.gate.stream(source) {
                Err(Refusal::Total | Refusal::Descriptors) if self.make_room() => {}
                entered => return entered,
            }
        }
        self.ties.gate.stream(source)
    }

    /// Closes the streams that are to be closed anyway, or else the oldest stranger; `false` if there is none.
    fn make_room(&mut self) -> bool {
        if self.doomed.is_empty() {
            let Some(oldest) = self.streams.oldest_stranger() else { return false };
            self.doom(oldest, CloseReason::Displaced);
        }
        // What was answered in this turn goes out first.
        self.write_streams();
        self.close_doomed();
        true
    }

    /// Takes in a connection.
    fn take_in(
        &mut self,
        socket: TcpStream,
        client: SocketAddr,
        transport: Transport,
        expected: Expected,
        entry: Entry,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let server = canonical(socket.local_addr()?);
        let five_tuple = FiveTuple { transport, client: canonical(client), server };
        let now = self.now.instant;
        let token = self.streams.insert(&self.epoll, socket, five_tuple, expected, entry, now)?;
        let counters = self.ties.counters.streams(transport);
        counters.accepted.add(1);
        counters.open.add(1);
        self.tidy_timers();
        self.look_after(token);
        Ok(())
    }

    fn rest_from_accepting(&mut self, index: u16) {
        self.ties.counters.accept_paused.add(1);
        self.watch_acceptor(index, 0);
        self.timers.set(self.now.instant + ACCEPT_REST, Token::Accept(index));
    }

    pub(super) fn resume_accepting(&mut self, index: u16) {
        self.watch_acceptor(index, ready::READ);
    }

    fn watch_acceptor(&self, index: u16, interest: u32) {
        if let Some(listener) = self.acceptors.get(usize::from(index)) {
            // Changing what is watched takes no memory: it cannot fail on a socket that is watched.
            let _ = self.epoll.modify(&listener.socket, Token::Accept(index).pack(), interest);
        }
    }

    pub(super) fn on_stream(&mut self, token: Token, readiness: u32) {
        if readiness & ready::WRITE != 0 {
            self.streams.unblock(token);
        }
        if readiness & !ready::WRITE == 0 {
            return;
        }
        if let Some(source) = self.streams.greets(token)
            && self.handshakes.must_wait(source)
        {
            return self.put_off(token, source, readiness);
        }
        self.read_stream(token, readiness);
    }

    /// Leaves a handshake to a later turn.
    fn put_off(&mut self, token: Token, source: IpAddr, readiness: u32) {
        if self.streams.mute(&self.epoll, token) {
            self.handshakes.wait(token, source);
        } else if readiness & (ready::ERROR | ready::CLOSED) != 0 {
            // Reported though not asked for: it is gone.
            self.ties.counters.tls(TlsOutcome::Left).add(1);
            self.doom(token, CloseReason::Reset);
        }
    }

    /// Goes on with the handshakes that had to wait. Writing to a stream has it watched again.
    pub(super) fn resume_handshakes(&mut self) {
        while let Some(token) = self.handshakes.resume() {
            self.read_stream(token, ready::READ);
        }
    }

    fn read_stream(&mut self, token: Token, readiness: u32) {
        // The buffer is about to be used again.
        self.flush();
        let (now, chooser) = (self.now.instant, self.tls.as_deref());
        let Some(stream) = self.streams.get(token) else { return };
        let transport = stream.client.five_tuple.transport;
        if stream.spliced().is_some_and(|splice| splice.client_interest() == 0) {
            if readiness & (ready::ERROR | ready::CLOSED) != 0 {
                // Reported though not asked for: he is gone, with what he sent last.
                self.doom(token, CloseReason::Reset);
            }
            return;
        }
        if stream.owner() == Owner::Web && self.web_left == 0 {
            // Readiness is level-triggered: it comes again in the next turn.
            return;
        }
        stream.turn = self.turn;
        let read = stream.read(now, chooser, &mut self.handshakes, &mut self.buffers);
        let counters = &self.ties.counters;
        counters.streams(transport).received.add(read.received as u64);
        if let Some(outcome) = read.handshake {
            counters.tls(outcome).add(1);
        }
        // What is waiting in TLS itself needs room to be written.
        self.streams.unblock(token);
        let owner = self.owner_after(token, &read);
        if owner == Owner::Undecided && read.handshake == Some(TlsOutcome::Done) {
            // He has less time from now on.
            self.look_after(token);
        }
        let dealt = match owner {
            Owner::Turn => self.on_messages(token),
            Owner::Web => {
                self.web_left = self.web_left.saturating_sub(read.received);
                self.on_web(token, read.end)
            }
            Owner::Page => self.on_page(token),
            Owner::Undecided | Owner::Lingering => Ok(()),
        };
        self.flush();
        // The end of what a web client sends is not the end of what he gets.
        let end = read.end.filter(|&end| owner != Owner::Web || end != CloseReason::Closed);
        // More than one read takes, or an end behind what was read: of a TURN client there would be no further word.
        let over = readiness & (ready::PEER_CLOSED | ready::CLOSED | ready::ERROR);
        if owner == Owner::Turn && read.received > 0 && (read.full || over != 0) {
            self.again.push((token.pack(), ready::READ | over));
        }
        // The cause of the end is what came first.
        if let Some(reason) = dealt.err().or(end) {
            self.doom(token, reason);
        }
    }

    /// Deals with every whole message in the buffer and keeps the rest.
    fn on_messages(&mut self, token: Token) -> Result<(), CloseReason> {
        let mut position = 0;
        loop {
            let Some(stream) = self.streams.get(token) else { return Ok(()) };
            let client = stream.client;
            let rest = &self.buffers.plain.bytes()[position..];
            match stream::next(rest) {
                Framed::Message { len, consumed, .. } => {
                    let message = &rest[..len];
                    stream.greet(message)?;
                    match self.server.handle_client(self.now, client, message) {
                        FromClient::Relay { relay, peer, payload, dont_fragment } => {
                            let payload = position + payload.start..position + payload.end;
                            let route = Route::Relay { relay, dont_fragment };
                            let payload = Payload::Stream(payload);
                            self.push(Outgoing { route, to: peer, source: None, head: None, payload });
                        }
                        FromClient::Control => {
                            self.act();
                            if let Some(stream) = self.streams.get(token)
                                && stream.stage() != Stage::Allocated
                                && self.server.has_allocation(&client)
                            {
                                stream.reached(Stage::Allocated);
                            }
                        }
                        FromClient::Dropped(reason) if reason.breaks_stream() => {
                            return Err(CloseReason::Garbage);
                        }
                        // No stream is kept open for a client that asks more than it may.
                        FromClient::Dropped(Drop::Throttled) => return Err(CloseReason::TooMany),
                        FromClient::Dropped(_) => {}
                    }
                    position += consumed;
                }
                Framed::NeedMore { at_least } => {
                    // A stranger's start is judged before it is whole: "GET " looks like a long ChannelData.
                    let server = &self.server;
                    if !stream.may_wait(rest, at_least, || server.has_allocation(&client)) {
                        return Err(CloseReason::Garbage);
                    }
                    stream.keep(&self.buffers, position);
                    return Ok(());
                }
                Framed::Garbage => {
                    self.server.counters().dropped(Drop::NotTurn).add(1);
                    return Err(CloseReason::Garbage);
                }
            }
        }
    }

    pub(super) fn push_stream(&mut self, token: Token, message: &[&[u8]], kind: Kind) {
        let pushed = self.streams.push(token, message, kind, self.now.instant);
        self.on_pushed(token, pushed);
    }

    pub(super) fn on_pushed(&mut self, token: Token, pushed: Option<Pushed>) {
        match pushed {
            Some(Pushed::Queued { dropped: 0 }) => {}
            Some(Pushed::Queued { dropped }) => {
                self.server.counters().dropped(Drop::QueueFull).add(dropped as u64);
            }
            Some(Pushed::Stuck) => self.doom(token, CloseReason::Stuck),
            // It closes in this very turn, and its allocation with it.
            None => self.server.counters().dropped(Drop::NoAllocation).add(1),
        }
    }

    /// Writes to every stream that got something in this turn, so that all of it goes out together.
    pub(super) fn write_streams(&mut self) {
        while let Some(token) = self.streams.next_dirty() {
            let Some(stream) = self.streams.get(token) else { continue };
            let transport = stream.client.five_tuple.transport;
            let outcome = self.streams.write(&self.epoll, token, self.now.instant, &mut self.buffers);
            let counters = self.ties.counters.streams(transport);
            counters.sent.add(outcome.sent as u64);
            counters.stale.add(outcome.stale as u64);
            if let Some(reason) = outcome.end {
                self.doom(token, reason);
            } else if self.streams.get(token).is_some_and(|stream| stream.take_hurried()) {
                self.look_after(token);
            }
        }
    }

    /// Looks whether a stream has outlived its use.
    pub(super) fn look_after(&mut self, token: Token) {
        let Some(stream) = self.streams.get(token) else { return };
        let client = stream.client;
        let (now, server) = (self.now.instant, &self.server);
        match stream.life(now, || server.has_allocation(&client)) {
            Life::Until(deadline) => {
                let deadline = deadline.max(after(now));
                if stream.schedule(deadline, now) {
                    self.timers.set(deadline, token);
                }
            }
            Life::Over(reason) => {
                if reason == CloseReason::HandshakeTimeout {
                    self.ties.counters.tls(TlsOutcome::Timeout).add(1);
                }
                self.doom(token, reason);
            }
            Life::Web => {
                self.buffers.plain.clear();
                self.begin_web(token);
            }
            Life::BackEndDown => self.back_end_down(token),
        }
    }

    /// Has the stream closed at the end of the turn. Until then its messages go nowhere.
    pub(super) fn doom(&mut self, token: Token, reason: CloseReason) {
        if self.streams.doom(token) {
            self.doomed.push((token, reason));
        }
    }

    pub(super) fn close_doomed(&mut self) {
        while let Some((token, reason)) = self.doomed.pop() {
            self.close(token, reason);
        }
    }

    pub(super) fn close(&mut self, token: Token, reason: CloseReason) {
        let Some((client, stage)) = self.streams.remove(token, &mut self.buffers) else { return };
        let counters = self.ties.counters.streams(client.five_tuple.transport);
        counters.open.sub(1);
        counters.closed(stage, reason).add(1);
        self.server.handle_client_gone(self.now, &client, reason.end_reason());
        self.act();
    }
}

/// A deadline that is not due in the turn that sets it.
fn after(now: Instant) -> Instant {
    now + Duration::from_millis(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_rests_the_listener_and_nothing_else_does() {
        let after = |code| after_accept(&io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(after(code), AfterAccept::Rest);
        }
        assert_eq!(after(libc::EAGAIN), AfterAccept::Done);
        assert_eq!(after(libc::ECONNABORTED), AfterAccept::Next);
        assert_eq!(after(libc::EINTR), AfterAccept::Next);
    }
}
