//! Relays on loopback: which rungs they have, and what they refuse.

use crate::coturn::Coturn;
use crate::examination::{Examination, codes, rung};
use crate::support::beside_others;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

/// The URLs of a relay with these listeners for UDP, TCP and TLS.
fn urls([udp, tcp, tls]: [SocketAddr; 3]) -> [String; 3] {
    [
        format!("turn:localhost:{}?transport=udp", udp.port()),
        format!("turn:localhost:{}?transport=tcp", tcp.port()),
        format!("turns:localhost:{}", tls.port()),
    ]
}

fn all_work(json: &Value, addresses: [SocketAddr; 3]) {
    assert_eq!(codes(json), ["works"], "{json:#}");
    assert_eq!(json["letter"], Value::Null);
    for (transport, address) in ["udp", "tcp", "tls"].iter().zip(addresses) {
        let rung = rung(json, transport, address.port(), "direct");
        assert_eq!((&rung["works"], &rung["reached"]), (&true.into(), &"data".into()), "{json:#}");
        assert_eq!(rung["data"]["received"], rung["data"]["sent"], "{json:#}");
        assert_eq!(rung["data"]["large_received"], rung["data"]["large_sent"], "{json:#}");
        assert!(rung["data"]["trip_ms"]["median"].as_f64() > Some(0.0), "{json:#}");
        assert_eq!(rung["certificate"].is_object(), *transport == "tls", "{json:#}");
    }
}

#[test]
fn every_rung_of_this_relay_carries_data() {
    let _turn = beside_others();
    let server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let addresses = [Transport::Udp, Transport::Tcp, Transport::Tls].map(|transport| server.v4(transport));
    let doctor = Examination::new().trusting(&server.files().path("ca.pem"));
    let urls = urls(addresses);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    all_work(&doctor.json(&urls), addresses);
    let output = doctor.run(&urls);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("Calls will work here.") && text.lines().all(|line| line.len() <= 80), "{text}");
    let ticket = doctor.run(&[&urls[..], &["--markdown"]].concat());
    let text = String::from_utf8(ticket.stdout).expect("text");
    assert!(
        text.starts_with("# Calls will work from this computer\n") && text.contains("| ok | UDP"),
        "{text}"
    );
}

#[test]
fn every_rung_of_coturn_carries_data() {
    let _turn = beside_others();
    let coturn = Coturn::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let addresses =
        [Transport::Udp, Transport::Tcp, Transport::Tls].map(|transport| coturn.address(transport));
    let doctor = Examination::new().trusting(&coturn.authority());
    let json = doctor.json(&urls(addresses).each_ref().map(String::as_str));
    all_work(&json, addresses);
    assert!(json["rungs"][0]["software"].as_str().is_some_and(|name| name.contains("Coturn")), "{json:#}");
}

#[test]
fn a_relay_that_serves_other_peers_only_counts_as_working() {
    let _turn = beside_others();
    // Without `allow`, coturn refuses peers on loopback.
    let coturn = Coturn::start(&Plan::on(&[LOCAL_V4], &[]));
    let udp = coturn.address(Transport::Udp);
    let json = Examination::new().json(&[&format!("turn:127.0.0.1:{}", udp.port()), "--exact"]);
    assert_eq!(codes(&json), ["works", "data_not_tested"], "{json:#}");
    let rung = rung(&json, "udp", udp.port(), "direct");
    assert_eq!((&rung["reached"], &rung["untested"]), (&"allocation".into(), &"peers_limited".into()));
}

#[test]
fn a_host_with_peers_of_its_own_counts_as_working() {
    let _turn = beside_others();
    let secret = "a secret of the second host";
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.tables =
        format!("[[host]]\nname = \"second\"\nsecret = \"{secret}\"\npeers = [\"198.51.100.20\"]\n");
    let server = Server::start(&plan);
    let (udp, tls) = (server.v4(Transport::Udp).port(), server.v4(Transport::Tls).port());
    let doctor = Examination::new().with_secret(secret).trusting(&server.files().path("ca.pem"));
    let urls = [format!("turn:127.0.0.1:{udp}"), format!("turns:localhost:{tls}")];
    let json = doctor.json(&[&urls[0], &urls[1], "--exact"]);
    assert_eq!(codes(&json), ["works", "data_not_tested"], "{json:#}");
    assert!(json["findings"][1]["text"].as_str().expect("a text").contains("which is good"), "{json:#}");
}

#[test]
fn a_certificate_that_nobody_vouches_for() {
    let _turn = beside_others();
    let server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let tls = server.v4(Transport::Tls);
    // The system's authorities do not include that of the tests.
    let json = Examination::new().json(&[&format!("turns:localhost:{}", tls.port()), "--exact"]);
    assert_eq!(codes(&json), ["intercepted"], "{json:#}");
    let rung = rung(&json, "tls", tls.port(), "direct");
    assert_eq!((&rung["works"], &rung["reached"]), (&false.into(), &"data".into()), "{json:#}");
    assert_eq!(rung["certificate"]["chain"][0]["issuer"], "Hallpass test intermediate", "{json:#}");
}

#[test]
fn nothing_listens() {
    let _turn = beside_others();
    let port = crate::support::plan::free_port();
    let json =
        Examination::new().json(&[&format!("turn:127.0.0.1:{port}"), &format!("turns:127.0.0.1:{port}")]);
    assert_eq!(codes(&json), ["refused"], "{json:#}");
    assert_eq!(json["letter_for"], "relay");
}

#[test]
fn a_web_server_in_the_place_of_the_relay() {
    let _turn = beside_others();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let urls = [format!("turn:127.0.0.1:{port}?transport=tcp"), format!("turns:127.0.0.1:{port}")];
    let json = Examination::new().json(&[&urls[0], &urls[1], "--exact"]);
    assert_eq!(json["verdict"], "not_the_relay", "{json:#}");
    let plain = rung(&json, "tcp", port, "direct");
    assert_eq!((&plain["reached"], &plain["fault"]["code"]), (&"tcp".into(), &"not_turn".into()), "{json:#}");
    assert_eq!(rung(&json, "tls", port, "direct")["fault"]["code"], "not_tls", "{json:#}");
}

/// With four ports, the doctor's own ways would take them from each other, and from users.
#[test]
fn a_small_relay_is_not_filled_by_the_test() {
    let _turn = beside_others();
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.relay_ports = (61000, 61003);
    plan.tables = "[[host]]\nname = \"second\"\nsecret = \"a secret of the second host\"\n".to_owned();
    plan.limits = "allocations_per_user = 3".to_owned();
    let server = Server::start(&plan);
    let config = server.files().path("hallpass.toml").display().to_string();
    let doctor = Examination::without_login().trusting(&server.files().path("ca.pem"));
    let json = doctor.json(&["--config", &config]);
    let rungs = json["rungs"].as_array().expect("rungs");
    assert!(rungs.len() >= 3 && rungs.iter().all(|rung| rung["reached"] == "data"), "{json:#}");
    assert!(!codes(&json).contains(&"listener_full"), "{json:#}");
    let page = crate::support::http::get(server.admin(), "/refusals").1;
    assert!(!page.contains("\"no_port\"") && !page.contains("\"user_quota\""), "{page}");
}

/// A user may have two allocations, which the test of one way needs: the ways must not take them from each other.
#[test]
fn a_small_quota_is_not_used_up_by_the_test() {
    let _turn = beside_others();
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.limits = "allocations_per_user = 2".to_owned();
    let server = Server::start(&plan);
    let [udp, tcp, tls] = [Transport::Udp, Transport::Tcp, Transport::Tls].map(|one| server.v4(one).port());
    let urls = [
        format!("turn:localhost:{udp}"),
        format!("turn:localhost:{tcp}?transport=tcp"),
        format!("turns:localhost:{tls}"),
    ];
    let doctor = Examination::new().trusting(&server.files().path("ca.pem"));
    let json = doctor.json(&[&urls[0], &urls[1], &urls[2], "--exact"]);
    let tried = json["rungs"].as_array().expect("rungs");
    let tried: Vec<_> = tried.iter().filter(|rung| rung["reached"] != "name").collect();
    assert!(tried.len() >= 3 && tried.iter().all(|rung| rung["reached"] == "data"), "{json:#}");
    assert!(!codes(&json).contains(&"data_not_tested"), "{json:#}");
}
