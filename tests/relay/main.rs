//! The relay as seen by its clients: workers in this process, real sockets on loopback, UDP, TCP and TLS.
#![allow(clippy::disallowed_methods, reason = "real sockets are waited for on the real clock")]

#[allow(dead_code)] // only a part of it is used here
#[path = "../support/certs.rs"]
mod certs;
mod failure;
mod fairness;
mod rig;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::net::admission::Rules;
use hallpass::net::counters::CloseReason;
use hallpass::net::syscall::{Datagram, SendBatch};
use hallpass::net::{self, Command};
use hallpass::turn::action::DropReason;
use hallpass::turn::counters::{Counters, HostRung};

use rig::*;

#[test]
fn every_transport_relays_both_ways() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        relays_both_ways(&mut client);
        assert_eq!(client.ask(0x0004, &[(0x000d, &[0; 4])])[..2], [0x01, 0x04]);
        relay.until("the allocation is gone", |relay| relay.handle.allocations() == 0);
    }
    relay.stop();
}

#[test]
fn a_dual_stack_wildcard_answers_from_the_address_that_was_reached() {
    let relay = Relay::start(0);
    // A connected socket receives from no other address.
    relays_both_ways(&mut Client::udp(relay.addresses[3]));
    relay.stop();
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        let relayed = client.allocate();
        client.bind(0x4abc, address);
        for number in 0..100_u32 {
            client.send_channel(0x4abc, &number.to_be_bytes());
        }
        for number in 0..100_u32 {
            assert_eq!(receive_at(&peer).0, number.to_be_bytes());
        }
        for number in 0..100_u32 {
            peer.send_to(&number.to_be_bytes(), relayed).expect("send");
        }
        for number in 0..100_u32 {
            assert_eq!(client.receive()[4..], number.to_be_bytes());
        }
    }
    relay.stop();
}

/// Sends all payloads in one message that the kernel segments, each after `head`.
fn send_segmented(socket: &UdpSocket, to: SocketAddr, head: &[u8], payloads: &[Vec<u8>]) {
    let mut datagrams = payloads.iter().map(|payload| Datagram { head, payload, to, source: None });
    let mut refused = |error: io::Error| panic!("{error}");
    let sent = SendBatch::new(true).send(socket.as_fd(), false, &mut datagrams, &mut refused);
    assert_eq!(sent, payloads.len());
}

#[test]
fn segments_of_a_message_are_relayed_one_by_one() {
    let relay = Relay::start(0);
    // Numbered, of one size, like a video burst; together smaller than a socket buffer.
    let payloads: Vec<Vec<u8>> = (0..21).map(|number| vec![number; 101]).collect();
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        let relayed = client.allocate();
        client.bind(0x4001, address);
        send_segmented(&peer, relayed, &[], &payloads);
        for payload in &payloads {
            let message = client.receive();
            assert_eq!(message[..4], [0x40, 0x01, 0, 101]);
            assert_eq!(message[4..], payload[..]);
        }
        if let Link::Udp(socket) = &client.link {
            send_segmented(socket, relay.addresses[0], &[0x40, 0x01, 0, 101], &payloads);
            for payload in &payloads {
                assert_eq!(receive_at(&peer), (payload.clone(), relayed));
            }
        }
        // Without a channel, each is sent in its own Data indication.
        let (other, other_address) = self::peer();
        let answer = client.ask(0x0008, &[(0x0012, &xored(other_address))]);
        assert_eq!(answer[..2], [0x01, 0x08], "{:?}", error_code(&answer));
        send_segmented(&other, relayed, &[], &payloads);
        for payload in &payloads {
            let data = client.receive();
            assert_eq!(data[..2], [0x00, 0x17]);
            assert_eq!(attribute(&data, 0x0013), Some(payload.clone()));
            assert_eq!(attribute(&data, 0x0012).map(xor_address), Some(other_address));
        }
    }
    relay.stop();
}

#[test]
fn an_allocation_belongs_to_one_worker() {
    const EACH: u64 = 30;
    let relay = Relay::start(0);
    // Per worker: allocations, packets from clients and from peers, datagrams on its sockets.
    let done = |relay: &Relay| -> Vec<[u64; 4]> {
        let sockets = relay.handle.counters();
        let of = |(protocol, sockets): (&Arc<Counters>, &Arc<net::counters::Counters>)| {
            let sum = |of: fn(&HostRung) -> u64| {
                Transport::ALL.iter().map(|&rung| of(protocol.host(HostId(0), rung))).sum()
            };
            let made = sum(|rung| rung.allocated.get());
            let (from_client, from_peer) =
                (sum(|rung| rung.from_client.packets.get()), sum(|rung| rung.from_peer.packets.get()));
            [made, from_client, from_peer, sockets.datagrams.get()]
        };
        relay.counters.iter().zip(&sockets).map(of).collect()
    };
    let mut owners = [0_u32; 2];
    // The kernel distributes clients by a hash of their addresses: one worker may get the first several.
    for attempt in 0.. {
        assert!(attempt < 200, "the kernel gave all clients to one worker");
        let mut client = relay.connect(Transport::ALL[attempt % Transport::ALL.len()]);
        let (peer, address) = peer();
        let before = done(&relay);
        let relayed = client.allocate();
        client.bind(0x4001, address);
        let made = done(&relay);
        let owner = (0..2).find(|&n| made[n][0] > before[n][0]).expect("one of them made it");
        for number in 0..EACH as u8 {
            client.send_channel(0x4001, &[number; 8]);
            assert_eq!(receive_at(&peer), (vec![number; 8], relayed));
            peer.send_to(&[number; 8], relayed).expect("send");
            assert_eq!(client.receive()[4..], [number; 8]);
        }
        let after = done(&relay);
        assert_eq!(after[1 - owner], before[1 - owner], "the other worker saw nothing of it");
        let [_, from_client, from_peer, _] = made[owner];
        assert_eq!(after[owner][1..3], [from_client + EACH, from_peer + EACH]);
        owners[owner] += 1;
        if owners.iter().all(|&count| count >= 3) {
            break;
        }
    }
    relay.stop();
}

#[test]
fn messages_split_anywhere_are_reassembled() {
    let relay = Relay::start(0);
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        client.allocate();
        client.bind(0x4000, address);
        let mut stream = Vec::new();
        for len in [5_u8, 0, 7, 255] {
            stream.extend([0x40, 0, 0, len]);
            stream.extend(vec![len; usize::from(len)]);
            stream.resize(stream.len().next_multiple_of(4), 0);
        }
        for piece in stream.chunks(3) {
            client.send(piece);
        }
        for len in [5_u8, 0, 7, 255] {
            assert_eq!(receive_at(&peer).0, vec![len; usize::from(len)]);
        }
    }
    relay.stop();
}

#[test]
fn an_allocation_ends_with_its_stream() {
    let relay = Relay::start(0);
    for transport in [Transport::Tcp, Transport::Tls] {
        for reset in [false, true] {
            let mut client = relay.connect(transport);
            let relayed = client.allocate();
            relay.until("the allocation is there", |relay| relay.handle.allocations() == 1);
            let socket = client.stream();
            let closed_before = relay.closed(transport, CloseReason::Closed);
            if reset {
                socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("linger");
                drop(client);
                relay.until("reset", |relay| relay.closed(transport, CloseReason::Reset) == 1);
            } else {
                // A half-close is enough.
                socket.shutdown(std::net::Shutdown::Write).expect("half close");
                assert!(client.reads_the_end());
                let closed = |relay: &Relay| relay.closed(transport, CloseReason::Closed) > closed_before;
                relay.until("closed", closed);
            }
            relay.until("the allocation is gone", |relay| relay.handle.allocations() == 0);
            relay.until("the port is free", |_| UdpSocket::bind(relayed).is_ok());
        }
    }
    relay.stop();
}

/// A client may half-close its stream right after a request.
#[test]
fn a_request_right_before_a_half_close_is_answered() {
    let relay = Relay::start(0);
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = relay.connect(transport);
        assert_eq!(client.ask(0x0001, &[])[..2], [0x01, 0x01]);
        let request = client.request(0x0001, &[]);
        if let Link::Tls(stream) = &mut client.link {
            // The request and close_notify in one segment.
            stream.conn.writer().write_all(&request).expect("room");
            stream.conn.send_close_notify();
            stream.conn.write_tls(&mut stream.sock).expect("send");
        } else {
            client.send(&request);
            client.stream().shutdown(std::net::Shutdown::Write).expect("half close");
        }
        assert_eq!(client.receive()[8..20], request[8..20]);
        assert!(client.reads_the_end());
    }
    relay.stop();
}

/// Edge-triggered sockets report a change once: what a read leaves over must be read without another event. Many
/// clients at once exceed the time for streams in one turn.
#[test]
fn clients_left_over_by_a_turn_are_read_in_the_next() {
    let relay = Relay::start(0);
    let mut clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = relay.connect(Transport::Tcp);
            let (peer, address) = peer();
            client.allocate();
            client.bind(0x4000, address);
            (client, peer)
        })
        .collect();
    let payloads: Vec<Vec<u8>> = (0..60).map(|n| vec![n; 400]).collect();
    let messages: Vec<u8> =
        payloads.iter().flat_map(|payload| [&[0x40, 0, 1, 144], &payload[..]].concat()).collect();
    for (client, _) in &mut clients {
        client.send(&messages);
        client.stream().shutdown(std::net::Shutdown::Write).expect("half close");
    }
    for (client, peer) in &mut clients {
        for payload in &payloads {
            assert_eq!(receive_at(peer).0, *payload);
        }
        assert!(client.reads_the_end());
    }
    relay.stop();
}

#[test]
fn input_beyond_one_turn_is_read_completely() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        client.allocate();
        client.bind(0x4000, address);
        // Three reads of a stream, and several reads of a listener that starts with sixteen datagrams.
        let payloads: Vec<Vec<u8>> = (0..120).map(|n| vec![n; 800]).collect();
        match &client.link {
            Link::Udp(socket) => {
                let (head, to) = ([0x40, 0, 3, 32], socket.peer_addr().expect("server"));
                let mut all =
                    payloads.iter().map(|payload| Datagram { head: &head, payload, to, source: None });
                let sent =
                    SendBatch::new(false).send(socket.as_fd(), false, &mut all, &mut |e| panic!("{e}"));
                assert_eq!(sent, payloads.len());
            }
            _ => {
                let messages: Vec<u8> =
                    payloads.iter().flat_map(|payload| [&[0x40, 0, 3, 32], &payload[..]].concat()).collect();
                client.send(&messages);
                // The end of the stream follows immediately.
                client.stream().shutdown(std::net::Shutdown::Write).expect("half close");
            }
        }
        for payload in &payloads {
            assert_eq!(receive_at(&peer).0, *payload);
        }
        if transport.is_stream() {
            assert!(client.reads_the_end());
            relay.until("the allocation is gone", |relay| relay.handle.allocations() <= 1);
        }
    }
    relay.stop();
}

#[test]
fn streams_that_are_not_turn_are_closed_at_once() {
    let relay = Relay::start(0);
    for (transport, garbage) in [
        (Transport::Tcp, b"GET / HTTP/1.1\r\n\r\n".as_slice()),
        (Transport::Tcp, b"\x16\x03\x01\x00\xff\x01"),
        (Transport::Tcp, b"\x00\x01\x00\x00not the cookie"),
        (Transport::Tls, b"GET / HTTP/1.1\r\n\r\n"),
        (Transport::Tls, b"\xff\xff\xff\xff\xff"),
    ] {
        let mut client = Client::new(Link::Tcp(tcp(relay.addresses[transport.index()])));
        client.send(garbage);
        assert!(client.reads_the_end());
    }
    relay.until("counted", |relay| {
        relay.closed(Transport::Tcp, CloseReason::Garbage) == 3
            && relay.closed(Transport::Tls, CloseReason::TlsFailed) == 2
    });
    relay.stop();
}

#[test]
fn streams_beyond_the_limit_are_refused_until_a_place_is_free() {
    // With one worker, because several divide the places.
    let relay = Relay::start_on(1, Rules { streams: 2, ..Rules::default() }, rig::clock);
    let mut first = relay.connect(Transport::Tcp);
    first.allocate();
    let mut second = relay.connect(Transport::Tls);
    second.allocate();
    let mut third = relay.connect(Transport::Tcp);
    assert!(third.reads_the_end());
    drop(first);
    relay.until("closed", |relay| relay.closed(Transport::Tcp, CloseReason::Closed) == 1);
    relay.connect(Transport::Tcp).allocate();
    relay.stop();
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory_and_others_are_served() {
    let relay = Relay::start(0);
    let mut slow = relay.connect(Transport::Tls);
    let (peer, address) = peer();
    let relayed = slow.allocate();
    slow.bind(0x4000, address);
    let mut other = relay.connect(Transport::Udp);
    let other_relayed = other.allocate();
    other.bind(0x4000, address);
    let mut sent = 0_u32;
    while relay.dropped(DropReason::QueueFull) < 500 {
        for _ in 0..20 {
            let mut payload = vec![0; 1100];
            payload[..4].copy_from_slice(&sent.to_be_bytes());
            peer.send_to(&payload, relayed).expect("send");
            sent += 1;
        }
        peer.send_to(b"bystander", other_relayed).expect("send");
        assert_eq!(other.receive()[4..], *b"bystander");
        assert!(sent < 1_000_000, "nothing is ever dropped");
    }
    // Once the client reads again, it gets whole messages in order, and an answer.
    let (mut last, mut received) = (None, 0);
    let request = slow.request(0x0001, &[]);
    slow.send(&request);
    loop {
        let message = slow.receive();
        if message[0] < 4 {
            assert_eq!((message[..2].to_vec(), &message[8..20]), (vec![0x01, 0x01], &request[8..20]));
            break;
        }
        assert_eq!(message.len(), 1104);
        let number = u32::from_be_bytes(*message[4..].first_chunk().expect("number"));
        assert!(last.is_none_or(|last| last < number), "order is kept");
        last = Some(number);
        received += 1;
    }
    assert!(last.is_some());
    // Media that the relay read after the request.
    while received < relay.relayed(Transport::Tls).0 {
        assert_eq!(slow.receive().len(), 1104);
        received += 1;
    }
    assert_eq!(relay.relayed(Transport::Tls), (received, received * 1100), "what was dropped is not relayed");
    relay.stop();
}

#[test]
fn an_unreachable_peer_is_reported_and_does_not_stop_the_relay() {
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    // No other test has an address there, so nobody takes the port once it is closed.
    let closed = UdpSocket::bind("127.83.0.2:0").expect("bind");
    let closed_address = closed.local_addr().expect("bound");
    drop(closed);
    let relayed = client.allocate();
    client.bind(0x4000, address);
    client.bind(0x4001, closed_address);
    for _ in 0..5 {
        client.send_channel(0x4001, b"anybody?");
        client.send_channel(0x4000, b"hello");
        assert_eq!(receive_at(&peer), (b"hello".to_vec(), relayed));
    }
    relay.until("counted", |relay| relay.handle.counters().iter().any(|c| c.icmp.get() > 0));
    let icmp = client.receive();
    assert_eq!(icmp[..2], [0x00, 0x17]);
    assert_eq!(attribute(&icmp, 0x0012).map(xor_address), Some(closed_address));
    relay.stop();
}

#[test]
fn unfinished_handshakes_and_idle_streams_are_closed() {
    let relay = Relay::start_with(Rules::default(), clock_ahead);
    let mut silent = Client::new(Link::Tcp(tcp(relay.addresses[Transport::Tls.index()])));
    let mut idle = relay.connect(Transport::Tcp);
    let mut working = relay.connect(Transport::Tls);
    working.allocate();
    let open = |relay: &Relay, transport| relay.sum(|c| c.streams(transport).open.get());
    relay.until("accepted", |relay| open(relay, Transport::Tcp) + open(relay, Transport::Tls) == 3);
    // A command makes the workers read the clock.
    AHEAD.store(11, Relaxed);
    relay.handle.send(&Command::Drain(false));
    assert!(silent.reads_the_end());
    relay.until("counted", |relay| relay.closed(Transport::Tls, CloseReason::HandshakeTimeout) == 1);
    assert_eq!(open(&relay, Transport::Tcp), 1);
    AHEAD.store(100, Relaxed);
    relay.handle.send(&Command::Drain(false));
    assert!(idle.reads_the_end());
    relay.until("counted", |relay| relay.closed(Transport::Tcp, CloseReason::Idle) == 1);
    let (_peer, address) = peer();
    working.bind(0x4000, address);
    relay.stop();
}

/// Runs in its own process with few descriptors.
#[test]
fn without_descriptors_listeners_pause_and_relaying_continues() {
    const NAME: &str = "without_descriptors_listeners_pause_and_relaying_continues";
    if std::env::var_os(NAME).is_none() {
        let me = std::env::current_exe().expect("own path");
        let few = "ulimit -n 64; exec \"$0\" --exact \"$1\"";
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", few]).arg(me).arg(NAME).env(NAME, "1").output().expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    let relayed = client.allocate();
    client.bind(0x4000, address);
    // Starts the workers first, because they need descriptors, too.
    relay.handle.send(&Command::Drain(false));
    relay.until("all workers run", |relay| relay.handle.counters().iter().all(|c| c.wakeups.get() > 0));
    // Take all descriptors but one. This test's end of a connection takes the last, so the workers cannot accept theirs.
    let mut taken = Vec::new();
    while let Ok(another) = peer.try_clone() {
        taken.push(another);
    }
    taken.pop();
    let waiting = TcpStream::connect(relay.addresses[1]).expect("the last descriptor");
    relay.until("a pause", |relay| relay.sum(|c| c.accept_paused.get()) > 0);
    let wakeups = relay.sum(|c| c.wakeups.get());
    let pauses = relay.sum(|c| c.accept_paused.get());
    for _ in 0..50 {
        client.send_channel(0x4000, b"on");
        assert_eq!(receive_at(&peer), (b"on".to_vec(), relayed));
        peer.send_to(b"and on", relayed).expect("send");
        assert_eq!(client.receive()[4..], *b"and on");
    }
    relay.until("more pauses", |relay| relay.sum(|c| c.accept_paused.get()) >= pauses + 4);
    assert!(relay.sum(|c| c.wakeups.get()) - wakeups < 300, "the workers spin");
    drop((taken, waiting));
    relay.connect(Transport::Tcp).allocate();
    relay.stop();
}

#[test]
fn draining_refuses_new_allocations_and_keeps_existing_ones() {
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    let relayed = client.allocate();
    client.bind(0x4000, address);
    relay.handle.send(&Command::Drain(true));
    let mut late = relay.connect(Transport::Tcp);
    late.login = Client::login_of("w_late");
    let transport: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
    let challenge = late.ask(0x0003, &[transport]);
    late.nonce = attribute(&challenge, 0x0015).expect("NONCE");
    assert_eq!(error_code(&late.ask(0x0003, &[transport])), Some(508));
    client.send_channel(0x4000, b"still here");
    assert_eq!(receive_at(&peer), (b"still here".to_vec(), relayed));
    relay.stop();
    assert!(UdpSocket::bind(relayed).is_ok(), "stopping closes everything");
}
