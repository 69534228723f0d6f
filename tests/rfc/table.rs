//! Verifies CONFORMANCE.md: every test it names exists, and every MUST has a test or a stated reason.

use std::collections::HashSet;
use std::path::Path;

/// Number of MUST and MUST NOT rows of RFC 8489 and RFC 8656, so that none gets lost.
const MUSTS: usize = 121;
/// How a cell without a test may start; the following words give the reason.
const REASONS: [&str; 3] = ["not offered: ", "not met: ", "no test: "];

struct Row<'a> {
    id: &'a str,
    requirement: &'a str,
    evidence: &'a str,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let lines = text.lines().filter(|line| line.starts_with("| 8489-") || line.starts_with("| 8656-"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [id, requirement, evidence] = cells[..] else { panic!("three cells: {line}") };
            Row { id, requirement, evidence }
        })
        .collect()
}

/// Returns the paths between backticks.
fn names(evidence: &str) -> impl Iterator<Item = &str> {
    evidence.split('`').skip(1).step_by(2).filter(|name| name.contains("::"))
}

/// Returns the files that may contain a module's tests, this target's first: `auth` is tests/rfc/auth.rs, `wire::stream`
/// is src/wire/stream.rs or src/wire/stream/tests.rs, `tests::relay` is tests/relay/main.rs.
fn places(module: &str) -> Vec<String> {
    let path = module.replace("::", "/");
    match path.strip_prefix("tests/") {
        Some(path) => vec![format!("tests/{path}.rs"), format!("tests/{path}/main.rs")],
        None => ["tests/rfc/@.rs", "src/@.rs", "src/@/mod.rs", "src/@/tests.rs"]
            .map(|place| place.replace('@', &path))
            .into(),
    }
}

/// Returns the names of the test functions.
fn tests_in(source: &str) -> HashSet<&str> {
    let behind = source.split("#[test]").skip(1);
    behind.filter_map(|text| text.split_once("fn ")?.1.split_once('(').map(|(name, _)| name)).collect()
}

fn is_a_test(root: &Path, name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let sources =
        places(module).into_iter().filter_map(|place| std::fs::read_to_string(root.join(place)).ok());
    sources.into_iter().any(|source| tests_in(&source).contains(function))
}

/// Returns the errors of a row.
fn complaint(root: &Path, row: &Row<'_>) -> Option<String> {
    if let Some(gone) = names(row.evidence).find(|name| !is_a_test(root, name)) {
        return Some(format!("{}: there is no test {gone}", row.id));
    }
    let reasoned =
        REASONS.iter().any(|start| row.evidence.strip_prefix(start).is_some_and(|why| why.len() > 10));
    (names(row.evidence).next().is_none() && !reasoned)
        .then(|| format!("{}: neither a test nor a reason: {:?}", row.id, row.evidence))
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("CONFORMANCE.md")).expect("CONFORMANCE.md");
    let rows = rows(&text);
    let complaints: Vec<String> = rows.iter().filter_map(|row| complaint(root, row)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let ids: HashSet<&str> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "an id is listed twice");
    let musts = rows.iter().filter(|row| row.requirement.starts_with("M: ")).count();
    assert_eq!(musts, MUSTS, "a MUST was lost or added");
}

/// The check detects errors.
#[test]
fn a_false_row_is_noticed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wrong = |evidence| {
        let text = format!("| 8489-1-01 | M: a rule | {evidence} |\n");
        complaint(root, &rows(&text)[0]).is_some()
    };
    assert!(wrong(""));
    assert!(wrong("`table::no_such_test`"));
    assert!(wrong("`nowhere::a_false_row_is_noticed`"));
    assert!(wrong("`table::rows`"), "a function, but no test");
    assert!(wrong("`table::a_false_row_is_noticed`, `table::gone`"));
    assert!(wrong("no test: why"));
    assert!(wrong("surely"));
    assert!(!wrong("`table::a_false_row_is_noticed`"));
    assert!(!wrong("`wire::stream::the_largest_channel_data_fits`"));
    assert!(!wrong("no test: it takes a network of its own"));
}
