//! Relayed addresses: opening, closing, receiving, sending, and ICMP errors. No other file handles their descriptors.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::share::likely;
use crate::net::admission::Descriptor;
use crate::net::budget::LeftOver;
use crate::net::socket;
use crate::net::syscall::{
    Datagram, Epoll, Fragmentation, Offloads, RecvBatch, SendBatch, Unsegmented, is_peer_error, ready,
    receive_drops, receive_icmp, set_error_queue, set_fragmentation,
};
use crate::net::token::{Generation, Token};
use crate::turn::action::{OpenError, PeerIcmp, RelayId};
use crate::turn::address::OnWire;

/// Messages taken from one relayed address at once, so that one busy peer does not delay the others.
pub const MESSAGES: usize = 16;

/// The limit of relay numbers: more than a machine has ports on 64 addresses.
const RELAYS_MAX: u32 = 1 << 22;

/// ICMP errors that a relayed address reports before it ignores them. Anybody can forge them: each one makes a call of the
/// kernel fail, and they share the receive buffer with datagrams of peers.
const ICMP_MAX: u16 = 512;

/// The UDP sockets of all relayed addresses of a worker.
pub struct Relays {
    slots: Vec<Slot>,
    open: usize,
    coalescing: bool,
}

#[derive(Default)]
struct Slot {
    socket: Option<UdpSocket>,
    descriptor: Option<Descriptor>,
    ipv6: bool,
    unsegmented: Unsegmented,
    /// ICMP errors reported.
    icmp: u16,
    generation: Generation,
    /// Datagrams that the kernel had dropped at the last look.
    lost: u32,
    /// How many messages the last receive call returned, and how many datagrams they held.
    received: (u16, u16),
    /// The turn of that call.
    turn: u32,
    /// Readiness that is left for a later turn. While there is any, the socket is in the worker's list of leftovers.
    left_over: LeftOver,
}

/// The state of a relayed address in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not read in this turn yet.
    New,
    /// Left over from an earlier turn, so it is handled with the other leftovers.
    LeftOver,
    /// Read in this turn, or closed.
    Served,
}

impl Slot {
    /// Returns how many messages to request in `turn`. Only one if the last call was before the previous turn and
    /// returned at most one: requesting a second costs a tenth of relaying the first. If there are more, epoll reports
    /// the socket again in the next turn. Otherwise returns the number that is [`likely`] to hold 64 datagrams.
    fn share(&self, turn: u32) -> usize {
        let (messages, datagrams) = (usize::from(self.received.0), usize::from(self.received.1));
        if messages <= 1 && turn.wrapping_sub(self.turn) > 1 {
            return 1;
        }
        likely(messages, datagrams, MESSAGES)
    }
}

impl Relays {
    /// Creates a table with no relay open.
    pub fn new(offloads: Offloads) -> Self {
        Self { slots: Vec::new(), open: 0, coalescing: offloads.coalescing }
    }

    /// Returns how many are open.
    pub fn len(&self) -> usize {
        self.open
    }

    /// Returns whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Binds `address` and registers it as `relay`, holding `descriptor` while it is open.
    ///
    /// # Errors
    /// `InUse` if another port may work, `NoAddress` if the address is not this machine's, else `Unavailable`.
    pub fn open(
        &mut self,
        epoll: &Epoll,
        relay: RelayId,
        address: SocketAddr,
        descriptor: Descriptor,
    ) -> Result<(), OpenError> {
        if relay.0 >= RELAYS_MAX {
            return Err(OpenError::Unavailable);
        }
        self.close(relay);
        let index = relay.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let socket = socket::relay(address, self.coalescing)?;
        let slot = &mut self.slots[index];
        let token = Token::Relay { relay, generation: slot.generation }.pack();
        epoll.add(&socket, token, ready::READ).map_err(|_| OpenError::Unavailable)?;
        (slot.socket, slot.descriptor) = (Some(socket), Some(descriptor));
        (slot.ipv6, slot.unsegmented) = (address.is_ipv6(), Unsegmented::default());
        (slot.icmp, slot.lost) = (0, 0);
        self.open += 1;
        Ok(())
    }

    /// Closes a relay. The caller must send its queued datagrams first.
    pub fn close(&mut self, relay: RelayId) {
        if let Some(slot) = self.slots.get_mut(relay.0 as usize)
            && slot.socket.take().is_some()
        {
            slot.descriptor = None;
            slot.left_over = LeftOver::default();
            slot.generation = slot.generation.next();
            self.open -= 1;
        }
    }

    /// Receives at most [`MESSAGES`] messages in `turn` into the frames from `first` on. Returns how many, and whether the socket may
    /// hold more; `None` if the relay was closed meanwhile or has no datagrams.
    pub fn receive(
        &mut self,
        relay: RelayId,
        generation: Generation,
        received: &mut RecvBatch,
        first: usize,
        turn: u32,
    ) -> Option<(usize, bool)> {
        let slot = self.slots.get_mut(relay.0 as usize).filter(|slot| slot.generation == generation)?;
        let limit = slot.share(turn);
        let socket = slot.socket.as_ref()?;
        let count = match received.receive(socket, first, limit) {
            Ok(count) => count,
            // An ICMP error that arrived after the error queue was read. Reporting it cleared it.
            Err(error) if is_peer_error(&error) => received.receive(socket, first, limit).ok()?,
            Err(_) => return None,
        };
        let datagrams = received.datagrams(first..first + count);
        // The casts lose nothing: at most 16 messages of at most 128 datagrams (UDP_MAX_SEGMENTS).
        (slot.received, slot.turn) = ((count as u16, datagrams as u16), turn);
        Some((count, count == limit))
    }

    /// Returns how many datagrams the kernel has dropped since the last call, because the receive buffer was full.
    pub fn take_lost(&mut self, relay: RelayId) -> u64 {
        let Some(slot) = self.slots.get_mut(relay.0 as usize) else { return 0 };
        let Some(socket) = &slot.socket else { return 0 };
        let lost = receive_drops(socket).unwrap_or(slot.lost);
        // The kernel's counter wraps.
        u64::from(lost.wrapping_sub(std::mem::replace(&mut slot.lost, lost)))
    }

    /// Keeps the readiness of a relay for a later turn. Returns `true` if the caller must add the relay to the list of
    /// leftovers, and `false` if it is listed already or closed.
    pub fn leave_over(&mut self, relay: RelayId, generation: Generation, readiness: u32) -> bool {
        self.slot(relay, generation).is_some_and(|slot| slot.left_over.leave(readiness))
    }

    /// Returns the readiness that was kept for a relay, and clears it; 0 if there is none.
    pub fn take_left_over(&mut self, relay: RelayId, generation: Generation) -> u32 {
        self.slot(relay, generation).map_or(0, |slot| slot.left_over.take())
    }

    /// Returns the state of a relay in `turn`.
    pub fn standing(&mut self, relay: RelayId, generation: Generation, turn: u32) -> Standing {
        match self.slot(relay, generation) {
            None => Standing::Served,
            Some(slot) if slot.left_over.is_some() => Standing::LeftOver,
            Some(slot) if slot.turn == turn => Standing::Served,
            Some(_) => Standing::New,
        }
    }

    fn slot(&mut self, relay: RelayId, generation: Generation) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(relay.0 as usize)?;
        (slot.generation == generation && slot.socket.is_some()).then_some(slot)
    }

    /// Returns the next ICMP error about a datagram sent from `relay`; `None` if there is none or the relay was
    /// closed meanwhile. After 512 of them there are no more.
    pub fn next_icmp(&mut self, relay: RelayId, generation: Generation) -> Option<PeerIcmp> {
        let slot = self.slots.get_mut(relay.0 as usize).filter(|slot| slot.generation == generation)?;
        let socket = slot.socket.as_ref()?;
        let error = receive_icmp(socket).ok()??;
        slot.icmp += 1;
        if slot.icmp == ICMP_MAX {
            // The same call with another value has worked. The queue is emptied.
            let _ = set_error_queue(socket, slot.ipv6, false);
        }
        Some(PeerIcmp { peer: OnWire(error.to), kind: error.kind, code: error.code, data: error.info })
    }

    /// Sends from `relay`, with or without DF, and returns how many datagrams were sent. Calls `failed` for each that
    /// the kernel refuses, with its index.
    pub fn send<'a>(
        &mut self,
        relay: RelayId,
        batch: &mut SendBatch,
        dont_fragment: bool,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        failed: &mut dyn FnMut(usize, io::Error),
    ) -> usize {
        let slot = self.slots.get(relay.0 as usize);
        let parts = slot.and_then(|slot| Some((slot.socket.as_ref()?, slot.ipv6, &slot.unsegmented)));
        let Some((socket, ipv6, unsegmented)) = parts else {
            datagrams.enumerate().for_each(|(index, _)| failed(index, io::ErrorKind::NotConnected.into()));
            return 0;
        };
        // DF is a socket option; it is requested so rarely that two more calls do not matter.
        if dont_fragment && set_fragmentation(socket, ipv6, Fragmentation::Forbidden).is_err() {
            datagrams.enumerate().for_each(|(index, _)| failed(index, io::ErrorKind::Unsupported.into()));
            return 0;
        }
        let sent = batch.send_from((socket.as_fd(), unsegmented), ipv6, datagrams, failed);
        if dont_fragment {
            // The same call with another value has just worked.
            let _ = set_fragmentation(socket, ipv6, Fragmentation::Allowed);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::admission::{Admission, Gate};
    use crate::net::syscall::Events;

    fn descriptor() -> Descriptor {
        Gate::new(Admission::unlimited(), 1).relay().expect("no limit")
    }

    #[test]
    fn a_late_event_does_not_reach_the_next_relay_with_its_number() {
        let (epoll, mut relays) = (Epoll::new().expect("epoll"), Relays::new(Offloads::probe()));
        let (relay, any) = (RelayId(5), "127.0.0.1:0".parse().expect("address"));
        relays.open(&epoll, relay, any, descriptor()).expect("open");
        let address = relays.slots[5].socket.as_ref().expect("open").local_addr().expect("local");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bind");
        peer.send_to(b"x", address).expect("send");
        let mut events = Events::new(4);
        epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
        let (token, _) = events.get(0).expect("readable");
        let Some(Token::Relay { relay: named, generation }) = Token::unpack(token) else {
            panic!("a relay's token");
        };
        assert_eq!(named, relay);
        let mut received = RecvBatch::new();
        let mut receive =
            |relays: &mut Relays, generation| relays.receive(relay, generation, &mut received, 0, 1);
        assert_eq!(receive(&mut relays, generation), Some((1, false)), "16 were requested");
        relays.close(relay);
        relays.open(&epoll, relay, address, descriptor()).expect("the port is free at once");
        peer.send_to(b"y", address).expect("send");
        epoll.wait(&mut events, Some(Duration::from_secs(5))).expect("wait");
        assert_eq!(receive(&mut relays, generation), None);
        assert_eq!(relays.next_icmp(relay, generation), None);
        assert_eq!(receive(&mut relays, generation.next()), Some((1, false)));
        assert_eq!(relays.len(), 1);
    }

    /// The share is counted in datagrams: if each message of a peer holds 64 of them, one message is read in a turn.
    #[test]
    fn coalesced_messages_have_no_larger_share_than_single_datagrams() {
        let share = |received, last| Slot { received, turn: last, ..Slot::default() }.share(9);
        assert_eq!([share((0, 0), 1), share((1, 1), 1), share((1, 64), 1)], [1, 1, 1], "after a pause");
        assert_eq!([share((1, 1), 8), share((16, 16), 8), share((16, 16), 1)], [MESSAGES; 3]);
        assert_eq!([share((16, 32), 8), share((16, 320), 8), share((1, 20), 8)], [16, 3, 3]);
        assert_eq!([share((1, 64), 8), share((16, 1024), 8), share((2, 128), 8)], [1, 1, 1]);
    }

    #[test]
    fn after_many_icmp_errors_they_are_ignored() {
        let (epoll, mut relays) = (Epoll::new().expect("epoll"), Relays::new(Offloads::probe()));
        let (relay, generation) = (RelayId(0), Generation::default());
        for any in ["127.0.0.1:0", "[::1]:0"] {
            relays.open(&epoll, relay, any.parse().expect("address"), descriptor()).expect("open");
            let generation = relays.slots[0].generation;
            let closed = UdpSocket::bind(any).expect("bind").local_addr().expect("local");
            let send = |relays: &Relays| {
                let socket = relays.slots[0].socket.as_ref().expect("open");
                socket.send_to(b"x", closed).is_ok()
            };
            // The kernel reports the error of an earlier datagram.
            let errors = (0..2 * ICMP_MAX).filter(|_| {
                let _ = send(&relays);
                relays.next_icmp(relay, generation).is_some()
            });
            assert_eq!(errors.count(), usize::from(ICMP_MAX), "{any}");
            assert!(send(&relays) && send(&relays) && send(&relays), "{any}");
        }
        assert_eq!(relays.next_icmp(relay, generation), None);
    }

    /// A relay is listed once and its readiness is collected. The next relay with the same number does not inherit it.
    #[test]
    fn a_leftover_relay_is_listed_once_and_keeps_its_readiness() {
        let (epoll, mut relays) = (Epoll::new().expect("epoll"), Relays::new(Offloads::probe()));
        let (relay, any) = (RelayId(0), "127.0.0.1:0".parse().expect("address"));
        relays.open(&epoll, relay, any, descriptor()).expect("open");
        let generation = Generation::default();
        let standing = |relays: &mut Relays, turn| relays.standing(relay, generation, turn);
        assert_eq!(standing(&mut relays, 5), Standing::New);
        relays.slots[0].turn = 5;
        assert_eq!([5, 6].map(|turn| standing(&mut relays, turn)), [Standing::Served, Standing::New]);
        assert!(relays.leave_over(relay, generation, ready::READ));
        assert!(!relays.leave_over(relay, generation, ready::ERROR));
        assert_eq!(standing(&mut relays, 6), Standing::LeftOver);
        assert_eq!(relays.take_left_over(relay, generation), ready::READ | ready::ERROR);
        assert_eq!(relays.take_left_over(relay, generation), 0);
        assert!(relays.leave_over(relay, generation, ready::READ));
        relays.close(relay);
        assert!(!relays.leave_over(relay, generation, ready::READ));
        relays.open(&epoll, relay, any, descriptor()).expect("open");
        assert_eq!(relays.take_left_over(relay, generation.next()), 0);
        assert_eq!(standing(&mut relays, 6), Standing::Served, "the old one is closed");
    }

    #[test]
    fn large_datagrams_are_fragmented_unless_forbidden() {
        let (epoll, mut relays) = (Epoll::new().expect("epoll"), Relays::new(Offloads::probe()));
        let peer = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let to = peer.local_addr().expect("local");
        relays.open(&epoll, RelayId(0), "127.0.0.1:0".parse().expect("address"), descriptor()).expect("open");
        let payload = vec![7; 65_507];
        let mut batch = SendBatch::new(true);
        let mut send = |relays: &mut Relays, dont_fragment, payload: &[u8]| {
            let datagram = Datagram { head: &[], payload, to, source: None };
            let mut error = None;
            let all = &mut [datagram].into_iter();
            relays.send(RelayId(0), &mut batch, dont_fragment, all, &mut |_, e| error = Some(e));
            error.and_then(|error| error.raw_os_error())
        };
        // The datagram has 65,535 bytes with its headers, and the MTU of the loopback interface is 65,536.
        assert_eq!(send(&mut relays, true, &payload), None);
        assert_eq!(send(&mut relays, false, &payload), None);
        assert_eq!(send(&mut relays, false, &[0; 65_508]), Some(libc::EMSGSIZE));
        relays.close(RelayId(0));
        assert_eq!(send(&mut relays, false, b"x"), None, "an error without a number");
        assert!(relays.is_empty());
    }

    #[test]
    fn a_taken_port_and_a_number_above_the_limit_are_errors() {
        let (epoll, mut relays) = (Epoll::new().expect("epoll"), Relays::new(Offloads::probe()));
        let taken = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("local");
        assert_eq!(relays.open(&epoll, RelayId(0), address, descriptor()), Err(OpenError::InUse));
        assert_eq!(
            relays.open(&epoll, RelayId(u32::MAX), address, descriptor()),
            Err(OpenError::Unavailable)
        );
        assert!(relays.is_empty());
    }
}
