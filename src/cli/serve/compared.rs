//! What a reload of the file as it stands would do, without doing it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::configuration::{self, Refused, Source};
use super::tls::Certificate;
use crate::base::transport::Transport;
use crate::cli::this_host;
use crate::config::{self, Config, Report, Severity};
use crate::system::addresses::Addresses;

/// What a reload would change now. Nothing is prepared, logged or applied; what only opening a listener shows is not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The file, without symbolic links; `None` if the server was started without one.
    pub file: Option<PathBuf>,
    /// What differs from the configuration in use. Empty if the file has errors.
    pub changes: Vec<String>,
    /// Keys of changes that need a restart. A reload is refused because of them.
    pub restarts: Vec<&'static str>,
    /// Whose calls or connections a reload would end.
    pub ends: Vec<String>,
    /// Why a reload is refused, and a start as well.
    pub problems: Vec<String>,
    /// Why a reload is refused, and a start is not: certificates that have expired.
    pub expired: Vec<String>,
}

impl Compared {
    /// Reads the file again and compares it with the configuration in use and with this machine.
    pub fn of(source: &Source, config: &Config, machine: &Addresses, certificate: &Certificate) -> Self {
        let file = match source {
            Source::File(path) | Source::Coturn(path) => path.canonicalize().ok(),
            Source::BuiltIn => None,
        };
        let next = match source.read_again() {
            Ok(loaded) => loaded.config,
            Err(Refused::Report(report)) => {
                return Self { file, problems: errors(&report), ..Self::default() };
            }
            // Without a file there is nothing to compare.
            Err(Refused::Text(_)) if file.is_none() => return Self::default(),
            Err(Refused::Text(text)) => {
                return Self { file, problems: vec![text.trim_end().to_owned()], ..Self::default() };
            }
        };
        let mut problems = errors(&this_host::before_reload(&next, machine, &source.name()));
        let of_start = certificate.start_errors(&next);
        let mut expired = certificate.examine(&next).err().unwrap_or_default();
        expired.retain(|error| !of_start.contains(error));
        problems.extend(of_start);
        Self {
            file,
            changes: config::difference(config, &next),
            restarts: configuration::need_restart(config, &next),
            ends: ends(config, &next),
            problems,
            expired,
        }
    }

    /// Returns the answer to `GET /difference`.
    pub fn to_json(&self) -> Value {
        let Self { file, changes, restarts, ends, problems, expired } = self;
        json!({
            "file": file, "changes": changes, "restarts": restarts, "ends": ends, "problems": problems, "expired": expired,
        })
    }
}

fn errors(report: &Report) -> Vec<String> {
    let errors = report.texts().filter(|(severity, _)| *severity == Severity::Error);
    errors.map(|(_, text)| text.trim_end().to_owned()).collect()
}

/// Returns whose calls or connections end with a reload: those of removed users, at removed listeners, and to removed peers.
fn ends(before: &Config, after: &Config) -> Vec<String> {
    let mut ends = Vec::new();
    for host in &before.hosts {
        let Some(next) = after.hosts.iter().find(|next| next.name == host.name) else {
            ends.push(format!("users of {}", host.name));
            continue;
        };
        if next.revoked.iter().any(|secret| !host.revoked.contains(secret)) {
            ends.push(format!("users of a revoked secret of {}", host.name));
        }
        let keeps = |peers: &Vec<_>| {
            host.peers.as_ref().is_some_and(|before| before.iter().all(|net| peers.contains(net)))
        };
        if host.peers != next.peers && next.peers.as_ref().is_some_and(|peers| !keeps(peers)) {
            ends.push(format!("calls to removed peers of {}", host.name));
        }
    }
    let removed = before.users.iter().filter(|user| !after.users.iter().any(|next| next.name == user.name));
    ends.extend(removed.map(|user| format!("the user {}", user.name)));
    for listener in &before.listen {
        let has = |config: &Config| {
            config
                .listen
                .iter()
                .any(|next| (next.transport, next.address) == (listener.transport, listener.address))
        };
        if !has(after) {
            let what = if listener.transport == Transport::Udp { "clients" } else { "connections" };
            ends.push(format!("{what} of {} {}", listener.transport, listener.address));
        }
    }
    let (was, is) = (&before.peers, &after.peers);
    let denies = is.deny.iter().any(|net| !was.deny.contains(net));
    if denies || was.allow.iter().any(|net| !is.allow.contains(net)) {
        ends.push("calls to peers that are not allowed any more".to_owned());
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        config::parse(text, "f", Path::new("")).expect("good").config
    }

    #[test]
    fn what_a_reload_ends_is_told() {
        let listen = |port: u16, transport: &str| {
            format!("[[listen]]\ntransport = '{transport}'\naddress = '192.0.2.1:{port}'\n")
        };
        let host = |name: &str, more: &str| {
            format!("[[host]]\nname = '{name}'\nsecret = 'secret of {name} 0123456789'\n{more}")
        };
        let peers = "peers = ['198.51.100.20', '198.51.100.21']\n";
        let before =
            config(&format!("{}{}{}", listen(3478, "udp"), listen(3478, "tcp"), host("ping", peers)));
        assert_eq!(ends(&before, &before), [""; 0]);
        let renamed = config(&format!("{}{}", listen(3478, "udp"), host("pong", peers)));
        assert_eq!(ends(&before, &renamed), ["users of ping", "connections of tcp 192.0.2.1:3478"]);
        let moved = host("ping", "peers = ['198.51.100.20', '198.51.100.30']\n");
        let moved = config(&format!("{}{}{moved}", listen(3478, "udp"), listen(3478, "tcp")));
        assert_eq!(ends(&before, &moved), ["calls to removed peers of ping"]);
        let more = host("ping", "peers = ['198.51.100.20', '198.51.100.21', '198.51.100.30']\n");
        let more = config(&format!("{}{}{more}", listen(3478, "udp"), listen(3478, "tcp")));
        assert_eq!(ends(&before, &more), [""; 0]);
    }
}
