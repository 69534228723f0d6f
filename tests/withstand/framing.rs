//! Streams split at odd places, and streams of garbage.

use crate::machine::until;
use crate::support::beside_others;
use crate::support::client::tcp_from;
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::{BINDING_SUCCESS, allocate_request, binding_request, read_message};
use crate::support::tls;
use rustls::ClientConnection;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(2);

/// Returns how long it took until the server closed or reset the stream.
fn until_closed(stream: &mut impl Read) -> Option<Duration> {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            _ => return Some(start.elapsed()),
        }
    }
}

fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let noise = |state: u8| -> Vec<u8> {
        (0..500_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | state).collect()
    };
    let mut wrong_cookie = allocate_request(1);
    wrong_cookie[4] ^= 0xFF;
    let mut odd_length = allocate_request(1);
    odd_length[3] = 7;
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xFF; 64]),
        ("noise", noise(0x80)),
        ("another cookie", wrong_cookie),
        ("a length that is no multiple of four", odd_length),
        ("garbage behind a request", [binding_request(1), noise(0xC0)].concat()),
    ]
}

/// Row 17: on TCP, in place of a ClientHello, and inside TLS.
#[test]
fn garbage_is_closed_within_two_seconds() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let (mut longest, mut faults) = (Duration::ZERO, Vec::new());
    for (what, bytes) in garbage() {
        for place in ["TCP", "a ClientHello", "TLS"] {
            let transport = if place == "TCP" { Transport::Tcp } else { Transport::Tls };
            let closed = if place == "TLS" {
                let mut stream = tls::connect(server.v4(transport));
                stream.sock.set_read_timeout(Some(LIMIT)).unwrap();
                let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
                until_closed(&mut stream)
            } else {
                let mut stream = tcp_from(LOOPBACK, server.v4(transport));
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let _ = stream.write_all(&bytes);
                until_closed(&mut stream)
            };
            match closed {
                Some(after) => longest = longest.max(after),
                None => faults.push(format!("{what} on {place}")),
            }
        }
    }
    println!("row 17: garbage closed within {longest:?}; not closed: {faults:?}");
    assert!(faults.is_empty(), "{faults:?}");
}

/// Completes a handshake whose first flight is sent by `cut`; the server answers a request inside.
fn handshake(server: &Server, cut: impl Fn(&mut TcpStream, &[u8])) -> usize {
    let mut stream = tcp_from(LOOPBACK, server.v4(Transport::Tls));
    let mut client = tls::post_quantum_client();
    let hello = flight(&mut client);
    cut(&mut stream, &hello);
    while client.is_handshaking() {
        assert!(client.read_tls(&mut stream).expect("the handshake goes on") > 0, "closed by the server");
        client.process_new_packets().expect("valid TLS");
        let _ = stream.write_all(&flight(&mut client));
    }
    client.writer().write_all(&binding_request(5)).unwrap();
    stream.write_all(&flight(&mut client)).unwrap();
    let answer = read_message(&mut rustls::Stream::new(&mut client, &mut stream)).expect("an answer");
    assert_eq!((answer.kind, answer.id), (BINDING_SUCCESS, 5), "{answer:?}");
    hello.len()
}

fn flight(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Splits the handshake message into records of at most `size` bytes (RFC 8446 section 5.1).
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[5..].chunks(size).map(|part| {
        let mut record = hello[..3].to_vec();
        record.extend((part.len() as u16).to_be_bytes());
        record.extend(part);
        record
    });
    records.flatten().collect()
}

/// Gives the server time to read what was sent. This is a fixed time, because nothing shows from outside when it has.
fn pause() {
    let _ = until(Duration::from_millis(60), || false);
}

/// Row 17.
#[test]
fn a_client_hello_may_arrive_in_any_pieces() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let len = handshake(&server, |stream, hello| stream.write_all(hello).unwrap());
    handshake(&server, |stream, hello| hello.iter().for_each(|&byte| stream.write_all(&[byte]).unwrap()));
    for at in [1, 5, 6, 100, 1200, len - 1] {
        handshake(&server, |stream, hello| {
            stream.write_all(&hello[..at.min(hello.len() - 1)]).unwrap();
            pause();
            stream.write_all(&hello[at.min(hello.len() - 1)..]).unwrap();
        });
    }
    for size in [100, 400, 1000] {
        handshake(&server, |stream, hello| stream.write_all(&in_records(hello, size)).unwrap());
    }
    handshake(&server, |stream, hello| {
        for record in in_records(hello, 600).chunks(605) {
            stream.write_all(record).unwrap();
            pause();
        }
    });
    println!(
        "row 17: a ClientHello of {len} bytes byte by byte, in two segments and in up to {} records",
        len / 100 + 1
    );
    assert!(len > 1400, "{len} bytes fit into one segment: the post-quantum share is missing");
}
