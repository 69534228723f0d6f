//! What other users of the machine, and web pages in a browser on it, get to read.

use crate::support::beside_others;
use crate::support::http::get_as;
use crate::support::plan::Plan;
use crate::support::server::{Server, only_hallpass};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// How many lines of `log` since `from` warn of `file`.
fn warnings(log: &str, from: usize, file: &Path) -> usize {
    let file = file.display().to_string();
    let warns = |line: &&str| line.contains("every user of this host may read") && line.contains(&file);
    log[from..].lines().filter(warns).count()
}

/// Every reading of a file that others may read is warned of, and no other.
#[test]
fn secrets_that_every_user_may_read_are_warned_of_whenever_they_are_read() {
    let _turn = beside_others();
    if only_hallpass("warnings of modes of files") {
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
        // The last line of both.
        let read = server.wait_log(LIMIT, |log| log[before..].contains("the certificate that is in use"));
        assert!(read, "SIG{signal}: {}", &server.log()[before..]);
        let log = server.log();
        told.push((warnings(&log, before, &config), warnings(&log, before, key)));
    }
    println!("warnings of a readable configuration and key, by SIGHUP and SIGUSR2: {told:?}");
    assert_eq!(told, [(0, 0), (0, 0), (1, 1), (0, 1)]);
}

/// DNS rebinding: the browser sends the name of the stranger's page.
#[test]
fn no_web_page_reads_the_metrics_by_a_name_of_its_own() {
    let _turn = beside_others();
    if only_hallpass("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let port = server.admin().port();
    let ask = |host: &str| get_as(server.admin(), &format!("{host}:{port}"), "/metrics");
    let (status, body) = ask("rebound.example.net");
    println!("a request for the metrics by a stranger's name: {status}");
    assert!(status == 421 && !body.contains("hallpass_") && body.contains("names = "), "{status}: {body}");
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        assert_eq!(ask(host).0, 200, "{host}");
    }
}
