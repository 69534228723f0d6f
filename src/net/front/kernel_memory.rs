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
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::syscall::KernelMemory;
use crate::net::token::Token;

/// Connections examined per call, which takes one to three milliseconds.
const LOOKS: usize = 4096;
/// What a client without an allocation sends is read at once. More than this waits behind a missing segment.
const RECEIVED: usize = 8 << 10;
/// A client without an allocation gets small answers, and the flight of a TLS handshake.
const STRANGER: usize = 64 << 10;
/// A web client holds data while it loads a page. One without progress for [`STALLED`] has stopped reading; a download on a
/// very slow line takes 64 KiB in that time.
const WEB: usize = 16 << 10;
const STALLED: Duration = Duration::from_secs(10);
/// A call has output on the way, two thirds more than its length with the kernel's overhead: 625 KB at 10 Mbit/s and a round trip
/// of 300 ms. Up to 256 KiB of what it sent may wait behind a lost segment.
const CALL: usize = 1 << 20;

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
        if let Some((order, held)) = useless(connection, now) {
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

/// Returns the bytes that the kernel holds for a connection, and in which order to close it; `None` if they are of use.
fn useless(connection: &Connection, now: Instant) -> Option<(u8, usize)> {
    let client = KernelMemory::of(connection.stream.fd()).unwrap_or_default();
    let Some(splice) = connection.splice() else {
        let held = client.total();
        return match connection.share.user {
            Some(_) => (held >= CALL).then_some((2, held)),
            None => (client.received >= RECEIVED || held >= STRANGER).then_some((0, held)),
        };
    };
    let back_end = KernelMemory::of(splice.fd()).unwrap_or_default();
    let (upwards, downwards) = (client.received + back_end.unsent, client.unsent + back_end.received);
    let stalled = |bytes: usize, since: Instant| bytes >= WEB && now.since(since) >= STALLED;
    let is_stalled = stalled(upwards, connection.active) || stalled(downwards, splice.sent_at());
    is_stalled.then(|| (1, client.total() + back_end.total()))
}
