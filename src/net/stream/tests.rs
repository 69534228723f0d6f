use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use super::set::Expected;
use super::*;
use crate::net::admission::{Admission, Rules};
use crate::net::outbox::{Kind, MESSAGES_MAX, Pushed};
use crate::net::syscall::{Epoll, Events};
use crate::net::token::Token;
use crate::turn::five_tuple::FiveTuple;
use crate::turn::five_tuple::Transport;

const START: Instant = Instant::from_nanos(1_000_000_000_000);

fn at(seconds: u64) -> Instant {
    START + Duration::from_secs(seconds)
}

struct Bench {
    epoll: Epoll,
    streams: Streams,
    buffers: Buffers,
    listener: TcpListener,
}

impl Bench {
    fn new() -> Self {
        Self {
            epoll: Epoll::new().expect("epoll"),
            streams: Streams::default(),
            buffers: Buffers::default(),
            listener: TcpListener::bind("127.0.0.1:0").expect("bind"),
        }
    }

    fn connect(&mut self, tls: bool) -> (Token, TcpStream) {
        self.connect_as(Expected { tls, ..Expected::default() }, &Admission::unlimited())
    }

    fn connect_as(&mut self, expected: Expected, admission: &Arc<Admission>) -> (Token, TcpStream) {
        let server = self.listener.local_addr().expect("local");
        let client = TcpStream::connect(server).expect("connect");
        let (socket, from) = self.listener.accept().expect("accept");
        socket.set_nonblocking(true).expect("nonblocking");
        let five_tuple = FiveTuple { transport: Transport::Tcp, client: from, server };
        let entry = admission.stream(None).expect("no limit");
        let inserted = self.streams.insert(&self.epoll, socket, five_tuple, expected, entry, START);
        let token = inserted.expect("insert");
        (token, client)
    }

    /// Waits until the kernel says that something can be read.
    fn read(&mut self, token: Token) -> ReadOutcome {
        let mut events = Events::new(4);
        self.epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
        assert!(!events.is_empty(), "nothing came");
        self.streams.get(token).expect("open").read(START, None, &mut self.buffers)
    }
}

#[test]
fn a_proxied_client_is_refused_what_one_source_may_not_have() {
    let mut bench = Bench::new();
    let rules = Rules { streams_per_source: 1, ..Rules::default() };
    let (admission, expected) =
        (Arc::new(Admission::new(rules, 10)), Expected { proxied: true, ..Expected::default() });
    for (end, header) in [
        (None, &b"PROXY TCP4 192.0.2.1 192.0.2.9 1 3478\r\n"[..]),
        (None, b"PROXY TCP4 192.0.2.2 192.0.2.9 1 3478\r\n"),
        (Some(CloseReason::TooMany), b"PROXY TCP4 192.0.2.1 192.0.2.9 2 3478\r\n"),
        (None, b"PROXY UNKNOWN\r\n"),
        (Some(CloseReason::NotProxied), b"GET / HTTP/1.1\r\n"),
    ] {
        let (token, mut client) = bench.connect_as(expected, &admission);
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
    let stream = bench.streams.get(token).expect("open");
    stream.keep(&bench.buffers, 5);
    client.write_all(b"ial").expect("write");
    bench.read(token);
    assert_eq!(bench.buffers.plain.bytes(), b"partial");
    let stream = bench.streams.get(token).expect("open");
    stream.keep(&bench.buffers, 7);
    assert_eq!(stream.partial.capacity(), 0, "an idle client holds no buffer");
}

#[test]
fn the_end_and_a_reset_are_told_apart() {
    let mut bench = Bench::new();
    let (token, mut client) = bench.connect(false);
    client.write_all(b"last").expect("write");
    client.shutdown(std::net::Shutdown::Write).expect("half close");
    assert_eq!(bench.read(token), ReadOutcome { received: 4, ..Default::default() });
    assert_eq!(bench.read(token).end, Some(CloseReason::Closed));
    assert!(bench.streams.remove(token, &mut bench.buffers).is_some());

    let (token, client) = bench.connect(false);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(client);
    assert_eq!(bench.read(token).end, Some(CloseReason::Reset));
}

#[test]
fn a_token_does_not_reach_the_next_stream_of_its_slot() {
    let mut bench = Bench::new();
    let (first, _client) = bench.connect(false);
    assert!(bench.streams.doom(first) && !bench.streams.doom(first));
    assert!(bench.streams.get(first).is_none() && bench.streams.is_open(first));
    assert!(bench.streams.remove(first, &mut bench.buffers).is_some());
    let (second, _client) = bench.connect(false);
    assert!(matches!((first, second), (Token::Stream { slot: 0, .. }, Token::Stream { slot: 0, .. })));
    assert!(bench.streams.get(first).is_none() && bench.streams.get(second).is_some());
    assert!(bench.streams.remove(first, &mut bench.buffers).is_none());
    assert_eq!((bench.streams.len(), bench.streams.tokens()), (1, vec![second]));
    assert_eq!(bench.streams.push(first, &[b"x"], Kind::Media, START), None);
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
    let (mut dropped, mut number, mut sent) = (0, 0, 0);
    while dropped < 1000 {
        match bench.streams.push(token, &[&message(number)], Kind::Media, START) {
            Some(Pushed::Queued { dropped: n }) => dropped += n,
            other => panic!("{other:?}"),
        }
        number += 1;
        if number % 50 == 0 {
            while let Some(dirty) = bench.streams.next_dirty() {
                sent += bench.streams.write(&bench.epoll, dirty, START, &mut bench.buffers).sent;
            }
        }
    }
    // Now the client reads, and room to write comes back.
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
            bench.streams.unblock(token);
            let dirty = bench.streams.next_dirty().expect("unblocked");
            sent += bench.streams.write(&bench.epoll, dirty, START, &mut bench.buffers).sent;
        }
    }
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
    assert!(numbers.ends_with(&(number - 10..number).collect::<Vec<_>>()), "the newest are there");
    assert!(bench.streams.get(token).expect("open").outbox.is_none(), "an idle client holds no buffer");
    assert!(dropped >= 1000 && numbers.len() > MESSAGES_MAX);
}

#[test]
fn an_idle_stream_ends_and_one_with_an_allocation_does_not() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.streams.get(token).expect("open");
    assert_eq!(stream.life(at(0), || false), Life::Until(at(30)));
    // A request 20 s later, an indication and ChannelData do not count.
    assert!(
        stream.greet(&[0, 1], at(20)) && stream.greet(&[0, 0x16], at(25)) && stream.greet(&[64, 0], at(28))
    );
    assert_eq!(stream.life(at(30), || false), Life::Until(at(50)));
    assert_eq!(stream.life(at(50), || true), Life::Until(at(80)));
    assert_eq!(stream.life(at(80), || true), Life::Until(at(110)));
    // The allocation ended: 30 s for the next one.
    assert_eq!(stream.life(at(110), || false), Life::Until(at(140)));
    assert_eq!(stream.life(at(140), || false), Life::Over(CloseReason::Idle));
}

#[test]
fn a_handshake_has_ten_seconds() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(true);
    assert!(bench.streams.is_handshaking(token));
    let stream = bench.streams.get(token).expect("open");
    assert_eq!(stream.life(at(0), || false), Life::Until(at(10)));
    assert_eq!(stream.life(at(10), || false), Life::Over(CloseReason::HandshakeTimeout));
}

#[test]
fn turn_starts_with_stun_and_strangers_keep_it_short() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.streams.get(token).expect("open");
    assert!(!stream.may_wait(b"GET ", 21_540, || false) && !stream.greet(b"GET ", START));
    assert!(stream.may_wait(b"", 4, || false) && stream.may_wait(&[0], 20, || false));
    assert!(!stream.may_wait(&[0, 1, 0xf0, 0], 61_460, || false));
    assert!(stream.greet(&[0, 1, 0, 0], START));
    assert!(stream.may_wait(&[64, 0, 0, 9], 13, || false));
    assert!(stream.may_wait(&[64, 0, 0xff, 0], 65_284, || true));
}

#[test]
fn a_stream_is_looked_after_once_at_a_time_but_sooner_where_that_is_needed() {
    let mut bench = Bench::new();
    let (token, _client) = bench.connect(false);
    let stream = bench.streams.get(token).expect("open");
    assert!(stream.schedule(at(10), at(0)));
    assert!(!stream.schedule(at(20), at(0)), "the look at 10 s will find out");
    assert!(stream.schedule(at(5), at(0)), "10 s would be too late");
    assert!(stream.schedule(at(7200), at(5)));
    assert!(!stream.schedule(at(7300), at(10)), "the look that was once set for 10 s leaves no second one");
}
