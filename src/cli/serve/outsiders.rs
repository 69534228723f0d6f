//! Logs that connections come past the proxies of listeners with `proxy_protocol`. They are reset, and their clients cannot know why.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::client_names::ClientNames;
use crate::base::time::Instant;
use crate::net::counters::Counters;

/// Time between two lines. Scanners come by all day.
const PAUSE: Duration = Duration::from_secs(600);

/// How many of these connections were logged, and when.
#[derive(Debug, Default)]
pub struct Outsiders {
    logged: u64,
    last: Option<Instant>,
}

impl Outsiders {
    /// Logs what is new, at most every ten minutes.
    pub fn check(&mut self, counters: &[Arc<Counters>], names: &ClientNames, now: Instant) {
        let count = counters.iter().map(|counters| counters.untrusted.get()).fold(0, u64::wrapping_add);
        let from = || counters.iter().find_map(|counters| counters.untrusted_from.get());
        if let Some(line) = self.line(count, from, names, now) {
            tracing::warn!("{line}");
        }
    }

    fn line(
        &mut self,
        count: u64,
        from: impl Fn() -> Option<IpAddr>,
        names: &ClientNames,
        now: Instant,
    ) -> Option<String> {
        let new = count.wrapping_sub(self.logged);
        if new == 0 || self.last.is_some_and(|last| now.since(last) < PAUSE) {
            return None;
        }
        (self.logged, self.last) = (count, Some(now));
        let from = from().map_or_else(String::new, |from| format!(", the last from {}", names.address(from)));
        let (subject, verb) = if new == 1 { ("connection", "was") } else { ("connections", "were") };
        Some(format!(
            "{new} {subject} to a listener with proxy_protocol {verb} reset{from}: not one of its proxies. If that is the load \
             balancer, add it to proxy_protocol; otherwise close the port to others"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_minutes_says_how_many() {
        let (mut outsiders, names) = (Outsiders::default(), ClientNames::default());
        let from = || "203.0.113.5".parse().ok();
        let at = |seconds: u64| Instant::from_nanos((1 + seconds) * 1_000_000_000);
        assert_eq!(outsiders.line(0, from, &names, at(0)), None);
        let first = outsiders.line(1, from, &names, at(1)).expect("a line");
        assert!(
            first.starts_with(
                "1 connection to a listener with proxy_protocol was reset, the last from 203.0.113.5:"
            ),
            "{first}"
        );
        assert_eq!(outsiders.line(9, from, &names, at(600)), None);
        let second = outsiders.line(9, from, &ClientNames::private([1, 2]), at(601)).expect("a line");
        assert!(second.starts_with("8 connections") && second.contains("the last from -:"), "{second}");
        assert_eq!(outsiders.line(9, from, &names, at(5000)), None);
    }
}
