//! Account, certificate and attempts in the state directory. Every step leaves the old state or the new one, also if the
//! process is killed in the middle of it.
//!
//! `account.json` and `attempts.json` are replaced by rename(2). Key and chain must change together, so `NAME` is a symbolic
//! link to a directory with both, and the link is replaced.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde_json::{Value, json};

use super::schedule::Attempts;
use crate::system::{entropy, pipe};

const ACCOUNT: &str = "account.json";
const ATTEMPTS: &str = "attempts.json";
/// Separates the name from the version in the name of a directory. No host name contains it.
const VERSION: char = '~';
/// Size limit of a file with JSON.
const JSON_MAX: u64 = 1 << 20;

/// The account, and what it was made with.
pub struct SavedAccount {
    /// Its key and URLs.
    pub credentials: AccountCredentials,
    /// The directory of its authority.
    pub directory: String,
    /// The addresses that the authority has.
    pub contact: Vec<String>,
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Uses this directory, which may be missing.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Returns the files of the certificate: chain and key.
    pub fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.0.join(name);
        (directory.join("fullchain.pem"), directory.join("privkey.pem"))
    }

    /// Reads the account. `None` if there is none, or the file is damaged: another account can be made.
    pub fn account(&self) -> Option<SavedAccount> {
        let value = self.read(ACCOUNT)?;
        let contact = value["contact"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Some(SavedAccount {
            credentials: serde_json::from_value(value["credentials"].clone()).ok()?,
            directory: value["directory"].as_str()?.to_owned(),
            contact: contact.map(str::to_owned).collect(),
        })
    }

    /// # Errors
    /// The error of the system, with the path.
    pub fn save_account(&self, account: &SavedAccount) -> io::Result<()> {
        let SavedAccount { credentials, directory, contact } = account;
        let credentials = serde_json::to_value(credentials)?;
        let text = json!({ "directory": directory, "contact": contact, "credentials": credentials });
        self.write(ACCOUNT, text.to_string().as_bytes())
    }

    /// Removes an account that the authority does not know.
    ///
    /// # Errors
    /// The error of the system, with the path.
    pub fn forget_account(&self) -> io::Result<()> {
        let path = self.0.join(ACCOUNT);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Reads the attempts. A missing or damaged file counts as none.
    pub fn attempts(&self) -> Attempts {
        self.read(ATTEMPTS).map_or_else(Attempts::default, |value| Attempts::from_json(&value))
    }

    /// # Errors
    /// The error of the system, with the path.
    pub fn save_attempts(&self, attempts: &Attempts) -> io::Result<()> {
        self.write(ATTEMPTS, attempts.to_json().to_string().as_bytes())
    }

    /// Puts a certificate and its key in the place of the ones before.
    ///
    /// # Errors
    /// The error of the system, with the path. The ones before stay.
    pub fn install(&self, name: &str, chain: &str, key: &str) -> io::Result<()> {
        self.create()?;
        let version = format!("{name}{VERSION}{}", random()?);
        let directory = self.0.join(&version);
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| at(&directory, &error))?;
        for (file, text) in [("privkey.pem", key), ("fullchain.pem", chain)] {
            let path = directory.join(file);
            write_synced(&path, text.as_bytes()).map_err(|error| at(&path, &error))?;
        }
        sync(&directory)?;
        let link = self.0.join(format!("{version}.link"));
        symlink(&version, &link).map_err(|error| at(&link, &error))?;
        let target = self.0.join(name);
        fs::rename(&link, &target).map_err(|error| at(&target, &error))?;
        // Only after this may the directory before be removed.
        sync(&self.0)?;
        self.clean(name, &version);
        Ok(())
    }

    /// Removes other versions, and what an interrupted installation left. What cannot be removed does no harm.
    fn clean(&self, name: &str, current: &str) {
        let is_old = |file: &OsStr| {
            let rest = file.to_str().and_then(|file| file.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(VERSION)) && file != current
        };
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if is_old(&entry.file_name()) {
                let path = entry.path();
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }

    /// Creates the directory, for its owner alone. The state directory above it comes from systemd or the operator.
    fn create(&self) -> io::Result<()> {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&self.0);
        made.map_err(|error| at(&self.0, &error))
    }

    fn read(&self, name: &str) -> Option<Value> {
        let (file, _) = pipe::open(&self.0.join(name)).ok()?;
        let mut text = Vec::new();
        file.take(JSON_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Replaces a file as a whole.
    fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        self.create()?;
        // One name, so that an interrupted write leaves one file at most.
        let (new, path) = (self.0.join(format!("{name}.new")), self.0.join(name));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&new, &error)),
            _ => {}
        }
        write_synced(&new, text).map_err(|error| at(&new, &error))?;
        fs::rename(&new, &path).map_err(|error| at(&path, &error))?;
        sync(&self.0)
    }
}

/// Writes a new file that only its owner can read, onto the disk.
fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| at(directory, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Returns 16 hexadecimal digits.
fn random() -> io::Result<String> {
    let key = entropy::key().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{:016x}", key[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hallpass-acme-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_pair_replaces_the_one_before_and_nothing_else() {
        let scratch = Scratch::new("pair");
        let store = Store::new(scratch.0.join("acme"));
        store.install("a.example", "chain 1", "key 1").expect("installed");
        store.install("a.example.org", "other", "other").expect("installed");
        // What a killed process leaves.
        fs::create_dir(scratch.0.join("acme/a.example~dead")).expect("made");
        symlink("nowhere", scratch.0.join("acme/a.example~dead.link")).expect("made");
        store.install("a.example", "chain 2", "key 2").expect("installed");
        let (chain, key) = store.files("a.example");
        assert_eq!(fs::read_to_string(&chain).expect("read"), "chain 2");
        assert_eq!(fs::read_to_string(&key).expect("read"), "key 2");
        assert_eq!(fs::read_to_string(store.files("a.example.org").1).expect("read"), "other");
        assert_eq!((mode(&chain), mode(&key)), (0o600, 0o600));
        assert_eq!((mode(&scratch.0.join("acme")), mode(&scratch.0.join("acme/a.example"))), (0o700, 0o700));
        let mut left: Vec<String> = fs::read_dir(scratch.0.join("acme"))
            .expect("listed")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .map(|name| name.split('~').next().expect("a part").to_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["a.example", "a.example", "a.example.org", "a.example.org"]);
    }

    #[test]
    fn attempts_survive_and_a_damaged_file_counts_as_none() {
        let scratch = Scratch::new("attempts");
        let store = Store::new(scratch.0.clone());
        assert_eq!(store.attempts(), Attempts::default());
        let mut attempts = Attempts::default();
        attempts.fail(1_800_000_000, 0);
        store.save_attempts(&attempts).expect("saved");
        // An interrupted write left this.
        fs::write(scratch.0.join("attempts.json.new"), "{\"fail").expect("written");
        assert_eq!(store.attempts(), attempts);
        store.save_attempts(&attempts).expect("saved again");
        assert_eq!(mode(&scratch.0.join("attempts.json")), 0o600);
        fs::write(scratch.0.join("attempts.json"), "{\"fail").expect("written");
        assert_eq!(store.attempts(), Attempts::default());
        assert!(store.account().is_none());
    }
}
