//! Whether the running server uses a configuration file as it is now.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::Value;

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
const HARMLESS: [&str; 8] =
    ["limits.", "log.", "admin", "control.", "web.", "privacy", "drain.", "icmp_to_clients"];

/// What a reload would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What it would change, one line for each key.
    pub changes: Vec<String>,
    /// Keys of changes that need a restart: the reload is refused because of them.
    pub restarts: Vec<String>,
    /// Whose calls or connections it would end.
    pub ends: Vec<String>,
    /// Why it is refused, and a start as well.
    pub problems: Vec<String>,
    /// Why it is refused, and a start is not: certificates that have expired.
    pub expired: Vec<String>,
}

/// Why nothing is known about the difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The server does not answer on its control socket, or not to this user.
    NoAnswer(String),
    /// Its control socket takes connections, and nothing answers: the process hangs.
    Silent,
    /// It uses this file, or none.
    OtherFile(Option<PathBuf>),
}

/// Asks the server of this configuration what a reload of the file would do.
///
/// # Errors
/// The server does not answer, or uses another file.
pub fn difference(config: &Config, file: &Path) -> Result<Difference, Unknown> {
    let no_answer = |error: &dyn std::fmt::Display| Unknown::NoAnswer(clean(&error.to_string(), CHANGE_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| no_answer(&error))?;
    let control = Control::in_configuration(config);
    let asked = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, control.ask(Method::GET, "/difference", "")).await
    });
    let answer = match asked {
        Ok(Ok((StatusCode::OK, answer))) => answer,
        Ok(Ok((status, _))) => return Err(no_answer(&format!("it answers {status}"))),
        Ok(Err(failed)) => return Err(no_answer(&failed.message)),
        Err(_) => return Err(Unknown::Silent),
    };
    let of_server = answer["file"].as_str().map(PathBuf::from);
    if of_server.is_none() || file.canonicalize().ok() != of_server {
        return Err(Unknown::OtherFile(of_server));
    }
    let list = |key: &str| lines(&answer[key]);
    let [changes, restarts, ends, problems, expired] =
        ["changes", "restarts", "ends", "problems", "expired"].map(list);
    Ok(Difference { changes, restarts, ends, problems, expired })
}

/// Returns the lines of a list, with `and others` in place of those beyond the limit.
fn lines(list: &Value) -> Vec<String> {
    let lines = running::list(list);
    let mut lines: Vec<String> =
        lines.iter().filter_map(|line| Some(clean(line.as_str()?, CHANGE_MAX))).collect();
    if lines.len() > CHANGES_MAX {
        lines.truncate(CHANGES_MAX - 1);
        lines.push("and others".to_owned());
    }
    lines
}

impl Difference {
    /// Whether one of the changes decides who gets a call.
    pub fn matters(&self) -> bool {
        self.changes.iter().any(|change| !HARMLESS.iter().any(|key| change.starts_with(key)))
    }

    /// What to do so that the server uses the file.
    pub fn next_step(&self) -> String {
        if let Some(problem) = self.problems.first() {
            return format!(
                "the running server works on with what it has; do not restart it, because it would not start again. Correct this, then \
                 systemctl reload hallpass: {problem}"
            );
        }
        if let Some(expired) = self.expired.first() {
            return format!(
                "hallpass reload refuses the whole file: {expired}. Renew that first, then hallpass reload"
            );
        }
        if !self.restarts.is_empty() {
            let keys = self.restarts.join(", ");
            return format!(
                "hallpass reload refuses the whole file, because a change of {keys} needs a restart, which ends all calls: restart at a \
                 quiet time (hallpass drain), or undo that change for now, and hallpass reload applies the others"
            );
        }
        match self.ends.is_empty() {
            true => {
                "hallpass reload applies the file, and no call ends; then run this command again".to_owned()
            }
            false => format!(
                "hallpass reload applies the file, and this ends at once: {}. Then run this command again",
                self.ends.join("; ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(changes: &[&str]) -> Vec<String> {
        changes.iter().map(|&one| one.to_owned()).collect()
    }

    #[test]
    fn differences_of_hosts_and_addresses_matter() {
        let matter =
            |changes: &[&str]| Difference { changes: all(changes), ..Difference::default() }.matters();
        assert!(matter(&["log.level: info -> debug", "host.ping.peers: added 198.51.100.30"]));
        assert!(matter(&["external_ip: added 203.0.113.9/11.38.0.1"]));
        assert!(!matter(&["log.level: info -> debug", "limits.mss: 0 -> 1200"]) && !matter(&[]));
        assert!(!matter(&["drain.alternate_server: added 192.0.2.9:3478", "icmp_to_clients: true -> false"]));
    }

    /// "No call ends" is said only if that is true, and nobody is sent to a reload that is refused.
    #[test]
    fn the_next_step_is_one_that_works() {
        let mut difference =
            Difference { changes: all(&["host.ping.peers: changed"]), ..Difference::default() };
        assert!(difference.next_step().contains("and no call ends"));
        difference.ends = all(&["users of ping"]);
        let step = difference.next_step();
        assert!(
            step.contains("this ends at once: users of ping") && !step.contains("no call ends"),
            "{step}"
        );
        difference.restarts = all(&["[admin]"]);
        let step = difference.next_step();
        assert!(
            step.contains("a change of [admin] needs a restart") && !step.contains("no call ends"),
            "{step}"
        );
        difference.expired = all(&["c.pem has expired"]);
        let step = difference.next_step();
        assert!(
            step.contains("refuses the whole file: c.pem has expired") && !step.contains("restart"),
            "{step}"
        );
        difference.problems = all(&["f: error: external_ip: the pair is swapped"]);
        let step = difference.next_step();
        assert!(step.contains("do not restart it") && step.contains("the pair is swapped"), "{step}");
    }
}
