//! The admin address, over a plain socket.

use crate::support::beside_others;
use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::http::{get, get_over};
use crate::support::plan::{LOCAL_V4, Plan, Transport, lay_out_hallpass};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use crate::support::tool::{Ended, run_command, run_ok};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn health_and_readiness() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.admin(), path).0, 200, "{path}");
    }
    assert_eq!(get(server.admin(), "/no-such-page").0, 404);
}

/// The server waits for its certificate, which is a pipe without a writer yet.
#[test]
fn not_ready_before_the_listeners_accept_nor_in_a_drain() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let files = Directory::new("starting");
    let layout = lay_out_hallpass(&Plan::loopback(), &files);
    let certificate = fs::read(&layout.cert).unwrap();
    fs::remove_file(&layout.cert).unwrap();
    run_ok("mkfifo", &[layout.cert.to_str().unwrap()], LIMIT);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["serve", "--config"]).arg(&layout.config);
    let mut server = Process::spawn(command);
    let end = Instant::now() + LIMIT;
    while TcpStream::connect(layout.admin).is_err() {
        assert!(server.is_running() && Instant::now() < end, "no admin address:\n{}", server.output());
    }
    let (status, reason) = get(layout.admin, "/readyz");
    assert_eq!((status, reason.as_str()), (503, "waiting for the certificate, the listeners, the workers\n"));
    assert_eq!(get(layout.admin, "/healthz").0, 200, "it is alive");
    let (status, metrics) = get(layout.admin, "/metrics");
    assert!(status == 200 && metrics.contains("\nhallpass_ready 0\n"), "{metrics}");
    assert!(!metrics.contains("hallpass_allocations"), "no metrics of the workers yet: {metrics}");
    let tcp = layout.listeners.iter().find(|(transport, _)| *transport == Transport::Tcp).unwrap().1;
    assert!(TcpStream::connect(tcp).is_err(), "a listener accepts before the server is ready");
    assert!(!server.output().contains("ready"), "{}", server.output());

    fs::write(&layout.cert, certificate).unwrap();
    assert!(server.wait_output(LIMIT, |log| log.contains("ready")), "{}", server.output());
    assert_eq!(get(layout.admin, "/readyz"), (200, "ready\n".to_owned()));
    assert!(TcpStream::connect(tcp).is_ok());
    let metrics = get(layout.admin, "/metrics").1;
    assert!(
        metrics.contains("\nhallpass_ready 1\n") && metrics.contains("\nhallpass_allocations{"),
        "{metrics}"
    );

    server.signal("USR1");
    assert!(server.wait_output(LIMIT, |log| log.contains("draining")), "{}", server.output());
    assert_eq!(get(layout.admin, "/readyz"), (503, "draining\n".to_owned()));
    assert!(get(layout.admin, "/metrics").1.contains("\nhallpass_ready 0\n"));
}

#[test]
fn metrics_are_prometheus_text_without_names_of_users() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut client = Client::log_in(
        Link::open(Transport::Udp, server.v4(Transport::Udp)),
        server.credentials("w_somebody"),
    );
    client.allocate().expect("an allocation");
    let (status, body) = get(server.admin(), "/metrics");
    assert_eq!(status, 200, "{body}");
    let mut samples = 0;
    for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some(), "not a sample: {line:?}");
        samples += 1;
    }
    assert!(samples > 0 && body.contains("# TYPE "), "{body}");
    assert!(!body.contains("w_somebody"), "a user id in the metrics:\n{body}");
}

/// An address that other machines reach has TLS and wants a token. The commands can still ask it: on the server itself with
/// the configuration, elsewhere with the token and a certificate to trust.
#[test]
fn an_address_for_other_machines_has_tls_and_a_token() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    const TOKEN: &str = "the-token-of-the-test";
    let secrets = Directory::new("token");
    let token_file = secrets.write("token", &format!("{TOKEN}\n"));
    let lines = format!("token_file = {token_file:?}");
    let plan = Plan { admin: ("0.0.0.0".parse().expect("literal"), lines), ..Plan::loopback() };
    let server = Server::start(&plan);

    let ask = |path: &str, token: Option<&str>| {
        let field = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        get_over(tls::connect(server.admin()), &server.admin().to_string(), path, &field)
    };
    assert_eq!(ask("/metrics", None).0, 401);
    assert_eq!(ask("/metrics", Some("another-token-of-the-test")).0, 401);
    let (status, metrics) = ask("/metrics", Some(TOKEN));
    assert!(status == 200 && metrics.contains("\nhallpass_ready 1\n"), "{metrics}");
    assert_eq!(ask("/readyz", None), (200, "ready\n".to_owned()));
    let (_, overview) = ask("/overview", Some(TOKEN));
    assert!(overview.contains("\"problems\": []"), "{overview}");

    let hallpass = |arguments: &[&str], files: &[(&str, &Path)]| -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.arg("sessions").args(arguments);
        files.iter().for_each(|(option, path)| {
            command.arg(option).arg(path);
        });
        run_command(command, LIMIT)
    };
    let (cert, _) = server.certificate_files();
    let config = server.files().path("hallpass.toml");
    let admin = server.admin().to_string();
    let url = format!("https://{admin}");
    let ca = server.files().path("ca.pem");
    for (arguments, files) in [
        (&[][..], &[("--config", &*config)][..]),
        (&["--admin", &url][..], &[("--ca-file", cert), ("--token-file", &*token_file)][..]),
        (&["--admin", &url][..], &[("--ca-file", &*ca), ("--token-file", &*token_file)][..]),
    ] {
        let ended = hallpass(arguments, files);
        assert!(ended.success && ended.output == "no sessions\n", "{files:?}: {}", ended.output);
    }
    let renewed = certs::made(Kind::Good, "second.test");
    let foreign = secrets.write("foreign.pem", &renewed.ca);
    for (arguments, files, told) in [
        (&["--admin", &url][..], &[("--ca-file", cert)][..], "it wants a token"),
        (
            &["--admin", &url][..],
            &[("--ca-file", cert), ("--token-file", cert)][..],
            "does not accept this token",
        ),
        (&["--admin", &url][..], &[("--ca-file", &*foreign)][..], "its certificate is not accepted"),
        (&["--admin", &admin][..], &[][..], "cannot ask the server"),
    ] {
        let ended = hallpass(arguments, files);
        assert!(!ended.success && ended.output.contains(told), "{told}: {}", ended.output);
    }

    // A certificate that does not fit the key is not used, and the command says so.
    fs::write(cert, &renewed.cert).unwrap();
    let ended = hallpass(&[], &[("--config", &config)]);
    assert!(
        ended.output.contains("another certificate") && ended.output.contains("reload"),
        "{}",
        ended.output
    );
    fs::write(server.certificate_files().1, &renewed.key).unwrap();
    assert!(server.wait_log(LIMIT, |log| log.contains("new certificate in use")), "{}", server.log());
    assert!(hallpass(&[], &[("--config", &config)]).success);
}

/// A certificate for the admin pages alone serves them, and nobody else.
#[test]
fn a_certificate_of_its_own_and_a_token_work_on_loopback_too() {
    let _turn = beside_others();
    if skip_on_coturn("the admin address") {
        return;
    }
    let files = Directory::new("own");
    let (cert, key) = (files.path("admin.pem"), files.path("admin.key"));
    certs::write(Kind::SelfSigned, "admin.test", &cert, &key);
    let token_file = files.write("token", "the-token-of-the-test\n");
    let lines = format!("cert = {cert:?}\nkey = {key:?}\ntoken_file = {token_file:?}");
    let plan = Plan { admin: (LOCAL_V4, lines), ..Plan::loopback() };
    let server = Server::start(&plan);
    let config = server.files().path("hallpass.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["refusals", "--config"]).arg(&config);
    let ended = run_command(command, LIMIT);
    assert!(ended.success && ended.output == "no refusals\n", "{}", ended.output);
    let shown = |address| tls::certificate(&tls::connect(address).conn);
    assert_ne!(shown(server.admin()), shown(server.v4(Transport::Tls)));
    // A browser's login is accepted.
    let login = "Authorization: Basic YWRtaW46dGhlLXRva2VuLW9mLXRoZS10ZXN0\r\nAccept: text/html\r\n";
    let (status, page) = get_over(tls::connect(server.admin()), "relay.example.org", "/", login);
    assert!(status == 200 && page.contains("<html"), "{page}");
}
