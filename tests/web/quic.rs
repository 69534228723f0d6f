//! UDP 443 shared with HTTP/3: the back end is the test, which sends packets that start like QUIC.

use crate::support::beside_others;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::{BINDING_SUCCESS, Message, binding_request};
use std::net::UdpSocket;
use std::time::Duration;

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL_V4, 0)).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn stun_and_quic_share_a_udp_port() {
    let _turn = beside_others();
    let quic = bound();
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.udp = format!("quic = \"{}\"", quic.local_addr().unwrap());
    let server = Server::start(&plan);
    let address = server.v4(Transport::Udp);
    let clients = [bound(), bound()];
    let mut initial = vec![7; 1200];
    initial[0] = 0xc0;
    let mut seen = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        initial[1199] = number as u8;
        client.send_to(&initial, address).expect("send");
        let mut datagram = [0; 2000];
        let (len, from) = quic.recv_from(&mut datagram).expect("an initial packet");
        assert_eq!(datagram[..len], initial);
        seen.push(from);
        // In both directions, with short headers of every kind, which also look like ChannelData.
        for first in [0xe0, 0x40, 0x4f, 0x50, 0x7f] {
            quic.send_to(&[first, 1], from).expect("send");
            let (len, from_relay) = client.recv_from(&mut datagram).expect("an answer");
            assert_eq!((&datagram[..len], from_relay), (&[first, 1][..], address));
            client.send_to(&[first, 2], address).expect("send");
            let (len, again) = quic.recv_from(&mut datagram).expect("a packet");
            assert_eq!((&datagram[..len], again), (&[first, 2][..], from));
        }
        // The same socket may send STUN.
        client.send_to(&binding_request(9), address).expect("send");
        let (len, _) = client.recv_from(&mut datagram).expect("an answer");
        assert_eq!(Message::parse(&datagram[..len]).kind, BINDING_SUCCESS);
    }
    assert_ne!(seen[0], seen[1], "the server tells its clients apart");
}
