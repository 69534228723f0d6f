//! What is wrong with a configuration: where, what, and what to write instead.

use std::fmt;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Line in the file, from 1; `None` = the file as a whole.
    pub line: Option<usize>,
    /// The key, with its table; empty = none in particular.
    pub key: String,
    /// What is wrong. Never a secret.
    pub message: String,
    /// What to write or do instead.
    pub remedy: String,
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file, as the operator named it.
    pub file: String,
    /// In the order of the lines.
    pub problems: Vec<Problem>,
}

impl Report {
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
}

impl fmt::Display for Report {
    /// Two lines a problem: `file:line: error: key: message`, then the remedy, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            f.write_str(&self.file)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            write!(f, ": {severity}: ")?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            writeln!(f, "{}\n    {}", problem.message, problem.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
