//! STUN as a client writes and reads it: by hand from RFC 8489, so that the codec under test does not judge itself.
//! Only the hashes are the crate's.
#![allow(dead_code)] // every test target that includes this file uses another part of it

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hallpass::turn::five_tuple::{Client, FiveTuple, Link, Transport};
use hallpass::turn::settings::{Host, HostId, Limits, PeerRules, RelayAddress, Settings};
use stun_types::attribute::MessageIntegrity;
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

pub const BINDING: u16 = 0x0001;
pub const ALLOCATE: u16 = 0x0003;
pub const REFRESH: u16 = 0x0004;
pub const SEND_INDICATION: u16 = 0x0016;
pub const DATA_INDICATION: u16 = 0x0017;
pub const CREATE_PERMISSION: u16 = 0x0008;
pub const CHANNEL_BIND: u16 = 0x0009;

pub const USERNAME: u16 = 0x0006;
pub const ERROR_CODE: u16 = 0x0009;
pub const CHANNEL_NUMBER: u16 = 0x000c;
pub const LIFETIME: u16 = 0x000d;
pub const PEER: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const REALM: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const RELAYED: u16 = 0x0016;
pub const FAMILY: u16 = 0x0017;
pub const EVEN_PORT: u16 = 0x0018;
pub const TRANSPORT: u16 = 0x0019;
pub const RESERVATION: u16 = 0x0022;
pub const ADDITIONAL_FAMILY: u16 = 0x8000;
pub const ADDRESS_ERROR: u16 = 0x8001;
pub const ICMP: u16 = 0x8004;

pub type Id = [u8; 12];

/// A message under construction.
#[derive(Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Type (class and method as on the wire) and transaction.
    pub fn new(kind: u16, id: Id) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(id);
        Self { bytes }
    }

    pub fn raw(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let id = self.id();
        self.raw(kind, &xor(address, &id))
    }

    fn id(&self) -> Id {
        self.bytes[8..20].try_into().expect("a header")
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - 20 + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }

    /// USERNAME, REALM, NONCE and MESSAGE-INTEGRITY behind what is there.
    pub fn signed(self, login: &Login, nonce: &[u8]) -> Vec<u8> {
        let mut writer =
            self.raw(USERNAME, login.name.as_bytes()).raw(REALM, login.realm.as_bytes()).raw(NONCE, nonce);
        writer.set_length(24);
        let hash = MessageIntegrity::compute(&[&writer.bytes], &login.key).expect("a key");
        writer.raw(0x0008, &hash).bytes
    }

    pub fn plain(self) -> Vec<u8> {
        self.bytes
    }
}

/// User name, realm and the key made of them and the password.
#[derive(Clone)]
pub struct Login {
    pub name: String,
    pub realm: String,
    key: Arc<IntegrityKey>,
}

impl Login {
    pub fn new(name: &str, password: &str, realm: &str) -> Self {
        let login = LongTermKeyCredentials::new(name.to_owned(), password.to_owned(), realm.to_owned());
        let key = Arc::new(login.make_key(IntegrityAlgorithm::Sha1));
        Self { name: name.to_owned(), realm: realm.to_owned(), key }
    }
}

fn xor(address: SocketAddr, id: &Id) -> Vec<u8> {
    let mask: Vec<u8> = COOKIE.iter().chain(id).copied().collect();
    let mut value = match address.ip() {
        IpAddr::V4(ip) => [&address.port().to_be_bytes()[..], &ip.octets()].concat(),
        IpAddr::V6(ip) => [&address.port().to_be_bytes()[..], &ip.octets()].concat(),
    };
    let (port, ip) = value.split_at_mut(2);
    port.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte ^= mask);
    ip.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte ^= mask);
    [&[0, if address.is_ipv4() { 1 } else { 2 }][..], &value].concat()
}

/// A message as read.
#[derive(Clone, Debug)]
pub struct Reader {
    pub kind: u16,
    pub id: Id,
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Reader {
    /// `None` when this is no well-formed STUN message with zero padding.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_at_checked(20)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[4..8] != COOKIE || length != rest.len() || length % 4 != 0 {
            return None;
        }
        let mut attributes = Vec::new();
        while let Some((head, behind)) = rest.split_at_checked(4) {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, behind) = behind.split_at_checked(length)?;
            let (padding, behind) = behind.split_at_checked(length.next_multiple_of(4) - length)?;
            if padding.iter().any(|&byte| byte != 0) {
                return None;
            }
            attributes.push((u16::from_be_bytes([head[0], head[1]]), value.to_vec()));
            rest = behind;
        }
        let kind = u16::from_be_bytes([header[0], header[1]]);
        Some(Self { kind, id: header[8..].try_into().ok()?, attributes })
    }

    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| &value[..])
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let of_kind = self.attributes.iter().filter(|(found, _)| *found == kind);
        of_kind.filter_map(|(_, value)| self.unxor(value)).collect()
    }

    fn unxor(&self, value: &[u8]) -> Option<SocketAddr> {
        let mask: Vec<u8> = COOKIE.iter().chain(&self.id).copied().collect();
        let (head, ip) = value.split_at_checked(4)?;
        let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
        let ip: Vec<u8> = ip.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip = match head[1] {
            1 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        };
        Some(SocketAddr::new(ip, port))
    }

    /// 0 for a success response, the number in ERROR-CODE for an error response.
    pub fn code(&self) -> Option<u16> {
        match (self.kind & 0x0110, self.get(ERROR_CODE)) {
            (0x0100, None) => Some(0),
            (0x0110, Some(value)) => Some(u16::from(*value.get(2)?) * 100 + u16::from(*value.get(3)?)),
            _ => None,
        }
    }
}

pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

pub fn send(id: Id, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    Writer::new(SEND_INDICATION, id).address(PEER, peer).raw(DATA, payload).plain()
}

/// An Allocate for UDP with these further attributes.
pub fn allocate(id: Id, more: &[(u16, Vec<u8>)]) -> Writer {
    let writer = Writer::new(ALLOCATE, id).raw(TRANSPORT, &[17, 0, 0, 0]);
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

/// One host, one relay address of each family, the first of them behind 1:1 NAT.
pub fn settings() -> Settings {
    let ip = |text: &str| -> IpAddr { text.parse().expect("literal") };
    let relay = |local, announced| RelayAddress {
        local: ip(local),
        announced: ip(announced),
        only_if_reached: false,
    };
    Settings {
        realm: REALM_NAME.into(),
        hosts: vec![Host {
            id: HostId(0),
            name: "ping".into(),
            secrets: vec![SECRET.into()],
            revoked: vec![],
            peers: None,
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
        icmp_to_clients: true,
    }
}
