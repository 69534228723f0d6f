//! The limit on open descriptors. Each allocation and each stream client needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit on open files before and after raising it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The soft limit at the start.
    pub before: u64,
    /// The soft limit now; `u64::MAX` means no limit.
    pub after: u64,
}

/// Raises the soft limit on open files to the hard limit and returns both values. If the kernel refuses, the limit stays
/// as it is.
pub fn raise_open_files() -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, before, "cannot raise the limit on open files; set LimitNOFILE= in the unit");
        }
    }
    OpenFiles { before, after: open_files() }
}

/// Number of open descriptors of this process; 0 if /proc cannot be read.
pub fn files_open() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

/// The soft limit on open files; `u64::MAX` means no limit.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_to_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let raised = raise_open_files();
        assert_eq!(raised.after, hard.unwrap_or(u64::MAX));
        assert!(raised.before <= raised.after);
        // The kernel's own view, read another way.
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|l| l.starts_with("Max open files")).unwrap();
        let soft = line.split_whitespace().nth(3).unwrap();
        assert_eq!(soft, hard.map_or("unlimited".into(), |h| h.to_string()));
    }
}
