//! Time-limited credentials as BigBlueButton and coturn make them (draft-uberti-behave-turn-rest-00): the user name
//! is `expiry:user` or `expiry`, the password is Base64 of HMAC-SHA1 over the user name under the shared secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// The parts of a REST user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Seconds since 1970.
    pub expires: u64,
    /// The part after the first colon; empty without a colon.
    pub user: &'a str,
}

/// The user name of `user` until `expires`, in seconds since 1970.
pub fn username(expires: u64, user: &str) -> String {
    if user.is_empty() { expires.to_string() } else { format!("{expires}:{user}") }
}

/// A shared secret, ready to make passwords: the part of the HMAC that depends on the secret alone is computed.
#[derive(Clone)]
pub struct Secret {
    mac: Hmac<Sha1>,
}

impl Secret {
    /// Takes the secret as text, not decoded.
    pub fn new(secret: &str) -> Self {
        Self::of_bytes(secret.as_bytes())
    }

    /// Takes any bytes as the secret.
    pub fn of_bytes(secret: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length") }
    }

    /// The password of this user name.
    pub fn password(&self, username: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(username.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// What makes passwords from a secret: HMAC-SHA1 as TURN REST says, or HMAC-SHA256 by mistake.
#[derive(Clone)]
pub enum Issuer {
    /// As TURN REST says.
    Sha1(Vec<u8>),
    /// With another hash.
    Sha256(Vec<u8>),
}

impl Issuer {
    /// The password that it makes for this user name.
    pub fn password(&self, username: &str) -> String {
        match self {
            Self::Sha1(secret) => Secret::of_bytes(secret).password(username),
            Self::Sha256(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
                mac.update(username.as_bytes());
                STANDARD.encode(mac.finalize().into_bytes())
            }
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The password of this user name under `secret`.
pub fn password(secret: &str, username: &str) -> String {
    Secret::new(secret).password(username)
}

/// Parses a user name; `None` unless it begins with a plain decimal number of seconds: no sign, no blank, no
/// overflow.
pub fn parse(username: &str) -> Option<Name<'_>> {
    let (expires, user) = username.split_once(':').unwrap_or((username, ""));
    // `parse` alone would take a plus sign.
    if expires.is_empty() || !expires.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Name { expires: expires.parse().ok()?, user })
}

/// Returns the user in a name: the part after `expiry:` of a REST name, or the whole of any other name. `None` for a
/// time stamp alone, which does not identify a user.
pub fn user_part(name: &str) -> Option<&str> {
    let is_time = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let user = match name.split_once(':') {
        Some((expiry, user)) if is_time(expiry) => user,
        None if is_time(name) => "",
        _ => name,
    };
    (!user.is_empty()).then_some(user)
}

/// What is wrong with a user name that [`parse`] does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misshapen {
    /// It has no time.
    NoTime,
    /// It ends with a time instead of beginning with it: `user:expiry`.
    Swapped,
    /// It begins with a blank.
    Blank,
    /// Its colon is encoded as in a URL.
    Encoded,
}

impl Misshapen {
    /// Returns what is wrong with a user name that [`parse`] does not take.
    pub fn of(username: &str) -> Self {
        let is_time = |text: &str| text.len() >= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_encoded = |mark| username.split_once(mark).is_some_and(|(expiry, _)| is_time(expiry));
        let trimmed = username.trim_start();
        if trimmed.len() < username.len() && parse(trimmed).is_some() {
            Self::Blank
        } else if is_encoded("%3A") || is_encoded("%3a") {
            Self::Encoded
        } else if username.rsplit_once(':').is_some_and(|(user, expiry)| !is_time(user) && is_time(expiry)) {
            Self::Swapped
        } else {
            Self::NoTime
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_those_of_an_independent_implementation() {
        // python3: base64.b64encode(hmac.new(b"north", b"1700000000:w_abc", "sha1").digest())
        assert_eq!(password("north", "1700000000:w_abc"), "9qZuKN3Y7Ae23SruAL7Bhfd0qi0=");
        assert_eq!(password("north", "1700000000"), "CWyHi3zCeWqXBir9thl4m+iZPRY=");
    }

    #[test]
    fn names_are_split_at_the_first_colon() {
        assert_eq!(parse("1700000000:w_abc"), Some(Name { expires: 1_700_000_000, user: "w_abc" }));
        assert_eq!(parse("1700000000:a:b"), Some(Name { expires: 1_700_000_000, user: "a:b" }));
        assert_eq!(parse("1700000000"), Some(Name { expires: 1_700_000_000, user: "" }));
        assert_eq!(username(17, "x"), "17:x");
        assert_eq!(username(17, ""), "17");
    }

    #[test]
    fn a_misshapen_name_is_described() {
        for (name, shape) in [
            ("w_ann", Misshapen::NoTime),
            ("", Misshapen::NoTime),
            ("w_ann:1700000000", Misshapen::Swapped),
            (" 1700000000:w_ann", Misshapen::Blank),
            ("\n1700000000", Misshapen::Blank),
            (" w_ann", Misshapen::NoTime),
            ("1700000000%3Aw_ann", Misshapen::Encoded),
            ("1700000000%3aw_ann", Misshapen::Encoded),
        ] {
            assert_eq!((parse(name), Misshapen::of(name)), (None, shape), "{name:?}");
        }
    }

    #[test]
    fn an_expiry_is_strictly_decimal() {
        for wrong in [
            "",
            ":x",
            "+17:x",
            "-17:x",
            " 17:x",
            "17 :x",
            "0x17:x",
            "1e9:x",
            "99999999999999999999:x",
            "x:17",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
