//! What is known about the relay before anything is tried, and what all subjects need.

use std::net::IpAddr;

use super::bigbluebutton_file::Xml;
use crate::cli::args::RelayArgs;
use crate::cli::certificate as files_of_tls;
use crate::cli::live::{Attempt, Tried};
use crate::cli::loaded::Difference;
use crate::config::{Config, Listener, Problem, Report, Severity};
use crate::doctor::finding::{Finding, finding};
use crate::system::account::Account;
use crate::system::addresses::Addresses;
use crate::turn::settings::RelayAddress;

/// Maximum number of names that are looked up.
const NAMES_MAX: usize = 32;

/// What is known about the relay before anything is tried.
pub struct Site<'a> {
    pub args: &'a RelayArgs,
    pub config: Config,
    pub machine: Addresses,
    /// The addresses that it relays from, for clients on other machines.
    pub relays: Vec<RelayAddress>,
    /// What happened when its addresses were opened.
    pub tried: Vec<Tried>,
    pub certificate: files_of_tls::Examined,
    pub xml: Option<Xml>,
    /// What a reload of the running server would do.
    pub not_loaded: Difference,
    /// Whether the running server does not answer on its control socket, although it takes connections.
    pub hangs: bool,
}

impl Site<'_> {
    /// The running server.
    pub fn running(&self) -> Option<u32> {
        self.tried.iter().find_map(|tried| match tried.attempt {
            Attempt::Served { pid } => Some(pid),
            _ => None,
        })
    }

    /// Whether an address is this machine's or leads to it.
    pub fn is_ours(&self, ip: IpAddr) -> bool {
        self.machine.have(ip) || self.config.external_ip.iter().any(|external| external.public == ip)
    }

    /// Whether this command sees only what its own user may see.
    pub fn is_limited(&self) -> bool {
        Account::own().is_none_or(|own| own.uid != 0)
    }

    /// The name under which clients reach the relay, as far as it is known: given, else in the certificate.
    pub fn name(&self) -> Option<String> {
        let given = self.args.public_name.clone();
        given.or_else(|| self.certificate.name().filter(|name| !name.starts_with('*')))
    }
}

/// Whether clients come to this listener directly: it trusts no proxy in front of it, and its URLs do not lead elsewhere.
pub fn is_reached_directly(listener: &Listener) -> bool {
    listener.proxies.is_empty() && listener.public.is_none()
}

/// The problems of a configuration as findings with this code.
pub fn problems(code: &'static str, report: &Report) -> Vec<Finding> {
    let of = |problem: &Problem| {
        let line = problem.line.map_or_else(String::new, |line| format!(":{line}"));
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        let text = format!("{}{line}: {key}{}", report.file, problem.message);
        match problem.severity {
            Severity::Error => Finding::error(code, text, &problem.remedy),
            Severity::Warning => Finding::warning(code, text, &problem.remedy),
        }
    };
    report.problems.iter().map(of).collect()
}

/// A note that something could not be tested, and what to do to test it.
pub fn untested(code: &'static str, text: impl Into<String>, remedy: &str) -> Finding {
    Finding { remedy: Some(remedy.to_owned()), ..finding(code, text) }
}

/// The names in the list, each once, at most [`NAMES_MAX`].
pub fn once(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) && all.len() < NAMES_MAX {
            all.push(name);
        }
    }
    all
}
