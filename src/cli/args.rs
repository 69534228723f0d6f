//! The command line. The doc comments are the help texts.

mod bbb_xml;
mod control;
mod doctor;
mod import;
mod lesson;
mod load;
mod number;
mod running;
mod server_name;
mod top;

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use bbb_xml::BBB_XML_EXAMPLES;
pub use bbb_xml::{BBB_USER, BBB_XML_TTL, BbbXmlArgs};
pub use control::{ControlArgs, DrainArgs, ReloadArgs};
use control::{DRAIN_EXAMPLES, RELOAD_EXAMPLES};
use doctor::DOCTOR_EXAMPLES;
pub use doctor::{DoctorArgs, Hidden, RelayArgs};
use import::IMPORT_EXAMPLES;
pub use import::ImportArgs;
pub use lesson::LessonArgs;
use load::LOAD_EXAMPLES;
pub use load::{LoadAction, LoadArgs, LoadTransport, LoadVia};
pub use running::{AdminAddressArgs, ChecksArgs, RefusalsArgs, RunningServerArgs, SessionsArgs};
use running::{CHECKS_EXAMPLES, REFUSALS_EXAMPLES, SESSIONS_EXAMPLES};
pub use server_name::server_name;
use top::TOP_EXAMPLES;
pub use top::TopArgs;

use crate::config::SERVICE_FILE;

const EXAMPLES: &str = "\
Examples:
  hallpass serve                            for a first test: prints credentials to try it
  hallpass check --config /etc/hallpass/hallpass.toml --live
  hallpass serve --config /etc/hallpass/hallpass.toml

Exit status: 0 success, 1 failure or difference found, 2 wrong usage.";

const SERVE_EXAMPLES: &str = "\
Signals: HUP reloads the configuration and the certificate, USR2 the certificate alone. TERM and INT end every session, tell \
the clients and exit, within half a second; with [drain], newcomers are sent to the other relays for two seconds first. A \
second one exits at once. USR1 drains: new users are refused, those with an allocation are served, and the server keeps \
running.

Examples:
  hallpass serve
  hallpass serve --config /etc/hallpass/hallpass.toml
  hallpass serve --coturn-config /etc/turnserver.conf";

const CHECK_EXAMPLES: &str = "\
Reports each problem with its line and a remedy. With warnings only, the exit status is 0. Run this command on the \
relay itself: it reads the secrets and the certificate, and compares the addresses with those of the machine.

Examples:
  hallpass check
  hallpass check --config hallpass.toml
  hallpass check --config hallpass.toml --live      before the first start: are the ports free?";

const CREDENTIALS_EXAMPLES: &str = "\
Examples:
  hallpass credentials --config hallpass.toml --host ping
  hallpass credentials --secret-file /etc/hallpass/ping.secret --server relay.example.org --json
  pass show relay | hallpass credentials --secret-file - --server relay.example.org
  hallpass credentials --config hallpass.toml --ttl 600 --command uclient | sh";

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
    /// List what visitors of the test page found
    #[command(after_help = CHECKS_EXAMPLES)]
    Checks(ChecksArgs),
    /// Apply a changed configuration to the running server
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(ReloadArgs),
    /// Wait for running calls before a restart; refuse new users meanwhile
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Watch the running server: traffic, sessions, refusals, limits
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Generate time-limited credentials (TURN REST)
    #[command(after_help = CREDENTIALS_EXAMPLES)]
    Credentials(CredentialsArgs),
    /// Write or verify BigBlueButton's turn-stun-servers.xml
    #[command(after_help = BBB_XML_EXAMPLES)]
    BbbXml(BbbXmlArgs),
    /// Turn a configuration of coturn into one of Hallpass
    #[command(after_help = IMPORT_EXAMPLES)]
    ImportCoturn(ImportArgs),
    /// Find out why calls fail: on the relay itself, or from a client's network
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
    /// Configuration file of coturn, imported at the start and at each reload; see hallpass import-coturn
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub coturn_config: Option<PathBuf>,
}

/// `hallpass check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", default_value = SERVICE_FILE)]
    pub config: PathBuf,
    /// Also try to open every listener, and name the process that occupies a port
    #[arg(long)]
    pub live: bool,
}

/// `hallpass credentials`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("source").args(["config", "secret", "secret_file"])))]
pub struct CredentialsArgs {
    /// Configuration file with the secrets and the listeners. Default without a secret: /etc/hallpass/hallpass.toml
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
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = number::lifetime)]
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
    /// hallpass doctor: one line to send to the administrator of a school's network, without the secret
    Doctor,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
