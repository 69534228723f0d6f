//! Which refusals a worker reports. All of them are counted; a report costs memory and a line of the log.
//!
//! A client that fails tries again many times, and its first report says why. A school is one source, and all its pupils may
//! fail at once. So there is a budget for each user and reason, one for each source of others, and one for the worker. Senders that have
//! proven less have budgets of their own, so that they cannot use up those of others.

use super::budget::{NANOS_PER_SECOND, pay};
use super::unreported::Unreported;
use crate::base::host::HostId;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::turn::five_tuple::Client;
use crate::turn::identity::refusal::{Refusal, Sender};
use crate::turn::throttle::{Limit, Purpose, Subject, Throttle, slowed};

/// Reports of one worker a second, by sender.
const RATES: [u64; 4] = [2, 10, 10, 2];
/// Nanoseconds' worth that may come at once: 10, 50, 50 and 10 reports.
const BURST: u64 = 5 * NANOS_PER_SECOND;
/// Reports for one reason about one user, or about one source and user name: one every 200 s.
const OF_USER: Limit = Limit { per_second: 1 };
/// Reports about one source: 30 at once, then one every 7 s.
const OF_SOURCE: Limit = Limit { per_second: 30 };

/// The budgets for reports.
#[derive(Debug)]
pub struct Reports {
    /// By sender, so that none takes the places of others.
    throttles: [Throttle; 4],
    /// When the budget of the worker is full again, by sender (GCRA).
    until: [u64; 4],
    /// What the budget of a source has hidden.
    unreported: Unreported,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is reported.
    Reported,
    /// It is not: the same was reported lately, or anybody may have sent it, or the worker reports no more.
    Skipped,
    /// It is not, because others at its source have used up the budget. It must be counted with [`Reports::hide`].
    Hidden,
}

impl Reports {
    /// Full budgets. `key` must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            throttles: [(); 4].map(|()| Throttle::new(key)),
            until: [0; 4],
            unreported: Unreported::default(),
        }
    }

    /// Takes a report for this reason ([`Reason::index`](crate::turn::identity::refusal::Reason::index)) about this client and
    /// this user of a host, who is empty if the name is a time stamp alone; `name` is the whole name.
    pub fn take(
        &mut self,
        now: Instant,
        client: &Client,
        (sender, user, name): (Sender, Option<(HostId, &str)>, &str),
        reason: usize,
    ) -> Verdict {
        let class = sender as usize;
        // The cheapest first: in a flood it is the one that is used up.
        let paid = pay(self.until[class], now.as_nanos(), NANOS_PER_SECOND / RATES[class], BURST);
        // Only an address that is proven tells whose reports are hidden.
        let without_budget = if sender == Sender::Unproven { Verdict::Skipped } else { Verdict::Hidden };
        if paid.is_err() && without_budget == Verdict::Skipped {
            return Verdict::Skipped;
        }
        let now = slowed(now);
        let ip = client.five_tuple.client.ip();
        let source = (Purpose::ReportOfSource, Subject::Source(ip), OF_SOURCE);
        let person = user.filter(|(_, user)| !user.is_empty());
        let user = match (person, user) {
            (Some((host, user)), _) => Subject::User(host, user),
            // Many people may have names that are a time stamp alone. An address of IPv6 is no person.
            (None, Some(_)) => Subject::Name(Network::customer(ip).address(), name),
            _ if !name.is_empty() => Subject::Name(ip, name),
            _ => Subject::Source(ip),
        };
        let user = (Purpose::ReportOfUser(reason as u8), user, OF_USER);
        let throttle = &mut self.throttles[class];
        // A user cannot be made up, unless confined, so users of one source do not keep out each other. Names without a user can: one name at many
        // addresses.
        let source = (sender != Sender::Authenticated || person.is_none()).then_some(source);
        let has_some = |(purpose, subject, limit)| throttle.has_some(now, purpose, subject, limit);
        if !has_some(user) {
            return Verdict::Skipped;
        }
        // Nothing is charged unless all agree: made-up names would fill the table.
        let (Ok(until), true) = (paid, source.is_none_or(has_some)) else { return without_budget };
        for (purpose, subject, limit) in source.into_iter().chain([user]) {
            throttle.charge(now, purpose, subject, 1, limit);
        }
        self.until[class] = until;
        Verdict::Reported
    }

    /// Counts a refusal that is not reported. An IPv6 site (/48) is one source.
    pub fn hide(&mut self, now: Instant, client: &Client, refusal: impl FnOnce() -> Refusal) {
        self.unreported.add(now, Network::site(client.five_tuple.client.ip()), refusal);
    }

    /// Returns when a report about hidden refusals is due.
    pub fn due(&self) -> Option<Instant> {
        self.unreported.due()
    }

    /// Returns a report about the hidden refusals of a source, if one is due.
    pub fn next_hidden(&mut self, now: Instant) -> Option<Refusal> {
        self.unreported.next_due(now)
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

    /// Returns how many of `count` refusals of this kind of sender are reported, of clients and user names by number.
    fn reported(
        reports: &mut Reports,
        sender: Sender,
        seconds: u64,
        count: u32,
        who: impl Fn(u32) -> (u32, u32),
    ) -> usize {
        let now = Instant::from_nanos(seconds * NANOS_PER_SECOND);
        let taken = |number: &u32| {
            let (source, user) = who(*number);
            let (name, user) = (format!("1700000000:{user}"), user.to_string());
            let user = (sender == Sender::Authenticated).then_some((HostId(0), user.as_str()));
            reports.take(now, &client(source), (sender, user, &name), 7) == Verdict::Reported
        };
        (0..count).filter(taken).count()
    }

    #[test]
    fn a_client_that_tries_again_and_again_is_reported_once() {
        let mut reports = Reports::new([1, 2]);
        assert_eq!(reported(&mut reports, Sender::Proven, 1000, 500, |_| (1, 1)), 1);
        let now = Instant::from_nanos(1000 * NANOS_PER_SECOND);
        let who = (Sender::Proven, None, "1700000000:1");
        assert_eq!(reports.take(now, &client(1), who, 7), Verdict::Skipped);
        assert_eq!(reports.take(now, &client(1), who, 8), Verdict::Reported, "for another reason");
        assert_eq!(reported(&mut reports, Sender::Proven, 1201, 500, |_| (1, 1)), 1);
    }

    #[test]
    fn a_school_is_reported_thirty_times_and_keeps_out_no_other() {
        let mut reports = Reports::new([1, 2]);
        assert_eq!(reported(&mut reports, Sender::Proven, 1000, 500, |number| (1, number)), 30);
        assert_eq!(reported(&mut reports, Sender::Proven, 1000, 3, |number| (2, number)), 3);
        assert_eq!(reported(&mut reports, Sender::Proven, 1007, 500, |number| (1, 1000 + number)), 1);
        assert_eq!(
            reported(&mut reports, Sender::Authenticated, 1007, 45, |number| (1, number)),
            45,
            "its users"
        );
    }

    #[test]
    fn what_the_budget_of_a_source_hides_is_counted_unless_its_address_may_be_forged() {
        let mut reports = Reports::new([1, 2]);
        let now = Instant::from_nanos(1000 * NANOS_PER_SECOND);
        reported(&mut reports, Sender::Proven, 1000, 30, |number| (1, number));
        let verdict = |reports: &mut Reports, sender, source, name| {
            reports.take(now, &client(source), (sender, None, name), 7)
        };
        assert_eq!(verdict(&mut reports, Sender::Proven, 1, "1700000000:ann"), Verdict::Hidden);
        assert_eq!(
            verdict(&mut reports, Sender::Proven, 1, "1700000000:7"),
            Verdict::Skipped,
            "reported before"
        );
        assert_eq!(verdict(&mut reports, Sender::Proven, 2, "1700000000:ann"), Verdict::Reported);
        reported(&mut reports, Sender::Proven, 1000, 50, |number| (3 + number, number));
        assert_eq!(
            verdict(&mut reports, Sender::Proven, 99, "1700000000:bob"),
            Verdict::Hidden,
            "the worker's"
        );
        reported(&mut reports, Sender::Unproven, 1000, 50, |number| (number, number));
        assert_eq!(verdict(&mut reports, Sender::Unproven, 99, "1700000000:bob"), Verdict::Skipped);
    }

    #[test]
    fn a_worker_reports_fifty_at_once_and_then_ten_a_second() {
        for (sender, expected) in [(Sender::Unproven, [10, 2, 4]), (Sender::Proven, [50, 10, 20])] {
            let mut reports = Reports::new([1, 2]);
            let counts = [1000, 1001, 1003].map(|seconds| {
                let source = |number| (seconds as u32 * 50_000 + number, number);
                reported(&mut reports, sender, seconds, 50_000, source)
            });
            assert_eq!(counts, expected, "{sender:?}");
            assert_eq!(
                reported(&mut reports, Sender::Authenticated, 1003, 50, |number| (number, number)),
                50
            );
        }
    }

    #[test]
    fn one_name_without_a_user_at_many_addresses_hides_nobody() {
        let mut reports = Reports::new([1, 2]);
        let mut is_reported = |seconds: u32, ip: String, user: &str| {
            let now = Instant::from_nanos(u64::from(seconds) * NANOS_PER_SECOND);
            let mut client = client(1);
            client.five_tuple.client = (ip.parse::<std::net::IpAddr>().expect("literal"), 1).into();
            let who = (Sender::Authenticated, Some((HostId(0), user)), "1700000000");
            reports.take(now, &client, who, 7) == Verdict::Reported
        };
        let of_one = (0..10_000).filter(|host| is_reported(1000, format!("2001:db8::{host:x}"), "")).count();
        assert_eq!(of_one, 1, "one network, one name");
        let (mut networks, mut users) = (0, 0);
        for second in 1000..1100 {
            let of_site = (0..100).filter(|net| {
                is_reported(second, format!("2001:db8:1:{:x}::1", (second - 1000) * 100 + net), "")
            });
            networks += of_site.count();
            users += usize::from(
                second >= 1040 && is_reported(second, "192.0.2.7".to_owned(), &second.to_string()),
            );
        }
        // Eight times the budget of a network, of the 1,050 reports that the worker makes in this time.
        assert!((100..400).contains(&networks), "a site has a limit: {networks}");
        assert_eq!(users, 60);
    }

    /// Names that are not reported leave no trace in the table.
    #[test]
    fn made_up_names_do_not_keep_out_others() {
        let mut reports = Reports::new([1, 2]);
        for second in 1000..1100 {
            reported(&mut reports, Sender::Proven, second, 2_000, |number| {
                (1, second as u32 * 2_000 + number)
            });
        }
        assert_eq!(reported(&mut reports, Sender::Proven, 1101, 20, |number| (2 + number, number)), 20);
    }
}
