//! Every metric that a document, a rule or the dashboard names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::exported::known;
use crate::support::server::skip_on_coturn;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where metrics are named.
const PLACES: [&str; 4] = ["docs", "conf", "README.md", "SECURITY.md"];

/// Returns the names of metrics in a text: words that begin with `hallpass_` or `process_`, and are not part of the name of a
/// recorded series (`instance:hallpass_...:ratio`).
pub fn named(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    text.split(|c| !is_name(c))
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| {
            let rest = word.strip_prefix("hallpass_").or(word.strip_prefix("process_"));
            // Not the name of a package, `hallpass_*.deb`.
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .filter(|word| !word.contains(':'))
        .map(str::to_owned)
        .collect()
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a directory");
        entries.for_each(|entry| files(&entry.expect("an entry").path(), found));
    } else {
        found.push(path.to_owned());
    }
}

/// Whether a file is about Ansible, whose variables begin like metrics.
fn is_of_ansible(file: &Path) -> bool {
    file.components().any(|part| matches!(part.as_os_str().to_str(), Some("ansible" | "ansible.md")))
}

#[test]
fn every_metric_that_is_named_exists() {
    if skip_on_coturn("metrics") {
        return;
    }
    let (known, mut found, mut total) = (known(), Vec::new(), 0);
    PLACES.iter().for_each(|place| files(&Path::new(ROOT).join(place), &mut found));
    for file in found.into_iter().filter(|file| !is_of_ansible(file)) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let named = named(&text);
        total += named.len();
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{} names metrics that do not exist: {unknown:?}", file.display());
    }
    assert!(total > 100, "only {total} names were found");
}

#[test]
fn names_are_found_in_text_and_in_expressions() {
    let text = "`hallpass_a_total`: sum(rate(hallpass_b{x=\"hallpass\"}[5m])) + instance:hallpass_c:sum, process_d: 1";
    let expected = ["hallpass_a_total", "hallpass_b", "process_d"].map(str::to_owned);
    assert_eq!(named(text), expected.into());
}
