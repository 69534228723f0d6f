//! Clients without credentials: their cost, the answers they can provoke, and what they cannot take from others.

use crate::machine::{lasting_descriptors, many_descriptors, memory, metric};
use crate::support::client::{Client, Link, udp_from};
use crate::support::credentials::named;
use crate::support::plan::{Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    ALLOCATE, BINDING_INDICATION, BINDING_REQUEST, BINDING_SUCCESS, CHANNEL_BIND, CREATE_PERMISSION, DATA,
    ERROR_CODE, FINGERPRINT, MAGIC, MESSAGE_INTEGRITY, Message, NONCE, REALM_ATTRIBUTE, REFRESH,
    REQUESTED_TRANSPORT, SEND_INDICATION, SOFTWARE, Session, USERNAME, XOR_PEER_ADDRESS, allocate_request,
    binding_request, message, xor_value,
};
use crate::support::{alone, beside_others};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const STRANGERS: u32 = 8000;
/// IPv4 and UDP headers of a datagram.
const HEADERS: f64 = 28.0;

fn local(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, last).into()
}

fn ask(socket: &UdpSocket, request: &[u8]) -> Option<Message> {
    let mut answer = [0; 2048];
    socket.send(request).unwrap();
    socket.recv(&mut answer).ok().map(|len| Message::parse(&answer[..len]))
}

/// Row 6.
#[test]
fn eight_thousand_strangers_leave_no_state() {
    let _turn = alone();
    many_descriptors(u64::from(STRANGERS) + 500);
    let server = Server::start(&Plan::loopback());
    let (memory_before, descriptors_before) = (memory(server.pid()), lasting_descriptors(server.pid()));
    let start = Instant::now();
    let strangers: Vec<UdpSocket> = (0..STRANGERS)
        .map(|number| {
            // Forty from each address, below the limit per source.
            let socket = udp_from(local((number / 40) as u8 + 1), server.v4(Transport::Udp));
            let refused = ask(&socket, &allocate_request(number.into())).expect("an answer");
            assert_eq!(refused.error_code(), Some(401), "{refused:?}");
            socket
        })
        .collect();
    let (grown, kept) = (
        memory(server.pid()).saturating_sub(memory_before),
        lasting_descriptors(server.pid()) as i64 - descriptors_before as i64,
    );
    println!(
        "row 6: {} strangers in {:.1} s: +{grown} KiB, {kept:+} descriptors",
        strangers.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(grown <= 8 * 1024, "{grown} KiB");
    assert!(kept <= 0, "{kept} descriptors");
}

/// Datagrams of a stranger: a name, the bytes, and whether an answer is required.
fn datagrams(server: SocketAddr) -> Vec<(&'static str, Vec<u8>, bool)> {
    let peer = xor_value(server);
    let long_nonce = [b'n'; 64];
    let credentials: [(u16, &[u8]); 4] = [
        (USERNAME, b"4000000000:x"),
        (REALM_ATTRIBUTE, b"relay.test"),
        (NONCE, &long_nonce),
        (MESSAGE_INTEGRITY, &[7; 20]),
    ];
    let mut no_cookie = binding_request(1);
    no_cookie[4] ^= 0xFF;
    let mut wrong_length = binding_request(1);
    wrong_length[3] = 4;
    let garbage: Vec<u8> = (0..200_u32).map(|byte| (byte * 167 + 13) as u8 | 0x80).collect();
    vec![
        ("Allocate without attributes", message(ALLOCATE, 1, &[]), true),
        ("Allocate", allocate_request(1), true),
        ("Allocate with a forged login", message(ALLOCATE, 1, &credentials), true),
        ("Allocate with an unknown attribute", message(ALLOCATE, 1, &[(0x7FFF, b"what")]), true),
        ("Refresh", message(REFRESH, 1, &[]), true),
        ("CreatePermission", message(CREATE_PERMISSION, 1, &[(XOR_PEER_ADDRESS, &peer)]), true),
        ("ChannelBind", message(CHANNEL_BIND, 1, &[]), true),
        ("Binding", binding_request(1), true),
        ("Binding with an unknown attribute", message(BINDING_REQUEST, 1, &[(0x7FFF, b"what")]), true),
        ("an unknown method", message(0x000F, 1, &[]), false),
        ("Connect of RFC 6062", message(0x000A, 1, &[]), false),
        ("a wrong fingerprint", message(ALLOCATE, 1, &[(FINGERPRINT, &[1, 2, 3, 4])]), false),
        ("an indication", message(BINDING_INDICATION, 1, &[]), false),
        ("an Allocate indication", message(0x0013, 1, &[]), false),
        ("a success response", message(BINDING_SUCCESS, 1, &[]), false),
        ("an error response", message(0x0113, 1, &[(ERROR_CODE, &[0, 0, 4, 1])]), false),
        ("Send", message(SEND_INDICATION, 1, &[(XOR_PEER_ADDRESS, &peer), (DATA, b"x")]), false),
        ("ChannelData", vec![0x40, 0, 0, 4, 1, 2, 3, 4], false),
        ("ChannelData cut off", vec![0x40, 0, 4, 0, 1], false),
        ("a wrong length field", wrong_length, false),
        ("another cookie", no_cookie, false),
        ("garbage", garbage, false),
        ("zeros", vec![0; 20], false),
        ("a header cut off", binding_request(1)[..19].to_vec(), false),
        ("nothing", vec![], false),
    ]
}

/// Row 7.
#[test]
fn a_datagram_gets_at_most_one_small_answer() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let address = server.v4(Transport::Udp);
    let (mut worst, mut worst_with_headers, mut faults) = (0.0_f64, 0.0_f64, Vec::new());
    for (what, request, due) in datagrams(address) {
        let socket = udp_from(local(1), address);
        socket.send(&request).unwrap();
        // The answer to the second datagram marks the end of those to the first.
        socket.send(&binding_request(99)).unwrap();
        let mut drawn: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut answer = [0; 4096];
            let len = socket.recv(&mut answer).unwrap_or_else(|error| panic!("after {what}: {error}"));
            drawn.push(answer[..len].to_vec());
            // The transaction id follows the magic cookie, which not every answer has.
            if answer[12..20] == 99_u64.to_be_bytes() {
                drawn.pop();
                break;
            }
        }
        if drawn.len() != usize::from(due) {
            faults.push(format!("{what}: {} answers", drawn.len()));
        }
        for answer in drawn {
            let (asked, answered) = (request.len() as f64, answer.len() as f64);
            let (bare, whole) = (answered / asked, (answered + HEADERS) / (asked + HEADERS));
            worst = worst.max(bare);
            worst_with_headers = worst_with_headers.max(whole);
            if bare > 5.0 || whole > 2.5 {
                faults.push(format!("{what}: {answered} bytes for {asked}"));
            }
            if answer[4..8] != MAGIC {
                continue;
            }
            let answer = Message::parse(&answer);
            let reason = answer.attribute(ERROR_CODE).filter(|value| value.len() > 4);
            if answer.error_code().is_some() && (answer.attribute(SOFTWARE).is_some() || reason.is_some()) {
                faults.push(format!("{what}: the error has SOFTWARE or a reason"));
            }
        }
    }
    println!("row 7: at most x{worst:.2} of the payload, x{worst_with_headers:.2} with headers; {faults:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Row 8. From many ports, so that each worker receives a share of the flood.
#[test]
fn a_flooding_source_is_rate_limited_without_delaying_others() {
    let _turn = alone();
    let server = Server::start(&Plan { limits: "workers = 4".to_owned(), ..Plan::loopback() });
    let address = server.v4(Transport::Udp);
    let stop = AtomicBool::new(false);
    let flood = || {
        let sockets: Vec<UdpSocket> = (0..32).map(|_| udp_from(local(9), address)).collect();
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let (start, mut sent, mut answered) = (Instant::now(), 0_u64, 0_u64);
        while !stop.load(Ordering::Relaxed) {
            for socket in &sockets {
                sent += u64::from(socket.send(&allocate_request(sent)).is_ok());
                answered += u64::from(socket.recv(&mut [0; 2048]).is_ok());
            }
        }
        (start.elapsed().as_secs_f64(), sent, answered)
    };
    let longest = |source: u8, tries: u32| {
        let waits = (0..tries).map(|number| {
            let socket = udp_from(local(source), address);
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let start = Instant::now();
            while ask(&socket, &allocate_request(number.into())).is_none() {
                assert!(start.elapsed() < Duration::from_secs(5), "127.0.1.{source} is not answered");
            }
            start.elapsed()
        });
        waits.max().expect("one try at least")
    };
    let (seconds, sent, answered, others) = thread::scope(|scope| {
        let flooder = scope.spawn(flood);
        let start = Instant::now();
        let mut others = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(4) {
            others = others.max(longest(10, 1));
        }
        stop.store(true, Ordering::Relaxed);
        let (seconds, sent, answered) = flooder.join().unwrap();
        (seconds, sent, answered, others)
    });
    let recovered = longest(9, 1);
    // A burst of one second's worth is allowed.
    let rate = answered as f64 / (seconds + 1.0);
    println!(
        "row 8: {:.0}/s asked, {rate:.0}/s answered; another source waited {others:?} at most, the same \
         one {recovered:?} afterwards",
        sent as f64 / seconds
    );
    assert!((200.0..=600.0).contains(&rate), "{rate} answers a second to one source");
    assert!(others < Duration::from_millis(500), "another source waited {others:?}");
    assert!(recovered < Duration::from_secs(2), "the source waited {recovered:?} after its flood");
}

/// Row 8, for sources that an earlier, unkeyed hash put into one bucket with every seed: addresses equal modulo 2^19.
#[test]
fn a_source_cannot_choose_to_share_the_limit_of_another() {
    let _turn = alone();
    let server = Server::start(&Plan { limits: "workers = 1".to_owned(), ..Plan::loopback() });
    let address = server.v4(Transport::Udp);
    let flooder = udp_from(local(9), address);
    flooder.set_nonblocking(true).unwrap();
    let flood = |count: u64| (0..count).filter(|&id| flooder.send(&allocate_request(id)).is_ok()).count();
    let victims = [8, 16, 24, 32].map(|second| udp_from(Ipv4Addr::new(127, second, 1, 9).into(), address));
    flood(2000);
    let (mut answered, mut asked) = (0, 0);
    for id in 0..20 {
        for victim in &victims {
            flood(50);
            victim.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            answered += u32::from(ask(victim, &allocate_request(id)).is_some());
            asked += 1;
        }
    }
    println!(
        "row 8: {answered} of {asked} answers to sources that share a bucket with a flood by an unkeyed hash"
    );
    assert_eq!(answered, asked);
}

/// Row 9.
#[test]
fn a_nonce_of_another_client_is_stale_and_leaves_no_state() {
    let _turn = alone();
    let plan = Plan { limits: "unauthenticated_per_source = 0".to_owned(), ..Plan::loopback() };
    let earlier = {
        let server = Server::start(&plan);
        let session = Session::new(server.credentials("earlier"), b"");
        Client::join(Link::Udp(udp_from(local(1), server.v4(Transport::Udp))), &session).session
    };
    let server = Server::start(&plan);
    let address = server.v4(Transport::Udp);
    let session = Session::new(server.credentials("thief"), b"");
    let victim = Client::join(Link::Udp(udp_from(local(2), address)), &session).session;
    let (before, open) = (memory(server.pid()), lasting_descriptors(server.pid()));
    let mut altered = victim.nonce().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let nonces: [(&str, Vec<u8>); 5] = [
        ("of another address", victim.nonce().to_vec()),
        ("of an earlier process", earlier.nonce().to_vec()),
        ("altered", altered),
        ("invented", vec![b'A'; victim.nonce().len()]),
        ("empty", vec![]),
    ];
    let mut refused = 0;
    for (what, nonce) in &nonces {
        let socket = udp_from(local(3), address);
        // The client's own nonce first, so that a server with a nonce per socket has one to compare with.
        let mut client = Client::join(Link::Udp(socket), &session);
        client.session = session.renewed(nonce);
        for _ in 0..400 {
            let answer = client.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &crate::support::codec::UDP)]);
            assert_eq!(answer.error_code(), Some(438), "a nonce {what}: {answer:?}");
            assert!(answer.attribute(NONCE).is_some_and(|new| new != nonce), "a nonce {what}: {answer:?}");
            refused += 1;
        }
        let answer = client.ask(ALLOCATE, &[]);
        client.session = session.renewed(answer.attribute(NONCE).expect("a nonce"));
        assert!(client.allocate().is_ok(), "the nonce of a 438 is not valid");
        assert_eq!(client.refresh(0), 0);
    }
    let (grown, kept) =
        (memory(server.pid()).saturating_sub(before), lasting_descriptors(server.pid()) - open);
    println!("row 9: {refused} foreign nonces, all 438: +{grown} KiB, {kept:+} descriptors");
    assert!(grown <= 1024, "{grown} KiB");
    assert_eq!(kept, 0);
}

/// Row 10.
#[test]
fn only_names_with_a_decimal_expiry_in_the_future_are_valid() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let far = "2000000000";
    let names = [
        (format!("{far}:x"), 0),
        (format!("{far}:a:b"), 0),
        (format!("+{far}:x"), 401),
        (format!("-{far}:x"), 401),
        (format!(" {far}:x"), 401),
        (format!("{far} :x"), 401),
        (format!("\t{far}:x"), 401),
        ("0x77359400:x".to_owned(), 401),
        ("2e9:x".to_owned(), 401),
        ("2000000000.5:x".to_owned(), 401),
        ("2_000_000_000:x".to_owned(), 401),
        ("18446744073709551616:x".to_owned(), 401),
        ("99999999999999999999999999:x".to_owned(), 401),
        ("\u{ff12}000000000:x".to_owned(), 401),
        (format!("x:{far}"), 401),
        (":x".to_owned(), 401),
        ("0:x".to_owned(), 401),
        ("1:x".to_owned(), 401),
        ("1500000000:x".to_owned(), 401),
    ];
    let mut faults = Vec::new();
    for (name, expected) in &names {
        let session = Session::new(named(SECRET, name), b"");
        let mut client = Client::join(Link::open(Transport::Udp, server.v4(Transport::Udp)), &session);
        let code = client.allocate().err().unwrap_or(0);
        // Some servers refuse an invalid name as a bad request.
        if code != *expected && (code, *expected) != (400, 401) {
            faults.push(format!("{name:?}: {code} instead of {expected}"));
        }
    }
    println!("row 10: {} names, wrongly accepted or refused: {faults:?}", names.len());
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Row 10, under attack: every guess has a new name, so anything remembered per name would grow.
#[test]
fn twenty_thousand_guesses_cost_no_memory() {
    let _turn = alone();
    let server =
        Server::start(&Plan { limits: "unauthenticated_per_source = 0".to_owned(), ..Plan::loopback() });
    let session = Session::new(server.credentials("guesser"), b"");
    let address = server.v4(Transport::Udp);
    let guess = |number: u32| {
        let mut client =
            Client::join(Link::Udp(udp_from(local((number % 200) as u8 + 1), address)), &session);
        client.session = client.session.guess(&format!("{}:guess", 2_000_000_000 + number));
        let refused = client.allocate();
        // A server that remembers the last owner of a port answers 437.
        assert!(matches!(refused, Err(401 | 437)), "guess {number}: {refused:?}");
    };
    (0..100).for_each(guess);
    let (before, start) = (memory(server.pid()), Instant::now());
    (100..20_100).for_each(guess);
    let grown = memory(server.pid()).saturating_sub(before);
    println!("row 10: 20000 guesses in {:.1} s: +{grown} KiB", start.elapsed().as_secs_f64());
    assert!(grown <= 1024, "{grown} KiB");
    if skip_on_coturn("counters") {
        return;
    }
    assert_eq!(metric(&server, "hallpass_allocations_total", ""), 0);
}
