//! A stranger that shares its address with a school and uses up the time for searching secrets, on a relay with many secrets.

use crate::floods::signed;
use crate::machine::{cpu, drops, until};
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::codec::UDP;
use crate::support::credentials::{Credentials, many};
use crate::support::plan::{LOCAL_V4, Plan, REALM, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, Message, NONCE, REALM_ATTRIBUTE, REQUESTED_TRANSPORT, Session, USERNAME,
};
use std::fmt::Write;
use std::net::SocketAddr;
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
fn join(
    server: SocketAddr,
    transport: Transport,
    session: &Session,
    name: &str,
    key: &[u8],
) -> Option<Duration> {
    let start = Instant::now();
    let mut client = WAITS.iter().find_map(|&wait| {
        let link = Link::open(transport, server);
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
                    scope.spawn(move || join(server.v4(transport), transport, session, name, key))
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

/// Row 8: 201 secrets, and somebody behind a school's address repeats tries that are deferred because nothing is left for a search.
/// The school's newcomers get in over every transport, as its host is known there. Those of hosts that nobody used there may not.
#[test]
fn repeated_tries_keep_no_newcomer_of_a_school_out() {
    let _turn = alone();
    if skip_on_coturn("a budget for searches") {
        return;
    }
    let of_host = |n: usize| {
        let secrets: Vec<String> = (0..4).map(|number| format!("{:?}", secret(number, n))).collect();
        format!("[[host]]\nname = \"host{n}\"\nsecrets = [{}]\n", secrets.join(", "))
    };
    let hosts: String = (0..HOSTS).map(of_host).collect();
    let plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    let server = Server::start(&Plan {
        hosts: format!("{hosts}{}", plan.hosts),
        limits: "workers = 1\nconnections_exempt = []".to_owned(),
        ..plan
    });
    let nobody = Credentials { username: "1:x".to_owned(), password: "none".to_owned() };
    let session = &Session::new(nobody, b"");
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
