//! The hash for every map whose keys clients choose: SipHash-1-3 under a secret key.
//!
//! Clients choose their ports and user names, and the addresses of their peers. With a polynomial hash, they can choose keys
//! that collide under every seed, so that one lookup walks thousands of entries. With SipHash they cannot, as long as its key
//! is secret. It costs about 15 ns for a five-tuple.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use siphasher::sip::SipHasher13;

/// Builds hashers that all share one secret key.
#[derive(Clone)]
pub struct KeyedState {
    hasher: SipHasher13,
}

impl KeyedState {
    /// A state under this key, which must come from a cryptographic random generator.
    pub fn new(key: [u64; 2]) -> Self {
        Self { hasher: SipHasher13::new_with_keys(key[0], key[1]) }
    }

    /// The hash of one value.
    pub fn hash(&self, value: &impl Hash) -> u64 {
        self.hash_one(value)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.hasher
    }
}

impl fmt::Debug for KeyedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedState(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_key_and_debug_output_hides_it() {
        let (one, same, other) = (KeyedState::new([1, 2]), KeyedState::new([1, 2]), KeyedState::new([1, 3]));
        assert_eq!(one.hash(&7_u64), same.hash(&7_u64));
        assert_ne!(one.hash(&7_u64), other.hash(&7_u64));
        assert_eq!(format!("{one:?}"), "KeyedState(..)");
    }
}
