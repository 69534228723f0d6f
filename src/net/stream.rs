//! One TCP connection, perhaps with TLS on it: bytes in, queued messages out. It knows nothing of what the bytes mean;
//! that is decided in [`front`](super::front).

pub mod outbox;
pub mod tls;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use super::counters::CloseReason;
use super::scratch::Scratch;
use super::syscall::{read_stream, write_stream};
use crate::base::time::Instant;
use outbox::{Kind, Outbox, Pushed};
use tls::{RECORD_MAX, Tls};

/// TLS records that wait for the kernel: what is left of one write, with a flight of the handshake.
const UNSENT_MAX: usize = 128 << 10;
/// Empty outboxes kept for the next stream that writes.
const SPARE_OUTBOXES: usize = 64;

/// A connection: socket, TLS and what waits to be written.
pub struct Stream {
    socket: TcpStream,
    /// TLS; `None` on a plain connection, and on one whose TLS does not end here.
    pub tls: Option<Box<Tls>>,
    /// Messages to write. Present only while there are any.
    outbox: Option<Box<Outbox>>,
    /// TLS records, or bytes for the web, that the kernel did not take.
    unsent: Vec<u8>,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Bytes taken from the socket.
    pub len: usize,
    /// Whether the read was filled, so there may be more.
    pub full: bool,
    /// `Closed` if the client sends no more, `Reset` if the connection is broken.
    pub end: Option<CloseReason>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes the socket took.
    pub len: usize,
    /// Messages that were too old to be sent.
    pub stale: usize,
    /// Why the connection must be closed.
    pub end: Option<CloseReason>,
}

/// Outboxes of streams that have nothing to write, for the next one that has.
#[derive(Default)]
pub struct Outboxes(
    // Moved as they are between here and the streams, where the box keeps an idle stream small.
    #[allow(clippy::vec_box, reason = "the same boxes go back and forth")] Vec<Box<Outbox>>,
);

impl Stream {
    /// A connection that was accepted, non-blocking.
    pub fn new(socket: TcpStream, tls: bool) -> Self {
        Self { socket, tls: tls.then(Box::default), outbox: None, unsent: Vec::new() }
    }

    /// The descriptor, to be watched.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next byte, which stays unread; `None` if there is none, or none any more.
    pub fn peek(&self) -> Option<u8> {
        let mut first = [0];
        self.socket.peek(&mut first).is_ok_and(|len| len == 1).then_some(first[0])
    }

    /// Appends to `target` what one read of at most `max` bytes brings.
    pub fn read(&mut self, target: &mut Scratch, max: usize) -> Read {
        let room = target.spare().len().min(max);
        match read_stream(self.socket.as_fd(), &mut target.spare()[..room]) {
            Ok(0) => Read { end: Some(CloseReason::Closed), ..Read::default() },
            Ok(len) => {
                target.advance(len);
                Read { len, full: len == room, end: None }
            }
            Err(error) if is_transient(&error) => Read::default(),
            Err(_) => Read { end: Some(CloseReason::Reset), ..Read::default() },
        }
    }

    /// Whether anything waits to be written.
    pub fn is_waiting(&self) -> bool {
        !self.unsent.is_empty() || self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// Whether bytes wait that the kernel did not take.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether so many answers wait that the client should read before it asks again.
    pub fn owes_answers(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.owes_answers())
    }

    /// Queues one whole message, given in pieces; at most `bytes_max` bytes of media wait.
    pub fn push(
        &mut self,
        message: &[&[u8]],
        kind: Kind,
        now: Instant,
        bytes_max: usize,
        spare: &mut Outboxes,
    ) -> Pushed {
        let outbox = self.outbox.get_or_insert_with(|| spare.0.pop().unwrap_or_default());
        outbox.push(message, kind, now, bytes_max)
    }

    /// Writes what waits, as far as the socket takes it. An outbox that is empty then goes back to `spare`.
    pub fn write(&mut self, now: Instant, output: &mut Scratch, spare: &mut Outboxes) -> Written {
        let mut written = Written::default();
        written.end = self.write_all(now, output, &mut written).err();
        if !self.is_waiting()
            && let Some(mut outbox) = self.outbox.take()
        {
            outbox.clear();
            if spare.0.len() < SPARE_OUTBOXES {
                spare.0.push(outbox);
            }
        }
        written
    }

    fn write_all(
        &mut self,
        now: Instant,
        output: &mut Scratch,
        outcome: &mut Written,
    ) -> Result<(), CloseReason> {
        if !self.unsent.is_empty() {
            let written = write(&self.socket, &self.unsent)?;
            outcome.len += written;
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
                    outcome.len += written;
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
                    outcome.len += written;
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
    ///
    /// # Errors
    /// `Reset` if the connection is broken, `Stuck` if the client does not read what it is sent.
    pub fn send_records(&mut self, records: &Scratch) -> Result<(), CloseReason> {
        let written = if self.unsent.is_empty() { write(&self.socket, records.bytes())? } else { 0 };
        let rest = &records.bytes()[written..];
        if self.unsent.len() + rest.len() > UNSENT_MAX {
            return Err(CloseReason::Stuck);
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// Sends bytes while nothing waits, without a queue of messages: `small` of them in records that fit one packet each.
    /// Returns how many the socket took; the rest waits.
    ///
    /// # Errors
    /// `Reset` if the connection is broken, `TlsFailed` if the bytes cannot be sealed.
    pub fn send_bytes(
        &mut self,
        bytes: &[u8],
        (small, record): (usize, usize),
        output: &mut Scratch,
    ) -> Result<usize, CloseReason> {
        let Some(tls) = &mut self.tls else {
            let sent = write(&self.socket, bytes)?;
            self.unsent.extend_from_slice(&bytes[sent..]);
            return Ok(sent);
        };
        output.clear();
        let (begin, rest) = bytes.split_at(small.min(bytes.len()));
        for record in begin.chunks(record).chain(rest.chunks(RECORD_MAX)) {
            tls.seal(record, output).map_err(|_| CloseReason::TlsFailed)?;
        }
        let sent = write(&self.socket, output.bytes())?;
        self.unsent.extend_from_slice(&output.bytes()[sent..]);
        Ok(sent)
    }

    /// Lets the kernel hold so many unsent bytes. Best effort: only the number of wake-ups depends on it.
    pub fn set_not_sent_low_water(&self, bytes: u32) {
        let _ = socket2::SockRef::from(&self.socket).set_tcp_notsent_lowat(bytes);
    }

    /// Tells the client that nothing follows; it may go on sending.
    pub fn end(&mut self, output: &mut Scratch) {
        self.say_goodbye(output);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes the connection, with a close_notify where nothing else waits.
    pub fn close(mut self, output: &mut Scratch) {
        if self.unsent.is_empty() {
            self.say_goodbye(output);
        }
    }

    fn say_goodbye(&mut self, output: &mut Scratch) {
        if let Some(tls) = &mut self.tls {
            output.clear();
            tls.close(output);
            // A few bytes where nothing waits fit; a connection that is gone needs none.
            let _ = write(&self.socket, output.bytes());
        }
    }
}

/// Whether trying again later may help.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes what the socket takes now.
///
/// # Errors
/// `Reset` if the connection is broken.
pub(super) fn write(socket: impl AsFd, bytes: &[u8]) -> Result<usize, CloseReason> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match write_stream(socket.as_fd(), bytes) {
        Ok(written) => Ok(written),
        Err(error) if is_transient(&error) => Ok(0),
        Err(_) => Err(CloseReason::Reset),
    }
}
