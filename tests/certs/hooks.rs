//! The hooks of ACME clients, run in a directory of the test with a `systemctl` that records its arguments.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use crate::support::tool::{Ended, run_command, run_ok};
use crate::{LIMIT, certs as certs_path};

/// A group that exists on every Debian, in place of `hallpass`.
const GROUP: &str = "nogroup";

/// Exits with the content of `active` for `is-active` and of `kill` for `kill`. Appends the arguments of a `kill` to
/// `calls`, and runs `on-signal`.
const SYSTEMCTL: &str = "#!/bin/sh\nhere=\"$(dirname \"$0\")\"\ncase \"$1\" in is-active) exit \"$(cat \"$here/active\")\" ;; esac\n\
                         echo \"$*\" >>\"$here/calls\"\nsh \"$here/on-signal\"\nexit \"$(cat \"$here/kill\")\"\n";

/// The environment of the hooks: the directories of the ACME client and of Hallpass, and `systemctl`.
struct Host {
    client: Directory,
    hallpass: Directory,
    bin: Directory,
}

impl Host {
    fn new() -> Host {
        let uid = run_ok("id", &["-u"], LIMIT);
        assert_eq!(uid.trim(), "0", "hooks run as root: run `cargo test` as root (sudo -E)");
        let host = Host {
            client: Directory::new("acme"),
            hallpass: Directory::new("etc-hallpass"),
            bin: Directory::new("bin"),
        };
        let systemctl = host.bin.write("systemctl", SYSTEMCTL);
        fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        host.bin.write("active", "0");
        host.bin.write("kill", "0");
        host.bin.write("on-signal", "");
        host
    }

    /// Puts a certificate for `name` where the ACME client keeps it.
    fn renew(&self, name: &str) {
        certs::write(Kind::Good, name, &self.client.path("fullchain.pem"), &self.client.path("privkey.pem"));
    }

    fn hook(&self, script: &Path, variables: &[(&str, &Path)]) -> Ended {
        let mut command = Command::new(script);
        let path = format!("{}:{}", self.bin.path("").display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", path)
            .env("HALLPASS_DIRECTORY", self.hallpass.path(""))
            .env("HALLPASS_GROUP", GROUP);
        command.envs(variables.iter().copied());
        run_command(command, LIMIT)
    }

    fn certbot(&self) -> Ended {
        let lineage = self.client.path("");
        self.hook(&certs_path("hooks/certbot-deploy.sh"), &[("RENEWED_LINEAGE", &lineage)])
    }

    fn acme_sh(&self) -> Ended {
        let (chain, key) = (self.client.path("fullchain.pem"), self.client.path("privkey.pem"));
        let paths: [(&str, &Path); 2] = [("CERT_FULLCHAIN_PATH", &chain), ("CERT_KEY_PATH", &key)];
        self.hook(&certs_path("hooks/acme.sh-reload.sh"), &paths)
    }

    /// Counts the reloads of the server; all must use the same arguments.
    fn reloads(&self) -> usize {
        let calls = fs::read_to_string(self.bin.path("calls")).unwrap_or_default();
        let words = "kill --kill-who=main --signal=USR2 hallpass.service";
        assert!(calls.lines().all(|line| line == words), "{calls}");
        calls.lines().count()
    }

    /// Fails unless the pair for `name` is installed with the right modes and nothing else.
    fn serves(&self, name: &str) {
        let made = certs::made(Kind::Good, name);
        let read = |file: &str| fs::read_to_string(self.hallpass.path(file)).unwrap();
        assert!(
            read("fullchain.pem") == made.cert && read("privkey.pem") == made.key,
            "not the pair for {name}"
        );
        let group: u32 =
            run_ok("getent", &["group", GROUP], LIMIT).split(':').nth(2).unwrap().parse().unwrap();
        for (file, mode) in [("fullchain.pem", 0o644), ("privkey.pem", 0o640)] {
            let about = fs::metadata(self.hallpass.path(file)).unwrap();
            assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, group, mode), "{file}");
        }
        let names: Vec<_> =
            fs::read_dir(self.hallpass.path("")).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[track_caller]
fn succeeds(ended: Ended) {
    assert!(ended.success && ended.output.is_empty(), "{}", ended.output);
}

#[track_caller]
fn fails(ended: Ended, why: &str) {
    assert!(!ended.success && ended.output.contains(why), "{}", ended.output);
}

#[test]
fn a_renewal_is_installed_with_one_reload() {
    type Hook = fn(&Host) -> Ended;
    for hook in [Host::certbot as Hook, Host::acme_sh] {
        let host = Host::new();
        host.renew("first.test");
        succeeds(hook(&host));
        host.serves("first.test");
        succeeds(hook(&host));
        assert_eq!(host.reloads(), 1, "the second run has nothing to do");
        host.renew("second.test");
        succeeds(hook(&host));
        host.serves("second.test");
        assert_eq!(host.reloads(), 2);
        // A mode that was changed by hand is corrected.
        fs::set_permissions(host.hallpass.path("privkey.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        succeeds(hook(&host));
        host.serves("second.test");
    }
}

#[test]
fn a_hook_that_is_a_link_works() {
    let host = Host::new();
    host.renew("first.test");
    let link = host.bin.path("deploy-hook");
    symlink(certs_path("hooks/certbot-deploy.sh"), &link).unwrap();
    let lineage = host.client.path("");
    succeeds(host.hook(&link, &[("RENEWED_LINEAGE", &lineage)]));
    host.serves("first.test");
}

/// certbot runs it after the renewal of every certificate of the machine.
#[test]
fn the_hook_in_certbots_directory_acts_on_the_served_names_alone() {
    let host = Host::new();
    let together = Directory::new("lib");
    for folder in ["hooks", "renewal-hooks"] {
        for entry in fs::read_dir(certs_path(folder)).unwrap().flatten() {
            fs::copy(entry.path(), together.path("").join(entry.file_name())).unwrap();
        }
    }
    let link = host.bin.path("hallpass");
    symlink(together.path("certbot-renewal"), &link).unwrap();
    let lineage = host.client.path("");
    let renewed = || host.hook(&link, &[("RENEWED_LINEAGE", &lineage)]);
    host.renew("relay.test");
    succeeds(renewed());
    assert_eq!(fs::read_dir(host.hallpass.path("")).unwrap().count(), 0, "nothing is served yet");
    succeeds(host.certbot());
    host.renew("mail.test");
    succeeds(renewed());
    host.serves("relay.test");
    assert_eq!(host.reloads(), 1);
    let (chain, key) = (host.client.path("fullchain.pem"), host.client.path("privkey.pem"));
    certs::write(Kind::Rsa2048, "relay.test", &chain, &key);
    succeeds(renewed());
    assert_eq!(fs::read(host.hallpass.path("fullchain.pem")).unwrap(), fs::read(&chain).unwrap());
    assert_eq!(host.reloads(), 2);
    fails(host.hook(&link, &[]), "RENEWED_LINEAGE is not set");
}

#[test]
fn a_failed_hook_keeps_the_old_pair() {
    let host = Host::new();
    host.renew("first.test");
    succeeds(host.certbot());
    host.renew("second.test");
    let lineage = host.client.path("");
    let hook = certs_path("hooks/certbot-deploy.sh");
    let with = |name: &'static str, value: &str| {
        host.hook(&hook, &[("RENEWED_LINEAGE", &lineage), (name, Path::new(value))])
    };
    fails(with("HALLPASS_GROUP", "no-such-group-here"), "create the group no-such-group-here");
    fails(with("HALLPASS_DIRECTORY", "/nonexistent/hallpass"), "no directory /nonexistent/hallpass");
    fails(host.hook(&hook, &[]), "RENEWED_LINEAGE is not set");
    fails(host.hook(&certs_path("hooks/acme.sh-reload.sh"), &[]), "CERT_KEY_PATH is not set");
    fs::remove_file(host.client.path("privkey.pem")).unwrap();
    fails(host.certbot(), "there is no key in");
    host.client.write("privkey.pem", "");
    fails(host.certbot(), "there is no key in");
    host.serves("first.test");
    // The second of the two renames fails, because a directory that is not empty is in the way.
    host.renew("second.test");
    let chain = host.hallpass.path("fullchain.pem");
    let first = fs::read(&chain).unwrap();
    fs::remove_file(&chain).unwrap();
    fs::create_dir(&chain).unwrap();
    fs::write(chain.join("here"), "").unwrap();
    fails(host.certbot(), "the old certificate stays");
    fs::remove_dir_all(&chain).unwrap();
    fs::write(&chain, first).unwrap();
    run_ok("chgrp", &[GROUP, chain.to_str().unwrap()], LIMIT);
    fs::set_permissions(&chain, fs::Permissions::from_mode(0o644)).unwrap();
    host.serves("first.test");
    assert_eq!(host.reloads(), 1, "a failed hook causes no reload");
}

#[test]
fn a_stopped_server_is_not_reloaded_and_a_failed_reload_is_an_error() {
    let host = Host::new();
    host.renew("first.test");
    host.bin.write("active", "3");
    succeeds(host.certbot());
    host.serves("first.test");
    assert_eq!(host.reloads(), 0, "it reads the files when it starts");
    host.renew("second.test");
    host.bin.write("active", "0");
    host.bin.write("kill", "1");
    fails(host.certbot(), "systemctl reload hallpass.service");
    host.serves("second.test");
}

/// End to end: a server reads what the hook installs.
#[test]
fn a_running_server_shows_the_new_certificate() {
    if skip_on_coturn("the hooks") {
        return;
    }
    let host = Host::new();
    host.renew("first.test");
    succeeds(host.certbot());
    let (chain, key) = (host.hallpass.path("fullchain.pem"), host.hallpass.path("privkey.pem"));
    let server = Server::start(&Plan::loopback());
    // The server reads the files at its own paths; from now on the hook installs there.
    let (cert, own_key) = server.certificate_files();
    for (from, to) in [(&chain, cert), (&key, own_key)] {
        fs::remove_file(to).unwrap();
        symlink(from, to).unwrap();
    }
    host.bin.write("on-signal", &format!("kill -USR2 {}", server.pid()));
    let shown = || tls::certificate(&tls::connect(server.v4(Transport::Tls)).conn);
    let before = shown();
    host.renew("third.test");
    let start = server.log().len();
    succeeds(host.certbot());
    let read = server.wait_log(LIMIT, |log| log[start..].contains("new certificate in use"));
    assert!(read, "{}", server.log());
    assert_ne!(shown(), before);
}
