//! Messages and settings for tests of a server in memory, on top of the codec that all tests share.
#![allow(dead_code)] // each test target that includes this file uses a different part of it

use std::net::{IpAddr, SocketAddr};

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::five_tuple::{Client, FiveTuple, Link};
use hallpass::turn::settings::{Host, Limits, PeerRules, RelayAddress, Settings};

#[path = "../support/codec.rs"]
mod codec;

pub use codec::*;

pub const ADDRESS_ERROR: u16 = ADDRESS_ERROR_CODE;
pub const FAMILY: u16 = REQUESTED_FAMILY;
pub const PEER: u16 = XOR_PEER_ADDRESS;
pub const RELAYED: u16 = XOR_RELAYED_ADDRESS;
pub const RESERVATION: u16 = RESERVATION_TOKEN;
pub const TRANSPORT: u16 = REQUESTED_TRANSPORT;

pub fn send(id: Id, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    Writer::new(SEND_INDICATION, id).address(PEER, peer).raw(DATA, payload).plain()
}

/// Builds an Allocate for UDP with additional attributes.
pub fn allocate(id: Id, more: &[(u16, Vec<u8>)]) -> Writer {
    let writer = Writer::new(ALLOCATE, id).raw(TRANSPORT, &UDP);
    more.iter().fold(writer, |writer, (kind, value)| writer.raw(*kind, value))
}

pub fn refresh(id: Id, lifetime: u32) -> Writer {
    Writer::new(REFRESH, id).raw(LIFETIME, &lifetime.to_be_bytes())
}

pub fn create_permission(id: Id, peers: &[SocketAddr]) -> Writer {
    let writer = Writer::new(CREATE_PERMISSION, id);
    peers.iter().fold(writer, |writer, peer| writer.address(PEER, *peer))
}

pub fn channel_bind(id: Id, number: u16, peer: SocketAddr) -> Writer {
    let [high, low] = number.to_be_bytes();
    Writer::new(CHANNEL_BIND, id).raw(CHANNEL_NUMBER, &[high, low, 0, 0]).address(PEER, peer)
}

pub const REALM_NAME: &str = "relay.example.org";
pub const SECRET: &str = "north";

pub fn client(transport: Transport, client: SocketAddr, link: u64) -> Client {
    let server = "5.5.5.5:3478".parse().expect("literal");
    Client { five_tuple: FiveTuple { transport, client, server }, link: Link(link) }
}

/// One host, and one relay address of each family; the IPv4 address is behind 1:1 NAT.
pub fn settings() -> Settings {
    let ip = |text: &str| -> IpAddr { text.parse().expect("literal") };
    let relay =
        |local, announced| RelayAddress { local: ip(local), announced: ip(announced), only_local: false };
    Settings {
        realm: REALM_NAME.into(),
        hosts: vec![Host {
            id: HostId(0),
            name: "ping".into(),
            secrets: vec![SECRET.into()],
            revoked: vec![],
            peers: None,
            confined: None,
        }],
        users: Vec::new(),
        relay_addresses: vec![relay("10.1.1.1", "5.5.5.5"), relay("2a00:5::5", "2a00:5::5")],
        relay_ports: 49_152..=65_535,
        peers: PeerRules {
            own: ["10.1.1.1", "5.5.5.5", "2a00:5::5"].map(|own| ip(own).into()).into(),
            services: vec![
                "5.5.5.5:3478".parse().expect("literal"),
                "10.1.1.1:3478".parse().expect("literal"),
            ],
            ..PeerRules::default()
        },
        limits: Limits {
            unauthenticated_per_source: 0,
            requests_per_user: 0,
            permissions_per_user: 0,
            ..Limits::default()
        },
        alternates: Default::default(),
        strict_channels: false,
        default_family: Default::default(),
        icmp_to_clients: true,
    }
}
