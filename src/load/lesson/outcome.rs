//! The outcome of a run: what was measured, and the answer in one sentence.

use std::time::Duration;

use super::limit::Limit;
use super::ramp::Found;
use super::shape::Shape;
use super::step::{Bounds, Break, Culprit, Step, Verdict};
use crate::load::timeline::Second;

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The server, as it was named.
    pub server: String,
    /// Transports with their share of the participants, such as `udp` and 20.
    pub mix: Vec<(&'static str, u32)>,
    /// The composition of the lessons.
    pub shape: Shape,
    /// What is acceptable.
    pub bounds: Bounds,
    /// How often each pupil leaves and comes back; `None`: never.
    pub rejoin: Option<Duration>,
    /// Whether the number of pupils is raised.
    pub is_ramp: bool,
    /// Whether every participant has a user name of its own.
    pub has_own_users: bool,
    /// Whether the server is on this machine.
    pub is_local: bool,
    /// Whether the server's counters of its limits were read.
    pub has_counters: bool,
    /// This machine: processor, cores, kernel.
    pub machine: String,
    /// This program, with its version and kind of build.
    pub program: String,
    /// When the run began, as text.
    pub began: String,
}

/// A second of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Allocations with packets.
    pub allocations: usize,
    /// The packets.
    pub packets: Second,
    /// CPU of the server in cores; `None` if it is not on this machine.
    pub server_cpu: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The circumstances.
    pub setting: Setting,
    /// The measurements, in the order of time.
    pub steps: Vec<Step>,
    /// The seconds of the run.
    pub moments: Vec<Moment>,
    /// What the steps say.
    pub found: Found,
}

impl Outcome {
    /// Returns whether the question has an answer: a number that was carried, and that no limit of a configuration and no
    /// weakness of this program made too low.
    pub fn is_answered(&self) -> bool {
        self.found.good.is_some()
            && matches!(self.culprit(), None | Some(Culprit::Relay))
            && (self.setting.is_ramp || self.found.broken.is_none())
    }

    /// Returns the step that was not good at the smallest number of pupils.
    pub fn broken(&self) -> Option<&Step> {
        let broken = self.found.broken?;
        self.steps.iter().rfind(|step| step.pupils == broken && !step.is_good())
    }

    /// Returns the step that the answer is about.
    pub fn good(&self) -> Option<&Step> {
        let good = self.found.good?;
        self.steps.iter().rfind(|step| step.pupils == good && step.is_good())
    }

    fn culprit(&self) -> Option<&Culprit> {
        match &self.broken()?.verdict {
            Verdict::Good => None,
            Verdict::Broken { by, .. } => Some(by),
        }
    }

    /// Returns the answer to "how many pupils does this relay carry" in plain words.
    pub fn answer(&self) -> String {
        let lessons = |pupils: u32| {
            let lessons = self.setting.shape.lessons(pupils);
            format!("{pupils} {} in {lessons} {}", word(pupils, "pupil"), word(lessons, "lesson"))
        };
        let start = self.found.good.map(lessons);
        let Some(broken) = self.broken() else {
            let Some(start) = start else { return "No answer: nothing was measured.".to_owned() };
            return match (self.setting.is_ramp, self.good()) {
                (true, _) => format!("This relay carries at least {start}: no larger number was measured."),
                (false, Some(step)) => format!("This relay carries {start}: {}.", figures(step)),
                (false, None) => format!("This relay carries {start}."),
            };
        };
        let Verdict::Broken { breaks, by } = &broken.verdict else { return String::new() };
        let why = reasons(breaks, &self.setting.bounds);
        let at = lessons(broken.pupils);
        match (by, start) {
            (Culprit::Relay, Some(start)) => {
                format!("This relay carries {start}: with {}, {why}.", broken.pupils)
            }
            (Culprit::Relay, None) if broken.joined == 0 && !broken.failed.is_empty() => format!(
                "No answer: nobody could join {}: {why}. Is this the right address, and is the relay running? hallpass \
                 doctor finds out.",
                self.setting.server
            ),
            (Culprit::Relay, None) => format!("This relay does not carry {at} within the bounds: {why}."),
            (Culprit::Limits(limits), start) => {
                let limit = limits.first().map_or(String::new(), |limit| {
                    format!(
                        "{} (setting: {}; {} x {})",
                        limit.meaning, limit.setting, limit.count, limit.sign
                    )
                });
                let floor = start.map_or(String::new(), |start| format!(" It carried {start} before that."));
                format!(
                    "No answer: with {at}, a setting of the server stopped the test, not its capacity: {limit}.{floor}"
                )
            }
            (Culprit::Machine(reasons), start) => {
                let floor = start
                    .map_or("No answer".to_owned(), |start| format!("This relay carries at least {start}"));
                format!(
                    "{floor}: with {}, this machine was the bottleneck, not the relay: {}.",
                    broken.pupils,
                    reasons.join("; ")
                )
            }
        }
    }

    /// Returns what the reader must know to judge the figures, as sentences.
    pub fn notes(&self) -> Vec<String> {
        let Setting { is_local, has_own_users, has_counters, is_ramp, .. } = self.setting;
        let mut notes = Vec::new();
        if let Some(Step { verdict: Verdict::Broken { by: Culprit::Limits(limits), .. }, .. }) = self.broken()
        {
            for limit in limits.iter().skip(1).take(4) {
                let Limit { meaning, setting, count, sign } = limit;
                notes.push(format!(
                    "Another limit took effect: {meaning} (setting: {setting}; {count} x {sign})."
                ));
            }
        }
        let lost_at_leisure = |step: &Step| {
            let Verdict::Broken { breaks, by: Culprit::Relay } = &step.verdict else { return false };
            let is_idle = step.server.is_none_or(|server| server.cores < LEISURE);
            is_idle
                && step.joined > 0
                && breaks.iter().any(|one| matches!(one, Break::Loss(_) | Break::Joins(..)))
        };
        if !has_counters && self.broken().is_some_and(lost_at_leisure) {
            notes.push(
                "A server may drop packets silently because of a limit, such as limits.packets_per_user, \
                 limits.kbit_per_user, limits.kbit_per_allocation or limits.unauthenticated_per_source (coturn: max-bps, \
                 bps-capacity). With --admin, a Hallpass server says whether it did."
                    .to_owned(),
            );
        }
        if is_local {
            notes.push(
                "The load was made on the machine of the relay: both share its processor and no network is between \
                 them. Measure from a second machine for figures that you plan with."
                    .to_owned(),
            );
        }
        if is_local && self.steps.iter().all(|step| step.server.is_none()) {
            notes.push(
                "With --server-pid, the table shows the processor time and the memory of the relay, too."
                    .to_owned(),
            );
        }
        if let Some(server) = self.broken().and_then(|step| step.server)
            && server.waited > server.cores * WAITED
        {
            notes.push(format!(
                "The relay used {:.2} cores and waited for a processor for as much as {:.2}: the load and other programs kept \
                 this machine busy, so the relay alone carries more.",
                server.cores, server.waited
            ));
        }
        if !has_own_users {
            notes.push(
                "All participants had the same user name, so limits for one user applied to all of them."
                    .to_owned(),
            );
        }
        if cfg!(debug_assertions) {
            notes.push(
                "This program is a development build, which is slower than a release build.".to_owned(),
            );
        }
        if is_ramp && self.found.good.is_some() {
            notes.push("Leave a reserve: real lessons are less regular than this load.".to_owned());
        }
        notes
    }
}

/// A server that waits for a processor for this share of the time that it has one is slowed down by other programs.
const WAITED: f64 = 0.3;
/// A server that uses less than this share of one core has time left.
const LEISURE: f64 = 0.7;

/// Returns why a step was not good, as a part of a sentence.
pub fn reasons(breaks: &[Break], bounds: &Bounds) -> String {
    let one = |one: &Break| match one {
        Break::Loss(loss) => {
            format!("{} of the packets were lost (bound: {})", percent(*loss), percent(bounds.loss))
        }
        Break::Latency(p99) => format!(
            "one packet in a hundred took longer than {} (bound: {})",
            milliseconds(*p99),
            milliseconds(bounds.latency.as_secs_f64() * 1e6)
        ),
        Break::Joins(failed, of, cause) => {
            format!("{failed} of {of} allocations failed, mostly because of: {cause}")
        }
        Break::Silence => "no packet could be sent".to_owned(),
    };
    breaks.iter().map(one).collect::<Vec<_>>().join(", and ")
}

fn figures(step: &Step) -> String {
    let latency = step.latency.map_or(String::new(), |latency| {
        format!(", and 99 of 100 arrived within {}", milliseconds(latency.p99))
    });
    format!("{} of the packets were lost{latency}", percent(step.loss()))
}

/// Formats a share as per cent with as many digits as it needs.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        p if p < 0.01 => "less than 0.01 %".to_owned(),
        p if p < 10.0 => trim(format!("{p:.2}")) + " %",
        p => format!("{p:.0} %"),
    }
}

/// Formats microseconds as milliseconds with two or three digits.
pub fn milliseconds(us: f64) -> String {
    let ms = us / 1e3;
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => trim(format!("{ms:.1}")) + " ms",
        ms => format!("{ms:.0} ms"),
    }
}

/// Removes zeros at the end of a decimal fraction.
fn trim(number: String) -> String {
    number.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the word in the singular or the plural.
fn word(count: u32, singular: &str) -> String {
    if count == 1 { singular.to_owned() } else { format!("{singular}s") }
}
