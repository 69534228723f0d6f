//! UDP 443 beside HTTP/3: datagrams that are QUIC's go to a server behind us, each client by a socket of its own, so
//! that the server tells them apart (RFC 9443 section 3 for who is who).
//!
//! A QUIC packet with a short header may begin as ChannelData does (64 to 79), so the first byte alone does not decide
//! there: who has an allocation is TURN's, who has a flow here is QUIC's.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use socket2::{Domain, Protocol, Socket, Type};

use super::admission::{Class, Descriptor, Gate};
use super::syscall::{Epoll, ready};
use super::token::{Generation, Token};
use crate::turn::five_tuple::Client;
use crate::turn::time::Instant;

/// Clients at once for one worker: a web site's own limit is lower on such a host.
pub const FLOWS_MAX: usize = 4096;
/// Silence after which a flow is forgotten; QUIC's own idle timeouts are shorter (RFC 9308 section 3.2).
const IDLE: std::time::Duration = std::time::Duration::from_secs(60);
/// The shortest datagram that may begin a connection (RFC 9000 section 14.1).
const INITIAL_MIN: usize = 1200;

/// What a datagram on a shared UDP port may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// STUN, or what nobody knows.
    Turn,
    /// ChannelData of a client with an allocation, or QUIC with a short header.
    Either,
    /// QUIC with a short header.
    Short,
    /// QUIC with a long header, which begins a connection.
    Long,
}

/// Tells by the first byte (RFC 9443 section 3).
pub fn classify(first: u8) -> Kind {
    match first {
        64..=79 => Kind::Either,
        80..=127 => Kind::Short,
        192..=255 => Kind::Long,
        _ => Kind::Turn,
    }
}

struct Flow {
    socket: UdpSocket,
    client: Client,
    generation: Generation,
    active: Instant,
    /// Held while it is open.
    _descriptor: Descriptor,
}

/// The flows of one worker.
#[derive(Default)]
pub struct Flows {
    slots: Vec<Option<Flow>>,
    generations: Vec<Generation>,
    free: Vec<u32>,
    by_client: HashMap<(SocketAddr, u64), u32, FxBuildHasher>,
}

impl Flows {
    /// Whether this client has a flow.
    pub fn has(&self, client: &Client) -> bool {
        self.by_client.contains_key(&key(client))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// Sends a client's datagram to the server at `to`. Gives the token of a new flow, which is to be looked after;
    /// `gate` has a place for it among those of the web.
    ///
    /// # Errors
    /// There is no room, it cannot begin a connection, or the kernel refuses.
    pub fn forward(
        &mut self,
        epoll: &Epoll,
        gate: &Arc<Gate>,
        (client, to): (Client, SocketAddr),
        datagram: &[u8],
        now: Instant,
    ) -> io::Result<Option<Token>> {
        if let Some(&slot) = self.by_client.get(&key(&client))
            && let Some(flow) = &mut self.slots[slot as usize]
        {
            flow.active = now;
            flow.socket.send(datagram)?;
            return Ok(None);
        }
        let begins = datagram.first().is_some_and(|&first| classify(first) == Kind::Long);
        if !begins || datagram.len() < INITIAL_MIN || self.len() >= FLOWS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let descriptor = gate.socket(Class::Web).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.connect(&to.into())?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(Generation::default());
            // Below FLOWS_MAX.
            self.slots.len() as u32 - 1
        });
        let generation = self.generations[slot as usize];
        let token = Token::Quic { slot, generation };
        if let Err(error) = epoll.add(&socket, token.pack(), ready::READ) {
            self.free.push(slot);
            return Err(error);
        }
        let flow = Flow { socket: socket.into(), client, generation, active: now, _descriptor: descriptor };
        // A refusal of the first datagram is one like that of any other.
        let _ = flow.socket.send(datagram);
        self.slots[slot as usize] = Some(flow);
        self.by_client.insert(key(&client), slot);
        Ok(Some(token))
    }

    /// The socket of a flow and its client; `None` when it was closed meanwhile.
    pub fn get(&mut self, token: Token, now: Instant) -> Option<(&UdpSocket, Client)> {
        let flow = self.flow(token)?;
        flow.active = now;
        Some((&flow.socket, flow.client))
    }

    /// When to look after a flow again; `None` when it is over, and closed.
    pub fn life(&mut self, token: Token, now: Instant) -> Option<Instant> {
        let flow = self.flow(token)?;
        let end = flow.active + IDLE;
        if now < end {
            return Some(end);
        }
        self.close(token);
        None
    }

    fn flow(&mut self, token: Token) -> Option<&mut Flow> {
        let Token::Quic { slot, generation } = token else { return None };
        self.slots.get_mut(slot as usize)?.as_mut().filter(|flow| flow.generation == generation)
    }

    fn close(&mut self, token: Token) {
        let Token::Quic { slot, generation } = token else { return };
        if let Some(flow) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.by_client.remove(&key(&flow.client));
            self.generations[slot as usize] = generation.next();
            self.free.push(slot);
        }
    }
}

/// The same address at two listeners is two clients.
fn key(client: &Client) -> (SocketAddr, u64) {
    (client.five_tuple.client, client.link.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::admission::Admission;
    use crate::turn::five_tuple::{FiveTuple, Link, Transport};

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn client(port: u16) -> Client {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        let five_tuple = FiveTuple { transport: Transport::Udp, client: address, server: address };
        Client { five_tuple, link: Link(1 << 56) }
    }

    fn gate() -> Arc<Gate> {
        Gate::new(Admission::unlimited(), 1)
    }

    fn initial() -> Vec<u8> {
        let mut datagram = vec![0; INITIAL_MIN];
        datagram[0] = 0xc3;
        datagram
    }

    #[test]
    fn the_first_byte_says_whose_it_may_be() {
        let count = |kind| (0..=255).filter(|&first| classify(first) == kind).count();
        assert_eq!([Kind::Either, Kind::Short, Kind::Long].map(count), [16, 48, 64]);
        assert!([0, 3, 20, 63, 128, 191].into_iter().all(|first| classify(first) == Kind::Turn));
    }

    #[test]
    fn each_client_has_a_socket_of_his_own_until_he_is_silent() {
        let (epoll, mut flows) = (Epoll::new().expect("epoll"), Flows::default());
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        server.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let to = server.local_addr().expect("address");
        let forward = |flows: &mut Flows, port, datagram: &[u8], now| {
            let token = flows.forward(&epoll, &gate(), (client(port), to), datagram, now);
            token.map(|token| (token, server.recv_from(&mut [0; 2000]).expect("a datagram").1))
        };
        let (first, from_first) = forward(&mut flows, 1, &initial(), NOW).expect("a flow");
        let (second, from_second) = forward(&mut flows, 2, &initial(), NOW).expect("a flow");
        assert_ne!(from_first, from_second);
        let later = NOW + Duration::from_secs(40);
        assert_eq!(forward(&mut flows, 1, b"\x41short", later).expect("known"), (None, from_first));
        let (first, second) = (first.expect("new"), second.expect("new"));
        assert_eq!(flows.get(first, later).map(|(_, client)| client), Some(client(1)));
        let end = NOW + IDLE;
        assert_eq!((flows.life(second, end), flows.life(first, end)), (None, Some(later + IDLE)));
        assert!(!flows.has(&client(2)) && flows.has(&client(1)) && flows.len() == 1);
        // The place is used again, under another token.
        let (third, _) = forward(&mut flows, 3, &initial(), end).expect("a flow");
        assert!(third != Some(second) && flows.get(second, end).is_none());
    }

    #[test]
    fn only_a_connections_beginning_makes_a_flow_and_not_too_many() {
        let (epoll, mut flows) = (Epoll::new().expect("epoll"), Flows::default());
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let to = server.local_addr().expect("address");
        let mut short = initial();
        short[0] = 0x50;
        for datagram in [&b"\xc3 too short"[..], &short, b""] {
            assert!(flows.forward(&epoll, &gate(), (client(9), to), datagram, NOW).is_err());
        }
        assert!(flows.is_empty());
    }
}
