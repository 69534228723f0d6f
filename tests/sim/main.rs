//! Simulation: servers, clients, peers and an unreliable network in virtual time, from one seed.
//!
//! `HALLPASS_SIM_SEED=7 cargo test --test sim` repeats the run of one seed.

mod client;
mod invariant;
mod judge;
#[path = "../model/mirror.rs"]
mod mirror;
mod model;
mod regressions;
mod rig;
mod stun;
mod traffic;
mod world;

use invariant::{Broken, Invariant};
use judge::Seen;
use model::SECOND;
use world::{Fault, World};

/// Seeds that every test run covers.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;

/// How long the clients of one seed are active.
const SPAN: u64 = 4500 * SECOND;

fn run(seed: u64, fault: Option<Fault>) -> Result<Seen, (Box<World>, Broken)> {
    let mut world = Box::new(World::new(seed, fault));
    match world.run(SPAN) {
        Ok(()) => Ok(std::mem::take(&mut world.seen)),
        Err(broken) => Err((world, broken)),
    }
}

fn must_hold(seed: u64) -> Seen {
    run(seed, None).unwrap_or_else(|(world, broken)| {
        panic!(
            "seed {seed}, step {}, {:.3} s: {broken}\nto repeat: HALLPASS_SIM_SEED={seed} cargo test --test sim",
            world.steps,
            world.now as f64 / SECOND as f64,
        )
    })
}

#[test]
fn all_invariants_hold() {
    if let Ok(seeds) = std::env::var("HALLPASS_SIM_SEED") {
        // One seed, or several separated by commas.
        for seed in seeds.split(',') {
            println!("{seed}: {:?}", must_hold(seed.parse().expect("a number")));
        }
        return;
    }
    let mut all = Seen::default();
    for seed in SEEDS {
        let seen = must_hold(seed);
        all.allocated += seen.allocated;
        all.from_client += seen.from_client;
        all.from_peer += seen.from_peer;
        for (code, count) in seen.errors {
            *all.errors.entry(code).or_default() += count;
        }
        for (reason, count) in seen.drops {
            *all.drops.entry(reason).or_default() += count;
        }
    }
    println!("{all:?}");
    // A simulation without events proves nothing.
    assert!(all.allocated > 1000 && all.from_client > 10_000 && all.from_peer > 1000, "{all:?}");
    for code in [400, 401, 403, 437, 438, 441, 443, 486, 508] {
        assert!(all.errors.contains_key(&code), "no answer had {code}: {all:?}");
    }
}

/// The simulation detects injected faults.
#[test]
fn injected_faults_are_found() {
    for (fault, expected) in [
        (Fault::PermissionNeverGiven, Invariant::OnlyPermittedDataIsRelayed),
        (Fault::ByteFlipped, Invariant::DataIsUnchanged),
        (Fault::WrongClient, Invariant::NothingIsMisrouted),
        (Fault::DropUncounted, Invariant::CountersAgree),
        (Fault::CloseLost, Invariant::RelaysAreOpenedAndClosedOnce),
    ] {
        match run(3, Some(fault)) {
            Ok(seen) => panic!("{fault:?} was not found: {seen:?}"),
            Err((_, broken)) => assert_eq!(broken.invariant, expected, "{fault:?}: {broken}"),
        }
    }
}
