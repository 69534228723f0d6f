//! Which refusals a worker reports. All of them are counted; a report costs memory and a line of the log.
//!
//! A client that fails tries again many times, and its first report says why. A school is one source, and all its pupils may
//! fail at once. So there is a budget for each user and reason, one for each source, and one for the worker.

use super::budget::{NANOS_PER_SECOND, pay};
use crate::base::time::Instant;
use crate::turn::five_tuple::Client;
use crate::turn::identity::auth::Identity;
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle};

/// Reports of one worker a second.
const RATE: u64 = 20;
/// Nanoseconds' worth that may come at once: 100 reports.
const BURST: u64 = 5 * NANOS_PER_SECOND;
/// The factor by which the clock of the throttle is slowed. The throttle refills a budget within one second of its clock.
const SLOWER: u64 = 200;
/// Reports for one reason about one user, or about one source and user name: one every 200 s.
const OF_USER: Limit = Limit { per_second: 1 };
/// Reports about one source: 30 at once, then one every 7 s.
const OF_SOURCE: Limit = Limit { per_second: 30 };

/// The budgets for reports.
#[derive(Debug)]
pub struct Reports {
    throttle: Throttle,
    /// When the budget of the worker is full again (GCRA).
    until: u64,
}

impl Reports {
    /// Full budgets. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        Self { throttle: Throttle::new(key), until: 0 }
    }

    /// Takes a report for this reason ([`Reason::index`](crate::turn::identity::refusal::Reason::index)) about this client and
    /// this user; `name` is the user name of a sender that is not authenticated. Returns whether every budget had one left.
    pub fn take(
        &mut self,
        now: Instant,
        client: &Client,
        (user, name): (Option<&Identity>, &str),
        reason: usize,
    ) -> bool {
        // The cheapest first: in a flood it is the one that is used up.
        let Ok(until) = pay(self.until, now.as_nanos(), NANOS_PER_SECOND / RATE, BURST) else { return false };
        let slowed = Instant::from_nanos(now.as_nanos() / SLOWER);
        let source = Subject::Source(client.five_tuple.client.ip());
        let user = match user {
            Some(identity) if !identity.user.is_empty() => Subject::User(identity.host, &identity.user),
            _ if !name.is_empty() => Subject::Name(client.five_tuple.client.ip(), name),
            _ => source,
        };
        let may = self.throttle.take(slowed, Purpose::ReportOfUser(reason as u8), user, 1, OF_USER)
            && self.throttle.take(slowed, Purpose::ReportOfSource, source, 1, OF_SOURCE);
        if may {
            self.until = until;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::turn::five_tuple::{FiveTuple, Link};

    fn client(source: u32) -> Client {
        let server = "192.0.2.1:3478".parse().expect("literal");
        let client = (std::net::Ipv4Addr::from(0x0a00_0000 + source), 1).into();
        Client { five_tuple: FiveTuple { transport: Transport::Udp, client, server }, link: Link(0) }
    }

    /// Returns how many of `count` refusals are reported, of clients and user names by number.
    fn reported(reports: &mut Reports, seconds: u64, count: u32, who: impl Fn(u32) -> (u32, u32)) -> usize {
        let now = Instant::from_nanos(seconds * NANOS_PER_SECOND);
        let taken = |number: &u32| {
            let (source, user) = who(*number);
            reports.take(now, &client(source), (None, &format!("1700000000:{user}")), 7)
        };
        (0..count).filter(taken).count()
    }

    #[test]
    fn a_client_that_tries_again_and_again_is_reported_once() {
        let mut reports = Reports::new([1, 2]);
        assert_eq!(reported(&mut reports, 1000, 500, |_| (1, 1)), 1);
        let now = Instant::from_nanos(1000 * NANOS_PER_SECOND);
        assert!(reports.take(now, &client(1), (None, "1700000000:1"), 8), "for another reason");
        assert_eq!(reported(&mut reports, 1201, 500, |_| (1, 1)), 1);
    }

    #[test]
    fn a_school_is_reported_thirty_times_and_keeps_out_no_other() {
        let mut reports = Reports::new([1, 2]);
        assert_eq!(reported(&mut reports, 1000, 500, |number| (1, number)), 30);
        assert_eq!(reported(&mut reports, 1000, 3, |number| (2, number)), 3);
        assert_eq!(reported(&mut reports, 1007, 500, |number| (1, 1000 + number)), 1);
    }

    #[test]
    fn a_worker_reports_a_hundred_at_once_and_then_twenty_a_second() {
        let mut reports = Reports::new([1, 2]);
        let counts = [1000, 1001, 1003].map(|seconds| {
            reported(&mut reports, seconds, 50_000, |number| (seconds as u32 * 50_000 + number, number))
        });
        assert_eq!(counts, [100, 20, 40]);
    }
}
