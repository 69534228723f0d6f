//! A wall clock of a server that the test sets. Its monotonic clock is unchanged.

use super::files::Directory;
use std::fs;
use std::path::PathBuf;

/// The clock of one server.
pub struct WallClock(Directory);

impl WallClock {
    pub fn new() -> WallClock {
        let clock = WallClock(Directory::new("clock"));
        clock.jump("+0");
        clock
    }

    /// Moves the clock from the true time, such as by `+2d`.
    pub fn jump(&self, offset: &str) {
        // By an atomic rename, because libfaketime rereads this file all the time.
        let next = self.0.write("offset.next", offset);
        fs::rename(next, self.0.path("offset")).unwrap();
    }

    /// Returns the words that run a program under this clock.
    pub fn wrapper(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.0.path("offset").display()),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "FAKETIME_NO_CACHE=1".to_owned(),
        ]
    }
}

/// Finds the library of Debian's package `faketime`, in a directory named after the architecture.
fn library() -> PathBuf {
    let places = fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.exists()).expect("this test needs libfaketime: apt install faketime")
}
