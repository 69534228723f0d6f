//! Closes the connections for which the kernel holds the most memory, while its memory for TCP runs low.
//!
//! All programs of the machine share that memory (`net.ipv4.tcp_mem`). When it is used up, TCP slows down for all. A
//! connection uses it for bytes that the server has not read, for segments that wait behind a missing one, and for output
//! that the client does not acknowledge.

use std::cmp::Reverse;

use super::connection::Connection;
use super::connections::Connections;
use super::splice::Splice;
use crate::base::time::Instant;
use crate::net::admission::Class;
use crate::net::counters::CloseReason;
use crate::net::syscall::kernel_memory;
use crate::net::token::Token;

/// Connections examined per call, which takes one to three milliseconds.
const LOOKS: usize = 4096;
/// A connection with less than this is not closed.
const MIN: usize = 8 << 10;

/// Marks connections that hold `bytes` together, the largest first. Clients with an allocation are marked only if no other
/// connection holds much. If there are more than [`LOOKS`] connections, each second examines others.
pub fn close_largest(connections: &mut Connections, bytes: u64, now: Instant) {
    let mut tokens = connections.tokens();
    if tokens.len() > LOOKS {
        let seconds = (now.as_nanos() / 1_000_000_000) as usize;
        let start = seconds.wrapping_mul(LOOKS) % tokens.len();
        tokens.rotate_left(start);
        tokens.truncate(LOOKS);
    }
    let mut largest: Vec<(bool, usize, Token)> = Vec::new();
    for token in tokens {
        let Some(connection) = connections.get(token) else { continue };
        let held = held(connection);
        if held >= MIN {
            largest.push((connection.class() == Class::Authenticated, held, token));
        }
    }
    largest.sort_unstable_by_key(|&(has_allocation, held, _)| (has_allocation, Reverse(held)));
    let least = largest.first().map(|&(has_allocation, ..)| has_allocation);
    let mut freed = 0;
    for (has_allocation, held, token) in largest {
        if freed >= bytes || Some(has_allocation) != least {
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
    sockets.into_iter().flatten().map(|socket| kernel_memory(socket).unwrap_or(0)).sum()
}
