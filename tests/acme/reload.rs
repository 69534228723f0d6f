//! `[acme]` and `[redirect]` that come, change and go while the server runs.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::authority::Authority;
use crate::certified::{LIMIT, Place, metric, openssl, shown, wait_for_other};
use crate::pebble::Pebble;
use crate::support::beside_others;
use crate::support::call::Call;
use crate::support::http;
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};

const NAME: &str = "relay.example.org";

/// Changes the configuration and reloads it.
fn reload(server: &Server, changes: &[(&str, &str)]) {
    let file = server.files().path("hallpass.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "no {from:?} in\n{text}");
        text = text.replace(from, to);
    }
    server.files().write("hallpass.toml", &text);
    let before = server.log().len();
    server.signal("HUP");
    let applied = |log: &str| log[before..].contains("the new configuration is in use");
    assert!(server.wait_log(LIMIT, applied), "{}", &server.log()[before..]);
}

/// Waits until nothing listens there any more.
fn wait_closed(address: SocketAddr) {
    let end = Instant::now() + LIMIT;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "{address} is still open");
    }
}

#[test]
fn a_running_relay_gets_its_first_certificate_by_a_reload() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let place = Place::new();
    let pebble = Pebble::start(place.https, place.http);
    let acme = format!("challenges = \"http-01\"\n{}", pebble.lines());
    let plan = place.plan(&[NAME], &acme);
    let tables = plan.certificate.clone().expect("the tables");
    // Without a certificate, as on a fresh host.
    let server = Server::start(&Plan { certificate: Some("# none yet\n".to_owned()), ..plan });
    let made = shown(&server);
    let refused = TcpStream::connect(place.port_80()).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "port 80 is open without [redirect]");
    let call = Call::over(&server, Transport::Tls, 50);

    reload(&server, &[("# none yet\n", &tables)]);
    let first = wait_for_other(&server, &made);
    assert_eq!(http::get_as(place.port_80(), NAME, "/check").0, 308);
    assert!(pebble.log().contains("Attempting to validate w/ HTTP"), "{}", pebble.log());

    // Another name: the next certificate has both.
    let names = format!("domains = {:?}", [NAME]);
    reload(&server, &[(&names, &format!("domains = {:?}", [NAME, "www.example.org"]))]);
    let second = wait_for_other(&server, &first);
    let text = openssl(&["x509", "-noout", "-text"], &place.state(NAME).join("fullchain.pem"));
    assert!(text.contains("DNS:relay.example.org") && text.contains("DNS:www.example.org"), "{text}");

    // Port 80 moves, and closes.
    let (old, new) = (place.port_80(), crate::support::plan::free_port());
    let table = |port: u16| format!("[redirect]\naddress = \"127.0.0.1:{port}\"\n");
    reload(&server, &[(&table(old.port()), &table(new))]);
    assert_eq!(http::get_as((old.ip(), new).into(), NAME, "/check").0, 308);
    wait_closed(old);
    reload(&server, &[(&table(new), ""), ("\"http-01\"", "\"tls-alpn-01\"")]);
    wait_closed((old.ip(), new).into());
    assert_eq!(shown(&server), second);
    assert_eq!(metric(&server, "hallpass_acme_renewals_total{result=\"failure\"}"), 0.0);
    let report = call.end();
    assert_eq!(report.lost(), 0, "{report}");
}

/// From an authority for tests to one that browsers trust, and to another kind: the certificate of before is replaced at once, and
/// only once.
#[test]
fn a_certificate_of_another_authority_or_kind_is_replaced_at_once() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let place = Place::new();
    let [staging, production] = [(); 2].map(|()| Authority::start(None));
    let server = place.start(&[NAME], &staging.lines());
    assert!(server.wait_log(LIMIT, |log| log.contains("new certificate in use")), "{}", server.log());
    let first = shown(&server);
    reload(&server, &[(&staging.lines(), &production.lines())]);
    let second = wait_for_other(&server, &first);
    let kind = format!("profile = \"shortlived\"\n{}", production.lines());
    reload(&server, &[(&production.lines(), &kind)]);
    let third = wait_for_other(&server, &second);
    reload(&server, &[]);
    assert_eq!(shown(&server), third);
    assert_eq!((staging.orders().len(), production.orders().len()), (1, 2));
}

/// An address that is taken: the server says so, and nothing is applied.
#[test]
fn an_occupied_port_80_refuses_the_reload() {
    let _turn = beside_others();
    if skip_on_coturn("certificates by ACME") {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let server = Server::start(&Plan::loopback());
    let file = server.files().path("hallpass.toml");
    let text = fs::read_to_string(&file).unwrap() + &format!("[redirect]\naddress = \"127.0.0.1:{port}\"\n");
    server.files().write("hallpass.toml", &text);
    server.signal("HUP");
    assert!(server.wait_log(LIMIT, |log| log.contains("nothing is applied")), "{}", server.log());
    let log = server.log();
    assert!(
        log.contains("for [redirect]: Address already in use") && log.contains("is occupied by"),
        "{log}"
    );
}
