//! The credentials in the settings, indexed, and the standing of those that allocations were made with.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::rest;
use crate::base::host::HostId;
use crate::turn::settings::Settings;

/// Identifies a shared secret, or the password of a static user, without holding it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A shared secret. The host is not part of it, so a revoked secret is revoked for every host.
    Secret([u8; 8]),
    /// Name and password of a static user.
    User([u8; 8]),
}

impl Credential {
    /// For a shared secret.
    pub fn of_secret(secret: &str) -> Self {
        Self::Secret(fingerprint("", secret))
    }

    /// For a static user.
    pub fn of_user(name: &str, password: &str) -> Self {
        Self::User(fingerprint(name, password))
    }
}

fn fingerprint(user: &str, secret: &str) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(user.as_bytes());
    hash.update([0]);
    hash.update(secret.as_bytes());
    let mut short = [0; 8];
    short.copy_from_slice(&hash.finalize()[..8]);
    short
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// What new settings say about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The credential and its host are in the settings.
    Valid,
    /// The credential is no longer in the settings: its allocations continue, but cannot add peers.
    Withdrawn,
    /// The secret is listed as revoked, or the static user is no longer in the settings: its allocations end.
    Revoked,
}

/// The credentials of the settings.
#[derive(Debug, Default)]
pub struct Directory {
    /// Indexes into [`Settings::users`], by name.
    pub by_name: HashMap<String, usize>,
    /// The same by USERHASH.
    pub by_hash: HashMap<[u8; 32], usize>,
    /// The secrets of all hosts, without revoked ones.
    pub secrets: Vec<Secret>,
    /// Indexes into `secrets`. If several hosts have a secret, it is the first host's, as in a search.
    by_credential: HashMap<Credential, usize>,
    valid: HashSet<(HostId, Credential)>,
    revoked: HashSet<Credential>,
    hosts: HashSet<HostId>,
    /// Hosts of which anybody can be any number of users.
    confined: HashSet<HostId>,
}

/// A shared secret, with the details of its host that an identity contains.
#[derive(Debug)]
pub struct Secret {
    /// The number of its host.
    pub host: HostId,
    /// The name of its host.
    pub host_name: Arc<str>,
    /// Its fingerprint, which an identity stores.
    pub credential: Credential,
    /// The secret.
    pub secret: rest::Secret,
}

impl Directory {
    /// Whether anybody can be any number of users of this host.
    pub fn is_confined(&self, host: HostId) -> bool {
        self.confined.contains(&host)
    }

    /// The credentials of these settings.
    pub fn new(settings: &Settings) -> Self {
        let mut directory = Self::default();
        for (place, user) in settings.users.iter().enumerate() {
            directory.by_name.entry(user.name.clone()).or_insert(place);
            directory.by_hash.entry(user_hash(&user.name, &settings.realm)).or_insert(place);
            directory.valid.insert((user.host, Credential::of_user(&user.name, &user.password)));
        }
        let revoked = settings.hosts.iter().flat_map(|host| &host.revoked);
        directory.revoked = revoked.map(|secret| Credential::of_secret(secret)).collect();
        for host in &settings.hosts {
            directory.hosts.insert(host.id);
            if host.confined.is_some() {
                directory.confined.insert(host.id);
            }
            for secret in &host.secrets {
                let credential = Credential::of_secret(secret);
                if directory.revoked.contains(&credential) {
                    continue;
                }
                directory.valid.insert((host.id, credential));
                directory.by_credential.entry(credential).or_insert(directory.secrets.len());
                directory.secrets.push(Secret {
                    host: host.id,
                    host_name: Arc::clone(&host.name),
                    credential,
                    secret: rest::Secret::new(secret),
                });
            }
        }
        directory
    }

    /// Returns the secret with this fingerprint, unless the settings lack it or list it as revoked.
    pub fn secret(&self, credential: Credential) -> Option<&Secret> {
        self.by_credential.get(&credential).map(|&place| &self.secrets[place])
    }

    /// What the settings say about the credential of a user of this host.
    pub fn standing(&self, host: HostId, name: &str, credential: Credential) -> Standing {
        let is_revoked = match credential {
            Credential::Secret(_) => self.revoked.contains(&credential),
            Credential::User(_) => !self.by_name.contains_key(name),
        };
        if is_revoked {
            Standing::Revoked
        } else if self.hosts.contains(&host) && self.valid.contains(&(host, credential)) {
            Standing::Valid
        } else {
            Standing::Withdrawn
        }
    }
}

/// USERHASH (RFC 8489 section 14.4).
pub fn user_hash(name: &str, realm: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(b":");
    hash.update(realm.as_bytes());
    hash.finalize().into()
}
