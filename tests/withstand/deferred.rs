//! A stranger that shares its address with a school and uses up the time for searching secrets, on a relay with many secrets.

use crate::floods::signed;
use crate::machine::{cpu, drops, in_own_network, until};
use crate::support::alone;
use crate::support::client::{Client, Link, PATIENCE, tcp_from, udp_from};
use crate::support::codec::UDP;
use crate::support::credentials::{Credentials, many};
use crate::support::plan::{LOCAL_V4, Plan, REALM, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, Message, NONCE, REALM_ATTRIBUTE, REQUESTED_TRANSPORT, Session, USERNAME,
};
use crate::support::tool::run_ok;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const HOSTS: usize = 50;
const CONNECTIONS: usize = 24;
/// After so much time without an answer the stranger tries again.
const AGAIN: Duration = Duration::from_millis(6);
/// Tries on a connection, below the number that closes it.
const TRIES: usize = 90;
/// How long a client waits for each of its tries (RFC 8489 section 6.2.1).
const WAITS: [u64; 5] = [500, 1000, 2000, 4000, 8000];
const NEWCOMERS: usize = 10;
/// An expiry in the far future, in Unix seconds.
const FAR: u64 = 2_000_000_000;
const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

fn allocate(name: &str, key: &[u8], nonce: &[u8]) -> Vec<u8> {
    let attributes: [(u16, &[u8]); 4] = [
        (REQUESTED_TRANSPORT, &UDP),
        (USERNAME, name.as_bytes()),
        (REALM_ATTRIBUTE, REALM.as_bytes()),
        (NONCE, nonce),
    ];
    signed(ALLOCATE, 2, &attributes, key)
}

/// Returns a secret of a host.
fn secret(number: usize, host: usize) -> String {
    format!("secret {number} of host {host} of the tests")
}

/// Opens connections with a made-up name each, repeats its request until it is refused, and opens the next.
fn repeat(server: SocketAddr, session: &Session, number: usize, stop: &AtomicBool, tries: &AtomicU64) {
    for round in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        let link = Link::open(Transport::Tcp, server);
        link.wait_at_most(Duration::from_millis(300));
        let Ok(mut client) = Client::try_join(link, session) else { continue };
        let name = format!("{}:guess{number}", FAR + round);
        let request = allocate(&name, b"no key", client.session.nonce());
        client.link.wait_at_most(AGAIN);
        for _ in 0..TRIES {
            if client.link.send(&request).is_err() {
                break;
            }
            tries.fetch_add(1, Relaxed);
            if client.receive().is_ok() {
                break;
            }
        }
        client.link.reset();
    }
}

/// Allocates with a name that the server does not know, as patiently as clients are. Returns how long it took.
fn join(open: impl Fn() -> Link, session: &Session, name: &str, key: &[u8]) -> Option<Duration> {
    let start = Instant::now();
    let mut client = WAITS.iter().find_map(|&wait| {
        let link = open();
        link.wait_at_most(Duration::from_millis(wait));
        Client::try_join(link, session).ok()
    })?;
    let request = allocate(name, key, client.session.nonce());
    WAITS.iter().find_map(|&wait| {
        client.link.wait_at_most(Duration::from_millis(wait));
        client.link.send(&request).ok()?;
        let answer = Message::parse(&client.receive().ok()?);
        answer.error_code().is_none().then(|| start.elapsed())
    })
}

/// A user name and its key.
type Login = (String, Vec<u8>);

/// Returns names of one host for newcomers over each transport.
fn of_one_host(first: u64) -> Vec<Login> {
    many(SECRET, REALM, first, NEWCOMERS * TRANSPORTS.len())
}

/// Returns names of as many hosts.
fn of_many_hosts(first: u64) -> Vec<Login> {
    let secrets = (0..NEWCOMERS * TRANSPORTS.len()).map(|n| secret(3, HOSTS - 1 - n));
    secrets.flat_map(|secret| many(&secret, REALM, first, 1)).collect()
}

/// Lets newcomers with these names in over each transport. Returns how long those took that got in.
fn newcomers(server: &Server, session: &Session, names: &[Login]) -> [Vec<Duration>; 3] {
    thread::scope(|scope| {
        let each = TRANSPORTS.into_iter().zip(names.chunks(NEWCOMERS));
        let threads: Vec<Vec<_>> = each
            .map(|(transport, names)| {
                let of = names.iter().map(|(name, key)| {
                    thread::park_timeout(Duration::from_millis(50));
                    let open = move || Link::open(transport, server.v4(transport));
                    scope.spawn(move || join(open, session, name, key))
                });
                of.collect()
            })
            .collect();
        let mut waits = threads.into_iter().map(|threads| {
            let mut waits: Vec<Duration> =
                threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect();
            waits.sort();
            waits
        });
        [(); 3].map(|()| waits.next().unwrap_or_default())
    })
}

fn shown(waits: &[Vec<Duration>; 3]) -> String {
    let mut text = String::new();
    for (transport, waits) in TRANSPORTS.iter().zip(waits) {
        let longest = waits.last().copied().unwrap_or_default();
        let _ = write!(text, " {transport:?} {} of {NEWCOMERS} within {longest:.1?};", waits.len());
    }
    text
}

/// Starts a relay with 201 secrets.
fn relay(plan: Plan) -> Server {
    let of_host = |n: usize| {
        let secrets: Vec<String> = (0..4).map(|number| format!("{:?}", secret(number, n))).collect();
        format!("[[host]]\nname = \"host{n}\"\nsecrets = [{}]\n", secrets.join(", "))
    };
    let hosts: String = (0..HOSTS).map(of_host).collect();
    Server::start(&Plan {
        hosts: format!("{hosts}{}", plan.hosts),
        limits: "workers = 1\nconnections_exempt = []".to_owned(),
        ..plan
    })
}

/// The session of a client that only asks for a nonce.
fn nobody() -> Session {
    Session::new(Credentials { username: "1:x".to_owned(), password: "none".to_owned() }, b"")
}

/// Row 8: 201 secrets, and somebody behind a school's address repeats tries that are deferred because nothing is left for a search.
/// The school's newcomers get in over every transport, as its host is known there. Those of hosts that nobody used there may not.
#[test]
fn repeated_tries_keep_no_newcomer_of_a_school_out() {
    let _turn = alone();
    if skip_on_coturn("a budget for searches") {
        return;
    }
    let server = relay(Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let session = &nobody();
    let (stop, tries) = (AtomicBool::new(false), AtomicU64::new(0));
    let (of_one, of_many) = (of_one_host(FAR + 1000), of_many_hosts(FAR + 2000));
    let quiet = newcomers(&server, session, &of_one_host(FAR));
    let (stop, tries, address) = (&stop, &tries, server.v4(Transport::Tcp));
    let (known, unknown, rate, used) = thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            scope.spawn(move || repeat(address, session, number, stop, tries));
        }
        let deferred = until(Duration::from_secs(20), || drops(&server, "search_deferred") > 100);
        let (before, start, tried) = (cpu(server.pid()), Instant::now(), tries.load(Relaxed));
        let known = newcomers(&server, session, &of_one);
        let unknown = newcomers(&server, session, &of_many);
        let seconds = start.elapsed().as_secs_f64();
        let used = 100.0 * (cpu(server.pid()) - before) / seconds;
        let rate = (tries.load(Relaxed) - tried) as f64 / seconds;
        stop.store(true, Relaxed);
        assert!(deferred.is_some(), "the budget for searches is not used up");
        (known, unknown, rate, used)
    });
    println!(
        "row 8: {rate:.0} tries a second on {CONNECTIONS} connections of a school's address, 201 secrets, {used:.0} % of a core; \
         newcomers of its host:{} before:{} of hosts that nobody used there:{}",
        shown(&known),
        shown(&quiet),
        shown(&unknown)
    );
    for waits in &known {
        assert_eq!(waits.len(), NEWCOMERS, "{known:?}");
        assert!(waits.iter().all(|&wait| wait < Duration::from_secs(3)), "{known:?}");
    }
}

/// Connections whose tries compete: each may try again only some times a second.
const MANY_CONNECTIONS: usize = 400;
/// Tries a second on all of them together.
const LONG_TRIES: u32 = 2000;
/// Bytes of the name in a long request.
const LONG_NAME: usize = 700;
/// A comprehension-optional attribute that nobody uses.
const PADDING: u16 = 0xC123;

/// Repeats a long request on each of many connections from these addresses, and reconnects those that are answered.
fn repeat_long(server: SocketAddr, from: &[IpAddr], session: &Session, stop: &AtomicBool, tries: &AtomicU64) {
    let start = Instant::now();
    let mut links: Vec<Option<(TcpStream, Vec<u8>, usize)>> = (0..MANY_CONNECTIONS).map(|_| None).collect();
    for number in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        let at = number as usize % MANY_CONNECTIONS;
        let waits = |(stream, _, tries): &(TcpStream, _, usize)| {
            *tries < TRIES && stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        if !links[at].as_ref().is_some_and(waits) {
            let link = Link::Tcp(tcp_from(from[at % from.len()], server));
            link.wait_at_most(Duration::from_millis(300));
            links[at] = Client::try_join(link, session).ok().map(|client| {
                let name = format!("{}:{}", FAR + u64::from(number), "y".repeat(LONG_NAME));
                let attributes: [(u16, &[u8]); 5] = [
                    (REQUESTED_TRANSPORT, &UDP),
                    (USERNAME, name.as_bytes()),
                    (REALM_ATTRIBUTE, REALM.as_bytes()),
                    (NONCE, client.session.nonce()),
                    (PADDING, &[0; 1100]),
                ];
                let request = signed(ALLOCATE, 2, &attributes, b"no key");
                let Link::Tcp(stream) = client.link else { unreachable!("opened above") };
                stream.set_nonblocking(true).expect("a socket");
                (stream, request, 0)
            });
        }
        if let Some((stream, request, sent)) = &mut links[at] {
            // A connection that takes nothing is replaced at its next turn.
            *sent = if stream.write_all(request).is_ok() { *sent + 1 } else { TRIES };
            tries.fetch_add(1, Relaxed);
        }
        let due = start + Duration::from_secs(1) * number / LONG_TRIES;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
}

/// Runs `body` while tries with long requests use up the time for searches.
fn beside_long<T>(server: &Server, from: &[IpAddr], listener: SocketAddr, body: impl FnOnce() -> T) -> T {
    let (stop, tries, session) = (AtomicBool::new(false), AtomicU64::new(0), nobody());
    let (before, start) = (cpu(server.pid()), Instant::now());
    let result = thread::scope(|scope| {
        let attack = scope.spawn(|| repeat_long(listener, from, &session, &stop, &tries));
        let deferred = until(Duration::from_secs(20), || drops(server, "search_deferred") > 100);
        let result = deferred.map(|_| body());
        stop.store(true, Relaxed);
        attack.join().expect("the attack");
        result.expect("the budget for searches is not used up")
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "row 8: {:.0} tries a second of 1,900 bytes on {MANY_CONNECTIONS} connections from {} addresses, 201 secrets, {:.0} % of a core",
        tries.load(Relaxed) as f64 / seconds,
        from.len(),
        100.0 * (cpu(server.pid()) - before) / seconds
    );
    result
}

/// Row 8: searches for long requests take three times as long, so they have a budget of their own. A class with a secret that nobody
/// used at this address gets in.
#[test]
fn long_requests_keep_no_class_out() {
    let _turn = alone();
    if skip_on_coturn("a budget for searches") {
        return;
    }
    let server = relay(Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let class = many(&secret(2, 7), REALM, FAR, NEWCOMERS * TRANSPORTS.len());
    let waits = beside_long(&server, &[LOCAL_V4], server.v4(Transport::Tcp), || {
        newcomers(&server, &nobody(), &class)
    });
    println!("row 8: a class with one new secret:{}", shown(&waits));
    for waits in &waits {
        assert_eq!(waits.len(), NEWCOMERS, "{waits:?}");
    }
}

/// The relay's address where sources have any address of two providers' networks.
const PUBLIC: &str = "2001:470:9::1";
/// Homes of one provider's /32 that join, each with another secret.
const HOMES: usize = 30;

/// Row 8: two homes of an IPv6 provider guess; the other homes of the provider's /32 get in.
#[test]
fn guesses_in_two_homes_keep_no_other_home_of_their_provider_out() {
    let _turn = alone();
    if skip_on_coturn("a budget for searches") {
        return;
    }
    in_own_network(|| {
        let lines = format!(
            "ip -6 address add {PUBLIC}/128 dev lo nodad; ip -6 route add local 2003::/16 dev lo; \
             sysctl -qw net.ipv6.ip_nonlocal_bind=1"
        );
        run_ok("sh", &["-ec", &lines], PATIENCE);
        let ip: IpAddr = PUBLIC.parse().expect("an address");
        let server = relay(Plan { relay: vec![LOCAL_V4], ..Plan::on(&[ip], &["127.0.0.0/8"]) });
        let [udp, tcp] = [Transport::Udp, Transport::Tcp].map(|transport| server.v6(transport));
        let address = |text: String| text.parse::<IpAddr>().expect("an address");
        let guessers: Vec<IpAddr> = (1..=2)
            .flat_map(|home| (0..2).map(move |net| format!("2003:e5:{home}:{net}::1")))
            .map(address)
            .collect();
        let logins: Vec<Login> =
            (0..HOMES).flat_map(|n| many(&secret(n % 4, 10 + n), REALM, FAR + n as u64, 1)).collect();
        let session = nobody();
        let waits: Vec<Duration> = beside_long(&server, &guessers, tcp, || {
            thread::scope(|scope| {
                let homes: Vec<_> = logins
                    .iter()
                    .enumerate()
                    .map(|(n, (name, key))| {
                        let (from, session) =
                            (address(format!("2003:e5:{:x}:1::1", 0x1000 + 997 * n)), &session);
                        let open = move || match n % 2 {
                            0 => Link::Udp(udp_from(from, udp)),
                            _ => Link::Tcp(tcp_from(from, tcp)),
                        };
                        thread::park_timeout(Duration::from_millis(50));
                        scope.spawn(move || join(open, session, name, key))
                    })
                    .collect();
                homes.into_iter().filter_map(|home| home.join().ok().flatten()).collect()
            })
        });
        let longest = waits.iter().max().copied().unwrap_or_default();
        println!("row 8: {} of {HOMES} other homes of the /32 got in, within {longest:.1?}", waits.len());
        assert_eq!(waits.len(), HOMES, "{waits:?}");
    });
}
