//! Randomness from the operating system: seeds for the pure parts, secrets for first-time set-ups.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand_core::{OsRng, TryRngCore};

/// The kernel gave no randomness (`getrandom` refused, as under a wrong seccomp filter). Nothing safe can be
/// done without it: the start must fail.
#[derive(Debug)]
pub struct EntropyError(rand_core::OsError);

impl std::fmt::Display for EntropyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the operating system gives no randomness ({}); allow the getrandom system call", self.0)
    }
}

impl std::error::Error for EntropyError {}

/// 32 fresh bytes: the seed of a generator, or the key of nonces.
pub fn seed() -> Result<[u8; 32], EntropyError> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(EntropyError)?;
    Ok(bytes)
}

/// A fresh key of a keyed hash.
pub fn key() -> Result<[u64; 2], EntropyError> {
    let seed = seed()?;
    let half = |at: usize| seed[at..at + 8].iter().fold(0, |half, &byte| half << 8 | u64::from(byte));
    Ok([half(0), half(8)])
}

/// A secret of 256 bits in letters that survive every config format, XML and shell: URL-safe Base64 without
/// padding (43 characters, never a colon, which bbb-install would cut at).
pub fn secret() -> Result<String, EntropyError> {
    Ok(URL_SAFE_NO_PAD.encode(seed()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_use_plain_letters() {
        let (a, b) = (secret().unwrap(), secret().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 43);
        assert!(a.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'), "{a}");
    }

    #[test]
    fn seeds_are_filled_whole() {
        // Each byte must be nonzero at least once in 64 draws; the chance of a false alarm is 32 * 256^-64.
        let mut seen = [0u8; 32];
        for _ in 0..64 {
            seen.iter_mut().zip(seed().unwrap()).for_each(|(s, b)| *s |= b);
        }
        assert!(seen.iter().all(|&b| b != 0), "{seen:?}");
    }
}
