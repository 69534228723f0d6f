//! Configurations: any text is either a valid configuration or a list of errors with their lines.

use std::path::Path;

use hallpass::config::{Report, Severity, parse};

/// The problems of a text: line, key, and whether it is an error.
type Lines = Vec<(Option<usize>, String, bool)>;

/// The text of a file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A device or pipe as a secret file would block this test.
    if text.contains("/dev") || text.contains("/proc") || text.contains('\\') {
        return;
    }
    let (good, found) = problems(text);
    let lines = text.matches('\n').count() + 1;
    for (line, key, is_error) in &found {
        // Only an error about a missing key has no line, and then it has a name.
        match line {
            Some(line) => assert!((1..=lines).contains(line), "line {line} of {lines}"),
            None => assert!(!key.is_empty()),
        }
        assert!(!(good && *is_error));
    }
    assert!(good || found.iter().any(|(.., is_error)| *is_error), "refused without an error");
    assert!(found.is_sorted_by_key(|(line, ..)| *line));
    if !text.starts_with('\u{feff}') {
        let (again, moved) = problems(&format!("# one line more\n{text}"));
        let expected: Lines =
            found.into_iter().map(|(line, key, bad)| (line.map(|line| line + 1), key, bad)).collect();
        assert_eq!((again, moved), (good, expected), "a comment moves everything down by one");
    }
}

fn problems(text: &str) -> (bool, Lines) {
    let (good, report): (bool, Report) = match parse(text, "hallpass.toml", Path::new("no/such/directory")) {
        Ok(loaded) => (true, loaded.warnings),
        Err(report) => (false, report),
    };
    assert_eq!(report.has_errors(), !good);
    assert_eq!(report.errors() + report.warnings(), report.problems.len());
    let shown = report.to_string();
    assert_eq!(shown.is_empty(), report.problems.is_empty());
    let lines = report.problems.into_iter().map(|problem| {
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "the next step: {problem:?}");
        (problem.line, problem.key, problem.severity == Severity::Error)
    });
    (good, lines.collect())
}
