//! The server under test, started for one test and stopped with it.

use super::credentials::{self, Credentials};
use super::files::Directory;
use super::plan::{self, Layout, Plan, SECRET, Transport};
use super::process::Process;
use super::stun;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(10);
const START_TRIES: usize = 5;

pub struct Server {
    process: Process,
    layout: Layout,
    // Dropped after the process, because fields are dropped in order.
    files: Directory,
}

/// Returns whether to skip a test because the tests run against coturn; prints `what` in that case.
pub fn skip_on_coturn(what: &str) -> bool {
    let other = tests_coturn();
    if other {
        eprintln!("{what}: not tested, coturn does not promise this");
    }
    other
}

/// Whether the tests run against coturn.
pub fn tests_coturn() -> bool {
    match std::env::var("HALLPASS_TEST_SERVER").as_deref() {
        Err(_) | Ok("hallpass") => false,
        Ok("coturn") => true,
        Ok(other) => panic!("HALLPASS_TEST_SERVER is {other:?}: set it to hallpass or coturn"),
    }
}

impl Server {
    /// Starts a server and returns once it serves. Retries with new ports if another process took one.
    pub fn start(plan: &Plan) -> Server {
        for _ in 1..START_TRIES {
            if let Ok(server) = Server::try_start(plan) {
                return server;
            }
        }
        Server::try_start(plan)
            .unwrap_or_else(|log| panic!("no free port for the server in {START_TRIES} tries:\n{log}"))
    }

    /// Returns `Err` with the log if a port was taken; any other failure fails the test.
    fn try_start(plan: &Plan) -> Result<Server, String> {
        let files = Directory::new("server");
        let coturn = tests_coturn();
        let (layout, program) = if coturn {
            (plan::lay_out_coturn(plan, &files), "/usr/bin/turnserver")
        } else {
            (plan::lay_out_hallpass(plan, &files), env!("CARGO_BIN_EXE_hallpass"))
        };
        let mut words = plan.wrapper.clone();
        if let Some(namespace) = &plan.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        words.push(program.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        match coturn {
            true => command.arg("-c").arg(&layout.config),
            false => command.args(["serve", "--config"]).arg(&layout.config),
        };
        command.current_dir(std::env::temp_dir());
        let mut server = Server { process: Process::spawn(command), layout, files };
        let taken = |log: &str| log.to_lowercase().contains("address already in use");
        let ready = |log: &str| match coturn {
            true => log.contains("Total General servers"),
            false => log.lines().any(|line| line.contains(plan.started)),
        };
        let started = server.process.wait_output(START_LIMIT, |log| taken(log) || ready(log));
        let log = server.process.output();
        if taken(&log) {
            return Err(log);
        }
        let state = if server.process.is_running() { "printed no `ready`" } else { "has ended" };
        assert!(started, "the server is not ready, it {state}:\n{log}");
        if plan.namespace.is_none() {
            server.wait_listening();
        }
        Ok(server)
    }

    /// Waits until every listener answers: coturn logs its last line before it listens.
    fn wait_listening(&mut self) {
        let end = Instant::now() + START_LIMIT;
        for &(transport, address) in &self.layout.listeners {
            while !answers(transport, address) {
                assert!(Instant::now() < end, "nothing answers on {transport:?} {address}");
                assert!(self.process.is_running(), "the server ended:\n{}", self.process.output());
            }
        }
    }

    /// The first listener of `transport` on 127.0.0.1 or another IPv4 address.
    pub fn v4(&self, transport: Transport) -> SocketAddr {
        self.find(transport, SocketAddr::is_ipv4)
    }

    /// The first listener of `transport` on an IPv6 address.
    pub fn v6(&self, transport: Transport) -> SocketAddr {
        self.find(transport, SocketAddr::is_ipv6)
    }

    fn find(&self, transport: Transport, family: fn(&SocketAddr) -> bool) -> SocketAddr {
        let mut listeners = self.layout.listeners.iter();
        let found = listeners.find(|(kind, address)| *kind == transport && family(address));
        found.unwrap_or_else(|| panic!("the plan has no such {transport:?} listener")).1
    }

    pub fn admin(&self) -> SocketAddr {
        self.layout.admin
    }

    /// The certificate and key files that the server reads.
    pub fn certificate_files(&self) -> (&Path, &Path) {
        (&self.layout.cert, &self.layout.key)
    }

    /// Returns the directory of the server's files, for further files of the test.
    pub fn files(&self) -> &Directory {
        &self.files
    }

    /// Valid credentials for `user`.
    pub fn credentials(&self, user: &str) -> Credentials {
        credentials::rest(SECRET, user, 3600)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub fn log(&self) -> String {
        self.process.output()
    }

    pub fn wait_log(&self, limit: Duration, found: impl FnMut(&str) -> bool) -> bool {
        self.process.wait_output(limit, found)
    }

    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait_exit(limit)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// Makes one attempt; its timeout paces the next one.
fn answers(transport: Transport, address: SocketAddr) -> bool {
    if transport != Transport::Udp {
        let limit = Duration::from_millis(200);
        return TcpStream::connect_timeout(&address, limit).is_ok();
    }
    let socket = UdpSocket::bind((address.ip(), 0)).expect("a local socket");
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let asked = socket.send_to(&stun::binding_request(1), address).is_ok();
    asked && socket.recv_from(&mut [0; 1500]).is_ok()
}
