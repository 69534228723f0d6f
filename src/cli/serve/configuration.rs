//! The configuration of the server: reads it at the start, compares it with this machine, and names the keys that a reload
//! cannot change.

use std::path::{Path, PathBuf};

use super::start_error::{StartError, no_randomness};
use crate::cli::args::ServeArgs;
use crate::cli::output::{check_line, print_stderr, shell_word};
use crate::cli::{certificate, import_coturn, this_host};
use crate::config::{self, Config, Loaded, Report, Severity};
use crate::system::addresses::Addresses;
use crate::system::entropy;

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nowhere: the built-in one.
    BuiltIn,
    /// A file of Hallpass.
    File(PathBuf),
    /// A file of coturn, imported each time it is read.
    Coturn(PathBuf),
}

/// Why a configuration is refused.
pub enum Refused {
    /// The problems of a file of Hallpass.
    Report(Report),
    /// Why a file of coturn is not imported, or why there is nothing to read.
    Text(String),
}

impl Source {
    /// The source that the command line names.
    pub fn of(args: ServeArgs) -> Self {
        match (args.config, args.coturn_config) {
            (Some(path), _) => Self::File(path),
            (None, Some(path)) => Self::Coturn(path),
            (None, None) => Self::BuiltIn,
        }
    }

    /// Whether there is no file.
    pub fn is_built_in(&self) -> bool {
        matches!(self, Self::BuiltIn)
    }

    /// The name of the configuration in messages.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn => "built-in configuration".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Coturn(path) => format!("{}, as imported", path.display()),
        }
    }

    /// Reads the configuration at the start.
    ///
    /// # Errors
    /// If the configuration has errors, which are already printed together with the problems of the certificate; or, without a
    /// file, if the kernel returns no random bytes.
    pub fn read(&self) -> Result<Config, StartError> {
        match self {
            Self::BuiltIn => {
                let secret = entropy::secret().map_err(no_randomness)?;
                Ok(Config { admin: Some(config::Admin::default()), ..Config::embedded(secret) })
            }
            Self::File(path) => read(path),
            Self::Coturn(path) => {
                let imported = import_coturn::load(path);
                let (text, loaded) = match imported {
                    Ok((loaded, differences)) => {
                        (format!("{differences}{}", loaded.warnings), Ok(loaded.config))
                    }
                    Err(report) => (report, Err(())),
                };
                print_stderr(&text);
                loaded.map_err(|()| {
                    let step = format!(
                        "fix the lines above; hallpass import-coturn {} shows them again",
                        word(path)
                    );
                    StartError::new("the configuration of coturn is refused", step)
                })
            }
        }
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// If there is no file, or the file is refused.
    pub fn read_again(&self) -> Result<Loaded, Refused> {
        match self {
            Self::BuiltIn => {
                Err(Refused::Text("the server was started without a configuration file".to_owned()))
            }
            Self::File(path) => config::read(path).map_err(Refused::Report),
            Self::Coturn(path) => import_coturn::load(path).map(|(loaded, _)| loaded).map_err(Refused::Text),
        }
    }
}

/// Quotes a path for a shell.
fn word(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

/// Reads a file of Hallpass.
///
/// # Errors
/// If the configuration has errors, which are already printed together with the problems of the certificate.
fn read(path: &Path) -> Result<Config, StartError> {
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
pub fn refuse_misfits(config: &Config, source: &Source, addresses: &Addresses) -> Result<(), StartError> {
    let report = this_host::before_start(config, addresses, &source.name());
    print_stderr(&report.to_string());
    match report.has_errors() {
        true => Err(StartError::new("the configuration does not fit this machine", "fix the lines above")),
        false => Ok(()),
    }
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
        ("site.address", running.site.address != next.site.address),
        ("[control]", running.control_socket != next.control_socket),
        // The self-signed certificate has been replaced by that of the files.
        ("[tls]", running.tls.is_some() && next.tls.is_none()),
    ];
    fixed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}
