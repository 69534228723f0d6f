//! `[control]`: the socket through which commands steer the running server.

use std::path::{Path, PathBuf};

use super::walk::{Notes, Section};

/// The longest path of a Unix socket (unix(7)), less what the server appends while it opens the socket.
const PATH_BYTES_MAX: usize = 95;

/// Reads `[control]`. Returns the path of the socket, if there is one.
pub(super) fn control(top: &Section<'_, '_>, notes: &mut Notes) -> Option<PathBuf> {
    const KEY: &str = "control.socket";
    const EXAMPLE: &str = "write socket = \"/run/hallpass/control.sock\"";
    let section = top.table("control", "[control]", notes)?;
    let socket = section.string("socket", notes)?;
    let path = Path::new(socket.value);
    let parent = path.parent().filter(|_| path.is_absolute());
    match parent {
        None => notes.error(socket.line, KEY, "the path is not absolute, or names no file", EXAMPLE),
        Some(parent) if !parent.is_dir() => {
            let message = format!("there is no directory {}", parent.display());
            let remedy = "create it, owned by the user that runs hallpass; RuntimeDirectory=hallpass in the systemd unit \
                          creates /run/hallpass";
            notes.error(socket.line, KEY, message, remedy);
        }
        Some(_) if socket.value.len() > PATH_BYTES_MAX => {
            let message =
                format!("the path is longer than {PATH_BYTES_MAX} bytes, the kernel's limit for sockets");
            notes.error(socket.line, KEY, message, EXAMPLE);
        }
        Some(_) => {}
    }
    Some(path.to_owned())
}
