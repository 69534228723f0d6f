//! What can be typed. The doc comments are the help texts.

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
  hallpass credentials --secret \"$SECRET\" --server relay.example.org --json
  hallpass credentials --config hallpass.toml --ttl 600 --command uclient | sh";

const BBB_XML_EXAMPLES: &str = "\
The file belongs on the BigBlueButton host as /etc/bigbluebutton/turn-stun-servers.xml, owner root:bigbluebutton,
mode 0640; restart bbb-web afterwards. It contains the secret.

Examples:
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --host ping
  hallpass bbb-xml --config hallpass.toml --public-name relay.example.org --verify turn-stun-servers.xml";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  hallpass completions bash >/etc/bash_completion.d/hallpass
  hallpass completions fish >~/.config/fish/completions/hallpass.fish";

const MANUAL_EXAMPLES: &str = "\
Examples:
  hallpass manual | man -l -
  hallpass manual >/usr/local/share/man/man1/hallpass.1";

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
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the man page
    #[command(after_help = MANUAL_EXAMPLES)]
    Manual,
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
#[command(group(ArgGroup::new("source").required(true).args(["config", "secret"])))]
pub struct CredentialsArgs {
    /// Configuration file with the secrets and listeners
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Shared secret, in place of a configuration file
    #[arg(long)]
    pub secret: Option<String>,
    /// Which `[[host]]` of the configuration, when it has several
    #[arg(long, value_name = "NAME", conflicts_with = "secret")]
    pub host: Option<String>,
    /// User id behind the expiry; a `[[user]]` of the configuration has its fixed password instead
    #[arg(long, value_name = "NAME", default_value = "hallpass")]
    pub user: String,
    /// How long they are good for
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl: u32,
    /// Name or address of the relay in URLs and commands; without it the configured addresses
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

/// `hallpass completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
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
