//! The outcome as text for a terminal: one row for each measurement, then the answer.

use super::outcome::{Outcome, Setting, percent};
use super::step::{Step, Verdict};

/// The heading of the rows, two lines of at most 79 characters.
pub const HEADING: [&str; 2] = [
    "    pupils Mbit/s packets/s    lost     latency in ms        relay",
    "                                    median   99 %    max cores   MiB",
];

/// Returns what is measured, as paragraphs of text.
pub fn introduction(setting: &Setting) -> Vec<String> {
    let Setting { shape, bounds, server, rejoin, .. } = setting;
    let mix: Vec<String> = setting.mix.iter().map(|(name, share)| format!("{share} % {name}")).collect();
    let over = match &setting.mix[..] {
        [(name, _)] => (*name).to_owned(),
        _ => mix.join(", "),
    };
    let rejoin = match rejoin {
        Some(every) => format!("each pupil leaves and comes back every {} s", every.as_secs_f64()),
        None => "nobody leaves".to_owned(),
    };
    vec![
        format!("How many pupils does {server} carry (over {over})?"),
        format!(
            "A lesson: {} pupils and {}. All talk and listen (50 packets a second each way, 100 to 160 bytes); {} \
             show a camera to all others (about 210 kbit/s), one shows the screen (about 170 kbit/s, with bursts); {rejoin}. \
             Each participant has {} allocations, as a browser has connections.",
            shape.class_size,
            match shape.teachers {
                1 => "1 teacher".to_owned(),
                teachers => format!("{teachers} teachers"),
            },
            shape.cameras_per_lesson(),
            shape.slots_per_seat(),
        ),
        format!(
            "Good is: at most {} of the packets lost, 99 % through the relay within {} ms one way, every join succeeds. \
             Latency counts from when a packet was due.",
            percent(bounds.loss),
            bounds.latency.as_secs_f64() * 1e3
        ),
    ]
}

/// Returns the row of a measurement, its number first.
pub fn row(number: usize, step: &Step) -> String {
    let latency = |of: fn(&crate::load::report::Quantiles) -> f64| {
        step.latency.as_ref().map_or("-".to_owned(), |latency| digits(of(latency) / 1e3))
    };
    let (cpu, rss) = match step.server {
        Some(server) => (format!("{:.2}", server.cores), (server.rss >> 20).to_string()),
        None => ("-".to_owned(), "-".to_owned()),
    };
    format!(
        "{number:>3} {:>6} {:>6} {:>9} {:>7} {:>6} {:>6} {:>6} {cpu:>5} {rss:>5}  {}",
        step.pupils,
        digits(step.mbit()),
        format!("{:.0}", step.packets_per_second()),
        lost(step.loss()),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        latency(|latency| latency.max),
        judgement(step),
    )
}

/// Returns the answer and the notes, as paragraphs of text.
pub fn conclusion(outcome: &Outcome) -> Vec<String> {
    let mut all = vec![outcome.answer()];
    all.extend(outcome.notes());
    if let Some(step) = outcome.broken() {
        all.extend(step.errors.iter().take(5).map(|(text, count)| format!("Error, {count} x: {text}")));
    }
    all
}

/// Returns the judgement of a measurement in a word or two.
pub fn judgement(step: &Step) -> &'static str {
    match (&step.verdict, step.is_confirmation) {
        (Verdict::Good, false) => "good",
        (Verdict::Good, true) => "confirmed",
        (Verdict::Broken { .. }, _) => "not good",
    }
}

/// Formats a share of lost packets in seven characters.
pub fn lost(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.01 => "<0.01 %".to_owned(),
        percent if percent < 99.995 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// Formats a number with three digits or so.
pub fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
