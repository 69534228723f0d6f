//! `hallpass import-coturn`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// The help text after the options.
pub const IMPORT_EXAMPLES: &str = "\
Reads what coturn 4.6 reads, mistakes included, and prints a configuration for Hallpass. The report on standard error has \
a line for every line and argument: kept, kept differently, without effect here, not offered, or refused, each with its \
reason and, where the meaning changes, what to write. The report never shows a secret. A refused line is left out. If the \
result would serve everybody or nobody, or if coturn would not start, nothing is written.

Arguments after -- are those of turnserver, for example from ExecStart or from a compose file; they win over the file. With \
-c among them and without FILE, the file is the one of -c; with -n, coturn reads no file. FILE may also contain a command \
line. Variables of a shell are not replaced.

Examples:
  hallpass import-coturn /etc/turnserver.conf --output /etc/hallpass/hallpass.toml
  hallpass import-coturn /etc/turnserver.conf >/dev/null       the report alone
  hallpass import-coturn turnserver.conf --json 2>&1 >/dev/null | jq '.lines[] | select(.status != \"kept\")'
  hallpass import-coturn -- -n -a -u alice:password -r relay.example.org --no-tls
  hallpass serve --coturn-config /etc/turnserver.conf          without a new file

Exit status: 0 imported, 1 refused and nothing written, 2 wrong usage.";

/// `hallpass import-coturn`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// File of coturn, or - for standard input. Default: the one of -c in ARGUMENTS, else /etc/turnserver.conf
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Arguments of turnserver, with or without its name
    #[arg(value_name = "ARGUMENTS", last = true)]
    pub arguments: Vec<OsString>,
    /// Write the configuration to this file instead of standard output, with mode 0600; in place of a file, with its owner and
    /// mode
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file of --output if it exists
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print a line for every comment and blank line on a terminal, too, where neighbouring ones are one line otherwise
    #[arg(long)]
    pub all: bool,
    /// Also listen on the ports of NAT discovery (3479 and 5350, unless alt-listening-port says otherwise), on which coturn
    /// serves clients without being told
    #[arg(long)]
    pub alternative_ports: bool,
}
