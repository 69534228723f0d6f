//! The payload of the packets of the load: client and time of sending, so that no lookup is needed on arrival.

/// Length of the stamp at the front of every payload: a magic number, the client, the time and the direction.
pub const LEN: usize = 24;
/// The magic number, to reject packets of other programs.
const MARK: [u8; 4] = *b"HPLd";

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To the peer.
    FromClient,
    /// To the client.
    FromPeer,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Direction; 2] = [Direction::FromClient, Direction::FromPeer];
}

/// The stamp at the front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The client that sends or receives it.
    pub client: u32,
    /// The time of sending, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The direction.
    pub direction: Direction,
}

impl Stamp {
    /// Writes the stamp to the front of `payload`, which must have at least [`LEN`] bytes.
    pub fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&MARK);
        payload[4..8].copy_from_slice(&self.client.to_be_bytes());
        payload[8..16].copy_from_slice(&self.at.to_be_bytes());
        payload[16] = self.direction as u8;
    }

    /// Reads the stamp; `None` if the payload does not start with one.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let head: &[u8; LEN] = payload.first_chunk()?;
        let (mark, rest) = head.split_first_chunk::<4>()?;
        let (client, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let direction = *Direction::ALL.get(usize::from(rest[0]))?;
        (*mark == MARK).then_some(Self {
            client: u32::from_be_bytes(*client),
            at: u64::from_be_bytes(*at),
            direction,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stamp_is_read_as_a_stamp() {
        let stamp = Stamp { client: 77, at: 123_456_789_000, direction: Direction::FromPeer };
        let mut payload = [9; 30];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..LEN - 1]), None);
        payload[16] = 2;
        assert_eq!(Stamp::read(&payload), None);
        assert_eq!(Stamp::read(&[0; 40]), None);
    }
}
