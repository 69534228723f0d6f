//! How a server ends, how it restarts, and how it reports why it cannot start.

use crate::machine::until;
use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::plan::{Plan, Transport, free_port};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, ALTERNATE_SERVER, REQUESTED_TRANSPORT, Session, binding_request, read_message,
};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

fn join(server: &Server, transport: Transport, session: &Session) -> Client {
    Client::join(Link::open(transport, server.v4(transport)), session)
}

/// Row 22.
#[test]
fn a_stopping_server_names_an_alternate_for_two_seconds() {
    let _turn = beside_others();
    if skip_on_coturn("an orderly end by SIGTERM") {
        return;
    }
    let mut server = Server::start(&Plan {
        tables: "[drain]\nalternate_server = [\"203.0.113.11:3478\"]\ntls_alternate_server = [\"203.0.113.12:443\"]"
            .to_owned(),
        ..Plan::loopback()
    });
    let session = Session::new(server.credentials("call"), b"");
    let mut running = TRANSPORTS.map(|transport| {
        let mut client = join(&server, transport, &session);
        client.allocate().expect("an allocation");
        client
    });
    let start = Instant::now();
    server.signal("TERM");
    let stopping = server.wait_log(LIMIT, |log| log.contains("stopping (SIGTERM)"));
    assert!(stopping, "{}", server.log());
    // The log line may come shortly before the workers apply the command.
    let [on_udp, streams @ ..] = &mut running;
    assert!(until(LIMIT, || on_udp.refresh(600) == 437).is_some(), "the allocation has not ended");
    for client in streams {
        assert!(client.receive().is_err_and(|error| error.kind() == ErrorKind::UnexpectedEof));
    }
    let mut told = Vec::new();
    for transport in TRANSPORTS {
        let mut late = join(&server, transport, &session);
        let answer = late.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &[17, 0, 0, 0])]);
        let value = answer.attribute(ALTERNATE_SERVER).map(<[u8]>::to_vec);
        told.push((answer.error_code(), value.map(|value| u16::from_be_bytes([value[2], value[3]]))));
    }
    println!("row 22: newcomers on UDP, TCP and TLS while it stops: {told:?}");
    assert_eq!(told, [(Some(300), Some(3478)), (Some(300), Some(3478)), (Some(300), Some(443))]);
    let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still running:\n{}", server.log()));
    println!("row 22: ended {:?} after SIGTERM, {exit}", start.elapsed());
    assert!(exit.success(), "{exit}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

/// Row 22.
#[test]
fn after_kill_9_the_same_ports_answer_within_a_second() {
    let _turn = beside_others();
    let plan = Plan { ports: Some([free_port(), free_port(), free_port()]), ..Plan::loopback() };
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let mut server = Server::start(&plan);
        let session = Session::new(server.credentials("unlucky"), b"");
        let clients = TRANSPORTS.map(|transport| {
            let mut client = join(&server, transport, &session);
            client.allocate().expect("an allocation");
            client
        });
        server.signal("KILL");
        assert!(server.wait_exit(LIMIT).is_some());
        let start = Instant::now();
        // Includes the time to create the test's certificates.
        let next = Server::start(&plan);
        for transport in TRANSPORTS {
            join(&next, transport, &session).allocate().expect("an allocation");
        }
        longest = longest.max(start.elapsed());
        drop(clients);
    }
    println!("row 22: allocations by all transports {longest:.1?} after kill -9 at most");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// Runs a server with this configuration until it ends: returns its exit code, how long it ran, and its output.
fn refused(config: &str, files: &Directory) -> (Option<i32>, Duration, String) {
    let path = files.write("hallpass.toml", config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["serve", "--config"]).arg(path);
    let start = Instant::now();
    let mut process = Process::spawn(command);
    let exit = process.wait_exit(LIMIT);
    (exit.and_then(|exit| exit.code()), start.elapsed(), process.output())
}

/// Row 23.
#[test]
fn startup_errors_name_the_problem_and_the_fix() {
    let _turn = beside_others();
    if skip_on_coturn("errors with file, line and remedy") {
        return;
    }
    let files = Directory::new("mistakes");
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let holder = format!("(pid {})", std::process::id());
    let broken =
        files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    let (broken, missing) = (broken.display().to_string(), files.path("missing").display().to_string());
    let secret = files.path("directory");
    std::fs::create_dir(&secret).unwrap();
    let secret = secret.display().to_string();
    let base = |listen: &str, transport: &str, rest: &str| {
        format!(
            "realm = \"relay.test\"\n[[listen]]\ntransport = \"{transport}\"\naddress = \"{listen}\"\n\
             [relay]\naddresses = [\"127.0.0.1\"]\nports = \"10000-10100\"\n{rest}"
        )
    };
    let host = "[[host]]\nname = \"x\"\nsecret = \"a secret long enough\"\n";
    let free = || format!("127.0.0.1:{}", free_port());
    let (udp_port, tcp_port) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let cases: Vec<(&str, String, Vec<String>)> = vec![
        (
            "a broken certificate",
            base(&free(), "tls", &format!("{host}[tls]\ncert = \"{broken}\"\nkey = \"{broken}\"\n")),
            vec![broken.clone()],
        ),
        (
            "no certificate",
            base(&free(), "tls", &format!("{host}[tls]\ncert = \"{missing}\"\nkey = \"{missing}\"\n")),
            vec![missing.clone()],
        ),
        (
            "a taken UDP port",
            base(&udp_port.to_string(), "udp", host),
            vec![
                udp_port.port().to_string(),
                holder.clone(),
                "choose another port, or move that program".to_owned(),
            ],
        ),
        (
            "a taken TCP port",
            base(&tcp_port.to_string(), "tcp", host),
            vec![tcp_port.port().to_string(), holder.clone()],
        ),
        (
            "a taken admin port",
            base(&free(), "udp", &format!("{host}[admin]\naddress = \"{tcp_port}\"\n")),
            vec![tcp_port.port().to_string(), holder],
        ),
        (
            "no such secret",
            base(&free(), "udp", &format!("[[host]]\nname = \"x\"\nsecret_file = \"{missing}\"\n")),
            vec!["hallpass.toml:10".to_owned(), missing],
        ),
        (
            "an unreadable secret",
            base(&free(), "udp", &format!("[[host]]\nname = \"x\"\nsecret_file = \"{secret}\"\n")),
            vec!["hallpass.toml:10".to_owned(), secret],
        ),
        (
            "an unknown key",
            base(&free(), "udp", &format!("{host}[limits]\nallocation_total = 5\n")),
            vec!["hallpass.toml:12".to_owned(), "allocations_total".to_owned()],
        ),
        (
            "a value out of range",
            base(&free(), "udp", &format!("{host}[limits]\nmss = 7\n")),
            vec!["hallpass.toml:12".to_owned(), "mss".to_owned()],
        ),
        ("no TOML", base(&free(), "udp", "[[host\n"), vec!["hallpass.toml:8".to_owned()]),
        (
            "an address of another machine",
            base("203.0.113.9:3478", "udp", host),
            vec!["203.0.113.9".to_owned(), "write an address of this machine".to_owned()],
        ),
    ];
    let (mut longest, mut faults) = (Duration::ZERO, Vec::new());
    for (what, config, expected) in &cases {
        let (code, took, output) = refused(config, &files);
        longest = longest.max(took);
        if code.is_none_or(|code| code == 0) {
            faults.push(format!("{what}: ended with {code:?}\n{output}"));
        }
        let missing = expected.iter().filter(|text| !output.contains(text.as_str()));
        faults.extend(missing.map(|text| format!("{what}: {text:?} is not in\n{output}")));
    }
    println!("row 23: {} errors, each reported within {longest:.1?}; faults: {}", cases.len(), faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

/// Row 22: an orderly shutdown closes open connections at once.
#[test]
fn a_shutdown_closes_connections_in_order() {
    let _turn = beside_others();
    if skip_on_coturn("an orderly shutdown by SIGTERM") {
        return;
    }
    let mut server = Server::start(&Plan::loopback());
    let mut stream = TcpStream::connect(server.v4(Transport::Tcp)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    std::io::Write::write_all(&mut stream, &binding_request(1)).unwrap();
    assert_eq!(read_message(&mut stream).expect("an answer").id, 1);
    server.signal("TERM");
    let exit = server.wait_exit(LIMIT);
    assert!(exit.is_some_and(|exit| exit.success()), "{exit:?}\n{}", server.log());
    let end = std::io::Read::read(&mut stream, &mut [0; 10]);
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}
