//! Whether the running server uses a configuration file as it is now.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::{Method, StatusCode};

use super::control::Control;
use super::running;
use crate::base::text::clean;
use crate::config::Config;

/// Time for the answer. Without one, nothing is known.
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum number of differences that are returned, and the length of each in characters.
const CHANGES_MAX: usize = 6;
const CHANGE_MAX: usize = 200;
/// Keys that do not decide who gets a call.
const HARMLESS: [&str; 6] = ["limits.", "log.", "admin", "control.", "web.", "privacy"];

/// What a reload would change, one line for each key. Empty if nothing, if no server of this file answers on its control socket,
/// or if this user may not ask it.
pub fn differences(config: &Config, file: &Path) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let control = Control::in_configuration(config);
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, control.ask(Method::GET, "/difference", "")).await
    });
    let Ok(Ok((StatusCode::OK, answer))) = answer else { return Vec::new() };
    let of_server = answer["file"].as_str().map(PathBuf::from);
    if of_server.is_none() || file.canonicalize().ok() != of_server {
        return Vec::new();
    }
    let changes =
        running::list(&answer["changes"]).iter().filter_map(|line| Some(clean(line.as_str()?, CHANGE_MAX)));
    let mut changes: Vec<String> = changes.collect();
    if changes.len() > CHANGES_MAX {
        changes.truncate(CHANGES_MAX - 1);
        changes.push("and others".to_owned());
    }
    changes
}

/// Whether one of the differences decides who gets a call.
pub fn matters(changes: &[String]) -> bool {
    changes.iter().any(|change| !HARMLESS.iter().any(|key| change.starts_with(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_hosts_and_addresses_matter() {
        let matter =
            |changes: &[&str]| matters(&changes.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert!(matter(&["log.level: info -> debug", "host.ping.peers: added 198.51.100.30"]));
        assert!(matter(&["external_ip: added 203.0.113.9/11.38.0.1"]));
        assert!(!matter(&["log.level: info -> debug", "limits.mss: 0 -> 1200"]) && !matter(&[]));
    }
}
