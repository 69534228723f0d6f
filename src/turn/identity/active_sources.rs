//! How many sources compete for a budget: each may use an equal share of it.

use crate::base::time::Instant;

/// Counts sources in this second and in the one before.
#[derive(Debug, Default)]
pub struct ActiveSources {
    second: u64,
    now: u32,
    before: u32,
}

impl ActiveSources {
    /// Counts a source, which the caller does once a second.
    pub fn note(&mut self, now: Instant) {
        let second = second(now);
        if second != self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
        self.now = self.now.saturating_add(1);
    }

    /// How many there are, at least one: as many as in the last full second, or in this one, if they are more already.
    pub fn count(&self, now: Instant) -> u32 {
        let found = match second(now).saturating_sub(self.second) {
            0 => self.now.max(self.before),
            1 => self.now,
            _ => 0,
        };
        found.max(1)
    }
}

fn second(now: Instant) -> u64 {
    now.as_nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_this_second_and_the_last_one_count() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let mut active = ActiveSources::default();
        assert_eq!(active.count(at(5000)), 1);
        (0..3).for_each(|_| active.note(at(5100)));
        assert_eq!([active.count(at(5900)), active.count(at(6900)), active.count(at(7000))], [3, 3, 1]);
        (0..2).for_each(|_| active.note(at(6500)));
        assert_eq!([active.count(at(6900)), active.count(at(7100))], [3, 2]);
        (0..4).for_each(|_| active.note(at(7500)));
        assert_eq!(active.count(at(7600)), 4);
        active.note(at(9000));
        assert_eq!(active.count(at(9100)), 1);
    }
}
