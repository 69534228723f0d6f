//! The number of pupils to measure next: a pure state machine.

/// One measurement to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The number of pupils.
    pub pupils: u32,
    /// Whether this number was good before and is measured again.
    pub is_confirmation: bool,
}

/// What the measurements say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The largest number of pupils that was good and, in a ramp, good again; `None` if there is none.
    pub good: Option<u32>,
    /// The smallest number that was not good.
    pub broken: Option<u32>,
}

/// Raises the number of pupils in steps until one is not good, then measures the last good number again. If it is not
/// good this time, the next lower one is measured again, and so on.
#[derive(Clone, Debug)]
pub struct Ramp {
    /// Numbers that were good, rising.
    good: Vec<u32>,
    broken: Option<u32>,
    step: u32,
    max: u32,
    confirms: bool,
    next: Option<Task>,
}

impl Ramp {
    /// Measures `first`, then `step` more each time, but never more than `max`.
    pub fn new(first: u32, step: u32, max: u32) -> Self {
        let next = Task { pupils: first.min(max), is_confirmation: false };
        Self { good: Vec::new(), broken: None, step: step.max(1), max, confirms: true, next: Some(next) }
    }

    /// Measures one number once.
    pub fn single(pupils: u32) -> Self {
        Self { confirms: false, ..Self::new(pupils, 1, pupils) }
    }

    /// Returns the next measurement; `None` at the end.
    pub fn next(&self) -> Option<Task> {
        self.next
    }

    /// Takes the result of the measurement that [`Ramp::next`] returned.
    pub fn record(&mut self, is_good: bool) {
        let Some(task) = self.next else { return };
        let pupils = task.pupils;
        self.next = match (task.is_confirmation, is_good) {
            (true, true) => None,
            (true, false) => {
                self.good.pop();
                self.broken = Some(pupils);
                self.confirmation()
            }
            (false, true) => {
                self.good.push(pupils);
                let raised = pupils.saturating_add(self.step).min(self.max);
                if raised > pupils {
                    Some(Task { pupils: raised, is_confirmation: false })
                } else {
                    self.confirmation()
                }
            }
            (false, false) => {
                self.broken = Some(pupils);
                self.confirmation()
            }
        };
    }

    /// Returns the result; meaningful once [`Ramp::next`] returns `None`.
    pub fn found(&self) -> Found {
        Found { good: self.good.last().copied(), broken: self.broken }
    }

    fn confirmation(&self) -> Option<Task> {
        let last = self.good.last().filter(|_| self.confirms)?;
        Some(Task { pupils: *last, is_confirmation: true })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(mut ramp: Ramp, mut judge: impl FnMut(Task) -> bool) -> (Vec<(Task, bool)>, Found) {
        let mut all = Vec::new();
        while let Some(task) = ramp.next() {
            let is_good = judge(task);
            ramp.record(is_good);
            all.push((task, is_good));
            assert!(all.len() < 10_000, "the ramp does not end");
        }
        (all, ramp.found())
    }

    #[test]
    fn rises_to_the_first_broken_step_and_confirms_the_one_before() {
        let (all, found) = run(Ramp::new(30, 30, 300), |task| task.pupils < 100);
        let pupils: Vec<u32> = all.iter().map(|(task, _)| task.pupils).collect();
        assert_eq!(pupils, [30, 60, 90, 120, 90]);
        assert!(all.last().is_some_and(|(task, _)| task.is_confirmation));
        assert_eq!(found, Found { good: Some(90), broken: Some(120) });
    }

    #[test]
    fn goes_down_while_confirmations_fail() {
        let (all, found) = run(Ramp::new(30, 30, 300), |task| match task.is_confirmation {
            true => task.pupils <= 30,
            false => task.pupils <= 90,
        });
        let pupils: Vec<u32> = all.iter().map(|(task, _)| task.pupils).collect();
        assert_eq!(pupils, [30, 60, 90, 120, 90, 60, 30]);
        assert_eq!(found, Found { good: Some(30), broken: Some(60) });
    }

    #[test]
    fn one_number_is_measured_once() {
        for is_good in [true, false] {
            let (all, found) = run(Ramp::single(30), |_| is_good);
            assert_eq!(all.len(), 1);
            assert_eq!(found.good.is_some(), is_good);
            assert_eq!(found.broken.is_some(), !is_good);
        }
    }

    proptest! {
        /// Whatever the measurements say: the ramp rises to the first broken step and no further, and reports only
        /// numbers that were measured, good ones only if the last two measurements of them were good.
        #[test]
        fn never_reports_what_was_not_measured(
            first in 1_u32..200, step in 0_u32..100, max in 1_u32..1_000,
            results in proptest::collection::vec(any::<bool>(), 1..40),
        ) {
            let mut given = results.iter().cycle();
            let mut left = 2_000;
            let (all, found) = run(Ramp::new(first, step, max), |_| {
                left -= 1;
                left > 0 && given.next().copied().unwrap_or(false)
            });
            let rising: Vec<_> = all.iter().take_while(|(task, _)| !task.is_confirmation).collect();
            prop_assert!(rising.windows(2).all(|pair| pair[0].1 && pair[0].0.pupils < pair[1].0.pupils));
            prop_assert!(all[rising.len()..].iter().all(|(task, _)| task.is_confirmation));
            prop_assert!(all.iter().all(|(task, _)| task.pupils <= max));
            if let Some(good) = found.good {
                let results: Vec<bool> =
                    all.iter().filter(|(task, _)| task.pupils == good).map(|(_, is_good)| *is_good).collect();
                prop_assert_eq!(results, vec![true, true]);
                prop_assert!(found.broken.is_none_or(|broken| good < broken));
            }
            if let Some(broken) = found.broken {
                prop_assert!(all.iter().any(|(task, is_good)| task.pupils == broken && !is_good));
            }
        }
    }
}
