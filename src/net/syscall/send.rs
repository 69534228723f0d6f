//! Sending many datagrams in one call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::address::Source;
use super::arrays::Arrays;
use super::control::write_source;
use super::{BATCH, check, is_peer_error};

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses, on a wildcard socket.
    pub source: Option<Source>,
}

/// What is needed to send many datagrams in one call. Belongs to one thread.
pub struct SendBatch {
    arrays: Arrays,
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// Room for [`BATCH`] datagrams.
    pub fn new() -> Self {
        Self { arrays: Arrays::new() }
    }

    /// Sends all `datagrams` through one socket. Each that the kernel refuses is reported to `failed` and left
    /// out; the others go on. Gives how many were sent.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        ipv6_socket: bool,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        failed: &mut dyn FnMut(io::Error),
    ) -> usize {
        let mut sent = 0;
        loop {
            let mut filled = 0;
            while filled < BATCH
                && let Some(datagram) = datagrams.next()
            {
                let name = self.arrays.names[filled].write(datagram.to, ipv6_socket);
                let control = datagram
                    .source
                    .map_or(0, |source| write_source(&mut self.arrays.controls[filled], source, ipv6_socket));
                let payload = datagram.payload;
                // The kernel only reads through this pointer.
                self.arrays.point(filled, payload.as_ptr().cast_mut(), payload.len(), name, control);
                filled += 1;
            }
            if filled == 0 {
                return sent;
            }
            sent += self.send_filled(socket.as_raw_fd(), filled, failed);
        }
    }

    /// Sends the headers up to `filled`. Private: they hold pointers to payloads that [`SendBatch::send`] borrows.
    fn send_filled(&mut self, fd: RawFd, filled: usize, failed: &mut dyn FnMut(io::Error)) -> usize {
        let (mut position, mut sent, mut retried) = (0, 0, false);
        while position < filled {
            // SAFETY: the headers in the range point to names and control buffers of `self` and to payloads that
            // the caller borrows beyond this call, all with their true lengths.
            let result = check(unsafe {
                libc::sendmmsg(
                    fd,
                    self.arrays.headers[position..].as_mut_ptr(),
                    (filled - position) as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            });
            match result {
                Ok(count) => {
                    position += count as usize;
                    sent += count as usize;
                    retried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error of an earlier datagram is reported, and cleared, by the next send, which then sent
                // nothing: that one deserves another try.
                Err(error) if !retried && is_peer_error(&error) => retried = true,
                // The socket's buffer is full: so it is for the rest.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (position..filled).for_each(|_| failed(io::ErrorKind::WouldBlock.into()));
                    return sent;
                }
                Err(error) => {
                    failed(error);
                    position += 1;
                    retried = false;
                }
            }
        }
        sent
    }
}
