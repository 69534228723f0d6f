//! The last refused requests, for the page `/refusals`.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::base::lock::lock;
use crate::base::network::Network;

/// Refusals that are kept, by what their senders have proven, so that none forgets those of others. The oldest of the source with
/// the most is forgotten first.
const KEPT: [usize; 3] = [50, 150, 300];

/// What the sender of a refused request has proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: its address may be forged.
    None,
    /// Its address.
    Address,
    /// That it is a user.
    Credentials,
}

/// What many refusals have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A secret that does not match.
    Secrets,
    /// A clock that is wrong.
    Clocks,
}

/// A warning about many refusals with one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The cause.
    pub cause: Cause,
    /// Seconds since 1970.
    pub time: u64,
    /// What is wrong.
    pub text: String,
    /// What the operator can do next.
    pub next_step: String,
}

/// One refused request, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Seconds since 1970.
    pub time: u64,
    /// The host whose secret verified; empty if none did.
    pub host: String,
    /// The user, without the time of a REST name. With `privacy`, a pseudonym.
    pub user: String,
    /// Address and port of the client. With `privacy`, `-`.
    pub client: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The kind of request, as in metrics.
    pub request: &'static str,
    /// The reason, as in metrics.
    pub reason: &'static str,
    /// The error code of the answer; `None` if there was none.
    pub code: Option<u16>,
    /// The reason in a sentence.
    pub text: String,
    /// What the operator can do next.
    pub next_step: String,
}

/// The refusals to select. An empty string selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The host.
    pub host: String,
    /// A part of the user's name.
    pub user: String,
    /// The reason.
    pub reason: String,
}

/// The last refusals, and the last warnings about them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// By what their senders have proven, each with its source.
    entries: [VecDeque<(Network, Entry)>; 3],
    /// Entries since the start.
    seen: u64,
    /// The latest of each cause.
    warnings: Vec<Warning>,
}

impl Book {
    /// Adds a refusal of a sender with this proof. An IPv6 site (/48) is one source: one home or school has as many networks.
    pub fn add(&self, proof: Proof, ip: IpAddr, entry: Entry) {
        let class = proof as usize;
        let mut kept = lock(&self.0);
        kept.seen += 1;
        let entries = &mut kept.entries[class];
        entries.push_back((Network::site(ip), entry));
        if entries.len() > KEPT[class] {
            forget_one(entries);
        }
    }

    /// Adds a warning. It replaces the one before about the same cause.
    pub fn warn(&self, warning: Warning) {
        let mut kept = lock(&self.0);
        kept.warnings.retain(|known| known.cause != warning.cause);
        kept.warnings.push(warning);
    }

    /// Forgets the warning about a cause that is gone.
    pub fn settle(&self, cause: Cause) {
        lock(&self.0).warnings.retain(|known| known.cause != cause);
    }

    /// Returns the number of refusals since the start, and the warnings.
    pub fn summary(&self) -> (u64, Vec<Warning>) {
        let kept = lock(&self.0);
        (kept.seen, kept.warnings.clone())
    }

    /// Returns the selected refusals, the latest first.
    pub fn select(&self, filter: &Filter) -> Vec<Entry> {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let selected = |(_, entry): &&(Network, Entry)| {
            is(&filter.host, &entry.host)
                && is(&filter.reason, entry.reason)
                && entry.user.contains(&filter.user)
        };
        let kept = lock(&self.0);
        let latest_first = |entries: &VecDeque<(Network, Entry)>| -> Vec<Entry> {
            entries.iter().rev().filter(selected).map(|(_, entry)| entry.clone()).collect()
        };
        let mut all: Vec<Entry> = kept.entries.iter().flat_map(latest_first).collect();
        drop(kept);
        all.sort_by_key(|entry| Reverse(entry.time));
        all
    }

    /// Returns the selected refusals as JSON, the latest first; `held` is the number of all that are kept now, `seen` that of
    /// all since the start, `kept` the most that are kept.
    pub fn json(&self, filter: &Filter) -> Value {
        let refusals: Vec<Value> = self.select(filter).iter().map(Entry::json).collect();
        let kept = lock(&self.0);
        let held: usize = kept.entries.iter().map(VecDeque::len).sum();
        json!({ "refusals": refusals, "held": held, "seen": kept.seen, "kept": KEPT.iter().sum::<usize>() })
    }
}

/// Removes the oldest entry of the source with the most entries; of several such sources, the one with the oldest entry.
fn forget_one(entries: &mut VecDeque<(Network, Entry)>) {
    let mut counts: HashMap<Network, usize> = HashMap::new();
    for (source, _) in entries.iter() {
        *counts.entry(*source).or_default() += 1;
    }
    let most = counts.values().max();
    if let Some(oldest) = entries.iter().position(|(source, _)| counts.get(source) == most) {
        entries.remove(oldest);
    }
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "time": self.time,
            "host": self.host,
            "user": self.user,
            "client": self.client,
            "transport": self.transport,
            "request": self.request,
            "reason": self.reason,
            "code": self.code,
            "text": self.text,
            "next_step": self.next_step,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64, host: &str, user: &str, reason: &'static str) -> Entry {
        Entry {
            time,
            host: host.into(),
            user: user.into(),
            client: "192.0.2.1:5".into(),
            transport: "udp",
            request: "allocate",
            reason,
            code: Some(401),
            text: "the password is wrong".into(),
            next_step: "compare".into(),
        }
    }

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xC000_0200 + number).into()
    }

    /// A home has 65,536 networks, each with its own budget for reports.
    #[test]
    fn no_source_empties_the_list_of_the_others() {
        let book = Book::default();
        for number in 0..20 {
            book.add(Proof::Address, ip(number / 2), entry(number.into(), "", "user", "wrong_password"));
        }
        for number in 0..1000_u64 {
            let home =
                std::net::Ipv6Addr::from_bits(0x2001_0db8_0007_u128 << 80 | u128::from(number % 8) << 64);
            let made_up = entry(100 + number, "", "made up", "wrong_password");
            book.add(Proof::Address, home.into(), made_up);
        }
        let all = book.select(&Filter::default());
        let of = |user: &str| all.iter().filter(|entry| entry.user == user).count();
        assert_eq!((of("user"), of("made up")), (20, KEPT[Proof::Address as usize] - 20));
        assert_eq!(all[0].time, 1099, "the latest of the home are kept");
        // Sources with one entry each: the oldest goes.
        for number in 0..200 {
            book.add(Proof::Address, ip(100 + number), entry(2000, "", "late", "wrong_password"));
        }
        let all = book.select(&Filter::default());
        assert_eq!(all.iter().filter(|entry| entry.user == "late").count(), KEPT[Proof::Address as usize]);
    }

    /// Who has proven nothing forgets no entry of a user.
    #[test]
    fn the_latest_come_first_and_the_oldest_of_a_kind_are_forgotten() {
        let book = Book::default();
        book.add(Proof::Credentials, ip(1), entry(1, "ping", "w_ann", "peer_denied"));
        (0..1000).for_each(|time| book.add(Proof::None, ip(1), entry(time, "", "made up", "foreign_nonce")));
        let all = book.select(&Filter::default());
        let times: Vec<u64> = all.iter().map(|entry| entry.time).collect();
        assert_eq!(times, (950..1000).rev().chain([1]).collect::<Vec<_>>());
    }

    #[test]
    fn all_refusals_are_counted_and_the_last_warning_of_each_cause_kept() {
        let book = Book::default();
        (0..503).for_each(|time| book.add(Proof::Address, ip(1), entry(time, "", "ann", "wrong_password")));
        let warn = |cause, time| {
            book.warn(Warning { cause, time, text: "warning".to_owned(), next_step: "compare".to_owned() });
        };
        warn(Cause::Clocks, 1);
        (2..9).for_each(|time| warn(Cause::Secrets, time));
        let times = || book.summary().1.iter().map(|warning| warning.time).collect::<Vec<_>>();
        assert_eq!((book.summary().0, times()), (503, vec![1, 8]));
        book.settle(Cause::Secrets);
        assert_eq!(times(), [1]);
    }

    #[test]
    fn a_filter_selects_by_host_reason_and_a_part_of_the_user() {
        let book = Book::default();
        book.add(Proof::Credentials, ip(1), entry(1, "ping", "w_ann", "peer_denied"));
        book.add(Proof::Address, ip(1), entry(2, "", "w_bob", "wrong_password"));
        let times = |host: &str, user: &str, reason: &str| -> Vec<u64> {
            let filter = Filter { host: host.into(), user: user.into(), reason: reason.into() };
            book.select(&filter).iter().map(|entry| entry.time).collect()
        };
        assert_eq!(times("", "", ""), [2, 1]);
        assert_eq!(times("ping", "", ""), [1]);
        assert_eq!(times("", "bob", ""), [2]);
        assert_eq!(times("", "ann", "wrong_password"), [0; 0]);
        let page = book.json(&Filter { host: "ping".into(), ..Filter::default() });
        assert_eq!(page["refusals"][0]["user"], "w_ann");
        assert_eq!(page["refusals"][0]["code"], 401);
        assert_eq!((&page["held"], &page["seen"]), (&2.into(), &2.into()));
    }
}
