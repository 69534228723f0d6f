//! `hallpass load`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::lesson::LessonArgs;
use super::number;

pub const LOAD_EXAMPLES: &str = "\
traffic     packets through allocations, at a fixed rate or with a fixed number in flight (--saturate)
setups      life cycles: challenge (401), Allocate, CreatePermission, ChannelBind, Refresh with lifetime 0
bindings    Binding requests
handshakes  TLS connections
idle        allocations without traffic, to measure the memory per allocation
churn       allocations that are created and ended, to measure the memory that is not returned
lesson      how many pupils the server carries: talk, cameras, a shared screen, pupils who leave and come back

The peers are sockets on this machine, so the server must allow this machine as a peer ([peers] allow).

In a lesson each participant has a user name of its own. With --ramp, the number of pupils is raised until a bound is broken, \
and the last good number is measured again. The output names a limit of the server if one stopped the test, and this \
machine if it was too slow. Run it on another machine than the relay for figures that you plan with.

For all other actions, all allocations belong to one user. A Hallpass server limits one user and one source: to exceed that, \
set allocations_per_user, requests_per_user, unauthenticated_per_source, kbit_per_allocation, packets_per_allocation and \
packets_per_user to 0 in its [limits].

Examples:
  hallpass load lesson --pupils 30 --server relay.example.org:3479 --secret-file secret
  hallpass load lesson --pupils 30 --ramp --mix udp=80,tls=20 --server relay.example.org:3479 --tls-server \
relay.example.org:443 --secret-file secret --report lesson.html
  hallpass load traffic --server 127.0.0.1:3479 --secret \"$SECRET\" --server-pid \"$(pidof hallpass)\"
  hallpass load traffic --server relay.example.org:5349 --transport tls --secret-file secret
  hallpass load setups --server 127.0.0.1:3479 --secret \"$SECRET\" --json

Exit status: 0 no error (lost packets are errors only in lesson), 1 an error or no answer, 2 wrong usage.";

/// `hallpass load`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("login").required(true).args(["secret", "secret_file", "username"])))]
pub struct LoadArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = LoadAction::Traffic, hide_possible_values = true)]
    pub action: LoadAction,
    /// The same as the action lesson
    #[arg(long, value_enum, conflicts_with = "action")]
    pub scenario: Option<LoadScenario>,
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
    /// User id in the user name, after the expiry time; only with --secret or --secret-file. In lesson a number follows
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
    /// Length of the measurement; in lesson, of each
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = number::seconds)]
    pub duration: f64,
    /// Time with traffic before the measurement starts
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = number::seconds)]
    pub warm_up: f64,
    /// Concurrent allocations; for churn, allocations created in each round
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub allocations: u32,
    /// Packets per second from the client of each allocation; 0 sends none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = number::rate)]
    pub from_client: f64,
    /// Packets per second from the peer of each allocation; 0 sends none
    #[arg(long, value_name = "PPS", default_value_t = 25.0, value_parser = number::rate)]
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
    /// The options of lesson.
    #[command(flatten)]
    pub lesson: LessonArgs,
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
    /// Pupils in lessons
    Lesson,
}

/// Scenarios of `load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadScenario {
    /// Pupils in lessons
    Lesson,
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

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
}
