//! Accounts of this machine, and whether they can read files.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// The identity of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name, or the number of one without a name.
    pub name: String,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Why an account cannot read a file.
#[derive(Debug)]
pub struct Denied {
    /// The error of the system.
    pub error: io::Error,
    /// The directory that the account may not enter, if that is the reason.
    pub directory: Option<PathBuf>,
}

impl Account {
    /// Finds an account in /etc/passwd and /etc/group.
    pub fn named(name: &str) -> Option<Self> {
        let groups = fs::read_to_string(GROUPS).unwrap_or_default();
        parse(name, &fs::read_to_string(USERS).ok()?, &groups)
    }

    /// Whether the account is in a group.
    pub fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// The account that a process runs as.
    pub fn of_process(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // Real, effective, saved and file system id, each with its own rights; files are read with the last one.
        let (uid, gid) = (*numbers(&status, "Uid:").get(3)?, *numbers(&status, "Gid:").get(3)?);
        Some(Self { name: name_of(uid), uid, gid, groups: numbers(&status, "Groups:") })
    }

    /// The account that this program runs as.
    pub fn own() -> Option<Self> {
        Self::of_process(std::process::id())
    }

    /// The command that lets this account read `file`, or enter the `directory` in the way.
    pub fn let_read(&self, file: &Path, directory: Option<&Path>) -> String {
        let groups = fs::read_to_string(GROUPS).unwrap_or_default();
        let group = entry(&groups, |fields| number(fields, 2) == Some(self.gid));
        let group = group.map_or_else(|| self.gid.to_string(), |fields| fields[0].to_owned());
        match directory {
            Some(directory) => format!(
                "chgrp {group} {0} && chmod 750 {0}; or copy the files to a directory of that user: the hooks in certs/hooks do that \
                 at each renewal",
                directory.display()
            ),
            None => format!("chgrp {group} {0} && chmod 640 {0}", file.display()),
        }
    }

    /// Opens files as this account, and closes them again. The kernel decides, so capabilities, ACLs and security modules
    /// count as well.
    ///
    /// # Errors
    /// This program may not act as the account.
    pub fn try_to_read(&self, paths: &[PathBuf]) -> io::Result<Vec<Result<(), Denied>>> {
        let own = Self::own();
        if own.as_ref().is_some_and(|own| own.uid == self.uid) {
            return Ok(paths.iter().map(|path| try_one(path)).collect());
        }
        let try_all = || {
            self.become_it()?;
            Ok(paths.iter().map(|path| try_one(path)).collect())
        };
        // The kernel keeps an identity for each thread, and this one ends with it.
        thread::scope(|scope| scope.spawn(try_all).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    }

    /// Gives this thread the identity. Groups first: without the user's rights they cannot be changed any more.
    fn become_it(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|&group| Gid::from_raw(group)).collect();
        set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// What to do after permission was denied to this program to read `file`.
pub fn let_this_user_read(file: &Path) -> String {
    match Account::own() {
        Some(own) => {
            let command = own.let_read(file, closed_directory(file).as_deref());
            format!("let user {} read it: {command}", own.name)
        }
        None => "let the user that runs hallpass read it".to_owned(),
    }
}

fn try_one(path: &Path) -> Result<(), Denied> {
    // Without waiting: a FIFO without a writer would hold up its reader.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let Err(error) = opened else { return Ok(()) };
    let directory =
        (error.kind() == io::ErrorKind::PermissionDenied).then(|| closed_directory(path)).flatten();
    Err(Denied { error, directory })
}

/// Returns the first directory on the way to `path` that may not be entered.
fn closed_directory(path: &Path) -> Option<PathBuf> {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut all: Vec<&Path> = whole.ancestors().skip(1).collect();
    all.reverse();
    // To look at what is inside takes the right to enter.
    all.iter().find(|directory| is_denied(&directory.join("."))).map(|directory| directory.to_path_buf())
}

fn is_denied(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Owner, group and mode of a file for a person: `root:ssl-cert, mode 640`. `None` if it cannot be looked at.
pub fn ownership(path: &Path) -> Option<String> {
    let data = fs::metadata(path).ok()?;
    let groups = fs::read_to_string(GROUPS).unwrap_or_default();
    let group = entry(&groups, |fields| number(fields, 2) == Some(data.gid()));
    let group = group.map_or_else(|| data.gid().to_string(), |fields| fields[0].to_owned());
    Some(format!("{}:{group}, mode {:o}", name_of(data.uid()), data.mode() & 0o7777))
}

/// Finds a group in /etc/group.
pub fn group(name: &str) -> Option<u32> {
    let groups = fs::read_to_string(GROUPS).ok()?;
    number(&entry(&groups, |fields| fields[0] == name)?, 2)
}

fn name_of(uid: u32) -> String {
    let users = fs::read_to_string(USERS).unwrap_or_default();
    let found = entry(&users, |fields| number(fields, 2) == Some(uid));
    found.map_or_else(|| uid.to_string(), |fields| fields[0].to_owned())
}

fn parse(name: &str, users: &str, groups: &str) -> Option<Account> {
    let user = entry(users, |fields| fields[0] == name)?;
    let (uid, gid) = (number(&user, 2)?, number(&user, 3)?);
    let is_member =
        |line: &&str| line.rsplit(':').next().is_some_and(|all| all.split(',').any(|one| one == name));
    let id = |line: &str| number(&line.split(':').collect::<Vec<_>>(), 2);
    let groups = groups.lines().filter(is_member).filter_map(id).collect();
    Some(Account { name: name.to_owned(), uid, gid, groups })
}

/// Returns the fields of the first line for which `is` holds.
fn entry(text: &str, is: impl Fn(&[&str]) -> bool) -> Option<Vec<&str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| is(fields))
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

fn numbers(status: &str, key: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_the_two_files() {
        let users = "root:x:0:0:root:/root:/bin/sh\nhallpass:x:990:985::/:/usr/sbin/nologin\nbroken\n";
        let groups = "root:x:0:\nssl-cert:x:112:haproxy,hallpass\nother:x:113:hallpasses\n";
        let found = parse("hallpass", users, groups).expect("an account");
        assert_eq!((found.uid, found.gid, found.groups), (990, 985, vec![112]));
        assert_eq!(parse("nobody", users, groups), None);
        assert_eq!(parse("broken", users, groups), None);
    }

    #[test]
    fn this_process_can_read_what_it_can_read() {
        let own = Account::own().expect("a process has an account");
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        let tried =
            own.try_to_read(&["/proc/self/status".into(), "/nowhere/at/all".into()]).expect("ourselves");
        assert!(tried[0].is_ok());
        let denied = tried[1].as_ref().expect_err("there is no such file");
        assert!(denied.error.kind() == io::ErrorKind::NotFound && denied.directory.is_none(), "{denied:?}");
        assert!(ownership(Path::new("/proc/self")).expect("ours").contains("mode 555"));
    }
}
