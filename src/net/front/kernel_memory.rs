//! Closes connections that hold much of the kernel's memory for TCP without a use, while it runs low.
//!
//! All programs of the machine share that memory (`net.ipv4.tcp_mem`). When it is used up, TCP slows down for all. A
//! connection uses it for bytes that the server has not read, for segments that wait behind a missing one, and for output
//! that the client does not acknowledge. Others may hold more than the relay, and then closing does not help. So only these are
//! closed: what no honest client holds; connections without progress; and, if one owner holds very much, those of its
//! connections with the least progress.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::connection::Connection;
use super::connections::Connections;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::net::TcpShortage;
use crate::net::counters::CloseReason;
use crate::net::syscall::{KernelMemory, TcpProgress};
use crate::net::token::Token;
use crate::turn::action::UserId;

/// Connections examined per call, which takes two to five milliseconds.
const LOOKS: usize = 4096;
/// What a client without an allocation sends is read at once. More than this waits behind a missing segment.
const RECEIVED: usize = 8 << 10;
/// A client without an allocation gets small answers, and the flight of a TLS handshake.
const STRANGER: usize = 64 << 10;
/// A call has output on the way, two thirds more than its length with the kernel's overhead: 625 KB at 10 Mbit/s and a round trip
/// of 300 ms. Up to 256 KiB of what it sent may wait behind a lost segment.
const CALL: usize = 1 << 20;
/// A direction of a connection holds data without a use if less than [`STEP`] of it arrived in this time. On a line with
/// 13 kbit/s more arrives.
const STALLED: Duration = Duration::from_secs(10);
const STEP: u64 = 16 << 10;
/// What is below a page of the kernel's is not worth closing a connection.
const PAGE: usize = 4 << 10;
/// The web server on this machine holds about three times what the relay has not read from it, with the segments of its size
/// on the loopback interface.
const OF_WEB_SERVER: usize = 3;

/// In which order connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// A client without an allocation that holds more than it can need.
    Stranger,
    /// A direction without progress, of a web client or of an upload to a web server.
    Stalled,
    /// A call that holds more than any line needs.
    Call,
    /// Nothing but that its owner holds too much.
    Owner,
}

/// What the kernel holds for a connection.
struct Holding {
    token: Token,
    owner: Owner,
    bytes: usize,
    /// Why to close it; `None` while its bytes are of use.
    why: Option<Why>,
    /// Payload bytes a second that arrived, both directions together.
    rate: u64,
}

/// Who answers for what a connection holds: its source, and the user of its allocation. A static user may have many people at
/// many sources.
type Owner = (Option<UserId>, Network);

/// Bytes of one direction that arrived.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first: (Instant, u64),
    /// When [`STEP`] more had arrived, and how much that was.
    last: (Instant, u64),
}

impl Mark {
    fn new(now: Instant, arrived: u64) -> Self {
        Self { first: (now, arrived), last: (now, arrived) }
    }

    fn follow(&mut self, now: Instant, arrived: u64) {
        if arrived >= self.last.1 + STEP {
            self.last = (now, arrived);
        }
    }

    fn is_stalled(&self, now: Instant) -> bool {
        now.since(self.last.0) >= STALLED
    }

    /// Returns the bytes a second since the first look.
    fn rate(&self, now: Instant, arrived: u64) -> u64 {
        arrived.saturating_sub(self.first.1) / now.since(self.first.0).as_secs().max(1)
    }
}

/// Frees the kernel's memory for TCP.
#[derive(Debug, Default)]
pub struct Guard {
    /// The progress of the connections examined, down to the client and up from it. Empty while memory is not low.
    marks: HashMap<Token, [Mark; 2]>,
}

impl Guard {
    /// Marks connections that hold the missing bytes together: first clients without an allocation that hold more than they can
    /// need, then what makes no progress, then calls that hold more than any line needs, each the largest first; at last those
    /// of an owner with too much, by their progress. If there are more than a call examines, each second examines others.
    /// Without a shortage, forgets their progress.
    pub fn free(&mut self, connections: &mut Connections, shortage: Option<TcpShortage>, now: Instant) {
        let Some(shortage) = shortage else { return *self = Self::default() };
        let mut tokens = connections.tokens();
        let all = tokens.len();
        if all > LOOKS {
            let seconds = now.as_secs() as usize;
            let start = seconds.wrapping_mul(LOOKS) % all;
            tokens.rotate_left(start);
            tokens.truncate(LOOKS);
        }
        let looked_at = tokens.len().max(1);
        let holdings: Vec<Holding> = tokens
            .into_iter()
            .filter_map(|token| Some(self.holding(connections.get(token)?, token, now)))
            .collect();
        // An owner's part of the connections examined stands for its part of all.
        let of_owner = shortage.of_owner as usize * looked_at / all.max(1);
        for token in to_close(holdings, shortage.bytes, of_owner) {
            connections.mark_closing(token, CloseReason::KernelMemory);
        }
        self.marks.retain(|&token, _| connections.get(token).is_some());
    }

    fn holding(&mut self, connection: &Connection, token: Token, now: Instant) -> Holding {
        let owner = (connection.share.user, Network::site(connection.client.five_tuple.client.ip()));
        let client = KernelMemory::of(connection.stream.fd()).unwrap_or_default();
        let progress = TcpProgress::of(connection.stream.fd()).unwrap_or_default();
        let back_end = connection.splice().map(|splice| {
            let progress = TcpProgress::of(splice.fd()).unwrap_or_default();
            (KernelMemory::of(splice.fd()).unwrap_or_default(), progress.acknowledged)
        });
        let arrived = [progress.acknowledged, back_end.map_or(progress.received, |(_, upwards)| upwards)];
        let marks = self.marks.entry(token).or_insert_with(|| arrived.map(|bytes| Mark::new(now, bytes)));
        let mut rate = 0;
        for (mark, bytes) in marks.iter_mut().zip(arrived) {
            mark.follow(now, bytes);
            rate += mark.rate(now, bytes);
        }
        let (bytes, why) = match (back_end, owner) {
            (Some((back_end, _)), _) => {
                let held = [client.unsent + back_end.received, client.received + back_end.unsent];
                let is_stalled =
                    marks.iter().zip(held).any(|(mark, held)| held > PAGE && mark.is_stalled(now));
                let bytes = client.total() + back_end.total() + OF_WEB_SERVER * back_end.received;
                (bytes, is_stalled.then_some(Why::Stalled))
            }
            (None, (Some(_), _)) => (client.total(), (client.total() >= CALL).then_some(Why::Call)),
            (None, (None, _)) => {
                let is_much = client.received >= RECEIVED || client.total() >= STRANGER;
                (client.total(), is_much.then_some(Why::Stranger))
            }
        };
        Holding { token, owner, bytes, why, rate }
    }
}

/// Returns the connections to close so that `missing` bytes become free. An owner keeps `of_owner` bytes.
fn to_close(mut holdings: Vec<Holding>, missing: u64, of_owner: usize) -> Vec<Token> {
    let mut owned: HashMap<Owner, usize> = HashMap::new();
    for holding in &holdings {
        *owned.entry(holding.owner).or_default() += holding.bytes;
    }
    for holding in &mut holdings {
        if holding.why.is_none() && owned[&holding.owner] > of_owner && holding.bytes > PAGE {
            holding.why = Some(Why::Owner);
        }
    }
    holdings.retain(|holding| holding.why.is_some());
    holdings.sort_unstable_by_key(|holding| {
        let progress = if holding.why == Some(Why::Owner) { holding.rate } else { 0 };
        (holding.why, progress, Reverse(holding.bytes))
    });
    let (mut freed, mut closed) = (0, Vec::new());
    for Holding { token, owner, bytes, why, .. } in holdings {
        if freed >= missing {
            break;
        }
        let left = owned.entry(owner).or_default();
        if why == Some(Why::Owner) && *left <= of_owner {
            continue;
        }
        *left -= bytes;
        freed += bytes as u64;
        closed.push(token);
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::token::Generation;

    const MIB: usize = 1 << 20;
    const OF_OWNER: usize = 16 * MIB;

    fn holding(slot: u32, owner: Owner, bytes: usize, why: Option<Why>) -> Holding {
        let token = Token::Stream { slot, generation: Generation::default() };
        Holding { token, owner, bytes, why, rate: 0 }
    }

    /// Returns the slots of the connections that are closed.
    fn closed(holdings: Vec<Holding>, bytes: usize) -> Vec<u32> {
        let slot = |token| match token {
            Token::Stream { slot, .. } => slot,
            other => panic!("{other:?}"),
        };
        to_close(holdings, bytes as u64, OF_OWNER).into_iter().map(slot).collect()
    }

    fn source(last: u8) -> Owner {
        (None, Network::site([192, 0, 2, last].into()))
    }

    fn user(number: u32) -> Owner {
        (Some(UserId(number)), Network::site([192, 0, 2, 9].into()))
    }

    #[test]
    fn what_is_of_no_use_is_closed_first_and_no_more_than_is_needed() {
        let holdings = || {
            vec![
                holding(1, user(1), 2 * MIB, Some(Why::Call)),
                holding(2, source(1), 9 << 10, Some(Why::Stranger)),
                holding(3, source(2), MIB, None),
                holding(4, source(3), MIB, Some(Why::Stalled)),
                holding(5, source(4), 70 << 10, Some(Why::Stranger)),
            ]
        };
        assert_eq!(closed(holdings(), 1), [5]);
        assert_eq!(closed(holdings(), MIB), [5, 2, 4]);
        assert_eq!(closed(holdings(), 100 * MIB), [5, 2, 4, 1]);
    }

    /// Each connection of somebody with many may be one that an honest client has, too.
    #[test]
    fn an_owner_keeps_no_more_than_its_limit() {
        for owner in [source(1), user(1)] {
            let many = || (0..400).map(|slot| holding(slot, owner, 256 << 10, None));
            let others = || (400..450).map(|slot| holding(slot, source(8), 256 << 10, None));
            let all = closed(many().chain(others()).collect(), 1000 * MIB);
            assert!(all.iter().all(|&slot| slot < 400));
            assert_eq!((400 - all.len()) * (256 << 10), OF_OWNER);
            assert_eq!(closed(many().chain(others()).collect(), MIB).len(), 4, "no more than is needed");
        }
        let few = (0..700).map(|slot| holding(slot, source(1), 20 << 10, None));
        assert_eq!(closed(few.collect(), 1000 * MIB), [0; 0], "a school on slow lines");
    }

    /// Behind one address, those who read are not closed for those who do not.
    #[test]
    fn of_an_owner_the_connections_with_the_least_progress_are_closed() {
        let mut holdings: Vec<_> = (0..1500).map(|slot| holding(slot, source(1), 20 << 10, None)).collect();
        holdings.extend(
            (1500..1505).map(|slot| Holding { rate: 75_000, ..holding(slot, source(1), 500 << 10, None) }),
        );
        let closed = closed(holdings, 1000 * MIB);
        assert!(closed.len() > 700 && closed.iter().all(|&slot| slot < 1500), "{}", closed.len());
    }

    #[test]
    fn a_direction_is_stalled_if_too_little_arrives_for_ten_seconds() {
        let at = |seconds| Instant::from_nanos((1000 + seconds) * 1_000_000_000);
        let mut mark = Mark::new(at(0), 5_000_000);
        // A few bytes now and then are no progress.
        for second in 1..10 {
            mark.follow(at(second), 5_000_000 + second * 1000);
            assert!(!mark.is_stalled(at(second)));
        }
        assert!(mark.is_stalled(at(10)));
        assert_eq!(mark.rate(at(10), 5_010_000), 1000);
        mark.follow(at(11), 5_000_000 + STEP);
        assert!(!mark.is_stalled(at(20)) && mark.is_stalled(at(21)));
    }
}
