//! The system calls that std and socket2 lack, behind a safe interface.
//!
//! All memory handed to the kernel is allocated once ([`RecvBatch`], [`SendBatch`]); the pointers into it are
//! written anew before every call, so nothing dangles when the owner moves.
// The only module with unsafe code: the kernel takes pointers.
#![allow(unsafe_code)]

mod address;
mod arrays;
mod call;
mod closed;
mod control;
mod epoll;
mod icmp;
mod options;
mod receive;
mod send;

pub use self::address::{Source, canonical};
pub use self::arrays::BATCH;
use self::call::check;
pub use self::call::{read_stream, write_stream};
pub use self::closed::stdout_was_closed;
pub use self::epoll::{Alarm, Epoll, Events, Waker, ready};
pub use self::icmp::{IcmpError, is_peer_error, receive_icmp};
pub use self::options::{
    Fragmentation, KernelMemory, Offloads, TcpProgress, enable_coalescing, enable_packet_info,
    let_kernel_size_buffers, receive_drops, return_free_memory, set_error_queue, set_fragmentation, unsent,
};
pub use self::receive::{Origin, RecvBatch};
pub use self::send::{Datagram, SendBatch, Unsegmented};

#[cfg(test)]
mod tests;
