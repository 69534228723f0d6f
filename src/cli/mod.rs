//! The command line, one file per command.
#![forbid(unsafe_code)]

mod admin_url;
pub mod args;
mod bbb_xml;
mod certificate;
mod check;
mod checks;
mod control;
mod credentials;
mod doctor;
mod drain;
mod endpoints;
mod import_coturn;
mod live;
mod load;
mod loaded;
mod manual;
mod output;
mod progress_line;
mod refusals;
mod reload;
mod running;
mod serve;
mod sessions;
mod table;
mod this_host;
mod top;
mod wanted_names;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};

/// Parses the command line and runs the command. `stdout_is_closed`: what commands print would be lost, so they fail.
pub fn run(stdout_is_closed: bool) -> ExitCode {
    output::set_closed(stdout_is_closed);
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Sessions(args) => sessions::run(&args),
        Command::Refusals(args) => refusals::run(&args),
        Command::Checks(args) => checks::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Credentials(args) => credentials::run(args),
        Command::BbbXml(args) => bbb_xml::run(args),
        Command::ImportCoturn(args) => import_coturn::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Load(args) => load::run(&args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "hallpass", &mut script);
            output::print(&script)
        }
        Command::Manual(args) => manual::run(args),
    }
}
