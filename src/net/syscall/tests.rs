use std::net::UdpSocket;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
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

/// Sends to `reached` on a wildcard socket and expects the answer to come from that very address.
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
fn more_than_a_batch_goes_out_in_order_and_failures_do_not_stop_it() {
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
    enable_error_queue(&socket, ipv6).expect("error queue");
    set_fragmentation(&socket, ipv6, Fragmentation::Allowed).expect("option");
    let closed = bound(local).local_addr().expect("local");
    let listening = bound(local);
    assert_eq!(receive_icmp(&socket).expect("queue"), None);
    let to_closed = Datagram { head: &[], payload: b"anybody?", to: closed, source: None };
    let mut send = SendBatch::new(true);
    let mut failures = 0;
    assert_eq!(send.send(socket.as_fd(), ipv6, &mut [to_closed].into_iter(), &mut |_| failures += 1), 1);
    // The pending error hits the next send, which is tried again.
    let to_listening = Datagram { to: listening.local_addr().expect("local"), ..to_closed };
    assert_eq!(send.send(socket.as_fd(), ipv6, &mut [to_listening].into_iter(), &mut |_| failures += 1), 1);
    assert_eq!(failures, 0);
    readable(&listening);
    let error = IcmpError { to: closed, kind, code, info: 0 };
    assert_eq!(receive_icmp(&socket).expect("queue"), Some(error));
    assert_eq!(receive_icmp(&socket).expect("queue"), None);
}

#[test]
fn icmp_errors_come_with_the_peer_and_do_not_stop_sending() {
    port_unreachable_arrives("127.0.0.1:0", 3, 3);
    port_unreachable_arrives("[::1]:0", 1, 4);
}

#[test]
fn a_waker_ends_a_wait_until_it_is_cleared() {
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
