//! Runs the client against the server without sockets, in virtual time. The simulated network loses, duplicates and
//! reorders datagrams, and splits streams at any byte.

#[path = "../sim/stun.rs"]
mod stun;
mod world;

use hallpass::base::transport::Transport;
use hallpass::client::{Algorithms, Stage};

use world::{Network, Plan, World};

/// A network with every fault that UDP allows.
const BAD: Network = Network { lost: 10, duplicated: 10, delay_max: 300 };
/// A network with delay only.
const GOOD: Network = Network { lost: 0, duplicated: 0, delay_max: 20 };

#[test]
fn every_call_gets_through_a_bad_network() {
    for seed in 1..=6 {
        for transport in [Transport::Udp, Transport::Tcp] {
            let plan = Plan { transport, clients: 8, network: BAD, ..Plan::default() };
            let seen = World::new(seed, plan).run();
            assert_eq!(seen.done, 8, "seed {seed}: {seen:?}");
            assert!(seen.repeated > 0 || transport != Transport::Udp, "{seen:?}");
            // A nonce is valid for an hour, and a call lasts longer.
            assert!(seen.stale_nonces > 0, "{seen:?}");
            assert!(seen.stages.iter().all(|&stage| stage == Stage::Received), "{seen:?}");
        }
    }
}

#[test]
fn nothing_is_lost_or_repeated_on_a_good_network() {
    for (algorithms, software, sha256) in [
        (Algorithms::Offered, None, true),
        (Algorithms::Offered, Some("a client under test"), true),
        (Algorithms::Old, None, false),
    ] {
        let plan = Plan { clients: 3, network: GOOD, algorithms, software, ..Plan::default() };
        let seen = World::new(7, plan).run();
        assert_eq!((seen.done, seen.repeated, seen.discarded), (3, 0, 0), "{seen:?}");
        assert_eq!(seen.echoed, seen.sent, "{seen:?}");
        assert_eq!(seen.sha256, sha256, "{algorithms:?} {software:?}");
    }
}

#[test]
fn a_wrong_password_ends_in_a_refusal() {
    let plan = Plan { secret: "another", network: BAD, ..Plan::default() };
    let seen = World::new(1, plan).run();
    assert_eq!((seen.done, seen.refused.as_slice()), (0, &[401, 401][..]), "{seen:?}");
}
