//! How clients are named in reports of refusals and on the admin pages.

use std::fmt::Display;
use std::hash::BuildHasher;

use crate::turn::identity::rest::user_part;
use crate::turn::keyed_hash::KeyedState;

/// Longer names are cut: a client may send 763 bytes.
const NAME_MAX: usize = 64;

/// Names users and addresses as they are or, with `privacy`, by pseudonyms that are the same until the next start.
#[derive(Clone, Debug, Default)]
pub struct ClientNames {
    pseudonyms: Option<KeyedState>,
}

impl ClientNames {
    /// Names by pseudonyms under a random `key`.
    pub fn private(key: [u64; 2]) -> Self {
        Self { pseudonyms: Some(KeyedState::new(key)) }
    }

    /// Returns the user part of a name, without characters that could control a terminal.
    pub fn user(&self, name: &str) -> String {
        let user = user_part(name).unwrap_or(name);
        match &self.pseudonyms {
            Some(key) if !user.is_empty() => format!("user-{:08x}", key.hash_one(user) as u32),
            _ if user.len() > NAME_MAX => {
                user.chars().take(NAME_MAX).collect::<String>().escape_debug().to_string() + "..."
            }
            _ => user.escape_debug().to_string(),
        }
    }

    /// Whether addresses are kept private.
    pub fn are_private(&self) -> bool {
        self.pseudonyms.is_some()
    }

    /// Returns the address of a client, or of a peer, which may be another client; `-` with `privacy`.
    pub fn address(&self, address: impl Display) -> String {
        if self.are_private() { "-".to_owned() } else { address.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn users_are_named_without_the_time_and_safe_for_terminals() {
        let names = ClientNames::default();
        let users =
            ["1700000000:w_abc", "alice", "1700000000", "1:a\x1b[2J", "a:b"].map(|name| names.user(name));
        assert_eq!(users, ["w_abc", "alice", "1700000000", "a\\u{1b}[2J", "a:b"]);
        assert_eq!(names.address(SocketAddr::from(([192, 0, 2, 1], 5))), "192.0.2.1:5");
    }

    #[test]
    fn with_privacy_a_user_has_one_pseudonym_whatever_the_time_in_its_name() {
        let names = ClientNames::private([1, 2]);
        let user = names.user("1700000000:ann");
        assert!(user.starts_with("user-") && user.len() == 13, "{user}");
        assert_eq!(names.user("1800000000:ann"), user);
        assert_ne!(names.user("1700000000:bob"), user);
        assert_ne!(ClientNames::private([3, 4]).user("1700000000:ann"), user);
        assert_eq!(names.address(SocketAddr::from(([192, 0, 2, 1], 5))), "-");
        assert_eq!(names.address(std::net::Ipv4Addr::LOCALHOST), "-");
    }
}
