//! Clients with credentials that exceed their share: allocations, permissions, channels, ports.

use crate::machine::{drops, memory, metric, share_one_core, until};
use crate::support::client::{Client, Link};
use crate::support::codec::UDP;
use crate::support::credentials::rest;
use crate::support::plan::{LOCAL_V4, Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, LIFETIME, Message, REFRESH,
    REQUESTED_TRANSPORT, Session, XOR_PEER_ADDRESS, xor_value,
};
use crate::support::{alone, beside_others};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const SECOND_SECRET: &str = "a secret of another host";
const ONE_SECOND: Duration = Duration::from_secs(1);

fn join(server: &Server, transport: Transport, session: &Session) -> Client {
    Client::join(Link::open(transport, server.v4(transport)), session)
}

/// Allocates with a new client, which is kept on success; returns the code.
fn one_more(server: &Server, transport: Transport, session: &Session, held: &mut Vec<Client>) -> u16 {
    let mut client = join(server, transport, session);
    let code = client.allocate().err().unwrap_or(0);
    if code == 0 {
        held.push(client);
    }
    code
}

/// Row 11.
#[test]
fn quotas_are_exact_across_time_stamps_and_transports() {
    let _turn = beside_others();
    let server = Server::start(&Plan {
        limits: "allocations_per_user = 3\nallocations_total = 8".to_owned(),
        tables: format!("[[host]]\nname = \"second\"\nsecret = \"{SECOND_SECRET}\""),
        coturn: "user-quota=3\ntotal-quota=8\n".to_owned(),
        ..Plan::loopback()
    });
    let [udp, tcp, tls] = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let session = |secret, user, ttl| Session::new(rest(secret, user, ttl), b"");
    let greedy = [600, 1200, 1800, 2400].map(|ttl| session(SECRET, "w_greedy", ttl));
    let (mut held, mut codes) = (Vec::new(), Vec::new());
    for (session, transport) in greedy.iter().zip([udp, tcp, tls, udp]) {
        codes.push(one_more(&server, transport, session, &mut held));
    }
    println!("row 11: four allocations of one user under four names: {codes:?}");
    assert_eq!(codes, [0, 0, 0, 486]);
    for transport in [tcp, tls] {
        assert_eq!(one_more(&server, transport, &greedy[0], &mut held), 486);
    }
    // A place is free again after an allocation ends, and after a connection is reset.
    let mut back = Vec::new();
    for (index, how) in [(0, "Refresh"), (0, "reset of TCP"), (0, "reset of TLS")] {
        let mut client = held.remove(index);
        match how {
            "Refresh" => assert_eq!(client.refresh(0), 0),
            _ => client.link.reset(),
        }
        let waited = until(2 * ONE_SECOND, || one_more(&server, udp, &greedy[3], &mut held) == 0);
        back.push((how, waited.unwrap_or(Duration::MAX)));
    }
    println!("row 11: a place came back after {back:?}");
    assert!(back.iter().all(|(_, waited)| *waited < ONE_SECOND), "{back:?}");
    assert_eq!(one_more(&server, udp, &greedy[1], &mut held), 486, "more than three places came back");
    if skip_on_coturn("several named hosts") {
        return;
    }
    // The user of the same name on another host is a different user.
    let namesake = session(SECOND_SECRET, "w_greedy", 600);
    let codes = [(); 4].map(|()| one_more(&server, udp, &namesake, &mut held));
    assert_eq!(codes, [0, 0, 0, 486]);
    let third = session(SECRET, "w_third", 600);
    let codes = [(); 3].map(|()| one_more(&server, tcp, &third, &mut held));
    println!("row 11: the ninth of eight in all: {codes:?}");
    assert_eq!(codes, [0, 0, 508]);
    assert_eq!(metric(&server, "hallpass_allocations", ""), 8);
    held.pop().expect("eight of them").link.reset();
    let waited = until(2 * ONE_SECOND, || one_more(&server, tls, &third, &mut held) == 0);
    assert!(waited.is_some_and(|waited| waited < ONE_SECOND), "{waited:?}");
}

/// Starts a server with `count` consecutive relay ports that are free; returns the first and the last. The search
/// starts at `least`, so that parallel tests use different ports.
fn with_ports(least: u16, count: u16) -> (Server, u16, u16) {
    let free = |port| UdpSocket::bind((LOCAL_V4, port)).is_ok();
    let starts = (least..least + 2000).step_by(usize::from(count));
    let first = starts.into_iter().find(|&first| (first..first + count).all(free)).expect("free ports");
    let last = first + count - 1;
    let server = Server::start(&Plan {
        relay: vec![LOCAL_V4],
        relay_ports: (first, last),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    (server, first, last)
}

/// Row 14.
#[test]
fn every_port_is_allocated_and_reused_and_exhaustion_is_reported_at_once() {
    let _turn = beside_others();
    const PORTS: u16 = 10;
    let (server, first, last) = with_ports(12_000, PORTS);
    let session = Session::new(server.credentials("ports"), b"");
    let mut longest = Duration::ZERO;
    for round in 0..5 {
        let mut clients: Vec<Client> = (0..=PORTS).map(|_| join(&server, Transport::Udp, &session)).collect();
        let ports: BTreeSet<u16> = (0..usize::from(PORTS))
            .map(|index| clients[index].allocate().unwrap_or_else(|code| panic!("{index}: {code}")).port())
            .collect();
        assert!(ports.iter().copied().eq(first..=last), "round {round}: {ports:?}");
        let start = Instant::now();
        assert_eq!(clients[usize::from(PORTS)].allocate(), Err(508));
        longest = longest.max(start.elapsed());
        for client in &mut clients[..usize::from(PORTS)] {
            assert_eq!(client.refresh(0), 0);
        }
    }
    println!("row 14: all of {PORTS} ports in each of five rounds, 508 within {longest:?}");
    assert!(longest < Duration::from_millis(100), "{longest:?} until 508");
}

/// Row 14 with ports in use by another program: EADDRINUSE.
#[test]
fn ports_in_use_by_another_program_are_skipped_until_they_are_free() {
    let _turn = beside_others();
    const PORTS: u16 = 12;
    let (server, first, last) = with_ports(14_000, PORTS);
    let session = Session::new(server.credentials("ports"), b"");
    let theirs: Vec<UdpSocket> =
        (first..=last).step_by(2).map(|port| UdpSocket::bind((LOCAL_V4, port)).expect("free")).collect();
    for round in 0..3 {
        let mut clients: Vec<Client> =
            (0..PORTS / 2).map(|_| join(&server, Transport::Udp, &session)).collect();
        let ports: BTreeSet<u16> = clients
            .iter_mut()
            .map(|client| client.allocate().unwrap_or_else(|code| panic!("round {round}: {code}")).port())
            .collect();
        assert!(ports.iter().copied().eq((first + 1..=last).step_by(2)), "round {round}: {ports:?}");
        assert_eq!(join(&server, Transport::Udp, &session).allocate(), Err(508), "round {round}");
        for client in &mut clients {
            assert_eq!(client.refresh(0), 0);
        }
    }
    drop(theirs);
    let mut clients: Vec<Client> = (0..PORTS).map(|_| join(&server, Transport::Udp, &session)).collect();
    let granted = clients.iter_mut().filter_map(|client| client.allocate().ok()).count();
    println!("row 14: {} of {PORTS} ports while another program had the others, then {granted}", PORTS / 2);
    assert_eq!(granted, usize::from(PORTS));
}

const MANY: u16 = 6000;

/// Returns peers with distinct addresses.
fn peer(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(127, 3, high, low).into(), 4000)
}

/// Returns the seconds for the first and the last thousand of one allocation, and the growth of the server in KiB.
fn six_thousand(server: &Server, mut one: impl FnMut(&mut Client, u16) -> u16) -> (f64, f64, u64) {
    let mut client = join(server, Transport::Udp, &Session::new(server.credentials("collector"), b""));
    client.allocate().expect("an allocation");
    let before = memory(server.pid());
    let mut thousands = Vec::new();
    for start in (0..MANY).step_by(1000) {
        let begun = Instant::now();
        for number in start..start + 1000 {
            assert_eq!(one(&mut client, number), 0, "number {number}");
        }
        thousands.push(begun.elapsed().as_secs_f64());
    }
    let grown = memory(server.pid()).saturating_sub(before);
    assert_eq!(client.refresh(0), 0);
    (thousands[0], thousands[thousands.len() - 1], grown)
}

/// Row 13. The fastest of several rounds counts, because other load only makes rounds slower.
#[test]
fn six_thousand_permissions_or_channels_stay_small_and_fast() {
    let _turn = alone();
    let server = Server::start(&Plan {
        limits: "permissions_per_allocation = 6000\nchannels_per_allocation = 6000\nrequests_per_user = 0"
            .to_owned(),
        ..Plan::loopback()
    });
    share_one_core(server.pid());
    let quickest = |one: &dyn Fn(&mut Client, u16) -> u16| {
        let rounds: Vec<_> = (0..3).map(|_| six_thousand(&server, one)).collect();
        let least =
            |seconds: fn(&(f64, f64, u64)) -> f64| rounds.iter().map(seconds).fold(f64::MAX, f64::min);
        let grown = rounds.iter().map(|round| round.2).max().expect("rounds");
        (least(|round| round.0), least(|round| round.1), grown)
    };
    let permissions = quickest(&|client, number| client.permit(peer(number)));
    let channels = quickest(&|client, number| client.bind(0x4000 + number, peer(number)));
    for (what, (first, last, grown)) in [("permissions", permissions), ("channels", channels)] {
        println!(
            "row 13: {MANY} {what}: +{grown} KiB, the first thousand {first:.3} s, the last {last:.3} s"
        );
        assert!(grown <= 4 * 1024, "{what}: {grown} KiB");
        assert!(last <= 3.0 * first, "{what}: {first} s, then {last} s");
    }
}

/// Row 13: the default limits.
#[test]
fn permissions_and_channels_are_limited() {
    let _turn = beside_others();
    let server = Server::start(&Plan { limits: "requests_per_user = 0".to_owned(), ..Plan::loopback() });
    let session = Session::new(server.credentials("collector"), b"");
    let count = |one: fn(&mut Client, u16) -> u16| {
        let mut client = join(&server, Transport::Udp, &session);
        client.allocate().expect("an allocation");
        let refused = (0..MANY).find_map(|number| match one(&mut client, number) {
            0 => None,
            code => Some((number, code)),
        });
        assert_eq!(client.refresh(600), 0, "the allocation stays");
        refused
    };
    let permissions = count(|client, number| client.permit(peer(number)));
    let channels = count(|client, number| client.bind(0x4000 + number, peer(number)));
    println!("row 13: refused after {permissions:?} permissions and {channels:?} channels (number, code)");
    if skip_on_coturn("a cap below six thousand") {
        return;
    }
    assert_eq!((permissions, channels), (Some((1000, 508)), Some((1000, 508))));
}

/// Row 12: a limit, and the reason under which its drops are counted.
const RATES: [(&str, u32, &str); 6] = [
    ("kbit_per_allocation", 160, "allocation_over_rate"),
    ("packets_per_allocation", 200, "allocation_over_rate"),
    ("kbit_per_user", 160, "user_over_rate"),
    ("packets_per_user", 200, "user_over_rate"),
    ("kbit_per_host", 160, "host_over_rate"),
    ("packets_per_host", 200, "host_over_rate"),
];

/// Row 12. 100 bytes are 800 bits, so both kinds of limit correspond to 200 packets per second.
#[test]
fn only_datagrams_above_a_rate_limit_are_dropped_and_counted() {
    let _turn = beside_others();
    if skip_on_coturn("limits of bits and packets by allocation, user and host") {
        return;
    }
    for (key, limit, reason) in RATES {
        let server =
            Server::start(&Plan { limits: format!("workers = 4\n{key} = {limit}"), ..Plan::loopback() });
        let peer = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        peer.set_read_timeout(Some(crate::support::client::PATIENCE)).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(4 << 20).unwrap();
        let to = peer.local_addr().unwrap();
        // Two allocations of one user: a limit per allocation applies to each, the others to both together.
        let session = Session::new(server.credentials("sender"), b"");
        let mut clients = [(); 2].map(|()| {
            let mut client = join(&server, Transport::Tcp, &session);
            client.allocate().expect("an allocation");
            assert_eq!(client.bind(0x4000, to), 0);
            client
        });
        // Below the limit everything arrives.
        for _ in 0..50 {
            clients.iter_mut().for_each(|client| client.send_on(0x4000, &[1; 100]));
        }
        (0..100).for_each(|number| {
            assert_eq!(peer.recv(&mut [0; 200]).unwrap_or_else(|e| panic!("{key}, {number}: {e}")), 100);
        });
        assert_eq!(drops(&server, reason), 0, "{key}");
        // Above the limit.
        let start = Instant::now();
        for _ in 0..2000 {
            clients.iter_mut().for_each(|client| client.send_on(0x4000, &[2; 100]));
        }
        // The answer arrives after the data, so all data has been handled.
        clients.iter_mut().for_each(|client| assert_eq!(client.refresh(600), 0));
        let seconds = start.elapsed().as_secs_f64();
        let dropped = drops(&server, reason);
        peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let passed =
            std::iter::repeat_with(|| peer.recv(&mut [0; 200])).take_while(Result::is_ok).count() as u64;
        // One worker handles an allocation. Each of the four may hold one percent of the other limits, and a
        // datagram.
        let (holders, tolerance) = if reason.starts_with("allocation") { (2.0, 4.0) } else { (1.0, 12.0) };
        println!("row 12: {key}: {passed} of 4000 passed in {seconds:.2} s, {dropped} counted");
        assert_eq!(passed + dropped, 4000, "{key}");
        let most = holders * f64::from(200) * (1.0 + seconds) + tolerance;
        // The first datagrams used part of the initial burst.
        let least = holders * 100.0 - tolerance;
        assert!((least..=most).contains(&(passed as f64)), "{key}: {passed} passed, {least} to {most} may");
    }
}

/// Rows 11 and 12: the default limits.
#[test]
fn users_and_allocations_are_limited_by_default() {
    let _turn = beside_others();
    // All clients have one source here.
    let server =
        Server::start(&Plan { limits: "unauthenticated_per_source = 0".to_owned(), ..Plan::loopback() });
    let session = Session::new(server.credentials("greedy"), b"");
    let (mut held, most) = (Vec::new(), 600);
    let refused =
        (0..most).map(|_| one_more(&server, Transport::Udp, &session, &mut held)).find(|&code| code != 0);
    println!("row 11: {} allocations of one user, then {refused:?}", held.len());
    let mut client = join(&server, Transport::Tcp, &Session::new(server.credentials("sender"), b""));
    client.allocate().expect("an allocation");
    let sink = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
    assert_eq!(client.bind(0x4000, sink.local_addr().unwrap()), 0);
    if skip_on_coturn("limits per user and allocation by default") {
        return;
    }
    assert_eq!((held.len(), refused), (500, Some(486)));
    let mut send = |datagrams: u32| {
        let start = Instant::now();
        (0..datagrams).for_each(|_| client.send_on(0x4000, &[3; 100]));
        // The answer arrives after the data, so all data has been handled.
        assert_eq!(client.refresh(600), 0);
        start.elapsed().as_secs_f64()
    };
    send(15_000);
    assert_eq!(drops(&server, "allocation_over_rate"), 0, "a burst of one second's worth was dropped");
    // At worst, the burst is available again: a second's worth, and what the limit allows meanwhile.
    let seconds = send(60_000);
    let dropped = drops(&server, "allocation_over_rate");
    println!("row 12: {dropped} of 60000 datagrams in {seconds:.2} s exceeded the limit of an allocation");
    assert!(dropped as f64 >= 60_000.0 - 20_000.0 * (1.0 + seconds), "{dropped} in {seconds} s");
}

type Attributes<'a> = &'a [(u16, &'a [u8])];

/// A permission, channel or allocation that is requested again counts once.
#[test]
fn repeated_requests_take_no_further_place() {
    let _turn = beside_others();
    let server = Server::start(&Plan { limits: "requests_per_user = 0".to_owned(), ..Plan::loopback() });
    let mut client = join(&server, Transport::Tcp, &Session::new(server.credentials("again"), b""));
    client.allocate().expect("an allocation");
    let number = [0x40, 0, 0, 0];
    for round in 0..2000_u32 {
        let to = xor_value(peer(1));
        let requests: [(u16, Attributes<'_>); 3] = [
            (CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &to)]),
            (CHANNEL_BIND, &[(CHANNEL_NUMBER, &number), (XOR_PEER_ADDRESS, &to)]),
            (REFRESH, &[(LIFETIME, &[0, 0, 2, 88])]),
        ];
        let (kind, attributes) = requests[round as usize % 3];
        assert_eq!(client.code(kind, attributes), 0, "round {round}");
    }
    let again: Message = client.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]);
    assert_eq!(again.error_code(), Some(437), "a second allocation on one five-tuple");
    if skip_on_coturn("counters") {
        return;
    }
    let alive = ["hallpass_allocations", "hallpass_permissions", "hallpass_channels"];
    assert_eq!(alive.map(|name| metric(&server, name, "")), [1, 1, 1]);
}
