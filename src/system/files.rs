//! Notices that files were replaced.
//!
//! The files are looked at twice a second. inotify(7) would miss a swapped symbolic link further up in the path, as certbot makes
//! them, and changes on a network file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

/// Interval of the looks. A change is reported at the next look that finds nothing new, so within a second.
const LOOK: Duration = Duration::from_millis(500);

/// What a look at one file finds: device, inode, size, and the times of the last change of content and inode in nanoseconds
/// since 1970. `None` if there is no such file.
type Seen = Option<(u64, u64, u64, i128, i128)>;

/// Looks at files and remembers what it saw. Files that it sees for the first time count as changed: they may have been replaced
/// since the program read them.
#[derive(Debug, Default)]
struct Looks {
    /// When the last report was made.
    reported: Vec<Seen>,
    /// At the last look.
    last: Vec<Seen>,
}

impl Looks {
    /// Returns whether the files have changed since the last report, and not since the last look: then the program that writes
    /// them has paused.
    fn have_changed(&mut self, files: &[PathBuf]) -> bool {
        let now = look(files);
        let is_quiet = now == self.last;
        self.last = now;
        if is_quiet && self.last != self.reported {
            self.reported = self.last.clone();
            return true;
        }
        false
    }
}

fn look(files: &[PathBuf]) -> Vec<Seen> {
    let seen = files.iter().map(|file| {
        let data = fs::metadata(file).ok()?;
        let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let changed = time(data.ctime(), data.ctime_nsec());
        Some((data.dev(), data.ino(), data.size(), time(data.mtime(), data.mtime_nsec()), changed))
    });
    seen.collect()
}

/// Follows files on a thread, which ends within a second after the receiver is dropped. A message says that at least one of
/// `files`, which may be exchanged, has changed and that nothing more has changed for half a second.
///
/// # Errors
/// The error of starting the thread.
pub fn follow(files: Arc<ArcSwap<Vec<PathBuf>>>) -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    let mut looks = Looks::default();
    let follow = move || {
        while !sender.is_closed() {
            thread::park_timeout(LOOK);
            if looks.have_changed(&files.load()) {
                // A message that was not taken yet says the same.
                let _ = sender.try_send(());
            }
        }
    };
    thread::Builder::new().name("files".to_owned()).spawn(follow)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// A directory that is removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hallpass-files-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).expect("written");
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Exchanges a link as certbot does: a new one is renamed over the old one.
    fn exchange(link: &Path, to: &Path) {
        let new = link.with_extension("new");
        symlink(to, &new).expect("a link");
        fs::rename(&new, link).expect("renamed");
    }

    /// Returns looks that have reported the files as they are.
    fn seen(files: &[PathBuf]) -> Looks {
        let mut looks = Looks::default();
        assert!(!looks.have_changed(files) && looks.have_changed(files) && !looks.have_changed(files));
        looks
    }

    #[test]
    fn a_change_is_reported_once_and_after_a_pause() {
        let scratch = Scratch::new("pause");
        let files = [scratch.write("chain", "one"), scratch.write("key", "one")];
        let mut looks = seen(&files);
        scratch.write("chain", "half");
        assert!(!looks.have_changed(&files), "the writer may go on");
        scratch.write("chain", "whole now");
        assert!(!looks.have_changed(&files), "the writer went on");
        assert!(looks.have_changed(&files));
        assert!(!looks.have_changed(&files) && !looks.have_changed(&files), "it was reported");
    }

    #[test]
    fn links_are_followed_wherever_they_are_in_the_path() {
        let scratch = Scratch::new("links");
        let (first, second) = (scratch.0.join("first"), scratch.0.join("second"));
        for directory in [&first, &second] {
            fs::create_dir(directory).expect("a directory");
            fs::write(directory.join("chain"), "equal").expect("written");
        }
        symlink(&first, scratch.0.join("live")).expect("a link");
        symlink("live/chain", scratch.0.join("chain")).expect("a link");
        let files = [scratch.0.join("chain")];
        let mut looks = seen(&files);
        exchange(&scratch.0.join("live"), &second);
        assert!(!looks.have_changed(&files));
        assert!(looks.have_changed(&files), "a directory of the path was exchanged");
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_is_reported_when_it_is_back() {
        let scratch = Scratch::new("gone");
        let files = [scratch.write("chain", "one")];
        let mut looks = seen(&files);
        fs::remove_file(&files[0]).expect("removed");
        assert!(!looks.have_changed(&files));
        scratch.write("chain", "two");
        assert!(!looks.have_changed(&files));
        assert!(looks.have_changed(&files));
    }

    #[test]
    fn the_thread_reports_a_change_of_files_that_were_exchanged() {
        let scratch = Scratch::new("thread");
        let files = Arc::new(ArcSwap::from_pointee(vec![scratch.write("old", "one")]));
        let mut changes = follow(Arc::clone(&files)).expect("a thread");
        assert_eq!(changes.blocking_recv(), Some(()), "seen for the first time");
        files.store(Arc::new(vec![scratch.write("new", "one")]));
        assert_eq!(changes.blocking_recv(), Some(()));
    }
}
