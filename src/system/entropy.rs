//! Randomness from the operating system: seeds, keys and secrets.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand_core::{OsRng, TryRngCore};

/// The kernel returned no randomness, for example because a seccomp filter refuses `getrandom`. Nothing is secure without
/// it, so the start must fail.
#[derive(Debug)]
pub struct EntropyError(rand_core::OsError);

impl std::fmt::Display for EntropyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the operating system provides no randomness ({}); allow the getrandom system call", self.0)
    }
}

impl std::error::Error for EntropyError {}

/// Returns 32 random bytes: the seed of a generator, or a key.
///
/// # Errors
/// The kernel returned no randomness.
pub fn seed() -> Result<[u8; 32], EntropyError> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(EntropyError)?;
    Ok(bytes)
}

/// Returns a random key for a keyed hash.
///
/// # Errors
/// The kernel returned no randomness.
pub fn key() -> Result<[u64; 2], EntropyError> {
    let seed = seed()?;
    let half = |at: usize| seed[at..at + 8].iter().fold(0, |half, &byte| half << 8 | u64::from(byte));
    Ok([half(0), half(8)])
}

/// Returns a random secret of 256 bits as URL-safe Base64 without padding (43 characters). It needs no quoting in
/// configuration files, XML and shells, and it contains no colon, at which bbb-install would cut it.
///
/// # Errors
/// The kernel returned no randomness.
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
