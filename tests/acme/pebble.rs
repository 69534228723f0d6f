//! pebble, with a DNS server that answers 127.0.0.1 for every name.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;
use crate::support::plan::free_port;
use crate::support::process::Process;

const LIMIT: Duration = Duration::from_secs(30);
/// 30 days, as long as the certificate of pebble itself.
const VALIDITY: u32 = 30 * 86_400;

/// A running authority.
pub struct Pebble {
    process: Process,
    _dns: Process,
    files: Directory,
    port: u16,
}

impl Pebble {
    /// Starts pebble, which validates names on these ports of 127.0.0.1.
    pub fn start(https: u16, http: u16) -> Pebble {
        let files = Directory::new("pebble");
        let (port, management, dns) = (free_port(), free_port(), free_port());
        let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
        certs::write(Kind::Good, "localhost", &cert, &key);
        files.write("ca.pem", &certs::made(Kind::Good, "localhost").ca);
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": cert,
            "privateKey": key,
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "certificateValidityPeriod": VALIDITY,
        }});
        let config = files.write("pebble.json", &config.to_string());
        let mut resolver = Command::new("pebble-challtestsrv");
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        resolver.args(["-dns01", &format!("127.0.0.1:{dns}")]);
        resolver.args(["-management", &format!("127.0.0.1:{}", free_port())]);
        let resolver = Process::spawn(resolver);
        let mut command = Command::new("pebble");
        command.arg("-strict").arg("-config").arg(config);
        command.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        // No pauses before a validation; the usual share of nonces is refused.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let process = Process::spawn(command);
        let started = process.wait_output(LIMIT, |log| log.contains("ACME directory available"));
        assert!(started, "pebble does not start (apt install pebble):\n{}", process.output());
        Pebble { process, _dns: resolver, files, port }
    }

    /// The lines of `[acme]` that name it.
    pub fn lines(&self) -> String {
        format!(
            "directory = \"https://localhost:{}/dir\"\nca_file = {:?}\n",
            self.port,
            self.files.path("ca.pem")
        )
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.output()
    }
}
