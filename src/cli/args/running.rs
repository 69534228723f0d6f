//! The commands that ask the running server.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::admin_url::AdminUrl;
use crate::turn::identity::refusal::Reason;

pub const SESSIONS_EXAMPLES: &str = "\
Lists the newest first. A line below a session says what looks wrong, for example that nothing comes back from the peers.

Examples:
  hallpass sessions
  hallpass sessions --host ping --user w_abc
  hallpass sessions --json | jq '.sessions[].client'
  hallpass sessions --admin https://relay.example.org:9641 --token-file admin.token

Exit status: 0 success, 1 the server cannot be asked, 2 wrong usage.";

pub const REFUSALS_EXAMPLES: &str = "\
Lists the latest first: who was refused, why, and what to do next. The server keeps the last 500, of a flood only a \
part; the metric hallpass_refusals_total and hallpass top count all of them. A refusal is listed within a second. \
The first request of every client has no credentials: it is not listed.

Examples:
  hallpass refusals
  hallpass refusals --user w_abc
  hallpass refusals --reason wrong_password --json

Exit status: 0 success, 1 the server cannot be asked, 2 wrong usage.";

pub const CHECKS_EXAMPLES: &str = "\
Lists the latest first. The test page is at /check of a port that is shared with the web. It shows each visitor a code, for \
example K7QF, under which the result is found here. The server keeps results for a day, at most 1,000.

Examples:
  hallpass checks
  hallpass checks K7QF
  hallpass checks --json

Exit status: 0 success, 1 the server cannot be asked, or it has no such result, 2 wrong usage.";

/// Where the running server is.
#[derive(Args, Debug)]
pub struct AdminAddressArgs {
    /// Admin address of the server, or https://NAME:PORT
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9641")]
    pub admin: AdminUrl,
    /// Configuration file to read the admin address, its token and its certificate from
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["admin", "token_file", "ca_file"])]
    pub config: Option<PathBuf>,
    /// File whose first line is the token of the admin address
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate to trust: the server's own, or its authority's; default: this computer's authorities
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The running server, and how its answer is printed.
#[derive(Args, Debug)]
pub struct RunningServerArgs {
    /// The server.
    #[command(flatten)]
    pub address: AdminAddressArgs,
    /// Print the answer of the server as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hallpass sessions`.
#[derive(Args, Debug)]
pub struct SessionsArgs {
    /// Only users whose names contain this
    #[arg(long, value_name = "PART")]
    pub user: Option<String>,
    /// Only users of this `[[host]]`
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: RunningServerArgs,
}

/// `hallpass refusals`.
#[derive(Args, Debug)]
pub struct RefusalsArgs {
    /// Only users whose names contain this
    #[arg(long, value_name = "PART")]
    pub user: Option<String>,
    /// Only users of this `[[host]]`, known once a secret has verified
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only this reason, as in the metric
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(failures()))]
    pub reason: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: RunningServerArgs,
}

/// `hallpass checks`.
#[derive(Args, Debug)]
pub struct ChecksArgs {
    /// The code that the page has shown; without it all results are listed
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
    /// The server.
    #[command(flatten)]
    pub server: RunningServerArgs,
}

/// Returns the reasons of requests that failed.
fn failures() -> Vec<&'static str> {
    Reason::NAMES.iter().copied().filter(|name| !Reason::CONTINUES.contains(name)).collect()
}
