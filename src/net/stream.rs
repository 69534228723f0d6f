//! One client on TCP or TLS. The set of all of a worker's is in [`set`], what a web client adds in [`web`].

mod class;
mod preface;
pub mod set;
pub mod web;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

pub use set::Streams;
use web::{Page, Splice};

use super::admission::Entry;
use super::counters::{CloseReason, Stage, TlsOutcome};
use super::handshakes::Handshakes;
use super::outbox::Outbox;
use super::scratch::{Buffers, Scratch};
use super::share443::Protocol;
use super::syscall::{read_stream, ready, write_stream};
use super::tls::{RECORD_MAX, Tls, TlsChooser};
use crate::turn::five_tuple::Client;
use crate::turn::time::Instant;
use crate::wire::demux::{self, classify};

/// The longest unfinished message kept for a client without an allocation: a request is below 2 KB.
const STRANGER_MESSAGE_MAX: usize = 4 << 10;
/// TLS records that wait for the kernel: what is left of one write, with a flight of the handshake.
const UNSENT_MAX: usize = 128 << 10;
/// Time for a TLS handshake. A round trip over the worst mobile path is 3 s.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time without an authenticated request and without an allocation.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How long a client whose ALPN says web may keep silent before he is taken for what he said: a TURN client behind a
/// proxy speaks within a round trip.
const SILENCE: Duration = Duration::from_secs(5);
/// Reads in a row that may take more than traffic does while the source has no time left for it. A client may share its
/// address with others, and the read of a thread that was interrupted looks the same.
const STRAINED_MAX: u8 = 3;
/// How long a client may take to read a last page and to leave.
const LINGER: Duration = Duration::from_secs(2);

const INTEREST: u32 = ready::READ | ready::PEER_CLOSED;

/// What a read came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes taken from the socket.
    pub received: usize,
    /// There may be more.
    pub full: bool,
    /// How the TLS handshake ended, when it did.
    pub handshake: Option<TlsOutcome>,
    /// It is to be passed through to there, unread: the bytes in `buffers.plain` are as they came.
    pub pass_through: Option<SocketAddr>,
    /// The stream is to be closed, once the messages read with it are dealt with.
    pub end: Option<CloseReason>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Bytes the socket took.
    pub sent: usize,
    /// Messages that were too old to be sent.
    pub stale: usize,
    /// The stream is to be closed.
    pub end: Option<CloseReason>,
}

/// When to look again whether a stream is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Then.
    Until(Instant),
    /// It is over.
    Over(CloseReason),
    /// The client keeps silent, and negotiated the web.
    Web,
    /// The web server does not answer.
    BackEndDown,
}

/// Whose a stream is.
pub(super) enum Phase {
    /// A shared port, and the client said nothing yet.
    Undecided,
    /// A TURN client's.
    Turn,
    /// Spliced to a web server.
    Web(Box<Splice>),
    /// Answered by the built-in site.
    Page(Box<Page>),
    /// All is said; the client is to leave.
    Lingering,
}

/// Whose a stream is, for those who only ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Not known yet.
    Undecided,
    /// TURN.
    Turn,
    /// A web server.
    Web,
    /// The built-in site.
    Page,
    /// Nobody any more.
    Lingering,
}

/// One client.
pub struct Stream {
    /// Five-tuple and token.
    pub client: Client,
    socket: TcpStream,
    tls: Option<Box<Tls>>,
    /// The start of a PROXY header, while one must come first.
    preface: Option<Vec<u8>>,
    phase: Phase,
    /// The start of a message whose end is not there.
    partial: Vec<u8>,
    /// Messages to write. Only while there are any.
    outbox: Option<Box<Outbox>>,
    /// TLS records that the kernel did not take.
    unsent: Vec<u8>,
    /// What it is watched for.
    interest: u32,
    /// Whether it is on the list of those to be written to.
    dirty: bool,
    /// Whether it is on the list of those to be closed.
    doomed: bool,
    /// Whether the client ever sent a STUN message: ChannelData first is another protocol.
    greeted: bool,
    /// Whether an allocation was there at the last look.
    allocated: bool,
    /// The furthest that it got.
    stage: Stage,
    /// The turn of the worker in which it was read last.
    pub turn: u32,
    /// Requests since the last authenticated one. Beyond a limit the stream is closed.
    unproven: u8,
    /// Whether a request of the client ever authenticated.
    proven: bool,
    /// Whether one gave it more time since it last had an allocation.
    renewed: bool,
    /// Bytes received before the first authenticated request.
    unproven_bytes: u32,
    /// Reads in a row beyond what its source may use for TLS.
    strained: u8,
    /// An authenticated request that gave it more time, or the end of the handshake, or the start; of a web client the
    /// last byte for its web server, or from there.
    active: Instant,
    /// When it is looked after next.
    looked_after: Option<Instant>,
    /// It has less time than when that was set.
    hurried: bool,
    /// Held while it is open.
    entry: Entry,
}

impl Stream {
    /// Reads once into `buffers.plain`, behind what was left of the last message.
    pub fn read(
        &mut self,
        now: Instant,
        chooser: Option<&dyn TlsChooser>,
        handshakes: &mut Handshakes,
        buffers: &mut Buffers,
    ) -> ReadOutcome {
        let Buffers { records, plain, output } = buffers;
        let mut outcome = ReadOutcome::default();
        plain.clear();
        // Never more than MESSAGE_MAX, which the scratch is made for.
        let _ = plain.append(&self.partial);
        let target = match &mut self.tls {
            Some(tls) => {
                tls.restore(records);
                &mut *records
            }
            None => &mut *plain,
        };
        if let Some(preface) = &self.preface {
            // At most proxy_protocol::MAX_PEEK bytes, and nothing is before them.
            let _ = target.append(preface);
        }
        let room = target.spare().len().min(self.read_max());
        match read_stream(self.socket.as_fd(), &mut target.spare()[..room]) {
            Ok(0) => outcome.end = Some(CloseReason::Closed),
            Ok(len) => {
                target.advance(len);
                outcome.received = len;
                outcome.full = len == room;
                outcome.end = self.take_bytes(len);
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => outcome.end = Some(CloseReason::Reset),
        }
        if let Err(reason) = self.take_preface(target) {
            outcome.end.get_or_insert(reason);
            target.clear();
            return outcome;
        }
        if self.preface.is_some() {
            target.clear();
            return outcome;
        }
        let Some(tls) = &mut self.tls else { return outcome };
        let (was_handshaking, begins) = (tls.is_handshaking(), tls.begins());
        output.clear();
        let shared = matches!(self.phase, Phase::Undecided);
        let receive = || match chooser {
            Some(chooser) => tls.receive(chooser, shared, records, plain, output),
            None => Err(TlsOutcome::Internal),
        };
        let source = self.client.five_tuple.client.ip();
        let received = if was_handshaking {
            handshakes.step(source, begins, receive)
        } else {
            let (received, paid) = handshakes.after(source, outcome.received, receive);
            self.strained = if paid { 0 } else { self.strained.saturating_add(1) };
            if self.strained > STRAINED_MAX { Err(TlsOutcome::Throttled) } else { received }
        };
        match received {
            Ok(received) => {
                if received.pass_through.is_some() {
                    outcome.pass_through = received.pass_through;
                    // Made for more than the records that a ClientHello comes in.
                    let _ = plain.append(records.bytes());
                    self.tls = None;
                    return outcome;
                }
                if received.finished {
                    outcome.handshake = Some(TlsOutcome::Done);
                    self.active = now;
                    self.reached(Stage::Tls);
                }
                if received.closed {
                    outcome.end.get_or_insert(CloseReason::Closed);
                }
            }
            Err(failure) => {
                outcome.handshake = was_handshaking.then_some(failure);
                outcome.end = Some(match failure {
                    TlsOutcome::Throttled => CloseReason::TooMany,
                    _ => CloseReason::TlsFailed,
                });
            }
        }
        if was_handshaking && outcome.handshake.is_none() && outcome.end.is_some() {
            outcome.handshake = Some(TlsOutcome::Left);
        }
        if let Err(reason) = self.send_output(output) {
            outcome.end.get_or_insert(reason);
        }
        outcome
    }

    /// Keeps what is left of `buffers.plain` from `position` on until the rest comes.
    pub fn keep(&mut self, buffers: &Buffers, position: usize) {
        let rest = &buffers.plain.bytes()[position..];
        if rest.is_empty() {
            // An idle client holds no buffer.
            self.partial = Vec::new();
        } else if position > 0 || rest.len() != self.partial.len() {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        match self.phase {
            Phase::Undecided => Owner::Undecided,
            Phase::Turn => Owner::Turn,
            Phase::Web(_) => Owner::Web,
            Phase::Page(_) => Owner::Page,
            Phase::Lingering => Owner::Lingering,
        }
    }

    /// It is a TURN client's.
    pub fn is_turns(&mut self) {
        self.phase = Phase::Turn;
    }

    /// The built-in site's view of it.
    pub fn page(&mut self) -> Option<&mut Page> {
        match &mut self.phase {
            Phase::Page(page) => Some(page),
            _ => None,
        }
    }

    /// What of the web was negotiated, if anything.
    pub fn negotiated(&self) -> Option<Protocol> {
        self.tls.as_ref()?.negotiated()
    }

    /// Notes how far it got.
    pub fn reached(&mut self, stage: Stage) {
        if self.stage.index() < stage.index() {
            self.stage = stage;
        }
    }

    /// How far it got.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether a message that starts like that may be waited for: one that TURN starts with, of a bearable length.
    pub fn may_wait(&self, start: &[u8], len: usize, has_allocation: impl FnOnce() -> bool) -> bool {
        let is_stun = start.first().is_none_or(|&first| classify(first) == demux::Kind::Stun);
        (self.greeted || is_stun) && (len <= STRANGER_MESSAGE_MAX || has_allocation())
    }

    /// Notes that it is to be looked after at `deadline`; `false` when it will be so before that anyway.
    pub fn schedule(&mut self, deadline: Instant, now: Instant) -> bool {
        if self.looked_after.is_some_and(|at| at > now && at <= deadline) {
            return false;
        }
        self.looked_after = Some(deadline);
        true
    }

    /// Whether it has less time than was thought, since this was asked last.
    pub fn take_hurried(&mut self) -> bool {
        std::mem::take(&mut self.hurried)
    }

    /// When to look after the stream again.
    pub fn life(&mut self, now: Instant, has_allocation: impl FnOnce() -> bool) -> Life {
        match &self.phase {
            Phase::Web(splice) => return splice.life(self.active, now),
            Phase::Lingering => return self.life_within(LINGER, now, Life::Over(CloseReason::Closed)),
            Phase::Page(_) => return self.life_within(IDLE_TIME, now, Life::Over(CloseReason::Idle)),
            Phase::Undecided | Phase::Turn => {}
        }
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        if handshaking || self.preface.is_some() {
            return self.life_within(HANDSHAKE_TIME, now, Life::Over(CloseReason::HandshakeTimeout));
        }
        if matches!(self.phase, Phase::Undecided) {
            return match self.negotiated() {
                Some(_) => self.life_within(SILENCE, now, Life::Web),
                None => self.life_within(HANDSHAKE_TIME, now, Life::Over(CloseReason::Idle)),
            };
        }
        let until = if has_allocation() {
            (self.allocated, self.renewed) = (true, false);
            now + IDLE_TIME
        } else if std::mem::take(&mut self.allocated) {
            // It ended since the last look: time for another one.
            self.active = now;
            now + IDLE_TIME
        } else if now >= self.active + IDLE_TIME {
            return Life::Over(CloseReason::Idle);
        } else {
            self.active + IDLE_TIME
        };
        Life::Until(until)
    }

    fn life_within(&self, limit: Duration, now: Instant, over: Life) -> Life {
        let end = self.active + limit;
        if now >= end { over } else { Life::Until(end) }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&mut self, now: Instant, output: &mut Scratch) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        let result = self.write_all(now, output, &mut outcome);
        outcome.end = result.err();
        outcome
    }

    fn write_all(
        &mut self,
        now: Instant,
        output: &mut Scratch,
        outcome: &mut WriteOutcome,
    ) -> Result<(), CloseReason> {
        if !self.unsent.is_empty() {
            let written = write(&self.socket, &self.unsent)?;
            outcome.sent += written;
            self.unsent.drain(..written);
            if !self.unsent.is_empty() {
                return Ok(());
            }
            self.unsent = Vec::new();
        }
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        outcome.stale += outbox.drop_stale(now);
        while !outbox.is_empty() {
            match &mut self.tls {
                None => {
                    let front = outbox.front(usize::MAX);
                    let len = front.len();
                    let written = write(&self.socket, front)?;
                    outcome.sent += written;
                    outbox.consume(written);
                    if written < len {
                        return Ok(());
                    }
                }
                Some(tls) => {
                    // A burst of large messages in one record, and one write for all.
                    output.clear();
                    while !outbox.is_empty() && output.bytes().len() < RECORD_MAX {
                        let front = outbox.front_record(RECORD_MAX);
                        let len = front.len();
                        tls.seal(front, output).map_err(|_| CloseReason::TlsFailed)?;
                        outbox.consume(len);
                    }
                    let written = write(&self.socket, output.bytes())?;
                    outcome.sent += written;
                    let rest = &output.bytes()[written..];
                    if !rest.is_empty() {
                        self.unsent.extend_from_slice(rest);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends records that TLS itself made, behind those that wait.
    fn send_output(&mut self, output: &mut Scratch) -> Result<(), CloseReason> {
        let written = if self.unsent.is_empty() { write(&self.socket, output.bytes())? } else { 0 };
        let rest = &output.bytes()[written..];
        if self.unsent.len() + rest.len() > UNSENT_MAX {
            return Err(CloseReason::Stuck);
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// What to watch for: room to write when something waits, and nothing to read from a client who does not take
    /// his answers, so that a rush of requests waits in his own kernel.
    fn wants(&self) -> u32 {
        if let Phase::Web(splice) = &self.phase {
            let write = if self.is_waiting() { ready::WRITE } else { 0 };
            return splice.client_interest() | write;
        }
        let owes_answers = self.outbox.as_ref().is_some_and(|outbox| outbox.owes_answers());
        match (self.is_waiting(), owes_answers) {
            (false, _) if self.is_settled() => INTEREST | ready::NEWS,
            (false, _) => INTEREST,
            (true, false) => INTEREST | ready::WRITE,
            (true, true) => ready::WRITE,
        }
    }

    /// Whether it will be a TURN client's to its end, which is read until nothing is left.
    fn is_settled(&self) -> bool {
        let handshaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        matches!(self.phase, Phase::Turn) && !handshaking && self.preface.is_none()
    }

    fn is_waiting(&self) -> bool {
        !self.unsent.is_empty() || self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes what the socket takes now.
fn write(socket: &TcpStream, bytes: &[u8]) -> Result<usize, CloseReason> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match write_stream(socket.as_fd(), bytes) {
        Ok(written) => Ok(written),
        Err(error) if is_transient(&error) => Ok(0),
        Err(_) => Err(CloseReason::Reset),
    }
}

#[cfg(test)]
mod tests;
