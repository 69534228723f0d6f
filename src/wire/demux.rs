//! Which protocol a message belongs to, by its first byte (RFC 8656 section 12, RFC 7983).

/// The protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A STUN message: first byte 0 to 3.
    Stun,
    /// ChannelData with a number from 0x4000 to 0x7FFF. RFC 8656 ends at 0x4FFF, but RFC 5766 did not, and older
    /// clients use the rest; ChannelBind decides whether they may.
    ChannelData,
    /// Neither.
    Other,
}

/// Tells STUN, ChannelData and everything else apart.
pub const fn classify(first_byte: u8) -> Kind {
    match first_byte {
        0..=3 => Kind::Stun,
        64..=127 => Kind::ChannelData,
        _ => Kind::Other,
    }
}

/// Returns whether a STUN message is a request, by the two bits of its class (RFC 8489 section 5).
pub const fn is_request(message: &[u8]) -> bool {
    matches!(*message, [first @ 0..=3, second, ..] if first & 1 == 0 && second & 0x10 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_their_class() {
        // Binding, Allocate and CreatePermission.
        assert!([&[0, 1][..], &[0, 3, 0], &[0, 8]].into_iter().all(is_request));
        // Send and Data indications, a success, an error, ChannelData and nothing.
        for other in [&[0, 0x16][..], &[0, 0x17], &[1, 1], &[1, 0x11], &[0x40, 0], &[0], &[]] {
            assert!(!is_request(other), "{other:?}");
        }
    }

    #[test]
    fn every_first_byte_has_its_kind() {
        let count = |kind| (0..=255).filter(|&byte| classify(byte) == kind).count();
        assert_eq!((count(Kind::Stun), count(Kind::ChannelData), count(Kind::Other)), (4, 64, 188));
        for (byte, kind) in [
            (0x00, Kind::Stun),
            (0x03, Kind::Stun),
            (0x04, Kind::Other),
            (0x16, Kind::Other),
            (0x3f, Kind::Other),
            (0x40, Kind::ChannelData),
            (0x4f, Kind::ChannelData),
            (0x7f, Kind::ChannelData),
            (0x80, Kind::Other),
            (b'G', Kind::ChannelData),
        ] {
            assert_eq!(classify(byte), kind, "{byte:#x}");
        }
    }
}
