//! Sending many datagrams in one call.
//!
//! Datagrams of one size that follow each other to one address go to the kernel as one train (UDP_SEGMENT), which
//! passes its whole stack once.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::iovec;

use super::address::Source;
use super::arrays::Arrays;
use super::control::{write_segment, write_source};
use super::{BATCH, call, is_peer_error};

/// Pieces of memory per call: two for each datagram of two full trains, and more datagrams when they are single.
const PIECES: usize = 4 * BATCH;
/// Datagrams in a train: UDP_MAX_SEGMENTS up to Linux 6.8.
const TRAIN_MAX: usize = 64;
/// Bytes in a train: what an IP length can count, less the longest headers.
const TRAIN_BYTES: usize = 65_000;
/// The largest datagram in a train: what an Ethernet frame holds behind an IPv6 and a UDP header. Larger ones are
/// fragmented, which the datagrams of a train may not be.
const CAR_MAX: usize = 1452;

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What comes before the payload; may be empty.
    pub head: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses, on a wildcard socket.
    pub source: Option<Source>,
}

impl Datagram<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// One message to the kernel: a datagram, or several of the same size.
#[derive(Clone, Copy, Debug)]
struct Train {
    /// How many.
    datagrams: usize,
    /// Where their pieces begin.
    first: usize,
    /// Pieces of each datagram.
    each: usize,
    /// The length of the name.
    name: libc::socklen_t,
    /// The length of the control data that hold for a single datagram too.
    control: usize,
}

/// What is needed to send many datagrams in one call. Belongs to one thread.
pub struct SendBatch {
    arrays: Arrays,
    trains: Vec<Train>,
    /// Pieces in use.
    pieces: usize,
    segmentation: bool,
    refused: bool,
}

impl SendBatch {
    /// Room for [`BATCH`] messages, which are trains where the kernel knows `segmentation`.
    pub fn new(segmentation: bool) -> Self {
        Self {
            arrays: Arrays::new(PIECES),
            trains: Vec::with_capacity(BATCH),
            pieces: 0,
            segmentation,
            refused: false,
        }
    }

    /// Whether a network card refused a train since the last time this was asked. From then on every datagram goes
    /// alone.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
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
        let mut next = datagrams.next();
        while next.is_some() {
            self.fill(&mut next, datagrams, ipv6_socket);
            sent += self.send_filled(socket.as_raw_fd(), 0..self.trains.len(), failed);
        }
        sent
    }

    /// Takes as many datagrams as have room. Private, as is all that follows: the arrays hold pointers to payloads
    /// that [`SendBatch::send`] borrows.
    fn fill<'a>(
        &mut self,
        next: &mut Option<Datagram<'a>>,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
        ipv6_socket: bool,
    ) {
        self.trains.clear();
        self.pieces = 0;
        while self.trains.len() < BATCH
            && self.pieces + 2 <= PIECES
            && let Some(locomotive) = next.take()
        {
            let index = self.trains.len();
            let name = self.arrays.names[index].write(locomotive.to, ipv6_socket);
            let control = locomotive
                .source
                .map_or(0, |source| write_source(&mut self.arrays.controls[index], source, ipv6_socket));
            let first = self.pieces;
            self.add(&locomotive);
            let mut train = Train { datagrams: 1, first, each: self.pieces - first, name, control };
            *next = datagrams.next();
            if self.segmentation {
                self.couple(&mut train, &locomotive, next, datagrams);
            }
            // At most CAR_MAX bytes each where there are several.
            let with_size = match train.datagrams {
                1 => control,
                _ => write_segment(&mut self.arrays.controls[index], control, locomotive.len() as u16),
            };
            self.arrays.point(index, first..self.pieces, name, with_size);
            self.trains.push(train);
        }
    }

    /// Adds the datagrams that may travel with the first one: of its size, only the last one smaller.
    fn couple<'a>(
        &mut self,
        train: &mut Train,
        locomotive: &Datagram<'a>,
        next: &mut Option<Datagram<'a>>,
        datagrams: &mut dyn Iterator<Item = Datagram<'a>>,
    ) {
        let size = locomotive.len();
        let (mut total, mut last) = (size, size);
        while let Some(car) = *next
            && (1..=CAR_MAX).contains(&size)
            && last == size
            && (1..=size).contains(&car.len())
            && train.datagrams < TRAIN_MAX
            && total + car.len() <= TRAIN_BYTES
            && self.pieces + 2 <= PIECES
            && (car.to, car.source) == (locomotive.to, locomotive.source)
            && car.head.is_empty() == locomotive.head.is_empty()
        {
            self.add(&car);
            last = car.len();
            total += last;
            train.datagrams += 1;
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

    /// Sends the trains in `range`.
    fn send_filled(&mut self, fd: RawFd, range: Range<usize>, failed: &mut dyn FnMut(io::Error)) -> usize {
        let (mut position, mut sent, mut retried) = (range.start, 0, false);
        while position < range.end {
            let result = self.call(fd, position..range.end);
            match result {
                Ok(count) => {
                    let done = position + count;
                    sent += self.trains[position..done].iter().map(|train| train.datagrams).sum::<usize>();
                    position = done;
                    retried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error of an earlier datagram is reported, and cleared, by the next send, which then sent
                // nothing: that one deserves another try.
                Err(error) if !retried && is_peer_error(&error) => retried = true,
                // The socket's buffer is full: so it is for the rest.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let rest = self.trains[position..range.end].iter().map(|train| train.datagrams).sum();
                    (0..rest).for_each(|_: usize| failed(io::ErrorKind::WouldBlock.into()));
                    return sent;
                }
                Err(error) => {
                    if self.trains[position].datagrams > 1 {
                        // EIO: the card computes no checksums, which segmentation needs.
                        if error.raw_os_error() == Some(libc::EIO) {
                            (self.segmentation, self.refused) = (false, true);
                        }
                        sent += self.send_apart(fd, position, failed);
                    } else {
                        failed(error);
                    }
                    position += 1;
                    retried = false;
                }
            }
        }
        sent
    }

    /// Gives the trains in `range` to the kernel; it takes them one after the other and says how many.
    fn call(&mut self, fd: RawFd, range: Range<usize>) -> io::Result<usize> {
        let headers = &mut self.arrays.headers[range];
        if let [one] = headers
            && one.msg_hdr.msg_iovlen == 1
            && one.msg_hdr.msg_control.is_null()
        {
            // Most often a relayed address has one datagram to send, and this call copies less into the kernel.
            // SAFETY: the header points to a name and a piece of `self`, and this to a payload that the caller
            // borrows beyond this call, all with their true lengths.
            unsafe {
                let piece = *one.msg_hdr.msg_iov;
                let (name, name_len) = (one.msg_hdr.msg_name.cast_const().cast(), one.msg_hdr.msg_namelen);
                call::send_to(fd, (piece.iov_base.cast(), piece.iov_len), (name, name_len))?;
            }
            return Ok(1);
        }
        // SAFETY: the headers point to names, control buffers and pieces of `self`, and these to payloads that the
        // caller borrows beyond this call, all with their true lengths.
        unsafe { call::send_many(fd, headers) }
    }

    /// Sends the datagrams of a train that was refused one by one: it may be the path's MTU, which only the large
    /// ones exceed, or something that holds for each of them.
    fn send_apart(&mut self, fd: RawFd, position: usize, failed: &mut dyn FnMut(io::Error)) -> usize {
        let Train { datagrams, first, each, name, control } = self.trains[position];
        let mut sent = 0;
        for datagram in 0..datagrams {
            let first = first + datagram * each;
            self.trains[position] = Train { datagrams: 1, first, each, name, control };
            self.arrays.point(position, first..first + each, name, control);
            sent += self.send_filled(fd, position..position + 1, failed);
        }
        sent
    }
}
