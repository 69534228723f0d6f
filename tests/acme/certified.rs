//! A server with `[acme]`, under a clock that the test sets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::files::Directory;
use crate::support::http;
use crate::support::plan::{LOCAL_V4, Plan, Transport, free_port};
use crate::support::server::Server;
use crate::support::tls;
use crate::support::wall_clock::WallClock;

/// Time for an issuance, and until its files are in use.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The ports of a server, and its state.
pub struct Place {
    pub files: Directory,
    clock: WallClock,
    pub https: u16,
    pub http: u16,
}

impl Place {
    pub fn new() -> Place {
        Place {
            files: Directory::new("acme"),
            clock: WallClock::new(),
            https: free_port(),
            http: free_port(),
        }
    }

    /// Starts a server that gets a certificate for `names`. `acme` are further lines of `[acme]`.
    pub fn start(&self, names: &[&str], acme: &str) -> Server {
        Server::start(&self.plan(names, acme))
    }

    pub fn plan(&self, names: &[&str], acme: &str) -> Plan {
        let state = self.files.path("");
        Plan {
            ports: Some([free_port(), free_port(), self.https]),
            wrapper: self.clock.wrapper(),
            certificate: Some(format!(
                "[acme]\ndomains = {names:?}\ncontact = \"mailto:admin@example.org\"\nstate = {state:?}\n{acme}\n\
                 [redirect]\naddress = \"127.0.0.1:{}\"\n",
                self.http
            )),
            ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
        }
    }

    /// Moves the server's wall clock from the true time.
    pub fn jump(&self, offset: &str) {
        self.clock.jump(offset);
    }

    /// The directory of account and certificates.
    pub fn state(&self, name: &str) -> PathBuf {
        self.files.path("acme").join(name)
    }

    pub fn port_80(&self) -> SocketAddr {
        SocketAddr::new(LOCAL_V4, self.http)
    }
}

/// Returns the certificate that a new client is shown.
pub fn shown(server: &Server) -> Vec<u8> {
    tls::certificate(&tls::connect(server.v4(Transport::Tls)).conn)
}

/// Connects until another certificate than `old` is shown, and returns it.
pub fn wait_for_other(server: &Server, old: &[u8]) -> Vec<u8> {
    let end = Instant::now() + LIMIT;
    loop {
        let now = shown(server);
        if now != old {
            return now;
        }
        assert!(Instant::now() < end, "still the old certificate:\n{}", server.log());
    }
}

/// Returns the value of a metric.
pub fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = http::get(server.admin(), "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
}

/// Returns what openssl prints about a file.
pub fn openssl(args: &[&str], file: &Path) -> String {
    let output = Command::new("openssl").args(args).arg("-in").arg(file).output().expect("openssl");
    assert!(output.status.success(), "{args:?} {file:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the public keys of the certificate and of the key in this directory.
pub fn keys(directory: &Path) -> (String, String) {
    (
        openssl(&["x509", "-noout", "-pubkey"], &directory.join("fullchain.pem")),
        openssl(&["pkey", "-pubout"], &directory.join("privkey.pem")),
    )
}
