//! The example configurations, and those of the firewall.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::tool::{run_command, run_ok};
use crate::{LIMIT, ROOT, text};

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("conf").join(name)).expect("an example")
}

/// With the files that each example asks for, `check` accepts it as it is.
#[test]
fn check_accepts_every_example() {
    let names = ["relay.toml", "socket.toml", "bbb-host.toml"];
    for name in names {
        let directory = Directory::new("example");
        let etc = directory.path("");
        let example =
            example(&format!("examples/{name}")).replace("/etc/hallpass", text(&etc).trim_end_matches('/'));
        for line in example.lines().filter_map(|line| line.strip_prefix("secret_file = ")) {
            fs::write(line.trim_matches('"'), format!("a secret for the file {line}\n")).expect("a secret");
            run_ok("chmod", &["600", line.trim_matches('"')], LIMIT);
        }
        let realm = example
            .lines()
            .find_map(|line| line.strip_prefix("realm = "))
            .expect("a realm")
            .trim_matches('"');
        certs::write(Kind::Good, realm, &directory.path("fullchain.pem"), &directory.path("privkey.pem"));
        let file = directory.write(name, &example);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.arg("check").arg("--config").arg(&file);
        let ended = run_command(command, LIMIT);
        assert!(ended.success, "{name}:\n{}", ended.output);
        // The ports of the project: 3479 over UDP and TCP, 5349 and 443 over TLS.
        for port in ["udp", "tcp"].map(|kind| format!("listen    {kind} ")) {
            let line = ended.output.lines().find(|line| line.starts_with(&port)).expect("a listener");
            assert!(line.contains(":3479:"), "{name}: {line}");
        }
        for port in [":5349:", ":443:"] {
            let has = |line: &str| line.starts_with("listen    tls ") && line.contains(port);
            assert!(ended.output.lines().any(has), "{name}: {}", ended.output);
        }
    }
    let all = fs::read_dir(Path::new(ROOT).join("conf/examples")).expect("the examples").count();
    assert_eq!(all, names.len(), "an example is not tested");
}

/// The rules load, twice, and open the ports of the examples.
#[test]
fn nft_accepts_the_firewall_rules() {
    let directory = Directory::new("nft");
    // The machine of the test has no user hallpass.
    let rules = example("nftables.conf").replace("\"hallpass\"", "\"nobody\"");
    let file = directory.write("nftables.conf", &rules);
    let load = format!("nft -f {0} && nft -f {0} && nft list table inet hallpass", text(&file));
    let shown = run_ok("unshare", &["--net", "sh", "-c", &load], LIMIT);
    for part in ["22, 80, 443, 3479, 5349", "443, 3479 }", "49152-65535", "skuid", "policy drop"] {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
}
