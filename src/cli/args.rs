//! The command line. The doc comments are the help texts.

mod doctor;
mod running;
mod top;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use doctor::DOCTOR_EXAMPLES;
pub use doctor::{DoctorArgs, Hidden};
pub use running::{AdminAddressArgs, RefusalsArgs, RunningServerArgs, SessionsArgs};
use running::{REFUSALS_EXAMPLES, SESSIONS_EXAMPLES};
use top::TOP_EXAMPLES;
pub use top::TopArgs;

const EXAMPLES: &str = "\
Examples:
  hallpass serve                            for a first test: prints credentials to try it
  hallpass check --config /etc/hallpass/hallpass.toml --live
  hallpass serve --config /etc/hallpass/hallpass.toml

Exit status: 0 success, 1 failure or difference found, 2 wrong usage.";

const SERVE_EXAMPLES: &str = "\
Signals: HUP reloads the configuration and the certificate, USR2 the certificate alone. TERM refuses new \
allocations and exits when the last one ends, or after drain_seconds. INT and a second TERM exit at once. USR1 refuses \
new allocations and keeps the server running.

Examples:
  hallpass serve
  hallpass serve --config /etc/hallpass/hallpass.toml";

const CHECK_EXAMPLES: &str = "\
Reports each problem with its line and a remedy. With warnings only, the exit status is 0. Run this command on the \
relay itself: it reads the secrets and the certificate, and compares the addresses with those of the machine.

Examples:
  hallpass check --config hallpass.toml
  hallpass check --config hallpass.toml --live      before the first start: are the ports free?";

const CREDENTIALS_EXAMPLES: &str = "\
Examples:
  hallpass credentials --config hallpass.toml --host ping
  hallpass credentials --secret-file /etc/hallpass/ping.secret --server relay.example.org --json
  pass show relay | hallpass credentials --secret-file - --server relay.example.org
  hallpass credentials --config hallpass.toml --ttl 600 --command uclient | sh";

const BBB_XML_EXAMPLES: &str = "\
Install the file on the BigBlueButton host as /etc/bigbluebutton/turn-stun-servers.xml with owner \
root:bigbluebutton and mode 0640, because it contains the secret. Then restart bbb-web.

Examples:
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --host ping
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --verify servers.xml";

const LOAD_EXAMPLES: &str = "\
traffic     packets through allocations, at a fixed rate or with a fixed number in flight (--saturate)
setups      life cycles: challenge (401), Allocate, CreatePermission, ChannelBind, Refresh with lifetime 0
bindings    Binding requests
handshakes  TLS connections
idle        allocations without traffic, to measure the memory per allocation
churn       allocations that are created and ended, to measure the memory that is not returned

The peers are sockets on this machine, so the server must allow this machine as a peer ([peers] allow). All \
allocations belong to one user. A Hallpass server limits one user and one source: to exceed that, set \
allocations_per_user, requests_per_user, unauthenticated_per_source, kbit_per_allocation, packets_per_allocation and \
packets_per_user to 0 in its [limits].

Examples:
  hallpass load traffic --server 127.0.0.1:3479 --secret \"$SECRET\" --server-pid \"$(pidof hallpass)\"
  hallpass load traffic --server relay.example.org:5349 --transport tls --secret-file secret
  hallpass load setups --server 127.0.0.1:3479 --secret \"$SECRET\" --json

Exit status: 0 no error (lost packets are not errors), 1 an error or nothing measured, 2 wrong usage.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  hallpass completions bash >/etc/bash_completion.d/hallpass
  hallpass completions fish >~/.config/fish/completions/hallpass.fish";

const MANUAL_EXAMPLES: &str = "\
Examples:
  hallpass manual serve | man -l -
  hallpass manual --directory /usr/local/share/man/man1";

/// A STUN/TURN relay for calls that cannot connect directly
#[derive(Debug, Parser)]
#[command(name = "hallpass", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Each is implemented in a file of its own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the relay in the foreground
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Check a configuration and report its problems
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// List who is connected to the running server
    #[command(after_help = SESSIONS_EXAMPLES)]
    Sessions(SessionsArgs),
    /// List who was refused by the running server, and why
    #[command(after_help = REFUSALS_EXAMPLES)]
    Refusals(RefusalsArgs),
    /// Watch the running server: traffic, sessions, refusals, limits
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Generate time-limited credentials (TURN REST)
    #[command(after_help = CREDENTIALS_EXAMPLES)]
    Credentials(CredentialsArgs),
    /// Write or verify BigBlueButton's turn-stun-servers.xml
    #[command(after_help = BBB_XML_EXAMPLES)]
    BbbXml(BbbXmlArgs),
    /// Test from this computer whether calls will work through a relay
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Put load on a TURN server and measure it
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Box<LoadArgs>),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print or write the man pages
    #[command(after_help = MANUAL_EXAMPLES)]
    Manual(ManualArgs),
}

/// `hallpass serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Configuration file. Without it, for tests: UDP and TCP port 3479, TLS port 5349, a self-signed certificate and a
    /// new secret at each start
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `hallpass check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Also try to open every listener, and name the process that occupies a port
    #[arg(long)]
    pub live: bool,
}

/// `hallpass credentials`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("source").required(true).args(["config", "secret", "secret_file"])))]
pub struct CredentialsArgs {
    /// Configuration file with the secrets and the listeners
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Shared secret, instead of a configuration file; `ps` shows it to every user of this machine, so prefer
    /// --secret-file
    #[arg(long)]
    pub secret: Option<String>,
    /// File whose first line is the shared secret; - is standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The `[[host]]` whose secret is used, if the configuration has several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["secret", "secret_file"])]
    pub host: Option<String>,
    /// User id in the user name, after the expiry time. If it names a `[[user]]`, that user's fixed password is printed
    #[arg(long, value_name = "NAME", default_value = "hallpass")]
    pub user: String,
    /// Lifetime of the credentials
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: u32,
    /// Name or address of the relay in URLs and commands. Default: external_ip; without it, the listener's own address.
    /// If the listener is on all addresses: the first of `[relay] addresses` that is reachable from outside; without
    /// one, the source address of packets from this machine to the Internet. Without a configuration: 127.0.0.1
    #[arg(long, value_name = "HOST", value_parser = server_name)]
    pub server: Option<String>,
    /// Print JSON with iceServers for RTCPeerConnection
    #[arg(long, conflicts_with = "command")]
    pub json: bool,
    /// Print command lines that test every listener with this tool
    #[arg(long, value_name = "TOOL")]
    pub command: Option<Tool>,
}

/// Programs that `credentials` prints command lines for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// turnutils_uclient, part of coturn
    Uclient,
}

/// `hallpass bbb-xml`.
#[derive(Args, Debug)]
pub struct BbbXmlArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Name under which browsers reach the relay
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub public_name: String,
    /// The `[[host]]` of the BigBlueButton server, if the configuration has several
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Lifetime of the credentials that BigBlueButton issues
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: u32,
    /// Compare this file with the configuration instead of printing a new one
    #[arg(long, value_name = "XMLFILE")]
    pub verify: Option<PathBuf>,
}

/// `hallpass load`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("login").required(true).args(["secret", "secret_file", "username"])))]
pub struct LoadArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = LoadAction::Traffic, hide_possible_values = true)]
    pub action: LoadAction,
    /// Address of the server. A name is resolved once, at the start
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
    /// Transport of the clients
    #[arg(long, value_enum, default_value_t = LoadTransport::Udp)]
    pub transport: LoadTransport,
    /// Shared secret (TURN REST); `ps` shows it to every user of this machine, so prefer --secret-file
    #[arg(long)]
    pub secret: Option<String>,
    /// File whose first line is the shared secret; - is standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// User id in the user name, after the expiry time; only with --secret or --secret-file
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub user: String,
    /// User name of a user with a fixed password
    #[arg(long, value_name = "NAME", requires = "password")]
    pub username: Option<String>,
    /// The password of that user
    #[arg(long, requires = "username")]
    pub password: Option<String>,
    /// Server name for TLS; default: the host of --server
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
    /// Accept any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Process ids of a server on this machine, separated by blanks or commas, to report its CPU time and memory
    #[arg(long, value_name = "PIDS", value_parser = pids)]
    pub server_pid: Vec<Pids>,
    /// Length of the measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// Time with traffic before the measurement starts
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Concurrent allocations; for churn, allocations created in each round
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub allocations: u32,
    /// Packets per second from the client of each allocation; 0 sends none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = rate)]
    pub from_client: f64,
    /// Packets per second from the peer of each allocation; 0 sends none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = rate)]
    pub from_peer: f64,
    /// Bytes of payload in each packet
    #[arg(long, value_name = "BYTES", default_value_t = 160, value_parser = clap::value_parser!(u32).range(24..=65_000))]
    pub size: u32,
    /// Packets sent back to back; the average rate is unchanged
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub burst: u32,
    /// Send the packets of a burst in one system call (UDP_SEGMENT), so that they arrive as if merged by a network card
    #[arg(long)]
    pub trains: bool,
    /// Message type for data between client and server
    #[arg(long, value_enum, default_value_t = LoadVia::Channel)]
    pub via: LoadVia,
    /// Keep --window packets in flight in each direction instead of sending at a fixed rate. A rate of 0 still switches
    /// its direction off; other rates have no effect
    #[arg(long)]
    pub saturate: bool,
    /// Packets in flight in each direction, with --saturate
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// Concurrent life cycles, requests or handshakes
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// Allocations in total, for churn
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub total: u32,
    /// Address of the peers' sockets. Default: the source address of packets to the server
    #[arg(long, value_name = "IP")]
    pub peer_address: Option<IpAddr>,
    /// Open a socket for each UDP client. By default, clients on IPv4 loopback share one socket
    #[arg(long)]
    pub own_sockets: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// The process ids in one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pids(pub Vec<u32>);

/// What `load` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadAction {
    /// Packets through allocations
    Traffic,
    /// Life cycles of allocations
    Setups,
    /// Binding requests
    Bindings,
    /// TLS connections
    Handshakes,
    /// Allocations without traffic
    Idle,
    /// Allocations that are created and ended
    Churn,
}

/// Transport of the clients of `load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadTransport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
    /// TLS
    Tls,
}

/// Message type for the data of `load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadVia {
    /// ChannelData
    Channel,
    /// Send and Data indications, without a channel
    Indication,
}

/// `hallpass completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `hallpass manual`.
#[derive(Args, Debug)]
pub struct ManualArgs {
    /// Command whose page is printed; without it the page of hallpass itself
    pub command: Option<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    pub directory: Option<PathBuf>,
}

/// Parses a host name or an address without a port. Returns IPv6 addresses without brackets.
///
/// # Errors
/// A message for the user if `text` is neither.
fn server_name(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_name = !bare.is_empty()
        && !bare.starts_with('-')
        && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if is_name || bare.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(bare.to_owned())
    } else {
        Err("write a host name or an address, without scheme or port".to_owned())
    }
}

/// Parses process ids as `pidof` and `pgrep -d,` print them.
///
/// # Errors
/// A message for the user if a word is not a number, or if there is none.
fn pids(text: &str) -> Result<Pids, String> {
    let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    let pids: Vec<u32> = words
        .map(|word| word.parse().map_err(|_| format!("{word:?} is not a process id")))
        .collect::<Result<_, _>>()?;
    if pids.is_empty() {
        Err("there is no process id: is the server running on this machine?".to_owned())
    } else {
        Ok(Pids(pids))
    }
}

/// Parses a duration in seconds, up to one day.
///
/// # Errors
/// A message for the user if `text` is not such a number.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Parses the packets per second of one allocation, up to 10 million.
///
/// # Errors
/// A message for the user if `text` is not such a number.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("write a number of packets per second from 0 to 10000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn process_ids_are_accepted_as_pidof_prints_them_and_in_several_options() {
        let parse = |args: &[&str]| {
            let always = ["hallpass", "load", "idle", "--server", "127.0.0.1:3479", "--secret", "s"];
            Cli::try_parse_from(always.iter().chain(args))
        };
        let pids = |args: &[&str]| match parse(args).map(|cli| cli.command) {
            Ok(Command::Load(load)) => {
                load.server_pid.into_iter().flat_map(|pids| pids.0).collect::<Vec<_>>()
            }
            other => panic!("{args:?}: {other:?}"),
        };
        assert_eq!(pids(&[]), [0; 0]);
        assert_eq!(pids(&["--server-pid", "12 7\n"]), [12, 7]);
        assert_eq!(pids(&["--server-pid", "12,7, 3"]), [12, 7, 3]);
        assert_eq!(pids(&["--server-pid", "12", "--server-pid=7 3"]), [12, 7, 3]);
        for (bad, said) in [("", "is the server running"), ("12 x", "\"x\" is not"), ("-1", "\"-1\"")] {
            let error = parse(&[&format!("--server-pid={bad}")]).unwrap_err().to_string();
            assert!(error.contains(said), "{bad:?}: {error}");
        }
    }

    #[test]
    fn server_names_fit_into_a_url() {
        for good in ["relay.example.org", "localhost", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(server_name(good).as_deref(), Ok(good));
        }
        assert_eq!(server_name("[::1]").as_deref(), Ok("::1"));
        for bad in ["", "relay:3478", "turn:relay", "a b", "-e", "a/b", "relay;id", "[relay", "r\u{e9}lais"] {
            assert!(server_name(bad).is_err(), "{bad}");
        }
    }
}
