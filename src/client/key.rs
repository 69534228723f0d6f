//! Keys of the long-term credential mechanism (RFC 8489 sections 9.2.2 and 18.5).

use stun_types::message::LongTermKeyCredentials;

use crate::wire::message::{IntegrityAlgorithm, IntegrityKey};

/// How a password becomes a key (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// MD5 of user:realm:password.
    Md5,
    /// SHA-256 of the same.
    Sha256,
}

impl PasswordAlgorithm {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    pub(super) fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }
}

/// A key made of user name, realm and password.
pub(super) struct Key {
    pub realm: Box<str>,
    pub algorithm: PasswordAlgorithm,
    pub integrity: IntegrityKey,
}

impl Key {
    /// Computes the key.
    pub fn new(name: &str, password: &str, realm: &str, algorithm: PasswordAlgorithm) -> Self {
        let hash = match algorithm {
            PasswordAlgorithm::Md5 => IntegrityAlgorithm::Sha1,
            PasswordAlgorithm::Sha256 => IntegrityAlgorithm::Sha256,
        };
        let (name, password) = (name.to_owned(), password.to_owned());
        let integrity = LongTermKeyCredentials::new(name, password, realm.to_owned()).make_key(hash);
        Self { realm: realm.into(), algorithm, integrity }
    }

    /// Whether it is the key for this realm and algorithm.
    pub fn is_for(&self, realm: &str, algorithm: PasswordAlgorithm) -> bool {
        *self.realm == *realm && self.algorithm == algorithm
    }
}
