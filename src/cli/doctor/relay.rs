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

use self::bigbluebutton_file::Xml;
use self::site::{Site, problems};
use crate::cli::args::RelayArgs;
use crate::cli::live::try_addresses;
use crate::cli::output::counted;
use crate::cli::serve::relays::Relays;
use crate::cli::{certificate as files_of_tls, this_host};
use crate::config::{self, Examined};
use crate::doctor::Progress;
use crate::doctor::check::{Check, conclude};
use crate::doctor::inspection::{Inspection, Seen, inspect};
use crate::doctor::outcome::Outcome;
use crate::doctor::report::{Relay, Report};
use crate::system::addresses::{self as machine_addresses, Addresses};
use crate::system::clock as system_clock;

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
    let Some(config) = examined.config else { return Ok(report(file, checks, Vec::new(), nothing())) };
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
    };
    if has_errors {
        // There are defaults in place of the wrong values: to compare them with this machine would mislead.
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

    let mut inspection = Inspection {
        names: names::wanted(&site),
        web: web::servers(&site),
        time_source: args.clock.clone(),
        ..Inspection::default()
    };
    listeners::plan(&site, &mut inspection);
    let seen = inspect(&inspection, progress)?;

    let firewall = firewall::check(&site);
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
