//! Closes connections that hold much of the kernel's memory for TCP without a use, while it runs low.
//!
//! All programs of the machine share that memory (`net.ipv4.tcp_mem`). When it is used up, TCP slows down for all. A
//! connection uses it for bytes that the server has not read, for segments that wait behind a missing one, and for output
//! that the client does not acknowledge. Others may hold more than the relay, and then closing does not help. So only what
//! no honest client holds for long is closed; calls and downloads that go on are not, unless one source or one user holds very
//! much with many of them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::connection::Connection;
use super::connections::Connections;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::syscall::KernelMemory;
use crate::net::token::Token;
use crate::turn::action::UserId;

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

/// What the clients of one source without an allocation hold together: a school's while they connect and load pages. Its slow
/// connections count only from [`OF_MANY`] on, which a page of a browser on a slow line has.
const SOURCE: usize = 32 << 20;
/// What the connections of one user hold together: more than thirty calls of [`CALL`] bytes each.
const USER: usize = 32 << 20;
const OF_MANY: usize = 32 << 10;
/// The order of connections of such a source or user.
const OF_ONE_OWNER: u8 = 3;

/// What the kernel holds for a connection.
struct Holding {
    token: Token,
    owner: Owner,
    bytes: usize,
    /// The order in which to close it; `None` while its bytes are of use.
    order: Option<u8>,
}

/// Who answers for what a connection holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    User(UserId),
    Source(Network),
}

/// Marks connections that hold `bytes` together: first clients without an allocation, then web clients that have stopped
/// reading, then clients with an allocation, then those of an owner that holds very much with many connections; of each kind
/// the largest first. If there are more than [`LOOKS`] connections, each second examines others.
pub fn close_largest(connections: &mut Connections, bytes: u64, now: Instant) {
    let mut tokens = connections.tokens();
    if tokens.len() > LOOKS {
        let seconds = now.as_secs() as usize;
        let start = seconds.wrapping_mul(LOOKS) % tokens.len();
        tokens.rotate_left(start);
        tokens.truncate(LOOKS);
    }
    let holdings =
        tokens.into_iter().filter_map(|token| Some(Holding::of(connections.get(token)?, token, now)));
    for token in to_close(holdings.collect(), bytes) {
        connections.mark_closing(token, CloseReason::KernelMemory);
    }
}

/// Returns the connections to close.
fn to_close(mut holdings: Vec<Holding>, bytes: u64) -> Vec<Token> {
    let mut owned: HashMap<Owner, usize> = HashMap::new();
    for holding in &holdings {
        *owned.entry(holding.owner).or_default() += holding.bytes;
    }
    for holding in &mut holdings {
        let is_too_much = match holding.owner {
            Owner::User(_) => owned[&holding.owner] >= USER,
            Owner::Source(_) => owned[&holding.owner] >= SOURCE,
        };
        if holding.order.is_none() && is_too_much && holding.bytes >= OF_MANY {
            holding.order = Some(OF_ONE_OWNER);
        }
    }
    holdings.retain(|holding| holding.order.is_some());
    holdings.sort_unstable_by_key(|holding| (holding.order, Reverse(holding.bytes)));
    let (mut freed, mut closed) = (0, Vec::new());
    for Holding { token, owner, bytes: held, order } in holdings {
        if freed >= bytes {
            break;
        }
        // An owner keeps what is below the limit.
        let left = owned.entry(owner).or_default();
        if order == Some(OF_ONE_OWNER) && *left < SOURCE.min(USER) {
            continue;
        }
        *left -= held;
        freed += held as u64;
        closed.push(token);
    }
    closed
}

impl Holding {
    fn of(connection: &Connection, token: Token, now: Instant) -> Self {
        let owner = match connection.share.user {
            Some(user) => Owner::User(user),
            None => Owner::Source(Network::site(connection.client.five_tuple.client.ip())),
        };
        let client = KernelMemory::of(connection.stream.fd()).unwrap_or_default();
        let Some(splice) = connection.splice() else {
            let bytes = client.total();
            let order = match owner {
                Owner::User(_) => (bytes >= CALL).then_some(2),
                Owner::Source(_) => (client.received >= RECEIVED || bytes >= STRANGER).then_some(0),
            };
            return Self { token, owner, bytes, order };
        };
        let back_end = KernelMemory::of(splice.fd()).unwrap_or_default();
        let (upwards, downwards) = (client.received + back_end.unsent, client.unsent + back_end.received);
        let stalled = |bytes: usize, since: Instant| bytes >= WEB && now.since(since) >= STALLED;
        let is_stalled = stalled(upwards, connection.active) || stalled(downwards, splice.sent_at());
        Self { token, owner, bytes: client.total() + back_end.total(), order: is_stalled.then_some(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::token::Generation;

    const MIB: usize = 1 << 20;

    fn holding(slot: u32, owner: Owner, bytes: usize, order: Option<u8>) -> Holding {
        Holding { token: Token::Stream { slot, generation: Generation::default() }, owner, bytes, order }
    }

    /// Returns the slots of the connections that are closed.
    fn closed(holdings: Vec<Holding>, bytes: usize) -> Vec<u32> {
        let slot = |token| match token {
            Token::Stream { slot, .. } => slot,
            other => panic!("{other:?}"),
        };
        to_close(holdings, bytes as u64).into_iter().map(slot).collect()
    }

    fn source(last: u8) -> Owner {
        Owner::Source(Network::site([192, 0, 2, last].into()))
    }

    #[test]
    fn what_is_of_no_use_is_closed_first_and_no_more_than_is_needed() {
        let user = |number| Owner::User(UserId(number));
        let holdings = || {
            vec![
                holding(1, user(1), 2 * MIB, Some(2)),
                holding(2, source(1), 9 << 10, Some(0)),
                holding(3, source(2), MIB, None),
                holding(4, source(3), MIB, Some(1)),
                holding(5, source(4), 70 << 10, Some(0)),
            ]
        };
        assert_eq!(closed(holdings(), 1), [5]);
        assert_eq!(closed(holdings(), MIB), [5, 2, 4]);
        assert_eq!(closed(holdings(), 100 * MIB), [5, 2, 4, 1]);
    }

    /// Each connection of somebody with many may be one that an honest client has, too.
    #[test]
    fn an_owner_keeps_no_more_than_its_limit() {
        for owner in [source(1), Owner::User(UserId(1))] {
            let many = || (0..400).map(|slot| holding(slot, owner, 256 << 10, None));
            let others = || (400..500).map(|slot| holding(slot, source(9), 256 << 10, None));
            let all = closed(many().chain(others()).collect(), 1000 * MIB);
            assert!(all.iter().all(|&slot| slot < 400));
            assert_eq!((400 - all.len()) * 256 << 10, 32 * MIB - (256 << 10));
            assert_eq!(closed(many().chain(others()).collect(), MIB).len(), 4, "no more than is needed");
        }
        let small = (0..4000).map(|slot| holding(slot, source(1), 20 << 10, None));
        assert_eq!(closed(small.collect(), 1000 * MIB), [0; 0], "a school on slow lines");
    }
}
