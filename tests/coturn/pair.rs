//! coturn and Hallpass with the same configuration, each in a network of its own with the same addresses.

use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link, tcp_from, udp_from};
use crate::support::credentials::{self, Credentials};
use crate::support::echo::Echo;
use crate::support::files::Directory;
use crate::support::namespace::{self, Lab, shell, within};
use crate::support::plan::Transport;
use crate::support::process::Process;
use crate::support::stun::Session;
use crate::support::tls;
use crate::support::tool::run_command;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a client waits for an answer, also from a port where nobody listens.
const PATIENCE: Duration = Duration::from_secs(2);
/// The server's address in every vector.
const SERVER: &str = "10.20.0.5";
/// Addresses of peers that echo.
const PEERS: [&str; 6] =
    ["203.0.113.50", "10.20.0.50", "11.22.33.44", "192.0.2.40", "192.0.2.99", "172.16.0.9"];

/// A port of the server.
#[derive(Clone, Copy, Debug)]
pub enum Port {
    Udp(u16),
    Tcp(u16),
    Tls(u16),
}

pub fn udp(port: u16) -> Port {
    Port::Udp(port)
}

pub fn tcp(port: u16) -> Port {
    Port::Tcp(port)
}

pub fn tls(port: u16) -> Port {
    Port::Tls(port)
}

impl Port {
    fn parts(self) -> (Transport, SocketAddr) {
        let (transport, port) = match self {
            Port::Udp(port) => (Transport::Udp, port),
            Port::Tcp(port) => (Transport::Tcp, port),
            Port::Tls(port) => (Transport::Tls, port),
        };
        (transport, SocketAddr::new(SERVER.parse().unwrap(), port))
    }
}

/// What a client logs in with.
pub struct Login {
    credentials: Credentials,
    realm: &'static str,
}

impl Login {
    /// Time-limited credentials under a secret.
    pub fn rest(secret: &str, realm: &'static str) -> Login {
        Login { credentials: credentials::rest(secret, "w_x", 3600), realm }
    }

    /// A user with a password.
    pub fn fixed(name: &str, password: &str, realm: &'static str) -> Login {
        Login { credentials: Credentials { username: name.to_owned(), password: password.to_owned() }, realm }
    }

    fn session(&self) -> Session {
        Session::in_realm(self.credentials.clone(), b"", self.realm)
    }
}

/// The network of one server: client, server and peers behind a router.
struct World {
    lab: Lab,
    peers: Vec<(IpAddr, Option<Echo>)>,
    server: Option<Process>,
}

impl World {
    fn new() -> World {
        let lab = Lab::new();
        shell(&lab.server, &format!("ip addr add {SERVER}/32 dev up0"));
        shell(&lab.router, &format!("ip route add {SERVER}/32 via {}", namespace::SERVER));
        let mut peers = Vec::new();
        for peer in PEERS {
            shell(&lab.peer, &format!("ip addr add {peer}/32 dev up0"));
            shell(&lab.router, &format!("ip route add {peer}/32 via {}", namespace::PEER));
            let ip: IpAddr = peer.parse().unwrap();
            peers.push((ip, Some(within(&lab.peer, || Echo::start(ip)))));
        }
        World { lab, peers, server: None }
    }

    fn start(&mut self, program: &str, arguments: &[String]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lab.server, program]).args(arguments);
        command.current_dir(std::env::temp_dir());
        self.server = Some(Process::spawn(command));
    }

    /// Waits until the server answers a client.
    fn wait(&mut self, port: Port) {
        let end = Instant::now() + LIMIT;
        while within(&self.lab.client, || answers(port)).is_none() {
            let server = self.server.as_mut().expect("a server");
            assert!(server.is_running() && Instant::now() < end, "no answer:\n{}", server.output());
        }
    }

    /// What a client gets that allocates and then sends to a peer.
    fn outcome(&self, port: Port, login: &Login, peer: &str) -> String {
        let ip: IpAddr = peer.parse().unwrap();
        let echo = self.peers.iter().find(|(other, _)| *other == ip).and_then(|(_, echo)| echo.as_ref());
        let peer = echo.map_or(SocketAddr::new(ip, 9), Echo::address);
        within(&self.lab.client, || {
            let Some(link) = answers(port) else { return "closed".to_owned() };
            let Ok(mut client) = Client::try_join(link, &login.session()) else { return "closed".to_owned() };
            let relayed = match client.allocate() {
                Ok(relayed) => relayed,
                Err(code) => return code.to_string(),
            };
            let outcome = match client.permit(peer) {
                0 => {
                    client.echo(peer, 3);
                    format!("relays as {}", relayed.ip())
                }
                code => code.to_string(),
            };
            // The next client of a user with a quota finds it free.
            client.refresh(0);
            outcome
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.take();
        for (_, echo) in &mut self.peers {
            // Its last datagram must come from the same network.
            let echo = echo.take();
            within(&self.lab.peer, || drop(echo));
        }
    }
}

/// Opens a link to a port; `None` if nobody answers there. Only TURN that asks for credentials is an answer.
fn answers(port: Port) -> Option<Link> {
    let open = || -> Option<Link> {
        let (transport, server) = port.parts();
        let client = IpAddr::from(namespace::CLIENT);
        match transport {
            Transport::Udp => Some(Link::Udp(udp_from(client, server))),
            _ if TcpStream::connect_timeout(&server, PATIENCE).is_err() => None,
            Transport::Tcp => Some(Link::Tcp(tcp_from(client, server))),
            Transport::Tls => Some(Link::Tls(Box::new(tls::connect(server)))),
        }
    };
    let link = open()?;
    link.wait_at_most(PATIENCE);
    let nobody = Credentials { username: "nobody".to_owned(), password: String::new() };
    Client::try_join(link, &Session::in_realm(nobody, b"", "none")).ok()?;
    let link = open()?;
    link.wait_at_most(Duration::from_secs(10));
    Some(link)
}

/// A vector as it is in the repository.
pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/coturn").join(format!("{name}.conf"))
}

/// Runs `hallpass import-coturn`; returns what it prints on both streams, and its exit status.
pub fn import(file: &Path, options: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
        .arg("import-coturn")
        .arg(file)
        .args(options)
        .output()
        .expect("the program runs");
    let text = [output.stderr, output.stdout].concat();
    (String::from_utf8(text).expect("text"), output.status.code())
}

/// Both servers.
pub struct Pair {
    coturn: World,
    hallpass: World,
    report: String,
    config: PathBuf,
    // Dropped after the servers.
    files: Directory,
}

impl Pair {
    /// Starts coturn with a vector, and Hallpass with the result of its import, which `check` has to accept.
    pub fn start(name: &str, options: &[&str]) -> Pair {
        let mut pair = Pair::prepare(name);
        let imported = pair.files.path("hallpass.toml");
        let shown = imported.to_str().unwrap();
        let (report, code) = import(&pair.config, &[options, &["--output", shown]].concat());
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(fs::metadata(&imported).unwrap().permissions().mode() & 0o777, 0o600);
        let mut check = Command::new("ip");
        check.args([
            "netns",
            "exec",
            &pair.hallpass.lab.server,
            env!("CARGO_BIN_EXE_hallpass"),
            "check",
            "--config",
            shown,
        ]);
        let checked = run_command(check, LIMIT);
        assert!(checked.success, "the result is refused:\n{}", checked.output);
        pair.report = report;
        pair.serve(&["serve".to_owned(), "--config".to_owned(), shown.to_owned()]);
        pair
    }

    /// Starts both with the vector itself.
    pub fn start_straight(name: &str) -> Pair {
        let mut pair = Pair::prepare(name);
        let config = pair.config.display().to_string();
        pair.serve(&["serve".to_owned(), "--coturn-config".to_owned(), config]);
        pair
    }

    /// Writes the vector with paths of this machine, and starts coturn.
    fn prepare(name: &str) -> Pair {
        let files = Directory::new("import");
        let own = |name: &str| files.path(name).display().to_string();
        certs::write(Kind::Good, "first.test", &files.path("cert.pem"), &files.path("key.pem"));
        let text = fs::read_to_string(vector(name)).expect("a vector");
        let text = text
            .replace("/etc/turn-test/", &own(""))
            .replace("/var/log/turnserver.log", &own("turnserver.log"))
            .replace("veth0", "up0");
        let config = files.write("turnserver.conf", &text);
        let mut arguments: Vec<String> = match text.strip_prefix("turnserver ") {
            // Debian's build has no Prometheus and would not start.
            Some(line) => {
                line.split_whitespace().filter(|word| *word != "--prometheus").map(str::to_owned).collect()
            }
            None => vec!["-c".to_owned(), config.display().to_string()],
        };
        arguments.push(format!("--pidfile={}", own("pid")));
        arguments.push(format!("--userdb={}", own("userdb")));
        let (mut coturn, hallpass) = (World::new(), World::new());
        coturn.start("/usr/bin/turnserver", &arguments);
        Pair { coturn, hallpass, report: String::new(), config, files }
    }

    fn serve(&mut self, arguments: &[String]) {
        self.hallpass.start(env!("CARGO_BIN_EXE_hallpass"), arguments);
        let server = self.hallpass.server.as_ref().expect("started");
        assert!(
            server.wait_output(LIMIT, |log| log.lines().any(|line| line == "ready")),
            "{}",
            server.output()
        );
        let text = fs::read_to_string(&self.config).expect("the vector");
        let port = ["443", "3480"].into_iter().find(|port| {
            text.contains(&format!("\nlistening-port={port}"))
                || text.contains(&format!("listening-port\t=\t{port}"))
        });
        self.coturn.wait(Port::Udp(port.map_or(3478, |port| port.parse().unwrap())));
    }

    /// Both servers give this client the same.
    #[track_caller]
    pub fn same(&self, port: Port, login: &Login, peer: &str, expected: &str) {
        assert_eq!(self.coturn.outcome(port, login, peer), expected, "coturn, {port:?}, {peer}");
        assert_eq!(self.hallpass.outcome(port, login, peer), expected, "hallpass, {port:?}, {peer}");
    }

    /// The servers differ, and the report says so.
    #[track_caller]
    pub fn differ(
        &self,
        port: Port,
        login: &Login,
        peer: &str,
        coturn: &str,
        hallpass: &str,
        reported: &str,
    ) {
        assert_eq!(self.coturn.outcome(port, login, peer), coturn, "coturn, {port:?}, {peer}");
        assert_eq!(self.hallpass.outcome(port, login, peer), hallpass, "hallpass, {port:?}, {peer}");
        assert!(self.report.contains(reported), "{reported}:\n{}", self.report);
    }

    /// The third allocation of a user is refused by both.
    pub fn third_allocation(&self, port: u16, login: &Login, code: u16) {
        for (name, world) in [("coturn", &self.coturn), ("hallpass", &self.hallpass)] {
            let results: Vec<Option<u16>> = within(&world.lab.client, || {
                let mut clients: Vec<Client> = (0..3)
                    .map(|_| Client::join(answers(Port::Udp(port)).expect("an answer"), &login.session()))
                    .collect();
                let results = clients.iter_mut().map(|client| client.allocate().err()).collect();
                clients.iter_mut().take(2).for_each(|client| assert_eq!(client.refresh(0), 0));
                results
            });
            assert_eq!(results, [None, None, Some(code)], "{name}");
        }
    }

    /// coturn's own client loses nothing through either server.
    pub fn uclient(&self, port: u16, login: &Login, peer: &str) {
        for world in [&self.coturn, &self.hallpass] {
            let ip: IpAddr = peer.parse().unwrap();
            let echo = world.peers.iter().find(|(other, _)| *other == ip).and_then(|(_, echo)| echo.as_ref());
            let to = echo.expect("a peer").address();
            let mut command = Command::new("ip");
            command.args([
                "netns",
                "exec",
                &world.lab.client,
                "turnutils_uclient",
                "-c",
                "-m",
                "1",
                "-n",
                "20",
            ]);
            command.args(["-e", peer, "-r", &to.port().to_string(), "-p", &port.to_string()]);
            command.args(["-u", &login.credentials.username, "-w", &login.credentials.password, SERVER]);
            let ended = run_command(command, LIMIT);
            assert!(ended.success && ended.output.contains("Total lost packets 0"), "{}", ended.output);
        }
    }

    /// Replaces the file that both were started with.
    pub fn rewrite(&self, text: &str) {
        fs::write(&self.config, text).expect("the file can be written");
    }

    /// Sends Hallpass the signal for a reload and waits for a text in its log.
    pub fn reload(&self, expected: &str) {
        let server = self.hallpass.server.as_ref().expect("started");
        server.signal("HUP");
        assert!(server.wait_output(LIMIT, |log| log.contains(expected)), "{}", server.output());
    }
}
