//! XOR-ed addresses, which NATs that rewrite addresses in payloads do not recognise (RFC 8489 section 14.2).

use std::net::{IpAddr, SocketAddr};

use stun_types::attribute::{
    Attribute, AttributeFromRaw, AttributeStaticType, AttributeType, AttributeWrite, RawAttribute,
};
use stun_types::message::StunParseError;
use stun_types::prelude::{AttributeExt, AttributeWriteExt};

use super::kind;
use super::on_stun_types::on_stun_types;
use crate::base::family::Family;
use crate::wire::message::MAGIC_COOKIE;

/// The length of a value in bytes: 8 for IPv4, 20 for IPv6.
pub(in crate::wire) const fn xor_len(address: SocketAddr) -> usize {
    if address.is_ipv4() { 8 } else { 20 }
}

/// The mask of addresses: the magic cookie and the transaction id.
fn mask(transaction_id: [u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&transaction_id);
    mask
}

/// Encodes a value. Returns it with its length.
pub(crate) fn write_xor(address: SocketAddr, transaction_id: [u8; 12]) -> ([u8; 20], usize) {
    let (mut value, mask) = ([0; 20], mask(transaction_id));
    value[1] = Family::of(address.ip()).to_byte();
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => value[4..8].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => value[4..].copy_from_slice(&v6.octets()),
    }
    let len = xor_len(address);
    xor(&mut value[2..4], &mask);
    xor(&mut value[4..len], &mask);
    (value, len)
}

/// Reads a value; `None` if the family is unknown or the length does not fit the family.
pub(crate) fn read_xor(value: &[u8], transaction_id: [u8; 12]) -> Option<SocketAddr> {
    let (&[_, family, high, low], address) = value.split_first_chunk()?;
    let mask = mask(transaction_id);
    let port = u16::from_be_bytes([high ^ mask[0], low ^ mask[1]]);
    let ip = match Family::from_byte(family).ok()? {
        Family::V4 => {
            let mut octets: [u8; 4] = address.try_into().ok()?;
            xor(&mut octets, &mask);
            IpAddr::from(octets)
        }
        Family::V6 => {
            let mut octets: [u8; 16] = address.try_into().ok()?;
            xor(&mut octets, &mask);
            IpAddr::from(octets)
        }
    };
    Some(SocketAddr::new(ip, port))
}

fn xor(bytes: &mut [u8], mask: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// An encoded value; reading the address needs the transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masked {
    value: [u8; 20],
    len: usize,
}

impl AsRef<[u8]> for Masked {
    fn as_ref(&self) -> &[u8] {
        &self.value[..self.len]
    }
}

macro_rules! xor_address {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(Masked);

        impl $name {
            /// The attribute for `address` in the message with this transaction id.
            pub fn new(address: SocketAddr, transaction_id: [u8; 12]) -> Self {
                let (value, len) = write_xor(address, transaction_id);
                Self(Masked { value, len })
            }

            /// The address, in the message with this transaction id.
            pub fn address(&self, transaction_id: [u8; 12]) -> Option<SocketAddr> {
                read_xor(self.0.as_ref(), transaction_id)
            }

            /// Reads the value.
            pub fn decode(value: &[u8]) -> Option<Self> {
                read_xor(value, [0; 12])?;
                let mut masked = Masked { value: [0; 20], len: value.len() };
                masked.value.get_mut(..value.len())?.copy_from_slice(value);
                Some(Self(masked))
            }

            fn encode(&self) -> Masked {
                self.0
            }
        }
        on_stun_types!($name, $kind);
    };
}

xor_address!(
    /// XOR-PEER-ADDRESS (RFC 8656 section 18.3).
    XorPeerAddress, kind::XOR_PEER_ADDRESS
);
xor_address!(
    /// XOR-RELAYED-ADDRESS (RFC 8656 section 18.5).
    XorRelayedAddress, kind::XOR_RELAYED_ADDRESS
);
xor_address!(
    /// XOR-MAPPED-ADDRESS (RFC 8489 section 14.2); like that of `stun_types`, but takes the id as twelve bytes.
    XorMappedAddress, kind::XOR_MAPPED_ADDRESS
);

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
    // The addresses of RFC 5769 sections 2.2 and 2.3.
    const V4: [u8; 12] = [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
    const V6: [u8; 24] = [
        0x00, 0x16, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc,
        0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
    ];

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn ipv4() {
        let mapped = XorMappedAddress::new(address("192.0.2.1:32853"), ID);
        assert_eq!(mapped.to_raw().to_bytes(), V4);
        assert_eq!(read_xor(&V4[4..], ID), Some(address("192.0.2.1:32853")));
    }

    #[test]
    fn ipv6() {
        let peer = address("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
        let mut literal = V6;
        for (kind, bytes) in [
            (kind::XOR_RELAYED_ADDRESS, XorRelayedAddress::new(peer, ID).to_raw().to_bytes()),
            (kind::XOR_PEER_ADDRESS, XorPeerAddress::new(peer, ID).to_raw().to_bytes()),
        ] {
            literal[..2].copy_from_slice(&kind.to_be_bytes());
            assert_eq!(bytes, literal);
        }
        let raw = RawAttribute::from_bytes(&literal).expect("literal");
        assert_eq!(XorPeerAddress::from_raw_ref(&raw).expect("decodes").address(ID), Some(peer));
    }

    #[test]
    fn unknown_families_and_wrong_lengths() {
        let mut value = [0; 24];
        for (family, good) in [(0, None), (1, Some(8)), (2, Some(20)), (3, None)] {
            value[1] = family;
            for len in 0..=value.len() {
                let read = read_xor(&value[..len], ID);
                assert_eq!(read.is_some(), good == Some(len), "family {family}, {len} bytes");
                assert_eq!(read.is_some(), XorPeerAddress::decode(&value[..len]).is_some());
            }
        }
    }
}
