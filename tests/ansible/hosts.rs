//! The control node and the hosts, built by `hosts.sh`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::process::Process;
use crate::support::tool::{run_command, run_ok};
use crate::{LIMIT, ROOT, XML};

/// The relays first.
pub const NAMES: [&str; 5] = ["relay", "socket", "ping", "watchdog", "boot"];
const VAULT: &str = "ansible/inventory/group_vars/all/vault.yml";

/// What a playbook printed.
pub struct Ran {
    pub output: String,
    pub success: bool,
}

impl Ran {
    /// Returns the number of changed tasks of a host.
    pub fn changed(&self, host: &str) -> u32 {
        let recap = self.output.split("PLAY RECAP").nth(1).unwrap_or_else(|| panic!("{}", self.output));
        let line = recap.lines().find(|line| line.split_whitespace().next() == Some(host));
        let count =
            line.and_then(|line| line.split("changed=").nth(1)).and_then(|rest| rest.split(' ').next());
        count
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("no recap of {host}:\n{}", self.output))
    }

    /// Returns the output with every line break and indentation as one blank.
    pub fn words(&self) -> String {
        self.output.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Returns a directory with `ansible`, a copy of the roles as an operator takes it.
pub fn copy_of_the_roles() -> Directory {
    let files = Directory::new("ansible");
    let to = files.path("ansible");
    run_ok("cp", &["-rL", &format!("{ROOT}/conf/ansible"), to.to_str().unwrap()], LIMIT);
    files
}

pub struct Hosts {
    programs: PathBuf,
    /// The first process in the namespaces of the control node.
    first: String,
    _keeper: Process,
    files: Directory,
}

impl Hosts {
    /// Builds the hosts: BigBlueButton on three of them, nothing on the relays.
    pub fn new(programs: &Path) -> Hosts {
        assert_eq!(run_ok("id", &["-u"], LIMIT).trim(), "0", "run `cargo test` as root (sudo -E)");
        let files = copy_of_the_roles();
        for script in ["systemctl", "sysctl", "ssh"] {
            fs::copy(format!("{ROOT}/tests/ansible/{script}"), files.path(script)).unwrap();
            fs::set_permissions(files.path(script), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(files.path("hosts")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh"]);
        command.arg(format!("{ROOT}/tests/ansible/hosts.sh")).arg(files.path(""));
        command.args(NAMES.iter().zip(10..).map(|(name, number)| format!("{name}=198.51.100.{number}")));
        let keeper = Process::spawn(command);
        let is_up = keeper.wait_output(LIMIT, |log| log.contains("hosts are up"));
        assert!(is_up, "the hosts do not start:\n{}", keeper.output());
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid())).unwrap();
        let first = children.trim().to_owned();
        let hosts = Hosts { programs: programs.to_owned(), first, _keeper: keeper, files };
        hosts.furnish();
        hosts
    }

    fn furnish(&self) {
        self.files.write("password", "of the vault\n");
        let binary = self.files.path("hallpass");
        // Without its debug information, because it is copied to each relay.
        run_ok("strip", &["-o", binary.to_str().unwrap(), env!("CARGO_BIN_EXE_hallpass")], LIMIT);
        let archive = self.files.path("hallpass-0.1.0.tar.gz");
        let directory = self.files.path("");
        let pack = "mkdir hallpass-0.1.0 && ln hallpass hallpass-0.1.0 && tar -cf - hallpass-0.1.0 | gzip -1 >\"$1\"";
        let mut command = Command::new("sh");
        command.args(["-e", "-c", pack, "sh"]).arg(&archive).current_dir(&directory);
        assert!(run_command(command, LIMIT).success);
        for relay in &NAMES[..2] {
            let name = format!("{relay}.example.org");
            certs::write(
                Kind::Good,
                &name,
                &self.files.path(&format!("{relay}.pem")),
                &self.files.path(&format!("{relay}.key")),
            );
        }
        let at = directory.display();
        let mut variables = format!(
            "hallpass_relay_tls_cert_src: \"{at}/{{{{ inventory_hostname }}}}.pem\"\n\
             hallpass_relay_tls_key_src: \"{at}/{{{{ inventory_hostname }}}}.key\"\n"
        );
        let _ = writeln!(variables, "hallpass_relay_binary: {}", binary.display());
        self.files.write("ansible/inventory/group_vars/hallpass_relays/main.yml", &variables);
        fs::create_dir(self.files.path("ansible/inventory/host_vars")).unwrap();
        self.set_variables(
            "socket",
            &format!("hallpass_relay_binary: \"\"\nhallpass_relay_tarball: {}\n", archive.display()),
        );
        for host in &NAMES[2..] {
            self.on(
                host,
                "groupadd --system bigbluebutton && useradd --system -g bigbluebutton bigbluebutton && mkdir -p /etc/bigbluebutton",
            );
        }
    }

    /// Returns a command in the namespaces of the control node.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first)).args(["--mount", "--pid", "--net"]);
        command.arg(format!("--wd={}", self.files.path("ansible").display())).arg(program);
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HALLPASS_HOSTS", self.files.path("hosts"));
        command.env("ANSIBLE_SSH_EXECUTABLE", self.files.path("ssh"));
        command.env("ANSIBLE_VAULT_PASSWORD_FILE", self.files.path("password"));
        command
            .env("ANSIBLE_LOCAL_TEMP", self.files.path("tmp"))
            .env("ANSIBLE_HOME", self.files.path("home"));
        for (name, value) in [
            ("ANSIBLE_SSH_TRANSFER_METHOD", "piped"),
            ("ANSIBLE_SSH_ARGS", ""),
            ("ANSIBLE_REMOTE_USER", "root"),
            ("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3"),
            ("ANSIBLE_NOCOLOR", "1"),
            ("LC_ALL", "C.UTF-8"),
        ] {
            command.env(name, value);
        }
        command
    }

    /// Runs the playbook.
    pub fn play(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(&self.programs.join("ansible-playbook"));
        command.arg("site.yml").args(arguments);
        let ended = run_command(command, LIMIT);
        Ran { output: ended.output, success: ended.success }
    }

    /// Runs a line of shell on a host; it must succeed.
    #[track_caller]
    pub fn on(&self, host: &str, line: &str) -> String {
        let mut command = self.command(&self.files.path("ssh"));
        command.args([&format!("{host}.example.org"), line]);
        let ended = run_command(command, LIMIT);
        assert!(ended.success, "{host}: {line}:\n{}", ended.output);
        ended.output
    }

    /// Returns what the stand-in of systemctl was asked to change on a host.
    pub fn calls(&self, host: &str) -> Vec<String> {
        self.on(host, "cat /var/log/systemctl 2>/dev/null || true").lines().map(str::to_owned).collect()
    }

    /// Returns the files and calls of all hosts as one text.
    pub fn state(&self) -> String {
        let line = format!(
            "cat /var/log/systemctl /var/log/sysctl 2>/dev/null; \
             stat -c '%n %U:%G %a %Y' /etc/hallpass/* /usr/bin/hallpass /etc/systemd/system/hallpass.service {XML} 2>/dev/null; \
             getent passwd hallpass; cat /etc/hallpass/* {XML} 2>/dev/null | sha256sum"
        );
        let each = NAMES.iter().map(|host| format!("{host}:\n{}", self.on(host, &line)));
        each.collect()
    }

    /// Returns the secrets of the first `[[host]]` of a relay.
    pub fn secrets(&self, relay: &str) -> Vec<String> {
        let text = self.on(relay, "grep -m 1 '^secrets = ' /etc/hallpass/hallpass.toml");
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Tries a relay from the control node, with the secret in the list of a BigBlueButton host. Returns the report with single
    /// blanks.
    pub fn doctor(&self, relay: &str, host: &str) -> String {
        let list = self.on(host, &format!("cat {XML}"));
        let secret = list.split("index=\"0\" value=\"").nth(2).and_then(|rest| rest.split('"').next());
        let secret = self.files.write("secret", secret.expect("a secret"));
        let mut command = self.command(&self.files.path("hallpass"));
        command.args(["doctor", "--quiet", "--no-proxy", "--exact", "--secret-file"]).arg(secret);
        command.arg(format!("turn:{relay}.example.org:3479"));
        let report = run_command(command, LIMIT).output;
        report.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Writes the seed of all secrets into the vault.
    pub fn set_seed(&mut self, seed: &str) {
        let vault = self.files.write(VAULT, &format!("hallpass_secret_seed: \"{seed}\"\n"));
        let mut command = self.command(&self.programs.join("ansible-vault"));
        command.arg("encrypt").arg(&vault);
        let ended = run_command(command, LIMIT);
        assert!(ended.success, "{}", ended.output);
        assert!(fs::read_to_string(vault).unwrap().starts_with("$ANSIBLE_VAULT"));
    }

    /// Adds a line at the end of the inventory, which is the group of the BigBlueButton hosts.
    pub fn add_host(&mut self, line: &str) {
        let file = "ansible/inventory/hosts.yml";
        let inventory = fs::read_to_string(self.files.path(file)).unwrap();
        self.files.write(file, &format!("{inventory}        {line}\n"));
    }

    /// Writes variables of one host.
    pub fn set_variables(&self, host: &str, yaml: &str) {
        self.files.write(&format!("ansible/inventory/host_vars/{host}.yml"), yaml);
    }
}
