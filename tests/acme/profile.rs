//! Kinds of certificates. pebble has them since version 2.7, Debian 12 has 2.4: the authority of the tests issues here.

use crate::authority::{Authority, Mode};
use crate::certified::{LIMIT, Place, metric, shown, wait_for_other};
use crate::pebble::Pebble;
use crate::support::beside_others;
use crate::support::server::skip_on_coturn;

const NAME: &str = "relay.example.org";
const HOUR: f64 = 3600.0;
const NEXT: &str = "hallpass_acme_next_attempt_timestamp_seconds";

/// Certificates for six days are renewed after four.
#[test]
fn a_short_lived_certificate_is_ordered_and_renewed_in_time() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    authority.set(Mode::SixDays);
    let server = place.start(&[NAME], &format!("profile = \"shortlived\"\n{}", authority.lines()));
    let made = shown(&server);
    assert!(server.wait_log(LIMIT, |log| log.contains("new certificate in use")), "{}", server.log());
    let first = shown(&server);
    assert_ne!(first, made);
    assert_eq!(authority.orders()[0]["profile"], "shortlived");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let hours = (metric(&server, NEXT) - now) / HOUR;
    assert!((95.5..104.0).contains(&hours), "the next attempt is in {hours} hours");
    let begin =
        metric(&server, &format!("hallpass_certificate_not_before_timestamp_seconds{{name=\"{NAME}\"}}"));
    let expiry =
        metric(&server, &format!("hallpass_certificate_expiry_timestamp_seconds{{name=\"{NAME}\"}}"));
    assert_eq!(expiry - begin, 6.0 * 24.0 * HOUR);
    place.jump("+105h");
    wait_for_other(&server, &first);
    assert_eq!(authority.orders().len(), 2);
}

/// A profile that the authority does not have is no reason to take another kind.
#[test]
fn an_unknown_profile_is_reported() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let (place, authority) = (Place::new(), Authority::start(None));
    let server = place.start(&[NAME], &format!("profile = \"eternal\"\n{}", authority.lines()));
    let told = server.wait_log(LIMIT, |log| log.contains("correct [acme] profile"));
    assert!(told, "{}", server.log());
    assert!(authority.orders().is_empty());
    assert!(
        server.log().contains("has no profile eternal; correct [acme] profile: classic, shortlived"),
        "{}",
        server.log()
    );
    // An authority without profiles would issue another kind.
    drop(server);
    let place = Place::new();
    let pebble = Pebble::start(place.https, place.http);
    let server = place.start(
        &[NAME],
        &format!("challenges = \"tls-alpn-01\"\nprofile = \"shortlived\"\n{}", pebble.lines()),
    );
    let told = server.wait_log(LIMIT, |log| log.contains("the authority has no profiles"));
    assert!(told && !place.state(NAME).exists(), "{}", server.log());
}
