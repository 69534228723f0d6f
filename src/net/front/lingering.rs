//! Sockets of closed connections whose last output the client has not acknowledged.
//!
//! The kernel would deliver it without the program, but then it would count in no limit, and a client that acknowledges a segment now
//! and then would keep it for minutes.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::base::time::Instant;
use crate::net::admission::Entry;
use crate::net::stream::LAST_OUTPUT_TIMEOUT;
use crate::net::syscall::KernelMemory;

/// The most sockets of one worker. Each holds less than 16 KiB of the kernel's memory.
const MAX: usize = 1024;

/// The sockets of a worker, the oldest first.
#[derive(Default)]
pub struct Lingering {
    sockets: VecDeque<Left>,
    now: Instant,
}

struct Left {
    due: Instant,
    socket: TcpStream,
    /// It counts as a connection of its source until it is closed.
    _entry: Entry,
}

impl Lingering {
    /// Sets the time of a turn.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Keeps a socket, and resets the oldest if there are too many.
    pub fn add(&mut self, socket: TcpStream, entry: Entry) {
        if self.sockets.len() >= MAX {
            self.close_oldest();
        }
        self.sockets.push_back(Left { due: self.now + LAST_OUTPUT_TIMEOUT, socket, _entry: entry });
    }

    /// Returns when the oldest is due.
    pub fn due(&self) -> Option<Instant> {
        self.sockets.front().map(|left| left.due)
    }

    /// Closes the sockets that are due.
    pub fn close_due(&mut self, now: Instant) {
        while self.due().is_some_and(|due| due <= now) {
            self.close_oldest();
        }
    }

    /// Closes the oldest socket, with a reset if the client has not acknowledged everything. Returns `false` if there is none.
    pub fn close_oldest(&mut self) -> bool {
        let Some(Left { socket, .. }) = self.sockets.pop_front() else { return false };
        if KernelMemory::of(&socket).unwrap_or_default().unsent > 0 {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener};

    use crate::net::admission::{Admission, Gate, Rules};

    fn entry() -> Entry {
        let rules = Rules { streams: 8, streams_per_source: 0, exempt: Vec::new() };
        Gate::new(std::sync::Arc::new(Admission::new(rules, 100)), 1).stream(None).expect("a place")
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos((1000 + seconds) * 1_000_000_000)
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

    fn is_reset(mut client: TcpStream) -> bool {
        client.set_nonblocking(true).expect("nonblocking");
        client.read_to_end(&mut Vec::new()).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_reset_after_five_seconds() {
        let mut lingering = Lingering::default();
        lingering.begin_turn(at(0));
        let (socket, client) = unacknowledged();
        lingering.add(socket, entry());
        assert_eq!(lingering.due(), Some(at(5)));
        lingering.close_due(at(4));
        assert_eq!(lingering.sockets.len(), 1);
        lingering.close_due(at(5));
        assert!(lingering.due().is_none() && is_reset(client));
    }

    #[test]
    fn of_too_many_the_oldest_is_reset() {
        let mut lingering = Lingering::default();
        lingering.begin_turn(at(0));
        let (socket, client) = unacknowledged();
        lingering.add(socket, entry());
        let (other, _other) = unacknowledged();
        for _ in 0..MAX {
            lingering.add(other.try_clone().expect("a descriptor"), entry());
        }
        assert!(lingering.sockets.len() == MAX && is_reset(client));
    }
}
