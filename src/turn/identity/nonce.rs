//! Stateless nonces (RFC 8489 sections 5 and 9.2): the time and the client's address under a keyed hash.
//!
//! A nonce with the cookie states that PASSWORD-ALGORITHMS was offered. The short form has no cookie; it is sent if the answer
//! would otherwise exceed the limit of amplification.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::base::time::Instant;

/// The lifetime of a nonce. RFC 8489 section 9.2 leaves it to the server; within it a client's Refresh needs no
/// second round trip.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// How long a nonce is recognised as ours after it was made. A client that is quiet for the lifetime of its allocation returns
/// with a nonce that has expired.
const KNOWN_FOR: Duration = Duration::from_secs(2 * LIFETIME.as_secs());

/// RFC 8489 section 9.2: the beginning of a nonce with security features.
const COOKIE: &[u8] = b"obMatJos2";
/// Cookie and the base64 of the 24 feature bits.
const PREFIX: usize = COOKIE.len() + 4;
/// Bit 0 counted from the left (RFC 8489 section 18.1).
const PASSWORD_ALGORITHMS: u8 = 0x80;
/// Bit 1 counted from the left.
const USERNAME_ANONYMITY: u8 = 0x40;
const MAC: usize = 12;
const BODY: usize = 4 + MAC;

/// The features that a nonce announced to the client, protected by its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// PASSWORD-ALGORITHMS was sent with it, so a request without it may have been tampered with.
    pub password_algorithms: bool,
    /// USERHASH may be used for USERNAME.
    pub username_anonymity: bool,
}

impl Features {
    fn bits(self) -> u8 {
        let password_algorithms = if self.password_algorithms { PASSWORD_ALGORITHMS } else { 0 };
        let username_anonymity = if self.username_anonymity { USERNAME_ANONYMITY } else { 0 };
        password_algorithms | username_anonymity
    }
}

/// The contents of a nonce that we made for the client address that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The features that it announced.
    pub features: Features,
    /// Whether it has not expired.
    pub is_fresh: bool,
}

/// Makes and checks nonces. All workers share one key, so that a nonce is valid on all of them.
pub struct Nonces {
    key: Hmac<Sha256>,
}

impl Nonces {
    /// Nonces under this secret. A new secret makes all earlier nonces stale.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length") }
    }

    /// A fresh nonce for this client address.
    pub fn make(&self, now: Instant, client: SocketAddr, features: Features) -> String {
        let mut body = [0; BODY];
        body[..4].copy_from_slice(&(now.as_secs() as u32).to_be_bytes());
        let mac = self.mac(&body[..4], client, features);
        body[4..].copy_from_slice(&mac);
        let mut nonce = String::with_capacity(PREFIX + 22);
        if features != Features::default() {
            nonce.push_str("obMatJos2");
            STANDARD.encode_string([features.bits(), 0, 0], &mut nonce);
        }
        URL_SAFE_NO_PAD.encode_string(body, &mut nonce);
        nonce
    }

    /// Reads a nonce; `None` unless we made it for this client address within twice its lifetime. The hash is compared in
    /// constant time.
    pub fn check(&self, now: Instant, client: SocketAddr, nonce: &[u8]) -> Option<Issued> {
        let (features, text) = match nonce.strip_prefix(COOKIE) {
            None => (Features::default(), nonce),
            Some(rest) => {
                let (bits, text) = rest.split_at_checked(4)?;
                let mut decoded = [0; 3];
                STANDARD.decode_slice(bits, &mut decoded).ok()?;
                let features = Features {
                    password_algorithms: decoded[0] & PASSWORD_ALGORITHMS != 0,
                    username_anonymity: decoded[0] & USERNAME_ANONYMITY != 0,
                };
                (features, text)
            }
        };
        let mut body = [0; BODY + 2];
        let body = match URL_SAFE_NO_PAD.decode_slice(text, &mut body) {
            Ok(BODY) => &body[..BODY],
            _ => return None,
        };
        let made = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
        // For a nonce from the future the subtraction wraps to a very great age.
        let age = Duration::from_secs((now.as_secs() as u32).wrapping_sub(made).into());
        let right: bool = self.mac(&body[..4], client, features).ct_eq(&body[4..]).into();
        (right && age < KNOWN_FOR).then_some(Issued { features, is_fresh: age < LIFETIME })
    }

    fn mac(&self, time: &[u8], client: SocketAddr, features: Features) -> [u8; MAC] {
        let mut mac = self.key.clone();
        mac.update(time);
        mac.update(&[features.bits()]);
        mac.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        let mut short = [0; MAC];
        short.copy_from_slice(&mac.finalize().into_bytes()[..MAC]);
        short
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Features = Features { password_algorithms: true, username_anonymity: true };

    fn client() -> SocketAddr {
        "192.0.2.1:5000".parse().expect("literal")
    }

    fn secs(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn a_nonce_is_valid_for_its_client_until_it_expires() {
        let nonces = Nonces::new(&[3; 32]);
        for features in
            [BOTH, Features::default(), Features { password_algorithms: true, ..Features::default() }]
        {
            let nonce = nonces.make(secs(100), client(), features);
            let checked = |now| nonces.check(secs(now), client(), nonce.as_bytes());
            for (now, is_fresh) in [(100, true), (3699, true), (3700, false), (7299, false)] {
                assert_eq!(checked(now), Some(Issued { features, is_fresh }), "{now}");
            }
            assert_eq!(checked(7300), None);
            assert_eq!(nonces.check(secs(99), client(), nonce.as_bytes()), None, "from the future");
            for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
                let other = other.parse().expect("literal");
                assert_eq!(nonces.check(secs(100), other, nonce.as_bytes()), None);
            }
            assert_eq!(Nonces::new(&[4; 32]).check(secs(100), client(), nonce.as_bytes()), None);
        }
    }

    #[test]
    fn the_cookie_follows_the_rfc_and_cannot_be_stripped() {
        let nonces = Nonces::new(&[3; 32]);
        let nonce =
            nonces.make(secs(1), client(), Features { password_algorithms: true, ..Features::default() });
        assert!(nonce.starts_with("obMatJos2gAAA"), "{nonce}");
        assert_eq!(nonce.len(), 35);
        assert_eq!(nonces.check(secs(1), client(), &nonce.as_bytes()[PREFIX..]), None, "cookie stripped");
        let other_bits = nonce.replace("gAAA", "AAAA");
        assert_eq!(nonces.check(secs(1), client(), other_bits.as_bytes()), None, "bits cleared");
    }

    #[test]
    fn nonsense_is_no_nonce() {
        let nonces = Nonces::new(&[3; 32]);
        let good = nonces.make(secs(1), client(), BOTH);
        for nonsense in
            ["", "obMatJos2", "obMatJos2gA", "obMatJos2????", "x", &good[..30], &format!("{good}A")]
        {
            assert_eq!(nonces.check(secs(1), client(), nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
