//! The configuration of the server: reads it at the start, compares it with this machine, and names the keys that a reload
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

/// Returns the keys that `next` would change and that are fixed at the start.
pub fn need_restart(running: &Config, next: &Config) -> Vec<&'static str> {
    let fixed = [
        ("limits.workers", running.limits.workers != next.limits.workers),
        ("privacy", running.privacy != next.privacy),
        ("log.format", running.log.format != next.log.format),
        ("[admin]", running.admin != next.admin),
        ("[control]", running.control_socket != next.control_socket),
        // The self-signed certificate has been replaced by that of the files.
        ("[tls]", running.tls.is_some() && next.tls.is_none()),
    ];
    fixed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}
