//! The configuration of a client.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::key::Key;
use crate::turn::identity::rest;

/// The longest USERNAME that a client sends, in bytes (RFC 8489 section 14.3).
const NAME_MAX: usize = 508;
/// The longest SOFTWARE, in bytes (RFC 8489 section 14.14).
const SOFTWARE_MAX: usize = 508;

/// How to talk to the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// What carries the messages.
    pub link: Link,
    /// User name and password. Without them, a challenge is a refusal.
    pub credentials: Option<Arc<Credentials>>,
    /// Which integrity algorithms are used.
    pub algorithms: Algorithms,
    /// SOFTWARE in every request, cut to 508 bytes between two characters. It makes requests longer: a server that
    /// limits amplification offers SHA-256 only if the request is long enough.
    pub software: Option<Arc<str>>,
    /// The first four bytes of every transaction id. A caller with many clients on one socket finds the client of a
    /// response by them; eight unpredictable bytes remain. `None`: all twelve are unpredictable.
    pub tag: Option<u32>,
}

impl Config {
    /// A configuration with [`Algorithms::Offered`], without credentials, SOFTWARE and tag.
    pub fn new(link: Link) -> Self {
        Self { link, credentials: None, algorithms: Algorithms::Offered, software: None, tag: None }
    }

    /// Sets the credentials.
    pub fn with_credentials(self, credentials: Arc<Credentials>) -> Self {
        Self { credentials: Some(credentials), ..self }
    }

    /// SOFTWARE within its limit.
    pub(super) fn software(&self) -> Option<&str> {
        let text = self.software.as_deref()?;
        let end = (0..=text.len().min(SOFTWARE_MAX)).rev().find(|&end| text.is_char_boundary(end));
        end.map(|end| &text[..end]).filter(|text| !text.is_empty())
    }
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// UDP: requests are repeated, and datagrams from other addresses than `server` are discarded.
    Datagrams {
        /// Where responses come from.
        server: SocketAddr,
    },
    /// TCP or TLS: bytes in order, one server at the other end.
    Stream,
}

/// Which integrity algorithms a client uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithms {
    /// The first of the server's PASSWORD-ALGORITHMS that is known here, with MESSAGE-INTEGRITY-SHA256. Without an
    /// offer those of RFC 5389 (RFC 8489 section 9.2.3.2).
    #[default]
    Offered,
    /// Those of RFC 5389 whatever the server offers, as browsers do: a key from MD5 and MESSAGE-INTEGRITY.
    Old,
}

/// A user name and its password. Shared by the clients that log in with it, so that the key is computed once.
pub struct Credentials {
    pub(super) name: Box<str>,
    pub(super) password: Box<str>,
    /// Cached key for the first realm and algorithm that were used.
    pub(super) first: OnceLock<Arc<Key>>,
}

/// A user name of more than 508 bytes, which no request can carry (RFC 8489 section 14.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTooLong;

impl fmt::Display for NameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the user name is longer than {NAME_MAX} bytes; use a shorter one")
    }
}

impl std::error::Error for NameTooLong {}

impl Credentials {
    /// A user name and its password.
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn new(name: &str, password: &str) -> Result<Self, NameTooLong> {
        if name.len() > NAME_MAX {
            return Err(NameTooLong);
        }
        Ok(Self { name: name.into(), password: password.into(), first: OnceLock::new() })
    }

    /// The time-limited credentials of `user` under a shared secret, valid until `expires` (seconds since 1970).
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn rest(secret: &str, expires: u64, user: &str) -> Result<Self, NameTooLong> {
        let name = rest::username(expires, user);
        Self::new(&name, &rest::password(secret, &name))
    }

    /// The user name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_limit_and_passwords_are_not_shown() {
        assert!(Credentials::new(&"n".repeat(508), "p").is_ok());
        assert_eq!(Credentials::new(&"n".repeat(509), "p").err(), Some(NameTooLong));
        let rest = Credentials::rest("north", 1_700_000_000, "w_abc").expect("short");
        // Computed with Python, as in turn::identity::rest.
        assert_eq!((rest.name(), &*rest.password), ("1700000000:w_abc", "9qZuKN3Y7Ae23SruAL7Bhfd0qi0="));
        assert!(!format!("{rest:?}").contains("9qZuKN"));
    }

    #[test]
    fn software_is_cut_at_a_character() {
        let software = |text: &str| {
            let config = Config { software: Some(text.into()), ..Config::new(Link::Stream) };
            config.software().map(str::len)
        };
        assert_eq!(software("hallpass"), Some(8));
        assert_eq!(software(&"\u{00fc}".repeat(300)), Some(508));
        assert_eq!(software(&format!("a{}", "\u{00fc}".repeat(300))), Some(507));
        assert_eq!(software(""), None);
        assert_eq!(Config::new(Link::Stream).software(), None);
    }
}
