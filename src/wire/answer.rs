//! Responses as types: everything a client needs, borrowed from the message. Only attributes before the integrity attribute
//! count. If a type occurs more than once, only the first counts, except for XOR-RELAYED-ADDRESS.

use std::net::{IpAddr, SocketAddr};

use super::WireError;
use super::attribute::{AddressErrorCode, Lifetime, ReservationToken, is_understood, kind, read_xor};
use super::message::{Message, MessageClass};
use crate::base::family::Family;

/// The longest reason phrase, SOFTWARE, REALM and NONCE: 127 characters in UTF-8, with room for what RFC 5389 allowed
/// (RFC 8489 sections 14.8 to 14.14).
pub const TEXT_MAX: usize = 763;

/// ERROR-CODE (RFC 8489 section 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// The reason phrase as sent; UTF-8 from servers that follow the RFC.
    pub reason: &'a [u8],
}

/// A response to a request.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    message: Message<'a>,
    error: Option<ErrorCode<'a>>,
}

impl<'a> Answer<'a> {
    /// Reads a success or error response (RFC 8489 sections 6.3.3 and 6.3.4).
    ///
    /// # Errors
    /// - [`WireError::WrongKind`] if it is not a response;
    /// - [`WireError::UnknownAttribute`] for a required attribute that is not known here;
    /// - [`WireError::BadAttribute`] if an error response has no ERROR-CODE, or a malformed one.
    pub fn parse(message: &Message<'a>) -> Result<Self, WireError> {
        let is_error = match message.class() {
            MessageClass::Success => false,
            MessageClass::Error => true,
            MessageClass::Request | MessageClass::Indication => return Err(WireError::WrongKind),
        };
        if let Some(unknown) = message.attributes().find(|attribute| !is_understood(attribute.kind)) {
            return Err(WireError::UnknownAttribute(unknown.kind));
        }
        let mut answer = Self { message: *message, error: None };
        if is_error {
            let error = answer.value(kind::ERROR_CODE).and_then(error_code);
            answer.error = Some(error.ok_or(WireError::BadAttribute(kind::ERROR_CODE))?);
        }
        Ok(answer)
    }

    /// The message itself.
    pub fn message(&self) -> &Message<'a> {
        &self.message
    }

    /// ERROR-CODE; `None` in a success response.
    pub fn error(&self) -> Option<ErrorCode<'a>> {
        self.error
    }

    /// XOR-MAPPED-ADDRESS: the client's address as the server sees it.
    pub fn mapped(&self) -> Option<SocketAddr> {
        read_xor(self.value(kind::XOR_MAPPED_ADDRESS)?, self.message.transaction_id())
    }

    /// Every XOR-RELAYED-ADDRESS, in order.
    pub fn relayed(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let id = self.message.transaction_id();
        let all = self.message.attributes().filter(|attribute| attribute.kind == kind::XOR_RELAYED_ADDRESS);
        all.filter_map(move |attribute| read_xor(attribute.value, id))
    }

    /// LIFETIME, seconds.
    pub fn lifetime(&self) -> Option<u32> {
        Lifetime::decode(self.value(kind::LIFETIME)?).map(|lifetime| lifetime.0)
    }

    /// RESERVATION-TOKEN.
    pub fn reservation_token(&self) -> Option<[u8; 8]> {
        ReservationToken::decode(self.value(kind::RESERVATION_TOKEN)?).map(|token| token.0)
    }

    /// ADDRESS-ERROR-CODE: why one family of a dual allocation is missing.
    pub fn address_error(&self) -> Option<AddressErrorCode> {
        AddressErrorCode::decode(self.value(kind::ADDRESS_ERROR_CODE)?)
    }

    /// SOFTWARE as sent.
    pub fn software(&self) -> Option<&'a [u8]> {
        self.text(kind::SOFTWARE)
    }

    /// REALM as sent.
    pub fn realm(&self) -> Option<&'a [u8]> {
        self.text(kind::REALM)
    }

    /// NONCE as sent.
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.text(kind::NONCE)
    }

    /// The value of PASSWORD-ALGORITHMS, to be returned unchanged.
    pub fn password_algorithms(&self) -> Option<&'a [u8]> {
        self.value(kind::PASSWORD_ALGORITHMS)
    }

    /// UNKNOWN-ATTRIBUTES of a 420, in order.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = u16> + use<'a> {
        let value = self.value(kind::UNKNOWN_ATTRIBUTES).unwrap_or_default();
        value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// ALTERNATE-SERVER of a 300.
    pub fn alternate_server(&self) -> Option<SocketAddr> {
        read_plain(self.value(kind::ALTERNATE_SERVER)?)
    }

    /// ALTERNATE-DOMAIN of a 300: the name in the alternate's certificate.
    pub fn alternate_domain(&self) -> Option<&'a [u8]> {
        self.text(kind::ALTERNATE_DOMAIN)
    }

    fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.message.attribute(kind).map(|attribute| attribute.value)
    }

    fn text(&self, kind: u16) -> Option<&'a [u8]> {
        self.value(kind).filter(|value| value.len() <= TEXT_MAX)
    }
}

/// The password algorithms in a PASSWORD-ALGORITHMS value, in order (RFC 8489 section 14.11). Ends at the first
/// incomplete entry.
pub fn algorithms(value: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (&[n0, n1, l0, l1], tail) = rest.split_first_chunk()?;
        let parameters = usize::from(u16::from_be_bytes([l0, l1])).next_multiple_of(4);
        rest = tail.get(parameters..)?;
        Some(u16::from_be_bytes([n0, n1]))
    })
}

fn error_code(value: &[u8]) -> Option<ErrorCode<'_>> {
    let (&[_, _, class, number], reason) = value.split_first_chunk()?;
    let class = class & 7;
    let valid = (3..=6).contains(&class) && number < 100 && reason.len() <= TEXT_MAX;
    valid.then_some(ErrorCode { code: u16::from(class) * 100 + u16::from(number), reason })
}

/// Reads an address that is not XOR-ed (RFC 8489 section 14.1).
fn read_plain(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, high, low], address) = value.split_first_chunk()?;
    let ip = match Family::from_byte(family).ok()? {
        Family::V4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        Family::V6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::method;
    use crate::wire::vectors;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    fn with<T>(
        kind: u16,
        attributes: &[(u16, &[u8])],
        look: impl FnOnce(Result<Answer<'_>, WireError>) -> T,
    ) -> T {
        let bytes = vectors::message(kind, attributes);
        look(Answer::parse(&Message::parse(&bytes).expect("well-formed")))
    }

    const ALLOCATED: u16 = 0x0103;
    const REFUSED: u16 = 0x0113;

    #[test]
    fn an_allocation() {
        let v4: &[u8] = &[0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        let attributes = [
            (kind::XOR_RELAYED_ADDRESS, v4),
            (kind::XOR_MAPPED_ADDRESS, v4),
            (kind::LIFETIME, &[0, 0, 2, 0x58]),
            (kind::RESERVATION_TOKEN, b"12345678"),
            (kind::ADDRESS_ERROR_CODE, &[2, 0, 4, 40]),
            (kind::SOFTWARE, b"a server"),
        ];
        with(ALLOCATED, &attributes, |answer| {
            let answer = answer.expect("valid");
            assert_eq!(answer.error(), None);
            assert_eq!(answer.relayed().collect::<Vec<_>>(), [address("192.0.2.1:32853")]);
            assert_eq!(answer.mapped(), Some(address("192.0.2.1:32853")));
            assert_eq!(answer.lifetime(), Some(600));
            assert_eq!(answer.reservation_token(), Some(*b"12345678"));
            let error = AddressErrorCode { family: Ok(Family::V6), code: 440 };
            assert_eq!(answer.address_error(), Some(error));
            assert_eq!(answer.software(), Some(&b"a server"[..]));
            assert_eq!(answer.message().method(), method::ALLOCATE);
        });
    }

    #[test]
    fn a_challenge_and_a_redirection() {
        let attributes: [(u16, &[u8]); 6] = [
            (kind::ERROR_CODE, b"\0\0\x03\0Try Alternate"),
            (kind::REALM, b"example.org"),
            (kind::NONCE, b"nonce"),
            (kind::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]),
            (kind::ALTERNATE_SERVER, &[0, 1, 0x0d, 0x96, 192, 0, 2, 1]),
            (kind::ALTERNATE_DOMAIN, b"other.example.org"),
        ];
        with(REFUSED, &attributes, |answer| {
            let answer = answer.expect("valid");
            assert_eq!(answer.error(), Some(ErrorCode { code: 300, reason: b"Try Alternate" }));
            assert_eq!((answer.realm(), answer.nonce()), (Some(&b"example.org"[..]), Some(&b"nonce"[..])));
            let offered = answer.password_algorithms().expect("there");
            assert_eq!(algorithms(offered).collect::<Vec<_>>(), [2, 1]);
            assert_eq!(answer.alternate_server(), Some(address("192.0.2.1:3478")));
            assert_eq!(answer.alternate_domain(), Some(&b"other.example.org"[..]));
        });
        let unknown: [(u16, &[u8]); 2] =
            [(kind::ERROR_CODE, &[0, 0, 4, 20]), (kind::UNKNOWN_ATTRIBUTES, &[0x70, 1, 0x70, 2])];
        with(REFUSED, &unknown, |answer| {
            let kinds: Vec<u16> = answer.expect("valid").unknown_attributes().collect();
            assert_eq!(kinds, [0x7001, 0x7002]);
        });
    }

    #[test]
    fn malformed_answers_are_refused() {
        let error = |attributes: &[(u16, &[u8])]| with(REFUSED, attributes, |answer| answer.err());
        let malformed = Some(WireError::BadAttribute(kind::ERROR_CODE));
        for value in [&[][..], &[0, 0, 4], &[0, 0, 2, 1], &[0, 0, 7, 1], &[0, 0, 4, 100]] {
            assert_eq!(error(&[(kind::ERROR_CODE, value)]), malformed, "{value:?}");
        }
        assert_eq!(error(&[]), malformed);
        let code: (u16, &[u8]) = (kind::ERROR_CODE, &[0, 0, 4, 1]);
        assert_eq!(error(&[code, (0x7abc, b"")]), Some(WireError::UnknownAttribute(0x7abc)));
        assert_eq!(error(&[code, (0xfabc, b"")]), None);
        assert_eq!(with(0x0003, &[], |answer| answer.err()), Some(WireError::WrongKind));
    }

    #[test]
    fn truncated_lists_and_addresses() {
        let list = |value: &[u8]| algorithms(value).collect::<Vec<_>>();
        assert_eq!(list(&[0, 2, 0, 3, 9, 9, 9, 0, 0, 1, 0, 0]), [2, 1]);
        assert_eq!(list(&[0, 2, 0, 0, 0, 1, 0, 4]), [2]);
        assert!(list(&[0, 2, 0]).is_empty());
        for cut in [&[0, 1, 0, 1, 2, 3, 4][..], &[0, 3, 0, 1, 2, 3, 4, 5], &[]] {
            assert_eq!(read_plain(cut), None);
        }
        assert_eq!(
            read_plain(&[0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            Some(address("[::1]:7"))
        );
    }
}
