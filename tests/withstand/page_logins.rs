//! The logins that the test page hands out, used by somebody else than the page: they reach nothing but relayed addresses of the
//! same login.

use crate::machine::{drops, in_own_network, many_descriptors, metric, until};
use crate::peers::DENIED;
use crate::support::client::{Client, Link, PATIENCE, channel_data};
use crate::support::codec::UDP;
use crate::support::credentials::Credentials;
use crate::support::plan::{LOCAL_V4, LOCAL_V6, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, LIFETIME, REQUESTED_FAMILY,
    REQUESTED_TRANSPORT, Session, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, binding_request, xor_value_in,
};
use crate::support::tls;
use crate::support::tool::run_ok;
use crate::support::wall_clock::WallClock;
use crate::support::{alone, beside_others};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const CHANNEL: u16 = 0x4000;
const FAMILY_V6: [u8; 4] = [2, 0, 0, 0];
/// Open to users of a host, by default and by the operator.
const OPEN: [&str; 4] = ["9.9.9.9", "10.1.2.3", "2620:fe::fe", "fd00::1"];
/// Addresses that this machine gets.
const OWN: [&str; 3] = ["45.66.77.88", "11.0.0.9", "2a00:1450::7"];
/// How long nothing has to arrive.
const SILENCE: Duration = Duration::from_millis(300);
/// What a login may take: allocations, all logins together, and kbit/s (docs/test-page.md).
const ALLOCATIONS: usize = 40;
const ALL_ALLOCATIONS: usize = 2000;
const MBIT: f64 = 60.0;

/// Asks the page for a login, as its script does.
fn login(server: SocketAddr) -> Credentials {
    let mut stream = tls::connect_as(server, tls::client_for("first.test", &["http/1.1"]));
    let request = "POST /check/credentials HTTP/1.1\r\nHost: first.test\r\nOrigin: https://first.test\r\n\
                   Sec-Fetch-Site: same-origin\r\nX-Check: 1\r\nContent-Type: application/json\r\n\
                   Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}")).to_owned();
    Credentials { username: text("user"), password: text("password") }
}

pub fn session(server: SocketAddr) -> Session {
    Session::new(login(server), b"")
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Returns a client with an allocation, and its relayed address.
fn allocated(link: Link, session: &Session, is_v6: bool) -> (Client, SocketAddr) {
    let mut client = Client::join(link, session);
    let mut attributes: Vec<(u16, &[u8])> = vec![(REQUESTED_TRANSPORT, &UDP)];
    if is_v6 {
        attributes.push((REQUESTED_FAMILY, &FAMILY_V6));
    }
    let answer = client.ask(ALLOCATE, &attributes);
    assert_eq!(answer.error_code(), None, "{answer:?}");
    (client, answer.xor_address(XOR_RELAYED_ADDRESS).expect("a relayed address"))
}

fn permit(client: &mut Client, peer: SocketAddr) -> u16 {
    let peer = xor_value_in(peer, client.next_id());
    client.code(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &peer)])
}

fn bind(client: &mut Client, number: u16, peer: SocketAddr) -> u16 {
    let peer = xor_value_in(peer, client.next_id());
    let [high, low] = number.to_be_bytes();
    client.code(CHANNEL_BIND, &[(CHANNEL_NUMBER, &[high, low, 0, 0]), (XOR_PEER_ADDRESS, &peer)])
}

/// Whether something arrives at the client.
fn hears(client: &mut Client) -> bool {
    client.link.wait_at_most(SILENCE);
    let heard = client.receive().is_ok();
    client.link.wait_at_most(PATIENCE);
    heard
}

/// Listeners and the page on every address, relayed addresses on loopback; the operator has opened what can be opened.
fn open_plan() -> Plan {
    let wildcards: [IpAddr; 2] = ["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
    let allow = [
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "169.254.0.0/16",
        "192.168.0.0/16",
        "fc00::/7",
        "11.0.0.9/32",
    ];
    Plan {
        relay: vec![LOCAL_V4, LOCAL_V6],
        tls: "web = true".to_owned(),
        relay_ports: (20_000, 20_007),
        ..Plan::on(&wildcards, &allow)
    }
}

/// Rows 1 to 4, for the logins of the test page.
#[test]
fn a_page_login_reaches_no_address_but_its_own() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&open_plan());
        for ip in OWN {
            let prefix = if ip.contains(':') { "128" } else { "32" };
            let mut words = vec![
                "addr".to_owned(),
                "add".to_owned(),
                format!("{ip}/{prefix}"),
                "dev".to_owned(),
                "lo".to_owned(),
            ];
            if ip.contains(':') {
                words.push("nodad".to_owned());
            }
            run_ok("ip", &words.iter().map(String::as_str).collect::<Vec<_>>(), PATIENCE);
        }
        let local = |transport| SocketAddr::new(LOCAL_V4, server.v4(transport).port());
        let page = session(local(Transport::Tls));
        let link = || Link::open(Transport::Udp, local(Transport::Udp));
        let [(v4, first), (v6, second)] = [false, true].map(|is_v6| allocated(link(), &page, is_v6));
        let (mut clients, own) = ([v4, v6], [first, second]);
        let alice = Session::new(server.credentials("alice"), b"");
        let mut alices = [false, true].map(|is_v6| allocated(link(), &alice, is_v6).0);

        // Services of the relay, and anything else, at every address of the machine and in every disguise.
        let mut ports: Vec<u16> =
            [Transport::Udp, Transport::Tcp, Transport::Tls].map(|kind| server.v4(kind).port()).into();
        ports.extend([server.v6(Transport::Udp).port(), server.admin().port(), 53, 20_000, 20_007]);
        let everywhere =
            ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1"];
        let mut peers: Vec<SocketAddr> = Vec::new();
        for ip in everywhere.iter().chain(&OWN) {
            peers.extend(ports.iter().map(|&port| at(ip, port)));
        }
        peers.extend(DENIED.iter().chain(&OPEN).map(|ip| at(ip, 80)));
        // The ports are chosen at random, and its own relayed addresses are what a login may reach.
        peers.retain(|peer| !own.contains(&SocketAddr::new(peer.ip().to_canonical(), peer.port())));
        let (mut faults, mut sent) = (Vec::new(), 0);
        for &peer in &peers {
            let client = &mut clients[usize::from(peer.is_ipv6())];
            let codes = (permit(client, peer), bind(client, CHANNEL, peer));
            // A permission covers all ports of an address (RFC 8656 section 9), and these two carry relayed addresses.
            let relaying = [LOCAL_V4, LOCAL_V6].contains(&peer.ip().to_canonical()) && codes == (0, 403);
            if codes != (403, 403) && !relaying {
                faults.push(format!("{peer}: {codes:?}"));
            }
            client.send_to(peer, &binding_request(77));
            client.send_on(CHANNEL, &binding_request(77));
            sent += 2;
        }
        println!("page logins: {} peers; wrongly answered: {faults:?}", peers.len());
        assert!(faults.is_empty(), "{faults:#?}");
        for client in &mut clients {
            assert_eq!(client.refresh(600), 0);
            assert!(!hears(client), "a listener answered through the relay");
        }
        let dropped = || -> u64 {
            ["peer_denied", "no_permission", "no_channel"].map(|reason| drops(&server, reason)).iter().sum()
        };
        let counted = until(PATIENCE, || dropped() >= sent);
        assert!(counted.is_some() && dropped() == sent, "{} of {sent} were dropped and counted", dropped());
        assert_eq!(metric(&server, "hallpass_channels", ""), 0);
        // The same peers are open to a user of the host, so the policy did not help.
        for ip in OPEN {
            let peer = at(ip, 80);
            assert_eq!(permit(&mut alices[usize::from(peer.is_ipv6())], peer), 0, "{ip}");
        }
    });
}

/// Two strangers with a login each, and a stranger with a user of the host.
#[test]
fn users_of_the_page_cannot_talk_to_each_other_or_to_others() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&open_plan());
        let local = |transport| SocketAddr::new(LOCAL_V4, server.v4(transport).port());
        let link = |transport| Link::open(transport, local(transport));
        let (one, two) = (session(local(Transport::Tls)), session(local(Transport::Tls)));
        let of_host = Session::new(server.credentials("alice"), b"");
        let mut all = [
            allocated(link(Transport::Udp), &one, false),
            allocated(link(Transport::Tls), &two, false),
            allocated(link(Transport::Tcp), &of_host, false),
            allocated(link(Transport::Tls), &one, false),
        ];
        let relayed = all.each_ref().map(|(_, relayed)| *relayed);
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1), (1, 3), (3, 1)] {
            let is_of_host = from == 2;
            let client = &mut all[from].0;
            assert_eq!(
                permit(client, relayed[to]),
                0,
                "the address carries the login's own relayed address, too"
            );
            let bound = bind(client, CHANNEL + to as u16, relayed[to]);
            assert_eq!(bound, if is_of_host { 0 } else { 403 }, "{from} to {to}");
            for _ in 0..50 {
                client.send_to(relayed[to], b"psst");
                client.send_on(CHANNEL + to as u16, b"psst");
            }
            assert_eq!(client.refresh(600), 0, "the server has handled what was sent before");
            let (receiver, _) = &mut all[to];
            assert!(!hears(receiver), "{from} reached {to}");
        }
        // The two of one login do reach each other.
        for (from, to) in [(0, 3), (3, 0)] {
            let client = &mut all[from].0;
            assert_eq!(permit(client, relayed[to]), 0);
            assert_eq!(bind(client, CHANNEL + 9, relayed[to]), 0);
        }
        all[0].0.send_on(CHANNEL + 9, b"hello");
        let heard = all[3].0.receive().expect("the packet of the same login");
        assert_eq!(&heard[4..9], b"hello", "{heard:02x?}");
    });
}

/// A channel outlives the address that it leads to: what gets that port afterwards hears nothing.
#[test]
fn a_channel_of_a_page_login_leads_nowhere_once_its_peer_has_ended() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&open_plan());
        let local = |transport| SocketAddr::new(LOCAL_V4, server.v4(transport).port());
        let link = || Link::open(Transport::Udp, local(Transport::Udp));
        let page = session(local(Transport::Tls));
        let (mut here, own) = allocated(link(), &page, false);
        let (mut there, target) = allocated(link(), &page, false);
        assert_eq!((permit(&mut here, target), bind(&mut here, CHANNEL, target)), (0, 0));
        assert_eq!(bind(&mut there, CHANNEL, own), 0);
        let alice = Session::new(server.credentials("alice"), b"");
        let mut friend = allocated(link(), &alice, false).0;
        here.send_on(CHANNEL, b"before");
        assert!(there.receive().expect("a packet").ends_with(b"before"));
        assert_eq!(there.refresh(0), 0);

        let tell = |here: &mut Client| {
            for _ in 0..50 {
                here.send_on(CHANNEL, b"after");
                here.send_to(target, b"after");
            }
            // The channel may go on, but it leads nowhere.
            here.ask(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &xor_value_in(target, here.next_id()))]);
        };
        // Another program of the machine.
        let program = UdpSocket::bind(target).expect("the port is free again");
        program.set_read_timeout(Some(SILENCE)).unwrap();
        tell(&mut here);
        assert!(program.recv(&mut [0; 64]).is_err(), "another program was reached");
        drop(program);
        // A user of the host, who permits everybody. There are eight ports, so one of the next has that one.
        let mut others = Vec::new();
        while !others.iter().any(|(_, relayed)| *relayed == target) {
            let (mut client, relayed) = allocated(link(), &alice, false);
            assert_eq!(permit(&mut client, own), 0);
            others.push((client, relayed));
        }
        tell(&mut here);
        let (heir, _) = others.last_mut().expect("one has the port");
        assert!(!hears(heir), "a user of the host was reached");
        heir.send_to(own, b"back");
        assert_eq!(heir.refresh(600), 0);
        assert!(!hears(&mut here), "a user of the host reached the page");
        // The heir does hear others.
        assert_eq!(permit(&mut friend, target), 0);
        friend.send_to(target, b"hello");
        assert!(hears(heir), "not even a user of the host is heard");
        assert!(drops(&server, "peer_denied") >= 100);
    });
}

/// What a login may take, and all logins together.
#[test]
fn page_logins_have_limits_of_their_own() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    many_descriptors(3 * ALL_ALLOCATIONS as u64);
    let limits = "unauthenticated_per_source = 0".to_owned();
    let server = Server::start(&Plan {
        limits,
        tls: "web = true".to_owned(),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    let link = || Link::open(Transport::Udp, server.v4(Transport::Udp));
    let (mut held, mut codes) = (Vec::new(), Vec::new());
    for _ in 0..=ALL_ALLOCATIONS / ALLOCATIONS {
        let session = session(server.v4(Transport::Tls));
        for number in 0..=ALLOCATIONS {
            let mut client = Client::join(link(), &session);
            match client.allocate() {
                Ok(_) => held.push(client),
                Err(code) => {
                    codes.push((number, code));
                    break;
                }
            }
        }
    }
    println!("page logins: {} allocations; refused {codes:?}", held.len());
    assert_eq!(held.len(), ALL_ALLOCATIONS);
    let [full @ .., last, beyond] = &codes[..] else { panic!("{codes:?}") };
    assert!(full.iter().all(|code| *code == (ALLOCATIONS, 486)), "{codes:?}");
    assert_eq!((*last, *beyond), ((ALLOCATIONS, 508), (0, 508)), "all logins together");
    let mut alice = Client::log_in(link(), server.credentials("alice"));
    alice.allocate().expect("users of the host are not affected");
    drop(held);
}

/// Four pairs of one login, each with twice the share of the login that it could have.
#[test]
fn a_page_login_relays_at_its_own_rate() {
    const PAIRS: usize = 4;
    const SIZE: usize = 1200;
    const TIME: Duration = Duration::from_secs(2);
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    let server =
        Server::start(&Plan { tls: "web = true".to_owned(), ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let page = session(server.v4(Transport::Tls));
    let link = || Link::open(Transport::Udp, server.v4(Transport::Udp));
    let pairs = [(); PAIRS].map(|()| {
        let ((mut from, own), (mut to, target)) =
            (allocated(link(), &page, false), allocated(link(), &page, false));
        assert_eq!((bind(&mut from, CHANNEL, target), bind(&mut to, CHANNEL, own)), (0, 0));
        (from, to)
    });
    let start = Instant::now();
    let bytes: usize = thread::scope(|scope| {
        let each = pairs.map(|(mut from, mut to)| {
            let sender = scope.spawn(move || {
                let pause = Duration::from_secs_f64(SIZE as f64 * 8.0 / (MBIT * 1e6 / 2.0));
                let mut sent = 0;
                while start.elapsed() < TIME {
                    let _ = from.link.send(&channel_data(CHANNEL, &[0; SIZE]));
                    sent += 1;
                    thread::park_timeout((pause * sent).saturating_sub(start.elapsed()));
                }
                sent as usize * SIZE
            });
            let receiver = scope.spawn(move || {
                let mut received = 0;
                to.link.wait_at_most(Duration::from_millis(500));
                while let Ok(bytes) = to.receive() {
                    received += bytes.len();
                }
                received
            });
            (sender, receiver)
        });
        let mut all = [0, 0];
        for (sender, receiver) in each {
            all[0] += sender.join().unwrap();
            all[1] += receiver.join().unwrap();
        }
        println!("page logins: sent {} and relayed {} Mbit/s", mbit(all[0], TIME), mbit(all[1], TIME));
        assert!(mbit(all[0], TIME) > 1.5 * MBIT, "too little was sent to tell anything");
        all[1]
    });
    let passed = mbit(bytes, TIME);
    // A packet counts when it leaves and when it arrives, as both ends belong to the login: half of the rate passes, and a burst.
    assert!((0.3 * MBIT..0.75 * MBIT).contains(&passed), "{passed} Mbit/s");
    let over = drops(&server, "user_over_rate") + drops(&server, "allocation_over_rate");
    assert!(over > 0, "nothing was dropped for the rate");
}

fn mbit(bytes: usize, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()
}

/// Allocations end with the login, and so does the login.
#[test]
fn a_page_login_ends_after_two_minutes() {
    let _turn = beside_others();
    if skip_on_coturn("the test page") {
        return;
    }
    let clock = WallClock::new();
    let server = Server::start(&Plan {
        wrapper: clock.wrapper(),
        tls: "web = true".to_owned(),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    // The relay notes the end of a login at its first use, so that no jump of the clock changes it: two logins.
    let (first, second) = (login(server.v4(Transport::Tls)), login(server.v4(Transport::Tls)));
    let end =
        |login: &Credentials| login.username.split(':').next().and_then(|time| time.parse::<u64>().ok());
    let join = |transport, login: &Credentials| {
        Client::log_in(Link::open(transport, server.v4(transport)), login.clone())
    };
    let lifetime = |client: &mut Client| {
        let asked = 3600_u32.to_be_bytes();
        let answer = client.ask(ALLOCATE, &[(LIFETIME, &asked), (REQUESTED_TRANSPORT, &UDP)]);
        let value = answer.attribute(LIFETIME).unwrap_or_else(|| panic!("{answer:?}"));
        u32::from_be_bytes(value.try_into().expect("four bytes"))
    };
    let mut early = join(Transport::Udp, &first);
    let whole = lifetime(&mut early);
    assert!((100..=120).contains(&whole), "{whole}");
    assert_eq!(early.refresh(0), 0);
    // Eight seconds are left.
    clock.jump("+112");
    let jumped =
        until(PATIENCE, || end(&login(server.v4(Transport::Tls))) >= end(&first).map(|end| end + 100));
    assert!(jumped.is_some(), "the clock stays");
    let mut late = join(Transport::Tls, &second);
    let rest = lifetime(&mut late);
    assert!((1..=8).contains(&rest), "{rest}");
    let ended = until(Duration::from_secs(20), || metric(&server, "hallpass_allocations", "") == 0);
    println!("page logins: lifetimes {whole} and {rest} s; ended after {ended:?}");
    assert!(ended.is_some_and(|after| after < Duration::from_secs(10)), "the allocation outlives the login");
    clock.jump("+130");
    let mut newcomer = join(Transport::Udp, &second);
    let expired = until(Duration::from_secs(5), || newcomer.allocate().err() == Some(401));
    assert!(expired.is_some(), "an expired login is accepted");
}
