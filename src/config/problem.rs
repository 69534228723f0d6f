//! Problems of a configuration: line, message and remedy.

use std::fmt;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but probably does not do what was intended.
    Warning,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Line in the file, from 1; `None` if the problem concerns the file as a whole.
    pub line: Option<usize>,
    /// The key with its table, such as `limits.mss`; empty if no key is at fault.
    pub key: String,
    /// What is wrong. Never contains a secret.
    pub message: String,
    /// What to write or do instead.
    pub remedy: String,
}

/// All problems of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The path as the operator wrote it.
    pub file: String,
    /// Sorted by line.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Adds a problem without a line.
    pub fn add(
        &mut self,
        severity: Severity,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (key, message, remedy) = (key.to_owned(), message.into(), remedy.into());
        self.problems.push(Problem { severity, line: None, key, message, remedy });
    }

    /// Whether the configuration is refused.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// Each problem with its severity, as two lines of text: `file:line: severity: key: message`, then the indented remedy.
    pub fn texts(&self) -> impl Iterator<Item = (Severity, String)> {
        self.problems.iter().map(|problem| (problem.severity, self.text(problem)))
    }

    fn text(&self, problem: &Problem) -> String {
        let line = problem.line.map_or_else(String::new, |line| format!(":{line}"));
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        format!("{}{line}: {severity}: {key}{}\n    {}\n", self.file, problem.message, problem.remedy)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.texts().try_for_each(|(_, text)| f.write_str(&text))
    }
}

impl std::error::Error for Report {}
