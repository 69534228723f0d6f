//! Findings, and who can act on them.

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name in JSON.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The text.
    pub text: String,
    /// What to do about it, for the administrator of the relay.
    pub remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Calls work, but not as intended, or not for long.
    Warning,
    /// Calls fail, for all clients or for some.
    Error,
}

impl Severity {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Who can change what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The administrator of this computer's network.
    Network,
    /// The administrator of the relay.
    Relay,
    /// One of the two, and this computer cannot tell which.
    Either,
}

/// Makes a note.
pub fn finding(code: &'static str, text: impl Into<String>) -> Finding {
    Finding { code, severity: Severity::Note, text: text.into(), remedy: None }
}

impl Finding {
    /// Makes an error with what to do about it.
    pub fn error(code: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, remedy: Some(remedy.into()), ..finding(code, text) }
    }

    /// Makes a warning with what to do about it.
    pub fn warning(code: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, remedy: Some(remedy.into()), ..finding(code, text) }
    }
}
