//! `docs/metrics.md` lists exactly what a server exports: names, types, labels, and the values of labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::exported::{ABSENT, OF_RELEASES, exported};
use crate::support::server::skip_on_coturn;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

pub fn page() -> String {
    fs::read_to_string(PAGE).unwrap_or_else(|error| panic!("{PAGE}: {error}"))
}

/// Returns the cells of each row of the tables whose first column has this title.
pub fn rows(page: &str, title: &str) -> Vec<Vec<String>> {
    let (mut rows, mut is_within) = (Vec::new(), false);
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|') else {
            is_within = false;
            continue;
        };
        let cells: Vec<String> =
            row.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        if is_within && !cells[0].starts_with("---") {
            rows.push(cells);
        } else if cells[0] == title {
            is_within = true;
        }
    }
    rows
}

/// Returns the words in backquotes.
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    if skip_on_coturn("metrics") {
        return;
    }
    let mut documented = BTreeMap::new();
    for row in rows(&page(), "name") {
        let [name] = &quoted(&row[0])[..] else { panic!("no name in {row:?}") };
        let labels: BTreeSet<String> = quoted(&row[2]).into_iter().collect();
        assert!(row.len() == 5 && !row[3].is_empty(), "{name}: the meaning is missing");
        let before = documented.insert(name.clone(), (row[1].clone(), labels));
        assert!(before.is_none(), "{name} is listed twice");
    }
    let mut exports = BTreeMap::new();
    for (name, family) in exported() {
        let mut labels: BTreeSet<String> = family.labels.into_keys().collect();
        labels.extend(OF_RELEASES.iter().filter(|(of, _)| *of == name).map(|(_, label)| (*label).to_owned()));
        exports.insert(name, (family.kind, labels));
    }
    for (name, reason) in ABSENT {
        assert!(documented.remove(*name).is_some(), "{name} ({reason}) is missing in {PAGE}");
    }
    for (name, of) in &exports {
        assert_eq!(documented.get(name), Some(of), "{name}: correct its row in {PAGE}");
    }
    let unknown: Vec<_> = documented.keys().filter(|name| !exports.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{PAGE} lists metrics that do not exist: {unknown:?}");
}

#[test]
fn every_reason_of_a_drop_is_documented() {
    if skip_on_coturn("metrics") {
        return;
    }
    let documented: BTreeSet<String> =
        rows(&page(), "reason").iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(exported()["hallpass_drops_total"].labels["reason"], documented);
}

#[test]
fn the_values_of_labels_are_documented() {
    if skip_on_coturn("metrics") {
        return;
    }
    let (rows, families) = (rows(&page(), "metric"), exported());
    assert!(!rows.is_empty());
    for row in rows {
        let (name, label) = (&quoted(&row[0])[0], &quoted(&row[1])[0]);
        let documented: BTreeSet<String> = quoted(&row[2]).into_iter().collect();
        assert_eq!(families[name].labels[label], documented, "{name}, {label}");
    }
}
