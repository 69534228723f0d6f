//! The results of tests, under codes that people can read to each other.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::report::Report;
use crate::base::lock::lock;
use crate::system::entropy;

/// Letters and digits that nobody takes for another, and no vowels, so that no code is a word.
const LETTERS: [u8; 20] = *b"CDFHJKMNPQRTVWXY3479";
const LENGTH: usize = 4;
/// Results that are kept; 1 KB each.
const KEPT_MAX: usize = 1000;
/// Seconds that a result is kept.
const KEPT_SECONDS: u64 = 86_400;
/// Draws of a code before giving up. Of 160,000 codes at most 1,000 are taken.
const DRAWS: usize = 8;

/// What was found in one test.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Seconds since 1970.
    pub time: u64,
    /// The network of the visitor, without the part that identifies a computer.
    pub network: String,
    /// The kind of browser and its version.
    pub browser: String,
    /// Whether TLS looked intercepted.
    pub is_intercepted: bool,
    /// What the page says.
    pub report: Report,
}

/// The results of the last day. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Results(Arc<Mutex<VecDeque<(String, Found)>>>);

impl Results {
    /// Adds a result and returns its code; `None` if the system has no randomness. If there are too many, the oldest of the
    /// network with the most is forgotten.
    pub(super) fn add(&self, found: Found) -> Option<String> {
        let mut kept = lock(&self.0);
        forget_old(&mut kept, found.time);
        if kept.len() >= KEPT_MAX {
            forget_one(&mut kept);
        }
        let codes = (0..DRAWS).map_while(|_| entropy::seed().ok()).map(|seed| code(&seed));
        let code = codes.into_iter().find(|code| kept.iter().all(|(taken, _)| taken != code))?;
        kept.push_back((code.clone(), found));
        Some(code)
    }

    /// Returns the results of the last day, the latest first, or the one with this code. `now` is in seconds since 1970.
    pub fn json(&self, code: Option<&str>, now: u64) -> Value {
        let mut kept = lock(&self.0);
        forget_old(&mut kept, now);
        let wanted = code.map(|code| code.trim().to_ascii_uppercase());
        let selected =
            kept.iter().rev().filter(|(code, _)| wanted.as_ref().is_none_or(|wanted| wanted == code));
        let checks = selected.map(|(code, found)| {
            let mut entry = found.report.json();
            entry["code"] = json!(code);
            entry["time"] = json!(found.time);
            entry["network"] = json!(found.network);
            entry["browser"] = json!(found.browser);
            entry["intercepted"] = json!(found.is_intercepted);
            entry
        });
        json!({ "checks": checks.collect::<Vec<_>>(), "held": kept.len() })
    }
}

fn forget_old(kept: &mut VecDeque<(String, Found)>, now: u64) {
    // A clock that was set back makes old results look new, so they are kept for longer; the number is bounded anyway.
    kept.retain(|(_, found)| found.time.saturating_add(KEPT_SECONDS) > now);
}

fn forget_one(kept: &mut VecDeque<(String, Found)>) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, found) in kept.iter() {
        *counts.entry(&found.network).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or_default();
    let oldest = kept.iter().position(|(_, found)| counts.get(&*found.network) == Some(&most));
    if let Some(at) = oldest {
        kept.remove(at);
    }
}

fn code(seed: &[u8; 32]) -> String {
    // 240 is a multiple of 20: a larger byte would make some letters more frequent.
    let letters = seed.iter().filter(|&&byte| byte < 240).map(|byte| LETTERS[usize::from(byte % 20)]);
    letters.take(LENGTH).map(char::from).collect()
}

/// The part of an address that does not identify a computer: /24 or /48.
pub(super) fn prefix(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => format!("{}/24", Ipv4Addr::from_bits(ip.to_bits() & u32::MAX << 8)),
        IpAddr::V6(ip) => format!("{}/48", Ipv6Addr::from_bits(ip.to_bits() & u128::MAX << 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(time: u64, network: &str) -> Found {
        let report = Report::parse(br#"{"verdict":"good","rungs":[]}"#, &[]).expect("good");
        Found {
            time,
            network: network.to_owned(),
            browser: "Firefox 153".to_owned(),
            is_intercepted: false,
            report,
        }
    }

    fn held(results: &Results, now: u64) -> usize {
        results.json(None, now)["checks"].as_array().expect("a list").len()
    }

    #[test]
    fn a_code_finds_its_result_for_a_day() {
        let results = Results::default();
        let code = results.add(found(1000, "192.0.2.0/24")).expect("randomness");
        assert!(code.len() == LENGTH && code.bytes().all(|letter| LETTERS.contains(&letter)), "{code}");
        let other = results.add(found(2000, "192.0.2.0/24")).expect("randomness");
        let page = results.json(Some(&code.to_lowercase()), 3000);
        assert_eq!((&page["checks"][0]["time"], &page["held"]), (&json!(1000), &json!(2)));
        assert_eq!(page["checks"].as_array().map(Vec::len), Some(1));
        assert_eq!(results.json(None, 3000)["checks"][0]["code"], json!(other), "the latest first");
        assert_eq!(held(&results, 1000 + KEPT_SECONDS), 1);
        assert_eq!(held(&results, 2000 + KEPT_SECONDS), 0);
    }

    #[test]
    fn one_network_does_not_displace_the_results_of_others() {
        let results = Results::default();
        results.add(found(1, "198.51.100.0/24"));
        for _ in 0..KEPT_MAX + 5 {
            results.add(found(2, "192.0.2.0/24"));
        }
        let page = results.json(None, 3);
        let list = page["checks"].as_array().expect("a list");
        assert_eq!((list.len(), &list[KEPT_MAX - 1]["network"]), (KEPT_MAX, &json!("198.51.100.0/24")));
    }

    #[test]
    fn the_network_identifies_no_computer() {
        let of = |text: &str| prefix(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
    }
}
