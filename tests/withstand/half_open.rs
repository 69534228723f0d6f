//! Connections that start and do not continue.

use crate::call::Call;
use crate::machine::{cpu, descriptors, lasting_descriptors, many_descriptors, memory, until};
use crate::support::client::{channel_data, tcp_from};
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::allocate_request;
use crate::support::{alone, beside_others, tls};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const HALF_OPEN: u32 = 2000;
/// Connections per source address: few, so that the limit per source does not apply.
const OF_ONE_SOURCE: u32 = 20;

/// The first bytes of a client: none, a part of its first message, or all of it without what must follow.
fn beginnings(transport: Transport) -> Vec<Vec<u8>> {
    match transport {
        Transport::Tls => {
            let hello = client_hello();
            vec![vec![], hello[..3].to_vec(), hello[..hello.len() / 2].to_vec(), hello]
        }
        _ => vec![vec![], allocate_request(1)[..7].to_vec(), allocate_request(1)[..27].to_vec()],
    }
}

fn client_hello() -> Vec<u8> {
    let (mut client, mut hello) = (tls::post_quantum_client(), Vec::new());
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    hello
}

fn open(server: &Server, transport: Transport, number: u32, beginnings: &[Vec<u8>]) -> TcpStream {
    let source: IpAddr = Ipv4Addr::from_bits(0x7F01_0001 + number / OF_ONE_SOURCE).into();
    let mut stream = tcp_from(source, server.v4(transport));
    stream.write_all(&beginnings[number as usize % beginnings.len()]).unwrap();
    stream
}

/// Row 15.
fn half_open(transport: Transport) {
    let _turn = alone();
    many_descriptors(u64::from(HALF_OPEN) + 500);
    let server = Server::start(&Plan::loopback());
    let call = Call::start(&server, 200);
    let (memory_before, open_before) = (memory(server.pid()), lasting_descriptors(server.pid()));
    let (beginnings, start) = (beginnings(transport), Instant::now());
    let streams: Vec<TcpStream> =
        (0..HALF_OPEN).map(|number| open(&server, transport, number, &beginnings)).collect();
    let took = start.elapsed();
    let taken =
        until(Duration::from_secs(5), || descriptors(server.pid()) >= open_before + HALF_OPEN as usize);
    let each = memory(server.pid()).saturating_sub(memory_before) as f64 / f64::from(HALF_OPEN);
    let (cpu_before, start) = (cpu(server.pid()), Instant::now());
    call.lasts(Duration::from_secs(3));
    let busy = (cpu(server.pid()) - cpu_before) / start.elapsed().as_secs_f64();
    let report = call.end();
    println!(
        "row 15: {HALF_OPEN} half-open {transport:?} in {took:.1?}: {each:.1} KiB each, {:.0} % of a core; the \
         call: {report}",
        busy * 100.0
    );
    assert_eq!(streams.len(), HALF_OPEN as usize);
    assert!(report.quantile(0.95) < Duration::from_millis(100), "{report}");
    assert!(report.loss() <= 0.01, "{report}");
    assert!(each <= 64.0, "{each} KiB each");
    assert!(busy < 0.2, "{busy} of a core");
    assert!(taken.is_some(), "only {} descriptors", descriptors(server.pid()));
}

#[test]
fn two_thousand_half_open_connections_do_not_disturb_calls_over_tcp() {
    half_open(Transport::Tcp);
}

#[test]
fn two_thousand_half_open_connections_do_not_disturb_calls_over_tls() {
    half_open(Transport::Tls);
}

/// Returns when the server closed the stream, measured from `start`; `None` if it stayed open for `limit` longer.
fn closed_after(stream: &mut TcpStream, start: Instant, limit: Duration) -> Option<Duration> {
    let mut buffer = [0; 4096];
    loop {
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut buffer) {
            // Bytes of the handshake.
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            _ => return Some(start.elapsed()),
        }
    }
}

/// Row 15: a TLS handshake has ten seconds, the first request thirty.
#[test]
fn half_open_connections_are_closed() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let start = Instant::now();
    let mut waiting = Vec::new();
    for transport in [Transport::Tls, Transport::Tcp] {
        let beginnings = beginnings(transport);
        let streams = (0..8).map(|number| (transport, open(&server, transport, number, &beginnings)));
        waiting.extend(streams);
    }
    let mut secured = tls::connect(server.v4(Transport::Tls));
    secured.sock.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let (mut faults, mut spans) = (Vec::new(), [Duration::ZERO; 2]);
    for (transport, stream) in &mut waiting {
        let (kind, limit) = if *transport == Transport::Tls { (0, 12) } else { (1, 33) };
        match closed_after(stream, start, Duration::from_secs(limit)) {
            Some(after) => spans[kind] = spans[kind].max(after),
            None => faults.push(format!("{transport:?} is open after {limit} s")),
        }
    }
    // A completed handshake does not replace the first request.
    let ended = secured.read(&mut [0; 100]);
    let after = start.elapsed();
    println!(
        "row 15: TLS closed within {:.1?}, TCP within {:.1?}, TLS without a request after {after:.1?}; {faults:?}",
        spans[0], spans[1]
    );
    assert!(faults.is_empty(), "{faults:?}");
    assert!(!matches!(ended, Ok(1..)) && after < Duration::from_secs(34), "{ended:?} after {after:?}");
    if skip_on_coturn("a minimum time for a handshake and a first request") {
        return;
    }
    assert!(spans[0] > Duration::from_secs(9) && spans[1] > Duration::from_secs(29), "{spans:?}");
}

/// Keeps a client from reserving a call's resources with ChannelData alone.
#[test]
fn a_stream_cannot_start_with_channel_data() {
    let _turn = beside_others();
    if skip_on_coturn("ChannelData before any request closes the stream") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut stream = tcp_from([127, 0, 0, 1].into(), server.v4(Transport::Tcp));
    stream.write_all(&channel_data(0x4000, &[1; 100])).unwrap();
    let closed = closed_after(&mut stream, Instant::now(), Duration::from_secs(2));
    assert!(closed.is_some(), "still open");
}
