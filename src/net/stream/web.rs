//! A web client's stream: spliced to a web server behind us, or answered by the built-in site.
//!
//! Both directions are bounded by what one read brings: while the other side has not taken it, nothing more is read.
//! The end of one direction is handed on and leaves the other open.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol as Ip, Socket, Type};

use super::{INTEREST, Life, Phase, Stream, WriteOutcome, is_transient, write};
use crate::net::admission::Descriptor;
use crate::net::counters::CloseReason;
use crate::net::scratch::{Buffers, Scratch};
use crate::net::share443::Protocol;
use crate::net::syscall::{Epoll, read_stream, ready};
use crate::net::tls::RECORD_MAX;
use crate::net::token::Token;
use crate::turn::time::Instant;

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
const NOT_SENT_LOW_WATER: u32 = 512 << 10;
/// The first records of an answer fit one packet each, so that a browser begins to read at once.
const SMALL_RECORD: usize = 1300;
/// Bytes in small records, and the pause after which records are small again.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_AGAIN: Duration = Duration::from_secs(1);

/// The connection to the web server behind a client.
pub struct Splice {
    back_end: TcpStream,
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

/// A client whom the built-in site answers.
pub struct Page {
    /// What he speaks.
    pub protocol: Protocol,
    /// What he sent since the last answer.
    pub received: Vec<u8>,
    /// There should be a web server.
    pub down: bool,
    /// The last answer waits.
    pub closing: bool,
}

/// What an event on a web server's socket came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackEndOutcome {
    /// Bytes that came from it.
    pub received: usize,
    /// Bytes that the client's socket took.
    pub sent: usize,
    /// It cannot be had.
    pub down: bool,
    /// The stream is to be closed.
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
        Ok(Self {
            back_end: socket.into(),
            protocol,
            connected: false,
            header: header.len(),
            pending: header,
            client: Direction::Open,
            server: Direction::Open,
            interest: ready::WRITE,
            streak: 0,
            sent_at: now,
            _descriptor: descriptor,
        })
    }

    /// What the client speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Takes what the client sent. He is not read again before the web server took it.
    fn take(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let written = if self.connected && self.pending.is_empty() {
            write(&self.back_end, bytes).map_err(|_| CloseReason::BackEnd)?
        } else {
            0
        };
        self.pending.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what waits for the web server.
    fn push_pending(&mut self) -> Result<(), CloseReason> {
        let written = write(&self.back_end, &self.pending).map_err(|_| CloseReason::BackEnd)?;
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
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
        if reads { write | ready::READ } else { write }
    }

    pub(super) fn life(&self, active: Instant, now: Instant) -> Life {
        let (limit, over) = if !self.connected {
            (CONNECT_TIME, Life::BackEndDown)
        } else if self.client != Direction::Open || self.server != Direction::Open {
            (HALF_CLOSED_TIME, Life::Over(CloseReason::Idle))
        } else {
            (IDLE_TIME, Life::Over(CloseReason::Idle))
        };
        if now >= active + limit { over } else { Life::Until(active + limit) }
    }
}

impl Stream {
    /// Makes it a web client whose web server is being connected to.
    ///
    /// # Errors
    /// The web server cannot be watched.
    pub fn splice(&mut self, epoll: &Epoll, token: Token, splice: Splice) -> io::Result<()> {
        epoll.add(&splice.back_end, token.pack(), splice.interest)?;
        self.active = splice.sent_at;
        // Best effort: only the number of wake-ups depends on it.
        let _ = socket2::SockRef::from(&self.socket).set_tcp_notsent_lowat(NOT_SENT_LOW_WATER);
        self.phase = Phase::Web(Box::new(splice));
        Ok(())
    }

    /// Has the built-in site answer him. What a web server should have got is what he sent.
    pub fn answer_by_site(&mut self, protocol: Protocol, down: bool, now: Instant) {
        let received = match &mut self.phase {
            Phase::Web(splice) => splice.pending.split_off(splice.header.min(splice.pending.len())),
            _ => Vec::new(),
        };
        self.active = now;
        self.phase = Phase::Page(Box::new(Page { protocol, received, down, closing: false }));
    }

    /// The splice, for a web client who has one.
    pub fn spliced(&self) -> Option<&Splice> {
        match &self.phase {
            Phase::Web(splice) => Some(splice),
            _ => None,
        }
    }

    /// Hands the client's bytes to the web server, and his end.
    ///
    /// # Errors
    /// The web server is gone.
    pub fn to_back_end(&mut self, bytes: &[u8], ended: bool, now: Instant) -> Result<(), CloseReason> {
        let Phase::Web(splice) = &mut self.phase else { return Ok(()) };
        let ends = ended && splice.client == Direction::Open;
        if ends {
            splice.client = Direction::Ended;
        }
        // Only what the web server gets: a part of a record is no sign of use.
        if ends || !bytes.is_empty() {
            self.active = now;
        }
        splice.take(bytes)
    }

    /// Deals with an event of the web server's socket.
    pub fn on_back_end(&mut self, readiness: u32, buffers: &mut Buffers, now: Instant) -> BackEndOutcome {
        let mut outcome = BackEndOutcome::default();
        let result = self.exchange(readiness, buffers, now, &mut outcome);
        outcome.end = result.err();
        outcome
    }

    fn exchange(
        &mut self,
        readiness: u32,
        buffers: &mut Buffers,
        now: Instant,
        outcome: &mut BackEndOutcome,
    ) -> Result<(), CloseReason> {
        let Phase::Web(splice) = &mut self.phase else { return Ok(()) };
        if !splice.connected {
            if !matches!(splice.back_end.take_error(), Ok(None)) || readiness & ready::CLOSED != 0 {
                outcome.down = true;
                return Ok(());
            }
            splice.connected = true;
            self.active = now;
        }
        if readiness & ready::WRITE != 0 && !splice.pending.is_empty() {
            splice.push_pending()?;
        }
        if readiness & !ready::WRITE == 0 || splice.server != Direction::Open || !self.unsent.is_empty() {
            // Both directions closed, or an error, while nothing is to be read: it will not get better.
            let broken = readiness & ready::ERROR != 0 || readiness & ready::CLOSED != 0;
            return if broken && self.unsent.is_empty() { Err(CloseReason::BackEnd) } else { Ok(()) };
        }
        let Buffers { plain, output, .. } = buffers;
        plain.clear();
        let room = plain.spare().len().min(CHUNK);
        let len = match read_stream(splice.back_end.as_fd(), &mut plain.spare()[..room]) {
            Ok(0) => {
                splice.server = Direction::Ended;
                return Ok(());
            }
            Ok(len) => len,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(_) => return Err(CloseReason::BackEnd),
        };
        plain.advance(len);
        outcome.received = len;
        self.active = now;
        let size = splice.record_size(now);
        splice.streak = splice.streak.saturating_add(len);
        let Some(tls) = &mut self.tls else {
            outcome.sent = write(&self.socket, plain.bytes())?;
            self.unsent.extend_from_slice(&plain.bytes()[outcome.sent..]);
            return Ok(());
        };
        output.clear();
        let small = plain.bytes().len().min(if size < RECORD_MAX { SMALL_BYTES } else { 0 });
        let (begin, rest) = plain.bytes().split_at(small);
        for record in begin.chunks(SMALL_RECORD).chain(rest.chunks(RECORD_MAX)) {
            tls.seal(record, output).map_err(|_| CloseReason::TlsFailed)?;
        }
        outcome.sent = write(&self.socket, output.bytes())?;
        self.unsent.extend_from_slice(&output.bytes()[outcome.sent..]);
        Ok(())
    }

    /// Hands ends on once all before them is through, and watches the web server for what is wanted now.
    pub(super) fn settle(
        &mut self,
        epoll: &Epoll,
        back_end: Token,
        now: Instant,
        output: &mut Scratch,
    ) -> Result<(), CloseReason> {
        let blocked = self.is_waiting();
        match &mut self.phase {
            Phase::Web(splice) => {
                if splice.client == Direction::Ended && splice.connected && splice.pending.is_empty() {
                    // A socket that is gone already says so by an event.
                    let _ = splice.back_end.shutdown(Shutdown::Write);
                    splice.client = Direction::Told;
                    self.hurried = true;
                }
                if splice.server == Direction::Ended && !blocked {
                    splice.server = Direction::Told;
                    self.hurried = true;
                    self.say_end(output);
                }
            }
            Phase::Page(page) if page.closing && !blocked => {
                self.active = now;
                self.phase = Phase::Lingering;
                self.hurried = true;
                self.say_end(output);
            }
            _ => {}
        }
        if let Phase::Web(splice) = &mut self.phase {
            if (splice.client, splice.server) == (Direction::Told, Direction::Told) {
                return Err(CloseReason::Closed);
            }
            let wanted = splice.wanted(blocked);
            if wanted != splice.interest {
                splice.interest = wanted;
                epoll.modify(&splice.back_end, back_end.pack(), wanted).map_err(|_| CloseReason::BackEnd)?;
            }
        }
        Ok(())
    }

    /// Tells the client that nothing follows; he may go on.
    fn say_end(&mut self, output: &mut Scratch) {
        if let Some(tls) = &mut self.tls {
            output.clear();
            tls.close(output);
            // A few bytes where nothing waits: they fit.
            let _ = write(&self.socket, output.bytes());
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends it without a close_notify: an answer that was cut off must not look whole (RFC 8446 section 6.1).
    pub fn cut_off(&mut self) {
        self.tls = None;
    }
}

impl WriteOutcome {
    pub(super) fn settled(&mut self, result: Result<(), CloseReason>) {
        if let Err(reason) = result {
            self.end.get_or_insert(reason);
        }
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
        assert_eq!(splice.wanted(true), 0, "the client is slow");
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
