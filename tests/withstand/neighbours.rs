//! A stranger that shares its address with many clients, and a visitor that takes every place of the built-in site.

use crate::machine::{cpu, drops, until};
use crate::support::alone;
use crate::support::client::{Client, Link, tcp_from};
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{Session, allocate_request};
use crate::support::tls::{TlsStream, client_for};
use rustls::StreamOwned;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Requests per second of the stranger.
const RATE: f64 = 30_000.0;
/// Requests on each of its connections, below the number that closes one.
const ON_CONNECTION: u64 = 90;
/// Requests in one write.
const AT_ONCE: u64 = 10;
const NEWCOMERS: usize = 30;
/// Visits that one source attempts; the site has 512 places.
const WANTED: usize = 530;
const VISITORS: usize = 24;

/// Allocates over TCP or TLS without credentials; returns the requests per second.
fn flood(server: SocketAddr, transport: Transport, stop: &AtomicBool) -> f64 {
    let request: Vec<u8> = (0..AT_ONCE).flat_map(allocate_request).collect();
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let mut link = Link::open(transport, server);
        for _ in 0..ON_CONNECTION / AT_ONCE {
            // The server may have closed the connection.
            if link.send(&request).is_err() {
                break;
            }
            sent += AT_ONCE;
            let due = start + Duration::from_secs_f64(sent as f64 / RATE);
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
        link.reset();
    }
    sent as f64 / start.elapsed().as_secs_f64()
}

/// Row 8: newcomers with valid credentials allocate over TLS while a stranger at their address floods over `transport`.
fn allocate_beside_flood(transport: Transport) {
    let _turn = alone();
    if skip_on_coturn("a rate limit for each source") {
        return;
    }
    let limits = "workers = 1\nconnections_exempt = []".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let (stop, address) = (AtomicBool::new(false), server.v4(Transport::Tls));
    let (rate, used, waits) = thread::scope(|scope| {
        let flooder = scope.spawn(|| flood(server.v4(transport), transport, &stop));
        let throttled = until(Duration::from_secs(10), || drops(&server, "throttled") > 1000);
        let (before, start) = (cpu(server.pid()), Instant::now());
        let server = &server;
        let newcomer = move |number: usize| {
            let (session, start) =
                (Session::new(server.credentials(&format!("pupil{number}")), b""), Instant::now());
            let client = Client::try_join(Link::open(Transport::Tls, address), &session);
            (client.ok()?.allocate().is_ok()).then(|| start.elapsed())
        };
        // One that is refused panics in its own thread and counts as kept out.
        let waits = (0..NEWCOMERS).filter_map(|n| scope.spawn(move || newcomer(n)).join().ok().flatten());
        let waits: Vec<Duration> = waits.collect();
        let used = 100.0 * (cpu(server.pid()) - before) / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        assert!(throttled.is_some(), "the flood does not reach the limit");
        (flooder.join().unwrap(), used, waits)
    });
    println!(
        "row 8: {rate:.0} requests a second without credentials over {transport:?}: {} of {NEWCOMERS} newcomers of \
         the same address allocated over TLS, within {:.1?}; {used:.0} % of a core",
        waits.len(),
        waits.iter().max().copied().unwrap_or_default()
    );
    assert_eq!(waits.len(), NEWCOMERS);
}

#[test]
fn a_flood_over_tcp_keeps_no_newcomer_of_its_address_off_tls() {
    allocate_beside_flood(Transport::Tcp);
}

#[test]
fn a_flood_over_tls_keeps_no_newcomer_of_its_address_off_tls() {
    allocate_beside_flood(Transport::Tls);
}

/// Asks the built-in site for a page; returns the connection and the start of the answer.
fn visit(source: IpAddr, server: SocketAddr) -> io::Result<(TlsStream, Vec<u8>)> {
    let mut stream = StreamOwned::new(client_for("localhost", &["http/1.1"]), tcp_from(source, server));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n")?;
    let mut start = vec![0; 12];
    stream.read_exact(&mut start)?;
    Ok((stream, start))
}

/// Row 32: one source that holds all places of the built-in site does not lock out visitors from elsewhere.
#[test]
fn one_source_does_not_hold_the_built_in_site() {
    let _turn = alone();
    if skip_on_coturn("a built-in site") {
        return;
    }
    let plan = Plan { tls: "web = true".to_owned(), ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) };
    let server = Server::start(&Plan { limits: "workers = 1".to_owned(), ..plan });
    let address = server.v4(Transport::Tls);
    let [greedy, other] = [2, 9].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    let is_page = |(_, start): &(TlsStream, Vec<u8>)| start == b"HTTP/1.1 200";
    let start = Instant::now();
    let mut held: Vec<_> = (0..WANTED).filter_map(|_| visit(greedy, address).ok()).filter(is_page).collect();
    let (first, took) = (held.len(), start.elapsed());
    let (mut served, mut longest) = (Vec::new(), Duration::ZERO);
    for _ in 0..VISITORS {
        // The greedy source takes every place that became free.
        held.extend(visit(greedy, address).ok().filter(is_page));
        let start = Instant::now();
        served.extend(visit(other, address).ok().filter(is_page));
        longest = longest.max(start.elapsed());
    }
    println!(
        "row 32: {first} places of the built-in site held by one source after {took:.1?}; {} of {VISITORS} visitors \
         of another got their page, within {longest:.1?}",
        served.len()
    );
    assert!(first >= 500, "{first} places held");
    assert_eq!(served.len(), VISITORS);
}
