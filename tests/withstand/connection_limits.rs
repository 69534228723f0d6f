//! Limits of connections (places) and descriptors: strangers and web visitors must leave enough of both to authenticated
//! clients.

use crate::machine::{metric, unread, until};
use crate::support::client::{Client, Link, tcp_from, udp_from};
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{REFRESH, Session, binding_request, read_message};
use crate::support::tls::{TlsStream, client_for};
use crate::support::{alone, beside_others};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections that the server allows in total.
const PLACES: usize = 60;
/// Silent web visitors; other clients allocate meanwhile.
const VISITORS: usize = 110;
const NEWCOMERS: usize = 20;

fn source(number: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number as u8 + 1).into()
}

/// Returns whether the server has closed the stream. Skips its answers.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            _ => return true,
        }
    }
}

fn join_over_tcp(address: SocketAddr, session: &Session) -> io::Result<Client> {
    Client::try_join(Link::Tcp(tcp_from(LOCAL_V4, address)), session)
}

/// Rows 15 and 32: strangers from three sources hold every place and send a small request every second.
#[test]
fn requests_of_strangers_do_not_hold_places_of_authenticated_clients() {
    let _turn = alone();
    if skip_on_coturn("a share of places for clients that authenticate") {
        return;
    }
    let limits = format!("workers = 2\nconnections_total = {PLACES}");
    let server = Server::start(&Plan { limits, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let (address, session) = (server.v4(Transport::Tcp), Session::new(server.credentials("teacher"), b""));
    let start = Instant::now();
    let mut strangers: Vec<TcpStream> =
        (0..PLACES).map(|number| tcp_from(source(number % 3), address)).collect();
    let mut next = start;
    let mut tick = |strangers: &mut Vec<TcpStream>| {
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            strangers.iter_mut().for_each(|stream| {
                // An error means that the server has closed the stream, which the next check finds.
                let _ = stream.write_all(&binding_request(1));
            });
        }
        strangers.retain_mut(|stream| !is_closed(stream));
    };
    // The places are full once every stranger was accepted, refused or displaced.
    let crowded = until(Duration::from_secs(20), || {
        tick(&mut strangers);
        metric(&server, "hallpass_connections_refused_total", "")
            + metric(&server, "hallpass_connections_closed_total", "displaced")
            + metric(&server, "hallpass_connections", "tcp")
            >= PLACES as u64
    });
    let full = strangers.len();
    let mut granted = Vec::new();
    let mut failed = 0;
    for _ in 0..10 {
        tick(&mut strangers);
        match join_over_tcp(address, &session) {
            Ok(mut client) => {
                client.allocate().expect("an allocation");
                granted.push(client);
            }
            Err(_) => failed += 1,
        }
    }
    let gone = until(Duration::from_secs(40), || {
        tick(&mut strangers);
        strangers.is_empty()
    });
    let lasted = start.elapsed();
    println!(
        "row 32: {full} of {PLACES} places held by strangers: {} of {} clients authenticated; {} strangers are left \
         after {lasted:.1?}",
        granted.len(),
        granted.len() + failed,
        strangers.len()
    );
    assert!(crowded.is_some(), "the strangers did not fill the places");
    assert_eq!(failed, 0, "clients with credentials were refused");
    assert!(gone.is_some() && lasted < Duration::from_secs(45), "{} strangers are left", strangers.len());
    for client in &mut granted {
        assert_eq!(client.refresh(600), 0, "authenticated clients stay");
    }
}

/// Row 32.
#[test]
fn the_oldest_stranger_makes_room_for_newcomers() {
    let _turn = beside_others();
    if skip_on_coturn("displacing the oldest stranger") {
        return;
    }
    // Thirty places for strangers, and ten more for authenticated clients.
    let limits = "workers = 1\nconnections_total = 40".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let (address, session) = (server.v4(Transport::Tcp), Session::new(server.credentials("early"), b""));
    let mut authenticated: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = join_over_tcp(address, &session).expect("a free place");
            client.allocate().expect("an allocation");
            client
        })
        .collect();
    let stranger = |number: usize| {
        let mut stream = tcp_from(source(number % 3), address);
        stream.write_all(&binding_request(1)).unwrap();
        read_message(&mut stream).map(|_| stream)
    };
    let mut strangers: Vec<TcpStream> =
        (0..30).map(|number| stranger(number).expect("a free place")).collect();
    let mut order = Vec::new();
    for number in 30..40 {
        match stranger(number) {
            Ok(stream) => strangers.push(stream),
            Err(error) => panic!("newcomer {number} is refused after {order:?}: {error}"),
        }
        let closed: Vec<usize> = (0..strangers.len()).filter(|&at| is_closed(&mut strangers[at])).collect();
        order = closed;
    }
    let kept = authenticated.iter_mut().filter_map(|client| client.try_ask(0x0001, &[]).ok()).count();
    println!(
        "row 32: of 40 strangers in 30 places those closed are {order:?}; {kept} of 5 authenticated stay"
    );
    assert_eq!(order, (0..10).collect::<Vec<_>>(), "the oldest ones are displaced first");
    assert_eq!(kept, 5);
    assert_eq!(metric(&server, "hallpass_connections_closed_total", "displaced"), 10);
    assert_eq!(metric(&server, "hallpass_connections_by_class", "authenticated"), 5);
}

/// Row 32: streams of one user, each with an authenticated request every two seconds, and no allocation.
#[test]
fn streams_without_allocations_do_not_lock_others_out() {
    let _turn = beside_others();
    if skip_on_coturn("a share of places for strangers") {
        return;
    }
    let limits = "workers = 1\nconnections_total = 40".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let address = server.v4(Transport::Tcp);
    let (greedy, honest) =
        (Session::new(server.credentials("greedy"), b""), Session::new(server.credentials("honest"), b""));
    // Without an allocation, the request fails but authenticates.
    let asks = |client: &mut Client| {
        let answer = client.try_ask(REFRESH, &[]);
        answer.is_ok_and(|answer| answer.error_code() == Some(437))
    };
    let mut held = Vec::new();
    for _ in 0..50 {
        if let Ok(mut client) = join_over_tcp(address, &greedy)
            && asks(&mut client)
        {
            held.push(client);
        }
    }
    let authenticated = metric(&server, "hallpass_connections_by_class", "authenticated");
    let granted = (0..10)
        .filter_map(|_| join_over_tcp(address, &honest).ok())
        .filter_map(|mut client| client.allocate().ok())
        .count();
    let start = Instant::now();
    let mut next = start;
    let gone = until(Duration::from_secs(50), || {
        if Instant::now() >= next {
            next += Duration::from_secs(2);
            held.retain_mut(asks);
        }
        held.is_empty()
    });
    println!(
        "row 32: of 40 places one user held {authenticated}; {granted} of 10 others got an allocation; {} streams of the \
         first are left after {:.1?}",
        held.len(),
        start.elapsed()
    );
    // Only an allocation makes a client authenticated: without one, its connections are displaced like a stranger's.
    assert_eq!((authenticated, granted), (0, 10));
    assert!(gone.is_some(), "{} streams are left", held.len());
}

/// Key updates, 28 bytes each, from a client that never authenticates.
#[test]
fn key_updates_of_a_stranger_are_limited() {
    let _turn = beside_others();
    if skip_on_coturn("a limit on what TLS does after a handshake") {
        return;
    }
    let server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let address = server.v4(Transport::Tls);
    let mut client = client_for("localhost", &[]);
    let mut stream = tcp_from(LOCAL_V4, address);
    let (SocketAddr::V4(there), SocketAddr::V4(here)) = (address, stream.local_addr().unwrap()) else {
        panic!("{address}");
    };
    while client.is_handshaking() {
        client.complete_io(&mut stream).expect("a handshake");
    }
    stream.set_nonblocking(true).unwrap();
    let closed = || metric(&server, "hallpass_connections_closed_total", "tls_failed");
    // The start of a request of 2,000 bytes, one byte per thirty key updates, because rustls refuses too many in a row.
    let mut request = [&[0, 1, 0x07, 0xD0, 0x21, 0x12, 0xA4, 0x42][..], &[0; 1900]].concat().into_iter();
    let mut changes = 0_usize;
    let mut over = false;
    while !over && changes < 40_000 {
        for _ in 0..30 {
            client.refresh_traffic_keys().expect("TLS 1.3");
        }
        changes += 30;
        client.writer().write_all(&[request.next().unwrap_or(0)]).unwrap();
        while !over && client.wants_write() {
            match client.write_tls(&mut stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => over = is_closed(&mut stream),
                Err(_) => over = true,
                Ok(_) => {}
            }
        }
        // Discard the server's answers.
        over = over || is_closed(&mut stream);
        // Bytes in the receive queue were not read by the server and do not count.
        assert!(
            until(Duration::from_secs(30), || unread(there, here) == 0).is_some(),
            "the server stopped reading"
        );
    }
    println!("{changes} changes of keys until the server closed the connection: {over}");
    assert!(over, "the connection was not closed");
    assert!(
        until(Duration::from_secs(10), || closed() == 1).is_some(),
        "it closed the connection for another reason"
    );
    // 16 are allowed; the first batch has 30, and another may be in flight when the server closes.
    assert!(changes <= 60, "{changes}");
}

/// Returns a visitor of a site after its handshake; `None` if the server refuses it.
fn visit(address: SocketAddr) -> Option<TlsStream> {
    let (mut client, mut stream) = (client_for("localhost", &["http/1.1"]), tcp_from(source(0), address));
    while client.is_handshaking() {
        client.complete_io(&mut stream).ok()?;
    }
    Some(TlsStream::new(client, stream))
}

/// Rows 19 and 32: each web visitor takes two descriptors.
#[test]
fn silent_web_visitors_leave_descriptors_to_relays() {
    let _turn = alone();
    if skip_on_coturn("a port shared with the web") {
        return;
    }
    // Never accepted by the test: the kernel completes the connections in the backlog.
    let web = TcpListener::bind((LOCAL_V4, 0)).expect("a web server");
    let server = Server::start(&Plan {
        wrapper: ["prlimit", "--nofile=256:256", "--"].map(str::to_owned).to_vec(),
        tls: "web = true".to_owned(),
        tables: format!("[web]\nhttp1 = \"{}\"", web.local_addr().unwrap()),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    let mut visitors: Vec<_> = (0..VISITORS).filter_map(|_| visit(server.v4(Transport::Tls))).collect();
    let arrived = visitors.len() as u64;
    // Each visitor sends the start of a request, so it is handed to the web server, or closed.
    visitors.retain_mut(|visitor| {
        visitor.write_all(b"GET / HTTP/1.1\r\n").and_then(|()| visitor.flush()).is_ok()
    });
    let decided = || metric(&server, "hallpass_shared_port_clients_total", "http1");
    assert!(until(Duration::from_secs(20), || decided() == arrived).is_some(), "{} of {arrived}", decided());
    let (taken, most) =
        (metric(&server, "hallpass_descriptors", ""), metric(&server, "hallpass_descriptors_max", ""));
    let session = Session::new(server.credentials("newcomer"), b"");
    let mut codes = Vec::new();
    let mut held = Vec::new();
    for _ in 0..NEWCOMERS {
        let link = Link::Udp(udp_from(LOCAL_V4, server.v4(Transport::Udp)));
        let mut client = Client::join(link, &session);
        codes.extend(client.allocate().err());
        held.push(client);
    }
    println!(
        "row 19: {} of {VISITORS} silent visitors are in: {taken} of {most} descriptors; of {NEWCOMERS} allocations \
         {} refused: {codes:?}",
        metric(&server, "hallpass_connections", "tls"),
        codes.len()
    );
    drop(visitors);
    assert!(codes.is_empty(), "{codes:?}");
    assert!(taken >= most / 4, "the visitors took too few descriptors: {taken} of {most}");
}
