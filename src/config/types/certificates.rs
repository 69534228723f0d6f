//! Where certificates come from: `[tls]`, `[acme]`, and `[redirect]`, which also answers the authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate chain, the server's own certificate first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// Whether a reload replaces a valid certificate by an expired one.
    pub accept_expired: bool,
    /// Lines of `cert` and `key` in the configuration file, for messages; 0 without a file.
    pub lines: (usize, usize),
}

impl TlsFiles {
    /// Returns the key of the configuration that names `path`, and its line.
    pub fn named(&self, path: &Path) -> (&'static str, usize) {
        match self.key == path && self.cert != path {
            true => ("key", self.lines.1),
            false => ("cert", self.lines.0),
        }
    }
}

/// `[acme]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The names in the certificate, in lower case; at least one. The first one names its directory.
    pub domains: Vec<String>,
    /// Where the authority writes to, as URLs with `mailto:`.
    pub contact: Vec<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// The kind of certificate, from the authority's list; `None` for its default.
    pub profile: Option<String>,
    /// How the server proves that the names are its own, in order of preference; at least one.
    pub challenges: Vec<Challenge>,
    /// The state directory of the server.
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

impl Challenge {
    /// The word in the configuration and in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

impl Acme {
    /// The directory with the account and the certificates.
    pub fn directory_of_state(&self) -> PathBuf {
        self.state.join("acme")
    }
}

/// One address of `[redirect]`.
#[derive(Clone, Copy, Debug)]
pub struct Redirect {
    /// Address to bind; the port is not 0.
    pub address: SocketAddr,
    /// Line of the configuration file, for messages.
    pub line: usize,
}

// The line does not matter: a reload compares the addresses.
impl PartialEq for Redirect {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Eq for Redirect {}
