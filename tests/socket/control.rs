//! The commands that steer the running server through its control socket: `hallpass drain` and `hallpass reload`.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::http::get;
use crate::support::plan::{Plan, SECRET, Transport};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::{Ended, run_command};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A server with a control socket in `files`.
pub fn start(files: &Directory, plan: Plan) -> Server {
    let tables = format!("{}\n[control]\nsocket = {:?}\n", plan.tables, files.path("control.sock"));
    Server::start(&Plan { tables, ..plan })
}

fn command(files: &Directory, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(arguments).arg("--socket").arg(files.path("control.sock"));
    command
}

pub fn hallpass(files: &Directory, arguments: &[&str]) -> Ended {
    run_command(command(files, arguments), LIMIT)
}

fn client(server: &Server, transport: Transport, user: &str) -> Client {
    Client::log_in(Link::open(transport, server.v4(transport)), server.credentials(user))
}

/// Two clients of one user with an allocation each, over UDP and TLS.
fn running(server: &Server) -> [Client; 2] {
    [Transport::Udp, Transport::Tls].map(|transport| {
        let mut client = client(server, transport, "w_ann");
        client.allocate().expect("an allocation");
        client
    })
}

#[test]
fn a_drain_shows_who_is_left_and_ends_with_the_last_one() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass drain") {
        return;
    }
    let files = Directory::new("control");
    let mut server = start(&files, Plan::loopback());
    let mut clients = running(&server);
    let drain = Process::spawn(command(&files, &["drain", "--for", "45m"]));
    let told = drain.wait_output(LIMIT, |said| said.contains("1 user with 2 allocations left, for 4"));
    assert!(told, "{}", drain.output());
    let shown = hallpass(&files, &["drain", "--for", "45m", "--no-wait"]).output;
    let row = shown.lines().find(|line| line.contains("w_ann")).unwrap_or_else(|| panic!("{shown}"));
    assert!(row.starts_with("test") && row.contains("tls") && row.contains("udp"), "{row}");
    assert_eq!(get(server.admin(), "/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(client(&server, Transport::Udp, "w_late").allocate(), Err(508));
    clients.iter_mut().for_each(|client| assert_eq!(client.refresh(0), 0));
    let mut drain = drain;
    let exit = drain.wait_exit(LIMIT);
    assert!(exit.is_some_and(|exit| exit.success()), "{}", drain.output());
    assert!(drain.output().contains("nobody is left"), "{}", drain.output());
    assert!(server.is_running(), "a drain does not end the server");
    assert_eq!(client(&server, Transport::Udp, "w_late").allocate(), Err(508), "it is still draining");

    let cancelled = hallpass(&files, &["drain", "--cancel"]);
    assert!(cancelled.success && cancelled.output.contains("takes new users"), "{}", cancelled.output);
    client(&server, Transport::Udp, "w_late").allocate().expect("the drain is over");
    assert_eq!(get(server.admin(), "/readyz"), (200, "ready\n".to_owned()));
}

/// SIGUSR1 has `--cancel` as its way back, and a waiting command notices that the drain was cancelled.
#[test]
fn a_cancelled_drain_ends_the_command_that_waits() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass drain") {
        return;
    }
    let files = Directory::new("control");
    let server = start(&files, Plan::loopback());
    let mut running = client(&server, Transport::Tcp, "w_ann");
    running.allocate().expect("an allocation");
    server.signal("USR1");
    assert!(server.wait_log(LIMIT, |log| log.contains("draining")), "{}", server.log());
    let mut drain = Process::spawn(command(&files, &["drain"]));
    let told = drain.wait_output(LIMIT, |said| said.contains("for 59m") || said.contains("for 1h"));
    assert!(told, "the default is limits.drain_seconds: {}", drain.output());
    assert!(hallpass(&files, &["drain", "--cancel"]).success);
    let exit = drain.wait_exit(LIMIT);
    assert!(exit.is_some_and(|exit| exit.code() == Some(1)), "{}", drain.output());
    assert!(drain.output().contains("was cancelled"), "{}", drain.output());
    assert_eq!(running.refresh(600), 0);
}

#[test]
fn when_the_time_is_over_the_remaining_sessions_end_in_order() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass drain") {
        return;
    }
    let files = Directory::new("control");
    let mut server = start(&files, Plan::loopback());
    let mut clients = running(&server);
    let ended = hallpass(&files, &["drain", "--for", "2s"]);
    assert!(ended.success && ended.output.contains("the last 2 allocations ended"), "{}", ended.output);
    let [on_udp, on_tls] = &mut clients;
    assert_eq!(on_udp.refresh(600), 437);
    let end = on_tls.receive().map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::UnexpectedEof), "a close_notify");
    assert!(server.is_running(), "{}", server.log());
}

#[test]
fn without_a_server_the_command_says_what_to_do() {
    let _turn = beside_others();
    let files = Directory::new("control");
    for (name, expected) in
        [("drain", "is the server running?"), ("reload", "systemctl kill -s HUP hallpass")]
    {
        let ended = hallpass(&files, &[name]);
        assert!(!ended.success && ended.output.contains(expected), "{}", ended.output);
    }
}

/// A file that was changed and not loaded says nothing about the calls: `doctor` and `check --live` name what differs.
#[test]
fn a_changed_file_that_is_not_loaded_is_named() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass doctor") {
        return;
    }
    let files = Directory::new("control");
    let server = start(&files, Plan::loopback());
    let path = server.files().path("hallpass.toml");
    let examine = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.args(arguments).arg("--config").arg(&path);
        run_command(command, LIMIT).output
    };
    let doctor = || examine(&["doctor", "--quiet", "--json"]);
    let before = doctor();
    assert!(!before.contains("not_loaded"), "{before}");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let host = "[[host]]\nname = \"north\"\nsecret = \"north-secret-0123456789\"\npeers = [\"192.0.2.30\"]\n";
    std::fs::write(&path, format!("{text}\n{host}")).expect("our file");
    let told = doctor();
    for part in ["\"not_loaded\"", "does not use", "host.north: added", "hallpass reload"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("north-secret"), "{told}");
    let told = examine(&["check", "--live"]);
    assert!(told.contains("not loaded yet") && told.contains("host.north: added"), "{told}");
    assert!(hallpass(&files, &["reload"]).success);
    let after = doctor();
    assert!(!after.contains("not_loaded"), "{after}");
    assert!(!examine(&["check", "--live"]).contains("not loaded yet"));
    // What the next step says is true: without the host, its calls end.
    let write = |text: &str| std::fs::write(&path, text).expect("our file");
    write(&text);
    let told = doctor();
    assert!(told.contains("this ends at once: users of north") && !told.contains("no call ends"), "{told}");
    // A secret that is not loaded is one fault, not two.
    write(&text.replace(SECRET, "another-secret-0123456789"));
    let told = doctor();
    assert!(told.contains("\"not_loaded\"") && !told.contains("secret_not_loaded"), "{told}");
    // A change that a reload refuses, and one that the start refuses as well.
    write(&format!("privacy = true\n{text}\n{host}"));
    let told = doctor();
    assert!(told.contains("a change of privacy needs a restart") && !told.contains("no call ends"), "{told}");
    write(&text.replace("external_ip = []", "external_ip = ['127.0.0.1/10.99.99.99']"));
    let told = doctor();
    for part in ["\"previous_configuration\"", "do not restart it", "the pair is swapped"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("\"not_loaded\"") && !told.contains("Calls fail"), "{told}");
}

/// A process that was stopped takes connections, because the kernel does that. It must not look like a firewall, and an order
/// whose sender gave up must not be carried out when it wakes.
#[test]
fn a_server_that_hangs_is_named_and_does_nothing_later() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass doctor") {
        return;
    }
    let files = Directory::new("control");
    let server = start(&files, Plan::loopback());
    let path = server.files().path("hallpass.toml");
    server.signal("STOP");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    doctor.args(["doctor", "--quiet", "--json", "--config"]).arg(&path);
    let told = run_command(doctor, LIMIT).output;
    for order in ["POST /drain", "POST /reload"] {
        let mut stream = UnixStream::connect(files.path("control.sock")).expect("the kernel accepts");
        let request = format!("{order} HTTP/1.1\r\nhost: hallpass\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("there is room");
    }
    server.signal("CONT");
    assert!(told.contains("\"server_hangs\"") && told.contains("stopped by a signal"), "{told}");
    assert!(told.contains("kill -CONT") && !told.contains("listener_silent"), "{told}");
    let dropped = |log: &str| log.matches("an order from the control socket is dropped").count() == 2;
    assert!(server.wait_log(LIMIT, dropped), "{}", server.log());
    assert_eq!(get(server.admin(), "/readyz"), (200, "ready\n".to_owned()));
    assert!(!server.log().contains("draining"), "{}", server.log());
    // Orders whose sender waits are carried out as before.
    assert!(hallpass(&files, &["reload"]).success);
}
