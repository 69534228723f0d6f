//! The connection id that a QUIC server chose: a client that sends to it has received the server's answer.
//!
//! Reads only the version-independent part of a header (RFC 8999 section 5): form, version, and the two ids.

/// The longest id of the versions in use (RFC 9000 section 17.2).
const LEN_MAX: usize = 20;
/// Form and fixed bit, version, length of the destination id.
const LONG_HEADER: usize = 6;
const LONG_FORM: u8 = 0x80;

/// An id that a server chose for itself.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionId {
    len: u8,
    bytes: [u8; LEN_MAX],
}

impl ConnectionId {
    /// Returns the id that the server names as its own: the source id of a long header. `None` for anything else,
    /// also for Version Negotiation, whose source id is the one that the client sent (RFC 9000 section 17.2.1), and for
    /// an empty id, which proves nothing: every datagram has it (RFC 9000 section 5.1).
    pub fn of_server(answer: &[u8]) -> Option<Self> {
        let (&[first, version @ .., destination], rest) = answer.split_first_chunk::<LONG_HEADER>()?;
        if first & LONG_FORM == 0 || version == [0; 4] {
            return None;
        }
        let (&len, rest) = rest.get(usize::from(destination)..)?.split_first()?;
        let id = rest.get(..usize::from(len)).filter(|id| !id.is_empty())?;
        let mut bytes = [0; LEN_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { len, bytes })
    }

    /// Returns whether a client's datagram is addressed to this id.
    pub fn is_destination_of(&self, datagram: &[u8]) -> bool {
        let id = &self.bytes[..usize::from(self.len)];
        match datagram.split_first_chunk::<LONG_HEADER>() {
            Some((&[first, .., len], rest)) if first & LONG_FORM != 0 => {
                len == self.len && rest.starts_with(id)
            }
            // In a short header, the id follows one byte.
            _ => datagram.get(1..).is_some_and(|rest| rest.starts_with(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(version: u32, destination: &[u8], source: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc3];
        packet.extend(version.to_be_bytes());
        for id in [destination, source] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        packet.extend([9; 30]);
        packet
    }

    #[test]
    fn the_servers_id_is_read_from_its_answer_and_recognised() {
        let id = ConnectionId::of_server(&long(1, b"client", b"server's")).expect("an id");
        assert!(id.is_destination_of(&long(1, b"server's", b"client")));
        assert!(id.is_destination_of(b"\x41server's and more"));
        for foreign in
            [&long(1, b"client", b"server's")[..], &long(1, b"server", b"x"), b"\x41server", b"\x41", b""]
        {
            assert!(!id.is_destination_of(foreign), "{foreign:02x?}");
        }
    }

    #[test]
    fn an_answer_without_an_id_of_the_server_proves_nothing() {
        let answer = long(1, b"client", b"server's");
        for cut in 0..LONG_HEADER + 6 + 1 + 8 {
            assert!(ConnectionId::of_server(&answer[..cut]).is_none(), "{cut} bytes");
        }
        assert!(ConnectionId::of_server(&long(0, b"a", b"client")).is_none(), "version negotiation");
        assert!(ConnectionId::of_server(&long(1, b"client", b"")).is_none(), "an empty id");
        assert!(ConnectionId::of_server(b"\x41 a short header, long enough").is_none());
        assert!(ConnectionId::of_server(&long(1, b"client", &[7; LEN_MAX + 1])).is_none());
        assert!(ConnectionId::of_server(&long(1, &[7; LEN_MAX], &[7; LEN_MAX])).is_some());
    }
}
