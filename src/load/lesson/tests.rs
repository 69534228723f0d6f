//! What the outcome says, in each of its forms.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::json::json;
use super::limit::Limit;
use super::outcome::{Moment, Outcome, Setting};
use super::page::page;
use super::ramp::Found;
use super::shape::Shape;
use super::step::{Bounds, Generator, ServerUse, Step};
use super::table;
use crate::load::cause::Cause;
use crate::load::report::Quantiles;
use crate::load::timeline::Second;

const LIMIT: Limit = Limit {
    sign: String::new(),
    count: 7,
    meaning: "a user may relay no more",
    setting: "limits.packets_per_user or limits.kbit_per_user",
};

fn setting() -> Setting {
    Setting {
        server: "relay.example.org:3478".into(),
        mix: vec![("udp", 80), ("tls", 20)],
        shape: Shape { class_size: 30, teachers: 1, cameras: 3 },
        bounds: Bounds { loss: 0.005, latency: Duration::from_millis(50) },
        rejoin: Some(Duration::from_secs(120)),
        is_ramp: true,
        has_own_users: true,
        is_local: false,
        has_counters: false,
        machine: "a machine, 2 cores".into(),
        program: "hallpass".into(),
        began: "2026-11-28 19:05 UTC".into(),
    }
}

fn quantiles(us: f64) -> Option<Quantiles> {
    Some(Quantiles { p50: us / 4.0, p90: us / 2.0, p99: us, p999: us, max: us * 2.0 })
}

/// A step with this many packets lost of 100,000, and this 99th percentile in microseconds.
fn step(pupils: u32, lost: u64, p99: f64) -> Step {
    let mut step = Step {
        pupils,
        participants: pupils + pupils.div_ceil(30),
        began: Duration::from_secs(u64::from(pupils)),
        elapsed: Duration::from_secs(10),
        sent: 100_000,
        received: 100_000 - lost,
        delivered: (100_000 - lost, 60_000_000),
        latency: quantiles(p99),
        lateness: quantiles(10.0),
        joined: 186,
        join_time: quantiles(4_000.0),
        server: Some(ServerUse { cores: 0.42, waited: 0.01, rss: 30 << 20 }),
        ..Step::default()
    };
    step.verdict = step.judge(&setting().bounds);
    step
}

fn outcome(steps: Vec<Step>, good: Option<u32>, broken: Option<u32>) -> Outcome {
    let packets = Second { sent: 100, received: 99, bytes: 12_000, latency: Some((400.0, 900.0)) };
    let moment = |allocations| Moment { allocations, packets, server_cpu: Some(0.3) };
    Outcome {
        setting: setting(),
        steps,
        moments: (0..90).map(moment).collect(),
        found: Found { good, broken },
    }
}

fn ramp() -> Outcome {
    let again = Step { is_confirmation: true, ..step(60, 3, 2_000.0) };
    outcome(
        vec![step(30, 0, 900.0), step(60, 0, 1_500.0), step(90, 3_200, 80_000.0), again],
        Some(60),
        Some(90),
    )
}

#[test]
fn the_answer_of_a_ramp_is_a_number_that_was_measured_and_why_not_more() {
    let outcome = ramp();
    assert!(outcome.is_answered());
    assert_eq!(
        outcome.answer(),
        "This relay carries 60 pupils in 2 lessons: with 90, 3.2 % of the packets were lost (bound: 0.5 %), and one packet \
         in a hundred took longer than 80 ms (bound: 50 ms)."
    );
    assert!(outcome.good().is_some_and(|step| step.is_confirmation));
    let failed = BTreeMap::from([(Cause::Other, 186)]);
    let nobody = Step { joined: 0, failed, ..step(30, 100_000, 0.0) };
    let nobody = self::outcome(vec![nobody], None, Some(30));
    assert!(nobody.answer().starts_with("No answer: nobody could join relay.example.org:3478: 100 % of"));
    let open = Outcome { steps: vec![step(30, 0, 900.0)], ..self::outcome(vec![], Some(30), None) };
    assert!(open.is_answered());
    assert_eq!(
        open.answer(),
        "This relay carries at least 30 pupils in 1 lesson: no larger number was measured."
    );
    let none = self::outcome(vec![step(30, 900, 900.0)], None, Some(30));
    assert!(!none.is_answered());
    assert!(
        none.answer()
            .starts_with("This relay does not carry 30 pupils in 1 lesson within the bounds: 0.9 % of")
    );
}

#[test]
fn a_single_measurement_says_what_it_measured() {
    let mut single = outcome(vec![step(30, 0, 900.0)], Some(30), None);
    single.setting.is_ramp = false;
    assert!(single.is_answered());
    assert_eq!(
        single.answer(),
        "This relay carries 30 pupils in 1 lesson: 0 % of the packets were lost, and 99 of 100 arrived within 0.90 ms."
    );
}

#[test]
fn a_limit_is_named_instead_of_a_number() {
    let mut limited =
        Step { limits: vec![LIMIT, Limit { setting: "another", ..LIMIT }], ..step(60, 50_000, 900.0) };
    limited.verdict = limited.judge(&setting().bounds);
    let outcome = outcome(vec![step(30, 0, 900.0), limited], Some(30), Some(60));
    assert!(!outcome.is_answered());
    let answer = outcome.answer();
    assert!(
        answer.starts_with("No answer: with 60 pupils in 2 lessons, a setting of the server"),
        "{answer}"
    );
    assert!(
        answer.contains("limits.packets_per_user") && answer.contains("It carried 30 pupils"),
        "{answer}"
    );
    assert!(outcome.notes().iter().any(|note| note.contains("another")));
}

#[test]
fn the_machine_of_the_load_is_named_instead_of_a_number() {
    let mut slow =
        Step { generator: Generator { busy: 0.99, ..Generator::default() }, ..step(60, 50_000, 900.0) };
    slow.verdict = slow.judge(&setting().bounds);
    let outcome = outcome(vec![step(30, 0, 900.0), slow], Some(30), Some(60));
    assert!(!outcome.is_answered());
    assert_eq!(
        outcome.answer(),
        "This relay carries at least 30 pupils in 1 lesson: with 60, this machine was the bottleneck, not the relay: \
         the load generator was busy 99 % of the time."
    );
}

#[test]
fn silent_loss_of_an_idle_server_hints_at_limits_that_cannot_be_seen() {
    let hints = |outcome: &Outcome| outcome.notes().iter().any(|note| note.contains("--admin"));
    let mut idle = outcome(vec![step(30, 900, 900.0)], None, Some(30));
    assert!(hints(&idle));
    idle.setting.has_counters = true;
    assert!(!hints(&idle));
    let busy =
        Step { server: Some(ServerUse { cores: 1.9, ..ServerUse::default() }), ..step(30, 900, 900.0) };
    assert!(!hints(&outcome(vec![busy], None, Some(30))));
}

#[test]
fn what_makes_figures_low_is_said() {
    let mut outcome = ramp();
    let without = outcome.notes().len();
    outcome.setting.is_local = true;
    outcome.setting.has_own_users = false;
    assert_eq!(outcome.notes().len(), without + 2);
    outcome.steps[2].server = Some(ServerUse { cores: 0.5, waited: 0.4, rss: 0 });
    assert!(outcome.notes().iter().any(|note| note.contains("waited for a processor for as much as 0.40")));
}

#[test]
fn rows_are_aligned_and_fit_into_a_terminal() {
    let huge = Step {
        server: Some(ServerUse { cores: 12.5, waited: 0.0, rss: 10 << 30 }),
        delivered: (9_999_999, 30_000_000_000),
        ..step(20_000, 99_999, 59_000_000.0)
    };
    let rows: Vec<String> = ramp()
        .steps
        .iter()
        .chain([&huge])
        .enumerate()
        .map(|(index, step)| table::row(index + 1, step))
        .collect();
    assert!(table::HEADING.iter().all(|line| line.len() <= 79));
    for row in &rows {
        assert!(row.chars().count() <= 79, "{row}");
    }
    assert_eq!(rows[2], "  3     90   48.0      9680  3.20 %   20.0   80.0    160  0.42    30  not good");
    assert!(rows[3].ends_with("confirmed"));
}

#[test]
fn text_never_speaks_of_percentiles_by_letters() {
    let outcome = ramp();
    let mut all = table::conclusion(&outcome);
    all.extend(table::introduction(&outcome.setting));
    all.extend(table::HEADING.map(str::to_owned));
    all.push(page(&outcome));
    for text in all {
        assert!(!text.contains("p50") && !text.contains("p99") && !text.contains("half"), "{text}");
    }
}

#[test]
fn json_has_everything_with_units() {
    let mut outcome = ramp();
    outcome.steps[2].failed = BTreeMap::from([(Cause::Refused { request: "Allocate", code: 486 }, 3)]);
    let json: Value = serde_json::from_str(&json(&outcome)).expect("JSON");
    assert_eq!(json["answer"]["pupils"], 60);
    assert_eq!(json["answer"]["broken_at"], 90);
    assert_eq!(json["mix"], serde_json::json!({ "udp": 80, "tls": 20 }));
    assert_eq!(json["steps"][2]["joins"]["failed"]["error 486 for Allocate"], 3);
    assert_eq!(json["steps"][2]["by"]["what"], "relay");
    assert_eq!(json["steps"][0]["latency_us"]["p99"], 900.0);
    assert_eq!(json["steps"][0]["mbit_per_second"], 48.0);
    assert_eq!(json["seconds"].as_array().map(Vec::len), Some(90));
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    let mut outcome = ramp();
    outcome.setting.server = "<script>alert(1)</script>&\"relay".into();
    outcome.steps[2].errors = BTreeMap::from([("<b>bad</b>".into(), 4)]);
    let page = page(&outcome);
    assert!(!page.contains("<script") && !page.contains("<b>") && page.contains("&lt;b&gt;bad"), "{page}");
    for elsewhere in ["http:", "https:", "url(", "@import", "src=", "href="] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert_eq!(page.matches("<figure>").count(), 8);
    well_formed(&page);
    let lone = outcome_without_server();
    well_formed(&super::page::page(&lone));
    well_formed(&super::page::page(&self::outcome(vec![], None, None)));
}

fn outcome_without_server() -> Outcome {
    let mut outcome = outcome(vec![Step { server: None, latency: None, ..step(30, 0, 0.0) }], Some(30), None);
    outcome.moments.iter_mut().for_each(|moment| moment.server_cpu = None);
    outcome
}

/// Fails unless every element is closed in order and every id exists once; `&` and `<` are only used as markup.
fn well_formed(page: &str) {
    let (before, after) = page.split_once("<style>").expect("a style");
    let (_, after) = after.split_once("</style>").expect("its end");
    let mut open = Vec::new();
    for part in [before, after] {
        let mut rest = part;
        while let Some(at) = rest.find('<') {
            assert!(!rest[..at].contains('>'), "a stray > in {}", &rest[..at]);
            let end = rest[at..].find('>').expect("a closed tag") + at;
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().expect("a name");
            if tag.starts_with('!') || tag.ends_with('/') || name == "meta" {
                continue;
            }
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag} closes another element");
            } else {
                assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
                open.push(name);
            }
        }
    }
    assert_eq!(open, [""; 0], "elements that are not closed");
    let ids: Vec<&str> =
        page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().expect("quoted")).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "an id exists twice");
    for references in
        page.split("aria-labelledby=\"").skip(1).map(|rest| rest.split('"').next().expect("quoted"))
    {
        assert!(references.split(' ').all(|id| ids.contains(&id)), "{references}");
    }
    for entity in page.split('&').skip(1) {
        assert!(
            ["amp;", "lt;", "gt;", "quot;", "#39;", "nbsp;"].iter().any(|known| entity.starts_with(known))
        );
    }
}
