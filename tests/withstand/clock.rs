//! Jumps of the wall clock.

use crate::call::Call;
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::{
    ALLOCATE, CREATE_PERMISSION, LIFETIME, REFRESH, REQUESTED_TRANSPORT, Session, XOR_PEER_ADDRESS, xor_value,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Finds the library of Debian's package `faketime`, in a directory named after the architecture.
fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.exists()).expect("this test needs libfaketime: apt install faketime")
}

/// Moves the server's wall clock by `offset` from the true time. Its monotonic clock is unchanged.
fn jump(file: &Path, offset: &str) {
    // By an atomic rename, because libfaketime rereads this file all the time.
    let next = file.with_extension("next");
    std::fs::write(&next, offset).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn lifetime(client: &mut Client) -> u32 {
    let answer = client.ask(REFRESH, &[(LIFETIME, &600_u32.to_be_bytes())]);
    let value = answer.attribute(LIFETIME).unwrap_or_else(|| panic!("{answer:?}"));
    u32::from_be_bytes(value.try_into().unwrap())
}

/// Row 24.
#[test]
fn jumps_of_the_wall_clock_change_no_lifetime() {
    let _turn = alone();
    let files = Directory::new("clock");
    let offset = files.path("offset");
    jump(&offset, "+0");
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library().display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_NO_CACHE=1".to_owned(),
    ];
    let mut server = Server::start(&Plan { wrapper: words.to_vec(), ..Plan::loopback() });
    let session = Session::new(server.credentials("w_long"), b"");
    let join = |transport| Client::join(Link::open(transport, server.v4(transport)), &session);
    let call = Call::of(&session, Link::open(Transport::Udp, server.v4(Transport::Udp)), 200);
    let mut running = [Transport::Udp, Transport::Tcp, Transport::Tls].map(|transport| {
        let mut client = join(transport);
        client.allocate().expect("an allocation");
        client
    });
    let mut newcomers = Vec::new();
    for (days, expected) in [("+2d", Some(401)), ("-2d", None), ("+2d", Some(401)), ("+0", None)] {
        let mut early = join(Transport::Udp);
        jump(&offset, days);
        // A user name expires by the wall clock, so this answer shows that the clock has jumped. The nonce is older
        // than the jump.
        let mut code = None;
        let seen = crate::machine::until(Duration::from_secs(5), || {
            code = early.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &crate::support::codec::UDP)]).error_code();
            code == expected
        });
        newcomers.push((days, code));
        assert!(seen.is_some(), "after {days} a newcomer gets {code:?} instead of {expected:?}");
        // Running calls do not depend on the wall clock, and their clients' nonces stay valid.
        for client in &mut running {
            assert_eq!(lifetime(client), 600, "after {days}");
            let peer = xor_value("127.0.0.1:9".parse().unwrap());
            assert_eq!(client.code(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &peer)]), 0, "after {days}");
        }
        call.lasts(Duration::from_millis(500));
    }
    let (report, mut client) = call.hang_up();
    println!("row 24: newcomers by the wall clock: {newcomers:?}; the call: {report}");
    assert_eq!(lifetime(&mut client), 600);
    assert!(server.is_running());
    assert!(report.loss() <= 0.01, "{report}");
}
