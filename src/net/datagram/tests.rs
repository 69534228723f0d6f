use std::net::UdpSocket;

use super::*;
use crate::base::transport::Transport;
use crate::net::syscall::Events;
use crate::turn::address::Announced;
use std::time::Duration;

fn datagrams() -> (Datagrams, SocketAddr, Rc<Epoll>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_nonblocking(true).expect("non-blocking");
    let local = socket.local_addr().expect("local");
    let listener = UdpListener { socket, local, wildcard: false, quic: None };
    let epoll = Rc::new(Epoll::new().expect("epoll"));
    let datagrams =
        Datagrams::new(Rc::clone(&epoll), vec![listener], Offloads::default()).expect("registered");
    (datagrams, local, epoll)
}

/// Receives two datagrams of a client.
fn arrived(datagrams: &mut Datagrams, server: SocketAddr, epoll: &Epoll) -> (Arrived, SocketAddr) {
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for bytes in [&b"one"[..], b""] {
        client.send_to(bytes, server).expect("send");
    }
    epoll.wait(&mut Events::new(4), Some(Duration::from_secs(5))).expect("wait");
    (datagrams.receive_from_clients(0, 1).expect("two datagrams"), client.local_addr().expect("local"))
}

#[test]
fn every_datagram_is_taken_once_even_an_empty_one() {
    let (mut datagrams, server, epoll) = datagrams();
    let (mut arrived, from) = arrived(&mut datagrams, server, &epoll);
    assert!(!arrived.more && datagrams.was_read(0, 1) && !datagrams.was_read(0, 2));
    let first = datagrams.next(&mut arrived).expect("the first");
    assert_eq!((datagrams.bytes(&first), datagrams.sender(&first)), (&b"one"[..], from));
    let client = datagrams.client(0, &first).expect("a client");
    assert_eq!((client.five_tuple.client, client.five_tuple.server), (from, server));
    assert_eq!(datagrams.next(&mut arrived), Some(Datagram { frame: 1, range: 0..0 }));
    assert_eq!(datagrams.next(&mut arrived), None);
    assert!(datagrams.receive_from_clients(0, 2).is_none(), "nothing is left");
}

#[test]
fn a_coalesced_frame_is_split_and_each_datagram_gets_a_header() {
    let (mut datagrams, server, epoll) = datagrams();
    let (mut arrived, _) = arrived(&mut datagrams, server, &epoll);
    datagrams.received.frames[0].fill(b"aaaabbbbcc");
    datagrams.received.origins[0].segment = 4;
    let parts: Vec<Datagram> = (0..3).filter_map(|_| datagrams.next(&mut arrived)).collect();
    assert_eq!(parts.iter().map(|part| part.range.clone()).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
    let channel = PeerHeader::Channel(0x4001);
    let wrapped = datagrams.wrap(&parts[2], channel, Transport::Tcp).expect("it fits");
    let expected: [&[u8]; 3] = [b"\x40\x01\x00\x02", b"cc", b"\0\0"];
    assert_eq!(datagrams.pieces(&wrapped), expected);
    let wrapped = datagrams.wrap(&parts[1], channel, Transport::Udp).expect("it fits");
    let expected: [&[u8]; 3] = [b"\x40\x01\x00\x04", b"bbbb", b""];
    assert_eq!(datagrams.pieces(&wrapped), expected);
    let data = PeerHeader::Data { peer: Announced(server), transaction_id: [7; 12] };
    let wrapped = datagrams.wrap(&parts[0], data, Transport::Udp).expect("it fits");
    let [_, message, _] = datagrams.pieces(&wrapped);
    assert!(message.starts_with(&[0x00, 0x17]) && message.ends_with(b"aaaa"));
    let client = datagrams.client(0, &parts[0]).expect("a client");
    let relayed = Relayed { relay: RelayId(0), from_client: false, bytes: 4 };
    assert!(datagrams.send_wrapped(0, client, wrapped, relayed), "flush: the spare frame is in use");
}

#[test]
fn an_uncoalesced_frame_gets_its_header_in_place() {
    let (mut datagrams, server, epoll) = datagrams();
    let (mut arrived, _) = arrived(&mut datagrams, server, &epoll);
    let first = datagrams.next(&mut arrived).expect("the first");
    let wrapped = datagrams.wrap(&first, PeerHeader::Channel(0x4fff), Transport::Tls).expect("it fits");
    let expected: [&[u8]; 3] = [b"", b"\x4f\xff\x00\x03one", b"\0"];
    assert_eq!(datagrams.pieces(&wrapped), expected);
}
