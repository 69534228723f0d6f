//! A UDP socket of the load with a send queue.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::syscall::{self, BATCH, Datagram, Origin, RecvBatch, SendBatch, Source, Unsegmented};

/// Size of both socket buffers, capped by the kernel.
const BUFFER: usize = 8 << 20;
/// Maximum number of batches received in succession, so that other sockets do not starve.
const BATCHES: usize = 4;

struct Item {
    to: SocketAddr,
    source: Option<Source>,
    bytes: Range<usize>,
}

/// A UDP socket with a send queue.
pub struct Port {
    /// The socket, non-blocking.
    pub socket: UdpSocket,
    local: SocketAddr,
    unsegmented: Unsegmented,
    waiting: Vec<Item>,
    bytes: Vec<u8>,
}

impl Port {
    /// Binds a socket. On a wildcard address every datagram carries the local address that it reached.
    ///
    /// # Errors
    /// The error of `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        // Best effort, all three: the kernel caps the buffers, and an old one cannot coalesce.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        let _ = syscall::enable_coalescing(&socket);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        let unsegmented = Unsegmented::default();
        Ok(Self { socket, local, unsegmented, waiting: Vec::new(), bytes: Vec::new() })
    }

    /// Returns the bound address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Queues a datagram of these pieces; returns whether the queue was empty before.
    pub fn push(&mut self, to: SocketAddr, source: Option<Source>, pieces: &[&[u8]]) -> bool {
        let start = self.bytes.len();
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.waiting.push(Item { to, source, bytes: start..self.bytes.len() });
        self.waiting.len() == 1
    }

    /// Sends everything queued; returns how many datagrams the kernel refused.
    pub fn flush(&mut self, batch: &mut SendBatch) -> u64 {
        let mut refused = 0;
        let mut datagrams = self.waiting.iter().map(|item| Datagram {
            head: &[],
            payload: &self.bytes[item.bytes.clone()],
            to: item.to,
            source: item.source,
        });
        let ipv6 = self.local.is_ipv6();
        let socket = (self.socket.as_fd(), &self.unsegmented);
        batch.send_from(socket, ipv6, &mut datagrams, &mut |_, _| refused += 1);
        self.waiting.clear();
        self.bytes.clear();
        refused
    }

    /// Receives datagrams, up to a limit.
    pub fn receive(&self, batch: &mut RecvBatch, mut deliver: impl FnMut(&[u8], &Origin)) {
        for _ in 0..BATCHES {
            // Nothing to read, or the ICMP error of an earlier datagram, which counts as lost anyway.
            let Ok(count) = batch.receive(&self.socket, 0, BATCH) else { return };
            for (frame, origin) in batch.frames.iter().zip(&batch.origins).take(count) {
                match origin.segment {
                    0 => deliver(frame.bytes(), origin),
                    size => frame.bytes().chunks(size).for_each(|datagram| deliver(datagram, origin)),
                }
            }
            if count < BATCH {
                return;
            }
        }
    }
}
