//! BigBlueButton's list of servers as a file.

use std::path::PathBuf;

use crate::cli::args::RelayArgs;
use crate::cli::bbb_xml::{Servers, read};

/// Where BigBlueButton reads the list.
const INSTALLED: &str = "/etc/bigbluebutton/turn-stun-servers.xml";

/// A list of servers.
pub struct Xml {
    /// Its path.
    pub path: PathBuf,
    /// Its servers, or why bbb-web would not load it.
    pub servers: Result<Servers, String>,
}

impl Xml {
    /// Reads the file of `--bbb-xml`, else that of BigBlueButton on this machine.
    pub fn find(args: &RelayArgs) -> Option<Self> {
        let installed = || Some(PathBuf::from(INSTALLED)).filter(|path| path.exists());
        let path = args.bbb_xml.clone().or_else(installed)?;
        Some(Self { servers: read(&path), path })
    }

    /// The hosts in its TURN URLs.
    pub fn hosts(&self) -> Vec<String> {
        let hosts = self.servers.as_ref().map(Servers::hosts).unwrap_or_default();
        hosts.into_iter().map(str::to_owned).collect()
    }

    /// The hosts in its URLs of TURN over TLS.
    pub fn tls_hosts(&self) -> Vec<String> {
        let hosts = self.servers.as_ref().map(Servers::tls_hosts).unwrap_or_default();
        hosts.into_iter().map(str::to_owned).collect()
    }
}
