//! A server that is killed in the middle of an issuance.

use std::fs;
use std::time::{Duration, Instant};

use crate::certified::{LIMIT, Place, keys, openssl, shown};
use crate::issuance::private;
use crate::pebble::Pebble;
use crate::support::beside_others;
use crate::support::server::skip_on_coturn;

const ROUNDS: u32 = 12;

#[test]
fn a_kill_at_any_moment_leaves_a_whole_pair() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let place = Place::new();
    let pebble = Pebble::start(place.https, place.http);
    // Each round has one name more, so that a certificate is issued.
    let names: Vec<String> = (0..ROUNDS + 2).map(|number| format!("n{number}.example.org")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = |log: &str| log.contains("acme: new certificate");

    let begun = Instant::now();
    let server = place.start(&names[..1], &pebble.lines());
    let started = begun.elapsed();
    assert!(server.wait_log(LIMIT, issued), "{}", server.log());
    let whole = begun.elapsed().saturating_sub(started) + Duration::from_millis(50);
    drop(server);
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        // A pause after each interrupted attempt would make the test long.
        let _ = fs::remove_file(place.state("attempts.json"));
        let server = place.start(&names[..round as usize + 2], &pebble.lines());
        interrupted += u32::from(!server.wait_log(whole * round / ROUNDS, issued));
        server.signal("KILL");
        drop(server);
        // Also what was half done.
        private(&place.state(""));
        let directory = place.state(names[0]);
        let (of_certificate, of_key) = keys(&directory);
        assert_eq!(of_certificate, of_key, "round {round}");
        assert!(openssl(&["x509", "-noout", "-text"], &directory.join("fullchain.pem")).contains(names[0]));
    }
    assert!(interrupted >= ROUNDS / 4, "only {interrupted} of {ROUNDS} were interrupted");
    // What the killed ones left does not disturb, and is removed.
    let _ = fs::remove_file(place.state("attempts.json"));
    let server = place.start(&names, &pebble.lines());
    assert!(server.wait_log(LIMIT, issued), "{}", server.log());
    shown(&server);
    let mut left: Vec<String> = fs::read_dir(place.state(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.contains(".json"))
        .collect();
    left.sort();
    assert!(left.len() == 2 && left[1].starts_with("n0.example.org~"), "{left:?}");
}
