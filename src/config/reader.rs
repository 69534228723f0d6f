//! The user that reads the files of the configuration, and the commands that let this user read one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user of the systemd unit and of the Debian package.
const SERVICE: &str = "hallpass";
/// User ids that systemd gives to units with `DynamicUser=` (systemd.exec(5)). No file can belong to one for long.
const DYNAMIC_UIDS: std::ops::RangeInclusive<u32> = 61_184..=65_519;
const ROOT: u32 = 0;
/// User ids of people.
const PEOPLE: std::ops::RangeInclusive<u32> = 1_000..=60_000;

/// The user that must be able to read a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// Its name, or the number of one without a name.
    user: String,
    /// Its group, by name or number.
    group: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The superuser, on a machine without the service's user.
    Root,
    /// A user whose number is gone when the service stops.
    Dynamic,
    /// A person: of Debian's and systemd's users, those from 1000 on.
    Person,
    /// Every other user.
    Static,
}

impl Reader {
    /// The user that runs this program. Root checks configurations for the service, so for root it is the service's user, if
    /// this machine has it.
    pub fn current() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (uid, gid) = fs::metadata("/proc/self").map_or((ROOT, ROOT), |own| (own.uid(), own.gid()));
        Self::of(uid, gid, &read("/etc/passwd"), &read("/etc/group"))
    }

    /// `users` and `groups` are the texts of `/etc/passwd` and `/etc/group`.
    fn of(uid: u32, gid: u32, users: &str, groups: &str) -> Self {
        let entry = |text: &str, at: usize, value: &str| {
            let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
            text.lines().map(fields).find(|fields| fields.get(at).is_some_and(|field| field == value))
        };
        let name = |text, number: &str| {
            entry(text, 2, number).and_then(|fields| fields.into_iter().next()).unwrap_or(number.to_owned())
        };
        let of_service = || entry(users, 0, SERVICE)?.get(3).map(|gid| name(groups, gid));
        if uid == ROOT {
            return match of_service() {
                Some(group) => Self { user: SERVICE.to_owned(), group, kind: Kind::Static },
                None => Self { user: "root".to_owned(), group: "root".to_owned(), kind: Kind::Root },
            };
        }
        let number = uid.to_string();
        let has_name = entry(users, 2, &number).is_some();
        let kind = match uid {
            _ if DYNAMIC_UIDS.contains(&uid) && !has_name => Kind::Dynamic,
            _ if PEOPLE.contains(&uid) && has_name => Kind::Person,
            _ => Kind::Static,
        };
        Self { user: name(users, &number), group: name(groups, &gid.to_string()), kind }
    }

    /// The command that makes a file with a new secret, which this user can read.
    pub fn make_secret(&self, file: &Path) -> String {
        let shown = file.display();
        let make = |options: &str| {
            format!(
                "if users have this secret already, restore the file: BigBlueButton's turn-stun-servers.xml has the secret; otherwise \
                 put the secret into it: openssl rand -base64 32 | install {options} /dev/stdin {shown}"
            )
        };
        match self.kind {
            Kind::Root => make("-m 600"),
            Kind::Person | Kind::Static => make(&format!("-m 640 -g {}", self.group)),
            Kind::Dynamic => self.become_static(),
        }
    }

    /// What to do after permission was denied to read `file`.
    pub fn let_read(&self, file: &Path) -> String {
        let Self { user, group, kind } = self;
        match kind {
            Kind::Dynamic => return self.become_static(),
            // Taken from the service's user, it would keep the relay from starting.
            Kind::Person => {
                return format!(
                    "run this command as root: sudo hallpass ...; user {user} may not read {}",
                    file.display()
                );
            }
            Kind::Root | Kind::Static => {}
        }
        match closed_directory(file) {
            Some(directory) => format!(
                "user {user} may not enter {0}: chgrp {group} {0} && chmod 750 {0}, or keep the file in another directory",
                directory.display()
            ),
            None => format!("let user {user} read it: chgrp {group} {0} && chmod 640 {0}", file.display()),
        }
    }

    /// What to do if `file` is a directory or a device.
    pub fn name_regular_file(&self) -> String {
        format!("name a regular file that user {} can read", self.user)
    }

    fn become_static(&self) -> String {
        format!(
            "user id {} is gone when the service stops, so no file can belong to it: write User={SERVICE} instead of \
             DynamicUser= into the unit, as conf/hallpass.service has it",
            self.user
        )
    }
}

/// Returns the first directory above `file` that this program may not enter.
fn closed_directory(file: &Path) -> Option<&Path> {
    let is_closed = |directory: &&Path| {
        let looked = fs::metadata(directory.join("."));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let mut all: Vec<&Path> = file.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    all.reverse();
    all.into_iter().find(is_closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nrelay:x:985:\nstaff:x:1001:bob\n";
    const FILE: &str = "/etc/hallpass/ping.secret";

    fn reader(uid: u32, gid: u32, users: &str) -> Reader {
        Reader::of(uid, gid, users, GROUPS)
    }

    #[test]
    fn root_prepares_files_for_the_user_of_the_service() {
        let users = format!("{USERS}hallpass:x:990:985::/:/usr/sbin/nologin\n");
        let of_root = reader(0, 0, &users);
        assert_eq!(of_root, reader(990, 985, &users), "the service reads what root was told to make");
        let file = Path::new(FILE);
        // A new secret in the place of one that users have would refuse them all.
        let told = of_root.make_secret(file);
        assert!(told.starts_with("if users have this secret already, restore the file"), "{told}");
        let command = format!("openssl rand -base64 32 | install -m 640 -g relay /dev/stdin {FILE}");
        assert!(told.ends_with(&format!("put the secret into it: {command}")), "{told}");
        assert_eq!(
            of_root.let_read(file),
            format!("let user hallpass read it: chgrp relay {FILE} && chmod 640 {FILE}")
        );
        // A machine without the service's user: for a first test.
        assert!(reader(0, 0, USERS).make_secret(file).contains("| install -m 600 /dev/stdin"));
    }

    #[test]
    fn other_users_prepare_files_for_themselves() {
        let make = |uid, gid| reader(uid, gid, USERS).make_secret(Path::new(FILE));
        assert!(make(1000, 1001).contains("install -m 640 -g staff /dev/stdin"));
        // In a container a user often has no name.
        assert!(make(1234, 1234).contains("install -m 640 -g 1234 /dev/stdin"));
    }

    /// A command that gives a person what belongs to the service would stop the service.
    #[test]
    fn a_person_asks_root() {
        let users = format!("{USERS}anna:x:1000:1001::/:/bin/bash\n");
        let told = reader(1000, 1001, &users).let_read(Path::new(FILE));
        assert!(
            told.contains("sudo hallpass") && !told.contains("chgrp") && !told.contains("chmod"),
            "{told}"
        );
        assert!(reader(999, 1001, &users).let_read(Path::new(FILE)).contains("chgrp"), "a service");
    }

    #[test]
    fn a_dynamic_user_owns_nothing() {
        let dynamic = reader(61_184, 61_184, USERS);
        for told in [dynamic.make_secret(Path::new(FILE)), dynamic.let_read(Path::new(FILE))] {
            assert!(
                told.contains("User=hallpass") && !told.contains("chgrp") && !told.contains("install"),
                "{told}"
            );
        }
        let named = format!("{USERS}someone:x:61184:985::/:/bin/sh\n");
        assert!(reader(61_184, 985, &named).let_read(Path::new(FILE)).contains("chgrp relay"));
    }
}
