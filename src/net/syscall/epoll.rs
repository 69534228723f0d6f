//! Waiting for sockets, and being woken.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, epoll_event};

use super::{call, check};

/// Readiness bits as epoll has them.
pub mod ready {
    /// Something to read, or the end of it.
    pub const READ: u32 = libc::EPOLLIN as u32;
    /// Room to write.
    pub const WRITE: u32 = libc::EPOLLOUT as u32;
    /// The other side will send no more.
    pub const PEER_CLOSED: u32 = libc::EPOLLRDHUP as u32;
    /// An error is waiting; always reported.
    pub const ERROR: u32 = libc::EPOLLERR as u32;
    /// Both directions are closed; always reported.
    pub const CLOSED: u32 = libc::EPOLLHUP as u32;
    /// To be told of news only, not in every wait for as long as it lasts. It saves the kernel a second look after each
    /// event; who asks for it takes all there is, or comes back by himself.
    pub const EDGE: u32 = libc::EPOLLET as u32;
}

/// What one wait of an [`Epoll`] found.
pub struct Events {
    raw: Vec<epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { raw: vec![epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Token and readiness of one event; `None` past the end.
    pub fn get(&self, index: usize) -> Option<(u64, u32)> {
        let event = self.raw[..self.len].get(index)?;
        Some((event.u64, event.events))
    }
}

/// An epoll set: level-triggered, but for what asks for [`ready::EDGE`].
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) }))
    }

    /// Watches `socket` for `interest` under `token`. Closing the socket ends it.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_fd(), token, interest)
    }

    /// Changes what a watched socket is watched for.
    pub fn modify(&self, socket: impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_fd(), token, interest)
    }

    fn control(&self, verb: c_int, socket: BorrowedFd<'_>, token: u64, interest: u32) -> io::Result<()> {
        let mut event = epoll_event { events: interest, u64: token };
        // SAFETY: `event` outlives the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, socket.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds; `None`: for ever).
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

/// Wakes a worker out of its wait, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<File>);

impl Waker {
    /// A new eventfd.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let fd =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self(Arc::new(File::from(fd))))
    }

    /// Makes it readable. A full counter means that it is so already.
    pub fn wake(&self) {
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = (&*self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends a wait at a point in time. A timeout of the wait itself would cost the kernel a timer on every wait; this
/// one is set when the next deadline is another one.
pub struct Alarm {
    timer: File,
    /// What it is set to, on the caller's clock.
    at: Option<u64>,
}

impl Alarm {
    /// One that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers; the new descriptor is owned by nobody else.
        let timer =
            unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?) };
        Ok(Self { timer: File::from(timer), at: None })
    }

    /// Sees to it that a wait ends at `at` or before; it is `now`. Both are nanoseconds of any one clock.
    pub fn set(&mut self, at: u64, now: u64) -> io::Result<()> {
        if self.at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        // All zeros would take the alarm back.
        let nanos = at.saturating_sub(now).max(1);
        let value = libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        };
        let once =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: `once` outlives the call; the old value is not asked for.
        check(unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &once, ptr::null_mut()) })?;
        self.at = Some(at);
        Ok(())
    }

    /// Makes it unreadable, and to be set again.
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
