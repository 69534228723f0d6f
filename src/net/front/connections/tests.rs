use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use super::*;
use crate::base::time::Now;
use crate::net::TcpShortage;
use crate::net::admission::{Admission, Class, Rules};
use crate::net::front::handshakes::Handshakes;
use crate::net::front::kernel_memory::Guard;
use crate::net::front::life::Life;
use crate::net::front::read::ReadOutcome;
use crate::net::front::turn_client::TurnClient;
use crate::net::scratch::Buffers;
use crate::net::stream::outbox::MESSAGES_MAX;
use crate::net::syscall::{Events, ready};
use crate::turn::action::Traffic;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const USER: Option<UserId> = Some(UserId(1));

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn at(seconds: u64) -> Instant {
    START + Duration::from_secs(seconds)
}

struct Bench {
    epoll: Rc<Epoll>,
    counters: Arc<Counters>,
    connections: Connections,
    flows: Flows,
    buffers: Buffers,
    handshakes: Handshakes,
    listener: TcpListener,
    budget: Budget,
}

impl Bench {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let (epoll, counters) = (Rc::new(Epoll::new().expect("epoll")), Arc::new(Counters::default()));
        let gate = Gate::new(Arc::new(Admission::new(rules, 100)), 1);
        Self {
            flows: Flows::new(Rc::clone(&epoll), Arc::clone(&gate), [3, 4]),
            connections: Connections::new(Rc::clone(&epoll), gate, Arc::clone(&counters)),
            epoll,
            counters,
            buffers: Buffers::default(),
            handshakes: Handshakes::new([1, 2], Admission::unlimited(), || Now { instant: START, unix: 0 }),
            listener: TcpListener::bind("127.0.0.1:0").expect("bind"),
            budget: Budget::new(|| Now { instant: START, unix: 0 }),
        }
    }

    fn connect(&mut self, tls: bool) -> (Token, TcpStream) {
        self.connect_as(Expected { tls, ..Expected::default() })
    }

    fn connect_as(&mut self, expected: Expected) -> (Token, TcpStream) {
        let server = self.listener.local_addr().expect("local");
        let client = TcpStream::connect(server).expect("connect");
        let (socket, from) = self.listener.accept().expect("accept");
        socket.set_nonblocking(true).expect("nonblocking");
        let five_tuple = FiveTuple { transport: Transport::Tcp, client: from, server };
        let entry = self.connections.enter(None, START, &mut self.buffers.output).expect("a place");
        let inserted = self.connections.insert(socket, five_tuple, expected, entry, START);
        let token = inserted.expect("insert");
        (token, client)
    }

    fn get(&mut self, token: Token) -> &mut Connection {
        self.connections.get(token).expect("open")
    }

    fn turn_client(&mut self, token: Token) -> &mut TurnClient {
        self.get(token).turn_client().expect("a TURN client")
    }

    /// Waits until the connection is readable and reads it.
    fn read(&mut self, token: Token) -> ReadOutcome {
        let mut events = Events::new(4);
        self.epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
        assert!(!events.is_empty(), "no event within five seconds");
        let connection = self.connections.get(token).expect("open");
        connection.read(START, None, &mut self.handshakes, &mut self.buffers)
    }

    fn remove(&mut self, token: Token) {
        self.connections.remove(token, CloseReason::Closed, &mut self.buffers.output);
    }

    /// Writes the queued output of every connection.
    fn write(&mut self) {
        for rank in Rank::ALL {
            while self.connections.write_next(rank, START, &mut self.buffers.output, &mut self.budget) {}
        }
    }

    fn stranger(&mut self) -> Option<Token> {
        self.connections.displacement.stranger(|token| candidate(&self.connections.slots, token))
    }

    /// Changes the connection's source address.
    fn rename(&mut self, token: Token, source: &str) {
        let connection = self.connections.get(token).expect("open");
        let before = connection.client.five_tuple.client.ip();
        connection.client.five_tuple.client = source.parse().expect("address");
        self.connections.source_changed(token, before);
    }

    /// Requests room for a web client. The first attempt fails, so another client must be displaced. Returns the client
    /// whose connection was closed.
    fn displace_web(&mut self, newcomer: Token, now: Instant) -> Option<Client> {
        let (flows, output) = (&mut self.flows, &mut self.buffers.output);
        let mut asked = 0;
        let _ = self.connections.with_web_room(newcomer, now, flows, output, |_| {
            asked += 1;
            if asked > 1 { Ok(()) } else { Err(Refusal::Total) }
        });
        self.connections.reports.next_gone().map(|(client, reason)| {
            assert_eq!(reason, CloseReason::Displaced);
            client
        })
    }
}

#[test]
fn a_proxied_client_counts_for_the_limit_of_its_source() {
    let mut bench = Bench::with(Rules { streams_per_source: 1, ..Rules::default() });
    let expected = Expected { proxied: true, ..Expected::default() };
    for (end, header) in [
        (None, &b"PROXY TCP4 192.0.2.1 192.0.2.9 1 3478\r\n"[..]),
        (None, b"PROXY TCP4 192.0.2.2 192.0.2.9 1 3478\r\n"),
        (Some(CloseReason::TooMany), b"PROXY TCP4 192.0.2.1 192.0.2.9 2 3478\r\n"),
        (None, b"PROXY UNKNOWN\r\n"),
        (Some(CloseReason::NotProxied), b"GET / HTTP/1.1\r\n"),
    ] {
        let (token, mut client) = bench.connect_as(expected);
        client.write_all(header).expect("write");
        assert_eq!(bench.read(token).end, end, "{header:?}");
    }
}

#[test]
fn the_start_of_a_message_is_kept_until_the_rest_comes() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    client.write_all(b"wholepart").expect("write");
    assert_eq!(bench.read(token).received, 9);
    bench.connections.get(token).expect("open").turn_client().expect("TURN").keep(b"part", true);
    client.write_all(b"ial").expect("write");
    bench.read(token);
    assert_eq!(bench.buffers.plain.bytes(), b"partial");
    let turn = bench.turn_client(token);
    turn.keep(b"", true);
    assert_eq!(turn.partial.capacity(), 0, "an idle client holds no buffer");
}

#[test]
fn readiness_of_a_leftover_connection_accumulates() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let connection = bench.get(token);
    assert!(connection.share.left_over.leave(ready::READ));
    assert!(!connection.share.left_over.leave(ready::READ | ready::PEER_CLOSED), "it is listed already");
    assert_eq!(connection.share.left_over.take(), ready::READ | ready::PEER_CLOSED);
    assert_eq!(connection.share.left_over.take(), 0);
    assert!(connection.share.left_over.leave(ready::READ));
}

#[test]
fn an_end_and_a_reset_are_distinguished() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    client.write_all(b"last").expect("write");
    client.shutdown(std::net::Shutdown::Write).expect("half close");
    assert_eq!(bench.read(token), ReadOutcome { received: 4, ..Default::default() });
    assert_eq!(bench.read(token).end, Some(CloseReason::Closed));
    bench.remove(token);

    let (token, client) = bench.connect(false);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(client);
    assert_eq!(bench.read(token).end, Some(CloseReason::Reset));
}

#[test]
fn a_stale_token_does_not_reach_the_next_stream_of_its_slot() {
    let mut bench = Bench::new();
    let (first, _client) = bench.connect(false);
    bench.connections.mark_closing(first, CloseReason::Idle);
    bench.connections.mark_closing(first, CloseReason::Reset);
    assert!(bench.connections.get(first).is_none() && bench.connections.is_open(first));
    bench.connections.close_marked(usize::MAX, &mut bench.buffers.output);
    assert_eq!(bench.connections.reports.next_gone().map(|(_, reason)| reason), Some(CloseReason::Idle));
    let (second, _client) = bench.connect(false);
    assert!(matches!((first, second), (Token::Stream { slot: 0, .. }, Token::Stream { slot: 0, .. })));
    assert!(bench.connections.get(first).is_none() && bench.connections.get(second).is_some());
    bench.remove(first);
    assert_eq!(bench.connections.reports.next_gone(), None);
    assert_eq!((bench.connections.len(), bench.connections.tokens()), (1, vec![second]));
    assert_eq!(bench.connections.push(first, &[b"x"], Kind::Media { payload: 1 }, START), None);
}

#[test]
fn media_that_waits_when_its_connection_closes_is_reported() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let media = Kind::Media { payload: 3 };
    (0..5).for_each(|_| assert!(bench.connections.push(token, &[&[0; 8]], media, START).is_some()));
    bench.connections.push(token, &[&[0; 20]], Kind::Control, START);
    bench.connections.mark_closing(token, CloseReason::Shutdown);
    bench.connections.close_marked(1, &mut bench.buffers.output);
    let unsent = bench.connections.reports.next_unsent().map(|(_, reason, unsent)| (reason, unsent));
    let expected = (DropReason::ConnectionClosed, Traffic { packets: 5, bytes: 15 });
    assert_eq!(unsent, Some(expected));
    assert_eq!(bench.connections.reports.next_unsent(), None);
}

#[test]
fn a_client_that_does_not_read_loses_media_and_keeps_its_framing() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    let message = |number: u32| {
        let mut message = vec![0x40, 0, 0x04, 0x08];
        message.extend(number.to_be_bytes());
        message.resize(4 + 0x408, number as u8);
        message
    };
    let (mut dropped, mut number) = (0, 0);
    while dropped < 1000 {
        match bench.connections.push(token, &[&message(number)], Kind::Media { payload: 1 }, START) {
            Some(Pushed::Queued { dropped: n }) => dropped += n.packets as usize,
            other => panic!("{other:?}"),
        }
        number += 1;
        if number % 50 == 0 {
            bench.write();
        }
    }
    // Now the client reads, and its socket becomes writable again.
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let mut bytes = Vec::new();
    let mut events = Events::new(4);
    let total = (number as usize - dropped) * message(0).len();
    while bytes.len() < total {
        let mut buffer = vec![0; 1 << 16];
        let len = client.read(&mut buffer).expect("media");
        bytes.extend_from_slice(&buffer[..len]);
        bench.epoll.wait(&mut events, Some(Duration::ZERO)).expect("wait");
        if events.get(0).is_some_and(|(_, readiness)| readiness & ready::WRITE != 0) {
            bench.connections.unblock(token);
            bench.write();
        }
    }
    let sent = bench.counters.streams(Transport::Tcp).sent.get() as usize;
    assert_eq!((bytes.len(), sent), (total, total));
    let numbers: Vec<u32> = bytes
        .chunks(message(0).len())
        .map(|chunk| {
            let number = u32::from_be_bytes(*chunk[4..].first_chunk().expect("number"));
            assert_eq!(chunk, message(number));
            number
        })
        .collect();
    assert!(numbers.is_sorted(), "order is kept");
    assert!(numbers.ends_with(&(number - 10..number).collect::<Vec<_>>()), "the newest messages arrived");
    assert!(!bench.get(token).stream.is_waiting());
    assert!(dropped >= 1000 && numbers.len() > MESSAGES_MAX);
}

#[test]
fn an_idle_stream_ends_and_one_with_an_allocation_does_not() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.get(token);
    assert_eq!(stream.life(at(0), || false), Life::Until(at(30)));
    // Only an authenticated request extends the time; here one arrives at 20 s.
    stream.authenticated(at(20), None);
    for message in [[0, 1], [0, 3], [0, 0x16], [64, 0]] {
        assert_eq!(stream.turn_client().expect("TURN").greet(&message), Ok(()));
    }
    assert_eq!(stream.life(at(30), || false), Life::Until(at(50)));
    assert_eq!(stream.life(at(50), || true), Life::Until(at(80)));
    assert_eq!(stream.life(at(80), || true), Life::Until(at(110)));
    // The allocation ended: there are 30 s for the next one.
    assert_eq!(stream.life(at(110), || false), Life::Until(at(140)));
    assert_eq!(stream.life(at(140), || false), Life::Over(CloseReason::Idle));
}

#[test]
fn a_handshake_has_ten_seconds() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(true);
    assert!(bench.get(token).unanswered_hello().is_some());
    let stream = bench.get(token);
    assert_eq!(stream.life(at(0), || false), Life::Until(at(10)));
    assert_eq!(stream.life(at(10), || false), Life::Over(CloseReason::HandshakeTimeout));
}

#[test]
fn a_missing_proxy_header_is_no_tls_timeout() {
    let mut bench = Bench::new();
    for tls in [false, true] {
        let (token, _client) = bench.connect_as(Expected { tls, proxied: true, ..Expected::default() });
        assert_eq!(bench.get(token).life(at(10), || false), Life::Over(CloseReason::NotProxied));
    }
}

#[test]
fn turn_starts_with_stun_and_strangers_send_short_messages() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let turn = bench.turn_client(token);
    assert!(!turn.may_wait(b"GET ", 21_540, || false));
    assert_eq!(turn.greet(b"GET "), Err(CloseReason::Garbage));
    assert!(turn.may_wait(b"", 4, || false) && turn.may_wait(&[0], 20, || false));
    assert!(!turn.may_wait(&[0, 1, 0xf0, 0], 61_460, || false));
    assert_eq!(turn.greet(&[0, 1, 0, 0]), Ok(()));
    assert!(turn.may_wait(&[64, 0, 0, 9], 13, || false));
    assert!(turn.may_wait(&[64, 0, 0xff, 0], 65_284, || true));
}

#[test]
fn a_stream_has_one_timer_which_can_only_become_earlier() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.get(token);
    assert!(stream.schedule(at(10), at(0)));
    assert!(!stream.schedule(at(20), at(0)), "the check at 10 s reschedules");
    assert!(stream.schedule(at(5), at(0)), "10 s would be too late");
    assert!(stream.schedule(at(7200), at(5)));
    assert!(!stream.schedule(at(7300), at(10)), "the superseded check at 10 s schedules no second one");
}

#[test]
fn unauthenticated_requests_are_limited_but_bindings_are_not() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.get(token);
    let (binding, allocate) = ([0, 1], [0, 3]);
    let accepted = |stream: &mut Connection, message: [u8; 2]| {
        (0..1000).take_while(|_| stream.turn_client().expect("TURN").greet(&message).is_ok()).count()
    };
    assert_eq!((accepted(stream, binding), accepted(stream, allocate)), (1000, 100));
    assert_eq!(stream.turn_client().expect("TURN").greet(&allocate), Err(CloseReason::TooMany));
    stream.authenticated(START, USER);
    assert_eq!((stream.class(), accepted(stream, binding)), (Class::Authenticated, 1000));
    assert_eq!(accepted(stream, allocate), 100, "it is limited like a stranger");
}

#[test]
fn only_strangers_are_displaced_in_order_of_arrival() {
    let mut bench = Bench::new();
    let streams: Vec<_> = (0..6).map(|_| bench.connect(false)).collect();
    let token = |at: usize| streams[at].0;
    bench.connections.authenticated(token(0), USER, START);
    bench.connections.count_for_web(token(2)).expect("room");
    bench.remove(token(3));
    assert_eq!(bench.stranger(), Some(token(1)));
    assert_eq!(bench.stranger(), Some(token(4)));
    assert_eq!(bench.stranger(), Some(token(5)));
    assert_eq!(bench.stranger(), None);
}

#[test]
fn of_one_source_the_longest_silent_web_client_makes_room() {
    let mut bench = Bench::new();
    let (newcomer, _client) = bench.connect(false);
    let streams: Vec<_> = (0..4).map(|_| bench.connect(false)).collect();
    for (number, &(token, _)) in streams.iter().enumerate() {
        bench.connections.count_for_web(token).expect("room");
        bench.get(token).active = at([50, 10, 5, 20][number]);
    }
    let clients: Vec<Client> = streams.iter().map(|&(token, _)| bench.get(token).client).collect();
    assert_eq!(bench.displace_web(newcomer, at(60)), None);
    assert_eq!(bench.displace_web(newcomer, at(75)), Some(clients[2]));
    assert_eq!(bench.displace_web(newcomer, at(75)), Some(clients[1]));
}

#[test]
fn the_source_with_most_web_clients_makes_room_down_to_the_newcomers_number() {
    let mut bench = Bench::new();
    let streams: Vec<_> = (0..8).map(|_| bench.connect(false)).collect();
    // Six are from one IPv6 site, the last two from another. All were active recently; the third has been silent
    // longest.
    for (number, &(token, _)) in streams.iter().enumerate() {
        bench.rename(token, &format!("[2001:db8:{:x}:{number}::1]:1", number / 6));
        let stream = bench.get(token);
        stream.active = at(if number == 2 { 9 } else { 10 });
    }
    for &(token, _) in &streams[..7] {
        bench.connections.count_for_web(token).expect("room");
    }
    let clients: Vec<Client> = streams.iter().map(|&(token, _)| bench.get(token).client).collect();
    let newcomer = streams[7].0;
    let mut displaced = Vec::new();
    while let Some(client) = bench.displace_web(newcomer, at(11)) {
        displaced.push(clients.iter().position(|&other| other == client).expect("one of them"));
    }
    assert_eq!((displaced.len(), displaced[0]), (4, 2), "six against one: down to two");
    assert!(displaced.iter().all(|&number| number < 6));
    // Afterwards the others do not displace those of the larger source.
    let own = (0..6).find(|number| !displaced.contains(number)).expect("two are left");
    assert_eq!(bench.displace_web(streams[own].0, at(11)), None);
    bench.connections.tokens().into_iter().for_each(|token| bench.remove(token));
    assert_eq!(bench.connections.displacement.remembered().1, 0, "no source is remembered");
}

#[test]
fn a_stream_without_an_allocation_is_renewed_once() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.get(token);
    (20..50).for_each(|second| stream.authenticated(at(second), None));
    assert_eq!(stream.life(at(49), || false), Life::Until(at(50)));
    assert_eq!(stream.life(at(50), || false), Life::Over(CloseReason::Idle));
    // An allocation was created and ended: its end extends the time by 30 s.
    stream.authenticated(at(49), USER);
    stream.authenticated(at(60), None);
    stream.authenticated(at(80), None);
    assert_eq!(stream.life(at(80), || false), Life::Until(at(90)));
}

#[test]
fn a_client_with_an_allocation_is_never_displaced() {
    let mut bench = Bench::with(Rules { streams: 16, ..Rules::default() });
    let streams: Vec<_> = (0..15)
        .map(|_| {
            let (token, client) = bench.connect(false);
            bench.connections.authenticated(token, USER, START);
            (token, client)
        })
        .collect();
    let last = streams[14].0;
    assert_eq!(bench.get(last).class(), Class::Stranger);
    let (stranger, _client) = bench.connect(false);
    assert_eq!(bench.stranger(), Some(stranger));
    assert_eq!(bench.stranger(), None);
    bench.remove(stranger);
    // Once its allocation has ended it is a stranger again, but is displaced after those that never authenticated.
    bench.get(last).life(at(10), || false);
    let (stranger, _client) = bench.connect(false);
    assert_eq!([bench.stranger(), bench.stranger(), bench.stranger()], [Some(stranger), Some(last), None]);
}

/// Otherwise one user with only a few allocations at a time could protect any number of connections from displacement.
#[test]
fn a_client_whose_allocation_ended_is_a_stranger_again() {
    let mut bench = Bench::new();
    for end in 0..3 {
        let (token, _client) = bench.connect(false);
        bench.connections.authenticated(token, USER, START);
        assert_eq!((bench.get(token).class(), bench.stranger()), (Class::Authenticated, None));
        match end {
            0 => bench.connections.authenticated(token, None, START),
            1 => bench.connections.session_ended(token),
            _ => drop(bench.connections.life(token, at(1), |_| false).expect("open")),
        }
        assert_eq!(bench.get(token).class(), Class::Stranger);
        assert_eq!((bench.stranger(), bench.stranger()), (Some(token), None));
        bench.remove(token);
    }
    assert_eq!(bench.connections.displacement.remembered().1, 0, "no source is remembered");
}

/// Each end of an allocation is an arrival among the strangers, and only the last one counts.
#[test]
fn a_client_that_makes_and_ends_allocations_is_listed_once() {
    let mut bench = Bench::new();
    let [(token, _a), (other, _b)] = [bench.connect(false), bench.connect(false)];
    for _ in 0..10_000 {
        bench.connections.authenticated(token, USER, START);
        bench.connections.authenticated(token, None, START);
    }
    let (listed, _) = bench.connections.displacement.remembered();
    assert!(listed < 100, "{listed} entries for two connections");
    assert_eq!([bench.stranger(), bench.stranger(), bench.stranger()], [Some(other), Some(token), None]);
}

#[test]
fn without_an_allocation_a_client_stays_a_stranger() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    bench.connections.authenticated(token, None, START);
    assert_eq!(bench.get(token).class(), Class::Stranger);
    bench.connections.authenticated(token, USER, START);
    assert_eq!(bench.get(token).class(), Class::Authenticated);
    assert_eq!(bench.stranger(), None);
}

/// A flood from one source displaces itself, even if other strangers are older.
#[test]
fn the_source_with_most_strangers_makes_room() {
    let mut bench = Bench::new();
    let honest: Vec<_> = (0..3).map(|_| bench.connect(false)).collect();
    let flood: Vec<_> = (0..40).map(|_| bench.connect(false)).collect();
    for &(token, _) in &honest {
        bench.rename(token, "192.0.2.1:1");
    }
    for &(token, _) in &flood {
        bench.rename(token, "198.51.100.1:1");
    }
    // Enough further arrivals to put this source one `STEP` ahead.
    (0..300).for_each(|_| {
        let source = Network::site(ip("198.51.100.1"));
        bench.connections.displacement.arrived(flood[0].0, source, 1000, |_| None);
    });
    assert_eq!(bench.stranger(), Some(flood[0].0));
    assert_eq!(bench.stranger(), Some(flood[1].0));
}

#[test]
fn a_stranger_is_read_in_small_pieces_up_to_a_limit() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    let mut bytes = 0;
    let end = loop {
        client.write_all(&[0; 4096]).expect("write");
        let read = bench.read(token);
        assert!(read.received <= 4096);
        bytes += read.received;
        if let Some(end) = read.end {
            break end;
        }
    };
    assert_eq!(end, CloseReason::TooMany);
    assert!((512 << 10..=516 << 10).contains(&bytes), "{bytes}");

    let (token, mut client) = bench.connect(false);
    bench.connections.authenticated(token, USER, START);
    for _ in 0..40 {
        client.write_all(&[0; 4096]).expect("write");
        assert_eq!(bench.read(token).end, None);
    }
}

#[test]
fn closed_connections_do_not_accumulate_in_the_order() {
    let mut bench = Bench::new();
    let mut most = 0;
    for _ in 0..500 {
        let (token, _client) = bench.connect(false);
        bench.remove(token);
        most = most.max(bench.connections.displacement.remembered().0);
    }
    assert!(most <= 70, "{most}");
}

/// Connects a client that sends this many bytes, which nobody reads.
fn with_unread(bench: &mut Bench, kib: usize, user: Option<UserId>) -> (Token, TcpStream) {
    let (token, mut client) = bench.connect(false);
    bench.connections.authenticated(token, user, START);
    // Linux adds the overhead of each segment.
    client.set_nonblocking(true).expect("set");
    let bytes = vec![0; kib << 10];
    let mut sent = 0;
    while sent < bytes.len()
        && let Ok(len) = client.write(&bytes[sent..])
    {
        sent += len;
    }
    client.set_nonblocking(false).expect("set");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    (token, client)
}

#[test]
fn clients_that_hold_kernel_memory_without_a_use_are_reset() {
    let mut bench = Bench::new();
    let marked =
        |bench: &Bench| -> Vec<Token> { bench.connections.closing.iter().map(|&(token, _)| token).collect() };
    let (small, _small) = with_unread(&mut bench, 1, None);
    let (call, _call) = with_unread(&mut bench, 200, USER);
    let (large, mut stranger) = with_unread(&mut bench, 60, None);
    let mut guard = Guard::default();
    let mut free = |bench: &mut Bench, bytes| {
        let shortage = TcpShortage { bytes, of_owner: 1 << 20 };
        guard.begin(&mut bench.connections, Some(shortage));
        guard.examine(&mut bench.connections, START);
        assert!(!guard.is_busy());
    };
    free(&mut bench, 1);
    assert_eq!(marked(&bench), [large], "no more than necessary");
    free(&mut bench, u64::MAX);
    assert_eq!(marked(&bench), [large], "a call may hold much");
    assert_eq!(bench.connections.closing[0].1, CloseReason::KernelMemory);
    bench.connections.close_marked(1, &mut bench.buffers.output);
    let end = stranger.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "the kernel forgets it at once");
    assert!(bench.connections.get(small).is_some() && bench.connections.get(call).is_some());
}
