//! A reload: everything that can fail happens before anything is applied, so a configuration is applied as a whole or not at
//! all.

use std::sync::Arc;

use serde_json::{Value, json};

use super::acme::{NextRedirects, Redirects};
use super::configuration::{self, Refused, Source};
use super::listeners::{Listeners, NextListeners};
use super::listening::Awaited;
use super::now::now;
use super::relays::Relays;
use super::settings::{self, HostNames, Machine};
use super::site;
use super::tls::{Certificate, NextCertificates};
use crate::cli::this_host;
use crate::config::{self, Config, Report, Severity};
use crate::net::TlsChooser;
use crate::site::Files;
use crate::turn::settings::Settings;

/// The result of a reload, for the operator.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Whether the new configuration is in use.
    pub is_applied: bool,
    /// Warnings about the new configuration.
    pub warnings: Vec<String>,
    /// What differs from the configuration before.
    pub changes: Vec<String>,
    /// Why nothing is applied.
    pub problems: Vec<String>,
}

impl Reloaded {
    /// Returns the last line, for the operator.
    pub fn result(&self) -> &'static str {
        match (self.is_applied, self.changes.is_empty()) {
            (true, true) => "the new configuration is in use; nothing in it has changed",
            (true, false) => "the new configuration is in use",
            (false, _) => "nothing is applied: the configuration in use stays",
        }
    }

    /// Returns the answer to `POST /reload`.
    pub fn to_json(&self) -> Value {
        json!({
            "applied": self.is_applied,
            "warnings": self.warnings,
            "changes": self.changes,
            "problems": self.problems,
            "result": self.result(),
        })
    }
}

/// What a reload is compared with.
pub struct InUse<'a> {
    pub source: &'a Source,
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub certificate: &'a Certificate,
    pub listeners: &'a Listeners,
    pub redirects: &'a Redirects,
    pub awaited: &'a Awaited,
    pub names: &'a HostNames,
    /// Chosen for the next configuration if it can be applied, else for the one in use.
    pub relays: &'a mut Relays,
}

/// A configuration that can be applied without an error.
pub struct Prepared {
    pub config: Config,
    pub certificates: NextCertificates,
    pub listeners: NextListeners,
    pub redirects: NextRedirects,
    pub chooser: Arc<dyn TlsChooser>,
    pub names: HostNames,
    pub protocol: Settings,
    /// The files of the site.
    pub files: Option<Arc<Files>>,
}

/// Reads the configuration and everything that it names, and opens its new listeners. What differs, and what is wrong, is
/// added to `reloaded`; `None` if anything is.
pub fn prepare(in_use: InUse<'_>, reloaded: &mut Reloaded) -> Option<Prepared> {
    let InUse { source, config, machine, certificate, listeners, redirects, awaited, names, relays } = in_use;
    let loaded = match source.read_again() {
        Ok(loaded) => loaded,
        Err(Refused::Report(report)) => {
            note(&report, reloaded);
            return None;
        }
        Err(Refused::Text(text)) => {
            reloaded.problems.push(text.trim_end().to_owned());
            return None;
        }
    };
    note(&loaded.warnings, reloaded);
    let next = loaded.config;
    reloaded.changes = config::difference(config, &next);
    let restarts = configuration::need_restart(config, &next).into_iter();
    reloaded.problems.extend(restarts.map(|key| format!("{key}: this change needs a restart")));
    note(&this_host::before_reload(&next, &machine.addresses, &source.name()), reloaded);
    let certificates = certificate.examine(&next);
    let chooser = certificate.chooser(&next.web);
    let (certificates, chooser) = match (certificates, chooser) {
        (Ok(certificates), Ok(chooser)) if reloaded.problems.is_empty() => (certificates, chooser),
        (certificates, chooser) => {
            reloaded.problems.extend(certificates.err().unwrap_or_default());
            reloaded.problems.extend(chooser.err());
            return None;
        }
    };
    let mut network = settings::network(&next, machine.workers, &machine.addresses);
    awaited.fit(&mut network);
    let listeners = match listeners.prepare(&network) {
        Ok(listeners) => listeners,
        Err(problems) => {
            reloaded.problems.extend(problems);
            return None;
        }
    };
    let redirects = match redirects.prepare(&next) {
        Ok(redirects) => redirects,
        Err(problem) => {
            reloaded.problems.push(problem);
            return None;
        }
    };
    let files = match site::files(&next) {
        Ok(files) => files,
        Err(problem) => {
            reloaded.problems.push(problem);
            return None;
        }
    };
    // The last step that can fail, because it changes the choice of relay addresses.
    let mut names = names.clone();
    relays.follow(&next, &machine.addresses, now().instant);
    match settings::protocol(&next, machine, relays.addresses(), &mut names) {
        Ok(protocol) => Some(Prepared {
            config: next,
            certificates,
            listeners,
            redirects,
            chooser,
            names,
            protocol,
            files,
        }),
        Err(message) => {
            relays.follow(config, &machine.addresses, now().instant);
            reloaded.problems.push(message);
            None
        }
    }
}

/// Writes the problems of a configuration to the log, and adds them to the result.
fn note(report: &Report, reloaded: &mut Reloaded) {
    configuration::log(report);
    for (severity, text) in report.texts() {
        let list = match severity {
            Severity::Error => &mut reloaded.problems,
            Severity::Warning => &mut reloaded.warnings,
        };
        list.push(text.trim_end().to_owned());
    }
}
