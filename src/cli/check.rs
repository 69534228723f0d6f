//! `hallpass check`: reports problems of a configuration, and of this host with --live.

mod plan;
mod service;

use std::fmt::Write;
use std::process::ExitCode;

use super::args::CheckArgs;
use super::live::{Attempt, try_addresses};
use super::loaded::{self, Difference, Unknown};
use super::output::{counted, fail, print_hanging, print_stderr_fitting};
use super::serve::kernel;
use super::wanted_names::WantedNames;
use super::{certificate, this_host};
use crate::base::text::clean;
use crate::config::{self, Config, Examined, Report, Severity};
use crate::system::addresses::{self, Addresses};

/// Checks the configuration and prints what the server will do, or all problems.
pub(super) fn run(args: CheckArgs) -> ExitCode {
    let Examined { report, config, secret_files } = config::examine(&args.config);
    let mut found = Found::default();
    found.report(&report);
    if let Some(config) = &config {
        found.report(&service::check(&args.config, config, secret_files));
    }
    let Some(config) = config else { return found.fail(&report.file) };
    let certificate = certificate::examine(&config);
    for (severity, line) in certificate.lines(&report.file) {
        found.add(severity, &line);
    }
    if let Some(warning) = other_name(&config, &certificate, &report.file) {
        found.add(Severity::Warning, &warning);
    }
    let mut known = None;
    // A configuration with errors has defaults in place of the wrong values: comparing it with this machine would mislead.
    if !report.has_errors() {
        let machine = machine(&report.file, &mut found);
        found.report(&this_host::in_full(&config, &machine, &report.file));
        found.report(&kernel::check(&config, &report.file));
        if args.live {
            found.live = live(&config, &report.file, &machine);
            print_stderr_fitting(&found.live.problems.concat());
        }
        known = Some(machine);
    }
    if found.errors + found.live.problems.len() > 0 {
        return found.fail(&report.file);
    }
    let mut text = plan::text(&config, &known.unwrap_or_default(), certificate.name().as_deref());
    if let Some(pid) = found.live.running {
        let _ = writeln!(
            text,
            "running   hallpass (pid {pid}) already serves {} of these addresses",
            found.live.served
        );
        running(&mut text, loaded::difference(&config, &args.config));
    }
    let verdict = match found.warnings {
        0 => "good".to_owned(),
        count => format!("good, with {}", counted(count, "warning")),
    };
    // Writing to a String cannot fail.
    let _ = match certificate.expired() {
        Some(cert) => writeln!(
            text,
            "{}: the server starts with it, but {} HAS EXPIRED: browsers refuse turns: URLs, after a restart at the latest. Renew it \
             first ({})",
            report.file,
            cert.display(),
            counted(found.warnings, "warning")
        ),
        None => writeln!(text, "{}: {verdict}", report.file),
    };
    print_hanging(&text, TEXT_COLUMN)
}

/// A certificate that lacks a name of the configuration.
fn other_name(config: &Config, certificate: &certificate::Examined, file: &str) -> Option<String> {
    let names = certificate.served_names();
    let wanted = WantedNames::of(config);
    let missing = wanted.missing(&names)?;
    let names = clean(&names.join(", "), NAMES_MAX);
    Some(format!(
        "{file}: warning: the certificate is for {names}, not for {missing}: browsers refuse turns: URLs with {missing}\n    \
         name the certificate of {missing}; if clients use another name, write that one as realm\n"
    ))
}

/// The column where the lines of the plan have their text.
const TEXT_COLUMN: usize = 10;

/// Longest list of names in a certificate, in characters.
const NAMES_MAX: usize = 200;

/// Prints problems and counts them.
#[derive(Default)]
struct Found {
    errors: usize,
    warnings: usize,
    live: Live,
}

impl Found {
    fn add(&mut self, severity: Severity, text: &str) {
        print_stderr_fitting(text);
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
    }

    fn report(&mut self, report: &Report) {
        report.texts().for_each(|(severity, text)| self.add(severity, &text));
    }

    /// Prints the counts, and returns the exit status of a failure.
    fn fail(&self, file: &str) -> ExitCode {
        let live = self.live.problems.len();
        let on_this_host = format!("{} on this host", counted(live, "problem"));
        match (self.errors, live) {
            (0, _) => fail(&format!("{file}: {on_this_host}"), "fix the problems above and check again"),
            (errors, live) => {
                let also = if live == 0 { String::new() } else { format!(", and {on_this_host}") };
                let errors = counted(errors, "error");
                fail(&format!("{file}: {errors}{also}"), "fix the lines above and check again")
            }
        }
    }
}

/// Returns the addresses of this machine. If they cannot be listed, adds a warning and returns none.
fn machine(file: &str, found: &mut Found) -> Addresses {
    addresses::read().unwrap_or_else(|error| {
        let message =
            format!("cannot list this machine's addresses ({error}), so the configured ones are not checked");
        let mut report = Report { file: file.to_owned(), problems: Vec::new() };
        report.add(Severity::Warning, "", message, "run this check as root on the relay itself");
        found.report(&report);
        Addresses::default()
    })
}

/// What opening the sockets showed.
#[derive(Default)]
struct Live {
    /// What is wrong, with remedies.
    problems: Vec<String>,
    /// The running server that occupies addresses of the configuration, and how many.
    running: Option<u32>,
    served: usize,
}

/// Opens and closes a socket on every address that this machine has.
fn live(config: &Config, file: &str, machine: &Addresses) -> Live {
    let mut live = Live::default();
    for tried in try_addresses(config, machine) {
        match &tried.attempt {
            Attempt::Free => {}
            Attempt::Served { pid } => {
                live.running = Some(*pid);
                live.served += 1;
            }
            Attempt::Failed { error, .. } => {
                let line = tried.line.map_or_else(String::new, |line| format!(":{line}"));
                let (what, remedy) = (&tried.what, tried.remedy());
                live.problems.push(format!("{file}{line}: error: {what}: {error}\n    {remedy}\n"));
            }
        }
    }
    live
}

/// What the running server would do with the file.
fn running(text: &mut String, compared: Result<Difference, Unknown>) {
    // Writing to a String cannot fail.
    let _ = match compared {
        Ok(difference) if difference == Difference::default() => Ok(()),
        Ok(difference) => {
            for change in &difference.changes {
                let _ = writeln!(text, "running   not loaded yet: {change}");
            }
            writeln!(text, "running   {}", difference.next_step())
        }
        Err(Unknown::OtherFile(Some(file))) => {
            writeln!(
                text,
                "running   it uses {}, not this file",
                clean(&file.display().to_string(), NAMES_MAX)
            )
        }
        Err(Unknown::OtherFile(None)) => writeln!(text, "running   it uses no configuration file"),
        Err(Unknown::Silent) => {
            writeln!(text, "running   it does not answer on its control socket: hallpass doctor says more")
        }
        Err(Unknown::NoAnswer(error)) => writeln!(text, "running   not compared with this file: {error}"),
    };
}
