//! Ten thousand allocations at once, fifty thousand in all: none fails, and nothing is left over.

use crate::support::alone;
use crate::support::plan::{Plan, Transport};
use crate::support::proc::{lasting_descriptors, memory};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, LIFETIME, Message, NONCE, REFRESH, REQUESTED_TRANSPORT, Session, allocate_request,
};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Allocations at once.
const TOGETHER: usize = 10_000;
/// How often all of them come and go.
const ROUNDS: usize = 5;
/// Limits of what stays after all have ended: descriptors, and memory in KiB.
const DESCRIPTORS_KEPT: usize = 8;
const MEMORY_KEPT: u64 = 12 * 1024;

fn ask(socket: &UdpSocket, request: &[u8]) -> Message {
    socket.send(request).unwrap();
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).expect("an answer");
    Message::parse(&answer[..len])
}

/// Returns a socket with an allocation, and the session to end it.
fn allocate(server: SocketAddr, first: &Session) -> (UdpSocket, Session) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(server).unwrap();
    let refused = ask(&socket, &allocate_request(1));
    let session = first.renewed(refused.attribute(NONCE).expect("a nonce"));
    let request = session.signed(ALLOCATE, 2, &[(REQUESTED_TRANSPORT, &[17, 0, 0, 0])]);
    let answer = ask(&socket, &request);
    assert_eq!(answer.error_code(), None, "{answer:?}");
    (socket, session)
}

/// Returns the open descriptors, and the resident memory in KiB.
fn held(pid: u32) -> (usize, u64) {
    (lasting_descriptors(pid), memory(pid))
}

#[test]
fn fifty_thousand_allocations_come_and_go() {
    let _turn = alone();
    if skip_on_coturn("the memory of 50,000 allocations") {
        return;
    }
    let limit = hallpass::system::limits::raise_open_files().after;
    assert!(limit > TOGETHER as u64 + 500, "{limit} descriptors are too few: raise `ulimit -Hn`");
    let server = Server::start(&Plan {
        relay_ports: (16_384, 32_767),
        limits: "unauthenticated_per_source = 0\nrequests_per_user = 0\nallocations_per_user = 0".to_owned(),
        ..Plan::loopback()
    });
    let address = server.v4(Transport::Udp);
    let first = Session::new(server.credentials("churn"), b"");
    let (descriptors, memory) = held(server.pid());
    for round in 0..ROUNDS {
        let clients: Vec<(UdpSocket, Session)> = (0..TOGETHER).map(|_| allocate(address, &first)).collect();
        let (most_descriptors, most_memory) = held(server.pid());
        assert!(most_descriptors >= descriptors + TOGETHER);
        for (socket, session) in &clients {
            let answer = ask(socket, &session.signed(REFRESH, 3, &[(LIFETIME, &[0; 4])]));
            assert_eq!(answer.error_code(), None, "{answer:?}");
        }
        let (left, resident) = held(server.pid());
        println!(
            "round {round}: {memory} KiB at first, {most_memory} with {TOGETHER} allocations \
             ({:.2} KiB each), {resident} after; {descriptors}, {most_descriptors}, {left} descriptors",
            (most_memory - memory) as f64 / TOGETHER as f64
        );
        assert!(left <= descriptors + DESCRIPTORS_KEPT, "{left} descriptors after {descriptors}");
        assert!(resident <= memory + MEMORY_KEPT, "{resident} KiB after {memory}");
    }
}
