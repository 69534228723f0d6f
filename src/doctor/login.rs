//! What the doctor logs in with.

use std::fmt;
use std::str::FromStr;

use crate::client::{Credentials, NameTooLong};

/// The user part of time-limited names.
const USER: &str = "doctor";
/// Lifetime of time-limited names in seconds: a day, like those of BigBlueButton.
pub const LIFETIME: u64 = 86_400;
/// The lowest number at the start of a user name that is taken for an expiry time: September 2001.
const EXPIRES_MIN: u64 = 1_000_000_000;

/// What the doctor logs in with.
#[derive(Clone)]
pub enum Login {
    /// A shared secret, for time-limited names (TURN REST).
    Secret(String),
    /// A user name and its password.
    Fixed {
        /// The user name.
        name: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Login::Secret(..)",
            Self::Fixed { .. } => "Login::Fixed { .. }",
        })
    }
}

/// A text without a colon, or with an empty part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPassword;

impl fmt::Display for NoPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write the user name, a colon and the password: USER:PASS")
    }
}

impl std::error::Error for NoPassword {}

impl FromStr for Login {
    type Err = NoPassword;

    /// Parses `USER:PASS`. A time-limited name contains a colon itself, and its password never does.
    ///
    /// # Errors
    /// [`NoPassword`].
    fn from_str(text: &str) -> Result<Self, NoPassword> {
        let is_limited = expiry(text).is_some();
        let parts = if is_limited { text.rsplit_once(':') } else { text.split_once(':') };
        match parts {
            Some((name, password)) if !name.is_empty() && !password.is_empty() => {
                Ok(Self::Fixed { name: name.to_owned(), password: password.to_owned() })
            }
            _ => Err(NoPassword),
        }
    }
}

impl Login {
    /// Credentials that are valid until `expires`, in seconds since 1970. A fixed name and password are as they are.
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn credentials(&self, expires: u64) -> Result<Credentials, NameTooLong> {
        match self {
            Self::Secret(secret) => Credentials::rest(secret, expires, USER),
            Self::Fixed { name, password } => Credentials::new(name, password),
        }
    }

    /// How many seconds ago the fixed name expired; `None` if it has not, or has no expiry time.
    pub fn expired(&self, now: u64) -> Option<u64> {
        let Self::Fixed { name, .. } = self else { return None };
        expiry(name).and_then(|expires| now.checked_sub(expires))
    }

    /// For how many seconds the fixed name is still valid; `None` if it has expired, or has no expiry time.
    pub fn valid_for(&self, now: u64) -> Option<u64> {
        let Self::Fixed { name, .. } = self else { return None };
        expiry(name).and_then(|expires| expires.checked_sub(now))
    }

    /// Whether this is a fixed name that does not begin with a number, so no name made from a secret.
    pub fn has_no_time(&self) -> bool {
        let Self::Fixed { name, .. } = self else { return false };
        let first = name.split(':').next().unwrap_or_default();
        first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// The expiry time at the start of a time-limited name.
fn expiry(name: &str) -> Option<u64> {
    let digits = name.split(':').next()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|expires| is_number && *expires >= EXPIRES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords() {
        let parse = |text: &str| match text.parse::<Login>() {
            Ok(Login::Fixed { name, password }) => Some((name, password)),
            _ => None,
        };
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(parse("user:pass:word"), pair("user", "pass:word"));
        assert_eq!(parse("1700000000:w_abc:9qZu="), pair("1700000000:w_abc", "9qZu="));
        assert_eq!(parse("1700000000:9qZu="), pair("1700000000", "9qZu="));
        assert_eq!([parse("user"), parse("user:"), parse(":pass")], [None, None, None]);
    }

    #[test]
    fn only_time_limited_names_expire() {
        let login = |text: &str| text.parse::<Login>().unwrap();
        assert_eq!(login("1700000000:w:p").expired(1_700_000_060), Some(60));
        assert_eq!(login("1700000000:w:p").expired(1_699_999_999), None);
        assert_eq!(login("12:w").expired(1_700_000_000), None);
        assert_eq!(Login::Secret("s".to_owned()).expired(1_700_000_000), None);
        assert!(!format!("{:?}", login("user:pass")).contains("pass"));
        assert!(login("w_teacher:p").has_no_time() && login("w:1700000000:p").has_no_time());
        assert!(!login("1700000000:w:p").has_no_time() && !Login::Secret("s".to_owned()).has_no_time());
    }
}
