//! The Ansible roles of `conf/ansible`, run against two relays and three BigBlueButton hosts in namespaces of this machine.
//!
//! ansible-core and ansible-lint come from PyPI, into a virtual environment below `target`. Without them the tests that need
//! them say so and end.
#![allow(clippy::disallowed_methods, reason = "external programs run on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod hosts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use hosts::{Hosts, NAMES, Ran};
use support::server::skip_on_coturn;
use support::tool::{run_command, run_ok};

const LIMIT: Duration = Duration::from_secs(300);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const XML: &str = "/etc/bigbluebutton/turn-stun-servers.xml";

/// Returns the directory with the programs of Ansible, or `None` if they cannot be installed.
fn ansible() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ansible");
        let programs = environment.join("bin");
        if !programs.join("ansible-lint").exists() {
            let script = "python3 -m venv \"$1\" && \"$1/bin/pip\" install --quiet --requirement \"$2\"";
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(&environment);
            command.arg(Path::new(ROOT).join("tests/ansible/requirements.txt"));
            let ended = run_command(command, LIMIT);
            if !ended.success {
                println!("cannot install Ansible:\n{}", ended.output);
                return None;
            }
        }
        Some(programs)
    });
    if programs.is_none() {
        println!("skipped: ansible-core and ansible-lint are not there and cannot be installed from PyPI");
    }
    programs.as_deref()
}

fn roles() -> PathBuf {
    Path::new(ROOT).join("conf/ansible")
}

/// What the roles say about wrong inventories and secrets.
#[test]
fn the_filters_find_what_is_wrong() {
    let script = Path::new(ROOT).join("tests/ansible/filters.py");
    let roles = roles();
    let output = run_ok("python3", &["-B", script.to_str().unwrap(), roles.to_str().unwrap()], LIMIT);
    assert!(output.contains("all as expected"), "{output}");
}

#[test]
fn ansible_lint_is_content_with_the_production_profile() {
    let Some(programs) = ansible() else { return };
    // A copy, because ansible-lint writes beside what it reads, and looks for the root of a Git repository.
    let copy = hosts::copy_of_the_roles();
    let mut command = Command::new(programs.join("ansible-lint"));
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    command.args(["--offline", "--nocolor"]).current_dir(copy.path("ansible")).env("PATH", path);
    let ended = run_command(command, LIMIT);
    assert!(ended.success, "{}", ended.output);
    let passed = ended.output.contains("Profile 'production' was required, and it passed");
    assert!(passed, "it must have judged by the production profile:\n{}", ended.output);
}

/// A run that must succeed.
#[track_caller]
fn succeeds(ran: &Ran) {
    assert!(ran.success, "{}", ran.output);
}

/// A run that must fail with these words and change nothing.
#[track_caller]
fn stops(hosts: &Hosts, ran: &Ran, before: &str, words: &[&str]) {
    assert!(!ran.success, "it must stop:\n{}", ran.output);
    for word in words {
        assert!(ran.words().contains(word), "no {word:?} in:\n{}", ran.output);
    }
    assert_eq!(hosts.state(), before, "{}", ran.output);
}

/// The life of an installation: made, run again, a wrong secret, another host, a rotation.
#[test]
fn two_relays_and_three_hosts() {
    if skip_on_coturn("the Ansible roles") {
        return;
    }
    let Some(programs) = ansible() else { return };
    let mut hosts = Hosts::new(programs);
    hosts.set_seed("Xk3mY8q0Zt5vB2nR7pLwD4sG9hJ1cF6a");

    // Check mode before the first run.
    let untouched = hosts.state();
    let ran = hosts.play(&["--check"]);
    succeeds(&ran);
    assert!(ran.changed("relay") > 0 && ran.changed("ping") > 0, "{}", ran.output);
    assert_eq!(hosts.state(), untouched, "check mode changed something");

    // The first run. The relay `socket` is installed from an archive.
    succeeds(&hosts.play(&[]));
    for relay in ["relay", "socket"] {
        assert_eq!(hosts.calls(relay), ["daemon-reload", "enable hallpass", "start hallpass"]);
        let file = hosts.on(relay, "stat -c '%U:%G %a' /etc/hallpass /etc/hallpass/hallpass.toml");
        assert_eq!(file, "root:hallpass 750\nroot:hallpass 640\n");
    }
    for (host, relay) in [("ping", "relay"), ("watchdog", "socket")] {
        assert_eq!(hosts.calls(host), ["restart bbb-web"]);
        let list = hosts.on(host, &format!("cat {XML}"));
        assert!(list.contains(&format!("turns:{relay}.example.org:443?transport=tcp")), "{list}");
        assert_eq!(hosts.on(host, &format!("stat -c '%U:%G %a' {XML}")), "root:bigbluebutton 640\n");
        // With the secret of its list a client gets an allocation.
        assert!(hosts.doctor(relay, host).contains("ok UDP 3479 direct allocation"));
    }

    // The second run changes nothing.
    let settled = hosts.state();
    let ran = hosts.play(&[]);
    succeeds(&ran);
    for host in ["relay", "socket", "ping", "watchdog"] {
        assert_eq!(ran.changed(host), 0, "{}", ran.output);
    }
    assert_eq!(hosts.state(), settled);

    // A wrong secret stops the run before anything is written or reloaded.
    hosts.set_seed("aF6cJ1hG9sD4wLp7Rn2bB5vt0Zq8Ym3k");
    let ran = hosts.play(QUICK);
    stops(
        &hosts,
        &ran,
        &settled,
        &["ping: the secret in use there is not that of the inventory", "all hosts differ"],
    );
    hosts.set_seed("Xk3mY8q0Zt5vB2nR7pLwD4sG9hJ1cF6a");

    // A wrong setting is found by `hallpass check`, before one of the relays has changed.
    let wrong = r#"{"hallpass_relay_settings": {"limits": {"alocations_per_user": 3}}}"#;
    let ran = hosts.play(&[QUICK, &["--extra-vars", wrong]].concat());
    stops(&hosts, &ran, &settled, &["alocations_per_user", "The old configuration stays in use."]);

    // A third host is one line. In the same run the secret of ping is rotated: the relay accepts both, then the list changes.
    hosts.add_host("boot: {ansible_host: boot.example.org, hallpass_via: socket}");
    hosts.set_variables("ping", "hallpass_secret_generation: 2\nhallpass_secret_generation_previous: 1\n");
    let old = hosts.secrets("relay");
    let ran = hosts.play(&["--limit", "ping"]);
    stops(
        &hosts,
        &ran,
        &settled,
        &["has a secret that is not this host's", "The relay would refuse users of ping"],
    );
    let ran = hosts.play(&[QUICK, &["-vvv"]].concat());
    succeeds(&ran);
    assert_eq!(hosts.calls("socket").last().unwrap(), "reload hallpass");
    assert_eq!(hosts.calls("boot"), ["restart bbb-web"]);
    assert_eq!((ran.changed("watchdog"), hosts.calls("watchdog").len()), (0, 1));
    let both = hosts.secrets("relay");
    assert!(both.len() == 2 && both[1] == old[0], "the new secret first, then the old one");
    assert_eq!(hosts.calls("ping").len(), 2);
    let list = hosts.on("ping", &format!("cat {XML}"));
    assert!(list.contains(&both[0]) && !list.contains(&both[1]), "{list}");
    for secret in &both {
        assert!(!ran.output.contains(secret.as_str()), "a secret is printed:\n{}", ran.output);
    }
    for (host, relay) in [("ping", "relay"), ("boot", "socket")] {
        assert!(hosts.doctor(relay, host).contains("ok UDP 3479 direct allocation"));
    }

    // The old one cannot be removed while credentials made with it are valid.
    hosts.set_variables("ping", "hallpass_secret_generation: 2\n");
    let rotated = hosts.state();
    stops(&hosts, &hosts.play(QUICK), &rotated, &["relay would no longer accept a secret of ping"]);
}

/// Leaves out the installation of the program.
const QUICK: &[&str] = &["--skip-tags", "hallpass_install"];

/// Every host of the test is one that it builds.
#[test]
fn the_inventory_that_is_shipped_has_the_hosts_of_this_test() {
    let shipped = fs::read_to_string(roles().join("inventory/hosts.yml")).unwrap();
    for name in NAMES.iter().filter(|name| **name != "boot") {
        assert!(
            shipped.contains(&format!(" {name}: {{ansible_host: {name}.example.org")),
            "{name}: {shipped}"
        );
    }
}
