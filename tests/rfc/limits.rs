//! Quotas, capacity, draining, and limits for unauthenticated clients (RFC 8656 sections 5, 7.2 and 21; promises 6 to 13, 22
//! and 31 of SECURITY.md).

use hallpass::base::transport::Transport;
use hallpass::turn::action::{DropReason, FromClient};
use hallpass::turn::settings::{Alternates, Rate};

use crate::codec::*;
use crate::rig::*;

/// RFC 8656 sections 5 and 7.2: the quota is by user, across addresses, transports and expiry times. A released place is free
/// at once.
#[test]
fn s7_2_quota_by_user_is_486() {
    let mut rig = Rig::with(|settings| settings.limits.allocations_per_user = 2);
    let name = |n: u64| format!("{}:w_x", UNIX + n);
    let first = rig.rest(client(1), "north-secret", &name(100));
    let second = rig.rest(client_at(Transport::Tls, "203.0.113.77:2"), "north-secret", &name(200));
    let third = rig.rest(client_at(Transport::Udp, "[2001:db8:9::7]:3"), "north-secret", &name(300));
    assert_eq!(rig.ask(&first, Msg::allocate()).code(), 0);
    assert_eq!(rig.ask(&second, Msg::allocate()).code(), 0);
    assert_eq!(rig.ask(&third, Msg::allocate()).code(), 486);
    // A dual allocation counts once.
    let other = rig.rest(client(4), "north-secret", &format!("{}:w_y", UNIX + 100));
    assert_eq!(rig.ask(&other, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6)).code(), 0);
    // Another host's user of the same id is another user.
    let elsewhere = rig.rest(client(5), "south-new", &name(100));
    assert_eq!(rig.ask(&elsewhere, Msg::allocate()).code(), 0);
    assert_eq!(rig.refresh(&second, 0).code(), 0);
    assert_eq!(rig.ask(&third, Msg::allocate()).code(), 0, "a place was released");
    rig.wait(600);
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8656 section 7.2: the server's own limit is 508.
#[test]
fn s7_2_total_capacity_is_508() {
    let mut rig = Rig::with(|settings| settings.limits.allocations_total = 1);
    let alice = rig.allocated();
    let bob = rig.login(client(2), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 508);
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
}

/// RFC 8656 section 7.2: 508 if no port is left; a released port is reused at once.
#[test]
fn s7_2_ports_that_run_out_are_508() {
    let mut rig = Rig::with(|settings| settings.relay_ports = 50_000..=50_009);
    let users: Vec<User> = (1..=11).map(|port| rig.alice_at(client(port))).collect();
    for user in &users[..10] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    assert_eq!(rig.ask(&users[10], Msg::allocate()).code(), 508);
    assert_eq!(rig.refresh(&users[3], 0).code(), 0);
    assert_eq!(rig.ask(&users[10], Msg::allocate()).code(), 0);
    assert_eq!(rig.held(), (10, 10, 10));
}

/// The last quarter of the ports is kept for users with few allocations: one credential cannot take all ports, with
/// or without a user part.
#[test]
fn s7_2_the_last_ports_are_for_users_that_hold_few() {
    for name in [format!("{}:w_x", UNIX + 1000), (UNIX + 1000).to_string()] {
        let mut rig = Rig::with(|settings| {
            settings.relay_ports = 50_000..=50_099;
            settings.limits.unauthenticated_per_source = 0;
        });
        let greedy = |rig: &mut Rig, port: u16, secret| {
            let user = rig.rest(client(port), secret, &name);
            rig.ask(&user, Msg::allocate()).code()
        };
        for port in 0..75 {
            assert_eq!(greedy(&mut rig, 1 + port, "north-secret"), 0);
        }
        assert_eq!(greedy(&mut rig, 100, "north-secret"), 486);
        let dual = rig.rest(client(101), "north-secret", &name);
        let answer = rig.ask(&dual, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6));
        let error = answer.get(ADDRESS_ERROR_CODE).expect("no IPv4");
        assert_eq!((answer.code(), error[2..4].to_vec()), (0, vec![4, 86]), "the other family has ports");
        assert_eq!(rig.refresh(&dual, 0).code(), 0);
        // The same name under another host's secret is another user, and has its share of 16.
        for port in 0..16 {
            assert_eq!(greedy(&mut rig, 200 + port, "south-new"), 0);
        }
        assert_eq!(greedy(&mut rig, 300, "south-new"), 486);
        let alice = rig.alice();
        assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "a user that holds none");
        assert_eq!(rig.held(), (92, 92, 92), "a refusal holds nothing");
    }
}

/// SECURITY.md promise 22: during a drain, new clients get 508 and existing allocations continue.
#[test]
fn draining_refuses_newcomers_with_508() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    rig.server.handle_drain(true);
    let bob = rig.login(client(2), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 508);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
    rig.server.handle_drain(false);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
}

/// An ICE restart of a running call makes new allocations before it ends the old ones. Chromium loses the call if they are
/// refused, even though the old ones work.
#[test]
fn a_user_with_an_allocation_may_make_another_while_the_server_drains() {
    let mut rig = Rig::with(|settings| settings.limits.allocations_per_user = 2);
    let alice = rig.allocated();
    rig.server.handle_drain(true);
    let mut ask = |port| {
        let again = rig.login(client(port), "alice", "alice-pw", Style::Old);
        let code = rig.ask(&again, Msg::allocate()).code();
        (again, code)
    };
    let (second, code) = ask(20);
    assert_eq!(code, 0);
    assert_eq!(ask(21).1, 486, "the quota applies as ever");
    for session in [alice, second] {
        assert_eq!(rig.refresh(&session, 0).code(), 0);
    }
    let again = rig.login(client(22), "alice", "alice-pw", Style::Old);
    assert_eq!(rig.ask(&again, Msg::allocate()).code(), 508, "without an allocation it is a newcomer");
}

/// RFC 8489 section 10: if alternate servers are configured, new clients are sent to the one of their transport and family.
#[test]
fn draining_sends_newcomers_to_the_alternate_server() {
    let mut rig = Rig::with(|settings| {
        let plain = vec![addr("203.0.113.200:3478"), addr("[2001:db8:7::1]:3478")];
        settings.alternates = Alternates::new(plain.clone(), plain, vec![addr("203.0.113.201:443")]);
    });
    let alice = rig.allocated();
    rig.server.handle_drain(true);
    for (at, expected) in [
        (client(2), Some([0, 1, 0x0d, 0x96, 203, 0, 113, 200].to_vec())),
        (client_at(Transport::Tcp, "203.0.113.77:2"), Some([0, 1, 0x0d, 0x96, 203, 0, 113, 200].to_vec())),
        (client_at(Transport::Tls, "203.0.113.77:3"), Some([0, 1, 0x01, 0xbb, 203, 0, 113, 201].to_vec())),
        (
            client_at(Transport::Udp, "[2001:db8:9::7]:3"),
            Some([&[0, 2, 0x0d, 0x96, 0x20, 1, 0x0d, 0xb8, 0, 7][..], &[0; 9], &[1]].concat()),
        ),
        (client_at(Transport::Tls, "[2001:db8:9::7]:4"), None),
    ] {
        let bob = rig.login(at, "bob", "bob-pw", Style::Old);
        let answer = rig.ask(&bob, Msg::allocate());
        assert_eq!(answer.code(), if expected.is_some() { 300 } else { 508 });
        assert_eq!(answer.get(ALTERNATE_SERVER).map(<[u8]>::to_vec), expected);
    }
    assert_eq!(rig.bare(&client(9), &Msg::allocate()).code(), 401, "no redirect without credentials");
    assert_eq!(rig.refresh(&alice, 600).code(), 0, "a running call goes on");
    assert_eq!(rig.held(), (1, 1, 1));
}

/// Several alternate servers are used in turn, separately for each transport and family.
#[test]
fn alternate_servers_are_taken_in_turn() {
    let mut rig = Rig::with(|settings| {
        let udp =
            ["203.0.113.1:1", "[2001:db8:7::1]:1", "203.0.113.2:2", "203.0.113.3:3", "[2001:db8:7::2]:2"];
        let tcp = ["203.0.113.4:4", "203.0.113.5:5"];
        let list = |servers: &[&str]| servers.iter().map(|server| addr(server)).collect();
        settings.alternates = Alternates::new(list(&udp), list(&tcp), vec![addr("203.0.113.6:6")]);
    });
    rig.server.handle_drain(true);
    let ways = [
        (Transport::Udp, "203.0.113.77", [1, 2, 3, 1]),
        (Transport::Udp, "[2001:db8:9::7]", [1, 2, 1, 2]),
        (Transport::Tcp, "203.0.113.78", [4, 5, 4, 5]),
        (Transport::Tls, "203.0.113.79", [6, 6, 6, 6]),
    ];
    for round in 0..4 {
        for (transport, ip, ports) in ways {
            let bob = rig.login(
                client_at(transport, &format!("{ip}:{}", 100 + round)),
                "bob",
                "bob-pw",
                Style::Old,
            );
            let answer = rig.ask(&bob, Msg::allocate());
            let server = answer.get(ALTERNATE_SERVER).expect("another server");
            assert_eq!((answer.code(), server[3]), (300, ports[round]), "{transport:?} {ip}, {round}");
        }
    }
}

/// SECURITY.md promise 8: a source gets 500 answers a second. Other sources, Bindings, streams and clients with an allocation
/// have separate limits.
#[test]
fn a_source_without_credentials_gets_500_answers_a_second() {
    let mut rig = Rig::new();
    let flooder = client(1);
    let count = |rig: &mut Rig, tries: u32| {
        let request = Msg::allocate().bytes();
        (0..tries).filter(|_| rig.exchange(&flooder, &request).is_some()).count()
    };
    let alice = rig.allocated();
    assert_eq!(count(&mut rig, 2000), 499, "alice's own 401 was the first");
    assert_eq!(rig.dropped(DropReason::Throttled), 1501);
    assert_eq!(rig.refresh(&alice, 600).code(), 0, "same address, with credentials");
    let other = client_at(Transport::Udp, "203.0.113.99:1");
    assert_eq!(rig.bare(&other, &Msg::allocate()).code(), 401);
    let stream = client_at(Transport::Tcp, "203.0.113.5:1");
    assert_eq!(rig.bare(&stream, &Msg::allocate()).code(), 401);
    assert_eq!(rig.bare(&flooder, &Msg::request(BINDING)).code(), 0, "a separate limit");
    rig.wait(2);
    assert_eq!(count(&mut rig, 2000), 500, "the full limit, two seconds later");
    // Requests that would get 438 or 400 count against the same limit.
    for request in [
        Msg::allocate().attr(USERNAME, b"x").attr(REALM, b"x").attr(NONCE, b"x").sha1(b"x"),
        Msg::allocate().sha1(b"x"),
        rig.alice_at(client_at(Transport::Udp, "203.0.113.99:2")).seal(Msg::allocate()),
    ] {
        assert_eq!(rig.silent(&flooder, &request.bytes()), DropReason::Throttled);
    }
}

/// Bindings have four times the limit. Meanwhile a client with an allocation can still send them to keep its NAT open.
#[test]
fn bindings_have_a_limit_of_their_own() {
    let mut rig = Rig::new();
    let (alice, flooder) = (rig.allocated(), client(1));
    for request in [Msg::request(BINDING), Msg::request(BINDING).attr(0x7fff, b"")] {
        let answered = |_: &u32| rig.exchange(&flooder, &request.bytes()).is_some();
        assert_eq!((0..5000).filter(answered).count(), 2000);
        assert_eq!(rig.bare(&alice.at, &Msg::request(BINDING)).code(), 0);
        rig.wait(2);
    }
}

/// Over TCP and TLS the limit is four times as high: the source is proved, and nothing is retransmitted.
#[test]
fn unauthenticated_streams_have_a_limit_too() {
    let mut rig = Rig::new();
    let request = Msg::allocate().bytes();
    let answered = |n: &u16| {
        let flooder = client_at(Transport::Tls, &format!("203.0.113.5:{}", 1000 + n % 50));
        rig.exchange(&flooder, &request).is_some()
    };
    assert_eq!((0..5000).filter(answered).count(), 2000);
    assert_eq!(rig.dropped(DropReason::Throttled), 3000);
}

/// A flood over TCP or TLS does not lock out new clients of its source: the first requests of a connection have a further
/// budget. It is limited, too, and separate for TCP and TLS.
#[test]
fn the_first_requests_of_a_connection_have_a_further_budget() {
    let mut rig = Rig::new();
    let request = Msg::allocate().bytes();
    let at = |transport, n: u32| client_at(transport, &format!("203.0.113.5:{}", 1000 + n % 5000));
    let flood = |rig: &mut Rig, transport, opening, tries: u32| {
        let answered = |n: &u32| {
            rig.feed_stream(&at(transport, *n), &request, opening);
            rig.reply().is_some()
        };
        (0..tries).filter(answered).count()
    };
    assert_eq!(flood(&mut rig, Transport::Tls, false, 9000), 2000);
    for (n, transport) in [(1, Transport::Tls), (2, Transport::Tcp)] {
        let newcomer = rig.alice_at(client_at(Transport::Udp, "203.0.113.99:1"));
        let newcomer = User { at: at(transport, n), ..newcomer };
        assert_eq!(rig.feed_stream(&newcomer.at, &request, true), FromClient::Control);
        let (_, refused) = rig.reply().expect("an answer");
        let newcomer = User { nonce: refused.get(NONCE).expect("a nonce").to_vec(), ..newcomer };
        assert_eq!(
            rig.feed_stream(&newcomer.at, &newcomer.seal(Msg::allocate()).bytes(), true),
            FromClient::Control
        );
        assert_eq!(rig.reply().expect("an answer").1.code(), 0, "{transport:?}");
        assert_eq!(rig.refresh(&newcomer, 0).code(), 0, "with an allocation it counts for its user");
    }
    assert_eq!(flood(&mut rig, Transport::Tcp, true, 9000), 2000 - 2);
    assert_eq!(flood(&mut rig, Transport::Tls, true, 9000), 8000 - 2);
    assert_eq!(flood(&mut rig, Transport::Udp, true, 9000), 500, "over UDP there is no connection");
    rig.wait(1);
    assert_eq!(flood(&mut rig, Transport::Tls, false, 9000), 2000, "no debt is left");
}

/// SECURITY.md promise 31: the requests of one user have a limit across all its allocations.
#[test]
fn a_user_has_1000_requests_a_second() {
    let mut rig = Rig::new();
    let users = [1, 2].map(|port| rig.alice_at(client(port)));
    for user in &users {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    let mut answered = 0;
    for n in 0..3000 {
        let request = users[n % 2].seal(Msg::request(REFRESH));
        answered += usize::from(rig.exchange(&users[n % 2].at, &request.bytes()).is_some());
    }
    assert_eq!((answered, rig.dropped(DropReason::RequestsOverRate)), (998, 2002), "two were Allocates");
    let reported: Vec<_> =
        rig.refusals.iter().map(|refusal| (refusal.reason.name(), &*refusal.user)).collect();
    assert_eq!(reported, [("rate_limited", "alice")], "the report names the user");
    let bob = rig.login(client(3), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0, "another user");
    rig.wait(2);
    assert_eq!(rig.refresh(&users[0], 600).code(), 0);
}

/// Messages over 2,048 bytes are dropped without parsing, except data of clients with an allocation. No valid request is that
/// long.
#[test]
fn long_messages_are_dropped_unread() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let long = [0x7a; 2048];
    let request = alice.seal(Msg::request(REFRESH).attr(0x8fff, &long)).bytes();
    assert_eq!(rig.silent(&alice.at, &request), DropReason::TooLarge);
    let send = Msg::send().peer(PEER).attr(DATA, &long).bytes();
    assert_eq!(rig.silent(&client(9), &send), DropReason::TooLarge, "no allocation");
    assert!(matches!(rig.feed(&alice.at, &send), FromClient::Relay { .. }));
}

/// SECURITY.md promise 7: no answer to an unauthenticated client exceeds 5 times its request, or 2.5 times including IP and UDP
/// headers. A realm of up to 52 bytes always fits into the 401 to an Allocate with REQUESTED-TRANSPORT (28 bytes).
#[test]
fn unauthenticated_clients_cannot_amplify() {
    for realm in 1..=52 {
        let mut rig = Rig::with(|settings| settings.realm = "r".repeat(realm));
        for request in [
            Msg::request(ALLOCATE),
            Msg::allocate(),
            Msg::request(REFRESH),
            Msg::request(BINDING),
            Msg::request(BINDING).attr(0x7fff, b""),
            Msg::allocate().attr(SOFTWARE, b"abcd"),
            Msg::allocate().sha1(b"x"),
            Msg::allocate().fingerprint(),
            Msg::allocate().attr(USERNAME, b"x").attr(REALM, b"x").attr(NONCE, b"x").sha1(b"x"),
        ] {
            let bytes = request.bytes();
            let Some(answer) = rig.exchange(&client(1), &bytes) else {
                assert!(bytes.len() < 28, "{realm}: no answer to {} bytes", bytes.len());
                continue;
            };
            let (asked, answered) = (bytes.len(), answer.bytes.len());
            assert!(answered <= 5 * asked, "{realm}: {answered} for {asked}");
            assert!(2 * (answered + 28) <= 5 * (asked + 28), "{realm}: {answered} for {asked}, with headers");
        }
        // A request of 20 bytes leaves room for a realm of 32.
        let short = rig.exchange(&client(1), &Msg::request(ALLOCATE).bytes());
        assert_eq!(short.is_some(), realm <= 32, "{realm}");
        // On a stream the source is proven: the whole challenge.
        let stream = rig.bare(&client_at(Transport::Tcp, "203.0.113.5:1"), &Msg::request(ALLOCATE));
        assert!(stream.has(PASSWORD_ALGORITHMS));
    }
}

/// RFC 8489 section 9.2.1: PASSWORD-ALGORITHMS is sent exactly if the nonce has the bit for it. Clients can authenticate either
/// way.
#[test]
fn s9_2_1_the_cookie_matches_the_attributes_sent() {
    for realm in 1..=52 {
        let mut rig = Rig::with(|settings| settings.realm = "r".repeat(realm));
        let answer = rig.bare(&client(40_000), &Msg::allocate());
        let announced = answer.get(NONCE).expect("NONCE").starts_with(b"obMatJos2gAAA");
        assert_eq!(announced, answer.has(PASSWORD_ALGORITHMS), "{realm}");
        assert_eq!(announced, realm <= 28, "{realm}: no room in 2.5 times 28 bytes with headers");
        let alice = rig.alice();
        assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "{realm}");
    }
}

/// SECURITY.md promise 12: datagrams above a rate limit are dropped and counted, across all allocations of a user.
#[test]
fn data_above_a_rate_limit_is_dropped_and_counted() {
    let mut rig = Rig::with(|settings| {
        settings.limits.rates.user = Rate { kbit: 0, packets: 100 };
        settings.limits.rates.allocation = Rate { kbit: 80, packets: 0 };
    });
    let name = |n: u64| format!("{}:w_x", UNIX + n);
    let first = rig.rest(client(1), "north-secret", &name(100));
    let second = rig.rest(client(2), "north-secret", &name(200));
    let other = rig.rest(client(3), "north-secret", &format!("{}:w_y", UNIX + 100));
    for user in [&first, &second, &other] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
        assert_eq!(rig.bind(user, 0x4000, PEER), 0);
    }
    let sent = |rig: &mut Rig, user: &User, tries: u32, data: &[u8]| {
        (0..tries).filter(|_| rig.channel(user, 0x4000, data).is_ok()).count()
    };
    assert_eq!(sent(&mut rig, &first, 60, b"x"), 60);
    assert_eq!(sent(&mut rig, &second, 60, b"x"), 40);
    assert_eq!(rig.dropped(DropReason::UserOverRate), 20);
    assert_eq!(sent(&mut rig, &other, 60, b"x"), 60, "another user");
    rig.wait(2);
    // 80,000 bits are ten datagrams of a thousand bytes.
    assert_eq!(sent(&mut rig, &first, 20, &[7; 1000]), 10);
    assert_eq!(rig.dropped(DropReason::AllocationOverRate), 10);
    assert_eq!(sent(&mut rig, &second, 5, &[7; 1000]), 5, "another allocation");
    rig.wait(600);
    assert_eq!(rig.held(), (0, 0, 0));
}

/// SECURITY.md promise 13: permissions and channels of an allocation are limited.
#[test]
fn s10_2_permissions_and_channels_are_capped() {
    let mut rig = Rig::with(|settings| {
        settings.peers.allow = vec!["10.0.0.0/8".parse().expect("literal")];
        settings.limits.requests_per_user = 0;
    });
    let alice = rig.allocated();
    for n in 0..1000 {
        let peer = format!("10.0.{}.{}:1", n / 250, n % 250);
        assert_eq!(rig.bind(&alice, 0x4000 + n, &peer), 0);
    }
    assert_eq!(rig.bind(&alice, 0x4fff, "10.9.0.0:1"), 508);
    assert_eq!(rig.permit(&alice, &["10.9.0.0:1"]), 508);
    assert_eq!(rig.bind(&alice, 0x4fff, "10.0.0.1:2"), 508, "a channel to a permitted address");
    rig.wait(600);
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get(), rig.held()), (0, 0, (0, 0, 0)));
}

/// All allocations of one user share a limit of permissions and channels, which is released as they end.
#[test]
fn permissions_of_one_user_are_capped_over_its_allocations() {
    let mut rig = Rig::with(|settings| {
        settings.peers.allow = vec!["10.0.0.0/8".parse().expect("literal")];
        settings.limits.permissions_per_user = 10;
    });
    let [first, second] = [1, 2].map(|port| rig.alice_at(client(port)));
    for user in [&first, &second] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    let permit = |rig: &mut Rig, user: &User, range: std::ops::Range<u32>| {
        let codes = range.map(|n| rig.permit(user, &[&format!("10.0.0.{n}:1")]));
        codes.filter(|&code| code == 0).count()
    };
    assert_eq!(permit(&mut rig, &first, 0..6), 6);
    assert_eq!(rig.bind(&second, 0x4000, "10.0.0.100:1"), 0, "a channel and a permission");
    assert_eq!(permit(&mut rig, &second, 0..6), 2);
    assert_eq!(rig.bind(&first, 0x4000, "10.0.0.0:1"), 508);
    assert_eq!(permit(&mut rig, &first, 0..6), 6, "refreshing takes no room");
    let bob = rig.login(client(3), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 0);
    assert_eq!(rig.permit(&bob, &["10.0.0.1:1"]), 0, "another user");
    assert_eq!(rig.refresh(&second, 0).code(), 0);
    assert_eq!(permit(&mut rig, &first, 0..20), 10, "the six from before and four new ones");
    rig.wait(301);
    assert_eq!(permit(&mut rig, &first, 100..120), 10, "all had expired");
}

/// Nobody else can send over a client's stream, so its requests, valid or not, count for its user and not for its source.
#[test]
fn a_stream_with_an_allocation_uses_its_users_limit() {
    let mut rig = Rig::new();
    let alice = rig.alice_at(client_at(Transport::Tls, "203.0.113.5:40000"));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    let wrong = Msg::request(REFRESH).attr(USERNAME, b"alice").attr(REALM, b"x").attr(NONCE, b"x").sha1(b"x");
    let mut heard = 0;
    for (request, count) in [(wrong.bytes(), 1000), (Msg::request(BINDING).bytes(), 30_000)] {
        heard += (0..count).filter(|_| rig.exchange(&alice.at, &request).is_some()).count();
    }
    let dropped = rig.dropped(DropReason::RequestsOverRate) + rig.dropped(DropReason::Throttled);
    assert_eq!((heard, dropped), (999 + 20_000, 1 + 10_000), "one was its Allocate");
    check_neighbour(&mut rig);
    rig.wait(1);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
}

/// Checks that a new client behind the same address is served.
fn check_neighbour(rig: &mut Rig) {
    for transport in [Transport::Udp, Transport::Tls] {
        let neighbour = client_at(transport, "203.0.113.5:9");
        assert_eq!(rig.bare(&neighbour, &Msg::allocate()).code(), 401);
        assert_eq!(rig.bare(&neighbour, &Msg::request(BINDING)).code(), 0);
    }
}

/// Returns requests that another host can forge with the address of a UDP client: without credentials, with a made-up nonce,
/// and with an overheard one.
fn forged(nonce: &[u8]) -> [Msg; 5] {
    let named = || Msg::request(REFRESH).attr(USERNAME, b"alice").attr(REALM, REALM_TEXT.as_bytes());
    [
        Msg::request(REFRESH),
        Msg::request(REFRESH).sha1(b"x"),
        named().attr(NONCE, b"x").sha1(b"x"),
        named().attr(NONCE, nonce).sha1(b"x"),
        named().attr(NONCE, nonce).attr(0x8fff, &[7; 1800]).sha1(b"x"),
    ]
}

/// Anybody can forge the address of a UDP client, so a request that its user's key does not verify counts for that client only.
/// Its call, the user's other calls and other clients of the source go on, and few forged requests are answered.
#[test]
fn forged_requests_do_not_use_up_the_limits_of_a_running_call() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let elsewhere = rig.alice_at(client_at(Transport::Tls, "203.0.113.7:1"));
    assert_eq!(rig.ask(&elsewhere, Msg::allocate()).code(), 0);
    let floods = forged(&alice.nonce).map(|request| (request, 50));
    for (request, answers) in floods.into_iter().chain([(Msg::request(BINDING), 100)]) {
        let (bytes, throttled) = (request.bytes(), rig.dropped(DropReason::Throttled));
        let heard = (0..3000).filter(|_| rig.exchange(&alice.at, &bytes).is_some()).count();
        assert_eq!(heard, answers);
        assert_eq!(rig.dropped(DropReason::Throttled) - throttled, 3000 - answers as u64);
        assert_eq!(rig.refresh(&alice, 600).code(), 0);
        assert_eq!((rig.permit(&alice, &[PEER]), rig.bind(&alice, 0x4000, PEER)), (0, 0));
        assert_eq!(rig.refresh(&elsewhere, 600).code(), 0);
        check_neighbour(&mut rig);
        rig.wait(2);
    }
    // Alice's own requests still have her limit, across all her calls.
    let own = alice.seal(Msg::request(REFRESH)).bytes();
    assert_eq!((0..3000).filter(|_| rig.exchange(&alice.at, &own).is_some()).count(), 1000);
    let other = elsewhere.seal(Msg::request(REFRESH)).bytes();
    assert_eq!(rig.silent(&elsewhere.at, &other), DropReason::RequestsOverRate);
}

/// A client whose nonce has expired gets a new one despite a flood from its address. The request counts for its user.
#[test]
fn an_expired_nonce_is_renewed_despite_forged_requests() {
    let mut rig = Rig::new();
    let mut alice = rig.allocated();
    assert_eq!(rig.refresh(&alice, 3600).code(), 0);
    rig.wait(3590);
    assert_eq!(rig.refresh(&alice, 3600).code(), 0);
    rig.wait(20);
    for request in forged(&alice.nonce) {
        (0..3000).for_each(|_| drop(rig.exchange(&alice.at, &request.bytes())));
    }
    let request = alice.seal(Msg::request(REFRESH));
    let stale = rig.bare(&alice.at, &request);
    assert_eq!((stale.code(), stale.is_signed()), (438, false));
    alice.nonce = stale.get(NONCE).expect("NONCE").to_vec();
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    // It counts for the user like any other request.
    let request = alice.seal(Msg::request(REFRESH)).bytes();
    assert_eq!((0..3000).filter(|_| rig.exchange(&alice.at, &request).is_some()).count(), 998);
}

/// Many clients share a name without a user part: requests count by client, permissions by name, and allocations have no
/// limit.
#[test]
fn names_without_a_user_count_by_client_and_by_name() {
    let mut rig = Rig::with(|settings| {
        settings.peers.allow = vec!["10.0.0.0/8".parse().expect("literal")];
        settings.limits.allocations_per_user = 1;
        settings.limits.permissions_per_user = 10;
        settings.limits.requests_per_user = 50;
    });
    let users = [(1, 1000), (2, 1000), (3, 1001)]
        .map(|(port, end)| rig.rest(client(port), "north-secret", &(UNIX + end).to_string()));
    for user in &users {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0, "no limit by user");
    }
    let mut permitted = |user: &User| {
        let codes = (0..20).map(|n| rig.permit(user, &[&format!("10.0.0.{n}:1")]));
        codes.filter(|&code| code == 0).count()
    };
    assert_eq!(users.each_ref().map(&mut permitted), [10, 0, 10], "the first two share a name");
    while rig.exchange(&users[0].at, &users[0].seal(Msg::request(REFRESH)).bytes()).is_some() {}
    assert_eq!(rig.refresh(&users[1], 600).code(), 0, "another client of the same name");
}

/// Under memory pressure, permissions and channels are refreshed but not added, for any client and below any limit.
#[test]
fn under_memory_pressure_no_permission_is_added() {
    let mut rig = Rig::with(|settings| settings.limits.permissions_per_user = 0);
    let alice = rig.allocated();
    assert_eq!((rig.permit(&alice, &[PEER]), rig.bind(&alice, 0x4000, PEER)), (0, 0));
    rig.server.handle_pressure(true);
    assert_eq!(rig.permit(&alice, &[OTHER_PEER]), 508);
    assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER]), 508, "all or nothing");
    assert_eq!(rig.bind(&alice, 0x4001, OTHER_PEER), 508);
    assert_eq!(rig.bind(&alice, 0x4001, "192.0.2.50:7001"), 508, "a channel to a permitted address");
    rig.wait(200);
    assert_eq!((rig.permit(&alice, &[PEER]), rig.bind(&alice, 0x4000, PEER)), (0, 0), "refreshed");
    assert_eq!(rig.refresh(&alice, 3600).code(), 0);
    rig.wait(250);
    assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (1, 1));
    rig.server.handle_pressure(false);
    assert_eq!((rig.permit(&alice, &[OTHER_PEER]), rig.bind(&alice, 0x4001, OTHER_PEER)), (0, 0));
}
