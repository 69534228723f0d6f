//! User names with an expiry, their passwords, and nonces, as a stranger may forge them.

use hallpass::base::time::Instant;
use hallpass::turn::identity::nonce::{Features, Issued, LIFETIME, Nonces};
use hallpass::turn::identity::rest;

use super::bytes::{address, take};

/// The bytes as a user name and as a nonce.
pub fn credentials(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    name(&text);
    nonce(data);
}

fn name(text: &str) {
    // Draft-uberti section 2.2: at least one digit, up to the first colon or the end.
    let expiry = text.split(':').next().unwrap_or_default();
    let decimal = !expiry.is_empty() && expiry.chars().all(|c| c.is_ascii_digit());
    let value = expiry
        .chars()
        .try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit.to_digit(10)?)));
    match rest::parse(text) {
        Some(found) => {
            assert!(decimal);
            assert_eq!(Some(found.expires), value);
            assert_eq!(found.user, text.get(expiry.len() + 1..).unwrap_or_default());
            // Leading zeros are dropped without changing the value.
            let written = rest::username(found.expires, found.user);
            assert_eq!(rest::parse(&written), Some(found));
        }
        None => assert!(!decimal || value.is_none(), "{text:?}"),
    }
    let made = rest::username(text.len() as u64, text);
    let found = rest::parse(&made).expect("our own");
    assert_eq!((found.expires, found.user), (text.len() as u64, text));
    let password = rest::password("north", text);
    assert_eq!(password.len(), 28, "Base64 of 20 bytes");
    assert_eq!(password, rest::password("north", text));
    assert_ne!(password, rest::password("south", text));
}

fn nonce(data: &[u8]) {
    let nonces = Nonces::new(&[7; 32]);
    let mut rest = data;
    let now = Instant::from_nanos(u64::from(u32::from_be_bytes(take(&mut rest))) * 1_000_000_000);
    let (client, other) = (address(&mut rest), address(&mut rest));
    assert_eq!(nonces.check(now, client, data), None, "made up");
    assert_eq!(nonces.check(now, client, rest), None, "made up");
    let [bits, place, change] = take(&mut rest);
    let features = Features { password_algorithms: bits & 1 != 0, username_anonymity: bits & 2 != 0 };
    let nonce = nonces.make(now, client, features);
    assert!(nonce.len() <= 35 && nonce.is_ascii());
    let issued = Some(Issued { features, is_fresh: true });
    assert_eq!(nonces.check(now, client, nonce.as_bytes()), issued);
    let expired = Some(Issued { features, is_fresh: false });
    assert_eq!(nonces.check(now + LIFETIME, client, nonce.as_bytes()), expired);
    assert_eq!(nonces.check(now + 2 * LIFETIME, client, nonce.as_bytes()), None, "too old");
    if other != client {
        assert_eq!(nonces.check(now, other, nonce.as_bytes()), None, "of another client");
    }
    let mut changed = nonce.into_bytes();
    let place = usize::from(place) % changed.len();
    changed[place] ^= change;
    if change != 0 {
        // Unknown feature bits may be set; they have no effect.
        let said = nonces.check(now, client, &changed);
        assert!(said.is_none() || said == issued, "{changed:?}");
    }
}
