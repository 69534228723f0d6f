//! What to get, from whom, and how.

use std::path::PathBuf;

/// What to get, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The names in the certificate; at least one. The first one names its directory.
    pub domains: Vec<String>,
    /// Where the authority writes to, as URLs.
    pub contact: Vec<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// The kind of certificate; `None` for the authority's default.
    pub profile: Option<String>,
    /// Challenges to answer, in order of preference; at least one.
    pub challenges: Vec<Challenge>,
    /// The directory for account and certificates.
    pub state: PathBuf,
    /// PEM file with the authorities that are trusted for connections to the directory; `None` for those of this computer.
    pub ca_file: Option<PathBuf>,
}

/// How the server proves that a name is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
}
