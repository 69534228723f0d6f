//! `hallpass doctor` on the relay itself: compares the configuration with this machine and tries every listener of the
//! running server.
//!
//! What can be read is read first ([`Site`]). That decides what is tried over sockets, by [`inspect`]. Each subject has a
//! module, which judges what was read and seen as a [`Check`].

mod addresses;
mod bigbluebutton;
mod bigbluebutton_file;
mod certificate;
mod clock;
mod files;
mod firewall;
mod limits;
mod listeners;
mod names;
mod ports;
mod routes;
mod site;
mod web;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::bigbluebutton_file::Xml;
use self::site::{Site, problems, untested};
use crate::cli::args::RelayArgs;
use crate::cli::live::try_addresses;
use crate::cli::loaded::{self, Difference, Unknown};
use crate::cli::output::counted;
use crate::cli::serve::relays::Relays;
use crate::cli::{certificate as files_of_tls, this_host};
use crate::config::{self, Examined, Severity};
use crate::doctor::Progress;
use crate::doctor::check::{Check, NOT_LOADED, PREVIOUS, conclude};
use crate::doctor::finding::Finding;
use crate::doctor::inspection::{Inspection, Seen, inspect};
use crate::doctor::outcome::Outcome;
use crate::doctor::report::{Relay, Report};
use crate::system::addresses::{self as machine_addresses, Addresses};
use crate::system::clock as system_clock;
use crate::system::port_holder::{PROGRAM, PortSpace, who_holds};

/// The code of the finding that the running server uses another file.
const OTHER_FILE: &str = "other_file";
/// The admin address without one in the configuration.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);

/// Examines the relay on this machine. Takes less than 20 s.
///
/// # Errors
/// The runtime cannot be started.
pub(super) fn examine(args: &RelayArgs, progress: &mut dyn Progress) -> io::Result<Report> {
    let examined = config::examine(&args.config);
    let file = examined.report.file.clone();
    let mut checks = vec![configuration(&examined)];
    let has_errors = examined.report.has_errors();
    let nothing = || Seen { begun: system_clock::unix_seconds(), ..Seen::default() };
    let Some(config) = examined.config else {
        checks[0].findings.extend(previous(&examined.report, None));
        return Ok(report(file, checks, Vec::new(), nothing()));
    };
    let certificate = files_of_tls::examine(&config);
    let xml = Xml::find(args);
    let mut site = Site {
        args,
        config,
        machine: Addresses::default(),
        relays: Vec::new(),
        tried: Vec::new(),
        certificate,
        xml,
        not_loaded: Difference::default(),
        hangs: false,
    };
    if has_errors {
        // There are defaults in place of the wrong values: to compare them with this machine would mislead. But its ports show
        // whether a server is running.
        site.machine = machine_addresses::read().unwrap_or_default();
        site.tried = try_addresses(&site.config, &site.machine);
        checks[0].findings.extend(previous(&examined.report, site.running()));
        checks.push(files::check(&site, &examined.secret_files));
        checks.push(certificate::check(&site, &nothing()));
        return Ok(report(file, checks, Vec::new(), nothing()));
    }
    let mut incomplete = None;
    match machine_addresses::read() {
        Ok(machine) => site.machine = machine,
        Err(error) => incomplete = Some(error),
    }
    site.relays = Relays::new(&site.config, &site.machine).addresses();
    site.relays.retain(|relay| !relay.only_local);
    if !args.before_start {
        site.tried = try_addresses(&site.config, &site.machine);
        let compared = loaded::difference(&site.config, &args.config);
        checks[0].findings.extend(not_loaded(&compared, site.running(), &file));
        site.hangs = compared == Err(Unknown::Silent);
        site.not_loaded = compared.unwrap_or_default();
    }

    let mut inspection = Inspection {
        names: names::wanted(&site),
        web: web::servers(&site),
        time_source: args.clock.clone(),
        ..Inspection::default()
    };
    listeners::plan(&site, &mut inspection);
    let mut seen = inspect(&inspection, progress)?;
    let mut strict = None;
    if let Some(again) = listeners::over_loopback(&site, &inspection, &seen) {
        let mut second = inspect(&again, progress)?;
        strict = listeners::strict_loopback(&mut second);
        if strict.is_some() {
            (inspection.doors, seen.doors) = (again.doors, second.doors);
        }
        seen.took += second.took;
    }

    let firewall = firewall::check(&site, &seen);
    checks.push(files::check(&site, &examined.secret_files));
    if !args.before_start {
        checks.push(ports::check(&site));
    }
    checks.push(addresses::check(
        &site,
        &seen,
        &this_host::in_full(&site.config, &site.machine, &file),
        incomplete,
    ));
    checks.push(names::check(&site, &seen));
    checks.push(certificate::check(&site, &seen));
    checks.push(limits::check(&site, &file));
    checks.push(clock::check(&site, &seen));
    checks.extend(web::check(&site, &seen));
    checks.extend(bigbluebutton::check(&site, &seen));
    if args.before_start {
        checks.push(firewall);
        return Ok(before_start(report(file, checks, Vec::new(), seen)));
    }
    let (mut listeners, outcomes) = listeners::check(&site, &inspection, &seen, &firewall);
    listeners.findings.extend(strict);
    checks.push(firewall);
    checks.push(listeners);
    Ok(report(file, checks, outcomes, seen))
}

/// Corrects the verdict of a report without ports and listeners.
fn before_start(mut report: Report) -> Report {
    let works = report.diagnosis.works;
    if let Some(verdict) = report.diagnosis.findings.first_mut() {
        verdict.text = if works {
            "Nothing that shows before the start is wrong.".to_owned()
        } else {
            verdict.text.replace("Calls fail", "Calls would fail")
        };
    }
    report
}

fn report(file: String, checks: Vec<Check>, outcomes: Vec<Outcome>, seen: Seen) -> Report {
    let diagnosis = conclude(&checks);
    Report {
        relay: Some(Relay { file, checks }),
        lookups: seen.names,
        proxy: None,
        outcomes,
        diagnosis,
        begun: seen.begun,
        took: seen.took,
    }
}

/// The running server does not use the file as it is now, which is what all other subjects are about. `running`: its pid.
fn not_loaded(compared: &Result<Difference, Unknown>, running: Option<u32>, file: &str) -> Option<Finding> {
    let difference = match compared {
        Ok(difference) => difference,
        Err(Unknown::Silent) => {
            let text = "its control socket takes connections, and nothing answers";
            return Some(listeners::hangs(running, text));
        }
        Err(_) if running.is_none() => return None,
        Err(Unknown::OtherFile(used)) => {
            let used = used.as_ref().map_or_else(|| "no file".to_owned(), |used| used.display().to_string());
            return Some(Finding::warning(
                OTHER_FILE,
                format!("the running server uses {used}, and this report is about {file}"),
                "name the file of the server: hallpass doctor --config FILE",
            ));
        }
        Err(Unknown::NoAnswer(error)) => {
            return Some(untested(
                "not_compared",
                format!("it is not known whether the running server uses {file} as it is now: {error}"),
                "run this command as root; the server answers on [control] socket",
            ));
        }
    };
    let Difference { changes, problems, .. } = difference;
    let step = difference.next_step();
    if !problems.is_empty() {
        let text =
            format!("the running server still has the configuration before, and refuses {file} as it stands");
        return Some(Finding::error(PREVIOUS, text, step));
    }
    if changes.is_empty() {
        return None;
    }
    let text = format!("the running server does not use {file} as it is now: {}", changes.join("; "));
    Some(match difference.matters() {
        true => Finding::error(NOT_LOADED, text, step),
        false => Finding::warning(NOT_LOADED, text, step),
    })
}

/// The server that runs beside a file with errors. Without a known pid, the one at the default admin address.
fn previous(report: &config::Report, running: Option<u32>) -> Option<Finding> {
    let admin = || who_holds(PortSpace::Tcp, ADMIN).filter(|holder| holder.name == PROGRAM);
    let pid = running.or_else(|| admin().map(|holder| holder.pid))?;
    let line = report.problems.iter().find(|problem| problem.severity == Severity::Error)?.line;
    let line = line.map_or_else(|| "the file".to_owned(), |line| format!("line {line}"));
    Some(Finding::warning(
        PREVIOUS,
        format!("the running server (pid {pid}) still has the configuration before; this file is not in use"),
        format!(
            "do not restart it, because it would not start again: correct {line}, then systemctl reload hallpass"
        ),
    ))
}

fn configuration(examined: &Examined) -> Check {
    let mut check = Check::of("configuration");
    check.findings = problems("configuration", &examined.report);
    if let Some(config) = &examined.config {
        check.facts.push(format!(
            "{}, {}, {}",
            examined.report.file,
            counted(config.listen.len(), "listener"),
            counted(config.hosts.len(), "host")
        ));
    }
    check
}
