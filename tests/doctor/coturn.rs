//! Debian's coturn, whatever server the other tests run against.

use crate::support::files::Directory;
use crate::support::plan::{Layout, Plan, Transport, lay_out_coturn};
use crate::support::process::Process;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

pub struct Coturn {
    process: Process,
    layout: Layout,
    files: Directory,
}

impl Coturn {
    /// Starts it and returns once it accepts TCP and TLS connections; UDP comes before them.
    pub fn start(plan: &Plan) -> Coturn {
        let files = Directory::new("coturn");
        let layout = lay_out_coturn(plan, &files);
        let mut command = Command::new("/usr/bin/turnserver");
        command.arg("-c").arg(&layout.config).current_dir(std::env::temp_dir());
        let mut coturn = Coturn { process: Process::spawn(command), layout, files };
        let started = coturn.process.wait_output(LIMIT, |log| log.contains("Total General servers"));
        assert!(started, "coturn did not start:\n{}", coturn.process.output());
        let end = Instant::now() + LIMIT;
        for transport in [Transport::Tcp, Transport::Tls] {
            while TcpStream::connect_timeout(&coturn.address(transport), Duration::from_millis(200)).is_err()
            {
                assert!(Instant::now() < end && coturn.process.is_running(), "{}", coturn.process.output());
            }
        }
        coturn
    }

    pub fn address(&self, transport: Transport) -> SocketAddr {
        let found =
            self.layout.listeners.iter().find(|(kind, address)| *kind == transport && address.is_ipv4());
        found.expect("a listener").1
    }

    pub fn authority(&self) -> PathBuf {
        self.files.path("ca.pem")
    }
}
