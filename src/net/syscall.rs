//! The system calls that std and socket2 lack, behind a safe interface.
//!
//! All memory handed to the kernel is allocated once ([`RecvBatch`], [`SendBatch`]); the pointers into it are
//! written anew before every call, so nothing dangles when the owner moves.
// The only module with unsafe code: the kernel takes pointers.
#![allow(unsafe_code)]

mod address;
mod arrays;
mod call;
mod control;
mod epoll;
mod icmp;
mod options;
mod receive;
mod send;

use std::io;

use libc::c_int;

pub use self::address::{Source, canonical};
pub use self::call::{read_stream, write_stream};
pub use self::epoll::{Alarm, Epoll, Events, Waker, ready};
pub use self::icmp::{IcmpError, is_peer_error, receive_icmp};
pub use self::options::{
    Fragmentation, Offloads, enable_coalescing, enable_error_queue, enable_packet_info, return_free_memory,
    set_fragmentation,
};
pub use self::receive::{Origin, RecvBatch};
pub use self::send::{Datagram, SendBatch};

/// Datagrams per receive or send call. A wake-up rarely finds more, and 64 of them stay within the L2 cache.
pub const BATCH: usize = 64;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests;
