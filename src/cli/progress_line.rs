//! A progress line on the terminal that is overwritten with each update.

use std::io::{self, IsTerminal};

use super::output::print_stderr;

/// The line on standard error.
pub struct ProgressLine {
    is_shown: bool,
    is_dirty: bool,
}

impl ProgressLine {
    /// Creates a line that is shown if the user `wants` it and standard error is a terminal.
    pub fn new(wants: bool) -> Self {
        Self { is_shown: wants && io::stderr().is_terminal(), is_dirty: false }
    }

    /// Overwrites the line.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        if self.is_shown {
            print_stderr(&format!("\r\x1b[K{}", text()));
            self.is_dirty = true;
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            print_stderr("\r\x1b[K");
        }
    }
}
