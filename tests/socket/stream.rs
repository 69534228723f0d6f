//! TCP and TLS: any segmentation, any number of requests at once, nothing lost.

use crate::support::client::{Client, Link, tcp_from};
use crate::support::echo::Echo;
use crate::support::http::get;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    BINDING_SUCCESS, NONCE, REALM_ATTRIBUTE, XOR_MAPPED_ADDRESS, allocate_request, binding_request,
    read_message,
};
use crate::support::{alone, beside_others, tls};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const PIPELINED: u64 = 20_000;

/// Reads the answers to requests 0.. in the order of the requests.
fn read_all_answers(stream: &mut impl Read) {
    for id in 0..PIPELINED {
        let answer = read_message(stream).unwrap_or_else(|error| panic!("answer {id}: {error}"));
        assert_eq!((answer.kind, answer.id), (BINDING_SUCCESS, id), "{answer:?}");
    }
}

#[test]
fn twenty_thousand_requests_at_once_over_tcp() {
    let _turn = alone();
    if skip_on_coturn("an answer to each of 20,000 pipelined requests") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
    let mut writing = stream.try_clone().unwrap();
    let requests: Vec<u8> = (0..PIPELINED).flat_map(binding_request).collect();
    let writer = thread::spawn(move || writing.write_all(&requests));
    read_all_answers(&mut stream);
    writer.join().unwrap().expect("the server reads all requests");
}

#[test]
fn twenty_thousand_requests_at_once_over_tls() {
    let _turn = alone();
    if skip_on_coturn("an answer to each of 20,000 pipelined requests") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut stream = tls::connect(server.v4(Transport::Tls));
    // Encrypt everything first, so that one thread can write while this one reads.
    stream.conn.set_buffer_limit(None);
    let requests: Vec<u8> = (0..PIPELINED).flat_map(binding_request).collect();
    stream.conn.writer().write_all(&requests).unwrap();
    let mut records = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut records).unwrap();
    }
    let mut writing = stream.sock.try_clone().unwrap();
    let writer = thread::spawn(move || writing.write_all(&records));
    read_all_answers(&mut stream);
    writer.join().unwrap().expect("the server reads all requests");
}

/// Writes in pieces that leave as separate segments.
fn write_in_pieces(stream: &mut TcpStream, bytes: &[u8], size: usize) {
    for piece in bytes.chunks(size) {
        stream.write_all(piece).unwrap();
    }
}

#[test]
fn a_tls_handshake_in_pieces_of_seven_bytes() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tls));
    let mut client = tls::client();
    client.writer().write_all(&binding_request(7)).unwrap();
    let mut answer = Vec::new();
    while answer.len() < 20 {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        write_in_pieces(&mut stream, &records, 7);
        assert!(client.read_tls(&mut stream).expect("the handshake goes on") > 0, "closed by the server");
        client.process_new_packets().expect("valid TLS");
        match client.reader().read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
    }
    let answer = read_message(&mut answer.as_slice()).unwrap();
    assert_eq!((answer.kind, answer.id), (BINDING_SUCCESS, 7), "{answer:?}");
}

#[test]
fn requests_byte_by_byte_over_tcp() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
    let requests = [binding_request(1), allocate_request(2)].concat();
    write_in_pieces(&mut stream, &requests, 1);
    let binding = read_message(&mut stream).unwrap();
    assert_eq!((binding.kind, binding.id), (BINDING_SUCCESS, 1), "{binding:?}");
    assert_eq!(binding.xor_address(XOR_MAPPED_ADDRESS), stream.local_addr().ok());
    let allocate = read_message(&mut stream).unwrap();
    assert_eq!((allocate.error_code(), allocate.id), (Some(401), 2), "{allocate:?}");
    assert!(allocate.attribute(NONCE).is_some(), "{allocate:?}");
    assert!(allocate.attribute(REALM_ATTRIBUTE).is_some(), "{allocate:?}");
}

/// A stream that has lost its framing cannot recover.
#[test]
fn garbage_is_closed_within_two_seconds() {
    let _turn = beside_others();
    if skip_on_coturn("garbage on a stream") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let garbage: [&[u8]; 4] = [&[0xFF; 64], &[0x80; 64], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0; 64]];
    for bytes in garbage {
        let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
        let start = Instant::now();
        stream.write_all(bytes).unwrap();
        // The server may close or reset the connection, but not keep it open.
        let end = stream.read_to_end(&mut Vec::new());
        let waited = start.elapsed();
        let closed = end.as_ref().map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |_| true);
        assert!(closed && waited < Duration::from_secs(2), "{bytes:02x?}: {end:?} after {waited:?}");
    }
}

#[test]
fn nothing_is_lost_over_tcp() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
    relays_all(&server, Link::Tcp(stream));
}

#[test]
fn nothing_is_lost_over_tls() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let stream = tls::connect(server.v4(Transport::Tls));
    relays_all(&server, Link::Tls(Box::new(stream)));
}

fn relays_all(server: &Server, link: Link) {
    let peer = Echo::start(LOCAL_V4);
    let mut client = Client::log_in(link, server.credentials("stream"));
    client.allocate().expect("an allocation");
    assert_eq!(client.permit(peer.address()), 0);
    client.echo(peer.address(), 2000);
    assert_eq!(client.refresh(0), 0);
}

/// By default a TLS port also serves clients without TLS, and a TCP port those with TLS. Either can be turned off.
#[test]
fn the_first_byte_tells_tls_from_plain_clients() {
    let _turn = beside_others();
    if skip_on_coturn("serving or refusing clients of the other kind on a port") {
        return;
    }
    for is_both in [true, false] {
        let mut plan = Plan::loopback();
        (plan.tls, plan.tcp) = (format!("plain = {is_both}"), format!("tls = {is_both}"));
        let server = Server::start(&plan);
        let mut plain = tcp_from(LOCAL_V4, server.v4(Transport::Tls));
        plain.write_all(&binding_request(5)).unwrap();
        let answer = read_message(&mut plain);
        assert_eq!(answer.is_ok_and(|answer| answer.id == 5), is_both, "without TLS");
        let mut client = tls::client();
        let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
        let agreed = loop {
            match client.complete_io(&mut stream) {
                Ok(_) if client.is_handshaking() => {}
                ended => break ended.is_ok(),
            }
        };
        assert_eq!(agreed, is_both, "with TLS");
        if is_both {
            let mut stream = rustls::StreamOwned::new(client, stream);
            stream.write_all(&binding_request(6)).unwrap();
            assert_eq!(read_message(&mut stream).unwrap().id, 6);
            let (_, metrics) = get(server.admin(), "/metrics");
            for counted in ["tcp", "tls"] {
                let line = format!("hallpass_connections{{transport=\"{counted}\"}} 1");
                assert!(metrics.contains(&line), "{line} in {metrics}");
            }
        }
    }
}
