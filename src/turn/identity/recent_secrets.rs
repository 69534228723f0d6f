//! Which secrets verified lately at which source. They are tried before all others and need no search: a school has one or two
//! hosts, so somebody behind its address who uses up the time for searches does not keep its newcomers out.
//!
//! Only a request whose password is right writes here, so strangers can neither fill the table nor displace anybody. An entry
//! is a fingerprint that is looked up in the present settings: a secret that was removed or revoked is never found.
//!
//! The time of an answer tells little. All secrets of the source are tried for a wrong password, and it is not answered unless
//! all others were tried too. Somebody with credentials can see whether others at the same address used the same secret lately.

use std::collections::HashMap;
use std::net::IpAddr;

use super::directory::Credential;
use crate::base::network::Network;

/// Sources of one generation, of which there are two. An entry takes about 50 bytes.
const SOURCES_MAX: usize = 4096;
/// Secrets of one source. Each is tried for every request of the source with an unknown name, for 2 to 4 us.
const SECRETS: usize = 2;

type Secrets = [Option<Credential>; SECRETS];

/// The secrets that verified last, by source. An IPv6 site (/48) is one source, so that nobody takes the places of others with
/// the many networks of a site.
#[derive(Debug, Default)]
pub struct RecentSecrets {
    // Uses move a source to the young generation, and when that is full, it replaces the old one.
    young: HashMap<Network, Secrets>,
    old: HashMap<Network, Secrets>,
}

impl RecentSecrets {
    /// Returns the secrets of this source, the latest first.
    pub fn of(&self, source: IpAddr) -> impl Iterator<Item = Credential> + use<> {
        let source = Network::site(source);
        let known = self.young.get(&source).or_else(|| self.old.get(&source)).copied();
        known.unwrap_or_default().into_iter().flatten()
    }

    /// Takes a secret that has verified a request of this source.
    pub fn verified(&mut self, source: IpAddr, secret: Credential) {
        let source = Network::site(source);
        if !self.young.contains_key(&source) {
            let known = self.old.remove(&source).unwrap_or_default();
            if self.young.len() >= SOURCES_MAX {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(source, known);
        }
        let Some(known) = self.young.get_mut(&source) else { return };
        if known[0] != Some(secret) {
            *known = [Some(secret), known[0]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u32) -> Credential {
        Credential::of_secret(&format!("secret {number}"))
    }

    fn at(recent: &RecentSecrets, source: &str) -> Vec<Credential> {
        recent.of(source.parse().expect("literal")).collect()
    }

    #[test]
    fn a_source_has_the_two_secrets_that_verified_last() {
        let mut recent = RecentSecrets::default();
        let school = "192.0.2.1".parse().expect("literal");
        assert!(at(&recent, "192.0.2.1").is_empty());
        for (used, expected) in [(1, &[1][..]), (1, &[1]), (2, &[2, 1]), (1, &[1, 2]), (3, &[3, 1])] {
            recent.verified(school, secret(used));
            let expected: Vec<_> = expected.iter().map(|&number| secret(number)).collect();
            assert_eq!(at(&recent, "192.0.2.1"), expected, "after {used}");
        }
        assert!(at(&recent, "192.0.2.2").is_empty());
        recent.verified("2001:db8:1:2::3".parse().expect("literal"), secret(7));
        assert_eq!(at(&recent, "2001:db8:1:ffff::1"), [secret(7)], "the same /48");
        assert!(at(&recent, "2001:db8:2::1").is_empty());
    }

    #[test]
    fn sources_in_use_stay_and_the_memory_is_bounded() {
        let mut recent = RecentSecrets::default();
        let source = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        for number in 0..100_000 {
            recent.verified(source(number), secret(number % 5));
            if number % 1000 == 0 {
                recent.verified(source(0), secret(0));
            }
        }
        assert!(recent.young.len() <= SOURCES_MAX && recent.old.len() <= SOURCES_MAX);
        assert_eq!(at(&recent, "0.0.0.0"), [secret(0)], "used again and again");
        assert_eq!(at(&recent, "0.0.0.1"), [], "used once, long ago");
        assert_eq!(recent.of(source(99_999)).collect::<Vec<_>>(), [secret(4)]);
    }
}
