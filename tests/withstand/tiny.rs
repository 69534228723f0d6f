//! One user sends as many tiny messages as possible: over connections, and from a peer to relayed addresses. Calls on the
//! same worker continue.

use crate::call::{Call, Report};
use crate::machine::cpu;
use crate::steady::undisturbed;
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::Session;
use hallpass::net::syscall::{Datagram, SendBatch};
use socket2::SockRef;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const FLOOD_TIME: Duration = Duration::from_secs(4);
const CALL_RATE: u32 = 50;
const CHANNEL: u16 = 0x4000;
/// Highest acceptable latency of a bystander's call, 99th percentile.
const P99: Duration = Duration::from_millis(20);
/// Connections of the user.
const CONNECTIONS: usize = 25;
/// Bits per second that they send.
const LINE: f64 = 11e6;
/// Relayed addresses of the user.
const RELAYS: usize = 200;
/// Datagrams that the user's peer sends in one message, which the kernel segments.
const TRAIN: usize = 60;
const TRAINS_PER_SECOND: f64 = 5_000.0;

/// Starts a server with one worker and no traffic limits, so that only the shares of its time protect the calls.
pub fn server() -> Server {
    let limits = "workers = 1\npackets_per_allocation = 0\npackets_per_user = 0\nrequests_per_user = 0";
    Server::start(&Plan { limits: limits.into(), ..Plan::loopback() })
}

/// Runs calls over UDP and TLS beside `attack`, which returns how many messages it sent.
pub fn beside(what: &str, server: &Server, mut attack: impl FnMut(&AtomicBool) -> u64 + Send) {
    beside_calls(what, server, |stop, _| attack(stop));
}

/// Does the same; the attack knows the relayed addresses of the calls.
pub fn beside_calls(
    what: &str,
    server: &Server,
    mut attack: impl FnMut(&AtomicBool, [SocketAddr; 2]) -> u64 + Send,
) {
    let mut round = || {
        let calls = [Transport::Udp, Transport::Tls].map(|kind| Call::over(server, kind, CALL_RATE));
        let relayed = [calls[0].relayed, calls[1].relayed];
        let (stop, before, start) = (AtomicBool::new(false), cpu(server.pid()), Instant::now());
        let sent = thread::scope(|scope| {
            let attacker = scope.spawn(|| attack(&stop, relayed));
            calls[0].lasts(FLOOD_TIME);
            stop.store(true, Ordering::Relaxed);
            attacker.join().unwrap()
        });
        let seconds = start.elapsed().as_secs_f64();
        let (rate, core) = (sent as f64 / seconds, 100.0 * (cpu(server.pid()) - before) / seconds);
        let reports = calls.map(Call::end);
        let [udp, tls] = &reports;
        println!(
            "{what}: {rate:.0} messages a second, {core:.0} % of a core; call by UDP {udp}; by TLS {tls}"
        );
        reports
    };
    let is_undisturbed =
        |reports: [Report; 2]| reports.iter().all(|call| call.lost() == 0 && call.quantile(0.99) <= P99);
    undisturbed(what, || is_undisturbed(round()));
}

/// Returns clients of one user with an allocation and a channel to `peer` each.
pub fn clients(
    server: &Server,
    transport: Transport,
    count: usize,
    peer: SocketAddr,
) -> Vec<(Client, SocketAddr)> {
    let session = Session::new(server.credentials("pupil"), b"");
    let client = |_| {
        let mut client = Client::join(Link::open(transport, server.v4(transport)), &session);
        let relayed = client.allocate().expect("an allocation");
        assert_eq!(client.bind(CHANNEL, peer), 0, "a channel");
        (client, relayed)
    };
    (0..count).map(client).collect()
}

/// Returns a peer of the user that never reads, with a small receive buffer.
pub fn sink() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    SockRef::from(&socket).set_recv_buffer_size(2048).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Waits until the next one after `sent` is due at `rate` per second.
fn pace(start: Instant, sent: f64, rate: f64) {
    let due = start + Duration::from_secs_f64(sent / rate);
    thread::park_timeout(due.saturating_duration_since(Instant::now()));
}

fn flood_streams(transport: Transport) {
    let _turn = alone();
    let server = server();
    let (_sink, address) = sink();
    let mut clients = clients(&server, transport, CONNECTIONS, address);
    let empty = [0x40, 0, 0, 0].repeat(16 << 10);
    let what = format!("empty ChannelData on {CONNECTIONS} connections by {transport:?}");
    beside(&what, &server, |stop| {
        let (start, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            for (client, _) in &mut clients {
                client.link.send(&empty).expect("the connection stays open");
                sent += empty.len();
                pace(start, sent as f64 * 8.0, LINE);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        sent as u64 / 4
    });
}

#[test]
fn tiny_messages_on_tls_connections_of_one_user_disturb_no_call() {
    flood_streams(Transport::Tls);
}

#[test]
fn tiny_messages_on_tcp_connections_of_one_user_disturb_no_call() {
    flood_streams(Transport::Tcp);
}

#[test]
fn trains_to_many_relayed_addresses_of_one_user_disturb_no_call() {
    let _turn = alone();
    let server = server();
    let (peer, address) = sink();
    let clients = clients(&server, Transport::Udp, RELAYS, address);
    for (client, _) in &clients {
        let Link::Udp(socket) = &client.link else { panic!("over UDP") };
        SockRef::from(socket).set_recv_buffer_size(2048).unwrap();
    }
    let what = format!("trains of {TRAIN} datagrams to {RELAYS} relayed addresses");
    beside(&what, &server, |stop| {
        let (mut batch, start, mut trains) = (SendBatch::new(true), Instant::now(), 0_u32);
        while !stop.load(Ordering::Relaxed) {
            for &(_, to) in &clients {
                let mut train =
                    (0..TRAIN).map(|_| Datagram { head: &[], payload: &[7; 4], to, source: None });
                // A full buffer counts as a lost datagram.
                batch.send(peer.as_fd(), false, &mut train, &mut |_| {});
                trains += 1;
            }
            pace(start, f64::from(trains), TRAINS_PER_SECOND);
        }
        u64::from(trains) * TRAIN as u64
    });
}
