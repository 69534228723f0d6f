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
mod site;
mod web;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::bigbluebutton_file::Xml;
use self::site::{Site, problems};
use crate::cli::args::RelayArgs;
use crate::cli::live::try_addresses;
use crate::cli::output::counted;
use crate::cli::serve::relays::Relays;
use crate::cli::{certificate as files_of_tls, loaded, this_host};
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
        not_loaded: Vec::new(),
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
    site.tried = try_addresses(&site.config, &site.machine);

    site.not_loaded = loaded::differences(&site.config, &args.config);
    checks[0].findings.extend(not_loaded(&site, &file));

    let mut inspection = Inspection {
        names: names::wanted(&site),
        web: web::servers(&site),
        time_source: args.clock.clone(),
        ..Inspection::default()
    };
    listeners::plan(&site, &mut inspection);
    let seen = inspect(&inspection, progress)?;

    let firewall = firewall::check(&site, &seen);
    checks.push(files::check(&site, &examined.secret_files));
    checks.push(ports::check(&site));
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
    let (listeners, outcomes) = listeners::check(&site, &inspection, &seen, &firewall);
    checks.push(firewall);
    checks.push(listeners);
    Ok(report(file, checks, outcomes, seen))
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

/// The running server does not use the file as it is now, which is what all other subjects are about.
fn not_loaded(site: &Site<'_>, file: &str) -> Option<Finding> {
    if site.not_loaded.is_empty() {
        return None;
    }
    let text = format!("the running server does not use {file} as it is now: {}", site.not_loaded.join("; "));
    let remedy = "hallpass reload applies the file, and no call ends; then run this command again";
    Some(match loaded::matters(&site.not_loaded) {
        true => Finding::error(NOT_LOADED, text, remedy),
        false => Finding::warning(NOT_LOADED, text, remedy),
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
