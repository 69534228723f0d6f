//! The configuration of the server: reads it at the start, compares it with this machine, and restores keys that a reload
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

/// Why a configuration is refused, for the log.
pub struct Refused {
    /// The problems of a file of Hallpass.
    report: Option<Report>,
    /// Why a file of coturn is not imported.
    import: String,
}

impl Refused {
    /// Writes the problems to the log.
    pub fn log(&self) {
        self.report.iter().for_each(log);
        self.import.lines().for_each(|line| tracing::error!("{line}"));
    }
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

    /// Reads the configuration again; `None` without a file.
    pub fn read_again(&self) -> Option<Result<Loaded, Refused>> {
        match self {
            Self::BuiltIn => None,
            Self::File(path) => {
                let refused = |report| Refused { report: Some(report), import: String::new() };
                Some(config::read(path).map_err(refused))
            }
            Self::Coturn(path) => {
                let imported = import_coturn::load(path).map(|(loaded, _)| loaded);
                Some(imported.map_err(|import| Refused { report: None, import }))
            }
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
