//! Calls on one worker continue during floods of 20,000 datagrams per second or 100 Mbit/s, whichever is less. Covers
//! each kind of message that a stranger or a user can send, and prints its cost to the server.

use crate::call::{Call, Report};
use crate::machine::{cpu, drops};
use crate::steady::undisturbed;
use crate::support::alone;
use crate::support::client::{Client, Link, udp_from};
use crate::support::codec::{UDP, hmac_sha1};
use crate::support::credentials::many;
use crate::support::plan::{Plan, REALM, SECRET, Transport};
use crate::support::server::Server;
use crate::support::stun::{
    ALLOCATE, BINDING_REQUEST, CREATE_PERMISSION, FINGERPRINT, LIFETIME, MESSAGE_INTEGRITY, NONCE,
    REALM_ATTRIBUTE, REFRESH, REQUESTED_FAMILY, REQUESTED_TRANSPORT, Session, USERNAME, XOR_PEER_ADDRESS,
    allocate_request, binding_request, message, xor_value, xor_value_in,
};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const FLOOD_TIME: Duration = Duration::from_secs(3);
const DATAGRAMS_PER_SECOND: f64 = 20_000.0;
const BYTES_PER_SECOND: f64 = 100e6 / 8.0;
const CALL_RATE: u32 = 50;
/// Highest acceptable latency of a bystander's call, 99th percentile.
const P99: Duration = Duration::from_millis(20);
const USERHASH: u16 = 0x001E;
/// An expiry in the far future, in Unix seconds.
const FAR: u64 = 2_000_000_000;

pub fn local(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, last).into()
}

/// One worker, so that the attack and the calls share it.
pub fn plan(limits: &str) -> Plan {
    Plan { limits: format!("workers = 1\n{limits}"), ..Plan::loopback() }
}

/// An attacker's messages, sent round-robin from its sockets.
struct Attack<'a> {
    what: &'a str,
    /// Each socket with its own messages, because a nonce is valid for one address and port.
    messages: Vec<(UdpSocket, Vec<Vec<u8>>)>,
}

/// The effect on the bystanders' calls.
struct Bystanders {
    udp: Report,
    tls: Report,
}

impl Bystanders {
    fn are_undisturbed(&self) -> bool {
        [&self.udp, &self.tls].iter().all(|call| call.lost() == 0 && call.quantile(0.99) <= P99)
    }
}

/// Sends for [`FLOOD_TIME`] at the lower of the two rates; returns how many messages it sent.
fn send(attack: &Attack<'_>) -> u64 {
    let len: usize = attack.messages.iter().flat_map(|(_, messages)| messages).map(Vec::len).sum();
    let count: usize = attack.messages.iter().map(|(_, messages)| messages.len()).sum();
    let rate = DATAGRAMS_PER_SECOND.min(BYTES_PER_SECOND / (len as f64 / count as f64));
    let (start, mut sent, mut at) = (Instant::now(), 0_u64, 0_usize);
    while start.elapsed() < FLOOD_TIME {
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            let (socket, messages) = &attack.messages[at % attack.messages.len()];
            let message = &messages[at / attack.messages.len() % messages.len()];
            // A full send buffer counts as a lost datagram.
            let _ = socket.send(message);
            (sent, at) = (sent + 1, at + 1);
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    sent
}

/// Runs calls over UDP and TLS during the attack.
fn assert_undisturbed(server: &Server, attack: &Attack<'_>) {
    undisturbed(attack.what, || flood(server, attack).are_undisturbed());
}

fn flood(server: &Server, attack: &Attack<'_>) -> Bystanders {
    let calls = [Transport::Udp, Transport::Tls].map(|transport| Call::over(server, transport, CALL_RATE));
    let (before, start) = (cpu(server.pid()), Instant::now());
    calls[0].lasts(Duration::from_secs(1));
    let idle = (cpu(server.pid()) - before) / start.elapsed().as_secs_f64();
    let (before, start) = (cpu(server.pid()), Instant::now());
    let sent = send(attack);
    let used = cpu(server.pid()) - before - idle * start.elapsed().as_secs_f64();
    let [udp, tls] = calls.map(Call::end);
    let cost = 1e6 * used.max(0.0) / sent as f64;
    println!("{}: {sent} sent, {cost:.1} us each; call over UDP {udp}; over TLS {tls}", attack.what);
    Bystanders { udp, tls }
}

fn attack_from(what: &str, socket: UdpSocket, messages: Vec<Vec<u8>>) -> Attack<'_> {
    Attack { what, messages: vec![(socket, messages)] }
}

/// Returns a client at `ip` that has its nonce.
pub fn joined(server: &Server, ip: IpAddr, session: &Session) -> Client {
    Client::join(Link::Udp(udp_from(ip, server.v4(Transport::Udp))), session)
}

pub fn socket(client: &Client) -> UdpSocket {
    let Link::Udp(socket) = &client.link else { panic!("not a UDP client") };
    socket.try_clone().unwrap()
}

pub fn signed(kind: u16, id: u64, attributes: &[(u16, &[u8])], key: &[u8]) -> Vec<u8> {
    let mut bytes = message(kind, id, attributes);
    let length = (bytes.len() - 20 + 24) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let mac = hmac_sha1(key, &bytes);
    bytes.extend(MESSAGE_INTEGRITY.to_be_bytes());
    bytes.extend([0, 20]);
    bytes.extend(mac);
    bytes
}

/// Messages that anybody can send, without valid credentials or a valid nonce.
#[test]
fn floods_of_strangers_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let to = server.v4(Transport::Udp);
    let wrong_fingerprint = |len: usize| {
        let filler = vec![0x5A; len];
        vec![message(BINDING_REQUEST, 1, &[(0x8fff, &filler), (FINGERPRINT, &[1, 2, 3, 4])])]
    };
    let many_attributes: Vec<(u16, &[u8])> = (0..500).map(|n| (0x9000 + n, &b""[..])).collect();
    let nonce = [b'n'; 64];
    let forged: [(u16, &[u8]); 4] = [
        (USERNAME, b"2000000000:x"),
        (REALM_ATTRIBUTE, REALM.as_bytes()),
        (NONCE, &nonce),
        (MESSAGE_INTEGRITY, &[7; 20]),
    ];
    let garbage: Vec<u8> = (0..200_u32).map(|byte| (byte * 167 + 13) as u8 | 0x80).collect();
    let kinds = [
        ("Bindings", vec![binding_request(1)]),
        ("Allocates without credentials", vec![allocate_request(1)]),
        ("forged nonces", vec![message(ALLOCATE, 1, &forged)]),
        ("wrong fingerprints over 2 KiB", wrong_fingerprint(1980)),
        ("wrong fingerprints over 60 KiB", wrong_fingerprint(60_000)),
        ("five hundred attributes", vec![message(BINDING_REQUEST, 1, &many_attributes)]),
        ("ChannelData without an allocation", vec![crate::support::client::channel_data(0x4000, &[1; 160])]),
        ("garbage", vec![garbage]),
    ];
    for (number, (what, messages)) in kinds.into_iter().enumerate() {
        assert_undisturbed(&server, &attack_from(what, udp_from(local(number as u8 + 1), to), messages));
    }
}

/// Requests with USERHASH, after the server has seen thousands of names.
#[test]
fn user_hashes_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan("unauthenticated_per_source = 0\nrequests_per_user = 0"));
    let session = Session::new(server.credentials("stranger"), b"");
    let to = server.v4(Transport::Udp);
    for (number, (name, key)) in many(SECRET, REALM, FAR, 4000).into_iter().enumerate() {
        let mut client = Client::join(Link::Udp(udp_from(local(1 + (number / 100) as u8), to)), &session);
        let nonce = client.session.nonce().to_vec();
        let attributes: [(u16, &[u8]); 4] = [
            (LIFETIME, &[0; 4]),
            (USERNAME, name.as_bytes()),
            (REALM_ATTRIBUTE, REALM.as_bytes()),
            (NONCE, &nonce),
        ];
        client.link.send(&signed(REFRESH, 7, &attributes, &key)).unwrap();
        client.receive().expect("error 437: no allocation");
    }
    let client = joined(&server, local(99), &session);
    let hashes = (0..1000_u32).map(|n| {
        let hash = Sha256::digest(n.to_be_bytes());
        let attributes: [(u16, &[u8]); 4] = [
            (REQUESTED_TRANSPORT, &UDP),
            (USERHASH, &hash),
            (REALM_ATTRIBUTE, REALM.as_bytes()),
            (NONCE, client.session.nonce()),
        ];
        signed(ALLOCATE, n.into(), &attributes, b"no key")
    });
    assert_undisturbed(
        &server,
        &attack_from("USERHASH beside 4,000 names", socket(&client), hashes.collect()),
    );
}

/// Wrong passwords, for valid and for expired names, checked against the secrets of 200 hosts.
#[test]
fn bogus_names_against_many_hosts_disturb_no_call() {
    let _turn = alone();
    let hosts = (1..200).map(|n| {
        format!("\n[[host]]\nname = \"host{n}\"\nsecrets = [\"secret {n} of the tests\", \"older {n} of the tests\"]\n")
    });
    let server = Server::start(&Plan { tables: hosts.collect(), ..plan("") });
    let session = Session::new(server.credentials("stranger"), b"");
    let client = joined(&server, local(1), &session);
    let guesses = |expiry: u64| {
        let guess = |n: u64| {
            let name = format!("{}:guess", expiry + n);
            let attributes: [(u16, &[u8]); 4] = [
                (REQUESTED_TRANSPORT, &UDP),
                (USERNAME, name.as_bytes()),
                (REALM_ATTRIBUTE, REALM.as_bytes()),
                (NONCE, client.session.nonce()),
            ];
            signed(ALLOCATE, n, &attributes, b"no key")
        };
        (0..1000).map(guess).collect::<Vec<_>>()
    };
    assert_undisturbed(&server, &attack_from("wrong passwords, 200 hosts", socket(&client), guesses(FAR)));
    assert_undisturbed(&server, &attack_from("expired names, 200 hosts", socket(&client), guesses(1000)));
    assert!(drops(&server, "throttled") > 10_000);
}

/// The multiplier of a hash that the permission table once used.
const OLD_MULTIPLIER: u64 = 0xf135_7aea_2e62_a9c5;

/// Returns peers whose addresses collide in all 64 bits of that hash, with every seed. The upper half of each address
/// cancels the lower half.
fn colliding(count: usize) -> Vec<SocketAddr> {
    let address = |low: u64| {
        let high = 0x2a00_0000_dead_beef_u64.wrapping_sub(low.wrapping_mul(OLD_MULTIPLIER));
        (high >> 61 == 1 && high >> 48 != 0x2001 && high >> 48 != 0x2002)
            .then(|| Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
    };
    let globals = (1..).filter_map(address).filter(|ip| ip.segments()[0] >> 4 != 0x3ff);
    globals.take(count).map(|ip| SocketAddr::new(ip.into(), 9)).collect()
}

/// Builds a CreatePermission for up to fifty IPv6 peers.
fn permission(client: &mut Client, peers: &[SocketAddr]) -> Vec<u8> {
    let id = client.next_id();
    let values: Vec<Vec<u8>> = peers.iter().map(|&peer| xor_value_in(peer, id)).collect();
    let attributes: Vec<(u16, &[u8])> = values.iter().map(|value| (XOR_PEER_ADDRESS, &value[..])).collect();
    client.request(CREATE_PERMISSION, &attributes).1
}

/// Repeats a request until it is answered, because the user's requests are rate-limited.
fn ask_until_answered(client: &mut Client, request: &[u8]) -> Vec<u8> {
    let end = Instant::now() + crate::support::client::PATIENCE;
    client.link.wait_at_most(Duration::from_millis(50));
    loop {
        client.link.send(request).unwrap();
        match client.receive() {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < end, "no answer: {error}"),
        }
    }
}

/// One user refreshes as many permissions as possible, for peers chosen to collide.
#[test]
fn chosen_peers_of_one_user_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan("unauthenticated_per_source = 0"));
    let session = Session::new(server.credentials("pupil"), b"");
    let peers = colliding(1000);
    let mut messages = Vec::new();
    let mut granted = 0;
    for _ in 0..20 {
        let mut client = joined(&server, local(1), &session);
        let attributes: [(u16, &[u8]); 2] = [(REQUESTED_TRANSPORT, &UDP), (REQUESTED_FAMILY, &[2, 0, 0, 0])];
        let allocate = client.request(ALLOCATE, &attributes).1;
        assert_eq!(ask_until_answered(&mut client, &allocate)[..2], [0x01, 0x03], "a success");
        let mut own = Vec::new();
        for chunk in peers.chunks(50) {
            let request = permission(&mut client, chunk);
            granted +=
                usize::from(ask_until_answered(&mut client, &request)[..2] == [0x01, 0x08]) * chunk.len();
            own.push(request);
        }
        messages.push((socket(&client), own));
    }
    assert!(granted >= 10_000, "{granted} permissions");
    let attack = Attack { what: "20,000 chosen peers of one user", messages };
    assert_undisturbed(&server, &attack);
    assert!(drops(&server, "requests_over_rate") > 10_000);
}

/// One user allocates and deallocates as fast as it can.
#[test]
fn one_user_that_allocates_in_a_loop_disturbs_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let session = Session::new(server.credentials("pupil"), b"");
    let messages = (0..32).map(|_| {
        let mut client = joined(&server, local(1), &session);
        let cycle = (0..100).flat_map(|_| {
            let allocate = client.request(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]).1;
            [allocate, client.request(REFRESH, &[(LIFETIME, &[0; 4])]).1]
        });
        let cycle = cycle.collect();
        (socket(&client), cycle)
    });
    assert_undisturbed(
        &server,
        &Attack { what: "allocations in a loop of one user", messages: messages.collect() },
    );
}

/// Requests of one user with as many peers as fit into a message.
#[test]
fn requests_of_one_user_with_many_peers_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let session = Session::new(server.credentials("pupil"), b"");
    let mut client = joined(&server, local(1), &session);
    client.allocate().expect("an allocation");
    let values: Vec<Vec<u8>> =
        (0..140).map(|n| xor_value(SocketAddr::new(Ipv4Addr::new(9, 9, 1, n).into(), 9))).collect();
    let attributes: Vec<(u16, &[u8])> = values.iter().map(|value| (XOR_PEER_ADDRESS, &value[..])).collect();
    let requests = (0..100).map(|_| client.request(CREATE_PERMISSION, &attributes).1).collect();
    assert_undisturbed(&server, &attack_from("140 peers per request, one user", socket(&client), requests));
}

/// Refreshes as clients do: the request is repeated until it is answered. Returns whether it succeeds within two seconds.
fn refreshes(client: &mut Client) -> bool {
    let (id, request) = client.request(REFRESH, &[(LIFETIME, &600_u32.to_be_bytes())]);
    client.link.wait_at_most(Duration::from_millis(100));
    for _ in 0..20 {
        client.link.send(&request).unwrap();
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_millis(100) {
            // Answers to forged requests arrive here, too.
            match client.receive() {
                Ok(answer) if answer[12..20] == id.to_be_bytes() => return answer[..2] == [0x01, 0x04],
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    false
}

/// Requests that another host forges with the source address and port of a running call. The test sends them from the
/// call's own socket; the server cannot tell the difference.
#[test]
fn forged_requests_of_a_running_call_end_nothing() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let credentials = server.credentials("victim");
    let name = credentials.username.clone();
    let session = Session::new(credentials, b"");
    for (number, (what, kind)) in
        [("without proof", 0), ("made-up nonces", 1), ("overheard nonces", 2), ("Bindings", 3)]
            .into_iter()
            .enumerate()
    {
        let mut victim = joined(&server, local(number as u8 + 1), &session);
        victim.allocate().expect("an allocation");
        let nonce = if kind == 2 { victim.session.nonce().to_vec() } else { vec![b'n'; 35] };
        let attributes: [(u16, &[u8]); 4] = [
            (LIFETIME, &[0; 4]),
            (USERNAME, name.as_bytes()),
            (REALM_ATTRIBUTE, REALM.as_bytes()),
            (NONCE, &nonce),
        ];
        let forged = match kind {
            0 => message(REFRESH, 0, &[]),
            3 => binding_request(0),
            _ => signed(REFRESH, 0, &attributes, b"no key"),
        };
        let attack = attack_from(what, socket(&victim), vec![forged]);
        let is_over = AtomicBool::new(false);
        let answered = thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let mut answered = 0;
                while !is_over.load(Relaxed) {
                    assert!(refreshes(&mut victim), "{what}");
                    answered += 1;
                    thread::park_timeout(Duration::from_millis(50));
                }
                answered
            });
            assert_undisturbed(&server, &attack);
            is_over.store(true, Relaxed);
            calling.join().unwrap()
        });
        println!("{what}: {answered} of {answered} Refreshes of the call answered");
        assert!(answered > 20, "{what}: {answered} Refreshes");
    }
    assert!(drops(&server, "throttled") > 10_000);
    assert_eq!(drops(&server, "requests_over_rate"), 0);
}
