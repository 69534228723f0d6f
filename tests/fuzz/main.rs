//! Runs the harnesses of `fuzz/` on a stable compiler: every seed, and a fixed sequence of mutations.
//! `HALLPASS_FUZZ_MUTATIONS=1000000 cargo test --release --test fuzz` runs longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

#[path = "../../fuzz/src/lib.rs"]
mod harness;

/// Number of mutations per target, over all of its seeds.
const MUTATIONS: u64 = 20_000;
/// Maximum length of a mutation.
const LEN_MAX: usize = 4096;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&directory).expect("a directory of seeds for every target");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no seeds");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
}

fn run(target: &str) {
    let (_, harness) = harness::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let seeds = seeds(target);
    for (path, bytes) in &seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| harness(bytes)));
        assert!(outcome.is_ok(), "{target}: the unchanged seed {} fails", path.display());
    }
    let asked = std::env::var("HALLPASS_FUZZ_MUTATIONS").ok();
    let mutations = asked.map_or(MUTATIONS, |number| number.parse().expect("a number"));
    for number in 0..mutations {
        let (path, input) = mutation(&seeds, number);
        if catch_unwind(AssertUnwindSafe(|| harness(&input))).is_err() {
            let file = std::env::temp_dir().join(format!("hallpass-fuzz-{target}-{number}"));
            // A failure does not matter: the number in the message reproduces the bytes.
            let _ = std::fs::write(&file, &input);
            panic!("{target}: mutation {number} of {} fails; its bytes: {}", path.display(), file.display());
        }
    }
}

/// Returns the mutation with this number: one seed, changed in up to eight places.
fn mutation(seeds: &[(PathBuf, Vec<u8>)], number: u64) -> (&Path, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let mut below = |end: usize| rng.next_u32() as usize % end.max(1);
    let (path, seed) = &seeds[number as usize % seeds.len()];
    let mut bytes = seed.clone();
    for _ in 0..=below(8) {
        let at = below(bytes.len());
        match below(9) {
            _ if bytes.is_empty() => bytes.push(below(256) as u8),
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = below(256) as u8,
            2 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff, b'\n', b'0', b':'][below(8)],
            3 => bytes.truncate(at),
            4 => drop(bytes.remove(at)),
            5 => bytes.insert(at, below(256) as u8),
            6 => {
                // Duplicate a part elsewhere.
                let part = bytes[at..(at + 1 + below(32)).min(bytes.len())].to_vec();
                let to = below(bytes.len());
                bytes.splice(to..to, part);
            }
            7 => {
                let other = &seeds[below(seeds.len())].1;
                let from = below(other.len());
                let part = &other[from..(from + 1 + below(64)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            _ => {
                // Overwrite two bytes, as a length or a port.
                let end = (at + 2).min(bytes.len());
                let value = (below(bytes.len() + 8) as u16).to_be_bytes();
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
        }
        bytes.truncate(LEN_MAX);
    }
    (path, bytes)
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test] fn $name() { run(stringify!($name)); })+

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = harness::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
            for name in names {
                let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                assert!(target.is_file(), "{name} has no libFuzzer target");
            }
        }
    };
}

targets! { message datagram stream client_hello proxy_protocol first_bytes config credentials server client tls coturn }
