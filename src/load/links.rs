//! The network links of all clients, behind a small interface.
//!
//! On IPv4 loopback, where every address of 127.0.0.0/8 is local, UDP clients can be addresses on one shared socket, so
//! that a thousand clients cost one call per batch. Elsewhere, each client has a socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::options::{Connect, Target};
use super::port::Port;
use super::stream::{Buffer, Stream, Transition};
use super::tls;
use crate::base::transport::Transport;
use crate::client;
use crate::net::syscall::{Epoll, RecvBatch, SendBatch, Source, enable_packet_info, ready};

/// The first client address on loopback: 127.1.0.1.
const FIRST_CLIENT: u32 = 0x7f01_0001;
/// Number of client addresses before they repeat: up to 127.126.0.0.
const ADDRESSES: u32 = 0x007d_0000;

/// The token of the shared socket; all slots are below.
const SHARED: usize = u32::MAX as usize;

const READ: u32 = ready::READ | ready::PEER_CLOSED;

/// Input from a link.
pub enum Incoming<'a> {
    /// A message or datagram; its content names the client.
    Message(&'a [u8]),
    /// This slot's connection is open.
    Open(usize),
    /// This slot's connection has ended.
    Closed(usize, io::Error),
}

/// The links of all clients.
pub struct Links {
    routes: Vec<Route>,
    /// The socket of all UDP clients, on IPv4 loopback.
    shared: Option<Box<Port>>,
    slots: Vec<Link>,
    /// Slots with queued messages, and [`SHARED`].
    dirty: Vec<usize>,
    buffer: Buffer,
}

/// One way to the server.
struct Route {
    address: SocketAddr,
    transport: Transport,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// The link of one client.
enum Link {
    Closed,
    /// By the socket of all clients to this address.
    Shared(SocketAddr),
    /// By a socket of its own to this address.
    Own(Box<Port>, SocketAddr),
    Stream(Box<Stream>),
}

impl Links {
    /// Creates links for up to `slots` clients at once. Tokens in `epoll` are the numbers of the slots, and [`SHARED`].
    ///
    /// # Errors
    /// The error of a socket that cannot be opened, an invalid TLS server name, or the system's certificates cannot be
    /// read.
    pub fn new(connect: &Connect, slots: usize, epoll: &Epoll) -> io::Result<Self> {
        let routes = connect.routes.iter().map(Route::new).collect::<io::Result<Vec<_>>>()?;
        let may_share = !connect.own_sockets && routes.iter().any(Route::is_on_loopback);
        let shared = match may_share {
            true => {
                let port = Port::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
                enable_packet_info(&port.socket, false)?;
                epoll.add(&port.socket, SHARED as u64, READ)?;
                Some(Box::new(port))
            }
            false => None,
        };
        let slots = (0..slots).map(|_| Link::Closed).collect();
        Ok(Self { routes, shared, slots, dirty: Vec::new(), buffer: Buffer::default() })
    }

    /// Returns what carries the messages of a client on this route: streams pad messages and do not repeat requests.
    pub fn link(&self, route: usize) -> client::Link {
        let Route { address, transport, .. } = self.routes[route];
        if transport.is_stream() { client::Link::Stream } else { client::Link::Datagrams { server: address } }
    }

    /// Opens the link of a slot by this route; returns `true` if it is open at once, else [`Incoming::Open`] follows.
    ///
    /// # Errors
    /// The error of a socket that cannot be opened.
    pub fn open(&mut self, slot: usize, route: usize, epoll: &Epoll) -> io::Result<bool> {
        let route = &self.routes[route];
        if route.transport.is_stream() {
            let tls = route.tls.as_ref().map(|(config, name)| (config, name));
            let stream = Stream::connect(route.address, tls)?;
            epoll.add(&stream.socket, slot as u64, READ | ready::WRITE)?;
            self.slots[slot] = Link::Stream(Box::new(stream));
            return Ok(false);
        }
        self.slots[slot] = match self.shared {
            Some(_) if route.is_on_loopback() => Link::Shared(route.address),
            _ => {
                let any: IpAddr = match route.address {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                let port = Port::bind((any, 0).into())?;
                epoll.add(&port.socket, slot as u64, READ)?;
                Link::Own(Box::new(port), route.address)
            }
        };
        Ok(true)
    }

    /// Closes the link of a slot.
    pub fn close(&mut self, slot: usize) {
        self.slots[slot] = Link::Closed;
    }

    /// Returns the ports of the UDP sockets of single clients.
    pub fn udp_ports(&self) -> impl Iterator<Item = u16> {
        let own = self.slots.iter().filter_map(|link| match link {
            Link::Own(port, _) => Some(port.local().port()),
            _ => None,
        });
        own.chain(self.shared.iter().map(|port| port.local().port()))
    }

    /// Queues a message to the server; returns `false` if the link is closed or its queue is full.
    pub fn push(&mut self, slot: usize, client: u32, pieces: &[&[u8]]) -> bool {
        let (dirty, newly) = match (&mut self.slots[slot], &mut self.shared) {
            (Link::Shared(address), Some(port)) => {
                let ip = Ipv4Addr::from_bits(FIRST_CLIENT + client % ADDRESSES);
                (SHARED, port.push(*address, Some(Source { ip: ip.into(), interface: 0 }), pieces))
            }
            (Link::Own(port, address), _) => (slot, port.push(*address, None, pieces)),
            (Link::Stream(stream), _) if stream.is_open() => {
                if !stream.push(pieces) {
                    return false;
                }
                (slot, true)
            }
            _ => return false,
        };
        if newly && self.dirty.last() != Some(&dirty) {
            self.dirty.push(dirty);
        }
        true
    }

    /// Sends everything queued; returns how many datagrams the kernel refused.
    pub fn flush(
        &mut self,
        batch: &mut SendBatch,
        epoll: &Epoll,
        deliver: &mut dyn FnMut(Incoming<'_>),
    ) -> u64 {
        let mut refused = 0;
        while let Some(slot) = self.dirty.pop() {
            if slot == SHARED {
                refused += self.shared.as_mut().map_or(0, |port| port.flush(batch));
                continue;
            }
            match &mut self.slots[slot] {
                Link::Closed | Link::Shared(_) => {}
                Link::Own(port, _) => refused += port.flush(batch),
                Link::Stream(stream) => {
                    let result = stream.flush().and_then(|()| match stream.wants_room() {
                        true => epoll.modify(&stream.socket, slot as u64, READ | ready::WRITE),
                        false => Ok(()),
                    });
                    if let Err(error) = result {
                        self.slots[slot] = Link::Closed;
                        deliver(Incoming::Closed(slot, error));
                    }
                }
            }
        }
        refused
    }

    /// Handles an event of a slot, or of the shared socket.
    pub fn on_event(
        &mut self,
        slot: usize,
        readiness: u32,
        batch: &mut RecvBatch,
        epoll: &Epoll,
        deliver: &mut dyn FnMut(Incoming<'_>),
    ) {
        if slot == SHARED {
            if let Some(port) = &self.shared {
                port.receive(batch, |message, _| deliver(Incoming::Message(message)));
            }
            return;
        }
        match &mut self.slots[slot] {
            Link::Closed | Link::Shared(_) => {}
            Link::Own(port, _) => port.receive(batch, |message, _| deliver(Incoming::Message(message))),
            Link::Stream(stream) => {
                let mut work = || {
                    let mut transition = Transition::None;
                    if readiness & ready::WRITE != 0 {
                        transition = stream.on_room()?;
                        if !stream.wants_room() {
                            epoll.modify(&stream.socket, slot as u64, READ)?;
                        }
                    }
                    if readiness & !ready::WRITE != 0 {
                        let read =
                            stream.on_data(&mut self.buffer, &mut |m| deliver(Incoming::Message(m)))?;
                        if read == Transition::Opened {
                            transition = read;
                        }
                    }
                    Ok(transition)
                };
                match work() {
                    Ok(Transition::Opened) => deliver(Incoming::Open(slot)),
                    Ok(Transition::None) => {}
                    Err(error) => {
                        self.slots[slot] = Link::Closed;
                        deliver(Incoming::Closed(slot, error));
                    }
                }
            }
        }
    }
}

impl Route {
    fn new(target: &Target) -> io::Result<Self> {
        let tls = match tls::config(target)? {
            Some(config) => {
                let name = ServerName::try_from(target.tls_name.clone()).map_err(io::Error::other)?;
                Some((config, name))
            }
            None => None,
        };
        Ok(Self { address: target.address, transport: target.transport, tls })
    }

    /// Whether clients of this route can share a socket.
    fn is_on_loopback(&self) -> bool {
        self.transport == Transport::Udp && self.address.is_ipv4() && self.address.ip().is_loopback()
    }
}
