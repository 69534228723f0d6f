//! Challenges: what a 401 or 438 asks for (RFC 8489 section 9.2.4).

use std::fmt;

use super::key::PasswordAlgorithm;

/// What a challenge asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// REALM.
    pub realm: String,
    /// Whether PASSWORD-ALGORITHMS came with it.
    pub offers_algorithms: bool,
    /// The algorithm that is used from now on.
    pub algorithm: PasswordAlgorithm,
    /// Whether messages are protected by MESSAGE-INTEGRITY-SHA256, else by MESSAGE-INTEGRITY.
    pub sha256: bool,
}

/// Why a 401 or 438 cannot be answered with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChallenge {
    /// No NONCE, or one of more than 763 bytes.
    NoNonce,
    /// No REALM, or one of more than 763 bytes.
    NoRealm,
    /// REALM is not UTF-8.
    RealmNotText,
    /// The nonce says that password algorithms are offered, but PASSWORD-ALGORITHMS is missing: an intermediary removed
    /// it (RFC 8489 section 9.2.5).
    BidDown,
    /// None of the offered password algorithms is known here.
    NoKnownAlgorithm,
}

impl fmt::Display for BadChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNonce => "the server asks for credentials without a usable NONCE",
            Self::NoRealm => "the server asks for credentials without a usable REALM",
            Self::RealmNotText => "the server's REALM is not UTF-8",
            Self::BidDown => "an intermediary removed PASSWORD-ALGORITHMS",
            Self::NoKnownAlgorithm => "the server offers no known password algorithm",
        })
    }
}
