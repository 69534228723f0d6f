//! Refusals that are not reported because others at their source have used up its budget for reports. Once a minute, one report of
//! a source says how many there were: somebody behind a school's address can take its whole budget, but not unnoticed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::network::Network;
use crate::base::time::Instant;
use crate::turn::identity::refusal::Refusal;

/// Sources that are counted at once. The refusals of further ones are counted together, and the next report says how many.
const SOURCES_MAX: usize = 64;
/// From the first refusal of a source that is not reported until the report about all of them.
const PERIOD: Duration = Duration::from_secs(60);

/// The refusals that were not reported, by source.
#[derive(Debug, Default)]
pub struct Unreported {
    /// The earliest first.
    sources: VecDeque<Source>,
    /// Refusals of further sources since the last report.
    elsewhere: u32,
}

#[derive(Debug)]
struct Source {
    network: Network,
    due: Instant,
    /// The first refusal, as an example; it counts all.
    first: Refusal,
}

impl Unreported {
    /// Counts a refusal. `refusal` is called for the first one of a period.
    pub fn add(&mut self, now: Instant, network: Network, refusal: impl FnOnce() -> Refusal) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.network == network) {
            source.first.unreported = source.first.unreported.saturating_add(1);
        } else if self.sources.len() < SOURCES_MAX {
            self.sources.push_back(Source { network, due: now + PERIOD, first: refusal() });
        } else {
            self.elsewhere = self.elsewhere.saturating_add(1);
        }
    }

    /// Returns when the next report is due.
    pub fn due(&self) -> Option<Instant> {
        self.sources.front().map(|source| source.due)
    }

    /// Removes a source whose report is due, and returns its first refusal with the number of all others.
    pub fn next_due(&mut self, now: Instant) -> Option<Refusal> {
        let is_due = self.due().is_some_and(|due| due <= now);
        let source = if is_due { self.sources.pop_front() } else { None };
        if self.sources.is_empty() {
            self.sources.shrink_to_fit();
        }
        source.map(|source| Refusal { elsewhere: std::mem::take(&mut self.elsewhere), ..source.first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::turn::five_tuple::FiveTuple;
    use crate::turn::identity::refusal::{Reason, Sender};

    fn refusal(user: &str) -> Refusal {
        let address = "192.0.2.1:3478".parse().expect("literal");
        Refusal {
            five_tuple: FiveTuple { transport: Transport::Udp, client: address, server: address },
            user: user.into(),
            host: None,
            request: "allocate",
            sender: Sender::Proven,
            reason: Reason::UnknownUser,
            unreported: 0,
            elsewhere: 0,
            message: None,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_source_is_reported_once_in_a_period_with_the_number_of_the_others() {
        let mut unreported = Unreported::default();
        let [school, other] =
            ["192.0.2.1", "2001:db8::1"].map(|ip| Network::site(ip.parse().expect("literal")));
        for second in 0..60 {
            unreported.add(at(100 + second), school, || refusal(&format!("pupil{second}")));
        }
        unreported.add(at(130), other, || refusal("ann"));
        assert_eq!((unreported.due(), unreported.next_due(at(159)).is_some()), (Some(at(160)), false));
        let reported = unreported.next_due(at(160)).expect("it is due");
        assert_eq!((&*reported.user, reported.unreported), ("pupil0", 59));
        let reported = unreported.next_due(at(190)).expect("it is due");
        assert_eq!((&*reported.user, reported.unreported), ("ann", 0));
        assert_eq!(unreported.due(), None);
    }

    #[test]
    fn thousands_of_sources_take_bounded_memory_and_all_are_counted() {
        let mut unreported = Unreported::default();
        for number in 0..10_000 {
            let ip = std::net::Ipv4Addr::from_bits(number).into();
            unreported.add(at(1), Network::site(ip), || refusal("made up"));
        }
        let told: Vec<Refusal> = std::iter::from_fn(|| unreported.next_due(at(61))).collect();
        let elsewhere: Vec<u32> = told.iter().map(|refusal| refusal.elsewhere).collect();
        assert_eq!(elsewhere[..2], [10_000 - SOURCES_MAX as u32, 0], "said once");
        assert_eq!(told.len(), SOURCES_MAX);
        assert_eq!(unreported.sources.capacity(), 0);
    }
}
