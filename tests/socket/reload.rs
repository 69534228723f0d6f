//! Reloads under load: sessions on every transport go on while secrets rotate, listeners come and go, and every third
//! configuration is broken.
//!
//! `HALLPASS_RELOADS=100 HALLPASS_RELOAD_SESSIONS=1000` runs the whole test.

use crate::control::{hallpass, start};
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::credentials;
use crate::support::echo::Echo;
use crate::support::files::Directory;
use crate::support::plan::{LOCAL_V4, Plan, SECRET, Transport, free_port};
use crate::support::proc;
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::Session;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const CHANNEL: u16 = 0x4000;
/// Growth that is no leak: the allocator keeps what a burst needed.
const GROWTH_KIB: u64 = 4096;

fn from_env(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Credentials of a user, for any number of clients.
fn login(secret: &str, user: &str) -> Session {
    Session::new(credentials::rest(secret, user, 3600), b"")
}

/// A client with a channel to the peer.
fn call(transport: Transport, server: SocketAddr, login: &Session, peer: SocketAddr) -> Client {
    let mut client = Client::join(Link::open(transport, server), login);
    client.allocate().unwrap_or_else(|code| panic!("{transport:?} {server}: {code}"));
    assert_eq!(client.bind(CHANNEL, peer), 0);
    client
}

/// A server with a control socket, and the path and the text of its configuration.
fn started(plan: Plan) -> (Directory, Server, PathBuf, String) {
    let files = Directory::new("control");
    let server = start(&files, plan);
    let path = server.files().path("hallpass.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    (files, server, path, text)
}

/// Sends a numbered payload of four bytes to the peer, which echoes it.
fn flows(client: &mut Client, number: u32) -> bool {
    client.send_on(CHANNEL, &number.to_be_bytes());
    client.receive().is_ok_and(|message| message[4..8] == number.to_be_bytes())
}

/// Open descriptors and resident memory in KiB.
fn held(server: &Server) -> (usize, u64) {
    (proc::descriptors(server.pid()), proc::memory(server.pid()))
}

/// The configurations, made from the first one.
struct Configurations {
    first: String,
    /// Listeners that come and go.
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Configurations {
    /// The secret after `number` rotations.
    fn secret(number: usize) -> String {
        if number == 0 { SECRET.to_owned() } else { format!("secret number {number} of the tests") }
    }

    /// The good configuration of a reload: every one has other secrets, limits and log levels; every second one has further
    /// listeners.
    fn good(&self, number: usize) -> String {
        let secrets: Vec<_> = (number.saturating_sub(1)..=number).rev().map(Self::secret).collect();
        let text = self.first.replace(&format!("secret = {SECRET:?}"), &format!("secrets = {secrets:?}"));
        let level = if number.is_multiple_of(2) { "info" } else { "warn" };
        let mut text =
            text.replace("[limits]\n", &format!("[limits]\nallocations_total = {}\n", 100_000 + number));
        text += &format!("[log]\nlevel = \"{level}\"\n[web]\nh2 = \"127.0.0.1:{}\"\n", 1000 + number);
        if self.has_more(number) {
            for (transport, address) in [("udp", self.udp), ("tcp", self.tcp)] {
                text += &format!("[[listen]]\ntransport = {transport:?}\naddress = \"{address}\"\n");
            }
        }
        text
    }

    fn has_more(&self, number: usize) -> bool {
        number.is_multiple_of(2)
    }

    /// Broken configurations, each with what the command says.
    fn broken(&self, number: usize, taken: SocketAddr) -> (String, &'static str) {
        let good = self.good(number);
        match number % 4 {
            0 => (format!("{good}\n[["), "error"),
            1 => (format!("{good}\n[limits2]\n"), "unknown key"),
            2 => (good.replace("cert.pem", "missing.pem"), "missing.pem"),
            _ => {
                let more = format!("[[listen]]\ntransport = \"tcp\"\naddress = \"{taken}\"\n");
                (good + &more, "cannot listen on tcp")
            }
        }
    }
}

#[test]
fn sessions_survive_reloads_under_load() {
    let _turn = alone();
    if skip_on_coturn("reload") {
        return;
    }
    let (reloads, sessions) = (from_env("HALLPASS_RELOADS", 30), from_env("HALLPASS_RELOAD_SESSIONS", 200));
    let files = Directory::new("control");
    let server = start(&files, Plan { limits: "workers = 2".to_owned(), ..Plan::loopback() });
    let echo = Echo::start(LOCAL_V4);
    let peer = echo.address();
    let path = server.files().path("hallpass.toml");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let local = |port| SocketAddr::new(LOCAL_V4, port);
    let configurations = Configurations {
        first: fs::read_to_string(&path).expect("the configuration"),
        udp: local(free_port()),
        tcp: local(free_port()),
    };
    let transports = [Transport::Udp, Transport::Udp, Transport::Tcp, Transport::Tls];
    // A user may have 500 allocations.
    let users = [0, 1, 2, 3].map(|user| login(SECRET, &format!("user{user}")));
    let mut clients: Vec<Client> = (0..sessions)
        .map(|number| {
            let transport = transports[number % transports.len()];
            call(transport, server.v4(transport), &users[number / 2 % users.len()], peer)
        })
        .collect();
    let (mut passing, mut before, mut slowest) = (Vec::new(), None, Duration::ZERO);
    let mut number_of_payload = 0;
    for number in 1..=reloads {
        let is_broken = number % 3 == 0;
        let broken = configurations.broken(number, taken.local_addr().expect("bound"));
        let text = if is_broken { broken.0 } else { configurations.good(number) };
        fs::write(&path, text).expect("the configuration");
        let start = Instant::now();
        let ended = hallpass(&files, &["reload"]);
        slowest = slowest.max(start.elapsed());
        assert_eq!(ended.success, !is_broken, "reload {number}: {}", ended.output);
        if is_broken {
            assert!(ended.output.contains(broken.1), "reload {number}: {}", ended.output);
            assert!(ended.output.contains("nothing is applied"), "{}", ended.output);
        } else {
            assert!(ended.output.contains("host.test.secret: "), "{}", ended.output);
            assert!(!ended.output.contains("of the tests"), "a secret is shown: {}", ended.output);
            let user = login(&Configurations::secret(number), "passing");
            let transport = transports[number % transports.len()];
            passing.push(call(transport, server.v4(transport), &user, peer));
            if configurations.has_more(number) {
                // Their sessions go on when the listeners are gone.
                for (transport, address) in
                    [(Transport::Udp, configurations.udp), (Transport::Tcp, configurations.tcp)]
                {
                    passing.push(call(transport, address, &user, peer));
                }
            } else {
                assert!(TcpStream::connect(configurations.tcp).is_err(), "the listener is still open");
            }
        }
        for (index, client) in clients.iter_mut().chain(&mut passing).enumerate() {
            number_of_payload += 1;
            assert!(
                flows(client, number_of_payload),
                "reload {number} dropped session {index}:\n{}",
                server.log()
            );
        }
        // The sessions of a few reloads are there at any time.
        while passing.len() > 12 {
            assert_eq!(passing.remove(0).refresh(0), 0);
        }
        if number == reloads / 3 {
            before = Some(held(&server));
        }
    }
    // The same listeners as when `before` was measured, whose number is even for 30 and odd for 100.
    for number in [reloads + 1, reloads + 2] {
        fs::write(&path, configurations.good(number)).expect("the configuration");
        assert!(hallpass(&files, &["reload"]).success);
    }
    passing.drain(..).for_each(|mut client| assert_eq!(client.refresh(0), 0));
    for client in &mut clients {
        assert_eq!(client.refresh(600), 0);
    }
    let after = held(&server);
    println!(
        "{reloads} reloads, {sessions} sessions: slowest {slowest:.0?}, descriptors and KiB {before:?} -> {after:?}"
    );
    let (descriptors, resident) = before.expect("measured");
    assert!(after.0 <= descriptors + 8, "descriptors: {descriptors} -> {}", after.0);
    assert!(after.1 <= resident + GROWTH_KIB, "KiB: {resident} -> {}", after.1);
}

/// A restart under load: `HALLPASS_RELOAD_SESSIONS` on all transports, whose clients close when the server does.
#[test]
fn a_restart_takes_a_tenth_of_a_second() {
    let _turn = alone();
    if skip_on_coturn("an orderly end") {
        return;
    }
    let sessions = from_env("HALLPASS_RELOAD_SESSIONS", 200);
    let ports = [free_port(), free_port(), free_port()];
    let plan = Plan { ports: Some(ports), limits: "workers = 2".to_owned(), ..Plan::loopback() };
    let files = Directory::new("control");
    let mut server = start(&files, plan);
    let echo = Echo::start(LOCAL_V4);
    let users = [0, 1, 2, 3].map(|user| login(SECRET, &format!("user{user}")));
    let clients: Vec<Client> = (0..sessions)
        .map(|number| {
            let transport = [Transport::Udp, Transport::Tcp, Transport::Tls][number % 3];
            call(transport, server.v4(transport), &users[number % users.len()], echo.address())
        })
        .collect();
    let config = server.files().path("hallpass.toml");
    let start = Instant::now();
    server.signal("TERM");
    // Every client closes as soon as it reads the end of its stream, as a browser does.
    let closing = thread::spawn(move || {
        let streams = clients.into_iter().filter(|client| !matches!(client.link, Link::Udp(_)));
        let is_told = |mut client: Client| {
            client.receive().is_err_and(|error| error.kind() == ErrorKind::UnexpectedEof)
        };
        streams.map(is_told).filter(|is_told| *is_told).count()
    });
    let exit = server.wait_exit(LIMIT).unwrap_or_else(|| panic!("still there:\n{}", server.log()));
    let ended = start.elapsed();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["serve", "--config"]).arg(&config);
    let start = Instant::now();
    let next = Process::spawn(command);
    let udp = Link::open(Transport::Udp, server.v4(Transport::Udp));
    udp.wait_at_most(Duration::from_millis(1));
    let mut first = Client::try_join(udp, &users[0]);
    while first.is_err() && start.elapsed() < LIMIT {
        let udp = Link::open(Transport::Udp, server.v4(Transport::Udp));
        udp.wait_at_most(Duration::from_millis(1));
        first = Client::try_join(udp, &users[0]);
    }
    let served = start.elapsed();
    let told = closing.join().expect("no panic");
    println!(
        "restart with {sessions} sessions: ended {ended:.0?} after SIGTERM, served {served:.0?} after the start"
    );
    assert!(exit.success(), "{exit}");
    assert_eq!(told, sessions - sessions.div_ceil(3), "clients that read a close_notify or a FIN");
    assert!(next.wait_output(LIMIT, |log| log.lines().any(|line| line == "ready")), "{}", next.output());
    assert!(ended < Duration::from_secs(1), "{ended:?}");
    assert!(served < Duration::from_millis(500), "{served:?}");
}

/// A UDP listener that a reload removes serves its sessions until the last one ends, and no newcomer.
#[test]
fn a_removed_udp_listener_closes_with_its_last_session() {
    let _turn = alone();
    if skip_on_coturn("reload") {
        return;
    }
    let files = Directory::new("control");
    let server = start(&files, Plan { limits: "workers = 2".to_owned(), ..Plan::loopback() });
    let echo = Echo::start(LOCAL_V4);
    let peer = echo.address();
    let path = server.files().path("hallpass.toml");
    let first = fs::read_to_string(&path).expect("the configuration");
    let address = SocketAddr::new(LOCAL_V4, free_port());
    let with = format!("{first}\n[[listen]]\ntransport = \"udp\"\naddress = \"{address}\"\n");
    let reload = |text: &str, expected: &str| {
        fs::write(&path, text).expect("the configuration");
        let ended = hallpass(&files, &["reload"]);
        assert!(ended.success && ended.output.contains(expected), "{}", ended.output);
    };
    reload(&with, &format!("listen udp {address}: added"));
    // Enough for both workers to have some.
    let user = login(SECRET, "user");
    let mut clients: Vec<Client> = (0..12).map(|_| call(Transport::Udp, address, &user, peer)).collect();
    reload(&first, &format!("listen udp {address}: removed"));
    assert!((0..).zip(&mut clients).all(|(number, client)| flows(client, number)));
    let newcomer = || {
        let link = Link::open(Transport::Udp, address);
        link.wait_at_most(Duration::from_millis(200));
        Client::try_join(link, &user).is_ok()
    };
    // The command returns when the workers have got the change; they apply it within a turn.
    let end = Instant::now() + LIMIT;
    while newcomer() {
        assert!(Instant::now() < end, "a removed listener answers newcomers");
    }
    reload(&with, &format!("listen udp {address}: added"));
    let end = Instant::now() + LIMIT;
    while !newcomer() {
        assert!(Instant::now() < end, "a listener that is back does not answer");
    }
    reload(&first, &format!("listen udp {address}: removed"));
    let last = clients.split_off(11);
    clients.iter_mut().for_each(|client| assert_eq!(client.refresh(0), 0));
    for (number, mut client) in (0..).zip(last) {
        assert!(flows(&mut client, number));
        assert!(UdpSocket::bind(address).is_err(), "closed before its last session");
        assert_eq!(client.refresh(0), 0);
    }
    assert!(
        server.wait_log(LIMIT, |log| log.contains(&format!("listen udp {address}: closed"))),
        "{}",
        server.log()
    );
    let end = Instant::now() + LIMIT;
    while UdpSocket::bind(address).is_err() {
        assert!(Instant::now() < end, "the port is still bound");
    }
}

#[test]
fn what_needs_a_restart_is_said_and_nothing_is_applied() {
    let _turn = alone();
    if skip_on_coturn("reload") {
        return;
    }
    let (files, server, path, first) = started(Plan::loopback());
    let changed = first.replace("[limits]\n", "[limits]\nworkers = 1\nallocations_per_user = 1\n");
    fs::write(&path, format!("privacy = true\n{changed}")).expect("the configuration");
    let ended = hallpass(&files, &["reload", "--json"]);
    assert!(!ended.success, "{}", ended.output);
    let has = |text: &str| assert!(ended.output.contains(text), "{text}: {}", ended.output);
    has("\"applied\": false");
    has("limits.allocations_per_user: 500 -> 1");
    has("limits.workers: this change needs a restart");
    has("privacy: this change needs a restart");
    has("nothing is applied");
    let mut clients: Vec<Client> = (0..2)
        .map(|_| {
            let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
            Client::log_in(link, server.credentials("one"))
        })
        .collect();
    assert!(clients.iter_mut().all(|client| client.allocate().is_ok()), "the limit is in use");
    fs::write(&path, &first).expect("the configuration");
    let ended = hallpass(&files, &["reload"]);
    assert!(ended.success && ended.output.ends_with("nothing in it has changed\n"), "{}", ended.output);
}

/// The settings of a stream listener change while it is open; its connections stay.
#[test]
fn a_listener_changes_in_place() {
    let _turn = alone();
    if skip_on_coturn("reload") {
        return;
    }
    let (files, server, path, first) = started(Plan::loopback());
    let address = server.v4(Transport::Tcp);
    let mut running = Client::log_in(Link::open(Transport::Tcp, address), server.credentials("one"));
    running.allocate().expect("an allocation");
    let named = format!("address = \"{address}\"\n");
    assert!(first.matches(&named).count() == 1, "{first}");
    let changed = first.replace(&named, &format!("{named}proxy_protocol = [\"10.0.0.1\"]\n"));
    fs::write(&path, changed.replace("[limits]\n", "[limits]\nmss = 1200\n")).expect("the configuration");
    let ended = hallpass(&files, &["reload"]);
    let told = |text: &str| assert!(ended.output.contains(text), "{}", ended.output);
    told(&format!("listen tcp {address}: changed"));
    told("limits.mss: 0 -> 1200");
    assert!(ended.success, "{}", ended.output);
    // Only the proxy may connect now.
    let end = Instant::now() + LIMIT;
    let is_served = || Client::try_join(Link::open(Transport::Tcp, address), &login(SECRET, "late")).is_ok();
    while is_served() {
        assert!(Instant::now() < end, "the listener did not change");
    }
    assert_eq!(running.refresh(600), 0);
}
