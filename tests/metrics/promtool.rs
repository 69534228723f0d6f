//! The rules, their tests, and the metrics themselves, checked with promtool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hallpass::turn::identity::refusal::Reason;

use crate::exported::{SCRAPES, exported};
use crate::support::files::Directory;
use crate::support::server::skip_on_coturn;
use crate::support::tool::{run, run_ok};
use crate::table;

const LIMIT: Duration = Duration::from_secs(60);

fn file(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/prometheus")).join(name)
}

fn text(name: &str) -> String {
    let path = file(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs promtool with these arguments and one of the files; it must succeed.
pub fn promtool(words: &[&str], file: &Path) -> String {
    let args: Vec<&str> = words.iter().copied().chain(file.to_str()).collect();
    run_ok("promtool", &args, LIMIT)
}

/// Returns the values of `key` in a YAML file, such as the names of all alerts.
fn values(text: &str, key: &str) -> BTreeSet<String> {
    let values = text.lines().filter_map(|line| line.trim_start_matches(['-', ' ']).strip_prefix(key));
    values.filter_map(|value| value.strip_prefix(": ")).map(str::to_owned).collect()
}

#[test]
fn the_metrics_follow_the_conventions_of_prometheus() {
    if skip_on_coturn("metrics") {
        return;
    }
    let directory = Directory::new("metrics");
    for scrape in SCRAPES.iter() {
        let path = directory.write("metrics.txt", scrape);
        let said = run("sh", &["-c", &format!("promtool check metrics < {}", path.display())], LIMIT);
        assert!(said.success && said.output.trim().is_empty(), "promtool check metrics: {}", said.output);
    }
}

#[test]
fn the_configuration_and_the_rules_are_valid() {
    promtool(&["check", "config"], &file("prometheus.yml"));
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &file("hallpass.rules.yml"));
}

const TESTS: [&str; 2] = ["hallpass.rules.test.yml", "hallpass.rules.week.test.yml"];

#[test]
fn the_tests_of_the_rules_pass() {
    TESTS.iter().for_each(|name| drop(promtool(&["test", "rules"], &file(name))));
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let alerts = values(&text("hallpass.rules.yml"), "alert");
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for name in TESTS {
        let text = text(name);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if let Some(alert) = pair[0].strip_prefix("alertname: ") {
                match pair[1] {
                    "exp_alerts: []" => silent.insert(alert.to_owned()),
                    "exp_alerts:" => fires.insert(alert.to_owned()),
                    other => panic!("after alertname: {other}"),
                };
            }
        }
        // No alert of any name fires on a healthy relay.
        if text.contains("- expr: ALERTS\n") {
            silent.extend(alerts.iter().cloned());
        }
    }
    assert!(alerts.len() > 10);
    assert_eq!(alerts, fires);
    assert_eq!(alerts, silent);
}

/// Returns the reasons that the selectors of `metric` in a text name.
fn selected(text: &str, metric: &str) -> BTreeSet<String> {
    let selectors = text.split(metric).skip(1).filter_map(|rest| rest.split('}').next());
    let reasons = selectors.filter_map(|selector| selector.split("~\"").nth(1)?.split('"').next());
    reasons.flat_map(|reasons| reasons.split('|')).map(str::to_owned).collect()
}

#[test]
fn the_rules_select_reasons_that_exist() {
    if skip_on_coturn("metrics") {
        return;
    }
    let rules = text("hallpass.rules.yml");
    let drops = &exported()["hallpass_drops_total"].labels["reason"];
    let refusals: BTreeSet<String> = Reason::NAMES.iter().map(|name| (*name).to_owned()).collect();
    for (metric, known) in
        [("hallpass_drops_total{reason=", drops), ("hallpass_refusals_total{reason=", &refusals)]
    {
        let selected = selected(&rules, metric);
        assert!(selected.len() > 5 && selected.is_subset(known), "{metric}: {selected:?} of {known:?}");
    }
}

#[test]
fn every_alert_has_a_severity_and_a_next_step_and_is_documented() {
    let rules = text("hallpass.rules.yml");
    for alert in rules.split("- alert: ").skip(1) {
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "no {part}in {alert}");
        }
    }
    let rows = table::rows(&table::page(), "alert");
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| table::quoted(&row[0])).collect();
    assert_eq!(values(&rules, "alert"), documented);
}
