//! The file of the control socket: opened for the user of the server alone, removed at the end.

use std::env;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::cli::serve::start_error::StartError;

/// The name of the socket in the directory that systemd creates.
const NAME: &str = "control.sock";
/// Only the user of the server, and root.
const MODE: u32 = 0o600;

/// The open socket. Dropping it removes the file, unless another server has replaced it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
}

/// The path without `[control] socket`: in the directory of `RuntimeDirectory=`, if systemd has created one.
pub fn default_path() -> Option<PathBuf> {
    in_directory(&env::var_os("RUNTIME_DIRECTORY")?)
}

/// The path in the first of the directories, which are separated by colons.
fn in_directory(directories: &std::ffi::OsStr) -> Option<PathBuf> {
    let first = directories.as_bytes().split(|&byte| byte == b':').next()?;
    let first = Path::new(std::ffi::OsStr::from_bytes(first));
    first.is_absolute().then(|| first.join(NAME))
}

impl ControlSocket {
    /// Opens the socket. The file of a server that is gone is replaced.
    ///
    /// # Errors
    /// If a running server uses it, if another file has its name, or if it cannot be created.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |message: String, next_step: &str| {
            StartError::new(
                format!("cannot open the control socket {}: {message}", path.display()),
                next_step,
            )
        };
        let is_other = fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket());
        if is_other {
            return Err(failed(
                "another file has this name".to_owned(),
                "write another path in [control] socket",
            ));
        }
        if UnixStream::connect(path).is_ok() {
            let step = "stop it first, or write another path in [control] socket";
            return Err(failed("a running server uses it".to_owned(), step));
        }
        Self::create(path).map_err(|error| {
            let step = "let the user that runs hallpass write to the directory: RuntimeDirectory=hallpass in the systemd unit \
                        creates /run/hallpass";
            failed(error.to_string(), step)
        })
    }

    /// The socket gets its name once it has its mode, so that nobody else can connect in between.
    fn create(path: &Path) -> io::Result<Self> {
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        match fs::remove_file(&unnamed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&unnamed)?;
        let named = listener
            .set_nonblocking(true)
            .and_then(|()| fs::set_permissions(&unnamed, Permissions::from_mode(MODE)))
            .and_then(|()| fs::rename(&unnamed, path))
            .and_then(|()| fs::symlink_metadata(path));
        let file = named.inspect_err(|_| drop(fs::remove_file(&unnamed)))?;
        Ok(Self { listener, path: path.to_owned(), identity: (file.dev(), file.ino()) })
    }

    /// Returns a listener to serve; non-blocking.
    ///
    /// # Errors
    /// The error of `dup(2)`.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            // A file that stays is replaced by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
        let directory = env::temp_dir().join(format!("hallpass-control-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join(NAME);
        drop(UnixListener::bind(&path).expect("a stale socket"));
        let socket = ControlSocket::open(&path).unwrap_or_else(|error| panic!("{}", error.message));
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, MODE);
        let refused = ControlSocket::open(&path).err().map(|error| error.message);
        assert!(refused.is_some_and(|message| message.contains("a running server uses it")));
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a document").expect("a file");
        assert!(ControlSocket::open(&path).is_err_and(|error| error.message.contains("another file")));
        assert_eq!(fs::read_to_string(&path).expect("kept"), "a document");
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 1);
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn the_default_is_in_the_first_runtime_directory() {
        let path = |text: &str| in_directory(text.as_ref());
        assert_eq!(path("/run/hallpass"), Some(PathBuf::from("/run/hallpass/control.sock")));
        assert_eq!(path("/run/a:/run/b"), Some(PathBuf::from("/run/a/control.sock")));
        assert_eq!(path(""), None);
    }
}
