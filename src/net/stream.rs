//! One TCP connection, optionally with TLS: bytes in, queued messages out. [`front`](super::front) interprets the
//! bytes.

pub mod outbox;
pub mod record;
pub mod tls;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::SockRef;

use super::budget::{SOCKET_UNITS, WRITTEN_BYTES_PER_UNIT};
use super::counters::CloseReason;
use super::scratch::Scratch;
use super::syscall::{KernelMemory, let_kernel_size_buffers, read_stream, write_stream};
use crate::base::time::Instant;
use crate::turn::action::Traffic;
use outbox::{Kind, Outbox, Pushed};
use record::RECORD_MAX;
use tls::Tls;

/// Limit of unsent TLS records: the rest of one write, and a flight of the handshake.
const UNSENT_MAX: usize = 128 << 10;
/// The receive buffer of a TURN client, capped by net.core.rmem_max: 10 Mbit/s at a round trip of 100 ms. Without this, the
/// kernel lets each client fill 6 MB (net.ipv4.tcp_rmem).
const RECEIVE_BUFFER: usize = 128 << 10;
/// A connection is reset when it is closed if the kernel holds at least this much that will not be read.
const RESET_RECEIVED: usize = 2 << 10;
/// A connection is reset when it is closed if the kernel holds at least this much output. Web clients receive all of an answer before
/// their connection is closed, others need no more than an answer to their last request.
const RESET_UNSENT: usize = 16 << 10;
/// How long the last output of a closed connection may stay unacknowledged: two retransmissions of a slow path.
pub const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);
/// Empty outboxes kept for reuse.
const SPARE_OUTBOXES: usize = 64;

/// A connection: socket, TLS and queued output.
pub struct Stream {
    socket: TcpStream,
    /// TLS; `None` on a plain connection, and on one whose TLS is passed through.
    pub tls: Option<Box<Tls>>,
    /// Queued messages; `None` while there are none.
    outbox: Option<Box<Outbox>>,
    /// TLS records, or bytes for a web client, that the kernel did not take.
    unsent: Vec<u8>,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Bytes read from the socket.
    pub len: usize,
    /// Whether the buffer was filled, so there may be more.
    pub full: bool,
    /// `Closed` if the client has ended its sending direction, `Reset` if the connection is broken.
    pub end: Option<CloseReason>,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes the socket took.
    pub len: usize,
    /// Media dropped because it was too old.
    pub stale: Traffic,
    /// Units of work, as the budget of a turn counts them.
    pub units: u32,
    /// Why the connection must be closed.
    pub end: Option<CloseReason>,
}

/// Unused outboxes, for reuse.
#[derive(Default)]
pub struct Outboxes(
    // Boxed, because a stream holds its outbox in a box, which keeps an idle stream small.
    #[allow(clippy::vec_box, reason = "streams reuse the boxes")] Vec<Box<Outbox>>,
);

impl Stream {
    /// Wraps an accepted, non-blocking socket.
    pub fn new(socket: TcpStream, tls: bool) -> Self {
        // Best effort. Set here and not on the listener, where it would limit the window scale of web clients, too.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        Self { socket, tls: tls.then(Box::default), outbox: None, unsent: Vec::new() }
    }

    /// Returns the descriptor, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Returns the next byte without consuming it; `None` if none is available.
    pub fn peek(&self) -> Option<u8> {
        let mut first = [0];
        self.socket.peek(&mut first).is_ok_and(|len| len == 1).then_some(first[0])
    }

    /// Reads once, at most `max` bytes, and appends them to `target`.
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

    /// Returns whether output is queued.
    pub fn is_waiting(&self) -> bool {
        !self.unsent.is_empty() || self.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty())
    }

    /// Returns whether bytes are queued that the kernel did not take.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Returns the bytes that the client has not acknowledged, with the kernel's overhead, and those that wait for the kernel.
    pub fn undelivered(&self) -> usize {
        KernelMemory::of(self.fd()).unwrap_or_default().unsent + self.unsent.len()
    }

    /// Returns the media that waits.
    pub fn waiting_media(&self) -> Traffic {
        self.outbox.as_ref().map_or_else(Traffic::default, |outbox| outbox.media())
    }

    /// Returns whether so many answers wait that no further requests should be read.
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

    /// Writes as much queued output as the socket takes. An emptied outbox goes back to `spare`.
    pub fn write(&mut self, now: Instant, output: &mut Scratch, spare: &mut Outboxes) -> Written {
        let mut written = Written { units: SOCKET_UNITS, ..Written::default() };
        written.end = self.write_all(now, output, &mut written).err();
        written.units += (written.len / WRITTEN_BYTES_PER_UNIT) as u32;
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
        outcome.stale = outbox.drop_stale(now);
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
                    // Seal a burst of large messages in one record, and write all records at once.
                    output.clear();
                    while !outbox.is_empty() && output.bytes().len() < RECORD_MAX {
                        let front = outbox.front_record(RECORD_MAX);
                        let len = front.len();
                        tls.seal(front, output).map_err(|_| CloseReason::TlsFailed)?;
                        outbox.consume(len);
                        outcome.units += 1;
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

    /// Sends records generated by TLS itself, after queued ones.
    ///
    /// # Errors
    /// `Reset` if the connection is broken, `Stuck` if too many unsent bytes wait.
    pub fn send_records(&mut self, records: &Scratch) -> Result<(), CloseReason> {
        let written = if self.unsent.is_empty() { write(&self.socket, records.bytes())? } else { 0 };
        let rest = &records.bytes()[written..];
        if self.unsent.len() + rest.len() > UNSENT_MAX {
            return Err(CloseReason::Stuck);
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// Sends bytes directly, bypassing the outbox, which must be empty: the first `small` of them in records of
    /// `record` bytes, each of which fits one packet. Returns how many bytes the socket took; the rest is queued.
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

    /// Adjusts the socket to a web client: the kernel chooses the receive buffer, so that uploads over long distances are
    /// fast, and holds `unsent` bytes, so that the worker is not woken for every few packets. Best effort.
    pub fn adjust_to_web(&self, unsent: u32) {
        let _ = SockRef::from(&self.socket).set_tcp_notsent_lowat(unsent);
        let _ = let_kernel_size_buffers(&self.socket);
    }

    /// Ends the sending direction; the client may continue to send.
    pub fn end(&mut self, output: &mut Scratch) {
        self.send_close_notify(output);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes the connection, with a close_notify if no unsent bytes wait. Resets it if the kernel would keep much for it, where it
    /// counts in no limit: bytes that nobody will read, or output that the client does not take. Returns the socket, whose sending
    /// direction is ended, if the client has yet to acknowledge less output.
    pub fn close(mut self, reason: CloseReason, output: &mut Scratch) -> Option<TcpStream> {
        use CloseReason::{Displaced, KernelMemory as Memory, Stuck};
        let held = KernelMemory::of(self.fd()).unwrap_or_default();
        let unsent_max = if matches!(reason, Displaced | Memory | Stuck) { 1 } else { RESET_UNSENT };
        let socket = SockRef::from(&self.socket);
        if held.received >= RESET_RECEIVED || held.unsent >= unsent_max {
            let _ = socket.set_linger(Some(Duration::ZERO));
            return None;
        }
        let _ = socket.set_tcp_user_timeout(Some(LAST_OUTPUT_TIMEOUT));
        if self.unsent.is_empty() {
            self.send_close_notify(output);
        }
        // A close_notify waits for an acknowledgement like other output.
        let unsent = match &self.tls {
            Some(_) => KernelMemory::of(self.fd()).unwrap_or_default().unsent,
            None => held.unsent,
        };
        if unsent == 0 {
            return None;
        }
        // Nobody reads any more, so the kernel need not keep what the client sends.
        let _ = SockRef::from(&self.socket).set_recv_buffer_size(1);
        self.socket.shutdown(Shutdown::Write).is_ok().then_some(self.socket)
    }

    fn send_close_notify(&mut self, output: &mut Scratch) {
        if let Some(tls) = &mut self.tls {
            output.clear();
            tls.close(output);
            // The few bytes fit, because no output is queued; an error means that the connection is closed already.
            let _ = write(&self.socket, output.bytes());
        }
    }
}

/// Returns whether a later attempt may succeed.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes as much as the socket takes and returns the number of bytes.
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
