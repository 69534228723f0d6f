//! A port reserved by EVEN-PORT has no socket: it may belong to another program, and it counts in its user's quota.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::codec::UDP;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{ALLOCATE, REQUESTED_TRANSPORT, Session};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const EVEN_PORT: u16 = 0x0018;
/// EVEN-PORT with R = 1: reserve the next port.
const PAIR: [u8; 1] = [0x80];

fn allocate_pair(client: &mut Client) -> u16 {
    client.code(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP), (EVEN_PORT, &PAIR)])
}

fn client(server: &Server, user: &str) -> Client {
    let session = Session::new(server.credentials(user), b"");
    Client::join(Link::open(Transport::Udp, server.v4(Transport::Udp)), &session)
}

/// Binds an odd port of another program whose even neighbour is free.
fn other_program() -> UdpSocket {
    let bind = |port: u16| UdpSocket::bind(SocketAddr::new(LOCAL_V4, port));
    let mut odd = (20_001..32_000).step_by(2).filter_map(|port| bind(port).ok());
    let program = odd.find(|program| bind(program.local_addr().unwrap().port() - 1).is_ok());
    program.expect("a free pair of ports")
}

#[test]
fn a_reserved_port_of_another_program_is_not_reached() {
    let _turn = beside_others();
    if skip_on_coturn("a policy for ports of its own addresses") {
        return;
    }
    let program = other_program();
    program.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let odd = program.local_addr().unwrap();
    let server =
        Server::start(&Plan { relay_ports: (odd.port() - 1, odd.port()), ..Plan::on(&[LOCAL_V4], &[]) });
    let mut client = client(&server, "neighbour");
    assert_eq!(allocate_pair(&mut client), 0);
    let (permitted, bound) = (client.permit(odd), client.bind(0x4000, odd));
    client.send_on(0x4000, b"over the fence");
    client.send_to(odd, b"over the fence");
    let reached = program.recv(&mut [0; 64]).is_ok();
    println!("reserved port: permission {permitted}, channel {bound}, reached: {reached}");
    assert_eq!((permitted, bound, reached), (0, 403, false), "the address carries relayed addresses");
    // The address carries the client's own relayed address, so a permission is granted.
    assert_eq!(client.permit(SocketAddr::new(LOCAL_V4, odd.port() - 1)), 0);
}

#[test]
fn reservations_count_in_the_quota_of_their_user() {
    let _turn = beside_others();
    if skip_on_coturn("reservations in quotas") {
        return;
    }
    let server = Server::start(&Plan { limits: "allocations_per_user = 5".to_owned(), ..Plan::loopback() });
    let mut granted = 0;
    let codes: Vec<u16> = (0..6)
        .map(|_| {
            let mut client = client(&server, "collector");
            let code = allocate_pair(&mut client);
            granted += usize::from(code == 0);
            // The reservation outlives its allocation.
            if code == 0 {
                assert_eq!(client.refresh(0), 0);
            }
            code
        })
        .collect();
    println!("reservations: {granted} pairs of one user with five places, then {codes:?}");
    assert_eq!(codes, [0, 0, 0, 0, 486, 486], "each takes two places and gives one back");
}
