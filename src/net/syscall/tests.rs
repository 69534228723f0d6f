use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::*;

fn readable(socket: &UdpSocket) {
    let epoll = Epoll::new().expect("epoll");
    epoll.add(socket, 7, ready::READ).expect("add");
    let mut events = Events::new(4);
    epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
    assert_eq!(events.get(0).map(|(token, _)| token), Some(7));
}

fn bound(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("bind");
    socket.set_nonblocking(true).expect("nonblocking");
    socket
}

/// Sends to `reached` on a wildcard socket and asserts that the answer comes from the same address.
fn answers_from(wildcard: &str, client: &str, reached: IpAddr) {
    let server = bound(wildcard);
    let local = server.local_addr().expect("local");
    enable_packet_info(&server, local.is_ipv6()).expect("pktinfo");
    let client = bound(client);
    let target: SocketAddr = (reached, local.port()).into();
    client.send_to(b"one", target).expect("send");
    client.send_to(b"second", target).expect("send");
    readable(&server);

    let mut batch = RecvBatch::new();
    assert_eq!(batch.receive(&server, 3, 8).expect("receive"), 2);
    assert_eq!(batch.frames[3].bytes(), b"one");
    assert_eq!(batch.frames[4].bytes(), b"second");
    let origin = batch.origins[3];
    assert_eq!(origin.from, client.local_addr().expect("local"));
    assert_eq!(origin.reached.map(|source| source.ip), Some(reached));
    assert!(batch.receive(&server, 0, 8).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));

    let datagrams = [b"first".as_slice(), b"2nd"].map(|payload| Datagram {
        head: &[],
        payload,
        to: origin.from,
        source: origin.reached,
    });
    let sent =
        SendBatch::new(true)
            .send(server.as_fd(), local.is_ipv6(), &mut datagrams.into_iter(), &mut |e| panic!("{e}"));
    assert_eq!(sent, 2);
    readable(&client);
    let mut buffer = [0; 16];
    let (len, from) = client.recv_from(&mut buffer).expect("receive");
    assert_eq!((&buffer[..len], from), (b"first".as_slice(), target));
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_reached() {
    answers_from("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2".parse().expect("address"));
    answers_from("[::]:0", "[::1]:0", "::1".parse().expect("address"));
}

#[test]
fn a_dual_stack_socket_speaks_ipv4_in_canonical_addresses() {
    answers_from("[::]:0", "127.0.0.1:0", "127.0.0.3".parse().expect("address"));
}

#[test]
fn more_than_a_batch_is_sent_in_order_despite_failures() {
    let (server, client) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let to = client.local_addr().expect("local");
    let payloads: Vec<[u8; 2]> = (0..BATCH as u16 + 9).map(u16::to_be_bytes).collect();
    let mut failures = Vec::new();
    let mut all = payloads.iter().enumerate().map(|(index, payload)| Datagram {
        head: &[],
        payload,
        // Port 0 cannot be sent to.
        to: if index == 5 { (to.ip(), 0).into() } else { to },
        source: None,
    });
    let sent = SendBatch::new(true).send(server.as_fd(), false, &mut all, &mut |error| failures.push(error));
    assert_eq!((sent, failures.len()), (payloads.len() - 1, 1));

    let (mut batch, mut received) = (RecvBatch::new(), Vec::new());
    while let Ok(count) = batch.receive(&client, 0, BATCH) {
        received.extend(batch.frames[..count].iter().map(|frame| frame.bytes().to_vec()));
    }
    let expected: Vec<_> =
        payloads.iter().enumerate().filter(|(index, _)| *index != 5).map(|(_, p)| p.to_vec()).collect();
    assert_eq!(received, expected);
}

fn port_unreachable_arrives(local: &str, kind: u8, code: u8) {
    let socket = bound(local);
    let ipv6 = socket.local_addr().expect("local").is_ipv6();
    set_error_queue(&socket, ipv6, true).expect("error queue");
    set_fragmentation(&socket, ipv6, Fragmentation::Allowed).expect("option");
    let closed = bound(local).local_addr().expect("local");
    let listening = bound(local);
    assert_eq!(receive_icmp(&socket).expect("queue"), None);
    let to_closed = Datagram { head: &[], payload: b"hello", to: closed, source: None };
    let mut send = SendBatch::new(true);
    let mut failures = 0;
    assert_eq!(send.send(socket.as_fd(), ipv6, &mut [to_closed].into_iter(), &mut |_| failures += 1), 1);
    // The pending error fails the next send, which is retried.
    let to_listening = Datagram { to: listening.local_addr().expect("local"), ..to_closed };
    assert_eq!(send.send(socket.as_fd(), ipv6, &mut [to_listening].into_iter(), &mut |_| failures += 1), 1);
    assert_eq!(failures, 0);
    readable(&listening);
    let error = IcmpError { to: closed, kind, code, info: 0 };
    assert_eq!(receive_icmp(&socket).expect("queue"), Some(error));
    assert_eq!(receive_icmp(&socket).expect("queue"), None);
}

#[test]
fn icmp_errors_name_the_peer_and_do_not_stop_sending() {
    port_unreachable_arrives("127.0.0.1:0", 3, 3);
    port_unreachable_arrives("[::1]:0", 1, 4);
}

#[test]
fn a_waker_ends_every_wait_until_it_is_cleared() {
    let (epoll, waker) = (Epoll::new().expect("epoll"), Waker::new().expect("eventfd"));
    epoll.add(&waker, 1, ready::READ).expect("add");
    let mut events = Events::new(1);
    epoll.wait(&mut events, Some(Duration::ZERO)).expect("wait");
    assert!(events.is_empty());
    waker.clone().wake();
    waker.wake();
    epoll.wait(&mut events, None).expect("wait");
    assert_eq!(events.get(0), Some((1, ready::READ)));
    waker.clear();
    epoll.wait(&mut events, Some(Duration::ZERO)).expect("wait");
    assert_eq!(events.len(), 0);
}

#[test]
fn an_alarm_ends_a_wait_once_and_at_its_earliest_time() {
    let (epoll, mut alarm) = (Epoll::new().expect("epoll"), Alarm::new().expect("timerfd"));
    epoll.add(&alarm, 1, ready::READ).expect("add");
    let mut events = Events::new(1);
    // A time in the past is due at once; a later time does not postpone it.
    alarm.set(1, 5).expect("set");
    alarm.set(u64::MAX / 2, 5).expect("set");
    epoll.wait(&mut events, None).expect("wait");
    assert_eq!(events.get(0), Some((1, ready::READ)));
    alarm.clear().expect("clear");
    alarm.clear().expect("nothing to clear");
    epoll.wait(&mut events, Some(Duration::ZERO)).expect("wait");
    assert!(events.is_empty());
    alarm.set(u64::MAX / 2, 5).expect("set");
    alarm.set(1_000_000, 5).expect("an earlier time");
    epoll.wait(&mut events, None).expect("wait");
    assert_eq!(events.len(), 1);
}

#[test]
fn unsent_bytes_are_those_that_the_receiver_has_not_read() {
    let (near, far) = UnixDatagram::pair().expect("a pair");
    assert_eq!(unsent(&near).expect("size"), 0);
    assert_eq!(near.send(&[0; 1000]).expect("send"), 1000);
    assert!(unsent(&near).expect("size") > 1000, "with the kernel's overhead");
    assert_eq!(far.recv(&mut [0; 2000]).expect("receive"), 1000);
    assert_eq!(unsent(&near).expect("size"), 0);
}

/// Sends `datagrams` in one batch; returns how many were sent and, per frame, the datagrams that a coalescing socket
/// received.
fn coalesced(to: &UdpSocket, datagrams: &[(&[u8], &[u8])], segmentation: bool) -> (usize, Vec<Vec<Vec<u8>>>) {
    enable_coalescing(to).expect("Linux 5.0");
    let from = bound("127.0.0.1:0");
    let address = to.local_addr().expect("local");
    let mut all =
        datagrams.iter().map(|&(head, payload)| Datagram { head, payload, to: address, source: None });
    let sent = SendBatch::new(segmentation).send(from.as_fd(), false, &mut all, &mut |e| panic!("{e}"));
    let (mut batch, mut frames) = (RecvBatch::new(), Vec::new());
    while let Ok(count) = batch.receive(to, 0, BATCH) {
        for (frame, origin) in batch.frames.iter().zip(&batch.origins).take(count) {
            let size = if origin.segment == 0 { usize::MAX } else { origin.segment };
            frames.push(frame.bytes().chunks(size).map(<[u8]>::to_vec).collect());
        }
    }
    (sent, frames)
}

#[test]
fn datagrams_of_one_size_share_a_message_and_the_last_may_be_smaller() {
    let head = b"head".as_slice();
    let datagrams: [(&[u8], &[u8]); 5] =
        [(head, b"one1"), (head, b"two2"), (head, b"3"), (head, b"four"), (b"", b"five")];
    let expected = [b"headone1".to_vec(), b"headtwo2".to_vec(), b"head3".to_vec()];
    for segmentation in [true, false] {
        let receiver = bound("127.0.0.1:0");
        let (sent, frames) = coalesced(&receiver, &datagrams, segmentation);
        assert_eq!(sent, 5);
        if segmentation {
            assert_eq!(frames[0], expected, "one message");
            assert_eq!(frames.len(), 3);
        } else {
            assert!(frames.iter().all(|frame| frame.len() == 1));
        }
        let all: Vec<Vec<u8>> = frames.concat();
        assert_eq!(all[..3], expected);
        assert_eq!(all[3..], [b"headfour".to_vec(), b"five".to_vec()]);
    }
}

#[test]
fn a_long_run_is_split_and_datagrams_above_the_mtu_are_sent_alone() {
    let (small, large) = (vec![7; 1200], vec![8; 9000]);
    let datagrams: Vec<(&[u8], &[u8])> =
        (0..130).map(|_| (&b""[..], &small[..])).chain([(&b""[..], &large[..]); 2]).collect();
    let receiver = bound("127.0.0.1:0");
    socket2::SockRef::from(&receiver).set_recv_buffer_size(4 << 20).expect("room");
    let (sent, frames) = coalesced(&receiver, &datagrams, true);
    assert_eq!(sent, 132);
    // 54 times 1,200 bytes is the most that an IP length can express.
    assert!(frames.iter().all(|frame| frame.len() <= 54));
    assert!(frames.iter().any(|frame| frame.len() > 1));
    assert!(frames.iter().filter(|frame| frame[0].len() == 9000).all(|frame| frame.len() == 1));
}

#[test]
fn a_refused_message_is_sent_datagram_by_datagram() {
    let (socket, receiver) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let good = receiver.local_addr().expect("local");
    // The kernel refuses to send to port 0.
    let refused = (good.ip(), 0).into();
    for segmentation in [true, false] {
        let to = |index| if (3..9).contains(&index) { good } else { refused };
        let mut all = (0..2 * BATCH).map(|index| Datagram {
            head: &[],
            payload: b"hello",
            to: to(index),
            source: None,
        });
        let (mut batch, mut failures) = (SendBatch::new(segmentation), Vec::new());
        let socket = (socket.as_fd(), &Unsegmented::default());
        let sent = batch.send_from(socket, false, &mut all, &mut |index, _| failures.push(index));
        let expected: Vec<usize> = (0..3).chain(9..2 * BATCH).collect();
        assert_eq!((sent, failures), (6, expected), "each failure is reported with its index");
        assert!(!batch.take_refused());
    }
}
