//! A web client's way to its back end: a web server behind us, or the built-in site in this process.
//!
//! Both directions are bounded by what one read brings: while the other side has not taken it, nothing more is read.
//! The end of one direction is handed on and leaves the other open.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, Protocol as Ip, Socket, Type};

use super::connection::INTEREST;
use super::door::Life;
use crate::base::time::Instant;
use crate::net::admission::Descriptor;
use crate::net::counters::CloseReason;
use crate::net::scratch::{Buffers, Scratch};
use crate::net::stream::tls::{Protocol, RECORD_MAX};
use crate::net::stream::{Stream, is_transient, write};
use crate::net::syscall::{Epoll, read_stream, ready};
use crate::net::token::Token;

/// Bytes read from a web server at once.
pub const CHUNK: usize = 64 << 10;
/// Time for a web server on this or the next host to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time without a byte in either direction. Longer than any pause of a websocket that is still of use.
const IDLE_TIME: Duration = Duration::from_secs(2 * 3600);
/// The same once one side has ended.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(300);
/// Unsent bytes that the kernel may hold for a web client: there is no stale media among them, and a download needs
/// no wake-up for every 16 KiB.
pub const NOT_SENT_LOW_WATER: u32 = 512 << 10;
/// The first records of an answer fit one packet each, so that a browser begins to read at once.
const SMALL_RECORD: usize = 1300;
/// Bytes in small records, and the pause after which records are small again.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_AGAIN: Duration = Duration::from_secs(1);

/// The connection to the back end of a client.
pub struct Splice {
    /// TCP to a web server, or one end of a pair whose other end the built-in site has.
    back_end: Socket,
    protocol: Protocol,
    connected: bool,
    /// What the web server did not take yet; until it is connected, the PROXY header and all that the client sent.
    pending: Vec<u8>,
    /// Length of the PROXY header.
    header: usize,
    client: Direction,
    server: Direction,
    /// What the web server's socket is watched for.
    interest: u32,
    /// Bytes sent to the client without a pause, and when the last were.
    streak: usize,
    sent_at: Instant,
    /// Held while it is open.
    _descriptor: Descriptor,
}

/// How far one side's sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// It sends no more.
    Ended,
    /// And the other side knows.
    Told,
}

/// What an event on a web server's socket came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackEndOutcome {
    /// Bytes that came from it.
    pub received: usize,
    /// Bytes that the client's socket took.
    pub sent: usize,
    /// Whether the back end accepted the connection or sent something.
    pub used: bool,
    /// It is unreachable.
    pub down: bool,
    /// Why the connection is to be closed.
    pub end: Option<CloseReason>,
}

impl Splice {
    /// Begins to connect to `to`, in the place of `descriptor`; `header` goes first.
    ///
    /// # Errors
    /// The kernel has no socket or no way there.
    pub fn connect(
        descriptor: Descriptor,
        to: SocketAddr,
        protocol: Protocol,
        header: Vec<u8>,
        now: Instant,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Ip::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Self { header: header.len(), pending: header, ..Self::new(socket, descriptor, protocol, now) })
    }

    /// A splice to the built-in site, which has the other end of `stream`'s pair.
    pub fn to_site(descriptor: Descriptor, stream: UnixStream, protocol: Protocol, now: Instant) -> Self {
        Self { connected: true, ..Self::new(stream.into(), descriptor, protocol, now) }
    }

    fn new(back_end: Socket, descriptor: Descriptor, protocol: Protocol, now: Instant) -> Self {
        Self {
            back_end,
            protocol,
            connected: false,
            header: 0,
            pending: Vec::new(),
            client: Direction::Open,
            server: Direction::Open,
            interest: 0,
            streak: 0,
            sent_at: now,
            _descriptor: descriptor,
        }
    }

    /// Takes over what the client sent to a web server that could not be reached, without our PROXY header.
    pub fn replay(&mut self, unreached: &mut Splice) {
        let header = unreached.header.min(unreached.pending.len());
        self.pending.extend(unreached.pending.drain(header..));
        self.client = unreached.client;
    }

    /// What the client speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Takes what the client sent. It is not read again before the back end took it.
    fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let written = if self.connected && self.pending.is_empty() {
            write(&self.back_end, bytes).map_err(|_| self.broken())?
        } else {
            0
        };
        self.pending.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what waits for the web server.
    fn push_pending(&mut self) -> Result<(), CloseReason> {
        let written = write(&self.back_end, &self.pending).map_err(|_| self.broken())?;
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
    }

    /// Why a client is closed whose back end is gone. One that had ended its answers owed nothing more.
    fn broken(&self) -> CloseReason {
        if self.server == Direction::Open { CloseReason::BackEnd } else { CloseReason::Closed }
    }

    fn record_size(&mut self, now: Instant) -> usize {
        if now.since(self.sent_at) > SMALL_AGAIN {
            self.streak = 0;
        }
        self.sent_at = now;
        if self.streak < SMALL_BYTES { SMALL_RECORD } else { RECORD_MAX }
    }

    /// What the client's socket is watched for, but for room to write.
    pub fn client_interest(&self) -> u32 {
        match self.client == Direction::Open && self.connected && self.pending.is_empty() {
            true => INTEREST,
            false => 0,
        }
    }

    fn wanted(&self, client_blocked: bool) -> u32 {
        let write = if !self.connected || !self.pending.is_empty() { ready::WRITE } else { 0 };
        let reads = self.connected && !client_blocked && self.server == Direction::Open;
        match (reads, write) {
            (true, _) => write | ready::READ,
            // The kernel reports a back end that has closed whatever is asked for: once is enough.
            (false, 0) => ready::EDGE,
            (false, _) => write,
        }
    }

    pub fn life(&self, active: Instant, now: Instant) -> Life {
        let (limit, over) = if !self.connected {
            (CONNECT_TIME, Life::BackEndDown)
        } else if self.client != Direction::Open || self.server != Direction::Open {
            (HALF_CLOSED_TIME, Life::Over(CloseReason::Idle))
        } else {
            (IDLE_TIME, Life::Over(CloseReason::Idle))
        };
        if now >= active + limit { over } else { Life::Until(active + limit) }
    }

    /// Registers the back end's socket with `epoll`.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn register(&mut self, epoll: &Epoll, token: Token) -> io::Result<()> {
        self.interest = self.wanted(false);
        epoll.add(&self.back_end, token.pack(), self.interest)
    }

    /// Hands the client's bytes to the back end; `ended`: the client sends no more. Returns whether that is a sign of use:
    /// a part of a record is none.
    ///
    /// # Errors
    /// `BackEnd` if the back end is gone, `Closed` if it had ended its answers before.
    pub fn take(&mut self, bytes: &[u8], ended: bool) -> Result<bool, CloseReason> {
        let ends = ended && self.client == Direction::Open;
        if ends {
            self.client = Direction::Ended;
        }
        self.take_bytes(bytes)?;
        Ok(ends || !bytes.is_empty())
    }

    /// Handles an event of the back end's socket: what it sent goes to the client's `stream`.
    pub fn on_back_end(
        &mut self,
        stream: &mut Stream,
        readiness: u32,
        buffers: &mut Buffers,
        now: Instant,
    ) -> BackEndOutcome {
        let mut outcome = BackEndOutcome::default();
        outcome.end = self.exchange(stream, readiness, buffers, now, &mut outcome).err();
        outcome
    }

    fn exchange(
        &mut self,
        stream: &mut Stream,
        readiness: u32,
        buffers: &mut Buffers,
        now: Instant,
        outcome: &mut BackEndOutcome,
    ) -> Result<(), CloseReason> {
        if !self.connected {
            if !matches!(self.back_end.take_error(), Ok(None)) || readiness & ready::CLOSED != 0 {
                outcome.down = true;
                return Ok(());
            }
            (self.connected, outcome.used) = (true, true);
        }
        if readiness & ready::WRITE != 0 && !self.pending.is_empty() {
            self.push_pending()?;
        }
        if readiness & !ready::WRITE == 0 || self.server != Direction::Open || stream.is_blocked() {
            // Both directions closed, or an error, while nothing is to be read: it will not get better.
            let broken = readiness & (ready::ERROR | ready::CLOSED) != 0;
            return if broken && !stream.is_blocked() { Err(self.broken()) } else { Ok(()) };
        }
        let Buffers { plain, output, .. } = buffers;
        plain.clear();
        let room = plain.spare().len().min(CHUNK);
        let len = match read_stream(self.back_end.as_fd(), &mut plain.spare()[..room]) {
            Ok(0) => {
                self.server = Direction::Ended;
                return Ok(());
            }
            Ok(len) => len,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(_) => return Err(CloseReason::BackEnd),
        };
        plain.advance(len);
        (outcome.received, outcome.used) = (len, true);
        let small = if self.record_size(now) < RECORD_MAX { SMALL_BYTES } else { 0 };
        self.streak = self.streak.saturating_add(len);
        outcome.sent = stream.send_bytes(plain.bytes(), (small, SMALL_RECORD), output)?;
        Ok(())
    }

    /// Hands ends on once all before them is through, and watches the back end for what is wanted now. Returns whether the
    /// connection has less time than before.
    ///
    /// # Errors
    /// `Closed` if both directions have ended, `BackEnd` if the back end cannot be watched.
    pub fn settle(
        &mut self,
        stream: &mut Stream,
        epoll: &Epoll,
        token: Token,
        output: &mut Scratch,
    ) -> Result<bool, CloseReason> {
        let (blocked, mut shortened) = (stream.is_waiting(), false);
        if self.client == Direction::Ended && self.connected && self.pending.is_empty() {
            // A socket that is gone already says so by an event.
            let _ = self.back_end.shutdown(Shutdown::Write);
            (self.client, shortened) = (Direction::Told, true);
        }
        let ends = self.server == Direction::Ended && !blocked;
        if ends {
            (self.server, shortened) = (Direction::Told, true);
        }
        let over = (self.client, self.server) == (Direction::Told, Direction::Told);
        let wanted = self.wanted(blocked);
        // A back end that closed while the client was slow is reported once more, now that nothing waits.
        if wanted != self.interest || ends {
            self.interest = wanted;
            epoll.modify(&self.back_end, token.pack(), wanted).map_err(|_| CloseReason::BackEnd)?;
        }
        if ends {
            stream.end(output);
        }
        if over {
            return Err(CloseReason::Closed);
        }
        Ok(shortened)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net::admission::{Admission, Class, Gate};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn splice() -> (Splice, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let to = listener.local_addr().expect("local");
        let descriptor = Gate::new(Admission::unlimited(), 1).socket(Class::Web).expect("no limit");
        (
            Splice::connect(descriptor, to, Protocol::Http1, b"PROXY UNKNOWN\r\n".to_vec(), START)
                .expect("connect"),
            listener,
        )
    }

    #[test]
    fn a_quiet_websocket_lives_for_hours_and_a_half_closed_one_for_minutes() {
        let (mut splice, _listener) = splice();
        assert_eq!(splice.life(START, at(4)), Life::Until(at(5)));
        assert_eq!(splice.life(START, at(5)), Life::BackEndDown);
        splice.connected = true;
        assert_eq!(splice.life(START, at(3600)), Life::Until(at(7200)));
        assert_eq!(splice.life(START, at(7200)), Life::Over(CloseReason::Idle));
        splice.client = Direction::Told;
        assert_eq!(splice.life(START, at(0)), Life::Until(at(300)));
        assert_eq!(splice.life(START, at(300)), Life::Over(CloseReason::Idle));
    }

    #[test]
    fn nothing_is_read_that_the_other_side_did_not_take() {
        let (mut splice, _listener) = splice();
        assert_eq!((splice.client_interest(), splice.wanted(false)), (0, ready::WRITE), "not connected yet");
        splice.connected = true;
        splice.pending.clear();
        assert_eq!((splice.client_interest(), splice.wanted(false)), (INTEREST, ready::READ));
        assert_eq!(splice.wanted(true), ready::EDGE, "the client is slow");
        splice.pending.push(1);
        assert_eq!((splice.client_interest(), splice.wanted(false)), (0, ready::READ | ready::WRITE));
    }

    #[test]
    fn records_are_small_after_a_pause_and_full_in_a_stream() {
        let (mut splice, _listener) = splice();
        assert_eq!(splice.record_size(START), SMALL_RECORD);
        splice.streak = SMALL_BYTES;
        assert_eq!(splice.record_size(at(1)), RECORD_MAX);
        assert_eq!(splice.record_size(at(3)), SMALL_RECORD);
    }
}
