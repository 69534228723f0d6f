//! Many connections that need the worker at the same moment, all within the limits of a user or a source. Calls on the
//! same worker continue.

use crate::machine::{drops, many_descriptors};
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::plan::Transport;
use crate::support::stun::{self, Session};
use crate::tiny::{beside, beside_calls, clients, server, sink};
use socket2::SockRef;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Allocations of one user, as many as the default allows.
const CONNECTIONS: usize = 500;
/// Messages on each of them at once: one less than what ends a stream's share, so a worker handles all of them together.
const MESSAGES: usize = 127;
/// Connections of strangers, of which one source may have 8,000.
const STRANGERS: usize = 7_500;
/// Connections of one stranger that send Bindings, and how many of them each sends at once: 1,400 bytes.
const BINDING_STRANGERS: usize = 2_500;
const BINDINGS: u64 = 70;
/// Slow clients in each burst.
const READERS: usize = 256;
const BURSTS: usize = 4;

/// Calls `burst` once in each interval until `stop` is set, and returns the sum.
pub fn every(interval: Duration, stop: &AtomicBool, mut burst: impl FnMut() -> u64) -> u64 {
    let (start, mut sent, mut bursts) = (Instant::now(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        sent += burst();
        bursts += 1;
        while !stop.load(Ordering::Relaxed) && start.elapsed() < interval * bursts {
            thread::park_timeout(Duration::from_millis(5));
        }
    }
    sent
}

fn bursts_of_a_user(transport: Transport) {
    let _turn = alone();
    many_descriptors(CONNECTIONS as u64 + 1_000);
    let server = server();
    let (_sink, address) = sink();
    let mut clients = clients(&server, transport, CONNECTIONS, address);
    let empty = [0x40, 0, 0, 0].repeat(MESSAGES);
    let what = format!("{MESSAGES} empty ChannelData at once on {CONNECTIONS} connections by {transport:?}");
    beside(&what, &server, |stop| {
        every(Duration::from_secs(1), stop, || {
            for (client, _) in &mut clients {
                client.link.send(&empty).expect("the connection stays open");
            }
            (CONNECTIONS * MESSAGES) as u64
        })
    });
}

#[test]
fn bursts_on_tls_connections_of_one_user_disturb_no_call() {
    bursts_of_a_user(Transport::Tls);
}

#[test]
fn bursts_on_tcp_connections_of_one_user_disturb_no_call() {
    bursts_of_a_user(Transport::Tcp);
}

/// Sends so many datagrams a second to the addresses in turn, from one that no call permits. Returns how many.
fn flood(relayed: &[SocketAddr], per_second: f64, stop: &AtomicBool) -> u64 {
    let stranger = UdpSocket::bind("127.9.9.9:0").expect("loopback");
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * per_second) as u64;
        while sent < due {
            // A full buffer loses a datagram.
            let _ = stranger.send_to(&[7; 20], relayed[sent as usize % relayed.len()]);
            sent += 1;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    sent
}

/// Anybody may send to the relayed address of a call, and nothing arrives. Meanwhile a user has bursts.
#[test]
fn a_flood_at_relayed_addresses_beside_bursts_of_a_user_disturbs_no_call() {
    let _turn = alone();
    many_descriptors(CONNECTIONS as u64 + 1_000);
    let server = server();
    let (_sink, address) = sink();
    let mut clients = clients(&server, Transport::Tcp, CONNECTIONS, address);
    let empty = [0x40, 0, 0, 0].repeat(MESSAGES);
    beside_calls("20,000 datagrams a second without permission at two calls", &server, |stop, relayed| {
        thread::scope(|scope| {
            scope.spawn(|| {
                every(Duration::from_millis(500), stop, || {
                    for (client, _) in &mut clients {
                        client.link.send(&empty).expect("the connection stays open");
                    }
                    0
                })
            });
            flood(&relayed[..2], 20_000.0, stop)
        })
    });
    assert!(drops(&server, "no_permission") > 10_000);
}

/// One stranger sends to the relayed address of one call, and bursts of Bindings on many connections.
#[test]
fn a_flood_at_one_relayed_address_beside_bursts_of_strangers_disturbs_no_call() {
    let _turn = alone();
    many_descriptors(BINDING_STRANGERS as u64 + 1_000);
    let server = server();
    let connect = |_| Link::open(Transport::Tcp, server.v4(Transport::Tcp));
    let mut links: Vec<Link> = (0..BINDING_STRANGERS).map(connect).collect();
    let bindings: Vec<u8> = (0..BINDINGS).flat_map(stun::binding_request).collect();
    beside_calls("16,000 datagrams a second without permission at one call", &server, |stop, relayed| {
        thread::scope(|scope| {
            scope.spawn(|| {
                every(Duration::from_millis(500), stop, || {
                    for link in &mut links {
                        // An error means that the server has closed the connection, as it may.
                        let _ = link.send(&bindings);
                    }
                    0
                })
            });
            flood(&relayed[..1], 16_000.0, stop)
        })
    });
    assert!(drops(&server, "no_permission") > 10_000);
    println!("lost in receive buffers: {}", drops(&server, "receive_full"));
}

#[test]
fn bursts_on_thousands_of_connections_of_strangers_disturb_no_call() {
    let _turn = alone();
    many_descriptors(STRANGERS as u64 + 1_000);
    let server = server();
    let mut links: Vec<Link> = Vec::with_capacity(STRANGERS);
    for _ in 0..STRANGERS {
        let mut link = Link::open(Transport::Tcp, server.v4(Transport::Tcp));
        link.send(&stun::binding_request(1)).expect("a new connection");
        links.push(link);
    }
    let what = format!("ChannelData at once on {STRANGERS} connections of strangers");
    beside(&what, &server, |stop| {
        every(Duration::from_millis(500), stop, || {
            // An error means that the server has closed the connection, as it may.
            let sent = links.iter_mut().map(|link| u64::from(link.send(&[0x40, 0, 0, 0]).is_ok()));
            sent.sum()
        })
    });
}

/// A client that reads nothing until its connection is full, and then everything at once.
struct Reader {
    client: Client,
    relayed: SocketAddr,
}

impl Reader {
    fn socket(&self) -> &TcpStream {
        let Link::Tls(stream) = &self.client.link else { panic!("over TLS") };
        &stream.sock
    }

    /// Opens the TCP window, so that the server can write everything it has queued.
    fn open_window(&self, buffer: &mut [u8]) {
        SockRef::from(self.socket()).set_recv_buffer_size(1 << 20).unwrap();
        assert!(self.socket().read(buffer).is_ok_and(|len| len > 0), "the server had nothing queued");
    }

    /// Reads everything that has arrived.
    fn drain(&self, buffer: &mut [u8]) {
        self.socket().set_nonblocking(true).unwrap();
        loop {
            match self.socket().read(buffer) {
                Ok(len) if len > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                other => panic!("the connection stays open: {other:?}"),
            }
        }
    }
}

#[test]
fn slow_tls_clients_that_read_at_the_same_moment_disturb_no_call() {
    let _turn = alone();
    many_descriptors((READERS * BURSTS) as u64 + 1_000);
    let server = server();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    let session = |burst: usize| Session::new(server.credentials(&format!("pupil{burst}")), b"");
    let join = |session: &Session| {
        let mut client = Client::join(Link::open(Transport::Tls, server.v4(Transport::Tls)), session);
        let relayed = client.allocate().expect("an allocation");
        assert_eq!(client.bind(0x4000, address), 0, "a channel");
        let reader = Reader { client, relayed };
        SockRef::from(reader.socket()).set_recv_buffer_size(2048).unwrap();
        reader
    };
    let prepare = |first: usize| -> Vec<Vec<Reader>> {
        (first..first + BURSTS).map(|burst| (0..READERS).map(|_| join(&session(burst))).collect()).collect()
    };
    let mut first = 0;
    let mut bursts = prepare(first);
    beside("256 messages at once for each of 256 clients over TLS", &server, |stop| {
        if bursts.is_empty() {
            first += BURSTS;
            bursts = prepare(first);
        }
        let mut buffer = vec![0; 64 << 10];
        let sent = every(Duration::from_secs(1), stop, || {
            let Some(readers) = bursts.pop() else { return 0 };
            // Large messages fill the connection, small ones then fill the queue.
            for (count, size) in [(60, 1000), (256, 1)] {
                for _ in 0..count {
                    for reader in &readers {
                        peer.send_to(&[7; 1000][..size], reader.relayed).unwrap();
                    }
                    thread::park_timeout(Duration::from_micros(500));
                }
            }
            readers.iter().for_each(|reader| reader.open_window(&mut buffer));
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(200) {
                readers.iter().for_each(|reader| reader.drain(&mut buffer));
                thread::park_timeout(Duration::from_millis(1));
            }
            (readers.len() * 316) as u64
        });
        bursts.clear();
        sent
    });
}
