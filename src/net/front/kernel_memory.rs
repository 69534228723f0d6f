//! Closes connections that hold much of the kernel's memory for TCP without a use, while it runs low.
//!
//! All programs of the machine share that memory (`net.ipv4.tcp_mem`). When it is used up, TCP slows down for all. A
//! connection uses it for bytes that the server has not read, for segments that wait behind a missing one, and for output
//! that the client does not acknowledge. Others may hold more than the relay, and then closing does not help. So only what
//! no honest client holds for long is closed; calls and downloads that go on are not.

use std::cmp::Reverse;
use std::time::Duration;

use super::connection::Connection;
use super::connections::Connections;
use super::splice::Splice;
use crate::base::time::Instant;
use crate::net::admission::Class;
use crate::net::counters::CloseReason;
use crate::net::syscall::KernelMemory;
use crate::net::token::Token;

/// Connections examined per call, which takes one to three milliseconds.
const LOOKS: usize = 4096;
/// A client without an allocation only sends requests, which are read at once, and gets small answers.
const STRANGER: usize = 8 << 10;
/// A web client holds output while it downloads; one without progress for [`STALLED`] has stopped reading.
const WEB: usize = 64 << 10;
const STALLED: Duration = Duration::from_secs(2);
/// A client with an allocation has at most 16 KiB of output that is not sent, and 125 KB on the way at 20 Mbit/s and a round
/// trip of 50 ms.
const WITH_ALLOCATION: usize = 192 << 10;

/// Marks connections that hold `bytes` together: first clients without an allocation, then web clients that have stopped
/// reading, then clients with an allocation; of each kind the largest first. If there are more than [`LOOKS`] connections,
/// each second examines others.
pub fn close_largest(connections: &mut Connections, bytes: u64, now: Instant) {
    let mut tokens = connections.tokens();
    if tokens.len() > LOOKS {
        let seconds = now.as_secs() as usize;
        let start = seconds.wrapping_mul(LOOKS) % tokens.len();
        tokens.rotate_left(start);
        tokens.truncate(LOOKS);
    }
    let mut largest: Vec<(u8, Reverse<usize>, Token)> = Vec::new();
    for token in tokens {
        let Some(connection) = connections.get(token) else { continue };
        let held = held(connection);
        let (order, is_much) = match connection.class() {
            Class::Stranger => (0, held >= STRANGER),
            Class::Web => (1, held >= WEB && now.since(connection.active) >= STALLED),
            Class::Authenticated => (2, held >= WITH_ALLOCATION),
        };
        if is_much {
            largest.push((order, Reverse(held), token));
        }
    }
    largest.sort_unstable_by_key(|&(order, held, _)| (order, held));
    let mut freed = 0;
    for (_, Reverse(held), token) in largest {
        if freed >= bytes {
            break;
        }
        freed += held as u64;
        connections.mark_closing(token, CloseReason::KernelMemory);
    }
}

/// Returns the bytes that the kernel holds for a client and its back end.
fn held(connection: &Connection) -> usize {
    let back_end = connection.splice().map(Splice::fd);
    let sockets = [Some(connection.stream.fd()), back_end];
    let memory = sockets.into_iter().flatten().filter_map(|socket| KernelMemory::of(socket).ok());
    memory.map(KernelMemory::total).sum()
}
