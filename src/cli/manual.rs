//! `hallpass manual`: one man page for all commands.

use std::io;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::Cli;

/// Prints the page.
pub(super) fn run() -> ExitCode {
    match page() {
        Ok(page) => super::print(&page),
        Err(error) => super::fail(&format!("cannot write the man page: {error}"), "report this as a bug"),
    }
}

fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    // Fills in what is only known of the whole: full names of subcommands and their usage.
    command.build();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page.extend_from_slice(section(sub)?.as_bytes());
    }
    Ok(page)
}

/// A subcommand as a section; its own sections become subsections.
fn section(sub: &Command) -> io::Result<String> {
    let man = Man::new(sub.clone());
    let mut body = Vec::new();
    man.render_synopsis_section(&mut body)?;
    man.render_description_section(&mut body)?;
    man.render_options_section(&mut body)?;
    man.render_extra_section(&mut body)?;
    let body = String::from_utf8_lossy(&body).replace("\n.SH ", "\n.SS ");
    let body = body.strip_prefix(".SH ").map_or(body.clone(), |rest| format!(".SS {rest}"));
    Ok(format!(".SH \"HALLPASS {}\"\n{body}", sub.get_name().to_uppercase()))
}
