//! Whether the user of the service can read what root, who checks the configuration, can read anyway.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, Report, SERVICE_FILE, Severity};
use crate::system::account::{Account, ownership};

/// The user of the systemd unit.
const USER: &str = "hallpass";
const ROOT: u32 = 0;

/// Reports each file of the service's configuration that its user cannot read. Empty for any other configuration, for
/// other users than root, and on a machine without the service's user. `secrets` are the files with secrets.
pub fn check(path: &Path, config: &Config, secrets: Vec<PathBuf>) -> Report {
    let mut report = Report { file: path.display().to_string(), problems: Vec::new() };
    let is_root = Account::own().is_some_and(|own| own.uid == ROOT);
    let is_of_service = path.canonicalize().is_ok_and(|path| path == Path::new(SERVICE_FILE));
    let service = if is_root && is_of_service { Account::named(USER) } else { None };
    let Some(service) = service else { return report };
    let mut files = vec![path.to_path_buf()];
    files.extend(secrets);
    files.extend(
        config.tls.iter().chain(&config.certificates).flat_map(|tls| [tls.cert.clone(), tls.key.clone()]),
    );
    // Without the right to act as the service, nothing is known.
    let Ok(tried) = service.try_to_read(&files) else { return report };
    for (file, denied) in files.iter().zip(tried).filter_map(|(file, one)| Some((file, one.err()?))) {
        if denied.error.kind() != io::ErrorKind::PermissionDenied {
            continue;
        }
        let what = denied.directory.as_deref().unwrap_or(file);
        let owner = ownership(what).unwrap_or_default();
        let (verb, mode) = if denied.directory.is_some() { ("enter", 750) } else { ("read", 640) };
        let what = what.display();
        report.add(
            Severity::Error,
            "",
            format!("user {USER}, which runs the service, may not {verb} {what} ({owner}), so the service does not start"),
            format!("chgrp {USER} {what} && chmod {mode} {what}"),
        );
    }
    report
}
