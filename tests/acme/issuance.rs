//! The first certificate and its renewal, by both challenges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::certified::{LIMIT, Place, keys, metric, openssl, shown, wait_for_other};
use crate::pebble::Pebble;
use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::http;
use crate::support::plan::Transport;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;

const NAME: &str = "relay.example.org";

#[test]
fn a_certificate_is_issued_and_renewed_by_a_handshake() {
    issue_and_renew("tls-alpn-01");
}

#[test]
fn a_certificate_is_issued_and_renewed_by_a_file() {
    issue_and_renew("http-01");
}

fn issue_and_renew(challenge: &str) {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let place = Place::new();
    let pebble = Pebble::start(place.https, place.http);
    let acme = format!("challenges = \"{challenge}\"\n{}", pebble.lines());
    let server = place.start(&[NAME, "www.example.org"], &acme);
    let mut early = client(&server);
    assert!(server.wait_log(LIMIT, |log| log.contains("acme: new certificate")), "{}", server.log());
    let end = std::time::Instant::now() + LIMIT;
    let first = loop {
        let now = shown(&server);
        if now == leaf(&place.state(NAME)) {
            break now;
        }
        assert!(std::time::Instant::now() < end, "{}", server.log());
    };
    let text = openssl(&["x509", "-noout", "-text"], &place.state(NAME).join("fullchain.pem"));
    assert!(text.contains("DNS:relay.example.org") && text.contains("DNS:www.example.org"), "{text}");
    let by_file = pebble.log().contains("Attempting to validate w/ HTTP");
    assert_eq!(by_file, challenge == "http-01", "{}", pebble.log());
    private(&place.state(""));
    assert_eq!(keys(&place.state(NAME)).0, keys(&place.state(NAME)).1);
    assert_eq!(metric(&server, "hallpass_acme_renewals_total{result=\"success\"}"), 1.0);
    // Nothing of the challenges is left.
    assert_eq!(http::get_as(place.port_80(), NAME, "/.well-known/acme-challenge/x").0, 404);

    let mut later = client(&server);
    // Two thirds of the lifetime and the jitter.
    place.jump("+22d");
    let second = wait_for_other(&server, &first);
    assert_eq!(second, leaf(&place.state(NAME)));
    assert_eq!(metric(&server, "hallpass_acme_renewals_total{result=\"success\"}"), 2.0);
    assert_eq!(metric(&server, "hallpass_acme_renewals_total{result=\"failure\"}"), 0.0);
    private(&place.state(""));
    // A certificate that is due at once is not renewed again and again.
    let next = metric(&server, "hallpass_acme_next_attempt_timestamp_seconds");
    assert!(next - unix_seconds() > 22.9 * 86_400.0, "{next}");
    for client in [&mut early, &mut later] {
        assert_eq!(client.refresh(600), 0, "clients of the certificates before stay");
    }

    // A restart uses what is there, and asks for nothing.
    drop(server);
    let orders = pebble.log().matches("/order-plz").count();
    let server = place.start(&[NAME, "www.example.org"], &acme);
    assert_eq!(shown(&server), second);
    assert_eq!(pebble.log().matches("/order-plz").count(), orders);
}

fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn client(server: &Server) -> Client {
    let link = Link::Tls(Box::new(tls::connect(server.v4(Transport::Tls))));
    let mut client = Client::log_in(link, server.credentials("connected"));
    client.allocate().expect("an allocation");
    client
}

/// The certificate on the disk, DER.
fn leaf(directory: &Path) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(directory.join("fullchain.pem")).expect("a certificate").to_vec()
}

/// Nobody else can read anything in it.
pub fn private(directory: &Path) {
    let mode = |path: &Path| fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700, "{directory:?}");
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let kind = fs::symlink_metadata(&entry).unwrap().file_type();
        if kind.is_dir() {
            private(&entry);
        } else if kind.is_file() {
            assert_eq!(mode(&entry), 0o600, "{entry:?}");
        }
    }
}
