//! Tests of the front door over real loopback connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::base::time::Now;
use crate::base::transport::Transport;
use crate::net::admission::{Admission, Rules};
use crate::net::budget::{Leftovers, SOCKET_UNITS};
use crate::net::syscall::{Epoll, Events};
use acceptors::Arrival;
use door::Expected;

const START: Instant = Instant::from_nanos(1_000_000_000_000);

fn clock() -> Now {
    Now { instant: START, unix: 0 }
}

/// A front door, and a listener for connections to it.
struct Bench {
    front: Front,
    epoll: Rc<Epoll>,
    budget: Budget,
    listener: TcpListener,
}

impl Bench {
    fn new() -> Self {
        let epoll = Rc::new(Epoll::new().expect("epoll"));
        let parts = Parts {
            epoll: Rc::clone(&epoll),
            gate: Gate::new(Arc::new(Admission::new(Rules::default(), 100)), 1),
            counters: Arc::default(),
            tls: None,
            web: None,
            listeners: Vec::new(),
            clock,
            keys: [[1, 2], [3, 4]],
        };
        let front = Front::new(parts).expect("front");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        Self { front, epoll, budget: Budget::new(clock), listener }
    }

    fn connect(&mut self, tls: bool) -> (Token, TcpStream) {
        self.connect_as(Expected { tls, ..Expected::default() })
    }

    fn connect_as(&mut self, expected: Expected) -> (Token, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().expect("local")).expect("connect");
        let (socket, from) = self.listener.accept().expect("accept");
        let transport = if expected.tls { Transport::Tls } else { Transport::Tcp };
        let arrival = Arrival { socket, client: from, transport, expected };
        let token = self.front.connections.take_in(arrival, START, &mut self.front.buffers.output);
        (token.expect("a place"), client)
    }

    fn begin_turn(&mut self) {
        self.budget.begin_turn(START);
        self.front.begin_turn(START);
    }

    fn on_stream(&mut self, token: Token, readiness: u32) -> Option<Messages> {
        self.front.on_stream(token, readiness, false, START, &mut self.budget)
    }

    fn write(&mut self) {
        for rank in Rank::ALL {
            while self.front.write_next(rank, START, &mut self.budget) {}
        }
    }

    /// Queues this many small messages.
    fn push(&mut self, token: Token, messages: usize) {
        for _ in 0..messages {
            self.front.push(token, &[&[7; 4]], Kind::Media { payload: 4 }, START).expect("open");
        }
    }

    /// Returns what the kernel reports next, within five seconds.
    fn reported(&self) -> Option<u32> {
        let mut events = Events::new(4);
        self.epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
        events.get(0).map(|(_, readiness)| readiness)
    }

    fn interest(&mut self, token: Token) -> u32 {
        self.front.connections.get(token).expect("open").interest
    }

    fn received(&self) -> u64 {
        self.front.counters.streams(Transport::Tcp).received.get()
    }
}

/// The server stops reading from a client that does not read its answers, even if an event of the client was left over
/// from an earlier turn.
#[test]
fn leftovers_respect_back_pressure() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    bench.begin_turn();
    client.write_all(&[0; 4]).expect("send");
    assert_eq!(bench.reported(), Some(ready::READ));
    // Sends more answers than fit into the kernel's buffers; the client reads none of them.
    let answer = [7; 1 << 10];
    for _ in 0..1 << 14 {
        bench.front.push(token, &[&answer], Kind::Control, START).expect("open");
        bench.write();
        if bench.interest(token) & ready::READ == 0 {
            break;
        }
    }
    assert_eq!(bench.interest(token), ready::WRITE);
    assert!(bench.on_stream(token, ready::READ).is_none());
    assert_eq!(bench.received(), 0, "nothing is read");
    // A connection with an error is read nevertheless.
    assert!(bench.on_stream(token, ready::READ | ready::ERROR).is_some());
    assert_eq!(bench.received(), 4);
}

/// A waiting ClientHello is not reported again before it is processed, even if output is queued.
#[test]
fn a_hello_that_waits_stays_muted() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(true);
    client.write_all(&[22]).expect("send");
    for _ in 0..3 {
        bench.begin_turn();
        assert!(bench.on_stream(token, ready::READ | ready::WRITE).is_none());
        bench.write();
        assert_eq!(bench.interest(token), 0);
    }
    bench.begin_turn();
    assert_eq!(bench.front.next_handshake(), Some(token));
    assert_eq!(bench.front.next_handshake(), None, "it is queued once");
}

/// On a listener for both TLS and plain clients, the first byte tells them apart, and each client is counted under its
/// own transport.
#[test]
fn a_listener_for_both_detects_tls_by_the_first_byte() {
    for tls in [false, true] {
        let mut bench = Bench::new();
        let expected = Expected { tls, either: true, ..Expected::default() };
        let ((a, mut encrypted), (b, mut plain)) = (bench.connect_as(expected), bench.connect_as(expected));
        let (c, gone) = bench.connect_as(expected);
        let counted = |bench: &Bench| {
            [Transport::Tcp, Transport::Tls].map(|transport| {
                let streams = bench.front.counters.streams(transport);
                (streams.open.get(), streams.accepted.get())
            })
        };
        let own = usize::from(tls);
        let mut expected = [(0, 0); 2];
        expected[own].0 = 3;
        assert_eq!(counted(&bench), expected, "not detected yet");
        encrypted.write_all(&[22]).expect("send");
        plain.write_all(&[0, 1, 0, 0]).expect("send");
        drop(gone);
        while bench.reported().is_none() {}
        bench.begin_turn();
        assert!(bench.on_stream(a, ready::READ).is_none());
        assert_eq!(bench.front.next_handshake(), Some(a), "it waits for its handshake");
        assert!(bench.on_stream(b, ready::READ).is_some());
        assert!(bench.on_stream(c, ready::READ | ready::PEER_CLOSED).is_none());
        bench.front.close_marked(false);
        expected = [(1, 1); 2];
        expected[own].1 += 1;
        assert_eq!(counted(&bench), expected, "a silent client counts as the listener's default");
    }
}

/// Each rank has its own time slice for writing.
#[test]
fn calls_are_written_before_strangers_and_busy_users() {
    let mut bench = Bench::new();
    let [(much, _a), (stranger, _b), (call, mut client)] = [(); 3].map(|()| bench.connect(false));
    bench.begin_turn();
    for (token, user, units) in [(much, 1, 2_000), (call, 2, 10)] {
        bench.front.authenticated(token, Some(UserId(user)), START);
        bench.front.share(token).expect("open").record(units, &mut bench.budget);
    }
    [much, stranger, call].into_iter().for_each(|token| bench.push(token, 2));
    let before = bench.budget.spent();
    assert!(bench.front.write_next(Rank::First, START, &mut bench.budget));
    assert_eq!(bench.budget.spent() - before, SOCKET_UNITS);
    let mut received = [0; 8];
    client.read_exact(&mut received).expect("both messages");
    for rank in Rank::ALL {
        let written = std::iter::repeat_with(|| bench.front.write_next(rank, START, &mut bench.budget));
        let expected = usize::from(rank >= Rank::Second);
        assert_eq!(written.take_while(|&written| written).count(), expected);
        assert_eq!(bench.front.has_unwritten(), rank != Rank::Last);
    }
}

/// If there is too little time for all clients, those with an allocation are served first, and those of busy users
/// last.
#[test]
fn calls_come_before_strangers_and_these_before_large_shares() {
    let mut bench = Bench::new();
    let [(call, mut a), (stranger, mut b), (large, mut c)] = [(); 3].map(|()| bench.connect(false));
    for client in [&mut a, &mut b, &mut c] {
        client.write_all(&[0, 1, 0, 0]).expect("send");
    }
    bench.begin_turn();
    for (token, user, units) in [(call, 1, 100), (large, 2, 2_000)] {
        bench.front.authenticated(token, Some(UserId(user)), START);
        bench.front.share(token).expect("open").record(units, &mut bench.budget);
    }
    while bench.reported().is_none() {}
    bench.budget.end_short();
    bench.begin_turn();
    assert!(bench.on_stream(call, ready::READ).is_some());
    assert!(bench.on_stream(stranger, ready::READ).is_none());
    assert!(bench.on_stream(large, ready::READ).is_none());
    assert!(bench.on_stream(large, ready::READ).is_none(), "it is listed once");
    let mut leftovers = Leftovers::default();
    bench.budget.take_leftovers(&mut leftovers);
    assert_eq!(leftovers.of(Rank::Second), [stranger]);
    assert_eq!(leftovers.of(Rank::Last), [large]);
    for token in [stranger, large] {
        let readiness = bench.front.share(token).expect("open").left_over.take();
        let messages = bench.front.on_stream(token, readiness, true, START, &mut bench.budget);
        assert!(messages.is_some(), "leftover connections are served");
    }
}
