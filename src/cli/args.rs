//! What can be typed. The doc comments are the help texts.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  hallpass serve                                    try it: ports 3479 and 5349, ready-made credentials are printed
  hallpass check --config /etc/hallpass/hallpass.toml --live
  hallpass serve --config /etc/hallpass/hallpass.toml

Exit status: 0 good, 1 bad configuration or difference found, 2 wrong usage.";

const SERVE_EXAMPLES: &str = "\
Signals: HUP reads configuration and certificates again, USR2 the certificates; TERM stops taking new
allocations and ends when the last one is gone, a second TERM ends at once; USR1 drains without ending.

Examples:
  hallpass serve
  hallpass serve --config /etc/hallpass/hallpass.toml";

const CHECK_EXAMPLES: &str = "\
Every problem is told with its line and with what to write instead. Warnings alone leave the exit status at 0.

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
The file belongs on the BigBlueButton host as /etc/bigbluebutton/turn-stun-servers.xml, owner root:bigbluebutton,
mode 0640; restart bbb-web afterwards. It contains the secret.

Examples:
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --host ping
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --verify turn-stun-servers.xml";

const LOAD_EXAMPLES: &str = "\
traffic     packets through allocations, at a rate or (--saturate) as fast as they arrive
setups      life cycles of allocations: 401, Allocate, CreatePermission, ChannelBind, Refresh to 0
bindings    Binding requests
handshakes  TLS connections
idle        allocations that only exist, for the memory that they take
churn       allocations that come and go, for the memory that stays

The peers' sockets are on this machine: the server must be allowed to reach it ([peers] allow). One user has all the
allocations: for a load beyond what a call needs, write 0 for allocations_per_user, requests_per_user,
unauthenticated_per_source, kbit_per_allocation and packets_per_allocation in [limits] of a Hallpass server.

Examples:
  hallpass load traffic --server 127.0.0.1:3479 --secret \"$SECRET\" --server-pid \"$(pidof hallpass)\"
  hallpass load traffic --server relay.example.org:5349 --transport tls --secret-file secret --allocations 20
  hallpass load setups --server 127.0.0.1:3479 --secret \"$SECRET\" --json

Exit status: 0 everything was done, 1 something but packets failed, 2 wrong usage.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  hallpass completions bash >/etc/bash_completion.d/hallpass
  hallpass completions fish >~/.config/fish/completions/hallpass.fish";

const MANUAL_EXAMPLES: &str = "\
Examples:
  hallpass manual serve | man -l -
  hallpass manual --directory /usr/local/share/man/man1";

/// A STUN/TURN relay that gets calls through where nothing else does
#[derive(Debug, Parser)]
#[command(name = "hallpass", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One file each, beside this one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the relay in the foreground
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Read a configuration and say what is wrong with it
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Make time-limited credentials (TURN REST)
    #[command(after_help = CREDENTIALS_EXAMPLES)]
    Credentials(CredentialsArgs),
    /// Write or verify BigBlueButton's turn-stun-servers.xml
    #[command(after_help = BBB_XML_EXAMPLES)]
    BbbXml(BbbXmlArgs),
    /// Put load on a TURN server and measure
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
    /// Configuration file; without it UDP and TCP 3479, TLS 5349, a self-made certificate and a new secret
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `hallpass check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Open every listener for a moment too, and name the process that holds a taken port
    #[arg(long)]
    pub live: bool,
}

/// `hallpass credentials`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("source").required(true).args(["config", "secret", "secret_file"])))]
pub struct CredentialsArgs {
    /// Configuration file with the secrets and listeners
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Shared secret, in place of a configuration file; `ps` shows it to every user of this machine, a file does not
    #[arg(long)]
    pub secret: Option<String>,
    /// File whose first line is the shared secret; - = standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Which `[[host]]` of the configuration, when it has several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["secret", "secret_file"])]
    pub host: Option<String>,
    /// User id behind the expiry; a `[[user]]` of the configuration has its fixed password instead
    #[arg(long, value_name = "NAME", default_value = "hallpass")]
    pub user: String,
    /// How long they are good for
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: u32,
    /// Name or address of the relay in URLs and commands. Without it: external_ip, else the address of the listener, and
    /// for a listener on every address the one that this machine reaches others from; with a secret alone 127.0.0.1
    #[arg(long, value_name = "HOST", value_parser = server_name)]
    pub server: Option<String>,
    /// Print iceServers for RTCPeerConnection
    #[arg(long, conflicts_with = "command")]
    pub json: bool,
    /// Print command lines that try every listener
    #[arg(long, value_name = "TOOL")]
    pub command: Option<Tool>,
}

/// Programs that `credentials` writes command lines for.
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
    /// Name of the relay as browsers know it
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub public_name: String,
    /// Which `[[host]]` the BigBlueButton server is, when there are several
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// How long credentials are good for
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: u32,
    /// Compare this file with the configuration in place of writing one
    #[arg(long, value_name = "XMLFILE")]
    pub verify: Option<PathBuf>,
}

/// `hallpass load`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("login").required(true).args(["secret", "secret_file", "username"])))]
pub struct LoadArgs {
    /// What to do
    #[arg(value_enum, default_value_t = LoadAction::Traffic, hide_possible_values = true)]
    pub action: LoadAction,
    /// The server; a name is looked up once
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
    /// How clients reach it
    #[arg(long, value_enum, default_value_t = LoadTransport::Udp)]
    pub transport: LoadTransport,
    /// Shared secret (TURN REST); `ps` shows it to every user of this machine, a file does not
    #[arg(long)]
    pub secret: Option<String>,
    /// File whose first line is the shared secret; - = standard input
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// User id behind the expiry, with a secret
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub user: String,
    /// User name, with a fixed password
    #[arg(long, value_name = "NAME", requires = "password")]
    pub username: Option<String>,
    /// The password of that user
    #[arg(long, requires = "username")]
    pub password: Option<String>,
    /// Name that TLS asks for; without it the host of --server
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
    /// Take any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Processes of the server on this machine, separated by blanks or commas: their CPU time and memory are reported
    #[arg(long, value_name = "PIDS", value_parser = pids)]
    pub server_pid: Vec<Pids>,
    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// How long packets flow before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Allocations at once; of churn, in each round
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub allocations: u32,
    /// Packets per second and allocation from the client; 0 = none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = rate)]
    pub from_client: f64,
    /// Packets per second and allocation from the peer; 0 = none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = rate)]
    pub from_peer: f64,
    /// Bytes of payload
    #[arg(long, value_name = "BYTES", default_value_t = 160, value_parser = clap::value_parser!(u32).range(24..=65_000))]
    pub size: u32,
    /// Packets sent back to back; the mean rate stays
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub burst: u32,
    /// The packets of a burst leave as one (UDP_SEGMENT), as a network card that coalesces hands them on
    #[arg(long)]
    pub trains: bool,
    /// How data travels between client and server
    #[arg(long, value_enum, default_value_t = LoadVia::Channel)]
    pub via: LoadVia,
    /// Each packet that arrives allows the next; rates only say which directions are used
    #[arg(long)]
    pub saturate: bool,
    /// Packets on their way at once in each direction, with --saturate
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// Cycles, requests or handshakes at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// Allocations in all, for churn
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub total: u32,
    /// Where the peers' sockets are bound; without it the address that packets to the server leave from
    #[arg(long, value_name = "IP")]
    pub peer_address: Option<IpAddr>,
    /// A socket for every UDP client, also on loopback
    #[arg(long)]
    pub own_sockets: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Processes as one argument names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pids(pub Vec<u32>);

/// What `load` does.
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
    /// Allocations that only exist
    Idle,
    /// Allocations that come and go
    Churn,
}

/// How `load` reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadTransport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
    /// TLS
    Tls,
}

/// How the data of `load` travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadVia {
    /// ChannelData
    Channel,
    /// Send and Data indications, no channel bound
    Indication,
}

/// `hallpass completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// `hallpass manual`.
#[derive(Args, Debug)]
pub struct ManualArgs {
    /// Command whose page is printed; without it the page of the program
    pub command: Option<String>,
    /// Write every page into this directory, under its name
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    pub directory: Option<PathBuf>,
}

/// A host name or address, as it may stand in a URL before the port. IPv6 addresses gain their brackets later.
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

/// At least one process, as `pidof` and `pgrep -d,` print them.
fn pids(text: &str) -> Result<Pids, String> {
    let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    let pids: Vec<u32> = words
        .map(|word| word.parse().map_err(|_| format!("{word:?} is not the number of a process")))
        .collect::<Result<_, _>>()?;
    if pids.is_empty() {
        Err("no process is named: is the server running on this machine?".to_owned())
    } else {
        Ok(Pids(pids))
    }
}

/// Seconds of a run: up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds, from 0 to 86400".to_owned()),
    }
}

/// Packets per second of one allocation.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("write packets per second, from 0 to 10000000".to_owned()),
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
    fn processes_are_named_as_pidof_prints_them_and_more_than_once() {
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
