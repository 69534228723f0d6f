//! Logins that the relay refuses, and wrong usage.

use crate::coturn::Coturn;
use crate::examination::{Examination, codes};
use crate::support::beside_others;
use crate::support::credentials;
use crate::support::plan::{LOCAL_V4, Plan, SECRET, Transport};
use crate::support::server::Server;
use serde_json::Value;
use std::path::PathBuf;

/// What the doctor finds at this relay and at coturn, over UDP and TLS.
fn at_both(doctor: impl Fn() -> Examination) -> [Value; 2] {
    let _turn = beside_others();
    let plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    let (server, coturn) = (Server::start(&plan), Coturn::start(&plan));
    let ask = |udp: u16, tls: u16, doctor: Examination| {
        doctor.json(&[&format!("turn:127.0.0.1:{udp}"), &format!("turns:127.0.0.1:{tls}"), "--exact"])
    };
    [
        ask(
            server.v4(Transport::Udp).port(),
            server.v4(Transport::Tls).port(),
            doctor().trusting(&server.files().path("ca.pem")),
        ),
        ask(
            coturn.address(Transport::Udp).port(),
            coturn.address(Transport::Tls).port(),
            doctor().trusting(&coturn.authority()),
        ),
    ]
}

#[test]
fn a_wrong_secret() {
    for json in at_both(|| Examination::new().with_secret("another secret\n")) {
        assert_eq!(codes(&json), ["wrong_credentials"], "{json:#}");
        assert_eq!(json["rungs"][0]["reached"], "stun", "{json:#}");
    }
}

#[test]
fn a_name_that_expired_and_one_that_did_not() {
    let pair = |ttl| {
        let made = credentials::rest(SECRET, "w_teacher", ttl);
        format!("{}:{}", made.username, made.password)
    };
    for json in at_both(|| Examination::new().with_credentials(&pair(-7200))) {
        assert_eq!(codes(&json), ["expired"], "{json:#}");
        let text = json["findings"][0]["text"].as_str().expect("a text");
        assert!(text.contains("expired 2 hours ago"), "{text}");
    }
    for json in at_both(|| Examination::new().with_credentials("w_teacher:secret")) {
        assert_eq!(codes(&json), ["wrong_credentials"], "{json:#}");
        let text = json["findings"][0]["text"].as_str().expect("a text");
        assert!(text.contains("The name carries no time"), "{text}");
        assert_eq!(json["rungs"][0]["fault"]["code"], "name_without_time", "{json:#}");
    }
    for json in at_both(|| Examination::new().with_credentials(&pair(7200))) {
        assert_eq!(codes(&json), ["works"], "{json:#}");
    }
}

/// Finds the library of Debian's package `faketime`, in a directory named after the architecture.
pub fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.exists()).expect("this test needs libfaketime: apt install faketime")
}

#[test]
fn a_clock_that_is_one_day_or_three_behind() {
    let library = library().display().to_string();
    // The doctor's names are valid for a day: with a clock that is exactly a day behind, they expire right now.
    for (offset, differ) in [("-25h", "differ by 1 day to 2 days"), ("-3d", "differ by 2 days to 8 days")] {
        let behind = || {
            Examination::new()
                .with_variable("LD_PRELOAD", &library)
                .with_variable("FAKETIME", offset)
                .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        };
        for json in at_both(behind) {
            assert_eq!(codes(&json), ["clock", "certificate_not_yet_valid"], "{json:#}");
            let text = json["findings"][0]["text"].as_str().expect("a text");
            assert!(text.contains(differ), "{text}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_prints_no_password() {
    let doctor = Examination::new();
    for args in [
        &["relay.example.org"][..],
        &["turn://relay.example.org"],
        &["stun:relay.example.org"],
        &["turn:r", "--json", "--markdown"],
        &["turn:r", "--proxy", "socks5://me:hidden-word@proxy:1080"],
        &["turn:r", "--credentials", "a:b"],
        &[],
    ] {
        let output = doctor.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
        assert!(!errors.is_empty() && !errors.contains("hidden-word"), "{errors}");
    }
    let no_password = Examination::new().with_credentials("hidden-word").run(&["turn:r"]);
    let errors = String::from_utf8_lossy(&no_password.stderr);
    assert!(no_password.status.code() == Some(2) && !errors.contains("hidden-word"), "{errors}");
    let unreadable = Examination::new().with_secret("");
    assert_eq!(unreadable.run(&["turn:127.0.0.1"]).status.code(), Some(2));
}
