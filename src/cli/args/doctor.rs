//! `hallpass doctor`.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::doctor::url::TurnUrl;

pub const DOCTOR_EXAMPLES: &str = "\
Run this command where calls fail: on a computer in the same network. It tries UDP, TCP and TLS at the same time, \
directly and through the web proxy, each up to data between two allocations of its own, and ends in less than 20 seconds. \
It works with any TURN server. The report says in plain words whether calls will work, and ends with a text for the \
administrator who can help.

A URL without a port stands for the usual ports: 3478 and 3479 for UDP and TCP, 443 and 5349 for TLS. Transports that no \
URL names are tried on their usual ports, too. Without --proxy, the proxy is taken from HTTPS_PROXY or ALL_PROXY, unless \
NO_PROXY lists the relay. SSL_CERT_FILE names a file with the trusted authorities instead of the system's.

Examples:
  hallpass doctor turns:relay.example.org:443 --secret-file relay.secret
  hallpass doctor turn:relay.example.org turns:relay.example.org --credentials \"$USER_NAME:$PASSWORD\" --markdown
  hallpass doctor turn:relay.example.org --secret-file - --proxy http://proxy.school.example:3128 --json

Exit status: 0 calls will work, 1 calls will not work, 2 wrong usage.";

/// `hallpass doctor`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("login").required(true).args(["secret_file", "credentials"])))]
pub struct DoctorArgs {
    /// TURN URLs of the relay, as browsers get them: turn:HOST, turn:HOST:PORT?transport=tcp or turns:HOST:PORT
    #[arg(value_name = "URL", required = true, num_args = 1..=16)]
    pub urls: Vec<TurnUrl>,
    /// File whose first line is the shared secret (TURN REST); - is standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// User name and password; `ps` shows them to every user of this machine, so prefer time-limited ones
    #[arg(long, value_name = "USER:PASS")]
    pub credentials: Option<Hidden>,
    /// HTTP proxy to try as well, for TCP and TLS: `http://HOST:PORT`, with USER:PASS@ before the host if it asks for a login
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Hidden>,
    /// Do not try a proxy, not even that of the environment
    #[arg(long, conflicts_with = "proxy")]
    pub no_proxy: bool,
    /// Try only what a browser with these URLs uses: no other usual ports and transports
    #[arg(long)]
    pub exact: bool,
    /// Print the report as one JSON object
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the report as Markdown, for a ticket
    #[arg(long)]
    pub markdown: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// An argument that may hold a password: clap would print a value that it cannot parse.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}
