//! The dashboard for Grafana: valid expressions, known metrics and labels, panels that do not overlap.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use serde_json::Value;

use crate::exported::{base, exported};
use crate::names::named;
use crate::promtool::promtool;
use crate::support::files::Directory;
use crate::support::server::skip_on_coturn;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/grafana/hallpass.json");

fn dashboard() -> Value {
    let text = fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{FILE}: {error}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The expressions of all panels and annotations, each with its legend.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let targets = list(dashboard, "panels").iter().flat_map(|panel| list(panel, "targets"));
    let panels = targets.map(|target| (text(target, "expr"), text(target, "legendFormat")));
    let annotations = list(&dashboard["annotations"], "list").iter();
    let annotations = annotations.map(|one| (text(one, "expr"), text(one, "titleFormat")));
    panels.chain(annotations).map(|(expr, legend)| (expr.to_owned(), legend.to_owned())).collect()
}

/// Replaces the variables of Grafana, as it does before it asks Prometheus.
fn resolved(expr: &str) -> String {
    let mut expr = expr.to_owned();
    for (variable, value) in [("$__rate_interval", "1m"), ("$__range", "6h"), ("$job", "hallpass")] {
        expr = expr.replace(variable, value);
    }
    for variable in ["$instance", "$host", "$transport"] {
        expr = expr.replace(variable, ".*");
    }
    assert!(!expr.contains('$'), "an unknown variable in {expr}");
    expr
}

#[test]
fn prometheus_accepts_every_expression() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let expressions = expressions(&dashboard());
    for (number, (expr, _)) in expressions.iter().enumerate() {
        let quoted = serde_json::to_string(&resolved(expr)).expect("a string");
        writeln!(rules, "      - record: dashboard:expression_{number}:value\n        expr: {quoted}")
            .unwrap();
    }
    let directory = Directory::new("dashboard");
    let said = promtool(&["check", "rules"], &directory.write("rules.yml", &rules));
    assert!(said.contains(&format!("{} rules found", expressions.len())), "{said}");
}

/// Returns the words in the brackets after each `by`, and those in double braces of the legend.
fn labels_used(expr: &str, legend: &str) -> BTreeSet<String> {
    let by = expr.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    let by = by.flat_map(|labels| labels.split(',')).map(|label| label.trim().to_owned());
    let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::to_owned);
    let matched = expr.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let matched = matched.flat_map(|matchers| matchers.split(", "));
    let matched = matched.filter_map(|matcher| matcher.split(['=', '!', '~']).next().map(str::to_owned));
    by.chain(shown).chain(matched).collect()
}

#[test]
fn every_label_belongs_to_a_metric_of_its_expression() {
    if skip_on_coturn("metrics") {
        return;
    }
    let families = exported();
    for (expr, legend) in expressions(&dashboard()) {
        // Labels that Prometheus adds, and one that only release builds have.
        let mut known: BTreeSet<String> = ["job", "instance", "revision"].map(str::to_owned).into();
        for name in named(&expr) {
            if let Some(family) = families.get(base(&families, &name)) {
                known.extend(family.labels.keys().cloned());
            }
        }
        let unknown: Vec<_> =
            labels_used(&expr, &legend).into_iter().filter(|l| !known.contains(l)).collect();
        assert!(unknown.is_empty(), "{expr}: no metric has {unknown:?}");
    }
}

#[test]
fn panels_have_numbers_of_their_own_and_do_not_overlap() {
    let (dashboard, mut numbers, mut taken) = (dashboard(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        assert!(numbers.insert(panel["id"].as_u64().expect("a number")), "{} is used twice", panel["id"]);
        let of = |key: &str| panel["gridPos"][key].as_u64().expect("a position");
        assert!(of("x") + of("w") <= 24, "{} is too wide", text(panel, "title"));
        for cell in
            (of("x")..of("x") + of("w")).flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{} overlaps another panel", text(panel, "title"));
        }
    }
    assert!(numbers.len() > 20);
    let variables = list(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name"));
    assert_eq!(variables.collect::<Vec<_>>(), ["datasource", "job", "instance", "host", "transport"]);
}
