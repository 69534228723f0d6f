//! Puts BigBlueButton's list in its place: bbb-web can read it and nobody else can, and it is never there in part.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::read_text;
use crate::system::account::{Account, group, ownership};
use crate::system::whole_file::{self, Access};

/// Mode of a new file.
const MODE: u32 = 0o640;
/// Mode of a new file that bbb-web's user cannot be given.
const MODE_OWN: u32 = 0o600;
const OWNER_READS: u32 = 0o400;
const GROUP_READS: u32 = 0o040;
/// Everything but the rights of other users.
const NOT_OTHERS: u32 = 0o770;
const PERMISSIONS: u32 = 0o7777;

/// What is wrong, and the next step.
pub type Failure = (String, String);

/// The file to write, and what is there now.
pub struct Place {
    /// As the operator wrote it.
    named: PathBuf,
    /// Behind symbolic links.
    path: PathBuf,
    old: Option<Metadata>,
}

impl Place {
    /// Finds the file.
    ///
    /// # Errors
    /// It cannot be looked at, or is not a regular file.
    pub fn find(named: &Path) -> Result<Self, Failure> {
        let failed = |error: &io::Error| {
            (format!("cannot write {}: {error}", named.display()), next_step(error).to_owned())
        };
        let path = whole_file::behind_links(named).map_err(|error| failed(&error))?;
        let old = match fs::symlink_metadata(&path) {
            Ok(data) if data.is_file() => Some(data),
            Ok(_) => {
                let next = "name a file after --output; without --output the list goes to standard output";
                return Err((format!("{} is not a regular file", named.display()), next.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
        };
        Ok(Self { named: named.to_path_buf(), path, old })
    }

    /// Returns the text that is there; `None` without a file.
    ///
    /// # Errors
    /// It cannot be read as text.
    pub fn text(&self) -> Result<Option<String>, String> {
        self.old.as_ref().map(|_| read_text(&self.path)).transpose()
    }

    /// Writes `text` unless it is there already with good permissions. Returns whether it was written.
    ///
    /// # Errors
    /// The error of the system. Then the old file is unchanged.
    pub fn write(&self, old: Option<&str>, text: &str, bbb_user: &str) -> Result<bool, Failure> {
        let access = access(self.old.as_ref(), bbb_user);
        let is_same = self.old.as_ref().is_some_and(|data| {
            old == Some(text)
                && data.mode() & PERMISSIONS == access.mode
                && access.owner.is_none_or(|owner| owner == (data.uid(), data.gid()))
        });
        if is_same {
            return Ok(false);
        }
        whole_file::replace(&self.path, text.as_bytes(), access).map(|()| true).map_err(|error| {
            let old = if self.old.is_some() { "; the old file is unchanged" } else { "" };
            (format!("cannot write {}: {error}{old}", self.named.display()), next_step(&error).to_owned())
        })
    }
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        // EPERM, not EACCES: root, too, is refused at an immutable file.
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(libc::EPERM) && is_root() => {
            "is the file or its directory immutable? lsattr shows it, and chattr -i undoes it"
        }
        io::ErrorKind::PermissionDenied => "run this command as root: sudo hallpass bbb-xml ...",
        io::ErrorKind::ResourceBusy => {
            "the file is a mount of its own, as in a container, and cannot be replaced: mount its directory instead, or write \
             another file and copy it over this one with cp"
        }
        io::ErrorKind::NotFound => {
            "name a file in an existing directory; /etc/bigbluebutton is on the BigBlueButton server"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on the disk",
        io::ErrorKind::ReadOnlyFilesystem => "name a file on a disk that can be written to",
        _ => "name a file in a directory that you may write to",
    }
}

fn is_root() -> bool {
    Account::own().is_some_and(|own| own.uid == 0)
}

/// The owner and the mode to write with: those of the old file, changed as far as bbb-web's user could not read it or
/// everybody could.
fn access(old: Option<&Metadata>, bbb_user: &str) -> Access {
    let reader = Account::named(bbb_user);
    let group = reader.as_ref().map(|reader| reader.gid).or_else(|| group(bbb_user));
    let own = Account::own();
    let has_old = old.is_some();
    let old = old.map(|data| ((data.uid(), data.gid()), data.mode()));
    let access = wanted(old, reader.as_ref(), group, own.as_ref());
    // Only root can give a file away. A new one then belongs to the user of this command.
    match own {
        Some(own) if !has_old && own.uid != 0 && access.owner.is_some_and(|(_, group)| !own.is_in(group)) => {
            Access { owner: None, mode: MODE_OWN }
        }
        _ => access,
    }
}

fn wanted(
    old: Option<((u32, u32), u32)>,
    reader: Option<&Account>,
    group: Option<u32>,
    own: Option<&Account>,
) -> Access {
    let Some(((user, owning), mode)) = old else {
        return match (own, group) {
            (Some(own), Some(group)) => Access { owner: Some((own.uid, group)), mode: MODE },
            _ => Access { owner: None, mode: MODE },
        };
    };
    let mode = mode & NOT_OTHERS;
    let is_readable = reader.is_none_or(|reader| {
        reader.uid == 0
            || if reader.uid == user {
                mode & OWNER_READS != 0
            } else {
                reader.is_in(owning) && mode & GROUP_READS != 0
            }
    });
    match group.filter(|_| !is_readable) {
        Some(group) => Access { owner: Some((user, group)), mode: mode | OWNER_READS | GROUP_READS },
        None => Access { owner: Some((user, owning)), mode },
    }
}

/// Why bbb-web's user cannot read a file; `None` if it can, if this machine has no such user, or if this command may not
/// find out.
pub fn unreadable(path: &Path, bbb_user: &str) -> Option<Failure> {
    let account = Account::named(bbb_user)?;
    let denied = account.try_to_read(&[path.to_path_buf()]).ok()?.into_iter().find_map(Result::err)?;
    let shown = |path: &Path| {
        let owner = ownership(path).map(|owner| format!(" ({owner})")).unwrap_or_default();
        format!("{}{owner}", path.display())
    };
    let silent = "bbb-web then silently uses its own list";
    Some(match &denied.directory {
        Some(directory) => (
            format!("user {bbb_user} may not enter {}: {silent}", shown(directory)),
            format!("chmod o+x {}", directory.display()),
        ),
        None => (
            format!("user {bbb_user} cannot read {}: {silent}", shown(path)),
            format!("chown root:{bbb_user} {0} && chmod 640 {0}", path.display()),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32, gid: u32, groups: &[u32]) -> Account {
        Account { name: "bigbluebutton".to_owned(), uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn bbb_web_reads_the_file_and_nobody_else() {
        let (reader, root) = (account(997, 998, &[44]), account(0, 0, &[]));
        let of = |old| wanted(old, Some(&reader), Some(998), Some(&root));
        let access = |user, group, mode| Access { owner: Some((user, group)), mode };
        assert_eq!(of(None), access(0, 998, 0o640), "a new file");
        for (old, new) in [
            (((0, 998), 0o100_640), access(0, 998, 0o640)),
            (((997, 0), 0o600), access(997, 0, 0o600)),
            (((0, 44), 0o440), access(0, 44, 0o440)),
            // As root's editor makes it: without the rights of others bbb-web would lose the file.
            (((0, 0), 0o644), access(0, 998, 0o640)),
            (((0, 0), 0o600), access(0, 998, 0o640)),
            (((997, 998), 0o040), access(997, 998, 0o440)),
            (((0, 998), 0o666), access(0, 998, 0o660)),
        ] {
            assert_eq!(of(Some(old)), new, "{old:?}");
        }
    }

    #[test]
    fn a_machine_without_bigbluebutton_keeps_the_owner() {
        let root = account(0, 0, &[]);
        let of = |old| wanted(old, None, None, Some(&root));
        assert_eq!(of(None), Access { owner: None, mode: 0o640 });
        assert_eq!(of(Some(((5, 6), 0o644))), Access { owner: Some((5, 6)), mode: 0o640 });
    }
}
