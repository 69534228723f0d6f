//! HTTP/3 and TURN on one UDP port: a flood of forged connections must not lock honest clients out.

use crate::bursts::every;
use crate::bursts_udp::{EVERY, send_all};
use crate::machine::{descriptors, drops, lasting_descriptors, many_descriptors, metric, until};
use crate::support::client::{Client, Link, channel_data, udp_from};
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{Session, binding_request};
use crate::support::{alone, beside_others, tls};
use crate::tiny::beside;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Forged datagrams before the first newcomer: more than the maximum number of flows.
const FLOOD_MIN: usize = 6000;
/// Forged datagrams in one batch.
const AT_ONCE: usize = 64;
const NEWCOMERS: usize = 20;
/// Flows of one worker that have not proved their address, and a few descriptors for the server itself.
const DESCRIPTORS_MAX: usize = 1024 + 50;
/// Time until a client gives up an attempt to connect.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts of a client.
const TRIES: usize = 10;

/// Answers like a QUIC server: with its own connection id to the start of a connection, and with a packet to each
/// packet for that id (RFC 8999 section 5).
struct BackEnd {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BackEnd {
    fn start() -> BackEnd {
        let socket = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let serve = move || {
            let mut datagram = [0; 2000];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut datagram) else { continue };
                let answer = match datagram[..len] {
                    [first, ..] if first & 0x80 != 0 => long(&id(from)),
                    ref short if short.len() > 9 && short[1..9] == id(from) => short.to_vec(),
                    _ => continue,
                };
                let _ = socket.send_to(&answer, from);
            }
        };
        BackEnd { address, stop, thread: Some(thread::spawn(serve)) }
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let waker = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        let _ = waker.send_to(&[], self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Returns the connection id that the back end chooses for this source.
fn id(from: SocketAddr) -> [u8; 8] {
    u64::from(from.port()).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}

/// Builds a long header of version 1 with this source id and an empty body.
fn long(source: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, 0, source.len() as u8];
    packet.extend(source);
    packet.resize(1200, 0);
    packet
}

/// A client of the web server.
struct Browser {
    socket: UdpSocket,
    id: Vec<u8>,
}

impl Browser {
    /// Starts a connection and sends over it; `None` if this attempt fails.
    fn try_connect(server: SocketAddr) -> Option<Browser> {
        let socket = udp_from(LOCAL_V4, server);
        socket.set_read_timeout(Some(RETRY)).unwrap();
        socket.send(&long(b"")).unwrap();
        let mut answer = [0; 2000];
        socket.recv(&mut answer).ok()?;
        let browser = Browser { socket, id: answer[7..7 + usize::from(answer[6])].to_vec() };
        (0..3).all(|number| browser.exchange(number)).then_some(browser)
    }

    /// Sends one packet and waits for its answer.
    fn exchange(&self, number: u8) -> bool {
        let packet = [&[0x41], &self.id[..], &[number]].concat();
        self.socket.send(&packet).unwrap();
        let mut answer = [0; 2000];
        self.socket.recv(&mut answer).is_ok_and(|len| answer[..len] == packet)
    }
}

/// Starts connections from new addresses until `stop`. Each datagram is sent twice, the second time after the
/// server's answer, which a forger cannot see. Waits for the server between batches, so that no buffer overflows.
fn flood(server: SocketAddr, sent: &AtomicUsize, stop: &AtomicBool) {
    let control = udp_from(LOCAL_V4, server);
    control.set_read_timeout(Some(RETRY)).unwrap();
    let initial = long(b"");
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed) as u32 / AT_ONCE as u32;
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 2, 1).to_bits() + number % 50_000);
        let forged: Vec<UdpSocket> = (0..AT_ONCE).map(|_| udp_from(ip.into(), server)).collect();
        for _ in 0..2 {
            forged.iter().for_each(|socket| drop(socket.send(&initial)));
            let answers = || {
                control.send(&binding_request(1)).unwrap();
                control.recv(&mut [0; 1500]).is_ok()
            };
            // A full buffer of the server loses a request, as any network may.
            assert!((0..TRIES).any(|_| answers()), "the server answers during the flood");
        }
        sent.fetch_add(AT_ONCE, Ordering::Relaxed);
    }
}

/// Ends the flood.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn plan(back_end: SocketAddr) -> Plan {
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.udp = format!("quic = \"{back_end}\"");
    plan.limits = "workers = 1\n".to_owned();
    plan
}

/// Rows 6 and 32.
#[test]
fn forged_connections_do_not_lock_clients_out_of_http3() {
    let _turn = alone();
    if skip_on_coturn("HTTP/3 beside TURN") {
        return;
    }
    many_descriptors(2000);
    let back_end = BackEnd::start();
    let server = Server::start(&plan(back_end.address));
    let address = server.v4(Transport::Udp);
    let before = lasting_descriptors(server.pid());
    let old = Browser::try_connect(address).expect("a browser before the flood");
    let (sent, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (most, at_once) = thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(address, &sent, &stop));
        // A failure below must end the flood, which the scope waits for.
        let _stop = StopWhenDropped(&stop);
        let held = || descriptors(server.pid()).saturating_sub(before);
        let mut most = 0;
        while sent.load(Ordering::Relaxed) < FLOOD_MIN {
            most = most.max(held());
            assert!(!flooding.is_finished(), "the flood ended early");
        }
        let mut at_once = 0;
        let served = (0..NEWCOMERS).all(|_| {
            let tries = (1..=TRIES).find(|_| Browser::try_connect(address).is_some());
            at_once += usize::from(tries == Some(1));
            most = most.max(held());
            old.exchange(4) && tries.is_some()
        });
        stop.store(true, Ordering::Relaxed);
        assert!(
            served,
            "locked out among {} forged datagrams, {most} descriptors",
            sent.load(Ordering::Relaxed)
        );
        (most, at_once)
    });
    println!(
        "rows 6 and 32: {} forged connections, at most {most} descriptors; {at_once} of {NEWCOMERS} newcomers served \
         at the first attempt",
        sent.load(Ordering::Relaxed)
    );
    assert!(most <= DESCRIPTORS_MAX, "{most} descriptors");
    // New flows are rate-limited, so that a flood leaves the worker to calls.
    assert!(at_once >= NEWCOMERS / 4, "only {at_once} of {NEWCOMERS} at the first attempt");
    assert!(old.exchange(5) && Browser::try_connect(address).is_some(), "after the flood");
    let session = Session::new(server.credentials("somebody"), b"");
    let relayed = Client::join(Link::open(Transport::Udp, address), &session).allocate();
    assert!(relayed.is_ok(), "TURN on the same port: {relayed:?}");
}

/// Each datagram of a flow is forwarded by a call of its own, out of the queue in which media waits.
#[test]
fn datagrams_of_a_flow_disturb_no_call() {
    let _turn = alone();
    if skip_on_coturn("HTTP/3 beside TURN") {
        return;
    }
    let back_end = BackEnd::start();
    let server = Server::start(&plan(back_end.address));
    let address = server.v4(Transport::Udp);
    let browser = Browser::try_connect(address).expect("a flow");
    // With another connection id, which the web server ignores.
    let packet = [0x41; 40];
    beside("20,000 datagrams of one QUIC flow at once", &server, |stop| {
        every(EVERY, stop, || send_all(&browser.socket, address, (0..20_000).map(|_| &packet[..])))
    });
    assert!(drops(&server, "backlog") > 10_000);
    assert!(browser.exchange(6), "the flow goes on");
}

/// Rows 19 and 32: forged connections hold all descriptors of the web until visitors connect over TLS.
#[test]
fn forged_connections_leave_descriptors_to_visitors() {
    let _turn = alone();
    if skip_on_coturn("a port shared with the web") {
        return;
    }
    // Never accepted by the test: the kernel completes the connections in the backlog.
    let web = TcpListener::bind((LOCAL_V4, 0)).expect("a web server");
    let back_end = BackEnd::start();
    let server = Server::start(&Plan {
        wrapper: ["prlimit", "--nofile=256:256", "--"].map(str::to_owned).to_vec(),
        tls: "web = true".to_owned(),
        tables: format!("[web]\nhttp1 = \"{}\"", web.local_addr().unwrap()),
        ..plan(back_end.address)
    });
    let forged: Vec<UdpSocket> =
        (0..2 * AT_ONCE).map(|_| udp_from(LOCAL_V4, server.v4(Transport::Udp))).collect();
    let share = metric(&server, "hallpass_descriptors_max", "") / 2;
    // Only some of them may begin at once.
    let full = until(Duration::from_secs(5), || {
        forged.iter().for_each(|socket| drop(socket.send(&long(b""))));
        metric(&server, "hallpass_descriptors", "") >= share
    });
    let mut visitors = Vec::new();
    for _ in 0..NEWCOMERS {
        let mut visitor =
            tls::connect_as(server.v4(Transport::Tls), tls::client_for("localhost", &["http/1.1"]));
        visitor
            .write_all(b"GET / HTTP/1.1\r\n")
            .and_then(|()| visitor.flush())
            .expect("the connection is open");
        visitors.push(visitor);
    }
    let decided = || metric(&server, "hallpass_shared_port_clients_total", "http1");
    let all = until(Duration::from_secs(10), || decided() == NEWCOMERS as u64);
    let refused = metric(&server, "hallpass_connections_closed_total", "too_many");
    let open = metric(&server, "hallpass_connections", "tls");
    println!(
        "row 19: {share} descriptors of forged connections: {refused} of {NEWCOMERS} visitors refused, {open} open"
    );
    assert!(full.is_some() && all.is_some());
    assert_eq!((refused, open), (0, NEWCOMERS as u64));
}

/// RFC 5766 clients use channels up to 0x7FFF, which look like QUIC packets.
#[test]
fn every_channel_works_on_a_port_shared_with_http3() {
    let _turn = beside_others();
    if skip_on_coturn("HTTP/3 beside TURN") {
        return;
    }
    let (back_end, echo) = (BackEnd::start(), Echo::start(LOCAL_V4));
    let server = Server::start(&plan(back_end.address));
    let address = server.v4(Transport::Udp);
    let session = Session::new(server.credentials("somebody"), b"");
    for number in [0x4000, 0x4FFF, 0x5000, 0x7FFF] {
        let mut client = Client::join(Link::open(Transport::Udp, address), &session);
        client.allocate().expect("a relayed address");
        assert_eq!(client.bind(number, echo.address()), 0, "{number:#06x}");
        client.send_on(number, b"four");
        let answer = client.receive().unwrap_or_else(|error| panic!("channel {number:#06x}: {error}"));
        assert_eq!(answer, channel_data(number, b"four"), "{number:#06x}");
    }
    println!("channels 0x4000, 0x4FFF, 0x5000 and 0x7FFF of a shared port: all work");
}
