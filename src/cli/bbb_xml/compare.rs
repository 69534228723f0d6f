//! Compares BigBlueButton's list with what a relay requires of it.

use std::collections::BTreeSet;
use std::fmt;

use super::reader::{Servers, Turn, is_at, is_same_place};
use super::relay::{Relay, WhyNot};
use crate::cli::endpoints::Endpoint;

/// A difference between a file and a configuration. `Display` names the URL and never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The file has no TURN URL of the relay with this name.
    NoRelay(String),
    /// The file lacks this URL.
    Missing(String),
    /// No listener has this URL, and its secret is this host's.
    NoListener(String),
    /// No listener has this URL, and its secret is not this host's: another server may have the same name.
    Stranger(String),
    /// Browsers refuse the port of this URL.
    Refused(String),
    /// This URL has several entries.
    Several(String, usize),
    /// This URL has an older secret, which is still accepted.
    OlderSecret(String),
    /// This URL has a secret that is not accepted.
    OtherSecret(String),
    /// This URL has another lifetime: that of the file, and the wanted one.
    Lifetime(String, String, String),
}

impl Difference {
    /// Whether the file should be changed because of it. A file may list fewer URLs than the relay has, and other servers.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Missing(_) | Self::Stranger(_) | Self::Refused(_))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRelay(name) => write!(f, "{name}: no TURN URL of this relay, so no browser uses it"),
            Self::Missing(url) => write!(f, "{url}: missing"),
            Self::NoListener(url) => write!(f, "{url}: no listener in the configuration has this URL"),
            Self::Stranger(url) => write!(
                f,
                "{url}: no listener in the configuration has this URL, and its secret is not this host's: another server \
                 with the same name? not compared"
            ),
            Self::Refused(url) => write!(f, "{url}: {}", WhyNot::Port),
            Self::Several(url, count) => write!(f, "{url}: is listed {count} times"),
            Self::OlderSecret(url) => {
                write!(f, "{url}: has an older secret of this host, which is still accepted")
            }
            Self::OtherSecret(url) => write!(f, "{url}: has a secret that is not this host's"),
            Self::Lifetime(url, has, wanted) => write!(f, "{url}: has the lifetime {has:?}, not {wanted}"),
        }
    }
}

/// Returns the differences between a file and what one relay requires. Entries of other servers are none.
pub fn compare(servers: &Servers, relay: &Relay) -> Vec<Difference> {
    let mut differences = Vec::new();
    let listed: Vec<Option<Endpoint>> =
        servers.turn.iter().map(|turn| Endpoint::of_turn_url(&turn.url)).collect();
    let mut has_any = false;
    let mut counted: BTreeSet<&Endpoint> = BTreeSet::new();
    for (turn, endpoint) in servers.turn.iter().zip(&listed) {
        match endpoint {
            Some(endpoint) if relay.serves(endpoint) => {
                has_any = true;
                let count = listed.iter().flatten().filter(|one| *one == endpoint).count();
                if count > 1 && counted.insert(endpoint) {
                    differences.push(Difference::Several(turn.url.clone(), count));
                }
                let is_refused =
                    relay.left_out.iter().any(|(one, why)| one == endpoint && *why == WhyNot::Port);
                if is_refused {
                    differences.push(Difference::Refused(turn.url.clone()));
                }
                differences.extend(of_values(turn, relay));
            }
            _ if !is_at(&turn.url, &relay.name) => {}
            _ if relay.knows(&turn.secret) => differences.push(Difference::NoListener(turn.url.clone())),
            _ => differences.push(Difference::Stranger(turn.url.clone())),
        }
    }
    for stun in &servers.stun {
        let endpoint = Endpoint::of_stun_url(&stun.url);
        let is_ours = endpoint.is_some_and(|endpoint| relay.serves(&endpoint));
        if !is_ours && is_at(&stun.url, &relay.name) && !is_beside_stranger(servers, relay, &stun.url) {
            differences.push(Difference::NoListener(stun.url.clone()));
        }
    }
    if !has_any {
        differences.push(Difference::NoRelay(relay.name.clone()));
        return differences;
    }
    let lists = |wanted: &str| {
        let wanted = Endpoint::of_stun_url(wanted);
        servers.stun.iter().any(|stun| Endpoint::of_stun_url(&stun.url) == wanted)
    };
    differences.extend(relay.stun().filter(|url| !lists(url)).map(Difference::Missing));
    let missing = relay.wanted.iter().filter(|wanted| !listed.iter().flatten().any(|one| one == *wanted));
    differences.extend(missing.map(|endpoint| Difference::Missing(endpoint.turn_url())));
    differences
}

/// What differs in an entry of the relay apart from its URL.
pub fn of_values(turn: &Turn, relay: &Relay) -> Vec<Difference> {
    let mut differences = Vec::new();
    let url = || turn.url.clone();
    if relay.older.contains(&turn.secret) {
        differences.push(Difference::OlderSecret(url()));
    } else if turn.secret != relay.newest {
        differences.push(Difference::OtherSecret(url()));
    }
    if let Some(wanted) = relay.ttl.as_ref().filter(|wanted| *wanted != turn.ttl.trim()) {
        differences.push(Difference::Lifetime(url(), turn.ttl.clone(), wanted.clone()));
    }
    differences
}

/// Whether a STUN URL at the relay's name belongs to another server there: a TURN entry with the same port is that server's.
pub fn is_beside_stranger(servers: &Servers, relay: &Relay, url: &str) -> bool {
    servers.turn.iter().any(|turn| {
        let is_ours = Endpoint::of_turn_url(&turn.url).is_some_and(|endpoint| relay.serves(&endpoint));
        is_same_place(&turn.url, url) && !is_ours && !relay.knows(&turn.secret)
    })
}

/// Returns the TURN and STUN URLs that belong to none of the relays, as written and once each.
pub fn others<'a>(servers: &'a Servers, relays: &[Relay]) -> BTreeSet<&'a str> {
    let is_other = |url: &str, endpoint: Option<Endpoint>| {
        !relays.iter().any(|relay| {
            is_at(url, &relay.name) || endpoint.as_ref().is_some_and(|endpoint| relay.serves(endpoint))
        })
    };
    let turn = servers.turn.iter().map(|turn| (turn.url.as_str(), Endpoint::of_turn_url(&turn.url)));
    let stun = servers.stun.iter().map(|stun| (stun.url.as_str(), Endpoint::of_stun_url(&stun.url)));
    turn.chain(stun).filter(|(url, endpoint)| is_other(url, endpoint.clone())).map(|(url, _)| url).collect()
}
