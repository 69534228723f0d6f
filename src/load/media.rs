//! What the packets of the load carry: who sent them and when, so that nothing has to be looked up when they arrive.

/// Bytes at the front of every payload: a mark, the client, the time, the direction.
pub const LEN: usize = 24;
/// Strangers' packets do not start like this.
const MARK: [u8; 4] = *b"HPLd";

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The client that sent it or is to get it.
    pub client: u32,
    /// When it was sent, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// Which way.
    pub direction: Direction,
}

impl Stamp {
    /// Writes it to the front of `payload`, which has at least [`LEN`] bytes.
    pub fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&MARK);
        payload[4..8].copy_from_slice(&self.client.to_be_bytes());
        payload[8..16].copy_from_slice(&self.at.to_be_bytes());
        payload[16] = self.direction as u8;
    }

    /// Reads it; `None` when this payload is not ours.
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
    fn a_stamp_comes_back_and_others_are_not_taken_for_one() {
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
