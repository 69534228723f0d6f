//! A lesson at the school in which much goes wrong: each user of it is one that the pages look for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::machine::Machine;
use crate::support::client::{Client, Link, tcp_from, udp_from};
use crate::support::credentials::{Credentials, named, rest};
use crate::support::plan::Transport;
use crate::support::stun::{
    ALLOCATE, NONCE, REQUESTED_FAMILY, REQUESTED_TRANSPORT, Session, UDP, allocate_request,
};
use crate::support::tls;

const REALM: &str = "relay.example.org";
const RELAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SCHOOL: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
const CONFERENCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));
/// The limits of the relay in the lesson; the pages say so where it matters.
pub const LIMITS: &str = "[limits]\nallocations_per_user = 20\nkbit_per_allocation = 1000\n";

fn link(transport: Transport) -> Link {
    let at = |port| SocketAddr::new(RELAY.into(), port);
    match transport {
        Transport::Udp => Link::Udp(udp_from(SCHOOL, at(3479))),
        Transport::Tcp => Link::Tcp(tcp_from(SCHOOL, at(3479))),
        Transport::Tls => Link::Tls(Box::new(tls::connect(at(443)))),
    }
}

fn client(transport: Transport, credentials: Credentials) -> Client {
    Client::join(link(transport), &Session::in_realm(credentials, b"", REALM))
}

/// Tries to allocate; the answer must have this error code.
fn refused(code: u16, credentials: Credentials) {
    assert_eq!(client(Transport::Udp, credentials).allocate(), Err(code));
}

/// Holds the lesson on a relay with this secret.
pub fn hold(machine: &Machine, secret: &str) {
    let of = |user: &str| rest(secret, user, 86_400);
    let wrong = |user: &str| rest("the secret of another host", user, 86_400);
    machine.outside(|| {
        // Who is refused.
        client(Transport::Tls, wrong("w_wrong")).allocate().expect_err("a wrong secret");
        refused(401, wrong("w_ben"));
        refused(401, rest(secret.trim_end_matches('='), "w_cut", 86_400));
        refused(401, rest(secret, "w_late", -3600));
        refused(401, named(secret, "w_swapped:1999999999"));
        refused(401, named(secret, "w_teacher"));
        refused(401, named("another", "1999999999000:w_millis"));
        for user in ["w_clock1", "w_clock2", "w_clock3", "w_clock4", "w_clock5"] {
            refused(401, rest(secret, user, -86_400));
        }
        let mut foreign = client(Transport::Udp, of("w_restart"));
        let nonce = foreign.session.nonce().to_vec();
        foreign.session = foreign.session.renewed(b"obMatJos2gAAAmadeelsewhere");
        assert_eq!(foreign.allocate(), Err(438));
        foreign.session = foreign.session.renewed(&nonce);
        assert_eq!(foreign.refresh(600), 437);
        let mut sixth = client(Transport::Udp, of("w_six"));
        let family = sixth.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP), (REQUESTED_FAMILY, &[2, 0, 0, 0])]);
        assert_eq!((family.error_code(), family.attribute(NONCE)), (Some(440), None));
        let mut ann = client(Transport::Tcp, of("w_ann"));
        ann.allocate().expect("an allocation");
        assert_eq!(ann.permit("10.1.2.3:7000".parse().expect("literal")), 403);
        let mut moved = client(Transport::Udp, of("w_moved"));
        moved.allocate().expect("an allocation");
        assert_eq!(moved.bind(0x4000, "198.51.100.30:20000".parse().expect("literal")), 403);
        let many: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = client(Transport::Udp, of("w_many"));
                client.allocate().expect("an allocation");
                client
            })
            .collect();
        refused(486, of("w_many"));
        for mut client in many {
            assert_eq!(client.refresh(0), 0);
        }

        // Who is heard by nobody, and who sends too much.
        let conference = UdpSocket::bind((CONFERENCE, 0)).expect("a socket of the conference server");
        let peer = conference.local_addr().expect("an address");
        for (user, packets, len) in [("w_dora", 60, 100), ("w_fast", 400, 1000)] {
            let mut client = client(Transport::Udp, of(user));
            client.allocate().expect("an allocation");
            assert_eq!(client.bind(0x4000, peer), 0);
            (0..packets).for_each(|_| client.send_on(0x4000, &vec![7; len]));
            assert_eq!(client.refresh(0), 0);
        }
        assert_eq!(ann.refresh(0), 0);
        assert_eq!(moved.refresh(0), 0);
    });
    // Too many at once behind one address. The reports of those that prove nothing have a small budget, which others may use up.
    let flood = |number: u64| {
        let socket = udp_from(CONFERENCE, SocketAddr::new(RELAY.into(), 3479));
        (0..2_000).for_each(|request| {
            // A full queue is what this is about.
            let _ = socket.send(&allocate_request(2_000 * number + request));
        });
    };
    let is_reported = |number| {
        machine.outside(|| flood(number));
        machine.logs_within(Duration::from_secs(1), &["refusal", "rate_limited"])
    };
    assert!((0..20).any(is_reported), "no flood is reported:\n{}", machine.log());
    machine.wait_log(&["refusal", "w_many"]);
    machine.wait_log(&["session", "w_fast"]);
    machine.wait_log(&["WARN", "all expired"]);
    machine.wait_log(&["WARN", "users at 1 address were refused"]);
}

/// A client with good credentials is refused, because the relay drains.
pub fn come_late(machine: &Machine, secret: &str) {
    machine.outside(|| refused(508, rest(secret, "w_drain", 86_400)));
    machine.wait_log(&["refusal", "w_drain"]);
}
