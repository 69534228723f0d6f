//! Splices a web client to its back end: a web server, or the built-in site in this process.
//!
//! Both directions buffer at most one read: nothing more is read until the other side has taken it. The end of one
//! direction is forwarded and leaves the other open.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, Protocol as Ip, Socket, Type};

use super::life::INTEREST;
use super::life::Life;
use super::rest::{self, Rest};
use crate::base::time::Instant;
use crate::net::admission::Descriptor;
use crate::net::counters::CloseReason;
use crate::net::scratch::{Buffers, Scratch};
use crate::net::stream::record::RECORD_MAX;
use crate::net::stream::tls::Protocol;
use crate::net::stream::{Stream, is_transient, write};
use crate::net::syscall::{Epoll, read_stream, ready};
use crate::net::token::Token;

/// Bytes per read from a web server.
pub const CHUNK: usize = 64 << 10;
/// Time for a web server on this host or nearby to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time without a byte in either direction. Longer than any useful pause of a websocket.
const IDLE_TIME: Duration = Duration::from_secs(2 * 3600);
/// The same after one side has ended.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(300);
/// Unsent bytes that the kernel may hold for a web client: they cannot become stale, and a download does not wake the
/// worker for every 16 KiB.
pub const NOT_SENT_LOW_WATER: u32 = 512 << 10;
/// Length of the first records of an answer. Each fits one packet, so a browser can decrypt every packet as soon as it
/// arrives.
const SMALL_RECORD: usize = 1300;
/// Bytes sent in small records, and the pause after which records are small again.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_AGAIN: Duration = Duration::from_secs(1);
/// The receive buffer for a web server, and for one on this machine. Without it, the kernel holds megabytes for a client that
/// stops reading.
const RECEIVE_BUFFER: usize = 256 << 10;
const LOCAL_RECEIVE_BUFFER: usize = 64 << 10;
/// The segments of a web server. Those of the loopback interface have 64 KiB, and ten of them let the kernel enlarge the
/// server's send buffer to 4 MB at once. With these it holds 0.7 MB for a client that stops reading, and is as fast.
const SEGMENT: u32 = 1460;

/// The connection to the back end of a client.
pub struct Splice {
    /// TCP to a web server, or one end of a socket pair whose other end the built-in site holds.
    back_end: Socket,
    protocol: Protocol,
    connected: bool,
    /// Bytes that the back end has not taken; until it is connected, the PROXY header and everything that the client
    /// sent.
    pending: Vec<u8>,
    /// Length of the PROXY header.
    header: usize,
    client: Direction,
    server: Direction,
    /// What the client has yet to receive after the end of the exchange.
    rest: Option<Rest>,
    /// The epoll interest in the back end's socket.
    interest: u32,
    /// Bytes sent to the client without a pause, and the time of the last.
    streak: usize,
    sent_at: Instant,
    /// Held while the socket is open.
    _descriptor: Descriptor,
}

/// The state of one side's sending direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// It has ended.
    Ended,
    /// Its end was forwarded to the other side.
    Forwarded,
}

/// The result of an event on a back end's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackEndOutcome {
    /// Bytes received from the back end.
    pub received: usize,
    /// Bytes that the client's socket took.
    pub sent: usize,
    /// Whether the back end accepted the connection or sent something.
    pub used: bool,
    /// Whether it is unreachable.
    pub down: bool,
    /// Why the connection must be closed.
    pub end: Option<CloseReason>,
}

impl Splice {
    /// Starts connecting to `to`, holding `descriptor`; `header` is sent first.
    ///
    /// # Errors
    /// The error of `socket(2)` or `connect(2)`.
    pub fn connect(
        descriptor: Descriptor,
        to: SocketAddr,
        protocol: Protocol,
        header: Vec<u8>,
        now: Instant,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Ip::TCP))?;
        socket.set_tcp_nodelay(true)?;
        let is_local = to.ip().to_canonical().is_loopback();
        socket.set_recv_buffer_size(if is_local { LOCAL_RECEIVE_BUFFER } else { RECEIVE_BUFFER })?;
        // Best effort.
        let _ = socket.set_tcp_mss(SEGMENT);
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Self { header: header.len(), pending: header, ..Self::new(socket, descriptor, protocol, now) })
    }

    /// Creates a splice to the built-in site, which holds the other end of the socket pair of `stream`.
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
            rest: None,
            interest: 0,
            streak: 0,
            sent_at: now,
            _descriptor: descriptor,
        }
    }

    /// Takes over the client's bytes, without the PROXY header, from a splice whose web server was unreachable.
    pub fn replay(&mut self, unreached: &mut Splice) {
        let header = unreached.header.min(unreached.pending.len());
        self.pending.extend(unreached.pending.drain(header..));
        self.client = unreached.client;
    }

    /// Returns when bytes of the back end were last passed on to the client.
    pub fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// Returns the descriptor of the back end's socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.back_end.as_fd()
    }

    /// Returns the protocol of the client.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Queues bytes of the client. The client is not read again until the back end has taken them.
    fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let written = if self.connected && self.pending.is_empty() {
            write(&self.back_end, bytes).map_err(|_| self.broken())?
        } else {
            0
        };
        self.pending.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes pending bytes to the back end.
    fn push_pending(&mut self) -> Result<(), CloseReason> {
        let written = write(&self.back_end, &self.pending).map_err(|_| self.broken())?;
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
    }

    /// Returns why the client of a broken back end is closed: `Closed` if the back end had ended its answers before.
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

    /// Returns the epoll interest in the client's socket, without the one for writing.
    pub fn client_interest(&self) -> u32 {
        if self.rest.is_some() {
            // epoll always reports a connection whose directions have both ended: edge-triggered, it does so only once.
            return ready::EDGE;
        }
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
            // epoll always reports a closed back end: edge-triggered, it does so only once.
            (false, 0) => ready::EDGE,
            (false, _) => write,
        }
    }

    /// Returns whether the client has yet to receive the rest of the answer. If so, nothing more is forwarded in either direction.
    pub fn keeps_rest(&mut self, stream: &Stream) -> bool {
        let is_left = !self.rest.as_ref().is_some_and(Rest::is_over) && rest::is_left(stream);
        if is_left {
            self.rest.get_or_insert_default();
            self.client = Direction::Forwarded;
            self.pending = Vec::new();
        }
        is_left
    }

    /// Returns when to check the connection of `stream` again.
    pub fn life(&mut self, stream: &Stream, active: Instant, now: Instant) -> Life {
        if let Some(rest) = &mut self.rest {
            return rest.life(stream, now);
        }
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

    /// Forwards the client's bytes to the back end; `ended`: whether the client has ended its sending direction.
    /// Returns whether this counts as activity, which a part of a TLS record does not.
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

    /// Handles an event of the back end's socket: forwards its bytes to the client's `stream`.
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
            // Both directions are closed, or an error is pending, and nothing is left to read.
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

    /// Forwards the end of a direction once all bytes before it are forwarded, and updates the epoll interest in the
    /// back end. Returns whether the connection's deadline has become earlier.
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
            // If the socket is closed already, an event reports it.
            let _ = self.back_end.shutdown(Shutdown::Write);
            (self.client, shortened) = (Direction::Forwarded, true);
        }
        let ends = self.server == Direction::Ended && !blocked;
        if ends {
            (self.server, shortened) = (Direction::Forwarded, true);
        }
        let over = (self.client, self.server) == (Direction::Forwarded, Direction::Forwarded);
        let wanted = self.wanted(blocked);
        // Also at the end of the answers: setting the interest anew makes epoll report once more a back end that closed
        // while the client was slow.
        if wanted != self.interest || ends {
            self.interest = wanted;
            epoll.modify(&self.back_end, token.pack(), wanted).map_err(|_| CloseReason::BackEnd)?;
        }
        if ends {
            stream.end(output);
        }
        if over && self.rest.is_none() {
            return Err(CloseReason::Closed);
        }
        Ok(shortened)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::admission::{Admission, Class, Gate};
    use crate::net::stream::Outboxes;

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

    fn stream() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("local")).expect("connect");
        let (socket, _) = listener.accept().expect("accept");
        socket.set_nonblocking(true).expect("set");
        (Stream::new(socket, false), client)
    }

    /// A client that has ended its own direction, as `nc -N` does, and reads slowly.
    #[test]
    fn the_rest_of_an_answer_keeps_its_connection_until_it_has_arrived() {
        let (mut splice, _listener) = splice();
        let (mut stream, mut client) = stream();
        assert!(!splice.keeps_rest(&stream), "nothing is left");
        let answer = vec![7; 400_000];
        let mut buffers = Buffers::default();
        let taken = stream.send_bytes(&answer, (0, 1), &mut buffers.output).expect("sent");
        (splice.connected, splice.client, splice.server) = (true, Direction::Ended, Direction::Ended);
        assert!(splice.keeps_rest(&stream));
        assert_eq!(splice.client_interest(), ready::EDGE);
        assert_eq!(splice.life(&stream, START, at(0)), Life::Until(at(1)));
        assert_eq!(splice.life(&stream, START, at(10)), Life::Over(CloseReason::Stuck), "it reads nothing");
        splice.rest = Some(Rest::default());
        let mut got = vec![0; answer.len()];
        let mut len = 0;
        while len < taken {
            len += client.read(&mut got[len..]).expect("the answer");
            stream.write(at(11), &mut buffers.output, &mut Outboxes::default());
        }
        // Acknowledgements of the loopback interface are immediate, but the last may be delayed for 40 ms.
        while splice.keeps_rest(&stream) && stream.undelivered() > 0 {
            std::thread::yield_now();
            splice.life(&stream, START, at(12));
        }
        assert_eq!(splice.life(&stream, START, at(13)), Life::Over(CloseReason::Closed));
        assert!(!splice.keeps_rest(&stream));
    }

    #[test]
    fn an_idle_websocket_lives_for_hours_and_a_half_closed_one_for_minutes() {
        let (mut splice, _listener) = splice();
        let (stream, _client) = stream();
        assert_eq!(splice.life(&stream, START, at(4)), Life::Until(at(5)));
        assert_eq!(splice.life(&stream, START, at(5)), Life::BackEndDown);
        splice.connected = true;
        assert_eq!(splice.life(&stream, START, at(3600)), Life::Until(at(7200)));
        assert_eq!(splice.life(&stream, START, at(7200)), Life::Over(CloseReason::Idle));
        splice.client = Direction::Forwarded;
        assert_eq!(splice.life(&stream, START, at(0)), Life::Until(at(300)));
        assert_eq!(splice.life(&stream, START, at(300)), Life::Over(CloseReason::Idle));
    }

    #[test]
    fn neither_side_is_read_until_the_other_has_taken_its_bytes() {
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
