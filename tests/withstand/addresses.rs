//! Addresses that are added to this machine while the server runs, and back ends: no client may reach them.

use crate::machine::{drops, in_own_network, until};
use crate::support::alone;
use crate::support::client::{Client, Link, PATIENCE};
use crate::support::codec::UDP;
use crate::support::plan::{LOCAL_V4, LOCAL_V6, Plan, Transport, free_port};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, REQUESTED_FAMILY, REQUESTED_TRANSPORT,
    Session, XOR_PEER_ADDRESS, binding_request, xor_value_in,
};
use crate::support::tool::run_ok;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Well below ten seconds, after which the server reads its addresses without a notification of the kernel.
const NOTICED: Duration = Duration::from_secs(5);
const WILDCARDS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const FAMILY_V6: [u8; 4] = [2, 0, 0, 0];

/// Addresses and routes to add, as arguments of ip(8), and an address that each covers. The policy allows all of them; they
/// exist only in the test's own network.
const GIVEN: [(&str, &str, &str); 6] = [
    ("addr", "45.66.77.88/32 dev lo", "45.66.77.88"),
    ("addr", "2a00:1450::7/128 dev lo nodad", "2a00:1450::7"),
    ("route", "local 45.66.78.1 dev lo", "45.66.78.1"),
    ("route", "local 45.67.0.0/16 dev lo", "45.67.8.9"),
    ("-6 route", "local 2a00:1451::7 dev lo", "2a00:1451::7"),
    ("-6 route", "local 2a00:1452::/64 dev lo", "2a00:1452::9"),
];
/// Allowed by the operator, and later assigned to the machine.
const OPENED: &str = "11.0.0.9/32";

fn ip(object: &str, verb: &str, what: &str) {
    let words: Vec<&str> = object.split(' ').chain([verb]).chain(what.split(' ')).collect();
    run_ok("ip", &words, PATIENCE);
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Returns a client with an allocation for the family of `peer`.
fn client(server: &Server, peer: SocketAddr) -> Client {
    let session = Session::new(server.credentials("curious"), b"");
    let listener = SocketAddr::new(LOCAL_V4, server.v4(Transport::Udp).port());
    let mut client = Client::join(Link::open(Transport::Udp, listener), &session);
    let mut attributes: Vec<(u16, &[u8])> = vec![(REQUESTED_TRANSPORT, &UDP)];
    if peer.is_ipv6() {
        attributes.push((REQUESTED_FAMILY, &FAMILY_V6));
    }
    assert_eq!(client.code(ALLOCATE, &attributes), 0);
    client
}

fn value(client: &Client, peer: SocketAddr) -> Vec<u8> {
    xor_value_in(peer, client.next_id())
}

fn permit(client: &mut Client, peer: SocketAddr) -> u16 {
    let peer = value(client, peer);
    client.code(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &peer)])
}

fn bind(client: &mut Client, number: u16, peer: SocketAddr) -> u16 {
    let peer = value(client, peer);
    let [high, low] = number.to_be_bytes();
    client.code(CHANNEL_BIND, &[(CHANNEL_NUMBER, &[high, low, 0, 0]), (XOR_PEER_ADDRESS, &peer)])
}

/// Listeners and relays on all addresses.
fn everywhere() -> Plan {
    let mut plan = Plan::on(&WILDCARDS, &[OPENED]);
    plan.relay = vec![LOCAL_V4, LOCAL_V6];
    plan
}

/// Row 3.
#[test]
fn a_new_address_of_the_machine_is_denied() {
    let _turn = alone();
    if skip_on_coturn("addresses that are added later") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&everywhere());
        for (object, what, covered) in GIVEN {
            let peer = at(covered, server.v4(Transport::Udp).port());
            let mut early = client(&server, peer);
            assert_eq!(permit(&mut early, peer), 0, "{peer} belongs to another machine");
            ip(object, "add", what);
            let closed = until(NOTICED, || permit(&mut early, peer) == 403);
            let mut late = client(&server, peer);
            let codes = (permit(&mut late, peer), bind(&mut late, 0x4000, peer));
            println!("row 3: ip {object} add {what}: 403 after {closed:?}, a new client gets {codes:?}");
            assert!(closed.is_some(), "{peer} stays open after ip {object} add {what}");
            assert_eq!(codes, (403, 403), "{peer}");
            late.link.wait_at_most(Duration::from_millis(300));
            if peer.is_ipv4() {
                late.send_to(peer, &binding_request(77));
                assert!(late.receive().is_err(), "the server's own listener answers at {peer}");
            }
            ip(object, "del", what);
            let open = until(NOTICED, || permit(&mut early, peer) == 0);
            println!("row 3: ip {object} del {what}: open after {open:?}");
            assert!(open.is_some(), "{peer} stays closed after ip {object} del {what}");
        }
        let log = server.log();
        assert!(log.matches("own addresses changed").count() >= 2 * GIVEN.len(), "{log}");
    });
}

/// Row 3, with the address allowed by the operator: all of its ports except those of the server's own services.
#[test]
fn a_listener_is_not_reached_at_an_allowed_address_assigned_later() {
    let _turn = alone();
    if skip_on_coturn("addresses that are added later") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&everywhere());
        let opened = OPENED.trim_end_matches("/32");
        let [listener, admin] = [server.v4(Transport::Udp), server.admin()].map(|own| at(opened, own.port()));
        let mut client = client(&server, listener);
        ip("addr", "add", &format!("{OPENED} dev lo"));
        let known = until(NOTICED, || bind(&mut client, 0x4000, listener) == 403);
        assert!(known.is_some(), "a channel to {listener}");
        assert_eq!(bind(&mut client, 0x4001, admin), 403, "{admin}");
        let neighbour = UdpSocket::bind((opened, 0)).unwrap();
        neighbour.set_read_timeout(Some(PATIENCE)).unwrap();
        let open = neighbour.local_addr().unwrap();
        assert_eq!(permit(&mut client, open), 0);
        client.send_to(listener, &binding_request(77));
        client.send_to(open, b"let me in");
        let mut received = [0; 100];
        let (len, relayed) = neighbour.recv_from(&mut received).expect("the other ports are open");
        assert_eq!(&received[..len], b"let me in");
        neighbour.send_to(b"welcome", relayed).unwrap();
        // The answer of the listener would arrive first.
        let first = client.receive().expect("the neighbour's answer");
        let answered = !first.windows(7).any(|bytes| bytes == b"welcome");
        println!("row 3: {listener} is refused after {known:?}, answered: {answered}");
        assert!(!answered, "{first:02x?}");
        assert_eq!(drops(&server, "peer_denied"), 1);
    });
}

/// Row 3: back ends, on this machine and on another one.
#[test]
fn back_ends_are_not_reached_through_the_relay() {
    let _turn = alone();
    if skip_on_coturn("back ends") {
        return;
    }
    in_own_network(|| {
        let quic = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        let (quic_address, http1, h2) = (quic.local_addr().unwrap(), free_port(), free_port());
        let remote = at("11.0.0.5", 8443);
        let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
        plan.tls = "web = true".to_owned();
        plan.udp = format!("quic = \"{quic_address}\"");
        plan.tables = format!(
            "[web]\nhttp1 = \"127.0.0.1:{http1}\"\nh2 = \"127.0.0.1:{h2}\"\n\
             passthrough = {{ \"other.example\" = \"{remote}\" }}"
        );
        let server = Server::start(&plan);
        let mut client = client(&server, quic_address);
        let back_ends = [quic_address, at("127.0.0.1", http1), at("127.9.9.9", h2), remote];
        let codes = back_ends.map(|back_end| bind(&mut client, 0x4000, back_end));
        println!("row 3: channels to {back_ends:?}: {codes:?}");
        assert_eq!(codes, [403; 4]);
        for back_end in [quic_address, remote] {
            assert_eq!(permit(&mut client, back_end), 0, "the address has other ports");
            client.send_to(back_end, b"let me in");
        }
        assert_eq!(bind(&mut client, 0x4001, at("11.0.0.5", 8444)), 0, "a neighbour of the back end");
        quic.set_nonblocking(true).unwrap();
        assert!(quic.recv(&mut [0; 100]).is_err(), "a denied datagram reached a back end");
        assert_eq!(drops(&server, "peer_denied"), 2);
    });
}
