//! Authentication: the long-term credential mechanism of RFC 8489 section 9.2.4 with time-limited REST names.
//!
//! The nonce is checked before the credentials: for the cost of one short hash it proves the client's address, so forged
//! addresses never cause the computation of a password. An expired name is refused before any secret is tried, and trying
//! secrets has a budget of its own. The cache holds only identities that verified, and its size is limited.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use stun_types::message::LongTermKeyCredentials;

use super::account::Account;
use super::directory::{Credential, Directory, Secret, Standing, user_hash};
use super::nonce::Features;
use super::recent_secrets::RecentSecrets;
use super::rest::{self, Misshapen};
use crate::base::host::HostId;
use crate::base::time::{Instant, Now};
use crate::turn::identity::refusal::{Reason, Withdrawal};
use crate::turn::settings::{Settings, StaticUser};
use crate::wire::message::{IntegrityAlgorithm, IntegrityKey, Message};
use crate::wire::request::Credentials;

/// Users cached per worker; the oldest generation is dropped when the cache is full. A miss costs microseconds.
const CACHE_MAX: usize = 4096;

/// A user name that expires more days ahead is probably in milliseconds. Credentials for a year are in use.
const FAR_DAYS: u64 = 366;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// A time before this one, ten years after 1970, is a lifetime that was written instead of a time.
const LIFETIMES_END: u64 = 3_650 * SECONDS_PER_DAY;

/// The password of the decoy key. No user has it.
const DECOY_PASSWORD: &str = "decoy";

/// The value of PASSWORD-ALGORITHMS that we offer: SHA-256, then MD5 (RFC 8489 sections 14.11 and 18.5).
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
    pub(super) fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// Returns the key of this user.
    pub(super) fn key(self, user: &str, realm: &str, password: String) -> IntegrityKey {
        let hash = match self {
            Self::Md5 => IntegrityAlgorithm::Sha1,
            Self::Sha256 => IntegrityAlgorithm::Sha256,
        };
        LongTermKeyCredentials::new(user.to_owned(), password, realm.to_owned()).make_key(hash)
    }
}

/// A user whose credentials verified.
#[derive(Debug)]
pub struct Identity {
    /// The user name as sent.
    pub name: Arc<str>,
    /// The user that quotas count: the part after the first colon of a REST name.
    pub user: Arc<str>,
    /// The host whose secret verified.
    pub host: HostId,
    /// That host's name.
    pub host_name: Arc<str>,
    /// The realm of its key. A new realm in the settings does not end allocations made under this one.
    pub realm: Arc<str>,
    /// When the name expires, on the monotonic clock as of the time it verified: a jump of the wall clock does not affect
    /// a running call.
    pub expires: Option<Instant>,
    /// The secret or password that verified.
    credential: Credential,
    password_algorithm: PasswordAlgorithm,
    key: IntegrityKey,
}

impl Identity {
    /// The account that its allocations count for.
    pub fn account(&self) -> Account {
        match self.user.is_empty() {
            true => Account::Name(Arc::clone(&self.name)),
            false => Account::User(Arc::clone(&self.user)),
        }
    }

    /// Why it gets no more peers, if it does not.
    pub fn withdrawal(&self, now: Instant) -> Withdrawal {
        match self.credential {
            _ if self.expires.is_some_and(|expires| expires <= now) => Withdrawal::Expired,
            Credential::User(_) => Withdrawal::PasswordChanged,
            Credential::Secret(_) => Withdrawal::SecretRemoved,
        }
    }

    /// An identity that no request can use.
    #[cfg(test)]
    pub fn for_test(user: &str, host: HostId) -> Self {
        let credentials = stun_types::message::ShortTermCredentials::new("unknown".to_owned());
        let key = stun_types::message::MessageIntegrityCredentials::from(credentials)
            .make_key(crate::wire::message::IntegrityAlgorithm::Sha1);
        Self {
            name: user.into(),
            user: user.into(),
            host,
            host_name: "".into(),
            realm: "".into(),
            expires: None,
            credential: Credential::of_user(user, "unknown"),
            password_algorithm: PasswordAlgorithm::Md5,
            key,
        }
    }

    /// Whether a request names this identity, its realm and its password algorithm.
    fn is_named_by(
        &self,
        credentials: &Credentials<'_>,
        userhash: Option<[u8; 32]>,
        algorithm: PasswordAlgorithm,
    ) -> bool {
        self.password_algorithm == algorithm
            && credentials.realm == Some(&*self.realm)
            && match (credentials.username, userhash) {
                (Some(name), _) => *self.name == *name,
                (None, Some(hash)) => user_hash(&self.name, &self.realm) == hash,
                (None, None) => false,
            }
    }
}

/// One authenticated request: its sender, and how the answer is protected.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The sender.
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

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The credentials are refused, for another reason than the password.
    Refused(Reason),
    /// The password is wrong.
    Wrong(Reason),
    /// Secrets would have to be tried, and the caller does not allow a search.
    SearchNeeded,
}

/// The outcome of a check.
#[derive(Debug)]
pub struct Checked {
    /// The sender, or why the request is refused.
    pub result: Result<Authenticated, Failure>,
    /// The number of keys tried: of secrets, and of a static user. The key of the allocation's owner, or a cached one, counts
    /// only if it did not verify. The recent secrets of the source count only if a search follows: without one, they cost no
    /// more than another request.
    pub tried: usize,
}

/// One request whose credentials are checked. The caller has checked its nonce.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The time.
    pub now: Now,
    /// The source of the request.
    pub source: IpAddr,
    /// The current settings.
    pub settings: &'a Settings,
    /// The request.
    pub message: &'a Message<'a>,
    /// Its credentials.
    pub credentials: &'a Credentials<'a>,
    /// The features that the nonce announced.
    pub features: Features,
    /// The owner of the client's allocation. Its requests are checked against the key that the allocation was made with, so
    /// neither an expired name nor a changed secret ends a running call.
    pub holder: Option<&'a Arc<Identity>>,
    /// Whether no key but the holder's may be tried.
    pub holder_alone: bool,
    /// Whether the secrets of all hosts may be tried, the only work that grows with the configuration. Those that verified
    /// lately at the source are tried in any case.
    pub may_search: bool,
}

/// Finds identities. One per worker; its cache may be dropped at any time.
#[derive(Debug)]
pub struct Authenticator {
    directory: Directory,
    recent_secrets: RecentSecrets,
    realm: Arc<str>,
    // Two generations of REST users: hits move to the young one, and when that is full, it replaces the old one.
    young: HashMap<Arc<str>, Known>,
    old: HashMap<Arc<str>, Known>,
    /// Checked instead of a missing key, so that the time of an answer does not reveal which names are known.
    decoy: IntegrityKey,
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
    /// An authenticator for the credentials of `settings`, with an empty cache.
    pub fn new(settings: &Settings) -> Self {
        Self {
            directory: Directory::new(settings),
            recent_secrets: RecentSecrets::default(),
            realm: Arc::from(settings.realm.as_str()),
            young: HashMap::new(),
            old: HashMap::new(),
            decoy: PasswordAlgorithm::Md5.key("decoy", &settings.realm, DECOY_PASSWORD.to_owned()),
        }
    }

    /// Takes other credentials. Forgets all names, and keeps which secrets were used from where.
    pub fn follow(&mut self, settings: &Settings) {
        *self = Self { recent_secrets: std::mem::take(&mut self.recent_secrets), ..Self::new(settings) };
    }

    /// The number of cached names.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether USERHASH may be sent instead of USERNAME: only if all users are static, because the hash of a REST name cannot
    /// be known before the name is used.
    pub fn offers_anonymity(&self) -> bool {
        self.directory.secrets.is_empty()
    }

    /// What the settings say about the credential of this identity.
    pub fn standing(&self, identity: &Identity) -> Standing {
        self.directory.standing(identity.host, &identity.name, identity.credential)
    }

    /// Checks the credentials of one request.
    pub fn check(&mut self, attempt: &Attempt<'_>) -> Checked {
        let mut tried = 0;
        let result = self.find(attempt, &mut tried);
        Checked { result, tried }
    }

    /// The identity whose key verifies the request. Counts the keys `tried`.
    fn find(&mut self, attempt: &Attempt<'_>, tried: &mut usize) -> Result<Authenticated, Failure> {
        let Attempt { now, source, settings, message, credentials, features, .. } = *attempt;
        let Attempt { holder, holder_alone, may_search, .. } = *attempt;
        let algorithm =
            password_algorithm(credentials, features.password_algorithms).map_err(Failure::Refused)?;
        let answer = if credentials.password_algorithm.is_some() {
            IntegrityAlgorithm::Sha256
        } else {
            IntegrityAlgorithm::Sha1
        };
        let proof = message.integrity().ok_or(Failure::Refused(Reason::FirstRequest))?;
        // USERHASH counts only if this nonce offered it.
        let userhash = credentials.userhash.filter(|_| features.username_anonymity);
        if let Some(holder) = holder
            && holder.is_named_by(credentials, userhash, algorithm)
        {
            return match message.verify(&holder.key, proof) {
                true => Ok(Authenticated { identity: Arc::clone(holder), answer }),
                false => {
                    *tried += 1;
                    Err(Failure::Wrong(Reason::OtherPassword))
                }
            };
        }
        if credentials.realm != Some(settings.realm.as_str()) {
            return Err(Failure::Refused(Reason::UnknownRealm));
        }
        if holder_alone {
            return Err(Failure::Refused(Reason::OtherPassword));
        }
        let claim = Claim { now, settings, realm: Arc::clone(&self.realm), message, algorithm, proof };
        let user = match (credentials.username, userhash) {
            (Some(name), _) => self.directory.by_name.get(name).copied(),
            (None, Some(hash)) => self.directory.by_hash.get(&hash).copied(),
            (None, None) => return Err(Failure::Refused(Reason::UnknownUser)),
        };
        // Every request computes one static user's key, known or not, so that the time does not reveal which names are known.
        if !settings.users.is_empty() {
            *tried += 1;
            if let Some(identity) = claim.of_static(user.map(|place| &settings.users[place])) {
                return Ok(Authenticated { identity: Arc::new(identity), answer });
            }
        }
        let Some((name, rest)) = credentials.username.and_then(|name| Some((name, rest::parse(name)?)))
        else {
            return Err(Failure::Refused(match (user, credentials.username) {
                (Some(_), _) => Reason::WrongPassword { secrets: 0 },
                (None, Some(name)) if !self.directory.secrets.is_empty() => {
                    Reason::MalformedName { shape: Misshapen::of(name) }
                }
                _ => Reason::UnknownUser,
            }));
        };
        if rest.expires <= now.unix {
            return Err(Failure::Refused(match rest.expires {
                lifetime @ ..LIFETIMES_END => Reason::LifetimeName { lifetime },
                expired => Reason::ExpiredName { seconds: now.unix - expired },
            }));
        }
        let recalled = self.recall(name, algorithm);
        let key = recalled.as_ref().map_or(&self.decoy, |identity| &identity.key);
        let verified = std::hint::black_box(message.verify(key, proof));
        if let (Some(identity), true) = (recalled, verified) {
            self.verified(source, &identity);
            return Ok(Authenticated { identity, answer });
        }
        // Two hosts may issue the same name, so a key that does not verify proves nothing.
        let recent: Vec<Credential> = self.recent_secrets.of(source).collect();
        let known = recent.iter().filter_map(|&secret| self.directory.secret(secret));
        let mut tried_recent = 0;
        let mut found = claim.of_host(known, name, rest, &mut tried_recent);
        if found.is_none() {
            if !may_search {
                return Err(Failure::SearchNeeded);
            }
            *tried += 1 + tried_recent;
            let others = self.directory.secrets.iter().filter(|secret| !recent.contains(&secret.credential));
            found = claim.of_host(others, name, rest, tried);
        }
        let identity = Arc::new(found.ok_or_else(|| Failure::Wrong(self.wrong_password(now, rest)))?);
        self.verified(source, &identity);
        self.remember(Arc::clone(&identity));
        Ok(Authenticated { identity, answer })
    }

    /// Remembers that a secret has verified a request of this source. One whose users anybody can be does not take the place of
    /// another.
    fn verified(&mut self, source: IpAddr, identity: &Identity) {
        if !self.directory.is_confined(identity.host) {
            self.recent_secrets.verified(source, identity.credential);
        }
    }

    /// Returns why no secret gives the password of this name.
    fn wrong_password(&self, now: Now, name: rest::Name<'_>) -> Reason {
        let secrets = self.directory.secrets.len();
        match (name.expires - now.unix) / SECONDS_PER_DAY {
            _ if secrets == 0 => Reason::UnknownUser,
            days if days > FAR_DAYS => Reason::FarExpiry { secrets, days },
            _ => Reason::WrongPassword { secrets },
        }
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
}

/// A request that claims to know a password.
struct Claim<'a> {
    now: Now,
    settings: &'a Settings,
    realm: Arc<str>,
    message: &'a Message<'a>,
    algorithm: PasswordAlgorithm,
    proof: IntegrityAlgorithm,
}

impl Claim<'_> {
    /// The key of this name and password, if the request was made with it.
    fn key(&self, name: &str, password: String) -> Option<IntegrityKey> {
        let key = self.algorithm.key(name, &self.realm, password);
        self.message.verify(&key, self.proof).then_some(key)
    }

    /// The identity of a static user, if its key verifies the request. Takes as long if there is no such user.
    fn of_static(&self, user: Option<&StaticUser>) -> Option<Identity> {
        let (name, password) = user.map_or(("decoy", DECOY_PASSWORD), |user| (&user.name, &user.password));
        let key = std::hint::black_box(self.key(name, password.to_owned()));
        let (user, key) = (user?, key?);
        let host = self.settings.hosts.iter().find(|host| host.id == user.host);
        Some(Identity {
            name: Arc::from(name),
            user: Arc::from(name),
            host: user.host,
            host_name: host.map_or_else(|| Arc::from(""), |host| Arc::clone(&host.name)),
            realm: Arc::clone(&self.realm),
            expires: None,
            credential: Credential::of_user(name, password),
            password_algorithm: self.algorithm,
            key,
        })
    }

    /// The identity of a REST name, by the secret that verifies its password. Counts the secrets `tried`.
    fn of_host<'s>(
        &self,
        secrets: impl Iterator<Item = &'s Secret>,
        name: &str,
        rest: rest::Name<'_>,
        tried: &mut usize,
    ) -> Option<Identity> {
        let left = Duration::from_secs(rest.expires.saturating_sub(self.now.unix));
        let (secret, key) = { secrets }.find_map(|secret| {
            *tried += 1;
            Some((secret, self.key(name, secret.secret.password(name))?))
        })?;
        Some(Identity {
            name: Arc::from(name),
            user: Arc::from(rest.user),
            host: secret.host,
            host_name: Arc::clone(&secret.host_name),
            realm: Arc::clone(&self.realm),
            expires: Some(self.now.instant + left),
            credential: secret.credential,
            password_algorithm: self.algorithm,
            key,
        })
    }
}

/// RFC 8489 section 9.2.4, third check: which algorithm this request means, given whether the nonce offered any.
fn password_algorithm(credentials: &Credentials<'_>, offered: bool) -> Result<PasswordAlgorithm, Reason> {
    match (credentials.password_algorithm, credentials.password_algorithms) {
        (None, None) => Ok(PasswordAlgorithm::Md5),
        (Some(number), list) if !offered || list == Some(&PASSWORD_ALGORITHMS[..]) => {
            PasswordAlgorithm::from_number(number).ok_or(Reason::MalformedCredentials)
        }
        (None, Some(_)) if !offered => Ok(PasswordAlgorithm::Md5),
        _ => Err(Reason::MalformedCredentials),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::error::Code;
    use crate::turn::settings::{Host, Limits, PeerRules};
    use crate::wire::attribute::kind;
    use crate::wire::message::method;
    use crate::wire::vectors;

    fn settings() -> Settings {
        let host = HostId(0);
        Settings {
            icmp_to_clients: false,
            realm: "realm".into(),
            hosts: vec![Host {
                id: host,
                name: "here".into(),
                secrets: vec![],
                revoked: vec![],
                peers: None,
                confined: None,
            }],
            users: vec![StaticUser { name: "ann".into(), password: "ann-pw".into(), host }],
            relay_addresses: Vec::new(),
            default_family: Default::default(),
            relay_ports: 49_152..=65_535,
            peers: PeerRules::default(),
            limits: Limits::default(),
            alternates: Default::default(),
            strict_channels: false,
        }
    }

    /// The time of an answer must not reveal which users exist, neither by USERNAME nor by USERHASH.
    #[test]
    fn a_name_costs_one_key_whether_it_is_known_or_not() {
        let settings = settings();
        let mut authenticator = Authenticator::new(&settings);
        let features = Features { password_algorithms: true, username_anonymity: true };
        let now = Now { instant: Instant::from_nanos(1), unix: 1 };
        let [known, unknown] = ["ann", "eve"].map(|name| user_hash(name, "realm"));
        for (kind, name) in [
            (kind::USERNAME, &b"ann"[..]),
            (kind::USERNAME, b"eve"),
            (kind::USERHASH, &known),
            (kind::USERHASH, &unknown),
        ] {
            let bytes = vectors::message(
                method::ALLOCATE,
                &[
                    (kind, name),
                    (kind::REALM, b"realm"),
                    (kind::NONCE, b"x"),
                    (kind::MESSAGE_INTEGRITY, &[0; 20]),
                ],
            );
            let message = Message::parse(&bytes).expect("well-formed");
            let credentials = Credentials::parse(&message).expect("well-formed");
            let checked = authenticator.check(&Attempt {
                now,
                source: "192.0.2.1".parse().expect("literal"),
                settings: &settings,
                message: &message,
                credentials: &credentials,
                features,
                holder: None,
                holder_alone: false,
                may_search: true,
            });
            assert!(
                matches!(checked.result, Err(Failure::Refused(reason)) if reason.code() == Some(Code::Unauthenticated))
            );
            assert_eq!(checked.tried, 1, "{name:?}");
        }
    }
}
