//! Peers that must not be reached through the relay: this machine, its neighbours, and addresses that embed theirs.

use crate::machine::{drops, in_own_network, metric};
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::codec::UDP;
use crate::support::plan::{LOCAL_V4, LOCAL_V6, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, REQUESTED_FAMILY, REQUESTED_TRANSPORT,
    Session, XOR_PEER_ADDRESS, xor_value_in,
};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

pub const DENIED: [&str; 50] = [
    "0.0.0.0",
    "0.0.0.1",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:a00:0:100::",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:1::1",
    "2001:0:808:808:0:0:80ff:fffe",
    "2001:0:7f00:1:0:0:f7f7:f7f7",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff01::1",
    "ff02::1",
    "ff05::2",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "2002::1",
    "2001::1",
];
/// An address per family that the policy allows. No packet is sent there.
const OPEN: [&str; 2] = ["9.9.9.9", "2620:fe::fe"];
const FAMILY_V6: [u8; 4] = [2, 0, 0, 0];

/// Encodes a peer for the transaction `id`, which is the next one of this client.
fn value(peer: SocketAddr, id: u64) -> Vec<u8> {
    xor_value_in(peer, id)
}

/// Returns the code of a CreatePermission for `peers`.
fn permit(client: &mut Client, peers: &[SocketAddr]) -> u16 {
    let id = client.next_id();
    let values: Vec<Vec<u8>> = peers.iter().map(|&peer| value(peer, id)).collect();
    let attributes: Vec<(u16, &[u8])> = values.iter().map(|value| (XOR_PEER_ADDRESS, &value[..])).collect();
    client.code(CREATE_PERMISSION, &attributes)
}

fn bind(client: &mut Client, number: u16, peer: SocketAddr) -> u16 {
    let peer = value(peer, client.next_id());
    let [high, low] = number.to_be_bytes();
    client.code(CHANNEL_BIND, &[(CHANNEL_NUMBER, &[high, low, 0, 0]), (XOR_PEER_ADDRESS, &peer)])
}

/// Returns a client with an IPv4 allocation, and one with an IPv6 allocation.
fn of_each_family(server: &Server) -> [Client; 2] {
    let session = Session::new(server.credentials("curious"), b"");
    [None, Some(FAMILY_V6)].map(|family| {
        let mut client = Client::join(Link::open(Transport::Udp, server.v4(Transport::Udp)), &session);
        let mut attributes: Vec<(u16, &[u8])> = vec![(REQUESTED_TRANSPORT, &UDP)];
        if let Some(family) = &family {
            attributes.push((REQUESTED_FAMILY, family));
        }
        assert_eq!(client.code(ALLOCATE, &attributes), 0);
        client
    })
}

/// Rows 1 to 4, with the default policy.
#[test]
fn a_denied_peer_is_403_and_fails_the_whole_request() {
    let _turn = alone();
    in_own_network(|| {
        let server = Server::start(&Plan::on(&[LOCAL_V4, LOCAL_V6], &[]));
        let mut clients = of_each_family(&server);
        let mut faults = Vec::new();
        let mut denied: Vec<SocketAddr> =
            DENIED.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect();
        let (listener, v6) = (server.v4(Transport::Udp), server.v6(Transport::Udp));
        let tls = server.v4(Transport::Tls);
        denied.extend([listener, v6, tls, server.admin()]);
        denied.extend(
            [listener, server.admin()].map(|own| SocketAddr::new("0.0.0.0".parse().unwrap(), own.port())),
        );
        denied.extend(
            [listener, tls].map(|own| SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), own.port())),
        );
        for (number, peer) in (0x4000..).zip(&denied) {
            let client = &mut clients[usize::from(peer.is_ipv6())];
            let open = SocketAddr::new(OPEN[usize::from(peer.is_ipv6())].parse().unwrap(), 80);
            let codes =
                [permit(client, &[*peer]), permit(client, &[open, *peer]), bind(client, number, *peer)];
            // These two addresses carry relayed addresses, and a permission covers all ports of an address (RFC 8656
            // section 9). Only a channel names the port.
            let relaying = [LOCAL_V4, LOCAL_V6].contains(&peer.ip()) && codes == [0, 0, 403];
            if codes != [403; 3] && !relaying {
                faults.push(format!("{peer}: {codes:?}"));
            }
        }
        println!("rows 3 and 4: {} peers denied; wrongly answered: {faults:?}", denied.len());
        assert!(faults.is_empty(), "{faults:#?}");
        for (client, open) in clients.iter_mut().zip(OPEN) {
            assert_eq!(permit(client, &[SocketAddr::new(open.parse().unwrap(), 80)]), 0, "{open} is open");
        }
        if skip_on_coturn("counters") {
            return;
        }
        // One permission for each allowed peer and for each address with relays: the refused requests had no effect.
        assert_eq!(metric(&server, "hallpass_permissions", ""), 4);
        assert_eq!(metric(&server, "hallpass_channels", ""), 0);
    });
}

/// Row 4: data to denied peers reaches nothing and is counted.
#[test]
fn data_to_denied_peers_reaches_nothing() {
    let _turn = alone();
    in_own_network(|| {
        let server = Server::start(&Plan::on(&[LOCAL_V4, LOCAL_V6], &[]));
        let [mut client, _] = of_each_family(&server);
        let victim = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        let to = victim.local_addr().unwrap();
        let everywhere = ["127.0.0.1", "0.0.0.0", "127.9.9.9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for ip in everywhere {
            let peer = SocketAddr::new(ip, to.port());
            // A permission covers all ports of an address, and this one carries relayed addresses.
            let permitted = permit(&mut client, &[peer]);
            assert!(permitted != 0 || ip == LOCAL_V4, "{peer}");
            assert_ne!(bind(&mut client, 0x4001, peer), 0, "{peer}");
            for _ in 0..100 {
                client.send_to(peer, b"let me in");
                client.send_on(0x4001, b"let me in");
            }
        }
        // The server handles this request after everything sent before it.
        assert_eq!(client.refresh(600), 0);
        victim.set_nonblocking(true).unwrap();
        let reached = victim.recv(&mut [0; 100]).is_ok();
        println!("row 4: 600 messages to a denied peer, reached: {reached}");
        assert!(!reached, "a denied datagram reached the victim");
        if skip_on_coturn("counters") {
            return;
        }
        let reasons = ["no_permission", "peer_denied", "no_channel"].map(|reason| drops(&server, reason));
        assert_eq!(reasons, [200, 100, 300]);
    });
}

/// Row 3: even if the operator allows loopback, the server's own services are not reached.
#[test]
fn own_listeners_are_not_reached_through_the_relay() {
    let _turn = alone();
    in_own_network(|| {
        let server = Server::start(&Plan::loopback());
        let [mut client, _] = of_each_family(&server);
        let listener = server.v4(Transport::Udp);
        let nowhere: IpAddr = "0.0.0.0".parse().unwrap();
        let ways = [listener, SocketAddr::new(nowhere, listener.port()), server.admin()];
        // A permission covers all ports of an address, so it may be granted here, but it must be useless.
        let codes = ways.map(|way| permit(&mut client, &[way]));
        let channels = [0x4000, 0x4001, 0x4002]
            .map(|number| bind(&mut client, number, ways[usize::from(number) - 0x4000]));
        let question = crate::support::stun::binding_request(77);
        for way in ways {
            client.send_to(way, &question);
        }
        (0x4000..0x4003).for_each(|number| client.send_on(number, &question));
        assert_eq!(client.refresh(600), 0);
        // An answer would come back from the relayed address.
        client.link.wait_at_most(Duration::from_millis(500));
        let answered = client.receive().is_ok();
        println!("row 3: own services: permissions {codes:?}, channels {channels:?}, answered: {answered}");
        assert!(!answered, "a listener was reached through the relay");
        if skip_on_coturn("counters") {
            return;
        }
        let dropped = ["peer_denied", "no_permission", "no_channel"].map(|reason| drops(&server, reason));
        assert_eq!(dropped.iter().sum::<u64>(), 6, "{dropped:?}");
        assert!(dropped[0] > 0, "{dropped:?}");
    });
}
