//! System calls on the path of every packet, without libc's wrappers. The wrappers make each call a thread
//! cancellation point, at the price of two atomic exchanges, and no thread of this process is ever cancelled.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::{c_int, c_long, epoll_event, mmsghdr, msghdr, sockaddr, socklen_t, syscall};

/// Does not block, and raises no signal if the other side has closed.
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Returns the result of a call, or the error that it left in `errno`.
pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn count(result: c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Reads from a stream without blocking; returns the number of bytes, 0 at the end of the stream.
///
/// # Errors
/// `WouldBlock` if there is nothing to read, else the error of `recvfrom(2)`.
pub fn read_stream(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (fd, none) = (socket.as_raw_fd(), ptr::null_mut::<sockaddr>());
    // SAFETY: the kernel writes at most `buffer.len()` bytes into it; no address is requested.
    count(unsafe {
        let buffer = (buffer.as_mut_ptr(), buffer.len());
        syscall(libc::SYS_recvfrom, fd, buffer.0, buffer.1, libc::MSG_DONTWAIT, none, none)
    })
}

/// Writes to a stream without blocking; returns the number of bytes that the kernel took.
///
/// # Errors
/// `WouldBlock` if the send buffer is full, else the error of `sendto(2)`.
pub fn write_stream(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let (fd, none) = (socket.as_raw_fd(), ptr::null::<sockaddr>());
    // SAFETY: the kernel reads at most `bytes.len()` bytes of it; no address is passed.
    count(unsafe {
        syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), SEND_FLAGS, none, 0 as socklen_t)
    })
}

/// Sends one datagram.
///
/// # Safety
/// `bytes` and `name` must be readable for their lengths.
pub(super) unsafe fn send_to(
    fd: RawFd,
    (bytes, len): (*const u8, usize),
    (name, name_len): (*const sockaddr, socklen_t),
) -> io::Result<usize> {
    // SAFETY: as promised by the caller.
    count(unsafe { syscall(libc::SYS_sendto, fd, bytes, len, SEND_FLAGS, name, name_len) })
}

/// Sends the datagrams of `headers` in order; returns how many were sent before the kernel refused one.
///
/// # Safety
/// Everything that the headers point to must be readable for the lengths in them.
pub(super) unsafe fn send_many(fd: RawFd, headers: &mut [mmsghdr]) -> io::Result<usize> {
    // SAFETY: as promised by the caller; the kernel writes the lengths sent into the headers.
    count(unsafe { syscall(libc::SYS_sendmmsg, fd, headers.as_mut_ptr(), headers.len(), SEND_FLAGS) })
}

/// Receives one datagram; returns its length.
///
/// # Safety
/// Everything that the header points to must be writable for the lengths in it.
pub(super) unsafe fn receive_one(fd: RawFd, header: &mut msghdr) -> io::Result<usize> {
    // SAFETY: as promised by the caller.
    count(unsafe { syscall(libc::SYS_recvmsg, fd, ptr::from_mut(header), libc::MSG_DONTWAIT) })
}

/// Receives at most one datagram per header; returns how many.
///
/// # Safety
/// Everything that the headers point to must be writable for the lengths in them.
pub(super) unsafe fn receive_many(fd: RawFd, headers: &mut [mmsghdr]) -> io::Result<usize> {
    let no_timeout = ptr::null_mut::<libc::timespec>();
    // SAFETY: as promised by the caller.
    count(unsafe {
        let headers = (headers.as_mut_ptr(), headers.len());
        syscall(libc::SYS_recvmmsg, fd, headers.0, headers.1, libc::MSG_DONTWAIT, no_timeout)
    })
}

/// Waits for events, at most `milliseconds` (-1: without limit); returns how many were written into `events`.
pub(super) fn wait(epoll: RawFd, events: &mut [epoll_event], milliseconds: c_int) -> io::Result<usize> {
    let capacity = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    let no_mask = ptr::null::<libc::sigset_t>();
    // SAFETY: the kernel writes at most `capacity` events into the slice of at least that length. The older
    // epoll_wait does not exist on every architecture; without a mask this one is the same.
    count(unsafe {
        syscall(libc::SYS_epoll_pwait, epoll, events.as_mut_ptr(), capacity, milliseconds, no_mask, 0usize)
    })
}
