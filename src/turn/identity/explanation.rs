//! Explains a wrong password: it is made with a secret that is no longer valid, or that nearly fits. This takes milliseconds with
//! many secrets, so it is done for reported refusals only, and not by a worker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::auth::PasswordAlgorithm;
use super::near_miss::{NearMiss, variants};
use super::rest::{self, Issuer};
use crate::turn::settings::Settings;
use crate::wire::message::{IntegrityAlgorithm, Message};
use crate::wire::request::Credentials;

/// Keys that are tried in a second. Each takes 2 to 4 us, so that explaining takes at most 4 % of the control thread, no matter how
/// many workers report how many refusals.
const TRIES_PER_SECOND: usize = 10_000;
/// Secrets whose near misses are tried for one refusal, each with up to 16 keys.
const SECRETS_MAX: usize = 200;
/// Secrets that explained a refusal lately and are tried first: a whole class makes the same mistake.
const RECENT_MAX: usize = 8;
/// Removed secrets that are remembered.
const REMOVED_MAX: usize = 16;

/// What a wrong password was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// The password is right by the settings: the client's allocation was made with another one.
    Current,
    /// A secret that this host lists as revoked.
    Revoked(Arc<str>),
    /// A secret of this host that is no longer in the settings.
    Removed(Arc<str>),
    /// Nearly a secret of the settings.
    Nearly(NearMiss),
    /// Too many refusals came at once to find out.
    NotExamined,
}

impl Explanation {
    /// Returns the host whose secret, valid no more, it is.
    pub fn outdated(&self) -> Option<&Arc<str>> {
        match self {
            Self::Revoked(host) | Self::Removed(host) => Some(host),
            _ => None,
        }
    }

    /// Returns what the operator can do next, if the reason alone does not tell.
    pub fn next_step(&self) -> Option<&'static str> {
        self.outdated().map(|_| {
            "write the present secret of this host into turn-stun-servers.xml of its server (hallpass bbb-xml), and restart bbb-web"
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("it is right by the present configuration"),
            Self::Revoked(host) => write!(f, "it was made with a revoked secret of {host}"),
            Self::Removed(host) => write!(f, "it was made with a secret of {host} that a reload has removed"),
            Self::Nearly(near_miss) => near_miss.fmt(f),
            Self::NotExamined => {
                f.write_str("too many came at once to examine whether it nearly fits a secret")
            }
        }
    }
}

/// Explains wrong passwords.
#[derive(Debug)]
pub struct Explainer {
    settings: Arc<Settings>,
    /// Removed secrets with their hosts, the oldest first.
    removed: VecDeque<(Arc<str>, String)>,
    /// The latest first.
    recent: VecDeque<(Issuer, Explanation)>,
    /// The second of the last refusals, since 1970.
    second: u64,
    /// Keys that may still be tried in it.
    left: usize,
}

/// A request whose password is wrong.
struct Request<'a> {
    message: Message<'a>,
    name: &'a str,
    realm: &'a str,
    algorithm: PasswordAlgorithm,
    proof: IntegrityAlgorithm,
}

impl<'a> Request<'a> {
    /// Parses a request. `None` if it has no name or no proof of the password.
    fn parse(request: &'a [u8], settings: &'a Settings) -> Option<Self> {
        let message = Message::parse(request).ok()?;
        let credentials = Credentials::parse(&message).ok()?;
        let (name, number) = (credentials.username?, credentials.password_algorithm);
        let algorithm = number.and_then(PasswordAlgorithm::from_number).unwrap_or(PasswordAlgorithm::Md5);
        let proof = message.integrity()?;
        Some(Self { message, name, realm: &settings.realm, algorithm, proof })
    }

    /// Whether it was made with this password. `None` if no more keys may be tried.
    fn was_made_with(&self, password: String, left: &mut usize) -> Option<bool> {
        *left = left.checked_sub(1)?;
        let key = self.algorithm.key(self.name, self.realm, password);
        Some(self.message.verify(&key, self.proof))
    }
}

impl Explainer {
    /// Explains by these settings.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            removed: VecDeque::new(),
            recent: VecDeque::new(),
            second: 0,
            left: TRIES_PER_SECOND,
        }
    }

    /// Takes new settings. Remembers the secrets that they lack.
    pub fn follow(&mut self, settings: Arc<Settings>) {
        if settings.same_credentials(&self.settings) {
            self.settings = settings;
            return;
        }
        let is_known = |secret: &String| {
            settings.hosts.iter().any(|host| host.secrets.contains(secret) || host.revoked.contains(secret))
        };
        for host in &self.settings.hosts {
            for secret in host.secrets.iter().chain(&host.revoked) {
                self.removed.push_back((Arc::clone(&host.name), secret.clone()));
            }
        }
        self.removed.retain(|(_, secret)| !is_known(secret));
        let surplus = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..surplus);
        self.recent.clear();
        self.settings = settings;
    }

    /// Begins a batch of refusals, at this second since 1970.
    pub fn begin(&mut self, now: u64) {
        if now != self.second {
            (self.second, self.left) = (now, TRIES_PER_SECOND);
        }
    }

    /// Explains why the password of this request is wrong.
    pub fn explain(&mut self, request: &[u8]) -> Option<Explanation> {
        let settings = Arc::clone(&self.settings);
        let request = Request::parse(request, &settings)?;
        self.search(&request, &settings).unwrap_or(Some(Explanation::NotExamined))
    }

    /// Returns the host with the secret that this request was made with, whether its name has expired or not. `None` if no host
    /// has it, or if too many requests came at once to find out.
    pub fn issuer(&mut self, request: &[u8]) -> Option<Arc<str>> {
        let settings = Arc::clone(&self.settings);
        let request = Request::parse(request, &settings)?;
        let secrets =
            settings.hosts.iter().flat_map(|host| host.secrets.iter().map(move |secret| (host, secret)));
        for (host, secret) in secrets.take(SECRETS_MAX) {
            if request.was_made_with(rest::password(secret, request.name), &mut self.left)? {
                return Some(Arc::clone(&host.name));
            }
        }
        None
    }

    /// Searches for an explanation. `None` if no more keys may be tried.
    fn search(&mut self, request: &Request<'_>, settings: &Settings) -> Option<Option<Explanation>> {
        for place in 0..self.recent.len() {
            let Some((issuer, found)) = self.recent.get(place) else { break };
            if request.was_made_with(issuer.password(request.name), &mut self.left)? {
                let found = found.clone();
                self.recent.swap(0, place);
                return Some(Some(found));
            }
        }
        for user in settings.users.iter().filter(|user| user.name == request.name) {
            if request.was_made_with(user.password.clone(), &mut self.left)? {
                return Some(Some(Explanation::Current));
            }
        }
        let of_hosts = || settings.hosts.iter().map(|host| (host, Arc::clone(&host.name)));
        let revoked = of_hosts().flat_map(|(host, name)| {
            host.revoked.iter().map(move |secret| (secret.clone(), Explanation::Revoked(Arc::clone(&name))))
        });
        let removed = self.removed.clone();
        let removed = removed.into_iter().map(|(host, secret)| (secret, Explanation::Removed(host)));
        let is_revoked = |secret: &String| settings.hosts.iter().any(|host| host.revoked.contains(secret));
        let current = of_hosts()
            .flat_map(|(host, _)| host.secrets.iter().filter(|secret| !is_revoked(secret)))
            .take(SECRETS_MAX)
            .map(|secret| (secret.clone(), Explanation::Current));
        for (secret, found) in revoked.take(SECRETS_MAX).chain(removed).chain(current) {
            if let found @ Some(_) = self.attempt(request, Issuer::Sha1(secret.into_bytes()), found)? {
                return Some(found);
            }
        }
        let secrets = of_hosts()
            .flat_map(|(host, name)| host.secrets.iter().map(move |secret| (Arc::clone(&name), secret)));
        for (host, secret) in secrets.take(SECRETS_MAX) {
            for (issuer, difference) in variants(secret) {
                let found = Explanation::Nearly(NearMiss { host: Arc::clone(&host), difference });
                if let found @ Some(_) = self.attempt(request, issuer, found)? {
                    return Some(found);
                }
            }
        }
        Some(None)
    }

    /// Tries one secret, and remembers it if it fits.
    fn attempt(
        &mut self,
        request: &Request<'_>,
        issuer: Issuer,
        found: Explanation,
    ) -> Option<Option<Explanation>> {
        if !request.was_made_with(issuer.password(request.name), &mut self.left)? {
            return Some(None);
        }
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front((issuer, found.clone()));
        Some(Some(found))
    }
}
