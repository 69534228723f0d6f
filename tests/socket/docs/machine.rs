//! A machine for the commands of the documentation, in namespaces of its own: a relay host with the addresses and names of the
//! pages, a private copy of `/etc`, and a network outside with a school and a conference server.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::namespace::within;
use crate::support::process::Process;
use crate::support::tool::{Ended, run_command};

const LIMIT: Duration = Duration::from_secs(30);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NAME: &str = "relay.example.org";
pub const CONFIGURATION: &str = "/etc/hallpass/hallpass.toml";

/// Builds the two networks. `$1` is the directory of the machine. The relay is 198.51.100.10, the conference server
/// 198.51.100.20, and the school 203.0.113.5.
const BUILD: &str = "\
set -e
mount --bind \"$1/etc\" /etc
mount --bind \"$1/bin\" /usr/local/bin
printf '127.0.0.1 localhost\\n::1 localhost\\n198.51.100.10 relay.example.org\\n' >/etc/hosts
: >/etc/resolv.conf
groupadd --system bigbluebutton
mkdir -p /etc/bigbluebutton
ip link set lo up
mkfifo \"$1/outside\"
unshare --net sh -c 'echo up >\"$0/outside\"; exec sleep infinity' \"$1\" &
read -r _ <\"$1/outside\"
ip link add wan type veth peer name wan netns $!
ip address add 198.51.100.10/24 dev wan
ip link set wan up
nsenter --target $! --net sh -e -c '
  ip link set lo up
  ip address add 198.51.100.20/24 dev wan
  ip address add 203.0.113.5/32 dev wan
  ip link set wan up
  ip route replace 198.51.100.0/24 dev wan src 203.0.113.5'
ip route add default via 198.51.100.20
echo \"outside is $!.\"
exec sleep infinity
";

/// Makes the directory of a machine: a copy of `/etc`, its own programs, and a home with what the pages take from the source tree.
fn furnish() -> Directory {
    let files = Directory::new("machine");
    let copied = Command::new("cp").arg("-a").arg("/etc").arg(files.path("etc")).status();
    let is_copied = copied.is_ok_and(|status| status.success());
    assert!(is_copied, "cannot copy /etc: run `cargo test` as root (sudo -E)");
    for directory in ["bin", "home"] {
        fs::create_dir(files.path(directory)).expect("a directory");
    }
    let link = |to: &str, name: &str| symlink(to, files.path(name)).expect("a link");
    link(&format!("{ROOT}/conf"), "home/conf");
    link(env!("CARGO_BIN_EXE_hallpass"), "bin/hallpass");
    // The copy of the secret on the machine that makes load.
    link("/etc/hallpass/ping.secret", "home/ping.secret");
    // The journal has what the relay prints.
    let journal =
        files.write("bin/journalctl", &format!("#!/bin/sh\nexec cat {:?}\n", files.path("journal")));
    fs::set_permissions(journal, fs::Permissions::from_mode(0o755)).expect("a mode");
    files
}

/// Where a command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Relay,
    School,
}

pub struct Machine {
    /// User name, colon and password, for the variable `LOGIN` of commands.
    pub login: String,
    server: Option<Process>,
    /// The first process in the namespaces: when it is killed, all others in them end.
    first: u32,
    outside: PathBuf,
    _keeper: Process,
    files: Directory,
}

impl Machine {
    pub fn new() -> Machine {
        let files = furnish();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", BUILD, "sh"]);
        command.arg(files.path(""));
        let keeper = Process::spawn(command);
        let is_up = keeper.wait_output(LIMIT, |log| log.contains("outside is "));
        let log = keeper.output();
        assert!(is_up, "the machine does not start:\n{log}");
        let outside = log.split("outside is ").nth(1).and_then(|rest| rest.split('.').next());
        let children = format!("/proc/{0}/task/{0}/children", keeper.pid());
        let children = fs::read_to_string(children).expect("the kernel lists children");
        let first = children.trim();
        // The number of the process outside is one of the machine's own, so its own /proc has it.
        let outside = ["/proc", first, "root/proc", outside.expect("a number"), "ns/net"].iter().collect();
        let first = first.parse().expect("one child");
        Machine { login: String::new(), server: None, first, outside, _keeper: keeper, files }
    }

    /// A file of the machine's `/etc`.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.files.path("etc").join(name)
    }

    /// Writes a file where commands run.
    pub fn write(&self, name: &str, content: &str) {
        self.files.write(&format!("home/{name}"), content);
    }

    /// Installs a certificate of this kind, as an ACME client would; its authority is the only one that the machine trusts.
    pub fn install_certificate(&self, kind: Kind) {
        let made = certs::made(kind, NAME);
        for (name, text) in [("ca.pem", &made.ca), ("fullchain.pem", &made.cert), ("privkey.pem", &made.key)]
        {
            fs::write(self.etc("hallpass").join(name), text).expect("a file");
        }
        self.sh(
            Where::Relay,
            "chmod 640 /etc/hallpass/privkey.pem; chgrp hallpass /etc/hallpass/privkey.pem",
        );
    }

    /// Waits until the relay presents the certificate of its files.
    #[track_caller]
    pub fn until_certificate_in_use(&self) {
        let fingerprint = "openssl x509 -noout -fingerprint -sha256";
        self.sh(
            Where::Relay,
            &format!(
                "wanted=$({fingerprint} </etc/hallpass/fullchain.pem)
                 for look in $(seq 200); do
                     shown=$(openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | {fingerprint} 2>/dev/null)
                     [ \"$shown\" = \"$wanted\" ] && exit 0
                     sleep 0.1
                 done
                 echo \"shown: $shown, wanted: $wanted\" >&2; exit 1"
            ),
        );
    }

    /// Returns a command that runs `line` in a shell of the machine.
    fn command(&self, place: Where, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first)).args(["--mount", "--pid"]);
        match place {
            Where::Relay => command.arg("--net"),
            Where::School => command.arg(format!("--net={}", self.outside.display())),
        };
        command.arg(format!("--wd={}", self.files.path("home").display())).args(["sh", "-c", line]);
        command.env("PATH", "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("SSL_CERT_FILE", "/etc/hallpass/ca.pem").env("CURL_CA_BUNDLE", "/etc/hallpass/ca.pem");
        command.env("LC_ALL", "C").env("LOGIN", &self.login);
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HALLPASS_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a line of shell to its end; both of its streams are one output.
    pub fn run(&self, place: Where, line: &str) -> Ended {
        fs::write(self.files.path("journal"), self.log()).expect("a file");
        run_command(self.command(place, &format!("{{ {line}\n}} 2>&1")), LIMIT)
    }

    /// Runs a line of shell that must succeed.
    pub fn sh(&self, place: Where, line: &str) -> String {
        let ended = self.run(place, line);
        assert!(ended.success, "{line}:\n{}", ended.output);
        ended.output
    }

    /// Starts a program that keeps running, and waits until it prints `word`.
    pub fn start(&self, place: Where, line: &str, word: &str) -> Process {
        let process = Process::spawn(self.command(place, &format!("exec {line}")));
        let started = process.wait_output(LIMIT, |log| log.contains(word));
        assert!(started, "{line} does not start:\n{}", process.output());
        process
    }

    /// Starts the relay, in the place of one that runs.
    pub fn serve(&mut self) {
        self.stop();
        let line = format!("hallpass serve --config {CONFIGURATION}");
        self.server = Some(self.start(Where::Relay, &line, "\nready"));
    }

    /// Ends the relay at once.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            self.kill("INT");
            assert!(server.wait_exit(LIMIT).is_some(), "the relay does not end:\n{}", server.output());
        }
    }

    /// Sends the relay a signal, from inside: the process that the test started only waits for it.
    fn kill(&self, signal: &str) {
        self.sh(Where::Relay, &format!("kill -s {signal} $(pidof -s hallpass)"));
    }

    /// Sends the relay a signal and waits until it has logged `word` once more.
    pub fn signal(&self, name: &str, word: &str) {
        let server = self.server.as_ref().expect("a relay");
        let before = server.output().matches(word).count();
        self.kill(name);
        let done = server.wait_output(LIMIT, |log| log.matches(word).count() > before);
        assert!(done, "no {word}:\n{}", server.output());
    }

    pub fn is_serving(&mut self) -> bool {
        self.server.as_mut().is_some_and(Process::is_running)
    }

    pub fn log(&self) -> String {
        self.server.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Waits until the relay has logged a line with all these words.
    #[track_caller]
    pub fn wait_log(&self, words: &[&str]) {
        assert!(self.logs_within(LIMIT, words), "no line with {words:?}:\n{}", self.log());
    }

    /// Returns whether the relay has logged a line with all these words, or does so within this time.
    pub fn logs_within(&self, limit: Duration, words: &[&str]) -> bool {
        let server = self.server.as_ref().expect("a relay");
        server.wait_output(limit, |log| log.lines().any(|line| words.iter().all(|word| line.contains(word))))
    }

    /// Runs `body` on a thread in the network outside; its sockets stay there.
    pub fn outside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        within(self.outside.to_str().expect("a path"), body)
    }
}
