//! Authorities that refuse, say nothing, lie or cannot be reached: the certificate in use stays, and the next attempt comes later.

use crate::authority::{Authority, Mode};
use crate::certified::{LIMIT, Place, keys, metric, shown, wait_for_other};
use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::http;
use crate::support::plan::Transport;
use crate::support::proc::memory;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;

const NAME: &str = "relay.example.org";
const FAILED: &str = "hallpass_acme_renewals_total{result=\"failure\"}";
const ISSUED: &str = "hallpass_acme_renewals_total{result=\"success\"}";

/// Returns a server with its first certificate in use, and that certificate.
fn certified(place: &Place, authority: &Authority) -> (Server, Vec<u8>) {
    let server = place.start(&[NAME], &authority.lines());
    let made = shown(&server);
    let is_first = server.log().contains("acme: new certificate") && keys(&place.state(NAME)).0.len() > 1;
    let first = if is_first
        && metric(&server, "hallpass_certificate_self_signed{name=\"relay.example.org\"}") == 0.0
    {
        made
    } else {
        wait_for_other(&server, &made)
    };
    (server, first)
}

/// Lets the authority misbehave in one way after the other when the certificate is due. Each time the log and the overview say
/// why, it is counted, and the certificate in use stays.
fn misbehave(place: &Place, authority: &Authority, server: &Server, first: &Vec<u8>, bad: &[(Mode, &str)]) {
    let mut before = server.log().len();
    for (number, (mode, reason)) in bad.iter().copied().enumerate() {
        authority.set(mode);
        // Later than any pause so far.
        place.jump(&format!("+{}h", 22 * 24 + 2 * number));
        let told = |log: &str| {
            log[before..].contains("acme: no new certificate") && log[before..].contains("next attempt in")
        };
        assert!(server.wait_log(LIMIT, told), "{mode:?}:\n{}", server.log());
        let log = server.log();
        assert!(log[before..].contains(reason), "{mode:?}: {}", &log[before..]);
        before = log.len();
        let end = std::time::Instant::now() + LIMIT;
        while metric(server, FAILED) < number as f64 + 1.0 {
            assert!(std::time::Instant::now() < end, "{mode:?} is not counted");
        }
        assert_eq!(shown(server), *first, "{mode:?}");
        while !http::get(server.admin(), "/overview").1.contains(reason) {
            assert!(std::time::Instant::now() < end, "{mode:?}: the overview does not say why");
        }
    }
}

#[test]
fn a_bad_authority_changes_nothing_and_is_asked_again_later() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    let (server, first) = certified(&place, &authority);
    let link = Link::Tls(Box::new(tls::connect(server.v4(Transport::Tls))));
    let mut client = Client::log_in(link, server.credentials("connected"));
    client.allocate().expect("an allocation");
    misbehave(
        &place,
        &authority,
        &server,
        &first,
        &[
            (Mode::Refuse, "too many certificates for this domain (rateLimited); wait"),
            (Mode::Silent, "no connection to localhost"),
            (Mode::Close, "no connection to localhost"),
            (Mode::WrongKey, "the authority sent a certificate for another key; it is not used"),
            (Mode::OtherName, "a certificate that is not for relay.example.org; it is not used"),
            (Mode::Garbage, "the authority sent a damaged certificate; it is not used"),
        ],
    );
    // The last pause is kept over a restart.
    let next = metric(&server, "hallpass_acme_next_attempt_timestamp_seconds");
    drop(server);
    let server = place.start(&[NAME], &authority.lines());
    assert_eq!(shown(&server), first);
    let end = std::time::Instant::now() + LIMIT;
    while metric(&server, "hallpass_acme_next_attempt_timestamp_seconds") != next {
        assert!(std::time::Instant::now() < end, "{}", server.log());
    }
    assert_eq!(metric(&server, FAILED), 0.0, "not at each start");
    authority.set(Mode::Good);
    place.jump(&format!("+{}h", 24 * 24));
    wait_for_other(&server, &first);
    assert_eq!(metric(&server, ISSUED), 1.0);
    drop(client);
}

#[test]
fn answers_that_are_no_answers_change_nothing() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    let (server, first) = certified(&place, &authority);
    let resident = memory(server.pid());
    misbehave(
        &place,
        &authority,
        &server,
        &first,
        &[
            (Mode::WebPage, "the answer is not that of an ACME server"),
            (Mode::Endless, "no answer from localhost"),
            (Mode::Elsewhere, "[acme] directory"),
            (Mode::Tomorrow, "the authority did not finish in time"),
        ],
    );
    let more = memory(server.pid()).saturating_sub(resident);
    assert!(more < 8 << 10, "{more} KiB more");
}

/// An authority that hangs takes no time from the rest: pages answer, and a reload is applied.
#[test]
fn a_slow_authority_is_given_up_after_half_a_minute() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    let (server, first) = certified(&place, &authority);
    for (number, mode) in [Mode::NoHead, Mode::SlowBody].into_iter().enumerate() {
        authority.set(mode);
        let (before, begun) = (server.log().len(), std::time::Instant::now());
        place.jump(&format!("+{}h", 22 * 24 + 2 * number));
        // Without the mode the attempt would end at once.
        let told = |log: &str| log[before..].contains("no answer from localhost");
        assert!(!server.wait_log(std::time::Duration::from_secs(5), told), "{mode:?}: {}", server.log());
        server.signal("HUP");
        let applied = server.wait_log(LIMIT, |log| log[before..].contains("reload"));
        assert!(
            applied && begun.elapsed() < std::time::Duration::from_secs(20),
            "{mode:?}: {}",
            server.log()
        );
        assert_eq!(shown(&server), first);
        assert!(server.wait_log(LIMIT, told), "{mode:?}: {}", server.log());
        let end = std::time::Instant::now() + LIMIT;
        while metric(&server, FAILED) < number as f64 + 1.0 {
            assert!(std::time::Instant::now() < end, "{mode:?} is not counted");
        }
        assert_eq!(shown(&server), first, "{mode:?}");
    }
}

#[test]
fn the_window_of_the_authority_decides_when_to_renew() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    // In the past: the authority will revoke the certificate.
    let (place, authority) =
        (Place::new(), Authority::start(Some(["2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"])));
    let (server, first) = certified(&place, &authority);
    // A day after the first one, and long before two thirds of its lifetime.
    place.jump("+25h");
    wait_for_other(&server, &first);
    let orders = authority.orders();
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert!(
        orders[0]["replaces"].is_null() && orders[1]["replaces"].as_str().is_some_and(|id| id.contains('.')),
        "{orders:?}"
    );
}

#[test]
fn a_reload_tries_again_at_once() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    authority.set(Mode::OtherName);
    let server = place.start(&[NAME], &authority.lines());
    assert!(server.wait_log(LIMIT, |log| log.contains("next attempt in 1m")), "{}", server.log());
    let (_, overview) = http::get(server.admin(), "/overview");
    assert!(overview.contains("There is no certificate yet"), "{overview}");
    let made = shown(&server);
    authority.set(Mode::Good);
    server.signal("HUP");
    wait_for_other(&server, &made);
}
