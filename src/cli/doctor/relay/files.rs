//! Whether the service's user can read the files of the configuration.

use std::io;
use std::path::{Path, PathBuf};

use super::site::{Site, untested};
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::system::account::{Account, Denied, ownership};

/// The user of the service if none is running.
const USER: &str = "hallpass";

/// Judges the configuration, its secrets, the certificate and its key.
pub fn check(site: &Site<'_>, secrets: &[PathBuf]) -> Check {
    let mut check = Check::of("files");
    let Some(account) = account(site) else {
        let name = site.args.user.as_deref().unwrap_or(USER);
        check.findings.push(match site.args.user {
            Some(_) => Finding::error(
                "user_unknown",
                format!("this machine has no user {name}"),
                "write the user that runs the relay: --user NAME",
            ),
            None => untested(
                "files_not_tested",
                format!("no server is running and this machine has no user {name}, so it is not known who reads its files"),
                "write the user that runs the relay: --user NAME",
            ),
        });
        return check;
    };
    let mut files = vec![site.args.config.clone()];
    files.extend_from_slice(secrets);
    if let Some(tls) = &site.config.tls {
        files.extend([tls.cert.clone(), tls.key.clone()]);
    }
    match account.try_to_read(&files) {
        Err(error) => check.findings.push(untested(
            "files_not_tested",
            format!("whether user {} can read the files was not tested: {error}", account.name),
            "run this command as root",
        )),
        Ok(all) => {
            let readable = all.iter().filter(|one| one.is_ok()).count();
            check.facts.push(format!("user {} can read {readable} of {} files", account.name, all.len()));
            let denied = files.iter().zip(all).filter_map(|(file, one)| Some((file, one.err()?)));
            check
                .findings
                .extend(denied.filter_map(|(file, why)| unreadable("file_unreadable", &account, file, &why)));
        }
    }
    check
}

/// The account of `--user`, of the running server, or of the installation.
fn account(site: &Site<'_>) -> Option<Account> {
    match (&site.args.user, site.running()) {
        (Some(name), _) => Account::named(name),
        (None, Some(pid)) => Account::of_process(pid),
        (None, None) => Account::named(USER),
    }
}

/// What to do if `account` cannot read `file`. `None` if the file does not exist, which others report.
pub fn unreadable(code: &'static str, account: &Account, file: &Path, why: &Denied) -> Option<Finding> {
    if why.error.kind() == io::ErrorKind::NotFound {
        return None;
    }
    let name = &account.name;
    let shown = |path: &Path| {
        let owner = ownership(path).map(|owner| format!(" ({owner})")).unwrap_or_default();
        format!("{}{owner}", path.display())
    };
    Some(match &why.directory {
        Some(directory) => Finding::error(
            code,
            format!(
                "user {name} cannot read {}, because it may not enter {}",
                file.display(),
                shown(directory)
            ),
            account.let_read(file, Some(directory)),
        ),
        None => Finding::error(
            code,
            format!("user {name} cannot read {}: {}", shown(file), why.error),
            account.let_read(file, None),
        ),
    })
}
