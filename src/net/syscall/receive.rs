//! Receiving many datagrams in one call.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use libc::{iovec, socklen_t};

use super::address::{Name, Source};
use super::arrays::Arrays;
use super::control::{Control, Notes};
use super::{BATCH, call};
use crate::wire::frame::Frame;

/// Where a received datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender, canonical.
    pub from: SocketAddr,
    /// The local address that it reached, if [`enable_packet_info`](super::enable_packet_info) was called.
    pub reached: Option<Source>,
    /// The size of each datagram if the frame holds several ([`enable_coalescing`]); the last may be shorter. Else 0.
    ///
    /// [`enable_coalescing`]: super::enable_coalescing
    pub segment: usize,
}

/// A set of frames and the kernel structures to receive into them. Belongs to one thread.
pub struct RecvBatch {
    /// The received datagrams.
    pub frames: Vec<Frame>,
    /// The origin of each frame, by the same index.
    pub origins: Vec<Origin>,
    arrays: Arrays,
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// Allocates [`BATCH`] empty frames.
    pub fn new() -> Self {
        let unknown = Origin { from: (Ipv4Addr::UNSPECIFIED, 0).into(), reached: None, segment: 0 };
        Self {
            frames: (0..BATCH).map(|_| Frame::new()).collect(),
            origins: vec![unknown; BATCH],
            arrays: Arrays::new(BATCH),
        }
    }

    /// Returns how many datagrams these frames hold.
    pub fn datagrams(&self, frames: Range<usize>) -> usize {
        let of = |(frame, origin): (&Frame, &Origin)| match origin.segment {
            0 => 1,
            segment => frame.bytes().len().div_ceil(segment),
        };
        self.frames[frames.clone()].iter().zip(&self.origins[frames]).map(of).sum()
    }

    /// Receives at most `limit` messages into the frames from `first` on, without blocking; returns how many.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is queued, else the error of `recvmsg(2)` or `recvmmsg(2)`.
    pub fn receive(&mut self, socket: impl AsFd, first: usize, limit: usize) -> io::Result<usize> {
        let end = first.saturating_add(limit).min(BATCH);
        if first >= end {
            return Ok(0);
        }
        for index in first..end {
            let spare = self.frames[index].spare_mut();
            let (base, len) = (spare.as_mut_ptr(), spare.len());
            self.arrays.pieces[index] = iovec { iov_base: base.cast(), iov_len: len };
            let name = size_of::<Name>() as socklen_t;
            self.arrays.point(index, index..index + 1, name, size_of::<Control>());
        }
        let (fd, headers) = (socket.as_fd().as_raw_fd(), &mut self.arrays.headers[first..end]);
        // SAFETY: every header in the range points into a frame, name and control buffer of `self` with its true
        // length, none of which moves during the call.
        let received = unsafe {
            match headers {
                // The common case of a relayed address; this call copies less.
                [one] => {
                    one.msg_len = call::receive_one(fd, &mut one.msg_hdr)? as u32;
                    1
                }
                many => call::receive_many(fd, many)?,
            }
        };
        for index in first..first + received {
            let header = &self.arrays.headers[index];
            let len = header.msg_len as usize;
            self.frames[index].set_len(len);
            let notes = Notes::of(&header.msg_hdr);
            let from = self.arrays.names[index].read(header.msg_hdr.msg_namelen);
            self.origins[index] = Origin {
                // The kernel refuses to send to port 0, so a datagram without a sender is never answered.
                from: from.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()),
                reached: notes.reached,
                segment: notes.segment.filter(|&size| size > 0 && size < len).unwrap_or(0),
            };
        }
        Ok(received)
    }
}
