//! What other users of the machine, and web pages in a local browser, can read.

use crate::support::beside_others;
use crate::support::http::get_as;
use crate::support::plan::Plan;
use crate::support::server::{Server, skip_on_coturn};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Counts the lines of `log` after `from` that warn about `file`.
fn warnings(log: &str, from: usize, file: &Path) -> usize {
    let file = file.display().to_string();
    let warns = |line: &&str| line.contains("every user of this host may read") && line.contains(&file);
    log[from..].lines().filter(warns).count()
}

/// Reading a world-readable file with a secret logs a warning each time; other files log none.
#[test]
fn every_read_of_a_world_readable_secret_logs_a_warning() {
    let _turn = beside_others();
    if skip_on_coturn("warnings about file modes") {
        return;
    }
    let tables = "[log]\nlevel = \"debug\"".to_owned();
    let server = Server::start(&Plan { tables, ..Plan::loopback() });
    let (config, key) = (server.files().path("hallpass.toml"), server.certificate_files().1);
    let mut told = Vec::new();
    for (signal, mode) in [("HUP", 0o640), ("USR2", 0o640), ("HUP", 0o644), ("USR2", 0o644)] {
        chmod(&config, mode);
        chmod(key, mode);
        let before = server.log().len();
        server.signal(signal);
        // The last line that both signals log.
        let read = server.wait_log(LIMIT, |log| log[before..].contains("the certificate that is in use"));
        assert!(read, "SIG{signal}: {}", &server.log()[before..]);
        let log = server.log();
        told.push((warnings(&log, before, &config), warnings(&log, before, key)));
    }
    println!("warnings about a readable configuration and key, at SIGHUP and SIGUSR2: {told:?}");
    assert_eq!(told, [(0, 0), (0, 0), (1, 1), (0, 1)]);
}

/// DNS rebinding: the browser sends the host name of the attacker's page.
#[test]
fn a_foreign_host_name_cannot_read_the_metrics() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let port = server.admin().port();
    let ask = |host: &str| get_as(server.admin(), &format!("{host}:{port}"), "/metrics");
    let (status, body) = ask("rebound.example.net");
    println!("a request for the metrics under a foreign host name: {status}");
    assert!(status == 421 && !body.contains("hallpass_") && body.contains("names = "), "{status}: {body}");
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        assert_eq!(ask(host).0, 200, "{host}");
    }
}
