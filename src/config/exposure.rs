//! The permissions of files that hold secrets.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::walk::{Notes, Section};

/// Permissions of users who are neither the owner nor of the group (inode(7)).
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// A file with a secret that every user of this host can read or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The file, and what others can do with it.
    pub message: String,
    /// The command that fixes the permissions.
    pub remedy: String,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl Exposure {
    /// Checks the mode of the file at `path`. `None` if only its owner and its group have access, or if it does not exist.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mode = std::fs::metadata(path).ok()?.mode();
        Self::of_mode(&path.display().to_string(), mode)
    }

    /// Checks the mode of a file. `shown` is its name in messages.
    pub(super) fn of_mode(shown: &str, mode: u32) -> Option<Self> {
        let may = match (mode & OTHERS_READ != 0, mode & OTHERS_WRITE != 0) {
            (true, true) => "read and change",
            (true, false) => "read",
            (false, true) => "change",
            (false, false) => return None,
        };
        Some(Self {
            message: format!("every user of this host may {may} {shown}"),
            remedy: format!(
                "chmod 640 {shown} and give it the group of the user that runs hallpass, or chmod 600 if that user owns it"
            ),
        })
    }
}

/// Warns if others can read secrets in the configuration file, or change the file.
pub(super) fn of_configuration(top: &Section<'_, '_>, file: &str, mode: u32, notes: &mut Notes) {
    let Some(Exposure { message, remedy }) = Exposure::of_mode(file, mode) else { return };
    match first_secret(top, notes) {
        Some((line, key)) => {
            notes.warn(line, &key, format!("{message}, which holds this secret"), remedy);
        }
        None if mode & OTHERS_WRITE != 0 => notes.warn_whole(&message, &remedy),
        None => {}
    }
}

/// Returns line and key of the first secret that is written in the file itself.
fn first_secret(top: &Section<'_, '_>, notes: &Notes) -> Option<(usize, String)> {
    // The problems of these tables are reported already.
    let mut discarded = Notes::new("");
    let hosts = top.tables("host", "[[host]]", &mut discarded);
    let users = top.tables("user", "[[user]]", &mut discarded);
    let of_hosts = hosts.iter().flat_map(|host| ["secret", "secrets"].map(|key| (host, key)));
    let of_users = users.iter().map(|user| (user, "password"));
    let written = of_hosts.chain(of_users).filter(|(section, key)| section.has(key));
    written.map(|(section, key)| (section.line_of(key, notes), section.key(key))).min()
}
