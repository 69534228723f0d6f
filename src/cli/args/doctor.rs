//! `hallpass doctor`.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::server_name::server_name;
use crate::base::turn_url::TurnUrl;
use crate::config::SERVICE_FILE;
use crate::doctor::time_source::TimeSource;

pub const DOCTOR_EXAMPLES: &str = "\
With URLs: run this command where calls fail, on a computer in the same network. It tries UDP, TCP and TLS at the same \
time, directly and through the web proxy, each up to data between two allocations of its own, and ends in less than 20 \
seconds. It works with any TURN server. The report says in plain words whether calls will work, and ends with a text for \
the administrator who can help. The server's secret stays on the relay: `hallpass credentials --command doctor` prints this \
command with a login for a day, to send to another network.

Without a URL: run this command on the relay itself, as root. It examines the configuration, files as the service's user \
sees them, ports, addresses, certificate, firewall, limits, clock, web servers and BigBlueButton's file, and sends data \
through each listener of the running server, with the secrets of the configuration. The server keeps running. Nothing is \
asked of other machines but the addresses of names, unless --clock names one.

A URL without a port stands for the usual ports: 3478 and 3479 for UDP and TCP, 443 and 5349 for TLS. Transports that no \
URL names are tried on their usual ports, too. Without --proxy, the proxy is taken from HTTPS_PROXY or ALL_PROXY, unless \
NO_PROXY lists the relay. SSL_CERT_FILE names a file with the trusted authorities instead of the system's.

Examples:
  hallpass doctor --public-name relay.example.org --clock http://bbb.example.org
  hallpass doctor --public-name relay.example.org --bbb-xml /etc/bigbluebutton/turn-stun-servers.xml
  hallpass doctor turn:relay.example.org turns:relay.example.org --credentials \"$USER_NAME:$PASSWORD\" --markdown
  hallpass doctor turn:relay.example.org --secret-file - --proxy http://proxy.school.example:3128 --json

Exit status: 0 calls will work, 1 calls will not work or not for all clients, 2 wrong usage.";

/// `hallpass doctor`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("login").args(["secret_file", "credentials"]).requires("urls")))]
pub struct DoctorArgs {
    /// TURN URLs of the relay, as browsers get them: turn:HOST, turn:HOST:PORT?transport=tcp or turns:HOST:PORT. Without one,
    /// this machine is examined as the relay
    #[arg(value_name = "URL", num_args = 0..=16, requires = "login")]
    pub urls: Vec<TurnUrl>,
    /// File whose first line is the shared secret (TURN REST); - is standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// User name and password; `ps` shows them to every user of this machine, so prefer time-limited ones
    #[arg(long, value_name = "USER:PASS")]
    pub credentials: Option<Hidden>,
    /// HTTP proxy to try as well, for TCP and TLS: `http://HOST:PORT`, with USER:PASS@ before the host if it asks for a login
    #[arg(long, value_name = "URL", requires = "urls")]
    pub proxy: Option<Hidden>,
    /// Do not try a proxy, not even that of the environment
    #[arg(long, conflicts_with = "proxy", requires = "urls")]
    pub no_proxy: bool,
    /// Try only what a browser with these URLs uses: no other usual ports and transports
    #[arg(long, requires = "urls")]
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
    /// What to examine on the relay itself
    #[command(flatten)]
    pub relay: RelayArgs,
}

/// The arguments of `hallpass doctor` on the relay itself.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options on the relay itself")]
pub struct RelayArgs {
    /// Configuration file
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = SERVICE_FILE,
        conflicts_with = "urls"
    )]
    pub config: PathBuf,
    /// Name under which browsers reach the relay; the certificate must have it
    #[arg(long, value_name = "NAME", value_parser = server_name, conflicts_with = "urls")]
    pub public_name: Option<String>,
    /// BigBlueButton's list of servers, to compare with the configuration. Default: the one of BigBlueButton on this machine
    #[arg(long, value_name = "FILE", conflicts_with = "urls")]
    pub bbb_xml: Option<PathBuf>,
    /// Name or address of another relay that BigBlueButton's list must have; may be repeated
    #[arg(long, value_name = "NAME", value_parser = server_name, conflicts_with = "urls")]
    pub other_relay: Vec<String>,
    /// User that runs the relay. Default: the one of the running server, else hallpass
    #[arg(long, value_name = "NAME", conflicts_with = "urls")]
    pub user: Option<String>,
    /// User that runs bbb-web
    #[arg(long, value_name = "NAME", default_value = super::BBB_USER, conflicts_with = "urls")]
    pub bbb_user: String,
    /// Leave out the ports and listeners: for the time before the first start, while coturn has the ports
    #[arg(long, conflicts_with = "urls")]
    pub before_start: bool,
    /// Machine whose clock is compared with this one's, for example the BigBlueButton server: `http://HOST` or `ntp://HOST`
    #[arg(long, value_name = "URL", conflicts_with = "urls")]
    pub clock: Option<TimeSource>,
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
