//! Sockets of closed connections whose last output the client has not acknowledged.
//!
//! The kernel would deliver it without the program, but then it would count in no limit, and a client that acknowledges a segment now
//! and then would keep it for minutes. A socket is closed when everything is acknowledged, and reset after five seconds, or earlier
//! if a newcomer needs its place or the kernel's memory for TCP is low.

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::base::network::Network;
use crate::base::time::Instant;
use crate::net::admission::Entry;
use crate::net::stream::LAST_OUTPUT_TIMEOUT;
use crate::net::syscall::KernelMemory;

/// The most sockets of one worker. Each holds less than 16 KiB of the kernel's memory.
const MAX: usize = 1024;
/// When a socket is looked at: after most round trips, after one loss, and at the end.
const LOOKS: [Duration; 3] = [Duration::from_millis(150), Duration::from_millis(600), LAST_OUTPUT_TIMEOUT];
/// Sockets handled in a turn. Each takes two or three system calls.
const IN_TURN: usize = 64;

/// The sockets of a worker.
#[derive(Default)]
pub struct Lingering {
    /// Those that wait for the first look, the second and the last; in each list the oldest first.
    waiting: [VecDeque<Left>; LOOKS.len()],
    /// How many each source has.
    sources: HashMap<Network, usize>,
    now: Instant,
    is_memory_low: bool,
}

struct Left {
    since: Instant,
    source: Network,
    socket: TcpStream,
    /// It counts as a connection of its source until it is closed.
    _entry: Entry,
}

impl Lingering {
    /// Sets the time of a turn.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Keeps a socket that epoll no longer watches, and its place as that of a stranger. If there are `max` already, closes one. While
    /// memory is low, resets the socket.
    pub fn add(&mut self, socket: TcpStream, mut entry: Entry, source: Network, max: usize) {
        if self.is_memory_low {
            return reset_unless_acknowledged(&socket);
        }
        entry.leave_share();
        while self.len() >= max.min(MAX) && self.close_one() {}
        *self.sources.entry(source).or_default() += 1;
        self.waiting[0].push_back(Left { since: self.now, source, socket, _entry: entry });
    }

    /// Sets whether the kernel's memory for TCP is low.
    pub fn set_memory_low(&mut self, is_low: bool) {
        self.is_memory_low = is_low;
    }

    /// Returns when [`Self::on_deadline`] has work.
    pub fn due(&self) -> Option<Instant> {
        let looks = self.waiting.iter().zip(LOOKS);
        let next = looks.filter_map(|(waiting, after)| Some(waiting.front()?.since + after)).min();
        if self.is_memory_low { next.map(|_| self.now) } else { next }
    }

    /// Closes sockets whose output is acknowledged, or whose time is over; while memory is low, the others too. Handles a limited
    /// number: then the next is due at once.
    pub fn on_deadline(&mut self, now: Instant) {
        for _ in 0..IN_TURN {
            if self.is_memory_low {
                if !self.close_one() {
                    return;
                }
                continue;
            }
            let is_due = |looks: &usize| {
                self.waiting[*looks].front().is_some_and(|left| left.since + LOOKS[*looks] <= now)
            };
            let Some(looks) = (0..LOOKS.len()).find(is_due) else { return };
            let Some(left) = self.waiting[looks].pop_front() else { return };
            match self.waiting.get_mut(looks + 1) {
                Some(next) if !is_acknowledged(&left.socket) => next.push_back(left),
                _ => self.close(left),
            }
        }
    }

    /// Closes the oldest socket of the source that has the most. Returns `false` if there is none.
    pub fn close_one(&mut self) -> bool {
        let most = self.sources.iter().max_by_key(|&(_, held)| *held);
        let Some((&source, &held)) = most else { return false };
        // A socket that has had more looks is older.
        for looks in (0..LOOKS.len()).rev() {
            let waiting = &mut self.waiting[looks];
            let at = waiting.iter().position(|left| held == 1 || left.source == source);
            if let Some(left) = at.and_then(|at| waiting.remove(at)) {
                self.close(left);
                return true;
            }
        }
        false
    }

    fn close(&mut self, left: Left) {
        if let Some(held) = self.sources.get_mut(&left.source) {
            *held -= 1;
            if *held == 0 {
                self.sources.remove(&left.source);
            }
        }
        reset_unless_acknowledged(&left.socket);
    }

    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }
}

fn is_acknowledged(socket: &TcpStream) -> bool {
    KernelMemory::of(socket).unwrap_or_default().unsent == 0
}

/// Makes the end of a socket a reset if the client has not acknowledged everything.
fn reset_unless_acknowledged(socket: &TcpStream) {
    if !is_acknowledged(socket) {
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::sync::Arc;

    use crate::net::admission::{Admission, Class, Gate, Rules};

    fn gate() -> Arc<Gate> {
        let rules = Rules { streams: 100, streams_per_source: 0, exempt: Vec::new() };
        Gate::new(Arc::new(Admission::new(rules, 100)), 1)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((1_000_000 + millis) * 1_000_000)
    }

    fn source(number: u8) -> Network {
        Network::site([192, 0, 2, number].into())
    }

    /// A socket with output that its client cannot take, and the client.
    fn unacknowledged() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        client.set_recv_buffer_size(2048).expect("small");
        client.connect(&listener.local_addr().expect("bound").into()).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        server.set_nonblocking(true).expect("nonblocking");
        while server.write(&[7; 4096]).is_ok() {}
        server.shutdown(Shutdown::Write).expect("ended");
        (server, client.into())
    }

    fn is_reset(mut client: &TcpStream) -> bool {
        client.set_nonblocking(true).expect("nonblocking");
        client.read_to_end(&mut Vec::new()).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    /// Sockets kept since the time 0, one of each of these sources, and their clients.
    fn kept(gate: &Arc<Gate>, sources: &[u8], max: usize) -> (Lingering, Vec<TcpStream>) {
        let mut lingering = Lingering::default();
        lingering.begin_turn(at(0));
        let mut clients = Vec::new();
        for &number in sources {
            let (socket, client) = unacknowledged();
            lingering.add(socket, gate.stream(None).expect("a place"), source(number), max);
            clients.push(client);
        }
        (lingering, clients)
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_reset_after_five_seconds() {
        let gate = gate();
        let (mut lingering, clients) = kept(&gate, &[1], 8);
        for look in [150, 600] {
            assert_eq!(lingering.due(), Some(at(look)));
            lingering.on_deadline(at(look));
        }
        assert_eq!(lingering.due(), Some(at(5000)));
        lingering.on_deadline(at(4999));
        assert_eq!((lingering.len(), gate.admission().streams()), (1, 1));
        lingering.on_deadline(at(5000));
        assert!(lingering.due().is_none() && is_reset(&clients[0]));
        assert_eq!(gate.admission().streams(), 0, "its place is free");
    }

    #[test]
    fn a_socket_ends_at_the_first_look_after_the_acknowledgement() {
        let gate = gate();
        let (mut lingering, mut clients) = kept(&gate, &[1], 8);
        lingering.on_deadline(at(150));
        assert_eq!(lingering.len(), 1);
        // The end of the stream arrives after everything else.
        clients[0].read_to_end(&mut Vec::new()).expect("all of it");
        lingering.on_deadline(at(600));
        assert!(lingering.len() == 0 && lingering.sources.is_empty());
    }

    #[test]
    fn the_source_with_the_most_gives_way() {
        let gate = gate();
        let (lingering, clients) = kept(&gate, &[1, 2, 3, 2, 3, 2, 4], 4);
        assert_eq!(lingering.len(), 4);
        let reset: Vec<bool> = clients.iter().map(is_reset).collect();
        // At the fifth both have two; at the others the second source, or one of those with as many.
        assert!(!reset[0], "the source with one stays");
        assert_eq!(reset.iter().filter(|&&reset| reset).count(), 3);
        let (lingering, clients) = kept(&gate, &[1, 2, 3, 4, 5], 4);
        assert!(lingering.len() == 4 && is_reset(&clients[0]), "of equal sources the oldest");
    }

    #[test]
    fn while_memory_is_low_all_are_closed_and_none_is_kept() {
        let gate = gate();
        let (mut lingering, clients) = kept(&gate, &[1, 2], 8);
        lingering.set_memory_low(true);
        assert_eq!(lingering.due(), Some(at(0)));
        lingering.on_deadline(at(0));
        assert!(lingering.due().is_none() && clients.iter().all(is_reset));
        let (socket, client) = unacknowledged();
        lingering.add(socket, gate.stream(None).expect("a place"), source(1), 8);
        assert!(lingering.len() == 0 && is_reset(&client));
    }

    #[test]
    fn a_socket_takes_no_place_of_its_class() {
        let gate = gate();
        let mut entry = gate.stream(None).expect("a place");
        entry.to_web().expect("a place of the web");
        let mut lingering = Lingering::default();
        let (socket, _client) = unacknowledged();
        lingering.add(socket, entry, source(1), 8);
        let admission = gate.admission();
        assert_eq!((admission.streams_of(Class::Web), admission.streams_of(Class::Stranger)), (0, 1));
    }
}
