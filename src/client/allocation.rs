//! What the server granted: the allocation, its permissions and channels.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::WireError;
use crate::wire::answer::Answer;
use crate::wire::attribute::{AddressErrorCode, kind};
use crate::wire::demux::{Kind, classify};

/// How long a permission lives (RFC 8656 section 9).
pub const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// How long a channel lives (RFC 8656 section 12).
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// How long after a channel expires its number must not be bound to another peer, nor its peer to another number
/// (RFC 8656 section 12).
const CHANNEL_REST: Duration = Duration::from_secs(300);
/// Maximum number of permissions that one client asks for, and of channels.
pub const PEERS_MAX: usize = 64;
/// The lowest channel number of RFC 8656 section 12.
const CHANNEL_MIN: u16 = 0x4000;
/// The highest one.
const CHANNEL_MAX: u16 = 0x4fff;

/// An allocation as the server described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The first XOR-RELAYED-ADDRESS.
    pub relayed: SocketAddr,
    /// The second one, of an allocation for both families.
    pub second: Option<SocketAddr>,
    /// XOR-MAPPED-ADDRESS: the client as the server sees it.
    pub mapped: Option<SocketAddr>,
    /// LIFETIME.
    pub lifetime: Duration,
    /// When it ends without a refresh.
    pub expires: Instant,
    /// RESERVATION-TOKEN, when EVEN-PORT asked for it.
    pub reservation_token: Option<[u8; 8]>,
    /// ADDRESS-ERROR-CODE: why one of the two families is missing.
    pub address_error: Option<AddressErrorCode>,
}

impl Allocation {
    /// Reads the answer to an Allocate (RFC 8656 section 7.3).
    pub(super) fn read(now: Instant, answer: &Answer<'_>) -> Result<Self, WireError> {
        let mut relayed = answer.relayed();
        let first = relayed.next().ok_or(WireError::BadAttribute(kind::XOR_RELAYED_ADDRESS))?;
        let seconds = answer.lifetime().ok_or(WireError::BadAttribute(kind::LIFETIME))?;
        let lifetime = Duration::from_secs(seconds.into());
        Ok(Self {
            relayed: first,
            second: relayed.next(),
            mapped: answer.mapped(),
            lifetime,
            expires: now + lifetime,
            reservation_token: answer.reservation_token(),
            address_error: answer.address_error(),
        })
    }
}

/// The permissions and channels of an allocation.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
}

impl Peers {
    /// Whether a permission for `ip` would stay within [`PEERS_MAX`].
    pub(super) fn has_room_for(&self, now: Instant, ip: IpAddr) -> bool {
        let live = self.permissions.iter().filter(|(known, expires)| *expires > now && *known != ip);
        live.count() < PEERS_MAX
    }

    /// Records a permission that the server granted. It was requested at `asked`.
    pub(super) fn permit(&mut self, now: Instant, asked: Instant, ip: IpAddr) {
        // Counted from the request: the server starts its own timer later, so the permission expires here first.
        let expires = asked + PERMISSION_LIFETIME;
        self.permissions.retain(|(known, expires)| *expires > now && *known != ip);
        self.permissions.push((ip, expires));
    }

    /// Whether `peer` may be sent to.
    pub(super) fn is_permitted(&self, now: Instant, peer: SocketAddr) -> bool {
        self.permissions.iter().any(|(ip, expires)| *ip == peer.ip() && *expires > now)
    }

    /// The channel number for `peer`: the one that it has, otherwise the lowest free one for which `asked` is false.
    /// `None` if [`PEERS_MAX`] channels are held.
    pub(super) fn number_for(
        &self,
        now: Instant,
        peer: SocketAddr,
        asked: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if let Some(channel) = self.held(now).find(|channel| channel.peer == peer) {
            return Some(channel.number);
        }
        if self.held(now).count() >= PEERS_MAX {
            return None;
        }
        let free = |number: &u16| !asked(*number) && self.held(now).all(|channel| channel.number != *number);
        (CHANNEL_MIN..=CHANNEL_MAX).find(free)
    }

    /// Records a channel that the server bound. It was requested at `asked`. A number outside the range of ChannelData
    /// is not used, even if the server accepts it: messages on it would be taken for another protocol.
    pub(super) fn bind(&mut self, now: Instant, asked: Instant, number: u16, peer: SocketAddr) {
        self.permit(now, asked, peer.ip());
        if classify(number.to_be_bytes()[0]) != Kind::ChannelData {
            return;
        }
        self.channels.retain(|channel| {
            channel.expires + CHANNEL_REST > now && channel.number != number && channel.peer != peer
        });
        self.channels.push(Channel { number, peer, expires: asked + CHANNEL_LIFETIME });
    }

    /// The live channel to `peer`.
    pub(super) fn channel_to(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let live = self.channels.iter().find(|channel| channel.peer == peer && channel.expires > now);
        live.map(|channel| channel.number)
    }

    /// The peer that data on this channel comes from. An expired channel still counts: data may be in flight.
    pub(super) fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.channels.iter().find(|channel| channel.number == number).map(|channel| channel.peer)
    }

    /// Live channels, and expired ones whose number and peer must not be bound otherwise yet.
    fn held(&self, now: Instant) -> impl Iterator<Item = &Channel> {
        self.channels.iter().filter(move |channel| channel.expires + CHANNEL_REST > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn peer(n: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], port))
    }

    #[test]
    fn permissions_cover_all_ports_of_an_address_and_expire() {
        let mut peers = Peers::default();
        peers.permit(at(1), at(0), peer(1, 0).ip());
        assert!(peers.is_permitted(at(299), peer(1, 7)) && !peers.is_permitted(at(299), peer(2, 7)));
        assert!(!peers.is_permitted(at(300), peer(1, 7)));
        peers.permit(at(299), at(299), peer(1, 0).ip());
        assert!(peers.is_permitted(at(598), peer(1, 7)));
        assert_eq!(peers.permissions.len(), 1);
    }

    #[test]
    fn channels_keep_their_peer_for_a_while() {
        let mut peers = Peers::default();
        let none = |_| false;
        assert_eq!(peers.number_for(at(0), peer(1, 7), none), Some(0x4000));
        assert_eq!(peers.number_for(at(0), peer(1, 7), |n| n < 0x4003), Some(0x4003));
        peers.bind(at(0), at(0), 0x4000, peer(1, 7));
        assert_eq!(peers.channel_to(at(599), peer(1, 7)), Some(0x4000));
        assert_eq!(peers.number_for(at(599), peer(1, 7), none), Some(0x4000));
        assert_eq!(peers.number_for(at(599), peer(1, 8), none), Some(0x4001));
        assert_eq!(peers.channel_to(at(600), peer(1, 7)), None);
        assert_eq!(peers.peer_of(0x4000), Some(peer(1, 7)));
        assert_eq!(peers.number_for(at(899), peer(1, 8), none), Some(0x4001));
        assert_eq!(peers.number_for(at(900), peer(1, 8), none), Some(0x4000));
        assert!(peers.is_permitted(at(299), peer(1, 9)), "binding permits");
    }

    #[test]
    fn a_number_of_another_protocol_is_not_used() {
        let mut peers = Peers::default();
        for number in [0x0001, 0x3fff, 0x8000] {
            peers.bind(at(0), at(0), number, peer(1, 7));
            assert_eq!(peers.channel_to(at(1), peer(1, 7)), None, "{number:#x}");
        }
        assert!(peers.is_permitted(at(1), peer(1, 7)));
        peers.bind(at(0), at(0), 0x7fff, peer(1, 7));
        assert_eq!(peers.channel_to(at(1), peer(1, 7)), Some(0x7fff), "RFC 5766");
    }

    #[test]
    fn permissions_and_channels_have_a_limit() {
        let mut peers = Peers::default();
        for n in 0..PEERS_MAX as u8 {
            assert!(peers.has_room_for(at(0), peer(n, 1).ip()));
            peers.bind(at(0), at(0), 0x4000 + u16::from(n), peer(n, 1));
        }
        assert!(!peers.has_room_for(at(0), peer(200, 1).ip()) && peers.has_room_for(at(0), peer(1, 1).ip()));
        assert_eq!(peers.number_for(at(0), peer(200, 1), |_| false), None);
        assert_eq!(peers.number_for(at(900), peer(200, 1), |_| false), Some(0x4000));
    }
}
