//! The configuration of the server: reads it at the start, compares it with this machine, and restores keys that a reload
//! cannot change.

use std::path::Path;

use super::start_error::{StartError, no_randomness};
use crate::cli::output::{check_line, print_stderr};
use crate::cli::{certificate, this_host};
use crate::config::{self, Config, Report, Severity};
use crate::system::addresses::Addresses;
use crate::system::entropy;

/// Reads the configuration, or returns the built-in one if there is no path.
///
/// # Errors
/// If the configuration has errors, which are already printed together with the problems of the certificate; or, without a
/// path, if the kernel returns no random bytes.
pub fn read(path: Option<&Path>) -> Result<Config, StartError> {
    let Some(path) = path else {
        let secret = entropy::secret().map_err(no_randomness)?;
        return Ok(Config { admin: Some(config::Admin::default()), ..Config::embedded(secret) });
    };
    let examined = config::examine(path);
    print_stderr(&examined.report.to_string());
    if let Some(config) = examined.config.as_ref().filter(|_| examined.report.has_errors()) {
        // Otherwise the operator would see these only after the other errors are fixed.
        for (_, line) in certificate::examine(config).lines(&examined.report.file) {
            print_stderr(&line);
        }
    }
    let step = || format!("fix the lines above; this command checks the file: {}", check_line(path));
    let refused = |_: Report| StartError::new("the configuration is refused", step());
    examined.accept().map(|loaded| loaded.config).map_err(refused)
}

/// Prints the problems of a configuration on this machine.
///
/// # Errors
/// If one of the problems is an error.
pub fn refuse_misfits(config: &Config, path: Option<&Path>, addresses: &Addresses) -> Result<(), StartError> {
    let report = this_host::before_start(config, addresses, &name(path));
    print_stderr(&report.to_string());
    match report.has_errors() {
        true => Err(StartError::new("the configuration does not fit this machine", "fix the lines above")),
        false => Ok(()),
    }
}

/// The name of the configuration file in messages.
pub fn name(path: Option<&Path>) -> String {
    path.map_or_else(|| "built-in configuration".to_owned(), |path| path.display().to_string())
}

/// Writes each problem of a configuration to the log, at the level of its severity.
pub fn log(report: &Report) {
    for (severity, text) in report.texts() {
        for line in text.lines() {
            match severity {
                Severity::Error => tracing::error!("{line}"),
                Severity::Warning => tracing::warn!("{line}"),
            }
        }
    }
}

/// Restores keys that a reload cannot change, because they are fixed at the start. Returns the names of those
/// that `next` would change.
pub fn restore_fixed_keys(running: &Config, next: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let listeners = |config: &Config| -> Vec<_> {
        let listen = config.listen.iter().cloned();
        // Ignores the line in the file.
        listen.map(|listener| config::Listener { line: 0, ..listener }).collect()
    };
    if listeners(running) != listeners(next) {
        kept.push("[[listen]]");
    }
    next.listen.clone_from(&running.listen);
    if running.admin != next.admin {
        kept.push("[admin]");
        next.admin.clone_from(&running.admin);
    }
    if running.log != next.log {
        kept.push("[log]");
        next.log = running.log;
    }
    if running.privacy != next.privacy {
        kept.push("privacy");
        next.privacy = running.privacy;
    }
    let of = |config: &Config| (config.limits.workers, config.limits.mss);
    if of(running) != of(next) {
        kept.push("[limits] workers or mss");
        (next.limits.workers, next.limits.mss) = of(running);
    }
    kept
}
