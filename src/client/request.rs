//! The requests of a client, and their encoding.

use std::fmt;
use std::net::SocketAddr;

use super::login::Login;
use crate::base::family::Family;
use crate::wire::attribute::kind;
use crate::wire::message::method;
use crate::wire::writer::Writer;

/// UDP in REQUESTED-TRANSPORT (RFC 8656 section 18.8): its number in the IP header.
pub const UDP: u8 = 17;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Binding: which address the server sees.
    Binding,
    /// Allocate.
    Allocate(Allocate),
    /// Refresh of the allocation.
    Refresh {
        /// LIFETIME in seconds; 0 deletes.
        lifetime: u32,
    },
    /// CreatePermission.
    Permit {
        /// The peer that may send; its port does not matter.
        peer: SocketAddr,
    },
    /// ChannelBind.
    Bind {
        /// The channel number.
        channel: u16,
        /// The peer.
        peer: SocketAddr,
    },
}

/// The parameters of an Allocate request (RFC 8656 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocate {
    /// REQUESTED-TRANSPORT: an IP protocol number. Servers relay only [`UDP`].
    pub transport: u8,
    /// LIFETIME in seconds; else the server's default.
    pub lifetime: Option<u32>,
    /// REQUESTED-ADDRESS-FAMILY; else IPv4.
    pub family: Option<Family>,
    /// ADDITIONAL-ADDRESS-FAMILY: an IPv6 address as well. Not together with `family`.
    pub both_families: bool,
    /// EVEN-PORT, with its R bit: whether to reserve the next port.
    pub even_port: Option<bool>,
    /// DONT-FRAGMENT: refused by a server that cannot set the DF bit.
    pub dont_fragment: bool,
    /// RESERVATION-TOKEN from an earlier answer.
    pub reservation_token: Option<[u8; 8]>,
}

impl Default for Allocate {
    /// UDP over IPv4, everything else left to the server.
    fn default() -> Self {
        Self {
            transport: UDP,
            lifetime: None,
            family: None,
            both_families: false,
            even_port: None,
            dont_fragment: false,
            reservation_token: None,
        }
    }
}

impl Request {
    /// Its method (RFC 8489 section 18.1, RFC 8656 section 17).
    pub fn method(&self) -> u16 {
        match self {
            Self::Binding => method::BINDING,
            Self::Allocate(_) => method::ALLOCATE,
            Self::Refresh { .. } => method::REFRESH,
            Self::Permit { .. } => method::CREATE_PERMISSION,
            Self::Bind { .. } => method::CHANNEL_BIND,
        }
    }

    /// Its name in the RFCs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Binding => "Binding",
            Self::Allocate(_) => "Allocate",
            Self::Refresh { .. } => "Refresh",
            Self::Permit { .. } => "CreatePermission",
            Self::Bind { .. } => "ChannelBind",
        }
    }

    /// Encodes the request, signed if there is a login.
    pub(super) fn write(
        &self,
        bytes: &mut Vec<u8>,
        transaction_id: [u8; 12],
        software: Option<&str>,
        login: Option<&Login>,
    ) {
        let mut writer = Writer::request(bytes, self.method(), transaction_id);
        match *self {
            Self::Binding => {}
            Self::Allocate(parameters) => parameters.write(&mut writer),
            Self::Refresh { lifetime } => writer.attribute(kind::LIFETIME, &lifetime.to_be_bytes()),
            Self::Permit { peer } => writer.peer(peer),
            Self::Bind { channel, peer } => {
                let [high, low] = channel.to_be_bytes();
                writer.attribute(kind::CHANNEL_NUMBER, &[high, low, 0, 0]);
                writer.peer(peer);
            }
        }
        if let Some(software) = software {
            writer.attribute(kind::SOFTWARE, software.as_bytes());
        }
        if let Some(login) = login {
            login.sign(&mut writer);
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Allocate {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.attribute(kind::REQUESTED_TRANSPORT, &[self.transport, 0, 0, 0]);
        if let Some(seconds) = self.lifetime {
            writer.attribute(kind::LIFETIME, &seconds.to_be_bytes());
        }
        if let Some(family) = self.family {
            writer.attribute(kind::REQUESTED_ADDRESS_FAMILY, &[family.to_byte(), 0, 0, 0]);
        }
        if self.both_families {
            writer.attribute(kind::ADDITIONAL_ADDRESS_FAMILY, &[Family::V6.to_byte(), 0, 0, 0]);
        }
        if let Some(reserve) = self.even_port {
            writer.attribute(kind::EVEN_PORT, &[u8::from(reserve) << 7]);
        }
        if self.dont_fragment {
            writer.attribute(kind::DONT_FRAGMENT, &[]);
        }
        if let Some(token) = self.reservation_token {
            writer.attribute(kind::RESERVATION_TOKEN, &token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 12] = *b"transaction.";

    /// The bytes after the transaction id.
    fn body(request: Request) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.write(&mut bytes, ID, None, None);
        assert_eq!(bytes[8..20], ID);
        assert_eq!(usize::from(bytes[3]) + 20, bytes.len());
        assert_eq!(u16::from_be_bytes([bytes[0], bytes[1]]), request.method());
        bytes.split_off(20)
    }

    #[test]
    fn the_parameters_of_an_allocate() {
        assert_eq!(body(Request::Allocate(Allocate::default())), [0, 0x19, 0, 4, 17, 0, 0, 0]);
        let all = Allocate {
            transport: 6,
            lifetime: Some(600),
            family: Some(Family::V6),
            both_families: true,
            even_port: Some(true),
            dont_fragment: true,
            reservation_token: Some(*b"12345678"),
        };
        let literal = [
            &[0, 0x19, 0, 4, 6, 0, 0, 0][..],
            &[0, 0x0d, 0, 4, 0, 0, 2, 0x58],
            &[0, 0x17, 0, 4, 2, 0, 0, 0],
            &[0x80, 0, 0, 4, 2, 0, 0, 0],
            &[0, 0x18, 0, 1, 0x80, 0, 0, 0],
            &[0, 0x1a, 0, 0],
            &[0, 0x22, 0, 8],
            b"12345678",
        ];
        assert_eq!(body(Request::Allocate(all)), literal.concat());
    }

    #[test]
    fn the_other_requests() {
        let peer: SocketAddr = "192.0.2.1:32853".parse().expect("literal");
        let xored = [0, 0x12, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        assert_eq!(body(Request::Binding), [0; 0]);
        assert_eq!(body(Request::Refresh { lifetime: 0 }), [0, 0x0d, 0, 4, 0, 0, 0, 0]);
        assert_eq!(body(Request::Permit { peer }), xored);
        let bind = [&[0, 0x0c, 0, 4, 0x40, 0x01, 0, 0][..], &xored].concat();
        assert_eq!(body(Request::Bind { channel: 0x4001, peer }), bind);
        let mut named = Vec::new();
        Request::Binding.write(&mut named, ID, Some("hallpass"), None);
        assert_eq!(named[20..], *b"\x80\x22\x00\x08hallpass");
    }
}
