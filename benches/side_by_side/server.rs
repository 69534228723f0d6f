//! A server under test, on core 0.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The shared secret of both servers.
pub const SECRET: &str = "a secret of the benchmark";
/// The file for the server's standard error.
const STDERR: &str = "stderr";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hallpass,
    Coturn,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hallpass => "Hallpass",
            Kind::Coturn => "coturn",
        }
    }
}

/// A running server; it is killed on drop.
pub struct Server {
    child: Child,
    /// For UDP and TCP, and for TLS.
    ports: [u16; 2],
    dir: PathBuf,
}

impl Server {
    /// Starts a server on free ports of loopback, with the same type of certificate for both kinds.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("hallpass-side-by-side-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        certificate(&dir)?;
        let [port, tls, admin] = free_ports()?;
        let mut command = Command::new("taskset");
        let stderr = fs::File::create(dir.join(STDERR)).map_err(|error| format!("{STDERR}: {error}"))?;
        command.args(["-c", "0"]).stdout(Stdio::null()).stderr(stderr).current_dir(&dir);
        match kind {
            Kind::Hallpass => {
                let config = format!(
                    "realm = \"relay.test\"\n\
                     [[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:{port}\"\n\
                     [[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
                     [[listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:{tls}\"\n\
                     [relay]\naddresses = [\"127.0.0.1\"]\nports = \"32768-65535\"\n\
                     [tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
                     [[host]]\nname = \"bench\"\nsecret = \"{SECRET}\"\n\
                     [peers]\nallow = [\"127.0.0.0/8\"]\n\
                     [limits]\nallocations_per_user = 0\nrequests_per_user = 0\nunauthenticated_per_source = 0\n\
                     kbit_per_allocation = 4000000000\npackets_per_allocation = 4000000000\n\
                     packets_per_user = 4000000000\n\
                     [admin]\naddress = \"127.0.0.1:{admin}\"\n"
                );
                let path = dir.join("hallpass.toml");
                fs::write(&path, config).map_err(|error| format!("{}: {error}", path.display()))?;
                command.args([env!("CARGO_BIN_EXE_hallpass"), "serve", "--config"]).arg(path);
            }
            Kind::Coturn => {
                command.args(["turnserver", "-n", "--no-cli", "--listening-ip=127.0.0.1"]);
                command.args(["--relay-ip=127.0.0.1", "--allow-loopback-peers", "--use-auth-secret"]);
                command.args(["--realm=relay.test", "--cert=cert.pem", "--pkey=key.pem", "--no-dtls"]);
                command.args(["--min-port=32768", "--max-port=65535", "-m", "1", "--no-stdout-log"]);
                command.args(["--log-file=/dev/null", "--simple-log", "--pidfile=coturn.pid"]);
                command.arg(format!("--static-auth-secret={SECRET}"));
                command.args([format!("--listening-port={port}"), format!("--tls-listening-port={tls}")]);
            }
        }
        let child = command.spawn().map_err(|error| format!("taskset: {error}"))?;
        let mut server = Self { child, ports: [port, tls], dir };
        server.wait()?;
        Ok(server)
    }

    #[allow(clippy::disallowed_methods, reason = "no event reports when another program listens")]
    fn wait(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while !self.ports.iter().all(|&port| TcpStream::connect(("127.0.0.1", port)).is_ok()) {
            if let Ok(Some(status)) = self.child.try_wait() {
                let stderr = fs::read_to_string(self.dir.join(STDERR)).unwrap_or_default();
                return Err(format!("the server ended ({status}); is Debian's coturn installed? {stderr}"));
            }
            if started.elapsed() > START {
                return Err("the server does not listen".to_owned());
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// The address that clients of `transport` use.
    pub fn address(&self, transport: &str) -> String {
        format!("127.0.0.1:{}", self.ports[usize::from(transport == "tls")])
    }

    /// The process id of the server, because taskset replaces itself with it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No graceful shutdown: nothing is measured any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Currently free ports, below the relay ports.
fn free_ports() -> Result<[u16; 3], String> {
    let mut free = (20_000..32_000_u16)
        .map(|n| 20_000 + ((u32::from(n) * 7919 + std::process::id()) % 12_000) as u16)
        .filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    match (free.next(), free.next(), free.next()) {
        (Some(first), Some(second), Some(third)) => Ok([first, second, third]),
        _ => Err("no free port".to_owned()),
    }
}

/// Creates a self-signed P-256 certificate, the same type for both servers.
fn certificate(dir: &std::path::Path) -> Result<(), String> {
    let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/certs/make.sh"))
        .arg("self-signed")
        .arg(dir)
        .status();
    match made {
        Ok(status) if status.success() => Ok(()),
        _ => Err("certs/make.sh made no certificate".to_owned()),
    }
}
