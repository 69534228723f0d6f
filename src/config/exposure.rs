//! Files that hold secrets: what the other users of this host may do with them.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::walk::{Notes, Section};

/// Permissions of users who are neither the owner nor of the group (inode(7)).
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// What is wrong with the mode of a file that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// What others may do with which file.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl Exposure {
    /// Judges the file at `path`. `None` = only its owner and its group have access, or there is no such file.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mode = std::fs::metadata(path).ok()?.mode();
        Self::of_mode(&path.display().to_string(), mode)
    }

    /// Judges the mode of a file that messages call `shown`.
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

/// Judges the configuration file itself: it may hold secrets, and a user who may change it decides everything.
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

/// Line and key of the first secret that is written in the file itself.
fn first_secret(top: &Section<'_, '_>, notes: &Notes) -> Option<(usize, String)> {
    // The tables were read before: their problems are reported already.
    let mut unheard = Notes::new("");
    let hosts = top.tables("host", "[[host]]", &mut unheard);
    let users = top.tables("user", "[[user]]", &mut unheard);
    let of_hosts = hosts.iter().flat_map(|host| ["secret", "secrets"].map(|key| (host, key)));
    let of_users = users.iter().map(|user| (user, "password"));
    let written = of_hosts.chain(of_users).filter(|(section, key)| section.has(key));
    written.map(|(section, key)| (section.line_of(key, notes), section.key(key))).min()
}
