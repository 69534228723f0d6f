//! Findings, and who can act on them.

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name in JSON.
    pub code: &'static str,
    /// The text.
    pub text: String,
}

/// Who can change what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The administrator of this computer's network.
    Network,
    /// The administrator of the relay.
    Relay,
}

/// Makes a finding.
pub(super) fn finding(code: &'static str, text: impl Into<String>) -> Finding {
    Finding { code, text: text.into() }
}
