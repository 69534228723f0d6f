//! Sending many datagrams in one call.
//!
//! Consecutive datagrams of one size to one address go to the kernel in one message (UDP_SEGMENT, generic segmentation
//! offload), which traverses the network stack once.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::iovec;

use super::address::Source;
use super::arrays::Arrays;
use super::control::{write_segment, write_source};
use super::{BATCH, call, is_peer_error};

/// Pieces of memory (`iovec`) per call. Enough for two messages of [`SEGMENTS_MAX`] segments with two pieces each, or
/// for a full batch of single datagrams.
const PIECES: usize = 4 * BATCH;
/// Segments in a message: UDP_MAX_SEGMENTS up to Linux 6.8.
const SEGMENTS_MAX: usize = 64;
/// Bytes in a message: the largest IP length, less the longest headers.
const MESSAGE_LEN_MAX: usize = 65_000;
/// The largest segment: an Ethernet frame less an IPv6 and a UDP header. Larger datagrams need fragmentation, which
/// segments do not allow.
const SEGMENT_LEN_MAX: usize = 1452;

/// Messages of a socket that are sent without segmentation after it was refused. The next attempt costs one system call.
const UNSEGMENTED: u16 = 1000;

/// How many more messages of one socket are sent without segmentation, because the kernel refused it on a route of this
/// socket.
#[derive(Debug, Default)]
pub struct Unsegmented(Cell<u16>);

impl Unsegmented {
    /// Counts one message. Returns whether it must be a single datagram.
    fn take(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

/// How often a send is retried that failed with the ICMP error of an earlier datagram. Errors may come faster than sends.
const RETRIES: u32 = 4;

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Bytes before the payload; may be empty.
    pub head: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// The destination.
    pub to: SocketAddr,
    /// The local address to send from, on a wildcard socket.
    pub source: Option<Source>,
}

impl Datagram<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// One message to the kernel: a single datagram, or several segments of the same size.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// The number of datagrams.
    datagrams: usize,
    /// The index of their first piece.
    first: usize,
    /// The number of pieces per datagram.
    each: usize,
    /// The length of the destination address.
    name: libc::socklen_t,
    /// The length of the control data without the segment size.
    control: usize,
}

/// The kernel structures to send many datagrams in one call. Belongs to one thread.
pub struct SendBatch {
    arrays: Arrays,
    messages: Vec<Message>,
    /// Pieces in use.
    pieces: usize,
    /// The index of the first datagram in the arrays, among all that the caller sends at once.
    begun: usize,
    segmentation: bool,
    refused: Refused,
}

/// Whether segmentation was ever refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    Never,
    Now,
    Reported,
}

impl SendBatch {
    /// Allocates [`BATCH`] messages. With `segmentation`, which the kernel must support, a message may hold several
    /// datagrams.
    pub fn new(segmentation: bool) -> Self {
        Self {
            arrays: Arrays::new(PIECES),
            messages: Vec::with_capacity(BATCH),
            pieces: 0,
            begun: 0,
            segmentation,
            refused: Refused::Never,
        }
    }

    /// Returns whether segmentation was refused for the first time. Returns `true` at most once.
    pub fn take_refused(&mut self) -> bool {
        let is_new = self.refused == Refused::Now;
        if is_new {
            self.refused = Refused::Reported;
        }
        is_new
    }

    /// Sends all `datagrams` through one socket and returns how many were sent. Calls `failed` for each that the kernel
    /// refuses; the others are still sent.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        ipv6_socket: bool,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        failed: &mut dyn FnMut(io::Error),
    ) -> usize {
        let unsegmented = Unsegmented::default();
        self.send_from((socket, &unsegmented), ipv6_socket, datagrams, &mut |_, error| failed(error))
    }

    /// Does the same for a socket that remembers a refusal of segmentation. One route that refuses it, such as IPsec to
    /// one peer, then affects no other socket. `failed` receives the index of the datagram, too.
    pub fn send_from<'a>(
        &mut self,
        (socket, unsegmented): (BorrowedFd<'_>, &Unsegmented),
        ipv6_socket: bool,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        failed: &mut dyn FnMut(usize, io::Error),
    ) -> usize {
        let mut sent = 0;
        let mut next = datagrams.next();
        self.begun = 0;
        while next.is_some() {
            self.fill(&mut next, datagrams, ipv6_socket, unsegmented);
            let all = 0..self.messages.len();
            sent += self.send_filled((socket.as_raw_fd(), unsegmented), all.clone(), failed);
            if next.is_some() {
                self.begun += self.datagrams(all);
            }
        }
        sent
    }

    /// Fills the arrays with as many datagrams as fit. This function and those below must stay private: the arrays hold
    /// pointers to payloads that [`SendBatch::send`] borrows.
    fn fill<'a>(
        &mut self,
        next: &mut Option<Datagram<'a>>,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        ipv6_socket: bool,
        unsegmented: &Unsegmented,
    ) {
        self.messages.clear();
        self.pieces = 0;
        while self.messages.len() < BATCH
            && self.pieces + 2 <= PIECES
            && let Some(leading) = next.take()
        {
            let index = self.messages.len();
            let name = self.arrays.names[index].write(leading.to, ipv6_socket);
            let control = leading
                .source
                .map_or(0, |source| write_source(&mut self.arrays.controls[index], source, ipv6_socket));
            let first = self.pieces;
            self.add(&leading);
            let mut message = Message { datagrams: 1, first, each: self.pieces - first, name, control };
            *next = datagrams.next();
            if self.segmentation && !unsegmented.take() {
                self.append_segments(&mut message, &leading, next, datagrams);
            }
            // The cast loses nothing: a segment has at most SEGMENT_LEN_MAX bytes.
            let with_size = match message.datagrams {
                1 => control,
                _ => write_segment(&mut self.arrays.controls[index], control, leading.len() as u16),
            };
            self.arrays.point(index, first..self.pieces, name, with_size);
            self.messages.push(message);
        }
    }

    /// Appends the next datagrams that can be segments of the leading one's message. They need the same addresses and
    /// the same size; only the last one may be smaller.
    fn append_segments<'a>(
        &mut self,
        message: &mut Message,
        leading: &Datagram<'a>,
        next: &mut Option<Datagram<'a>>,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
    ) {
        let size = leading.len();
        let (mut total, mut last) = (size, size);
        while let Some(segment) = *next
            && (1..=SEGMENT_LEN_MAX).contains(&size)
            && last == size
            && (1..=size).contains(&segment.len())
            && message.datagrams < SEGMENTS_MAX
            && total + segment.len() <= MESSAGE_LEN_MAX
            && self.pieces + 2 <= PIECES
            && (segment.to, segment.source) == (leading.to, leading.source)
            && segment.head.is_empty() == leading.head.is_empty()
        {
            self.add(&segment);
            last = segment.len();
            total += last;
            message.datagrams += 1;
            *next = datagrams.next();
        }
    }

    fn add(&mut self, datagram: &Datagram<'_>) {
        let mut add = |bytes: &[u8]| {
            // The kernel only reads through this pointer.
            let piece = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.arrays.pieces[self.pieces] = piece;
            self.pieces += 1;
        };
        if !datagram.head.is_empty() {
            add(datagram.head);
        }
        add(datagram.payload);
    }

    /// Sends the messages in `range` and returns how many datagrams were sent.
    fn send_filled(
        &mut self,
        (fd, unsegmented): (RawFd, &Unsegmented),
        range: Range<usize>,
        failed: &mut dyn FnMut(usize, io::Error),
    ) -> usize {
        let (mut position, mut sent, mut retries) = (range.start, 0, 0);
        while position < range.end {
            let result = self.call(fd, position..range.end);
            match result {
                Ok(count) => {
                    let done = position + count;
                    sent += self.datagrams(position..done);
                    position = done;
                    retries = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel reports the ICMP error of an earlier datagram by failing the next send, which clears the
                // error but sends nothing.
                Err(error) if retries < RETRIES && is_peer_error(&error) => retries += 1,
                // The send buffer is full, so the rest would fail, too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let first = self.begun + self.datagrams(0..position);
                    let rest = self.datagrams(position..range.end);
                    (first..first + rest).for_each(|index| failed(index, io::ErrorKind::WouldBlock.into()));
                    return sent;
                }
                Err(error) => {
                    if self.messages[position].datagrams > 1 {
                        // EIO: the route leads through IPsec, or its network card computes no checksums.
                        if error.raw_os_error() == Some(libc::EIO) {
                            unsegmented.0.set(UNSEGMENTED);
                            if self.refused == Refused::Never {
                                self.refused = Refused::Now;
                            }
                        }
                        sent += self.send_separately((fd, unsegmented), position, failed);
                    } else {
                        failed(self.begun + self.datagrams(0..position), error);
                    }
                    position += 1;
                    retries = 0;
                }
            }
        }
        sent
    }

    /// Returns the number of datagrams in these messages.
    fn datagrams(&self, range: Range<usize>) -> usize {
        self.messages[range].iter().map(|message| message.datagrams).sum()
    }

    /// Passes the messages in `range` to the kernel and returns how many it accepted, counted from the first.
    fn call(&mut self, fd: RawFd, range: Range<usize>) -> io::Result<usize> {
        let headers = &mut self.arrays.headers[range];
        if let [one] = headers
            && one.msg_hdr.msg_iovlen == 1
            && one.msg_hdr.msg_control.is_null()
        {
            // The common case of a relayed address; this call copies less into the kernel.
            // SAFETY: the header points to a name and a piece of `self`, and the piece to a payload that the caller
            // borrows for longer than this call. All lengths are correct.
            unsafe {
                let piece = *one.msg_hdr.msg_iov;
                let (name, name_len) = (one.msg_hdr.msg_name.cast_const().cast(), one.msg_hdr.msg_namelen);
                call::send_to(fd, (piece.iov_base.cast(), piece.iov_len), (name, name_len))?;
            }
            return Ok(1);
        }
        // SAFETY: the headers point to names, control buffers and pieces of `self`, and the pieces to payloads that
        // the caller borrows for longer than this call. All lengths are correct.
        unsafe { call::send_many(fd, headers) }
    }

    /// Sends the datagrams of a refused message one by one: the reason may be the path MTU, which only the large ones
    /// exceed, or one that applies to each.
    fn send_separately(
        &mut self,
        socket: (RawFd, &Unsegmented),
        position: usize,
        failed: &mut dyn FnMut(usize, io::Error),
    ) -> usize {
        let (whole, begun) = (self.messages[position], self.begun);
        let Message { datagrams, first, each, name, control } = whole;
        let mut sent = 0;
        for datagram in 0..datagrams {
            let first = first + datagram * each;
            self.messages[position] = Message { datagrams: 1, first, each, name, control };
            self.arrays.point(position, first..first + each, name, control);
            self.begun = begun + datagram;
            sent += self.send_filled(socket, position..position + 1, failed);
        }
        // The index of later datagrams is computed from them.
        (self.messages[position], self.begun) = (whole, begun);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of datagrams in each message.
    fn filled(unsegmented: &Unsegmented) -> Vec<usize> {
        let to = "192.0.2.1:9".parse().expect("address");
        let mut all = (0..4).map(|_| Datagram { head: &[], payload: b"x", to, source: None });
        let (mut batch, mut next) = (SendBatch::new(true), all.next());
        batch.fill(&mut next, &mut all, false, unsegmented);
        batch.messages.iter().map(|message| message.datagrams).collect()
    }

    #[test]
    fn after_a_refusal_one_socket_pauses_segmentation_and_tries_again() {
        let (refused, other) = (Unsegmented(Cell::new(6)), Unsegmented::default());
        assert_eq!(filled(&refused), [1; 4]);
        assert_eq!(filled(&other), [4]);
        assert_eq!(filled(&refused), [1, 1, 2]);
        assert_eq!(filled(&refused), [4]);
    }

    #[test]
    fn a_refusal_is_reported_once() {
        let mut batch = SendBatch::new(true);
        assert!(!batch.take_refused());
        batch.refused = Refused::Now;
        assert!(batch.take_refused());
        assert!(!batch.take_refused());
    }
}
