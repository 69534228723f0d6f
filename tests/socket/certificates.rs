//! Certificates that are replaced while the server runs, without a signal.

use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::http;
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use crate::support::{alone, beside_others};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

/// Within this time a replaced certificate is in use; more on a machine without time for the server.
const LIMIT: Duration = Duration::from_secs(10);

/// What is promised on a machine that is not busy.
const PROMISED: Duration = Duration::from_secs(2);
const EXCHANGES: usize = 5;

/// Returns the certificate that a new client is shown.
pub fn shown(server: &Server) -> Vec<u8> {
    tls::certificate(&tls::connect(server.v4(Transport::Tls)).conn)
}

/// Connects until another certificate than `old` is shown, and returns it.
pub fn wait_for_other(server: &Server, old: &[u8]) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let now = shown(server);
        if now != old {
            println!("another certificate after {:.1?}", start.elapsed());
            return now;
        }
        assert!(start.elapsed() < LIMIT, "still the old certificate:\n{}", server.log());
    }
}

/// Moves the file into `directory` and leaves a link to it.
fn link_into(directory: &Path, file: &Path) {
    fs::create_dir_all(directory).unwrap();
    let target = directory.join(file.file_name().unwrap());
    fs::rename(file, &target).unwrap();
    symlink(&target, file).unwrap();
}

/// Exchanges a link at once, as certbot does.
fn exchange(link: &Path, to: &Path) {
    let new = link.with_extension("new");
    symlink(to, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[test]
fn replaced_files_and_exchanged_links_are_used_without_a_signal() {
    let _turn = beside_others();
    if skip_on_coturn("certificates that are followed") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let first = shown(&server);
    let mut client = Client::log_in(
        Link::Tls(Box::new(tls::connect(server.v4(Transport::Tls)))),
        server.credentials("connected"),
    );
    client.allocate().expect("an allocation");
    let (cert, key) = server.certificate_files();
    let directory = cert.parent().unwrap();

    // New files in the place of the old ones.
    let (new_cert, new_key) = (directory.join("next.crt"), directory.join("next.key"));
    certs::write(Kind::Good, "second.test", &new_cert, &new_key);
    fs::rename(&new_key, key).unwrap();
    fs::rename(&new_cert, cert).unwrap();
    let second = wait_for_other(&server, &first);

    // Links to files in an archive, as certbot makes them.
    let archive = directory.join("archive");
    link_into(&archive, cert);
    link_into(&archive, key);
    let (new_cert, new_key) = (archive.join("third.crt"), archive.join("third.key"));
    certs::write(Kind::Good, "third.test", &new_cert, &new_key);
    exchange(cert, &new_cert);
    exchange(key, &new_key);
    let third = wait_for_other(&server, &second);
    assert_ne!(third, first);
    assert_eq!(client.refresh(600), 0, "a client of the first certificate stays");
}

/// certbot exchanges one link after the other; Kubernetes and the server itself exchange a link to a directory with both files.
#[test]
fn exchanged_links_are_used_within_two_seconds() {
    let _turn = alone();
    if skip_on_coturn("certificates that are followed") {
        return;
    }
    let files = Directory::new("versions");
    let version = |number: usize| {
        let directory = files.path(&format!("version{number}"));
        fs::create_dir(&directory).unwrap();
        let (cert, key) = (directory.join("fullchain.pem"), directory.join("privkey.pem"));
        certs::write(Kind::Good, &format!("version{number}.test"), &cert, &key);
        directory
    };
    let current = files.path("current");
    symlink(version(0), &current).unwrap();
    let tables = format!(
        "[tls]\ncert = {:?}\nkey = {:?}\n",
        current.join("fullchain.pem"),
        current.join("privkey.pem")
    );
    let server = Server::start(&Plan { certificate: Some(tables), ..Plan::loopback() });
    let mut seen = shown(&server);
    let mut times = Vec::new();
    for number in 1..=EXCHANGES {
        let next = version(number);
        let start = Instant::now();
        exchange(&current, &next);
        seen = wait_for_other(&server, &seen);
        times.push(start.elapsed());
    }
    println!("exchanged links are used after {times:?}");
    times.sort();
    // Once a machine may have had no time for the server.
    assert!(times[EXCHANGES - 2] < PROMISED, "{times:?}");
    let each_once = |log: &str| log.matches("new certificate in use").count() == EXCHANGES;
    assert!(server.wait_log(LIMIT, each_once), "{}", server.log());
}

#[test]
fn a_half_written_certificate_is_not_used() {
    let _turn = beside_others();
    if skip_on_coturn("certificates that are followed") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let first = shown(&server);
    let (cert, key) = server.certificate_files();
    let directory = cert.parent().unwrap();
    let (new_cert, new_key) = (directory.join("next.crt"), directory.join("next.key"));
    certs::write(Kind::Good, "second.test", &new_cert, &new_key);
    let whole = fs::read(&new_cert).unwrap();
    let before = server.log().len();
    fs::write(cert, &whole[..whole.len() / 3]).unwrap();
    let told = server.wait_log(LIMIT, |log| log[before..].contains("the certificate in use stays"));
    assert!(told, "the log does not say that the file is not used:\n{}", server.log());
    assert_eq!(shown(&server), first);
    // The rest arrives.
    fs::copy(&new_key, key).unwrap();
    fs::write(cert, &whole).unwrap();
    wait_for_other(&server, &first);
}

/// Returns the certificate that a client which asks for this name is shown.
fn shown_for(server: &Server, name: &'static str) -> Vec<u8> {
    tls::certificate(&tls::connect_as(server.v4(Transport::Tls), tls::client_for(name, &[])).conn)
}

#[test]
fn clients_get_the_certificate_for_the_name_that_they_ask_for() {
    let _turn = beside_others();
    if skip_on_coturn("several certificates") {
        return;
    }
    let files = Directory::new("names");
    let (cert, key) = (files.path("second.crt"), files.path("second.key"));
    certs::write(Kind::Good, "second.test", &cert, &key);
    let tables = format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n");
    let server = Server::start(&Plan { tables, ..Plan::loopback() });
    let (first, second) = (shown(&server), shown_for(&server, "second.test"));
    assert_ne!(first, second);
    assert_eq!(shown_for(&server, "first.test"), first);
    assert_eq!(shown_for(&server, "unknown.test"), first);
    let (_, metrics) = http::get(server.admin(), "/metrics");
    for name in ["first.test", "second.test"] {
        let line = format!("hallpass_certificate_expiry_timestamp_seconds{{name=\"{name}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    // It is followed, too; a client without a name keeps the default one.
    let (new_cert, new_key) = (files.path("next.crt"), files.path("next.key"));
    certs::write(Kind::Rsa2048, "second.test", &new_cert, &new_key);
    fs::rename(&new_key, &key).unwrap();
    fs::rename(&new_cert, &cert).unwrap();
    let start = Instant::now();
    while shown_for(&server, "second.test") == second {
        assert!(start.elapsed() < LIMIT, "still the old certificate:\n{}", server.log());
    }
    assert_eq!(shown(&server), first);
    // All or nothing: a broken one prevents the reload.
    fs::write(&cert, "nothing").unwrap();
    server.signal("HUP");
    let told = server.wait_log(LIMIT, |log| log.contains("nothing is applied"));
    assert!(told, "{}", server.log());
}
