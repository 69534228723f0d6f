//! The configuration: reads TOML and returns a [`Config`], or every problem with its line and remedy.
//!
//! Independent of the rest of the server: `cli::serve` converts a [`Config`] into the settings of the other modules.
#![forbid(unsafe_code)]

mod acme;
mod address;
mod admin;
mod build;
mod certificate;
mod control;
mod cross;
mod difference;
mod drain;
mod exposure;
mod limits;
mod parties;
mod problem;
mod public;
mod reader;
mod redirect;
mod secrets;
mod site;
#[cfg(test)]
mod tests;
mod types;
mod walk;
mod web;

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::system::pipe;
pub use difference::difference;
pub use exposure::Exposure;
pub use limits::{LIMITS, LimitRow, Limits};
pub use problem::{Problem, Report, Severity};
use reader::Reader;
pub use secrets::read_secret;
pub use types::{
    Acme, Admin, AdminTls, Challenge, Config, DEFAULT_ADMIN, DEFAULT_REALM, Drain, EMBEDDED_PORT,
    EMBEDDED_TLS_PORT, ExternalIp, Host, Listener, Log, LogFormat, LogLevel, Peers, ProxyProtocol, Public,
    Redirect, Relay, Site, SiteLanguage, TlsFiles, Token, User, Web,
};
use walk::{Notes, Section};
pub use web::OwnBackEnd;

/// The configuration file of the systemd unit, which commands use without --config.
pub const SERVICE_FILE: &str = "/etc/hallpass/hallpass.toml";
/// Size limit of a configuration file. 200 hosts with all their keys take a tenth of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only.
    pub warnings: Report,
}

/// Reads a configuration file. Paths in it are relative to its directory.
///
/// # Errors
/// Every problem of the file, at least one of them an error: unreadable, larger than 1 MiB, not UTF-8, a TOML syntax
/// error, or a wrong key or value.
pub fn read(path: &Path) -> Result<Loaded, Report> {
    examine(path).accept()
}

/// The content of a configuration file and its problems.
#[derive(Debug)]
pub struct Examined {
    /// Every problem of the file.
    pub report: Report,
    /// The configuration, with defaults in place of wrong values; `None` if the file cannot be read or has a syntax
    /// error. If `report` has errors, use the configuration only to look for more.
    pub config: Option<Config>,
    /// The files with secrets that it names.
    pub secret_files: Vec<PathBuf>,
}

impl Examined {
    /// Returns the configuration if it has no errors.
    ///
    /// # Errors
    /// Every problem, at least one of them an error.
    pub fn accept(self) -> Result<Loaded, Report> {
        match self.config {
            Some(config) if !self.report.has_errors() => Ok(Loaded { config, warnings: self.report }),
            _ => Err(self.report),
        }
    }
}

/// Reads a configuration file as [`read`] does. Returns the configuration even if it has errors.
pub fn examine(path: &Path) -> Examined {
    let file = path.display().to_string();
    match read_text(path, &file) {
        Ok((text, mode)) => parse_with_mode(&text, &file, path.parent().unwrap_or(Path::new("")), Some(mode)),
        Err(report) => Examined { report, config: None, secret_files: Vec::new() },
    }
}

/// Reads the text of a configuration file, and its mode.
///
/// # Errors
/// A report with one problem: the file cannot be read, is larger than 1 MiB or is not UTF-8.
fn read_text(path: &Path, file: &str) -> Result<(String, u32), Report> {
    let refuse = |line, message: String, remedy: &str| Report {
        file: file.to_owned(),
        problems: vec![Problem {
            severity: Severity::Error,
            line,
            key: String::new(),
            message,
            remedy: remedy.to_owned(),
        }],
    };
    let (bytes, mode) = read_start(path).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                "name an existing file, or start from the example hallpass.toml".to_owned()
            }
            io::ErrorKind::PermissionDenied => Reader::current().let_read(path),
            _ => "name a regular file".to_owned(),
        };
        refuse(None, format!("cannot read the configuration: {error}"), &remedy)
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(None, "larger than 1 MiB".to_owned(), "name a configuration file"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let before = valid.filter(|&&byte| byte == b'\n').count();
        refuse(Some(before + 1), "not UTF-8 text".to_owned(), "save the file as UTF-8")
    })?;
    Ok((text, mode))
}

/// Parses a configuration. `file` is its name in messages; paths in it are relative to `base`.
///
/// # Errors
/// Every problem of the text, at least one of them an error: a TOML syntax error, or a wrong key or value.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Loaded, Report> {
    parse_with_mode(text, file, base, None).accept()
}

/// Like [`parse`]; with the mode of the file it also checks who can read secrets in it.
fn parse_with_mode(text: &str, file: &str, base: &Path, mode: Option<u32>) -> Examined {
    let mut notes = Notes::new(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let line = match error.span() {
            Some(span) => notes.line_at(span.start.min(text.len())),
            None => most_nested(text),
        };
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let remedy = syntax_remedy(&message);
        notes.error(line, "", message, remedy);
    }
    // After a syntax error, semantic checks are skipped: they would report problems of a guess.
    let config = syntax.is_empty().then(|| {
        let document = document.get_ref();
        let (config, lines) = build::config(document, base, &mut notes);
        let top = Section::open(document, "", 1, &mut Notes::new(""));
        cross::check(&config, &lines, &top, &mut notes);
        if let Some(mode) = mode {
            exposure::of_configuration(&top, file, mode, &mut notes);
        }
        config
    });
    notes.problems.sort_by_key(|problem| problem.line);
    let report = Report { file: file.to_owned(), problems: notes.problems };
    Examined { report, config, secret_files: notes.secret_files }
}

/// The line with the most brackets and dots. The parser reports no position for the error "nested too deeply", and this
/// is the line where it happens.
fn most_nested(text: &str) -> usize {
    let openings = |line: &str| line.matches(['[', '{', '.']).count();
    let lines = text.split('\n').enumerate().max_by_key(|(_, line)| openings(line));
    lines.map_or(1, |(index, _)| index + 1)
}

fn syntax_remedy(message: &str) -> &'static str {
    if message.contains("recurs") {
        "no key needs more than three levels: remove nested brackets, braces and dots"
    } else if message.contains("duplicate key") {
        "keep one of the two; several listeners or hosts are written as [[listen]] and [[host]]"
    } else if message.contains("missing comma") {
        "separate the elements of a list by commas: key = [\"a\", \"b\"]"
    } else if message.contains("quot") || message.contains("string") {
        "write text in quotes: key = \"value\""
    } else {
        "write key = \"text\", key = 5, key = true, key = [\"a\", \"b\"], [table] or [[table]] on a line of its own"
    }
}

/// Reads a file up to one byte above the size limit, and its mode.
fn read_start(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let (file, metadata) = pipe::open(path)?;
    let mode = metadata.mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}
