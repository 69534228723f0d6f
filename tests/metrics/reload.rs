//! The metrics of the certificate and of reloads, while files change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::exported::{parse, scrape, wait_for};
use crate::support::certs::{self, Kind};
use crate::support::plan::Plan;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::run_ok;

const EXPIRY: &str = "hallpass_certificate_expiry_timestamp_seconds";

/// The end of a certificate's validity in seconds since 1970, as openssl and date read it.
fn not_after(certificate: &Path) -> f64 {
    let script = format!(
        "date -d \"$(openssl x509 -enddate -noout -in {} | cut -d= -f2)\" +%s",
        certificate.display()
    );
    run_ok("sh", &["-c", &script], Duration::from_secs(20)).trim().parse().expect("a number")
}

fn value(server: &Server, name: &str) -> f64 {
    let families = parse(&scrape(server));
    let [value] = families[name].values[..] else { panic!("{name}: {:?}", families[name]) };
    value
}

#[test]
fn the_expiry_is_that_of_the_certificate_in_use_and_a_failed_reload_is_seen() {
    if skip_on_coturn("metrics") {
        return;
    }
    let server = Server::start(&Plan { name: Some("one.test"), ..Plan::loopback() });
    let (cert, key) = server.certificate_files();
    let name = |server: &Server| parse(&scrape(server))[EXPIRY].labels["name"].clone();
    assert_eq!(value(&server, EXPIRY), not_after(cert));
    assert_eq!(name(&server), ["one.test".to_owned()].into());
    let (successful, since) = (
        "hallpass_certificate_last_reload_successful",
        "hallpass_certificate_last_reload_success_timestamp_seconds",
    );
    let started = value(&server, since);
    assert_eq!(value(&server, successful), 1.0);
    assert!(value(&server, "process_start_time_seconds") <= started);

    fs::write(cert, "damaged").unwrap();
    server.signal("USR2");
    wait_for(&server, successful, |value| value == 0.0);
    assert_eq!(value(&server, since), started);
    assert_eq!(name(&server), ["one.test".to_owned()].into(), "the certificate from before stays");

    certs::write(Kind::SelfSigned, "two.test", cert, key);
    server.signal("USR2");
    wait_for(&server, successful, |value| value == 1.0);
    assert!(value(&server, since) >= started);
    assert_eq!(value(&server, EXPIRY), not_after(cert));
    assert_eq!(name(&server), ["two.test".to_owned()].into());
    // The configuration was not read meanwhile.
    assert_eq!(value(&server, "hallpass_config_last_reload_successful"), 1.0);
}

#[test]
fn a_failed_reload_of_the_configuration_is_seen_until_one_succeeds() {
    if skip_on_coturn("metrics") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let path = server.files().path("hallpass.toml");
    let good = fs::read_to_string(&path).unwrap();
    let successful = "hallpass_config_last_reload_successful";
    let since = "hallpass_config_last_reload_success_timestamp_seconds";
    let started = value(&server, since);
    fs::write(&path, format!("{good}\n[nonsense]\n")).unwrap();
    server.signal("HUP");
    wait_for(&server, successful, |value| value == 0.0);
    assert_eq!(value(&server, since), started);
    fs::write(&path, &good).unwrap();
    server.signal("HUP");
    wait_for(&server, successful, |value| value == 1.0);
    assert!(value(&server, since) >= started);
}
