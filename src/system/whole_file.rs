//! Files that are there as a whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::entropy;

/// The most symbolic links in a row, as the kernel has it (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner's id and the group's id; `None` for those of this process.
    pub owner: Option<(u32, u32)>,
    /// The mode.
    pub mode: u32,
}

/// Writes a file under a name that is free.
///
/// # Errors
/// `AlreadyExists` if it is not, otherwise the error of the system call. Then nothing is written.
pub fn create(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Unlike a rename, a link does not replace a file that appeared meanwhile.
    place(path, bytes, access, |temporary| {
        fs::hard_link(temporary, path)?;
        // The same file under a second name is not a failure.
        let _ = fs::remove_file(temporary);
        Ok(())
    })
}

/// Writes a file in place of the one with this name, if there is one. A symbolic link is replaced itself.
///
/// # Errors
/// The error of the system call. Then the old file is unchanged.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    place(path, bytes, access, |temporary| fs::rename(temporary, path))
}

/// Writes a temporary file beside `path` and lets `name` give it its name. Removes it after a failure.
fn place(
    path: &Path,
    bytes: &[u8],
    access: Access,
    name: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let suffix = entropy::secret().map_err(io::Error::other)?;
    let suffix: String = suffix.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{suffix}.new"));
    let temporary = PathBuf::from(temporary);
    // Nobody else can open it before it has its owner.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let placed = fill(file, bytes, access).and_then(|()| name(&temporary));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    } else if let Some(directory) = path.parent() {
        // The file is there; that its name survives a power failure is up to the disk.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    placed
}

fn fill(mut file: File, bytes: &[u8], access: Access) -> io::Result<()> {
    if let Some((user, group)) = access.owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(access.mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Follows symbolic links to the file behind them, which need not exist.
///
/// # Errors
/// The error of the system call, or too many links.
pub fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match path.symlink_metadata() {
            Ok(data) if data.is_symlink() => {
                let to = fs::read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("")).join(to);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links in a row"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hallpass-whole-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const OWN: Access = Access { owner: None, mode: 0o640 };

    #[test]
    fn a_file_is_created_once_and_replaced_as_a_whole() {
        let scratch = Scratch::new("once");
        let path = scratch.0.join("file");
        create(&path, b"first", OWN).unwrap();
        assert_eq!(create(&path, b"second", OWN).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third", Access { mode: 0o600, ..OWN }).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(scratch.names(), ["file"]);
    }

    #[test]
    fn a_failure_leaves_no_temporary_file() {
        let scratch = Scratch::new("failure");
        let path = scratch.0.join("directory");
        fs::create_dir(&path).unwrap();
        replace(&path, b"text", OWN).unwrap_err();
        assert_eq!(scratch.names(), ["directory"]);
    }

    #[test]
    fn links_are_followed_to_files_that_need_not_exist() {
        let scratch = Scratch::new("links");
        let at = |name: &str| scratch.0.join(name);
        std::os::unix::fs::symlink("second", at("first")).unwrap();
        std::os::unix::fs::symlink("absent", at("second")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert_eq!(behind_links(&at("first")).unwrap(), at("absent"));
        assert_eq!(behind_links(&at("plain")).unwrap(), at("plain"));
        assert!(behind_links(&at("loop")).unwrap_err().to_string().contains("too many"));
    }
}
