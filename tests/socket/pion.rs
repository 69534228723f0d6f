//! pion's client, which many conference servers embed: an unreachable peer must not affect others.

use crate::support::beside_others;
use crate::support::echo::Echo;
use crate::support::files::Directory;
use crate::support::http::get;
use crate::support::plan::{LOCAL_V4, Plan, REALM, Transport, free_port};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::run_command;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const PINGS: u32 = 10;
/// Includes building Go's standard library and pion on a busy machine.
const BUILD_LIMIT: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(60);

/// Builds the program from the sources in Debian's packages, without a download.
fn build(files: &Directory) -> PathBuf {
    let program = files.path("pion");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg("pion.go");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket"));
    command.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
    command.env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"));
    let ended = run_command(command, BUILD_LIMIT);
    let remedy = "needs golang-go and golang-github-pion-turn.v2-dev";
    assert!(ended.success, "pion ({remedy}):\n{}", ended.output);
    program
}

/// Returns how many pings to the reachable peer were answered, over UDP and over TCP.
fn answered(server: &Server) -> [u32; 2] {
    let files = Directory::new("pion");
    let program = build(&files);
    let peer = Echo::start(LOCAL_V4);
    let gone = SocketAddr::new(LOCAL_V4, free_port());
    [Transport::Udp, Transport::Tcp].map(|transport| {
        let credentials = server.credentials("pion");
        let mut command = Command::new(&program);
        command.arg(server.v4(transport).to_string()).arg(format!("{transport:?}").to_lowercase());
        command.args([&credentials.username, &credentials.password, REALM]);
        command.args([peer.address().to_string(), gone.to_string(), PINGS.to_string()]);
        let ended = run_command(command, LIMIT);
        println!("pion over {transport:?}: {}", ended.output.trim());
        let line = ended.output.lines().find(|line| line.ends_with(" answered")).unwrap_or_default();
        line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    })
}

#[test]
fn an_unreachable_peer_does_not_end_the_pings_to_another() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    assert_eq!(answered(&server), [PINGS; 2]);
    if skip_on_coturn("metrics") {
        return;
    }
    let (_, metrics) = get(server.admin(), "/metrics");
    let icmp = metrics.lines().filter(|line| line.starts_with("hallpass_worker_icmp_total"));
    let icmp: f64 = icmp.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!(icmp >= f64::from(PINGS), "the peer was not unreachable: {icmp} ICMP errors");
}
