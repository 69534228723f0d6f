//! The attributes of TURN (RFC 8656 section 18), on the traits of `stun_types`. That crate has the attributes of RFC 8489.

pub mod kind;
mod on_stun_types;
mod xor_address;

use on_stun_types::on_stun_types;
pub(super) use xor_address::xor_len;
pub use xor_address::{XorMappedAddress, XorPeerAddress, XorRelayedAddress};
pub(crate) use xor_address::{read_xor, write_xor};

use stun_types::attribute::{
    Attribute, AttributeFromRaw, AttributeStaticType, AttributeType, AttributeWrite, RawAttribute,
};
use stun_types::message::StunParseError;
use stun_types::prelude::{AttributeExt, AttributeWriteExt};

use crate::base::family::Family;

/// Whether a request may carry this type: comprehension-optional, or known here (RFC 8489 section 14). Optional
/// attributes without a use (MOBILITY-TICKET, ORIGIN) are skipped.
pub const fn is_understood(kind: u16) -> bool {
    kind >= 0x8000
        || matches!(
            kind,
            kind::MAPPED_ADDRESS
                | kind::USERNAME
                | kind::MESSAGE_INTEGRITY
                | kind::ERROR_CODE
                | kind::UNKNOWN_ATTRIBUTES
                | kind::CHANNEL_NUMBER
                | kind::LIFETIME
                | kind::XOR_PEER_ADDRESS
                | kind::DATA
                | kind::REALM
                | kind::NONCE
                | kind::XOR_RELAYED_ADDRESS
                | kind::REQUESTED_ADDRESS_FAMILY
                | kind::EVEN_PORT
                | kind::REQUESTED_TRANSPORT
                | kind::DONT_FRAGMENT
                | kind::MESSAGE_INTEGRITY_SHA256
                | kind::PASSWORD_ALGORITHM
                | kind::USERHASH
                | kind::XOR_MAPPED_ADDRESS
                | kind::RESERVATION_TOKEN
        )
}

/// CHANNEL-NUMBER (section 18.1): any number; `turn` decides which ones may be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNumber(pub u16);

impl ChannelNumber {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[high, low, _, _] = value.try_into().ok()?;
        Some(Self(u16::from_be_bytes([high, low])))
    }

    fn encode(&self) -> [u8; 4] {
        let [high, low] = self.0.to_be_bytes();
        [high, low, 0, 0]
    }
}
on_stun_types!(ChannelNumber, kind::CHANNEL_NUMBER);

/// LIFETIME (section 18.2), in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub u32);

impl Lifetime {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(u32::from_be_bytes).map(Self)
    }

    fn encode(&self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}
on_stun_types!(Lifetime, kind::LIFETIME);

/// REQUESTED-ADDRESS-FAMILY (section 18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedAddressFamily(pub Result<Family, u8>);

/// ADDITIONAL-ADDRESS-FAMILY (section 18.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionalAddressFamily(pub Result<Family, u8>);

macro_rules! family {
    ($name:ident, $kind:expr) => {
        impl $name {
            /// Reads the value.
            pub fn decode(value: &[u8]) -> Option<Self> {
                let &[family, _, _, _] = value.try_into().ok()?;
                Some(Self(Family::from_byte(family)))
            }

            fn encode(&self) -> [u8; 4] {
                [self.0.map_or_else(|byte| byte, Family::to_byte), 0, 0, 0]
            }
        }
        on_stun_types!($name, $kind);
    };
}
family!(RequestedAddressFamily, kind::REQUESTED_ADDRESS_FAMILY);
family!(AdditionalAddressFamily, kind::ADDITIONAL_ADDRESS_FAMILY);

/// EVEN-PORT (section 18.7): whether the next higher port is to be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvenPort(pub bool);

impl EvenPort {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[flags] = value.try_into().ok()?;
        Some(Self(flags & 0x80 != 0))
    }

    fn encode(&self) -> [u8; 1] {
        [u8::from(self.0) << 7]
    }
}
on_stun_types!(EvenPort, kind::EVEN_PORT);

/// REQUESTED-TRANSPORT (section 18.8): an IP protocol number; 17 is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedTransport(pub u8);

impl RequestedTransport {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[protocol, _, _, _] = value.try_into().ok()?;
        Some(Self(protocol))
    }

    fn encode(&self) -> [u8; 4] {
        [self.0, 0, 0, 0]
    }
}
on_stun_types!(RequestedTransport, kind::REQUESTED_TRANSPORT);

/// DONT-FRAGMENT (section 18.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DontFragment;

impl DontFragment {
    /// Reads the value, which is empty.
    pub fn decode(value: &[u8]) -> Option<Self> {
        value.is_empty().then_some(Self)
    }

    fn encode(&self) -> [u8; 0] {
        []
    }
}
on_stun_types!(DontFragment, kind::DONT_FRAGMENT);

/// RESERVATION-TOKEN (section 18.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationToken(pub [u8; 8]);

impl ReservationToken {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        value.try_into().ok().map(Self)
    }

    fn encode(&self) -> [u8; 8] {
        self.0
    }
}
on_stun_types!(ReservationToken, kind::RESERVATION_TOKEN);

/// ADDRESS-ERROR-CODE (section 18.12), without a reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressErrorCode {
    /// The family that has no relayed address.
    pub family: Result<Family, u8>,
    /// 300 to 699.
    pub code: u16,
}

impl AddressErrorCode {
    /// Reads the value; a reason phrase is skipped.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[family, _, class, number] = value.first_chunk()?;
        let code = u16::from(class & 7) * 100 + u16::from(number);
        (number < 100).then_some(Self { family: Family::from_byte(family), code })
    }

    fn encode(&self) -> [u8; 4] {
        let family = self.family.map_or_else(|byte| byte, Family::to_byte);
        [family, 0, ((self.code / 100) & 7) as u8, (self.code % 100) as u8]
    }
}
on_stun_types!(AddressErrorCode, kind::ADDRESS_ERROR_CODE);

/// ICMP (section 18.13): an ICMP error about a datagram to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// The error data: for "packet too big" and "fragmentation needed" the MTU, otherwise zero.
    pub data: [u8; 4],
}

impl Icmp {
    /// Reads the value.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[_, _, icmp_type, code, d0, d1, d2, d3] = value.try_into().ok()?;
        Some(Self { icmp_type, code, data: [d0, d1, d2, d3] })
    }

    fn encode(&self) -> [u8; 8] {
        let [d0, d1, d2, d3] = self.data;
        // In the RFC's figure, the type has seven bits and the code nine. In its text, in ICMP and in packet analysers,
        // each has a byte.
        [0, 0, self.icmp_type, self.code, d0, d1, d2, d3]
    }
}
on_stun_types!(Icmp, kind::ICMP);

/// DATA (section 18.4): the application's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a>(pub stun_types::data::Data<'a>);

impl<'a> Data<'a> {
    /// The attribute of these bytes, which are not copied.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.into())
    }
}

impl AttributeStaticType for Data<'_> {
    const TYPE: AttributeType = AttributeType::new(kind::DATA);
}

impl Attribute for Data<'_> {
    fn get_type(&self) -> AttributeType {
        Self::TYPE
    }
    fn length(&self) -> u16 {
        self.0.len() as u16
    }
}

impl<'a> AttributeFromRaw<'a> for Data<'a> {
    fn from_raw_ref(raw: &RawAttribute<'_>) -> Result<Self, StunParseError> {
        Self::from_raw(raw.clone().into_owned())
    }
    fn from_raw(raw: RawAttribute<'a>) -> Result<Self, StunParseError> {
        raw.check_type_and_len(Self::TYPE, ..)?;
        Ok(Self(raw.value))
    }
}

impl AttributeWrite for Data<'_> {
    fn write_into_unchecked(&self, dest: &mut [u8]) {
        self.to_raw().write_into_unchecked(dest);
    }
    fn to_raw(&self) -> RawAttribute<'_> {
        RawAttribute::new(Self::TYPE, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Asserts that the literal decodes to `attribute` and is written again, and that another type is refused.
    fn check<A>(literal: &[u8], attribute: A)
    where
        A: for<'a> AttributeFromRaw<'a> + AttributeWrite + Debug + PartialEq,
    {
        let raw = RawAttribute::from_bytes(literal).expect("literal");
        assert_eq!(A::from_raw_ref(&raw).expect("decodes"), attribute);
        assert_eq!(attribute.to_raw().to_bytes(), literal);
        let mut written = vec![0xaa; literal.len()];
        assert_eq!(attribute.write_into(&mut written).expect("room"), literal.len());
        assert_eq!(written, literal);
        let wrong = RawAttribute::new(0x7fff.into(), &raw.value);
        assert!(A::from_raw_ref(&wrong).is_err());
    }

    fn refuses<A: for<'a> AttributeFromRaw<'a> + AttributeStaticType>(lengths: &[usize]) {
        for &len in lengths {
            let value = vec![0; len];
            assert!(A::from_raw_ref(&RawAttribute::new(A::TYPE, &value)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn channel_number() {
        check(&[0, 0x0c, 0, 4, 0x40, 0x01, 0, 0], ChannelNumber(0x4001));
        refuses::<ChannelNumber>(&[0, 2, 3, 5]);
    }

    #[test]
    fn lifetime() {
        check(&[0, 0x0d, 0, 4, 0, 0, 0x02, 0x58], Lifetime(600));
        refuses::<Lifetime>(&[0, 3, 5]);
    }

    #[test]
    fn address_families() {
        check(&[0, 0x17, 0, 4, 1, 0, 0, 0], RequestedAddressFamily(Ok(Family::V4)));
        check(&[0, 0x17, 0, 4, 9, 0, 0, 0], RequestedAddressFamily(Err(9)));
        check(&[0x80, 0x00, 0, 4, 2, 0, 0, 0], AdditionalAddressFamily(Ok(Family::V6)));
        refuses::<RequestedAddressFamily>(&[0, 1, 5]);
    }

    #[test]
    fn even_port() {
        check(&[0, 0x18, 0, 1, 0x80, 0, 0, 0], EvenPort(true));
        check(&[0, 0x18, 0, 1, 0, 0, 0, 0], EvenPort(false));
        refuses::<EvenPort>(&[0, 2, 4]);
    }

    #[test]
    fn requested_transport() {
        check(&[0, 0x19, 0, 4, 17, 0, 0, 0], RequestedTransport(17));
        refuses::<RequestedTransport>(&[0, 1, 5]);
    }

    #[test]
    fn dont_fragment() {
        check(&[0, 0x1a, 0, 0], DontFragment);
        refuses::<DontFragment>(&[1, 4]);
    }

    #[test]
    fn reservation_token() {
        check(&[0, 0x22, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], ReservationToken([1, 2, 3, 4, 5, 6, 7, 8]));
        refuses::<ReservationToken>(&[0, 7, 9]);
    }

    #[test]
    fn address_error_code() {
        let code = AddressErrorCode { family: Ok(Family::V6), code: 440 };
        check(&[0x80, 0x01, 0, 4, 2, 0, 4, 40], code);
        refuses::<AddressErrorCode>(&[0, 3]);
    }

    #[test]
    fn icmp() {
        let unreachable = Icmp { icmp_type: 3, code: 4, data: [0, 0, 0x05, 0x00] };
        check(&[0x80, 0x04, 0, 8, 0, 0, 3, 4, 0, 0, 5, 0], unreachable);
        refuses::<Icmp>(&[0, 7, 9]);
    }

    #[test]
    fn data() {
        let raw = RawAttribute::from_bytes(&[0, 0x13, 0, 3, b'a', b'b', b'c', 0]).expect("literal");
        let data = Data::from_raw(raw).expect("any bytes");
        assert_eq!(data, Data::new(b"abc"));
        assert_eq!(data.to_raw().to_bytes(), [0, 0x13, 0, 3, b'a', b'b', b'c', 0]);
        assert_eq!(Data::from_raw_ref(&data.to_raw()).expect("any bytes").length(), 3);
    }

    #[test]
    fn what_is_understood() {
        for kind in [kind::USERNAME, kind::DONT_FRAGMENT, kind::MOBILITY_TICKET, kind::ORIGIN, 0xffff] {
            assert!(is_understood(kind), "{kind:#x}");
        }
        // CHANGE-REQUEST (RFC 5780), CONNECTION-ID (RFC 6062), PRIORITY (ICE)
        for kind in [0x0003, kind::ACCESS_TOKEN, 0x002a, 0x0024, 0x7fff] {
            assert!(!is_understood(kind), "{kind:#x}");
        }
    }
}
