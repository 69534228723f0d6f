//! The network links of all clients, behind a small interface.
//!
//! On IPv4 loopback, where every address of 127.0.0.0/8 is local, UDP clients are addresses on one shared socket, so
//! that a thousand clients cost one call per batch. Elsewhere, each client has a socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::options::Options;
use super::port::Port;
use super::stream::{Buffer, Stream, Transition};
use crate::base::transport::Transport;
use crate::net::syscall::{Epoll, RecvBatch, SendBatch, Source, enable_packet_info, ready};

/// The first client address on loopback: 127.1.0.1.
const FIRST_CLIENT: u32 = 0x7f01_0001;
/// Number of client addresses before they repeat: up to 127.126.0.0.
const ADDRESSES: u32 = 0x007d_0000;

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
    target: SocketAddr,
    kind: Kind,
    /// Slots with queued messages.
    dirty: Vec<usize>,
    buffer: Buffer,
}

enum Kind {
    /// One socket for all clients.
    Shared(Box<Port>),
    /// One socket per client.
    Own(Vec<Option<Port>>),
    /// One connection per client.
    Streams { slots: Vec<Option<Stream>>, tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)> },
}

impl Links {
    /// Creates links for up to `slots` clients at once. Tokens in `epoll` are the numbers of the slots.
    ///
    /// # Errors
    /// The error of a socket that cannot be opened, or an invalid TLS server name.
    pub fn new(
        options: &Options,
        slots: u32,
        tls: Option<Arc<rustls::ClientConfig>>,
        epoll: &Epoll,
    ) -> io::Result<Self> {
        let target = options.target.address;
        let slots = slots as usize;
        let kind = match options.target.transport {
            Transport::Udp if target.is_ipv4() && target.ip().is_loopback() && !options.own_sockets => {
                let port = Port::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
                enable_packet_info(&port.socket, false)?;
                epoll.add(&port.socket, 0, READ)?;
                Kind::Shared(Box::new(port))
            }
            Transport::Udp => Kind::Own((0..slots).map(|_| None).collect()),
            Transport::Tcp | Transport::Tls => {
                let name = match tls {
                    Some(config) => {
                        let name = ServerName::try_from(options.target.tls_name.clone());
                        Some((config, name.map_err(io::Error::other)?))
                    }
                    None => None,
                };
                Kind::Streams { slots: (0..slots).map(|_| None).collect(), tls: name }
            }
        };
        Ok(Self { target, kind, dirty: Vec::new(), buffer: Buffer::default() })
    }

    /// Returns whether the links are streams: messages are padded, and requests are not repeated.
    pub fn are_streams(&self) -> bool {
        matches!(self.kind, Kind::Streams { .. })
    }

    /// Opens the link of a slot; returns `true` if it is open at once, else [`Incoming::Open`] follows.
    ///
    /// # Errors
    /// The error of a socket that cannot be opened.
    pub fn open(&mut self, slot: usize, epoll: &Epoll) -> io::Result<bool> {
        match &mut self.kind {
            Kind::Shared(_) => Ok(true),
            Kind::Own(slots) => {
                let any: IpAddr = match self.target {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                let port = Port::bind((any, 0).into())?;
                epoll.add(&port.socket, slot as u64, READ)?;
                slots[slot] = Some(port);
                Ok(true)
            }
            Kind::Streams { slots, tls } => {
                let tls = tls.as_ref().map(|(config, name)| (config, name));
                let stream = Stream::connect(self.target, tls)?;
                epoll.add(&stream.socket, slot as u64, READ | ready::WRITE)?;
                slots[slot] = Some(stream);
                Ok(false)
            }
        }
    }

    /// Closes the link of a slot.
    pub fn close(&mut self, slot: usize) {
        match &mut self.kind {
            Kind::Shared(_) => {}
            Kind::Own(slots) => slots[slot] = None,
            Kind::Streams { slots, .. } => slots[slot] = None,
        }
    }

    /// Queues a message to the server; returns `false` if the link is closed or its queue is full.
    pub fn push(&mut self, slot: usize, client: u32, pieces: &[&[u8]]) -> bool {
        let newly = match &mut self.kind {
            Kind::Shared(port) => {
                let ip = Ipv4Addr::from_bits(FIRST_CLIENT + client % ADDRESSES);
                port.push(self.target, Some(Source { ip: ip.into(), interface: 0 }), pieces)
            }
            Kind::Own(slots) => match &mut slots[slot] {
                Some(port) => port.push(self.target, None, pieces),
                None => return false,
            },
            Kind::Streams { slots, .. } => match &mut slots[slot] {
                Some(stream) if stream.is_open() => {
                    if !stream.push(pieces) {
                        return false;
                    }
                    true
                }
                _ => return false,
            },
        };
        if newly && self.dirty.last() != Some(&slot) {
            self.dirty.push(slot);
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
            match &mut self.kind {
                Kind::Shared(port) => refused += port.flush(batch),
                Kind::Own(slots) => {
                    refused += slots[slot].as_mut().map_or(0, |port| port.flush(batch));
                }
                Kind::Streams { slots, .. } => {
                    let Some(stream) = &mut slots[slot] else { continue };
                    let result = stream.flush().and_then(|()| match stream.wants_room() {
                        true => epoll.modify(&stream.socket, slot as u64, READ | ready::WRITE),
                        false => Ok(()),
                    });
                    if let Err(error) = result {
                        slots[slot] = None;
                        deliver(Incoming::Closed(slot, error));
                    }
                }
            }
        }
        refused
    }

    /// Handles an event of a slot.
    pub fn on_event(
        &mut self,
        slot: usize,
        readiness: u32,
        batch: &mut RecvBatch,
        epoll: &Epoll,
        deliver: &mut dyn FnMut(Incoming<'_>),
    ) {
        match &mut self.kind {
            Kind::Shared(port) => port.receive(batch, |message, _| deliver(Incoming::Message(message))),
            Kind::Own(slots) => {
                if let Some(port) = &slots[slot] {
                    port.receive(batch, |message, _| deliver(Incoming::Message(message)));
                }
            }
            Kind::Streams { slots, .. } => {
                let Some(stream) = &mut slots[slot] else { return };
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
                        slots[slot] = None;
                        deliver(Incoming::Closed(slot, error));
                    }
                }
            }
        }
    }
}
