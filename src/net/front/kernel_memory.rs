//! Closes connections that hold much of the kernel's memory for TCP without a use, while it runs low.
//!
//! All programs of the machine share that memory (`net.ipv4.tcp_mem`). When it is used up, TCP slows down for all. A
//! connection uses it for bytes that the server has not read, for segments that wait behind a missing one, and for output
//! that the client does not acknowledge. Others may hold more than the relay, and then closing does not help. So only these are
//! closed: what no honest client holds; connections without progress; and, if one owner holds very much, those of its
//! connections with the least progress.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::vec;

use super::connection::Connection;
use super::connections::Connections;
use super::progress::Progress;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::net::TcpShortage;
use crate::net::counters::CloseReason;
use crate::net::syscall::{KernelMemory, TcpProgress};
use crate::net::token::Token;
use crate::turn::action::UserId;

/// Connections examined in a turn, which takes 0.25 ms: two to four system calls for each.
const LOOKS: usize = 64;
/// What a client without an allocation sends is read at once. More than this waits behind a missing segment. Some network cards use
/// a page for each packet, however small, and a ClientHello may have three.
const RECEIVED: usize = 16 << 10;
/// A client without an allocation gets small answers, and the flight of a TLS handshake.
const STRANGER: usize = 64 << 10;
/// A call has output on the way, two thirds more than its length with the kernel's overhead: 625 KB at 10 Mbit/s and a round trip
/// of 300 ms. Up to 256 KiB of what it sent may wait behind a lost segment.
const CALL: usize = 1 << 20;
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
#[derive(Debug)]
struct Holding {
    token: Token,
    owner: Owner,
    bytes: usize,
    /// Why to close it; `None` while its bytes are of use.
    why: Option<Why>,
    /// Bytes held at the look before that have not arrived since. A connection that is new has none.
    overdue: usize,
}

/// Who answers for what a connection holds: its source, and the user of its allocation. A static user may have many people at
/// many sources.
type Owner = (Option<UserId>, Network);

/// How one direction of a connection gets on, from look to look.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Begins anew while nothing is held.
    progress: Progress,
    /// What was held at the last look, and how much had arrived by then.
    last: (usize, u64),
}

impl Mark {
    fn new(now: Instant, arrived: u64) -> Self {
        Self { progress: Progress::new(now, arrived), last: (0, arrived) }
    }

    /// Takes a look: so many bytes are held, and so many have arrived since the connection began. Returns how many of those held at
    /// the last look have not arrived.
    fn follow(&mut self, now: Instant, held: usize, arrived: u64) -> usize {
        let since = arrived.saturating_sub(self.last.1);
        let overdue = self.last.0.saturating_sub(usize::try_from(since).unwrap_or(usize::MAX)).min(held);
        match held <= PAGE {
            true => self.progress = Progress::new(now, arrived),
            false => self.progress.follow(now, arrived),
        }
        self.last = (held, arrived);
        overdue
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.progress.is_stalled(now)
    }
}

/// Frees the kernel's memory for TCP.
#[derive(Debug, Default)]
pub struct Guard {
    /// The progress of the connections examined, down to the client and up from it. Empty while memory is not low.
    marks: HashMap<Token, [Mark; 2]>,
    round: Option<Round>,
}

/// Connections are examined a few in each turn, and some closed when all have been.
#[derive(Debug)]
struct Round {
    shortage: TcpShortage,
    left: vec::IntoIter<Token>,
    holdings: Vec<Holding>,
}

impl Guard {
    /// Begins to look at all connections, unless it does already. Without a shortage, forgets their progress. Closed connections
    /// with output that is not acknowledged go at once: nobody waits for them.
    pub fn begin(&mut self, connections: &mut Connections, shortage: Option<TcpShortage>) {
        connections.lingering.set_memory_low(shortage.is_some());
        let Some(shortage) = shortage else { return *self = Self::default() };
        match &mut self.round {
            Some(round) => round.shortage = shortage,
            None => {
                let left = connections.tokens().into_iter();
                self.round = Some(Round { shortage, left, holdings: Vec::new() });
            }
        }
    }

    /// Returns whether connections are left to look at.
    pub fn is_busy(&self) -> bool {
        self.round.is_some()
    }

    /// Looks at a few connections. After the last one, marks those to be closed that hold the missing bytes together: first clients
    /// without an allocation that hold more than they can need, then what makes no progress, then calls that hold more than any
    /// line needs, each the largest first; at last those of an owner with too much, those with the most overdue first.
    pub fn examine(&mut self, connections: &mut Connections, now: Instant) {
        let Some(mut round) = self.round.take() else { return };
        for token in round.left.by_ref().take(LOOKS) {
            if let Some(connection) = connections.get(token) {
                round.holdings.push(self.holding(connection, token, now));
            }
        }
        if round.left.len() > 0 {
            self.round = Some(round);
            return;
        }
        let Round { shortage, holdings, .. } = round;
        for token in to_close(holdings, shortage.bytes, shortage.of_owner as usize) {
            connections.mark_closing(token, CloseReason::KernelMemory);
        }
        self.marks.retain(|&token, _| connections.get(token).is_some());
    }

    fn holding(&mut self, connection: &Connection, token: Token, now: Instant) -> Holding {
        let owner = (connection.share.user, Network::site(connection.client.five_tuple.client.ip()));
        let client = KernelMemory::of(connection.stream.fd()).unwrap_or_default();
        let Some(splice) = connection.splice() else {
            let why = match owner.0 {
                Some(_) => (client.total() >= CALL).then_some(Why::Call),
                None => {
                    let is_much = client.received >= RECEIVED || client.total() >= STRANGER;
                    is_much.then_some(Why::Stranger)
                }
            };
            let overdue = match client.unsent > PAGE {
                false => 0,
                true => self.follow(token, connection, [client.unsent, 0], now).1,
            };
            return Holding { token, owner, bytes: client.total(), why, overdue };
        };
        let back_end = KernelMemory::of(splice.fd()).unwrap_or_default();
        let held = [client.unsent + back_end.received, client.received + back_end.unsent];
        let bytes = client.total() + back_end.total() + OF_WEB_SERVER * back_end.received;
        if held.iter().all(|&held| held <= PAGE) {
            self.marks.remove(&token);
            return Holding { token, owner, bytes, why: None, overdue: 0 };
        }
        let (is_stalled, overdue) = self.follow(token, connection, held, now);
        Holding { token, owner, bytes, why: is_stalled.then_some(Why::Stalled), overdue }
    }

    /// Takes a look at what is held in each direction. Returns whether one of them makes no progress, and the overdue bytes.
    fn follow(
        &mut self,
        token: Token,
        connection: &Connection,
        held: [usize; 2],
        now: Instant,
    ) -> (bool, usize) {
        let client = TcpProgress::of(connection.stream.fd()).unwrap_or_default();
        let upwards = match connection.splice() {
            Some(splice) => TcpProgress::of(splice.fd()).unwrap_or_default().acknowledged,
            None => client.received,
        };
        let arrived = [client.acknowledged, upwards];
        let marks = self.marks.entry(token).or_insert_with(|| arrived.map(|bytes| Mark::new(now, bytes)));
        let (mut is_stalled, mut overdue) = (false, 0);
        for ((mark, held), arrived) in marks.iter_mut().zip(held).zip(arrived) {
            overdue += mark.follow(now, held, arrived);
            is_stalled |= mark.is_stalled(now);
        }
        (is_stalled, overdue)
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
        let overdue = if holding.why == Some(Why::Owner) { holding.overdue } else { 0 };
        (holding.why, Reverse(overdue), Reverse(holding.bytes))
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
    use crate::net::front::progress::STEP;
    use crate::net::token::Generation;

    const MIB: usize = 1 << 20;
    const OF_OWNER: usize = 16 * MIB;

    fn holding(slot: u32, owner: Owner, bytes: usize, why: Option<Why>) -> Holding {
        let token = Token::Stream { slot, generation: Generation::default() };
        Holding { token, owner, bytes, why, overdue: 0 }
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

    /// Behind one address, those who read are not closed for those who do not, and a newcomer is closed last.
    #[test]
    fn of_an_owner_the_connections_with_the_most_overdue_are_closed() {
        let of = |slot, bytes, overdue| Holding { overdue, ..holding(slot, source(1), bytes, None) };
        let mut holdings: Vec<_> = (0..1500).map(|slot| of(slot, 20 << 10, 15 << 10)).collect();
        holdings.extend((1500..1505).map(|slot| of(slot, 500 << 10, 10 << 10)));
        holdings.push(of(1505, 600 << 10, 0));
        let closed = closed(holdings, 1000 * MIB);
        assert!(closed.len() > 700 && closed.iter().all(|&slot| slot < 1500), "{}", closed.len());
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos((1000 + seconds) * 1_000_000_000)
    }

    #[test]
    fn a_direction_is_stalled_if_too_little_arrives_for_ten_seconds() {
        let mut mark = Mark::new(at(0), 5_000_000);
        // A few bytes now and then are no progress.
        for second in 1..10 {
            mark.follow(at(second), 100_000, 5_000_000 + second * 1000);
            assert!(!mark.is_stalled(at(second)));
        }
        assert!(mark.is_stalled(at(10)));
        mark.follow(at(11), 100_000, 5_000_000 + STEP);
        assert!(!mark.is_stalled(at(20)) && mark.is_stalled(at(21)));
    }

    /// A connection that was quiet, and is looked at in the middle of its next answer.
    #[test]
    fn a_direction_that_held_nothing_is_not_stalled() {
        let mut mark = Mark::new(at(0), 5_000_000);
        for second in 1..=30 {
            assert_eq!(mark.follow(at(second), 0, 5_000_000), 0);
        }
        mark.follow(at(31), 60_000, 5_004_000);
        assert!(!mark.is_stalled(at(31)) && !mark.is_stalled(at(39)) && mark.is_stalled(at(40)));
    }

    #[test]
    fn overdue_is_what_was_held_before_and_has_not_arrived() {
        let mut mark = Mark::new(at(0), 1000);
        assert_eq!(mark.follow(at(1), 300_000, 1000), 0, "new");
        assert_eq!(mark.follow(at(2), 300_000, 101_000), 200_000);
        assert_eq!(mark.follow(at(3), 500_000, 900_000), 0, "all of it has arrived");
        assert_eq!(mark.follow(at(4), 10_000, 900_000), 10_000, "no more than is held now");
    }
}
