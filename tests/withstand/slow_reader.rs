//! A client that stops reading while its peers continue to send.

use crate::call::Call;
use crate::machine::memory;
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::Session;
use socket2::SockRef;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CHANNEL: u16 = 0x4000;
const PACKETS_PER_SECOND: u32 = 20_000;
const PAYLOAD: usize = 200;
const TIME: Duration = Duration::from_secs(4);

/// Sends numbered packets to `to` until `stop`; returns how many.
fn flood(peer: &UdpSocket, to: SocketAddr, stop: &AtomicBool) -> u32 {
    let (start, mut sent) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(PACKETS_PER_SECOND)) as u32;
        while sent < due {
            let mut payload = [0; PAYLOAD];
            payload.fill(sent as u8);
            payload[..4].copy_from_slice(&sent.to_be_bytes());
            let _ = peer.send_to(&payload, to);
            sent += 1;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    sent
}

/// Row 16.
#[test]
fn a_client_that_stops_reading_costs_bounded_memory_and_keeps_its_framing() {
    let _turn = alone();
    // Without rate limits, so that the whole flood reaches the client's queue.
    let server = Server::start(&Plan {
        limits: "kbit_per_allocation = 0\npackets_per_allocation = 0".to_owned(),
        ..Plan::loopback()
    });
    let calls: Vec<Call> = (0..3).map(|_| Call::start(&server, 100)).collect();
    let mut slow = Client::join(
        Link::open(Transport::Tls, server.v4(Transport::Tls)),
        &Session::new(server.credentials("slow"), b""),
    );
    let Link::Tls(stream) = &slow.link else { unreachable!() };
    SockRef::from(&stream.sock).set_recv_buffer_size(64 << 10).unwrap();
    let relayed = slow.allocate().expect("an allocation");
    let peer = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
    assert_eq!(slow.bind(CHANNEL, peer.local_addr().unwrap()), 0);
    let before = memory(server.pid());
    let stop = AtomicBool::new(false);
    let (sent, grown, seconds) = thread::scope(|scope| {
        let start = Instant::now();
        let flooder = scope.spawn(|| flood(&peer, relayed, &stop));
        calls[0].lasts(TIME);
        let grown = memory(server.pid()).saturating_sub(before);
        stop.store(true, Ordering::Relaxed);
        (flooder.join().unwrap(), grown, start.elapsed().as_secs_f64())
    });
    let reports: Vec<_> = calls.into_iter().map(Call::end).collect();
    // Once the client reads again, queued messages arrive whole and in order, and requests are answered as before.
    slow.link.wait_at_most(Duration::from_secs(1));
    let (mut last, mut got) = (None, 0_u32);
    while let Ok(bytes) = slow.receive() {
        let number = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        let whole = bytes[..2] == CHANNEL.to_be_bytes()
            && bytes.len() == 4 + PAYLOAD
            && bytes[8..].iter().all(|&byte| byte == number as u8);
        assert!(whole, "not a message of ours: {bytes:02x?}");
        assert!(last < Some(number), "{number} after {last:?}");
        (last, got) = (Some(number), got + 1);
    }
    slow.link.wait_at_most(crate::support::client::PATIENCE);
    println!(
        "row 16: {:.0} packets/s to a client that does not read: +{grown} KiB; {got} of {sent} were left, the last \
         is {last:?}",
        f64::from(sent) / seconds
    );
    for report in &reports {
        println!("row 16: a bystander: {report}");
    }
    assert_eq!(slow.refresh(600), 0);
    peer.send_to(&[7; 100], relayed).unwrap();
    assert_eq!(slow.receive().expect("new data").len(), 104);
    assert!(grown <= 32 * 1024, "{grown} KiB");
    for report in &reports {
        // Not the 99th percentile: one stall of the machine delays more than one percent of the packets.
        assert!(report.loss() <= 0.01 && report.quantile(0.95) <= Duration::from_millis(50), "{report}");
    }
    assert!(got > 0 && got < sent, "{got} of {sent}");
    // The oldest media is dropped first, so what is left after the kernel's buffers is recent.
    assert!(last > Some(sent - sent / 10), "the last is {last:?} of {sent}");
}
