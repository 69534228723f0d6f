//! The client's half of the long-term credential mechanism (RFC 8489 sections 9.2.3 to 9.2.5).

use std::fmt;
use std::sync::Arc;

use super::challenge::{BadChallenge, Challenge};
use super::config::{Algorithms, Credentials};
use super::key::{Key, PasswordAlgorithm};
use crate::wire::answer::{Answer, algorithms};
use crate::wire::attribute::kind;
use crate::wire::message::{IntegrityAlgorithm, Message};
use crate::wire::writer::Writer;

/// The prefix of a nonce with security features (RFC 8489 section 9.2). Four letters of Base64 with the bits follow.
const NONCE_COOKIE: &[u8] = b"obMatJos2";
/// The longest accepted PASSWORD-ALGORITHMS, in bytes: sixteen algorithms without parameters. Two are registered.
const OFFER_MAX: usize = 64;

/// What a client needs to sign requests after a challenge.
pub(super) struct Login {
    credentials: Arc<Credentials>,
    key: Arc<Key>,
    nonce: Box<[u8]>,
    /// The server's PASSWORD-ALGORITHMS, which is sent back if one of them is used.
    offer: Option<Box<[u8]>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, realm) = (self.credentials.name(), self.realm());
        f.debug_struct("Login").field("name", &name).field("realm", &realm).finish_non_exhaustive()
    }
}

/// Whether a response can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// Its integrity attribute is valid under the key.
    Holds,
    /// It has no integrity attribute.
    Missing,
    /// It has one that is wrong, or one that is weaker than the request's.
    Wrong,
}

impl Login {
    /// Makes a login from a 401 or 438. If that has no REALM, the realm of `before`, the previous login, is kept.
    pub(super) fn take(
        credentials: &Arc<Credentials>,
        wanted: Algorithms,
        before: Option<&Self>,
        answer: &Answer<'_>,
    ) -> Result<(Self, Challenge), BadChallenge> {
        let nonce = answer.nonce().ok_or(BadChallenge::NoNonce)?;
        let realm = match (answer.realm(), before) {
            (Some(realm), _) => std::str::from_utf8(realm).map_err(|_| BadChallenge::RealmNotText)?,
            (None, Some(before)) => &before.key.realm,
            (None, None) => return Err(BadChallenge::NoRealm),
        };
        let offer = answer.password_algorithms();
        if promises_algorithms(nonce) && offer.is_none() {
            return Err(BadChallenge::BidDown);
        }
        let used = offer.filter(|_| wanted == Algorithms::Offered);
        let algorithm = match used {
            None => PasswordAlgorithm::Md5,
            Some(offer) if offer.len() > OFFER_MAX => return Err(BadChallenge::NoKnownAlgorithm),
            Some(offer) => {
                let known = algorithms(offer).find_map(PasswordAlgorithm::from_number);
                known.ok_or(BadChallenge::NoKnownAlgorithm)?
            }
        };
        let challenge = Challenge {
            realm: realm.to_owned(),
            offers_algorithms: offer.is_some(),
            algorithm,
            sha256: used.is_some(),
        };
        let login = Self {
            key: key(credentials, realm, algorithm),
            credentials: Arc::clone(credentials),
            nonce: nonce.into(),
            offer: used.map(Into::into),
        };
        Ok((login, challenge))
    }

    /// Whether both would sign with the same key.
    pub(super) fn has_same_key(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key) || self.key.is_for(&other.key.realm, other.key.algorithm)
    }

    /// The realm of the challenge.
    pub(super) fn realm(&self) -> &str {
        &self.key.realm
    }

    /// Appends the credentials and integrity.
    pub(super) fn sign(&self, writer: &mut Writer<'_>) {
        writer.attribute(kind::USERNAME, self.credentials.name.as_bytes());
        writer.attribute(kind::REALM, self.key.realm.as_bytes());
        writer.attribute(kind::NONCE, &self.nonce);
        if let Some(offer) = &self.offer {
            writer.attribute(kind::PASSWORD_ALGORITHMS, offer);
            let [high, low] = self.key.algorithm.number().to_be_bytes();
            writer.attribute(kind::PASSWORD_ALGORITHM, &[high, low, 0, 0]);
        }
        writer.sign(&self.key.integrity, self.integrity());
    }

    /// Checks a response to a request that this login signed.
    pub(super) fn check(&self, response: &Message<'_>) -> Protection {
        match (response.integrity(), self.integrity()) {
            (None, _) => Protection::Missing,
            (Some(IntegrityAlgorithm::Sha1), IntegrityAlgorithm::Sha256) => Protection::Wrong,
            (Some(algorithm), _) if response.verify(&self.key.integrity, algorithm) => Protection::Holds,
            (Some(_), _) => Protection::Wrong,
        }
    }

    fn integrity(&self) -> IntegrityAlgorithm {
        if self.offer.is_some() { IntegrityAlgorithm::Sha256 } else { IntegrityAlgorithm::Sha1 }
    }
}

/// Returns the cached key of the credentials if it is for this realm and algorithm, otherwise a new one.
fn key(credentials: &Credentials, realm: &str, algorithm: PasswordAlgorithm) -> Arc<Key> {
    let make = || Arc::new(Key::new(&credentials.name, &credentials.password, realm, algorithm));
    let first = credentials.first.get_or_init(make);
    if first.is_for(realm, algorithm) { Arc::clone(first) } else { make() }
}

/// Whether the nonce announces PASSWORD-ALGORITHMS. That is the leftmost of the feature bits (RFC 8489 section 18.1),
/// so the first of their Base64 letters encodes a value of 32 or more.
fn promises_algorithms(nonce: &[u8]) -> bool {
    match nonce.strip_prefix(NONCE_COOKIE).and_then(<[u8]>::first) {
        Some(b'g'..=b'z' | b'0'..=b'9' | b'+' | b'/') => true,
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors;

    fn credentials(name: &str, password: &str) -> Arc<Credentials> {
        Arc::new(Credentials::new(name, password).expect("short"))
    }

    fn take(attributes: &[(u16, &[u8])], wanted: Algorithms) -> Result<(Login, Challenge), BadChallenge> {
        let code: (u16, &[u8]) = (kind::ERROR_CODE, &[0, 0, 4, 1]);
        let bytes = vectors::message(0x0113, &[&[code], attributes].concat());
        let answer = Answer::parse(&Message::parse(&bytes).expect("well-formed")).expect("an error");
        Login::take(&credentials("user", "pass"), wanted, None, &answer)
    }

    const REALM: (u16, &[u8]) = (kind::REALM, b"example.org");
    const NONCE: (u16, &[u8]) = (kind::NONCE, b"38fe16a9a395e45f");
    const BOTH: (u16, &[u8]) = (kind::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);

    /// The signed Allocate that Chromium sent with the same credentials.
    #[test]
    fn signs_as_chromium_does() {
        let (login, challenge) = take(&[REALM, NONCE], Algorithms::Offered).expect("a challenge");
        assert_eq!((challenge.algorithm, challenge.sha256), (PasswordAlgorithm::Md5, false));
        let chromium = vectors::chromium_allocate_authenticated();
        let mut bytes = Vec::new();
        let request = super::super::request::Request::Allocate(Default::default());
        request.write(&mut bytes, *chromium[8..].first_chunk().expect("an id"), None, Some(&login));
        assert_eq!(bytes, chromium);
    }

    #[test]
    fn uses_what_is_offered() {
        let algorithm = |offer: &[u8], wanted| {
            let offer = (kind::PASSWORD_ALGORITHMS, offer);
            take(&[REALM, NONCE, offer], wanted).map(|(_, challenge)| (challenge.algorithm, challenge.sha256))
        };
        assert_eq!(algorithm(BOTH.1, Algorithms::Offered), Ok((PasswordAlgorithm::Sha256, true)));
        assert_eq!(algorithm(BOTH.1, Algorithms::Old), Ok((PasswordAlgorithm::Md5, false)));
        assert_eq!(algorithm(&[0, 1, 0, 0], Algorithms::Offered), Ok((PasswordAlgorithm::Md5, true)));
        let unknown = Err(BadChallenge::NoKnownAlgorithm);
        assert_eq!(algorithm(&[0, 9, 0, 0], Algorithms::Offered), unknown);
        assert_eq!(algorithm(&[0, 1, 0, 0].repeat(17), Algorithms::Offered), unknown, "too long");
        let (login, _) = take(&[REALM, NONCE, BOTH], Algorithms::Offered).expect("a challenge");
        let mut bytes = Vec::new();
        login.sign(&mut Writer::request(&mut bytes, 1, [7; 12]));
        let message = Message::parse(&bytes).expect("valid");
        assert_eq!(message.attribute(kind::PASSWORD_ALGORITHMS).map(|a| a.value), Some(BOTH.1));
        assert_eq!(message.attribute(kind::PASSWORD_ALGORITHM).map(|a| a.value), Some(&[0, 2, 0, 0][..]));
        assert_eq!((message.has_sha1(), message.has_sha256()), (false, true));
        assert_eq!(login.check(&message), Protection::Holds);
    }

    #[test]
    fn challenges_that_cannot_be_answered() {
        let problem = |attributes: &[(u16, &[u8])]| take(attributes, Algorithms::Offered).err();
        assert_eq!(problem(&[REALM]), Some(BadChallenge::NoNonce));
        assert_eq!(problem(&[NONCE]), Some(BadChallenge::NoRealm));
        assert_eq!(problem(&[(kind::REALM, &[0xff]), NONCE]), Some(BadChallenge::RealmNotText));
        assert_eq!(problem(&[REALM, (kind::NONCE, &[b'n'; 764])]), Some(BadChallenge::NoNonce));
        // 0x80 and 0x40 as the first eight of the 24 bits.
        assert_eq!(problem(&[REALM, (kind::NONCE, b"obMatJos2gAAAx")]), Some(BadChallenge::BidDown));
        assert_eq!(problem(&[REALM, (kind::NONCE, b"obMatJos2gAAAx"), BOTH]), None);
        assert_eq!(problem(&[REALM, (kind::NONCE, b"obMatJos2QAAAx")]), None);
    }

    #[test]
    fn a_key_is_made_once_and_only_for_its_realm() {
        let credentials = credentials("user", "pass");
        let one = key(&credentials, "a", PasswordAlgorithm::Md5);
        assert!(Arc::ptr_eq(&one, &key(&credentials, "a", PasswordAlgorithm::Md5)));
        assert!(!key(&credentials, "b", PasswordAlgorithm::Md5).is_for("a", PasswordAlgorithm::Md5));
        assert!(!one.is_for("a", PasswordAlgorithm::Sha256));
    }
}
