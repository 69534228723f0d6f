//! Jumps of the wall clock.

use crate::call::Call;
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::{
    ALLOCATE, CREATE_PERMISSION, LIFETIME, REFRESH, REQUESTED_TRANSPORT, Session, XOR_PEER_ADDRESS, xor_value,
};
use crate::support::wall_clock::WallClock;
use std::time::Duration;

fn lifetime(client: &mut Client) -> u32 {
    let answer = client.ask(REFRESH, &[(LIFETIME, &600_u32.to_be_bytes())]);
    let value = answer.attribute(LIFETIME).unwrap_or_else(|| panic!("{answer:?}"));
    u32::from_be_bytes(value.try_into().unwrap())
}

/// Row 24.
#[test]
fn jumps_of_the_wall_clock_change_no_lifetime() {
    let _turn = alone();
    let clock = WallClock::new();
    let mut server = Server::start(&Plan { wrapper: clock.wrapper(), ..Plan::loopback() });
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
        clock.jump(days);
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
