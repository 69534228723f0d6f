//! Whether this program was started without a standard output. std opens /dev/null in its place before `main`, so that every write
//! succeeds and a result would be lost without a word.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Called by the C library before `main`, so before std opens anything.
// SAFETY: the section holds pointers to functions of this type (ELF gABI, "Initialization and Termination Functions"). The
// function uses nothing of std that `main` has to prepare.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: F_GETFD has no argument and changes nothing; it fails if the descriptor is not open.
    let is_closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } < 0;
    IS_CLOSED.store(is_closed, Relaxed);
}

/// Returns whether standard output was closed when the program started.
pub fn stdout_was_closed() -> bool {
    IS_CLOSED.load(Relaxed)
}
