//! Calls that run through renewals: nothing of their media is lost.

use std::time::Duration;

use crate::certified::{Place, metric, shown, wait_for_other};
use crate::pebble::Pebble;
use crate::support::alone;
use crate::support::call::Call;
use crate::support::plan::Transport;
use crate::support::server::skip_on_coturn;

const NAME: &str = "relay.example.org";
const ISSUED: &str = "hallpass_acme_renewals_total{result=\"success\"}";
/// When the certificates are due: the first after two thirds of 30 days and the jitter, the next a day after the one before.
/// pebble has the true time, so all of them end after 30 days.
const RENEWALS: [&str; 3] = ["+22d", "+24d", "+26d"];

#[test]
fn calls_lose_nothing_while_certificates_are_renewed_by_a_handshake() {
    renew_beside_calls("tls-alpn-01");
}

#[test]
fn calls_lose_nothing_while_certificates_are_renewed_by_a_file() {
    renew_beside_calls("http-01");
}

fn renew_beside_calls(challenge: &str) {
    let _turn = alone();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let place = Place::new();
    let pebble = Pebble::start(place.https, place.http);
    let server = place.start(&[NAME], &format!("challenges = \"{challenge}\"\n{}", pebble.lines()));
    let made = shown(&server);
    let calls = [Transport::Udp, Transport::Tls].map(|transport| Call::over(&server, transport, 100));
    // The server may have been quicker than the first look.
    let mut certificate = match metric(&server, ISSUED) {
        1.0 => shown(&server),
        _ => wait_for_other(&server, &made),
    };
    for (done, offset) in RENEWALS.into_iter().enumerate() {
        place.jump(offset);
        certificate = wait_for_other(&server, &certificate);
        assert_eq!(metric(&server, ISSUED), done as f64 + 2.0);
        calls[0].lasts(Duration::from_millis(300));
    }
    let by_file = pebble.log().contains("Attempting to validate w/ HTTP");
    assert_eq!(by_file, challenge == "http-01", "{}", pebble.log());
    for (transport, call) in ["UDP", "TLS"].into_iter().zip(calls) {
        let report = call.end();
        println!("{} renewals by {challenge}, over {transport}: {report}", RENEWALS.len());
        assert_eq!(report.lost(), 0, "over {transport}: {report}");
    }
}
