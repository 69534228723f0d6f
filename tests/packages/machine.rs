//! A machine that systemd boots: a container with a private copy of this machine's files, and a network of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::tool::{Ended, run, run_command, run_ok};

const LIMIT: Duration = Duration::from_secs(90);
pub const NAME: &str = "relay.example.org";

/// Boots the copy in the directory `$1`. What this machine starts at boot is left out.
const BOOT: &str = "\
set -e
mount -t tmpfs tmpfs \"$1\"
mkdir \"$1/upper\" \"$1/work\" \"$1/tree\"
mount -t overlay overlay -o \"lowerdir=${HALLPASS_TEST_ROOT:-/},upperdir=$1/upper,workdir=$1/work\" \"$1/tree\"
rm -rf \"$1\"/tree/etc/systemd/system/*.wants \"$1/tree/etc/hallpass\"
rm -f \"$1/tree/usr/sbin/policy-rc.d\" \"$1/tree/etc/resolv.conf\" \"$1/tree/var/lib/man-db/auto-update\"
exec systemd-nspawn --quiet --directory=\"$1/tree\" --register=no --keep-unit --private-network --boot \
    --machine=\"$2\" systemd.unit=multi-user.target
";

/// Gives the machine its address.
const NETWORK: &str = "\
ip link add wan type veth peer name far
ip link set far up
ip address add 198.51.100.10/24 dev wan
ip link set wan up
ip route add default dev wan
echo 198.51.100.10 relay.example.org >>/etc/hosts";

/// Why no machine can be booted here, if that is so.
pub fn missing() -> Option<String> {
    let uid = run_ok("id", &["-u"], LIMIT);
    if uid.trim() != "0" {
        return Some("it boots a container: run `cargo test` as root (sudo -E)".to_owned());
    }
    let needed = ["systemd-nspawn", "dpkg", "turnserver", "nsenter", "curl"];
    let absent = needed.into_iter().find(|program| !run("which", &[program], LIMIT).success)?;
    Some(format!("{absent} is missing: run .ci/packages, which installs it"))
}

/// The first child of a process.
fn child(pid: &str) -> String {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the kernel lists children");
    children.split_whitespace().next().expect("a child").to_owned()
}

pub struct Machine {
    /// The first process of the container, whose end is the end of all others.
    first: String,
    _container: Process,
    _files: Directory,
}

impl Machine {
    /// Boots the copy. No file of the project takes part in this, so a failure says something about this machine alone.
    ///
    /// # Errors
    /// Why no container boots here.
    pub fn boot() -> Result<Machine, String> {
        let files = Directory::new("booted");
        let mut command = Command::new("unshare");
        // With processes of its own: the end of the first one ends the container, whatever it is doing.
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", BOOT, "sh"]).arg(files.path(""));
        command.arg(format!("hallpass-{}", std::process::id()));
        // The older hierarchy of control groups lacks what systemd needs, where both are mounted.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let container = Process::spawn(command);
        let is_up = container.wait_output(LIMIT, |log| log.contains("Multi-User System"));
        if !is_up {
            return Err(format!("no container boots here:\n{}", container.output()));
        }
        // unshare, systemd-nspawn, systemd.
        let first = child(&child(&container.pid().to_string()));
        let machine = Machine { first, _container: container, _files: files };
        machine.sh(NETWORK);
        Ok(machine)
    }

    /// A file of the machine.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.first).join("root").join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).expect("a file");
    }

    /// Copies a file into the directory where commands run.
    pub fn copy(&self, from: &Path) {
        let name = from.file_name().expect("a name").to_str().expect("text");
        fs::copy(from, self.path(&format!("srv/{name}"))).expect("a copy");
    }

    /// Runs lines of shell to their end; both of their streams are one output.
    pub fn run(&self, lines: &str) -> Ended {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args(["--", "sh", "-e", "-c", &format!("cd /srv\n{{ {lines}\n}} 2>&1")]);
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C");
        // Programs trust the authority of the test.
        command.env("SSL_CERT_FILE", "/srv/ca.pem").env("CURL_CA_BUNDLE", "/srv/ca.pem").current_dir("/");
        run_command(command, LIMIT)
    }

    /// Runs lines of shell that must succeed.
    #[track_caller]
    pub fn sh(&self, lines: &str) -> String {
        let ended = self.run(lines);
        assert!(ended.success, "{lines}:\n{}", ended.output);
        ended.output
    }

    /// Runs lines of shell that must fail, with this in their output.
    #[track_caller]
    pub fn fails(&self, lines: &str, why: &str) -> String {
        let ended = self.run(lines);
        assert!(!ended.success && ended.output.contains(why), "{lines}:\n{}", ended.output);
        ended.output
    }

    /// Fails unless both services are in these states, according to `systemctl is-active` and `is-enabled`.
    #[track_caller]
    pub fn services(&self, hallpass: [&str; 2], coturn: [&str; 2]) {
        let state = |service: &str| {
            ["is-active", "is-enabled"].map(|what| {
                let ended = self.run(&format!("systemctl {what} {service}"));
                ended.output.lines().next_back().unwrap_or_default().to_owned()
            })
        };
        let seen = [state("hallpass"), state("coturn")];
        assert_eq!(seen, [hallpass, coturn].map(|pair| pair.map(str::to_owned)), "{}", self.journal());
    }

    /// The process of a service; 0 if it does not run.
    pub fn pid(&self, service: &str) -> String {
        self.sh(&format!("systemctl show --property MainPID --value {service}"))
    }

    /// Waits until a service runs.
    #[track_caller]
    pub fn wait_active(&self, service: &str) {
        let wait =
            format!("timeout 60 sh -c 'until systemctl is-active --quiet {service}; do sleep 0.1; done'");
        let ended = self.run(&wait);
        assert!(ended.success, "{service} does not start:\n{}", self.journal());
    }

    /// Waits until the journal of the relay has this text.
    #[track_caller]
    pub fn wait_journal(&self, text: &str) {
        let wait = format!("journalctl --no-pager --follow --lines=all --unit=hallpass | grep -m 1 '{text}'");
        assert!(self.run(&format!("timeout 30 sh -c \"{wait}\"")).success, "no {text}:\n{}", self.journal());
    }

    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager --output=cat --lines=40 --unit=hallpass").output
    }

    /// Replaces its network by a link to this namespace, where it is called `up0`.
    pub fn connect(&self, namespace: &str, address: &str) {
        self.sh("ip link delete wan");
        let near = ["link", "add", "wan", "netns", &self.first, "type", "veth"];
        run_ok("ip", &[&near[..], &["peer", "name", "up0", "netns", namespace]].concat(), LIMIT);
        self.sh(&format!(
            "ip address add {address}/24 dev wan; ip link set wan up; ip route add default dev wan"
        ));
    }

    /// Puts a certificate of [`NAME`] where certbot keeps it.
    pub fn obtain_certificate(&self, kind: Kind) {
        self.obtain_certificate_for(kind, NAME);
    }

    /// Puts a certificate of this name where certbot keeps it.
    pub fn obtain_certificate_for(&self, kind: Kind, name: &str) {
        let made = certs::made(kind, name);
        let live = format!("etc/letsencrypt/live/{name}");
        self.sh(&format!("mkdir -p /{live} /etc/letsencrypt/renewal-hooks/deploy"));
        self.write("srv/ca.pem", &made.ca);
        self.write(&format!("{live}/fullchain.pem"), &made.cert);
        self.write(&format!("{live}/privkey.pem"), &made.key);
    }
}
