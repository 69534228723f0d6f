//! Waiting for sockets, timers and wake-ups with epoll.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, epoll_event};

use super::{call, check};

/// Readiness bits of epoll.
pub mod ready {
    /// Readable, or at the end of the stream.
    pub const READ: u32 = libc::EPOLLIN as u32;
    /// Writable.
    pub const WRITE: u32 = libc::EPOLLOUT as u32;
    /// The other side has shut down its sending direction.
    pub const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
    /// An error is pending; always reported.
    pub const ERROR: u32 = libc::EPOLLERR as u32;
    /// Both directions are closed; always reported.
    pub const CLOSED: u32 = libc::EPOLLHUP as u32;
    /// Edge-triggered: reported once per change, not for as long as the state lasts. This saves the kernel a second
    /// look after each event. The caller must read until `WouldBlock`, or return to the socket without a new event.
    pub const EDGE: u32 = libc::EPOLLET as u32;
}

/// The events that one wait of an [`Epoll`] returned.
pub struct Events {
    raw: Vec<epoll_event>,
    len: usize,
}

impl Events {
    /// Allocates space for `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { raw: vec![epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the token and readiness of an event; `None` past the end.
    pub fn get(&self, index: usize) -> Option<(u64, u32)> {
        let event = self.raw[..self.len].get(index)?;
        Some((event.u64, event.events))
    }
}

/// An epoll set. Sockets are level-triggered unless registered with [`ready::EDGE`].
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Creates an empty set.
    ///
    /// # Errors
    /// The error of `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) }))
    }

    /// Watches `socket` for `interest` under `token` until the socket is closed.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_fd(), token, interest)
    }

    /// Changes the interest or token of a watched socket.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn modify(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_fd(), token, interest)
    }

    /// Ends the watch of a socket that stays open.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket.as_fd(), 0, 0)
    }

    fn control(&self, verb: c_int, socket: BorrowedFd<'_>, token: u64, interest: u32) -> io::Result<()> {
        let mut event = epoll_event { events: interest, u64: token };
        // SAFETY: `event` outlives the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, socket.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds; `None`: without limit).
    ///
    /// # Errors
    /// The error of `epoll_wait(2)`, except `EINTR`, which returns no events.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let milliseconds = timeout.map_or(-1, |timeout| {
            c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        });
        events.len = 0;
        match call::wait(self.0.as_raw_fd(), &mut events.raw, milliseconds) {
            Ok(found) => events.len = found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Ends the wait of a worker, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<File>);

impl Waker {
    /// Creates an eventfd.
    ///
    /// # Errors
    /// The error of `eventfd(2)`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self(Arc::new(File::from(fd))))
    }

    /// Makes it readable. A full counter means that it is readable already.
    pub fn wake(&self) {
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let _ = (&*self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends a wait at a point in time. A timeout of the wait itself would cost the kernel a timer per wait; this timer is
/// set only when the next deadline changes.
pub struct Alarm {
    timer: File,
    /// The time it is set to, in nanoseconds of the caller's clock.
    at: Option<u64>,
}

impl Alarm {
    /// Creates a timer that is not set.
    ///
    /// # Errors
    /// The error of `timerfd_create(2)`.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let timer =
            unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?) };
        Ok(Self { timer: File::from(timer), at: None })
    }

    /// Makes a wait end at `at` or earlier. `at` and `now` are nanoseconds of the same clock.
    ///
    /// # Errors
    /// The error of `timerfd_settime(2)`.
    pub fn set(&mut self, at: u64, now: u64) -> io::Result<()> {
        if self.at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        // A value of zero would disarm the timer.
        let nanos = at.saturating_sub(now).max(1);
        let value = libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        };
        let once =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: `once` outlives the call; the old value is not requested.
        check(unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &once, ptr::null_mut()) })?;
        self.at = Some(at);
        Ok(())
    }

    /// Makes it unreadable and allows the next [`Alarm::set`].
    ///
    /// # Errors
    /// The error of `read(2)`.
    pub fn clear(&mut self) -> io::Result<()> {
        self.at = None;
        match self.timer.read(&mut [0; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
