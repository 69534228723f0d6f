//! One client on TCP or TLS, and the set of all of a worker's.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::counters::{CloseReason, TlsOutcome};
use super::outbox::{Kind, Outbox, Pushed};
use super::scratch::{Buffers, READ_MAX, Scratch};
use super::syscall::{Epoll, ready};
use super::tls::{RECORD_MAX, Tls, TlsChooser};
use super::token::{Generation, Token};
use crate::turn::five_tuple::{Client, FiveTuple, Link};
use crate::turn::time::Instant;
use crate::wire::demux::{self, classify};

/// The longest unfinished message kept for a client without an allocation: a request is below 2 KB.
const STRANGER_MESSAGE_MAX: usize = 4 << 10;
/// TLS records that wait for the kernel: what is left of one write, with a flight of the handshake.
const UNSENT_MAX: usize = 128 << 10;
/// Time for a TLS handshake. A round trip over the worst mobile path is 3 s.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time without a STUN request and without an allocation.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Empty outboxes kept for the next stream that writes.
const SPARE_OUTBOXES: usize = 64;

const INTEREST: u32 = ready::READ | ready::PEER_CLOSED;

/// What a read came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Bytes taken from the socket.
    pub received: usize,
    /// How the TLS handshake ended, when it did.
    pub handshake: Option<TlsOutcome>,
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
}

/// One client.
pub struct Stream {
    /// Five-tuple and token.
    pub client: Client,
    socket: TcpStream,
    tls: Option<Box<Tls>>,
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
    /// The last STUN request, or the end of the handshake, or the start.
    active: Instant,
}

impl Stream {
    /// Reads once into `buffers.plain`, behind what was left of the last message.
    pub fn read(
        &mut self,
        now: Instant,
        chooser: Option<&dyn TlsChooser>,
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
        let room = target.spare().len().min(READ_MAX);
        match self.socket.read(&mut target.spare()[..room]) {
            Ok(0) => outcome.end = Some(CloseReason::Closed),
            Ok(len) => {
                target.advance(len);
                outcome.received = len;
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => outcome.end = Some(CloseReason::Reset),
        }
        let Some(tls) = &mut self.tls else { return outcome };
        let was_handshaking = tls.is_handshaking();
        output.clear();
        let received = match chooser {
            Some(chooser) => tls.receive(chooser, records, plain, output),
            None => Err(TlsOutcome::Internal),
        };
        match received {
            Ok(received) => {
                if received.finished {
                    outcome.handshake = Some(TlsOutcome::Done);
                    self.active = now;
                }
                if received.closed {
                    outcome.end.get_or_insert(CloseReason::Closed);
                }
            }
            Err(failure) => {
                outcome.handshake = was_handshaking.then_some(failure);
                outcome.end = Some(CloseReason::TlsFailed);
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

    /// Notes a message of the client. `false`: TURN does not start like that.
    pub fn greet(&mut self, message: &[u8], now: Instant) -> bool {
        if let [first @ 0..=3, second, ..] = *message {
            self.greeted = true;
            // Both bits of the class are 0 in a request (RFC 8489 section 5).
            if first & 0x01 == 0 && second & 0x10 == 0 {
                self.active = now;
            }
        }
        self.greeted
    }

    /// Whether a message that starts like that may be waited for: one that TURN starts with, of a bearable length.
    pub fn may_wait(&self, start: &[u8], len: usize, has_allocation: impl FnOnce() -> bool) -> bool {
        let is_stun = start.first().is_none_or(|&first| classify(first) == demux::Kind::Stun);
        (self.greeted || is_stun) && (len <= STRANGER_MESSAGE_MAX || has_allocation())
    }

    /// When to look after the stream again.
    pub fn life(&mut self, now: Instant, has_allocation: impl FnOnce() -> bool) -> Life {
        let until = if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            if now >= self.active + HANDSHAKE_TIME {
                return Life::Over(CloseReason::HandshakeTimeout);
            }
            self.active + HANDSHAKE_TIME
        } else if has_allocation() {
            self.allocated = true;
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
        let owes_answers = self.outbox.as_ref().is_some_and(|outbox| outbox.owes_answers());
        match (self.is_waiting(), owes_answers) {
            (false, _) => INTEREST,
            (true, false) => INTEREST | ready::WRITE,
            (true, true) => ready::WRITE,
        }
    }

    fn is_waiting(&self) -> bool {
        !self.unsent.is_empty() || self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes what the socket takes now.
fn write(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize, CloseReason> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match socket.write(bytes) {
        Ok(written) => Ok(written),
        Err(error) if is_transient(&error) => Ok(0),
        Err(_) => Err(CloseReason::Reset),
    }
}

/// All streams of a worker.
#[derive(Default)]
pub struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that got something to write in this turn, or room to write.
    dirty: Vec<Token>,
    // Moved as they are between here and the streams, where the box keeps an idle stream small.
    #[allow(clippy::vec_box, reason = "the same boxes go back and forth")]
    spare: Vec<Box<Outbox>>,
}

#[derive(Default)]
struct Slot {
    stream: Option<Stream>,
    generation: Generation,
}

impl Streams {
    /// Takes in an accepted connection; gives its token.
    ///
    /// # Errors
    /// The kernel cannot watch it.
    pub fn insert(
        &mut self,
        epoll: &Epoll,
        socket: TcpStream,
        five_tuple: FiveTuple,
        tls: bool,
        now: Instant,
    ) -> io::Result<Token> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
        };
        let generation = self.slots[slot as usize].generation;
        let token = Token::Stream { slot, generation };
        if let Err(error) = epoll.add(&socket, token.pack(), INTEREST) {
            self.free.push(slot);
            return Err(error);
        }
        self.slots[slot as usize].stream = Some(Stream {
            client: Client { five_tuple, link: Link(token.pack()) },
            socket,
            tls: tls.then(Box::default),
            partial: Vec::new(),
            outbox: None,
            unsent: Vec::new(),
            interest: INTEREST,
            dirty: false,
            doomed: false,
            greeted: false,
            allocated: false,
            active: now,
        });
        Ok(token)
    }

    /// The stream of a token; `None` when it was closed meanwhile, or is about to be.
    pub fn get(&mut self, token: Token) -> Option<&mut Stream> {
        let Token::Stream { slot, generation } = token else { return None };
        let slot = self.slots.get_mut(slot as usize)?;
        slot.stream.as_mut().filter(|stream| slot.generation == generation && !stream.doomed)
    }

    /// Whether this token's stream is open.
    pub fn is_open(&self, token: Token) -> bool {
        let Token::Stream { slot, generation } = token else { return false };
        self.slots.get(slot as usize).is_some_and(|s| s.stream.is_some() && s.generation == generation)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this stream's handshake goes on, which makes its next bytes expensive.
    pub fn is_handshaking(&mut self, token: Token) -> bool {
        self.get(token).is_some_and(|stream| stream.tls.as_ref().is_some_and(|tls| tls.is_handshaking()))
    }

    /// Queues one whole message, given in pieces. `None` when the stream is gone.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let mut spare = std::mem::take(&mut self.spare);
        let pushed = self.get(token).map(|stream| {
            let outbox = stream.outbox.get_or_insert_with(|| spare.pop().unwrap_or_default());
            let newly = !std::mem::replace(&mut stream.dirty, true);
            (outbox.push(message, kind, now), newly)
        });
        self.spare = spare;
        let (pushed, newly) = pushed?;
        if newly {
            self.dirty.push(token);
        }
        Some(pushed)
    }

    /// Notes that the stream can be written to again.
    pub fn unblock(&mut self, token: Token) {
        if let Some(stream) = self.get(token)
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(token);
        }
    }

    /// The next stream that has something to write.
    pub fn next_dirty(&mut self) -> Option<Token> {
        self.dirty.pop()
    }

    /// Writes what waits for this stream, and has it watched for room if something is left.
    pub fn write(
        &mut self,
        epoll: &Epoll,
        token: Token,
        now: Instant,
        buffers: &mut Buffers,
    ) -> WriteOutcome {
        let Some(stream) = self.get(token) else { return WriteOutcome::default() };
        stream.dirty = false;
        let mut outcome = stream.write(now, &mut buffers.output);
        let (blocked, interest) = (stream.is_waiting(), stream.wants());
        if interest != stream.interest {
            stream.interest = interest;
            if epoll.modify(&stream.socket, token.pack(), interest).is_err() {
                outcome.end.get_or_insert(CloseReason::Reset);
            }
        }
        if !blocked && let Some(mut outbox) = stream.outbox.take() {
            outbox.clear();
            if self.spare.len() < SPARE_OUTBOXES {
                self.spare.push(outbox);
            }
        }
        outcome
    }

    /// Has no more to do with it; `false` when that was so already. [`Streams::remove`] follows at the end of the
    /// turn.
    pub fn doom(&mut self, token: Token) -> bool {
        self.get(token).map(|stream| stream.doomed = true).is_some()
    }

    /// Closes the stream, with a last word where TLS has one. Gives whose it was.
    pub fn remove(&mut self, token: Token, buffers: &mut Buffers) -> Option<Client> {
        let Token::Stream { slot: index, generation } = token else { return None };
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?;
        let mut stream = slot.stream.take()?;
        slot.generation = generation.next();
        self.free.push(index);
        if let Some(tls) = &mut stream.tls
            && stream.unsent.is_empty()
        {
            buffers.output.clear();
            tls.close(&mut buffers.output);
            // It is closed whether the word gets through or not.
            let _ = write(&stream.socket, buffers.output.bytes());
        }
        Some(stream.client)
    }

    /// Every open one.
    pub fn tokens(&self) -> Vec<Token> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.stream.is_some());
        open.map(|(index, slot)| Token::Stream { slot: index as u32, generation: slot.generation }).collect()
    }
}

#[cfg(test)]
mod tests;
