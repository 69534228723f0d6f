//! Address families.

/// An address family (RFC 8489 section 14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, 0x01.
    V4,
    /// IPv6, 0x02.
    V6,
}

/// The family of the relayed address for a client that names none (RFC 8656 section 7.2 says IPv4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultFamily {
    /// IPv4.
    #[default]
    V4,
    /// IPv6; IPv4 while the server has no IPv6 address to relay from.
    V6,
    /// The family of the client's own address; IPv4 while the server has no address of that family to relay from.
    Client,
}

impl Family {
    /// Every family, in the order of its number.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The byte in STUN attributes.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The family that a byte in a STUN attribute names.
    ///
    /// # Errors
    /// The byte itself if it names no family. A request with such a byte is answered with 440; it is not malformed.
    pub const fn from_byte(byte: u8) -> Result<Self, u8> {
        match byte {
            1 => Ok(Self::V4),
            2 => Ok(Self::V6),
            _ => Err(byte),
        }
    }
}
