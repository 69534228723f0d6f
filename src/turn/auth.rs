//! Who sent this? The long-term credential mechanism of RFC 8489 section 9.2.4 with time-limited REST names.
//!
//! The nonce is judged before the credentials: it proves the client's address for one short hash, so a stranger
//! never makes us compute a password. Only what verified is remembered, and only so much of it.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use stun_types::message::LongTermKeyCredentials;

use super::error::Code;
use super::rest;
use super::settings::{HostId, Settings};
use super::time::Now;
use crate::wire::message::{IntegrityAlgorithm, IntegrityKey, Message};
use crate::wire::request::Credentials;

/// Users remembered per worker; the oldest generation goes when it is full. A miss costs microseconds.
const CACHE_MAX: usize = 4096;

/// PASSWORD-ALGORITHMS as we offer them: SHA-256, then MD5 (RFC 8489 sections 14.11 and 18.5).
pub const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// How a password becomes a key (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// MD5 of user:realm:password.
    Md5,
    /// SHA-256 of the same.
    Sha256,
}

impl PasswordAlgorithm {
    /// The registered number, if we offer it.
    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    fn key(self, user: &str, realm: &str, password: &str) -> IntegrityKey {
        let hash = match self {
            Self::Md5 => IntegrityAlgorithm::Sha1,
            Self::Sha256 => IntegrityAlgorithm::Sha256,
        };
        LongTermKeyCredentials::new(user.to_owned(), password.to_owned(), realm.to_owned()).make_key(hash)
    }
}

/// Somebody whose credentials verified.
#[derive(Debug)]
pub struct Identity {
    /// The user name as sent.
    pub name: Arc<str>,
    /// What quotas go by: the part after the first colon of a REST name.
    pub user: Arc<str>,
    /// Whose secret verified.
    pub host: HostId,
    /// That host's name.
    pub host_name: Arc<str>,
    /// When the name runs out, in seconds since 1970.
    pub expires: Option<u64>,
    password_algorithm: PasswordAlgorithm,
    key: IntegrityKey,
}

/// One authenticated request: who, and how the answer is to be protected.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who.
    pub identity: Arc<Identity>,
    /// The integrity attribute of the answer.
    pub answer: IntegrityAlgorithm,
}

impl Authenticated {
    /// The key that protects the answer.
    pub fn key(&self) -> &IntegrityKey {
        &self.identity.key
    }
}

/// Finds identities. One per worker; what it remembers can be forgotten at any time.
#[derive(Debug, Default)]
pub struct Authenticator {
    // Two generations: hits move to the young one, and when that is full the old one is forgotten.
    young: HashMap<Arc<str>, Known>,
    old: HashMap<Arc<str>, Known>,
}

/// The identities of one name, by password algorithm.
#[derive(Clone, Debug, Default)]
struct Known {
    md5: Option<Arc<Identity>>,
    sha256: Option<Arc<Identity>>,
}

impl Known {
    fn slot(&mut self, algorithm: PasswordAlgorithm) -> &mut Option<Arc<Identity>> {
        match algorithm {
            PasswordAlgorithm::Md5 => &mut self.md5,
            PasswordAlgorithm::Sha256 => &mut self.sha256,
        }
    }
}

impl Authenticator {
    /// Forgets everybody, because secrets changed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Names remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks `message`, whose nonce is good already. `holder` is the owner of the five-tuple's allocation: his
    /// own request is checked against the key he came with, so that neither the end of his name's time nor a
    /// changed secret cuts a running call.
    ///
    /// # Errors
    /// 400 for password algorithms that were not offered, 401 for everything that does not verify.
    pub fn check(
        &mut self,
        now: Now,
        settings: &Settings,
        message: &Message<'_>,
        credentials: &Credentials<'_>,
        offered: bool,
        holder: Option<&Arc<Identity>>,
    ) -> Result<Authenticated, Code> {
        let algorithm = password_algorithm(credentials, offered)?;
        let answer = if credentials.password_algorithm.is_some() {
            IntegrityAlgorithm::Sha256
        } else {
            IntegrityAlgorithm::Sha1
        };
        let proof = message.integrity().ok_or(Code::Unauthenticated)?;
        if credentials.realm != Some(settings.realm.as_str()) {
            return Err(Code::Unauthenticated);
        }
        let userhash = credentials.userhash;
        let is_named = |identity: &Identity| match (credentials.username, userhash) {
            (Some(name), _) => *identity.name == *name,
            (None, Some(hash)) => user_hash(&identity.name, &settings.realm) == hash,
            (None, None) => false,
        };
        if let Some(holder) = holder
            && holder.password_algorithm == algorithm
            && is_named(holder)
        {
            return match message.verify(&holder.key, proof) {
                true => Ok(Authenticated { identity: Arc::clone(holder), answer }),
                false => Err(Code::Unauthenticated),
            };
        }
        let name = match (credentials.username, userhash) {
            (Some(name), _) => name.to_owned(),
            (None, Some(hash)) => self.name_of(settings, hash).ok_or(Code::Unauthenticated)?,
            (None, None) => return Err(Code::Unauthenticated),
        };
        let identity =
            self.identify(settings, &name, algorithm, message, proof).ok_or(Code::Unauthenticated)?;
        if identity.expires.is_some_and(|expires| expires <= now.unix) {
            return Err(Code::Unauthenticated);
        }
        Ok(Authenticated { identity, answer })
    }

    fn identify(
        &mut self,
        settings: &Settings,
        name: &str,
        algorithm: PasswordAlgorithm,
        message: &Message<'_>,
        proof: IntegrityAlgorithm,
    ) -> Option<Arc<Identity>> {
        if let Some(identity) = self.recall(name, algorithm) {
            // Two hosts may know one name, so a wrong key here is not the last word.
            if message.verify(&identity.key, proof) {
                return Some(identity);
            }
        }
        let identity = Arc::new(search(settings, name, algorithm, message, proof)?);
        self.remember(Arc::clone(&identity));
        Some(identity)
    }

    fn recall(&mut self, name: &str, algorithm: PasswordAlgorithm) -> Option<Arc<Identity>> {
        if let Some(known) = self.young.get_mut(name) {
            return known.slot(algorithm).clone();
        }
        let (name, mut known) = self.old.remove_entry(name)?;
        let identity = known.slot(algorithm).clone();
        self.make_room();
        self.young.insert(name, known);
        identity
    }

    fn remember(&mut self, identity: Arc<Identity>) {
        self.make_room();
        let known = self.young.entry(Arc::clone(&identity.name)).or_default();
        let algorithm = identity.password_algorithm;
        *known.slot(algorithm) = Some(identity);
    }

    fn make_room(&mut self) {
        if self.young.len() >= CACHE_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// The name behind a USERHASH: a static user's, or one that verified lately (a REST name is not known before).
    fn name_of(&self, settings: &Settings, hash: [u8; 32]) -> Option<String> {
        let statics = settings.users.iter().map(|user| user.name.as_str());
        let lately = self.young.keys().chain(self.old.keys()).map(|name| &**name);
        statics.chain(lately).find(|name| user_hash(name, &settings.realm) == hash).map(str::to_owned)
    }
}

/// RFC 8489 section 9.2.4, third check: which algorithm this request means, given whether the nonce offered any.
fn password_algorithm(credentials: &Credentials<'_>, offered: bool) -> Result<PasswordAlgorithm, Code> {
    match (credentials.password_algorithm, credentials.password_algorithms) {
        (None, None) => Ok(PasswordAlgorithm::Md5),
        (Some(number), list) if !offered || list == Some(&PASSWORD_ALGORITHMS[..]) => {
            PasswordAlgorithm::from_number(number).ok_or(Code::BadRequest)
        }
        (None, Some(_)) if !offered => Ok(PasswordAlgorithm::Md5),
        _ => Err(Code::BadRequest),
    }
}

/// Tries the static user of this name, then every secret of every host.
fn search(
    settings: &Settings,
    name: &str,
    algorithm: PasswordAlgorithm,
    message: &Message<'_>,
    proof: IntegrityAlgorithm,
) -> Option<Identity> {
    let try_password = |password: &str| {
        let key = algorithm.key(name, &settings.realm, password);
        message.verify(&key, proof).then_some(key)
    };
    for user in settings.users.iter().filter(|user| user.name == name) {
        if let Some(key) = try_password(&user.password) {
            let host = settings.hosts.iter().find(|host| host.id == user.host);
            let host_name = host.map_or_else(|| Arc::from(""), |host| Arc::clone(&host.name));
            let (name, user_id) = (Arc::from(name), Arc::from(name));
            return Some(Identity {
                name,
                user: user_id,
                host: user.host,
                host_name,
                expires: None,
                password_algorithm: algorithm,
                key,
            });
        }
    }
    let parsed = rest::parse(name)?;
    for host in &settings.hosts {
        for secret in &host.secrets {
            if let Some(key) = try_password(&rest::password(secret, name)) {
                return Some(Identity {
                    name: Arc::from(name),
                    user: Arc::from(parsed.user),
                    host: host.id,
                    host_name: Arc::clone(&host.name),
                    expires: Some(parsed.expires),
                    password_algorithm: algorithm,
                    key,
                });
            }
        }
    }
    None
}

/// USERHASH (RFC 8489 section 14.4).
fn user_hash(name: &str, realm: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(b":");
    hash.update(realm.as_bytes());
    hash.finalize().into()
}
