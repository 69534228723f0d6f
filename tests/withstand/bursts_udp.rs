//! Many datagrams over UDP at the same moment, all within the limits of a user or of a few sources. The media of others waits
//! behind them in the queue of the listener.

use crate::bursts::every;
use crate::floods::{joined, local, plan, signed, socket};
use crate::machine::{drops, many_descriptors};
use crate::support::alone;
use crate::support::client::{Client, udp_from};
use crate::support::codec::UDP;
use crate::support::credentials::named;
use crate::support::plan::{Plan, REALM, SECRET, Transport};
use crate::support::server::Server;
use crate::support::stun::{
    ALLOCATE, LIFETIME, NONCE, REALM_ATTRIBUTE, REFRESH, REQUESTED_TRANSPORT, Session, USERNAME,
    binding_request,
};
use crate::tiny::{beside, sink};
use hallpass::net::syscall::{Datagram, SendBatch};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const EVERY: Duration = Duration::from_secs(1);
/// Allocations that one user makes and ends at once: as many as it may make requests for in a second.
const ALLOCATIONS: usize = 490;
/// Channels of one allocation that its datagrams use in turn, so that no route is cached.
const CHANNELS: u16 = 60;

/// Returns the address of a source: a hundred clients have one.
fn source(client: usize) -> IpAddr {
    local((client / 100) as u8)
}

/// Sends each of these messages of one length, as fast as the kernel takes them. Returns how many it took.
pub fn send_all<'a>(socket: &UdpSocket, to: SocketAddr, messages: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut batch = SendBatch::new(true);
    let mut datagrams = messages.map(|payload| Datagram { head: &[], payload, to, source: None });
    // A full buffer counts as a lost datagram.
    batch.send(socket.as_fd(), false, &mut datagrams, &mut |_| {}) as u64
}

/// As many datagrams as an allocation may relay in a second.
#[test]
fn a_burst_of_channel_data_of_one_user_disturbs_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let session = Session::new(server.credentials("pupil"), b"");
    let mut client = joined(&server, source(0), &session);
    client.allocate().expect("an allocation");
    let sinks: Vec<_> = (0..CHANNELS).map(|_| sink()).collect();
    let messages: Vec<Vec<u8>> = (0x4000..)
        .zip(&sinks)
        .map(|(number, &(_, peer))| {
            assert_eq!(client.bind(number, peer), 0, "a channel");
            [&number.to_be_bytes()[..], &[0, 1, 7, 0, 0, 0]].concat()
        })
        .collect();
    beside("20,000 ChannelData of one user at once over UDP", &server, |stop| {
        every(EVERY, stop, || {
            let burst = messages.iter().cycle().take(20_000).map(|message| &message[..]);
            send_all(&socket(&client), server.v4(Transport::Udp), burst)
        })
    });
    assert!(drops(&server, "backlog") > 10_000);
}

/// Returns a function that sends a thousand ChannelData of this client, with these channels in turn.
fn burst(client: &Client, channels: &[u16]) -> impl Fn(&Server) -> u64 + use<> {
    let messages: Vec<Vec<u8>> =
        channels.iter().map(|number| [&number.to_be_bytes()[..], &[0, 1, 7, 0, 0, 0]].concat()).collect();
    let from = socket(client);
    move |server| {
        let burst = messages.iter().cycle().take(1000).map(|message| &message[..]);
        send_all(&from, server.v4(Transport::Udp), burst)
    }
}

/// What a user has used up stays used up when its last allocation ends.
#[test]
fn allocations_made_again_and_again_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let session = Session::new(server.credentials("pupil"), b"");
    let mut client = joined(&server, source(0), &session);
    let (_sink, peer) = sink();
    let burst = burst(&client, &[0x4000]);
    beside("18 allocations of one user in turn, 1,000 ChannelData on each at once", &server, |stop| {
        every(EVERY, stop, || {
            let mut sent = 0;
            for _ in 0..18 {
                let allocate = client.request(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]).1;
                let bind = client.bind_request(0x4000, peer);
                let end = client.request(REFRESH, &[(LIFETIME, &[0; 4])]).1;
                for request in [allocate, bind] {
                    let _ = client.link.send(&request);
                }
                sent += 3 + burst(&server);
                let _ = client.link.send(&end);
            }
            sent
        })
    });
    assert!(drops(&server, "backlog") > 10_000);
}

/// Returns clients with an allocation and a channel to a peer, the sessions in turn.
fn clients(server: &Server, sessions: &[Session], count: usize, peer: SocketAddr) -> Vec<Client> {
    let one = |session: &Session| {
        let mut client = joined(server, source(0), session);
        client.allocate().expect("an allocation");
        assert_eq!(client.bind(0x4000, peer), 0, "a channel");
        client
    };
    sessions.iter().cycle().take(count).map(one).collect()
}

/// Sends a thousand ChannelData on each of `count` allocations that belong to these sessions in turn.
fn bursts_disturb_no_call(what: &str, server: &Server, sessions: &[Session], count: usize) {
    let (_sink, peer) = sink();
    let clients = clients(server, sessions, count, peer);
    let bursts: Vec<_> = clients.iter().map(|client| burst(client, &[0x4000])).collect();
    beside(what, server, |stop| every(EVERY, stop, || bursts.iter().map(|burst| burst(server)).sum()));
    assert!(drops(server, "backlog") > 10_000);
}

/// A name without a user part may belong to many people. Its datagrams wait in the same queue.
#[test]
fn bursts_of_a_name_without_a_user_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let sessions = [Session::new(named(SECRET, "1999999999"), b"")];
    let what = "1,000 ChannelData on each of 18 allocations of a name without a user";
    bursts_disturb_no_call(what, &server, &sessions, 18);
}

/// Somebody may get many names: one for each lesson that is joined.
#[test]
fn bursts_of_ten_users_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let sessions: Vec<Session> =
        (0..10).map(|user| Session::new(server.credentials(&format!("pupil{user}")), b"")).collect();
    let what = "1,000 ChannelData on each of 20 allocations of ten users";
    bursts_disturb_no_call(what, &server, &sessions, 20);
}

/// One user that sends all it may does not take the frames of others.
#[test]
fn a_user_that_sends_much_leaves_frames_of_others_whole() {
    const FRAME: usize = 150;
    let _turn = alone();
    let server = Server::start(&plan(""));
    let (_sink, unread) = sink();
    let flooders = clients(&server, &[Session::new(server.credentials("flooder"), b"")], 6, unread);
    let bursts: Vec<_> = flooders.iter().map(|client| burst(client, &[0x4000])).collect();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&peer).set_recv_buffer_size(4 << 20).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let session = Session::new(server.credentials("camera"), b"");
    let camera = clients(&server, &[session], 1, peer.local_addr().unwrap()).remove(0);
    let packet = [&[0x40, 0, 0x04, 0x4c][..], &[7; 1100]].concat();
    let (mut whole, mut frames, stop) = (0, 0, AtomicBool::new(false));
    every(Duration::from_millis(100), &stop, || {
        let flooded: u64 = bursts.iter().map(|burst| burst(&server)).sum();
        send_all(&socket(&camera), server.v4(Transport::Udp), (0..FRAME).map(|_| &packet[..]));
        whole += usize::from((0..FRAME).all(|_| peer.recv(&mut [0; 1500]).is_ok()));
        frames += 1;
        stop.store(frames == 30, Ordering::Relaxed);
        flooded
    });
    println!(
        "{whole} of 30 frames of {FRAME} packets arrived whole, each behind 6,000 tiny datagrams of another user"
    );
    assert!(drops(&server, "backlog") > 10_000);
    assert_eq!(whole, 30);
}

/// A cycle of requests: each client allocates, and then each ends its allocation.
fn cycle(clients: &mut [Client]) -> [Vec<Vec<u8>>; 2] {
    let allocate = |client: &mut Client| client.request(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]).1;
    let end = |client: &mut Client| client.request(REFRESH, &[(LIFETIME, &[0; 4])]).1;
    [clients.iter_mut().map(allocate).collect(), clients.iter_mut().map(end).collect()]
}

fn send_cycle(clients: &mut [Client]) -> u64 {
    for requests in cycle(clients) {
        for (client, request) in clients.iter_mut().zip(requests) {
            // An error is an ICMP error of an earlier datagram.
            let _ = client.link.send(&request);
        }
    }
    2 * clients.len() as u64
}

#[test]
fn bursts_of_requests_of_three_users_disturb_no_call() {
    let _turn = alone();
    many_descriptors(8 * ALLOCATIONS as u64);
    let server = Server::start(&plan(""));
    let sessions = [0, 1, 2].map(|user| Session::new(server.credentials(&format!("pupil{user}")), b""));
    let mut clients: Vec<Client> =
        (0..3 * ALLOCATIONS).map(|number| joined(&server, source(number), &sessions[number % 3])).collect();
    beside("980 requests each of three users at once", &server, |stop| {
        every(EVERY, stop, || send_cycle(&mut clients))
    });
}

/// As many Bindings as the limit permits for these sources.
#[test]
fn bursts_of_bindings_of_strangers_disturb_no_call() {
    let _turn = alone();
    let server = Server::start(&plan(""));
    let to = server.v4(Transport::Udp);
    let sockets: Vec<UdpSocket> = (0..10).map(|last| udp_from(local(last), to)).collect();
    let binding = binding_request(1);
    beside("1,000 Bindings each of ten strangers at once", &server, |stop| {
        every(EVERY, stop, || {
            sockets.iter().map(|socket| send_all(socket, to, [&binding[..]; 1000].into_iter())).sum()
        })
    });
}

/// Guesses, for each of which the server tries the secrets of a hundred hosts.
#[test]
fn bursts_of_guesses_disturb_no_call() {
    let _turn = alone();
    many_descriptors(2_000);
    let host = |n: usize| format!("\n[[host]]\nname = \"host{n}\"\nsecret = \"secret {n} of the tests\"\n");
    let server = Server::start(&Plan { tables: (1..100).map(host).collect(), ..plan("") });
    let session = Session::new(server.credentials("stranger"), b"");
    let mut clients: Vec<Client> =
        (0..1000).map(|number| joined(&server, source(number), &session)).collect();
    let mut guessed = 0_u64;
    beside("1,000 guesses of ten strangers at once, 100 hosts", &server, |stop| {
        every(EVERY, stop, || {
            for client in &mut clients {
                guessed += 1;
                let name = format!("{}:guess", 2_000_000_000 + guessed);
                let attributes: [(u16, &[u8]); 4] = [
                    (REQUESTED_TRANSPORT, &UDP),
                    (USERNAME, name.as_bytes()),
                    (REALM_ATTRIBUTE, REALM.as_bytes()),
                    (NONCE, client.session.nonce()),
                ];
                let guess = signed(ALLOCATE, guessed, &attributes, b"no key");
                let _ = client.link.send(&guess);
            }
            clients.len() as u64
        })
    });
}

/// Refreshes to ever earlier ends of the lifetime, before allocations end.
#[test]
fn ever_shorter_lifetimes_disturb_no_call() {
    const LOWERED: u32 = 2_900;
    const AT_ONCE: u32 = 50;
    let _turn = alone();
    many_descriptors(2_000);
    let server = Server::start(&plan("requests_per_user = 0"));
    let session = Session::new(server.credentials("pupil"), b"");
    let mut lowered: Vec<Client> = (0..16).map(|_| joined(&server, source(0), &session)).collect();
    for client in &mut lowered {
        let attributes: [(u16, &[u8]); 2] =
            [(REQUESTED_TRANSPORT, &UDP), (LIFETIME, &3_600_u32.to_be_bytes())];
        let allocate = client.request(ALLOCATE, &attributes).1;
        client.link.send(&allocate).expect("sent");
        assert_eq!(client.receive().expect("an answer")[..2], [0x01, 0x03], "a success");
        for from in (0..LOWERED).step_by(AT_ONCE as usize) {
            for lower in from + 1..=from + AT_ONCE {
                let request = client.request(REFRESH, &[(LIFETIME, &(3_600 - lower).to_be_bytes())]).1;
                client.link.send(&request).expect("sent");
            }
            (0..AT_ONCE).for_each(|_| drop(client.receive().expect("an answer")));
        }
    }
    let mut clients: Vec<Client> = (0..200).map(|number| joined(&server, source(number), &session)).collect();
    beside("200 ends of allocations at once after 46,400 shorter lifetimes", &server, |stop| {
        every(EVERY, stop, || send_cycle(&mut clients))
    });
}
