//! Requests as types: everything a handler needs, borrowed from the message. Only attributes before the integrity attribute
//! count. If a type occurs more than once, only the first counts, except for XOR-PEER-ADDRESS.

use std::net::SocketAddr;

use super::attribute::{
    AdditionalAddressFamily, ChannelNumber, DontFragment, EvenPort, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken, is_understood, kind, read_xor,
};
use super::message::{Message, method};
use crate::base::family::Family;

/// An attribute of this type is malformed: 400 (RFC 8489 section 6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAttribute(pub u16);

/// A requested family, or the byte of an unknown one: 440 (RFC 8656 section 7.2).
pub type AskedFamily = Result<Family, u8>;

/// A parsed request.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Binding (RFC 8489).
    Binding,
    /// Allocate (RFC 8656 section 7).
    Allocate(Allocate),
    /// Refresh (RFC 8656 section 8).
    Refresh(Refresh),
    /// CreatePermission (RFC 8656 section 10).
    CreatePermission(CreatePermission<'a>),
    /// ChannelBind (RFC 8656 section 12).
    ChannelBind(ChannelBind),
    /// A method that is unknown or not for requests.
    Other(u16),
}

/// An Allocate request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocate {
    /// REQUESTED-TRANSPORT, an IP protocol number.
    pub transport: Option<u8>,
    /// LIFETIME, seconds.
    pub lifetime: Option<u32>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<AskedFamily>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<AskedFamily>,
    /// EVEN-PORT, with its R bit: whether to reserve the next port.
    pub even_port: Option<bool>,
    /// RESERVATION-TOKEN.
    pub reservation_token: Option<[u8; 8]>,
    /// DONT-FRAGMENT.
    pub dont_fragment: bool,
}

/// A Refresh request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// LIFETIME, seconds; zero deletes.
    pub lifetime: Option<u32>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<AskedFamily>,
}

/// A CreatePermission request.
#[derive(Clone, Copy, Debug)]
pub struct CreatePermission<'a> {
    message: Message<'a>,
}

/// A ChannelBind request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelBind {
    /// CHANNEL-NUMBER, any.
    pub number: Option<u16>,
    /// XOR-PEER-ADDRESS.
    pub peer: Option<SocketAddr>,
}

impl<'a> Request<'a> {
    /// Reads a message of class request.
    pub fn parse(message: &Message<'a>) -> Result<Self, BadAttribute> {
        Ok(match message.method() {
            method::BINDING => Self::Binding,
            method::ALLOCATE => Self::Allocate(Allocate::parse(message)?),
            method::REFRESH => Self::Refresh(Refresh::parse(message)?),
            method::CREATE_PERMISSION => Self::CreatePermission(CreatePermission::parse(message)?),
            method::CHANNEL_BIND => Self::ChannelBind(ChannelBind::parse(message)?),
            other => Self::Other(other),
        })
    }
}

impl Allocate {
    fn parse(message: &Message<'_>) -> Result<Self, BadAttribute> {
        Ok(Self {
            transport: read(message, kind::REQUESTED_TRANSPORT, RequestedTransport::decode)?.map(|a| a.0),
            lifetime: read(message, kind::LIFETIME, Lifetime::decode)?.map(|a| a.0),
            family: asked_family(message)?,
            additional_family: read(
                message,
                kind::ADDITIONAL_ADDRESS_FAMILY,
                AdditionalAddressFamily::decode,
            )?
            .map(|a| a.0),
            even_port: read(message, kind::EVEN_PORT, EvenPort::decode)?.map(|a| a.0),
            reservation_token: read(message, kind::RESERVATION_TOKEN, ReservationToken::decode)?.map(|a| a.0),
            dont_fragment: read(message, kind::DONT_FRAGMENT, DontFragment::decode)?.is_some(),
        })
    }
}

impl Refresh {
    fn parse(message: &Message<'_>) -> Result<Self, BadAttribute> {
        let lifetime = read(message, kind::LIFETIME, Lifetime::decode)?.map(|a| a.0);
        Ok(Self { lifetime, family: asked_family(message)? })
    }
}

impl<'a> CreatePermission<'a> {
    fn parse(message: &Message<'a>) -> Result<Self, BadAttribute> {
        // All or nothing: one malformed address makes the request malformed.
        for attribute in message.attributes().filter(|a| a.kind == kind::XOR_PEER_ADDRESS) {
            read_xor(attribute.value, message.transaction_id()).ok_or(BadAttribute(attribute.kind))?;
        }
        Ok(Self { message: *message })
    }

    /// All XOR-PEER-ADDRESS attributes, in order; possibly none.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let transaction_id = self.message.transaction_id();
        self.message
            .attributes()
            .filter(|attribute| attribute.kind == kind::XOR_PEER_ADDRESS)
            .filter_map(move |attribute| read_xor(attribute.value, transaction_id))
    }
}

impl ChannelBind {
    fn parse(message: &Message<'_>) -> Result<Self, BadAttribute> {
        let transaction_id = message.transaction_id();
        Ok(Self {
            number: read(message, kind::CHANNEL_NUMBER, ChannelNumber::decode)?.map(|a| a.0),
            peer: read(message, kind::XOR_PEER_ADDRESS, |value| read_xor(value, transaction_id))?,
        })
    }
}

/// The credentials of a request (RFC 8489 section 9.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// USERNAME.
    pub username: Option<&'a str>,
    /// USERHASH.
    pub userhash: Option<[u8; 32]>,
    /// REALM.
    pub realm: Option<&'a str>,
    /// NONCE, as sent.
    pub nonce: Option<&'a [u8]>,
    /// PASSWORD-ALGORITHM: its number, known or not.
    pub password_algorithm: Option<u16>,
    /// The value of PASSWORD-ALGORITHMS, to be compared with the offer.
    pub password_algorithms: Option<&'a [u8]>,
    /// Whether MESSAGE-INTEGRITY is present.
    pub has_sha1: bool,
    /// Whether MESSAGE-INTEGRITY-SHA256 is present. If so, it must verify, even if MESSAGE-INTEGRITY is present too.
    pub has_sha256: bool,
}

/// The longest USERNAME, bytes: clients send up to 508, servers read up to 763 (RFC 8489 section 14.3).
const USERNAME_MAX: usize = 763;
/// The longest REALM and NONCE, bytes (RFC 8489 sections 14.9 and 14.10).
const QUOTED_MAX: usize = 763;

impl<'a> Credentials<'a> {
    /// Reads the credentials of any message.
    pub fn parse(message: &Message<'a>) -> Result<Self, BadAttribute> {
        Ok(Self {
            username: read(message, kind::USERNAME, |value| text(value, USERNAME_MAX))?,
            userhash: read(message, kind::USERHASH, |value| value.try_into().ok())?,
            realm: read(message, kind::REALM, |value| text(value, QUOTED_MAX))?,
            nonce: read(message, kind::NONCE, |value| (value.len() <= QUOTED_MAX).then_some(value))?,
            password_algorithm: read(message, kind::PASSWORD_ALGORITHM, password_algorithm)?,
            password_algorithms: read(message, kind::PASSWORD_ALGORITHMS, Some)?,
            has_sha1: message.has_sha1(),
            has_sha256: message.has_sha256(),
        })
    }
}

/// The most types that one 420 answer lists.
pub const UNKNOWN_MAX: usize = 16;

/// The unknown comprehension-required attributes, each once, for 420 and UNKNOWN-ATTRIBUTES
/// (RFC 8489 section 6.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownRequired {
    kinds: [u16; UNKNOWN_MAX],
    len: usize,
}

impl UnknownRequired {
    /// The types in order of appearance, at most [`UNKNOWN_MAX`].
    pub fn kinds(&self) -> &[u16] {
        &self.kinds[..self.len]
    }

    /// Whether every required attribute is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Collects the attributes that the request must not carry.
pub fn unknown_required(message: &Message<'_>) -> UnknownRequired {
    let mut unknown = UnknownRequired::default();
    for attribute in message.attributes().filter(|attribute| !is_understood(attribute.kind)) {
        if unknown.kinds().contains(&attribute.kind) {
            continue;
        }
        let Some(slot) = unknown.kinds.get_mut(unknown.len) else {
            break;
        };
        *slot = attribute.kind;
        unknown.len += 1;
    }
    unknown
}

/// The first attribute of a type, decoded.
fn read<'a, T>(
    message: &Message<'a>,
    kind: u16,
    decode: impl FnOnce(&'a [u8]) -> Option<T>,
) -> Result<Option<T>, BadAttribute> {
    match message.attribute(kind) {
        None => Ok(None),
        Some(attribute) => decode(attribute.value).map(Some).ok_or(BadAttribute(kind)),
    }
}

fn asked_family(message: &Message<'_>) -> Result<Option<AskedFamily>, BadAttribute> {
    let family = read(message, kind::REQUESTED_ADDRESS_FAMILY, RequestedAddressFamily::decode)?;
    Ok(family.map(|a| a.0))
}

fn text(value: &[u8], max: usize) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.len() <= max)
}

/// Reads PASSWORD-ALGORITHM: number, length of the parameters, parameters (RFC 8489 section 14.12).
fn password_algorithm(value: &[u8]) -> Option<u16> {
    let (&[n0, n1, l0, l1], parameters) = value.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    (len <= parameters.len()).then_some(u16::from_be_bytes([n0, n1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors;

    const PEER: [u8; 8] = [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    /// Passes the request to `look`, because requests borrow from the bytes.
    fn with<T>(bytes: &[u8], look: impl FnOnce(Result<Request<'_>, BadAttribute>) -> T) -> T {
        look(Request::parse(&Message::parse(bytes).expect("well-formed")))
    }

    fn allocate(attributes: &[(u16, &[u8])]) -> Result<Allocate, BadAttribute> {
        with(&vectors::message(method::ALLOCATE, attributes), |request| match request? {
            Request::Allocate(allocate) => Ok(allocate),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_allocates_of_chromium() {
        let expected = Allocate { transport: Some(17), ..Allocate::default() };
        for bytes in [vectors::chromium_allocate(), vectors::chromium_allocate_authenticated()] {
            with(&bytes, |request| match request {
                Ok(Request::Allocate(allocate)) => assert_eq!(allocate, expected),
                other => panic!("{other:?}"),
            });
        }
    }

    #[test]
    fn the_credentials_of_chromium() {
        let bytes = vectors::chromium_allocate_authenticated();
        let credentials = Credentials::parse(&Message::parse(&bytes).expect("valid"));
        let expected = Credentials {
            username: Some("user"),
            realm: Some("example.org"),
            nonce: Some(b"38fe16a9a395e45f"),
            has_sha1: true,
            ..Credentials::default()
        };
        assert_eq!(credentials, Ok(expected));
        let bytes = vectors::chromium_allocate();
        assert_eq!(Credentials::parse(&Message::parse(&bytes).expect("valid")), Ok(Credentials::default()));
    }

    #[test]
    fn the_permission_and_the_channel_of_chromium_name_one_peer() {
        let permitted = with(&vectors::chromium_create_permission(), |request| match request {
            Ok(Request::CreatePermission(permission)) => permission.peers().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        with(&vectors::chromium_channel_bind(), |request| match request {
            Ok(Request::ChannelBind(bind)) => {
                assert_eq!(bind.number, Some(0x4000));
                assert_eq!(bind.peer.as_slice(), permitted);
                assert!(permitted[0].ip().is_loopback());
            }
            other => panic!("{other:?}"),
        });
        with(&vectors::chromium_binding(), |request| assert!(matches!(request, Ok(Request::Binding))));
    }

    #[test]
    fn userhash_and_password_algorithm() {
        let bytes = vectors::rfc8489_sha256();
        let credentials = Credentials::parse(&Message::parse(&bytes).expect("valid")).expect("well-formed");
        assert_eq!(credentials.userhash.map(|hash| [hash[0], hash[31]]), Some([0x4a, 0x04]));
        assert_eq!((credentials.username, credentials.realm), (None, Some("example.org")));
        assert_eq!(credentials.nonce.map(|nonce| &nonce[..13]), Some(&b"obMatJos2AAAC"[..]));
        assert_eq!(credentials.password_algorithm, Some(2));
        assert!(credentials.has_sha256 && !credentials.has_sha1);
    }

    #[test]
    fn every_attribute_of_an_allocate() {
        let asked = allocate(&[
            (kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            (kind::LIFETIME, &[0, 0, 0x0e, 0x10]),
            (kind::LIFETIME, &[0, 0, 0, 0]),
            (kind::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
            (kind::ADDITIONAL_ADDRESS_FAMILY, &[7, 0, 0, 0]),
            (kind::EVEN_PORT, &[0x80]),
            (kind::RESERVATION_TOKEN, b"12345678"),
            (kind::DONT_FRAGMENT, b""),
        ]);
        let expected = Allocate {
            transport: Some(17),
            lifetime: Some(3600),
            family: Some(Ok(Family::V6)),
            additional_family: Some(Err(7)),
            even_port: Some(true),
            reservation_token: Some(*b"12345678"),
            dont_fragment: true,
        };
        assert_eq!(asked, Ok(expected));
    }

    #[test]
    fn malformed_attributes_are_named() {
        for (kind, value) in [
            (kind::REQUESTED_TRANSPORT, &[17][..]),
            (kind::LIFETIME, &[0, 0, 0]),
            (kind::REQUESTED_ADDRESS_FAMILY, b""),
            (kind::ADDITIONAL_ADDRESS_FAMILY, &[1]),
            (kind::EVEN_PORT, &[0, 0]),
            (kind::RESERVATION_TOKEN, b"1234567"),
            (kind::DONT_FRAGMENT, b"x"),
        ] {
            assert_eq!(allocate(&[(kind, value)]), Err(BadAttribute(kind)));
        }
        let unknown_family = [0, 3, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        for method in [method::CREATE_PERMISSION, method::CHANNEL_BIND] {
            for value in [&PEER[..7], &[], &unknown_family] {
                let bytes = vectors::message(method, &[(kind::XOR_PEER_ADDRESS, value)]);
                with(&bytes, |request| assert_eq!(request.err(), Some(BadAttribute(kind::XOR_PEER_ADDRESS))));
            }
        }
        // One malformed address makes the whole request malformed.
        let peers = [(kind::XOR_PEER_ADDRESS, &PEER[..]), (kind::XOR_PEER_ADDRESS, &unknown_family)];
        with(&vectors::message(method::CREATE_PERMISSION, &peers), |request| assert!(request.is_err()));
    }

    #[test]
    fn refresh_several_peers_and_an_unknown_method() {
        let bytes = vectors::message(method::REFRESH, &[(kind::LIFETIME, &[0; 4])]);
        with(&bytes, |request| match request {
            Ok(Request::Refresh(refresh)) => {
                assert_eq!(refresh, Refresh { lifetime: Some(0), family: None });
            }
            other => panic!("{other:?}"),
        });
        let two = [(kind::XOR_PEER_ADDRESS, &PEER[..]), (kind::XOR_PEER_ADDRESS, &PEER[..])];
        with(&vectors::message(method::CREATE_PERMISSION, &two), |request| match request {
            Ok(Request::CreatePermission(permission)) => {
                assert_eq!(permission.peers().collect::<Vec<_>>(), [address("192.0.2.1:32853"); 2]);
            }
            other => panic!("{other:?}"),
        });
        with(&vectors::message(0x000a, &[]), |request| assert!(matches!(request, Ok(Request::Other(0x00a)))));
    }

    #[test]
    fn malformed_credentials_are_named() {
        for (kind, value) in [
            (kind::USERNAME, &b"\xff\xfe"[..]),
            (kind::USERNAME, &[b'a'; 764]),
            (kind::USERHASH, &[0; 31]),
            (kind::REALM, b"\xc3\x28"),
            (kind::REALM, &[b'a'; 764]),
            (kind::NONCE, &[b'a'; 764]),
            (kind::PASSWORD_ALGORITHM, &[0, 2, 0]),
            (kind::PASSWORD_ALGORITHM, &[0, 2, 0, 1]),
        ] {
            let bytes = vectors::message(method::ALLOCATE, &[(kind, value)]);
            let credentials = Credentials::parse(&Message::parse(&bytes).expect("well-formed"));
            assert_eq!(credentials, Err(BadAttribute(kind)), "{} bytes", value.len());
        }
    }

    #[test]
    fn unknown_attributes_are_listed_once_and_up_to_a_limit() {
        let unknown = |kinds: &[u16]| {
            let attributes: Vec<(u16, &[u8])> = kinds.iter().map(|&kind| (kind, &b"x"[..])).collect();
            let bytes = vectors::message(method::ALLOCATE, &attributes);
            unknown_required(&Message::parse(&bytes).expect("well-formed"))
        };
        assert!(unknown(&[kind::USERNAME, kind::MOBILITY_TICKET, kind::ORIGIN]).is_empty());
        assert_eq!(unknown(&[0x7001, 0x0003, kind::REALM, 0x7001]).kinds(), [0x7001, 0x0003]);
        let many: Vec<u16> = (0x7000..0x7040).collect();
        assert_eq!(unknown(&many).kinds(), &many[..UNKNOWN_MAX]);
    }
}
