//! Unreachable peers and networks: the kernel's errors are counted, and relaying continues.

use crate::call::Call;
use crate::machine::{cpu, drops, in_own_network, metric, until};
use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::http::get;
use crate::support::plan::{LOCAL_V4, Plan, Transport, free_port};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::Session;
use crate::support::tool::run_ok;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
/// Packets sent to an unreachable peer.
const PACKETS: u64 = 500;
/// Bytes in each packet: enough for a socket buffer to fill up even if the packets are sent segmented.
const LEN: usize = 1200;
const NET: &str = "198.18.5.0/24";

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    run_ok(words[0], &words[1..], LIMIT);
}

fn client(server: &Server) -> Client {
    let link = Link::open(Transport::Tcp, server.v4(Transport::Tcp));
    let mut client = Client::join(link, &Session::new(server.credentials("lost"), b""));
    client.allocate().expect("an allocation");
    client
}

fn send_there(client: &mut Client, peer: SocketAddr) {
    for _ in 0..PACKETS {
        client.send_to(peer, &[7; LEN]);
    }
    assert_eq!(client.refresh(600), 0);
}

/// Runs `faults` during a call, which must lose almost nothing; prints the report and the processor time.
fn during_a_call(server: &mut Server, what: &str, mut faults: impl FnMut(&Server)) {
    let call = Call::start(server, 200);
    let (busy, start) = (cpu(server.pid()), Instant::now());
    faults(server);
    call.goes_on();
    let busy = (cpu(server.pid()) - busy) / start.elapsed().as_secs_f64();
    let report = call.end();
    println!("row 26: {what}: {report}; {:.0} % of a core", busy * 100.0);
    assert!(server.is_running());
    assert!(report.loss() <= 0.01, "{report}");
}

/// Row 26.
#[test]
fn icmp_errors_are_counted_without_affecting_others() {
    let _turn = alone();
    let mut server = Server::start(&Plan::loopback());
    during_a_call(&mut server, "nobody on the peer's port", |server| {
        let nobody = SocketAddr::new(LOCAL_V4, free_port());
        let somebody = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        somebody.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = client(server);
        assert_eq!(client.permit(nobody), 0);
        send_there(&mut client, nobody);
        // The same relayed address serves another peer.
        let mut arrived = 0;
        for _ in 0..100 {
            client.send_to(nobody, b"nobody");
            client.send_to(somebody.local_addr().unwrap(), b"somebody");
            arrived += usize::from(somebody.recv(&mut [0; 20]).is_ok());
        }
        assert_eq!(arrived, 100);
        if skip_on_coturn("counters") {
            return;
        }
        let counted = metric(server, "hallpass_worker_icmp_total", "");
        println!("row 26: {counted} ICMP errors counted for {} packets", PACKETS + 100);
        assert!(counted > 0);
    });
}

/// Row 26: a local firewall refuses packets with EPERM.
#[test]
fn refusals_of_a_firewall_are_counted() {
    let _turn = alone();
    in_own_network(|| {
        let mut server = Server::start(&Plan::loopback());
        during_a_call(&mut server, "packets refused by the firewall", |server| {
            let peer = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
            let to = peer.local_addr().unwrap();
            let mut client = client(server);
            assert_eq!(client.permit(to), 0);
            let rules = format!(
                "table inet walls {{ chain out {{ type filter hook output priority 0; udp dport {} drop; }}; }}",
                to.port()
            );
            run_ok("nft", &[&rules], LIMIT);
            send_there(&mut client, to);
            peer.set_nonblocking(true).unwrap();
            assert!(peer.recv(&mut [0; 100]).is_err(), "the firewall let it pass");
            if !skip_on_coturn("counters") {
                let counted = drops(server, "send_failed");
                println!("row 26: {counted} of {PACKETS} refused packets counted");
                assert_eq!(counted, PACKETS);
                assert_eq!(relayed(server, "tcp", "from_client"), 0, "what was not sent is not relayed");
            }
            run("nft flush ruleset");
            peer.set_nonblocking(false).unwrap();
            peer.set_read_timeout(Some(LIMIT)).unwrap();
            client.send_to(to, b"now");
            assert_eq!(peer.recv(&mut [0; 100]).expect("it passes again"), 3);
            if !skip_on_coturn("counters") {
                assert_eq!(relayed(server, "tcp", "from_client"), 1);
            }
        });
    });
}

/// Row 26: the same on the way to a client over UDP. A packet counts as dropped or as relayed, never as both.
#[test]
fn packets_refused_on_the_way_to_a_client_are_not_relayed() {
    let _turn = alone();
    if skip_on_coturn("counters") {
        return;
    }
    in_own_network(|| {
        let server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
        let mut client = Client::log_in(
            Link::open(Transport::Udp, server.v4(Transport::Udp)),
            server.credentials("cut off"),
        );
        let relay = client.allocate().expect("an allocation");
        let peer = UdpSocket::bind((LOCAL_V4, 0)).unwrap();
        let to = peer.local_addr().unwrap();
        assert_eq!((client.permit(to), client.bind(0x4000, to)), (0, 0));
        let own = match &client.link {
            Link::Udp(socket) => socket.local_addr().unwrap().port(),
            _ => unreachable!("it was opened over UDP"),
        };
        let rules = format!(
            "table inet walls {{ chain out {{ type filter hook output priority 0; udp dport {own} drop; }}; }}"
        );
        run_ok("nft", &[&rules], LIMIT);
        let sent =
            |count: u64| (0..count).for_each(|_| assert_eq!(peer.send_to(&[7; 100], relay).unwrap(), 100));
        for packets in (20..=200).step_by(20) {
            sent(20);
            let counted = until(LIMIT, || drops(&server, "send_failed") == packets);
            assert!(
                counted.is_some(),
                "{} of {packets} refused packets counted",
                drops(&server, "send_failed")
            );
        }
        // A page that was read between decision and refusal shows those of that turn, and a counter never falls.
        let shown = relayed(&server, "udp", "from_peer");
        assert!(shown <= 20, "{shown} of 200");
        run("nft flush ruleset");
        sent(1);
        assert!(client.receive().is_ok());
        assert_eq!(
            (relayed(&server, "udp", "from_peer"), drops(&server, "send_failed")),
            (shown.max(1), 200)
        );
    });
}

/// Returns how many packets were relayed.
fn relayed(server: &Server, transport: &str, direction: &str) -> u64 {
    let labels = format!("host=\"test\",transport=\"{transport}\",direction=\"{direction}\"");
    metric(server, "hallpass_relayed_packets_total", &labels)
}

/// Adds a network of peers behind an interface of its own, and an address to relay from.
fn add_peers() {
    run("ip addr add 198.18.6.1/32 dev lo");
    run("ip link add peers0 type veth peer name far0");
    run("ip addr add 198.18.5.1/24 dev peers0");
    bring_up_peers();
}

fn bring_up_peers() {
    run("ip link set far0 up");
    run("ip link set peers0 up");
    run("ip neigh replace 198.18.5.9 lladdr 02:00:00:00:00:09 dev peers0 nud permanent");
}

fn relaying_to_peers() -> Server {
    let relay = vec!["198.18.6.1".parse().unwrap()];
    Server::start(&Plan { relay, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8", NET]) })
}

/// Row 26: the queue to a peer is full, which the kernel reports as ENOBUFS.
#[test]
fn a_full_queue_is_counted() {
    // The queue holds two seconds of traffic; beyond that the kernel returns ENOBUFS.
    full_queue("the queue towards a peer is full", 2000);
}

/// Row 26: packets queued in the interface count for the socket, until it returns EAGAIN.
#[test]
fn a_full_socket_is_counted() {
    full_queue("the socket towards a peer is full", 100_000_000);
}

/// Sends to a peer over a link of 1,000 bytes per second with a queue of `bytes`, and counts what does not fit.
fn full_queue(what: &str, bytes: u32) {
    let _turn = alone();
    in_own_network(|| {
        add_peers();
        let mut server = relaying_to_peers();
        during_a_call(&mut server, what, |server| {
            let there: SocketAddr = "198.18.5.9:4000".parse().unwrap();
            let mut client = client(server);
            assert_eq!(client.permit(there), 0);
            run(&format!("tc qdisc add dev peers0 root tbf rate 8kbit burst 2000 limit {bytes}"));
            send_there(&mut client, there);
            run("tc qdisc del dev peers0 root");
            if skip_on_coturn("counters") {
                return;
            }
            let counted = drops(server, "send_failed");
            println!("row 26: {counted} of {PACKETS} packets counted for which there was no room");
            // How many fit depends on the kernel: segments of one message take less space than single datagrams.
            assert!(counted > 0 && counted < PACKETS, "{counted}");
            send_there(&mut client, there);
            assert_eq!(
                drops(server, "send_failed"),
                counted,
                "packets are lost although there is room again"
            );
        });
    });
}

/// Row 26: the route to a peer disappears and returns.
#[test]
fn relaying_resumes_after_an_interface_was_down() {
    let _turn = alone();
    in_own_network(|| {
        add_peers();
        let mut server = relaying_to_peers();
        during_a_call(&mut server, "the interface towards a peer is down", |server| {
            let there: SocketAddr = "198.18.5.9:4000".parse().unwrap();
            let mut client = client(server);
            assert_eq!(client.permit(there), 0);
            let counted = |server: &Server| match skip_on_coturn("counters") {
                true => 0,
                false => drops(server, "no_route"),
            };
            send_there(&mut client, there);
            assert_eq!(counted(server), 0);
            run("ip link set peers0 down");
            send_there(&mut client, there);
            let lost = counted(server);
            println!("row 26: {lost} of {PACKETS} packets without a route counted");
            if !skip_on_coturn("admin pages") {
                let overview = get(server.admin(), "/overview").1;
                assert!(overview.contains("no route to 198.18.5.9 (IPv4)"), "{overview}");
                let sessions = get(server.admin(), "/sessions?user=lost").1;
                assert!(sessions.contains("\"no_route\": 500"), "{sessions}");
            }
            bring_up_peers();
            let resumed = until(LIMIT, || {
                let before = counted(server);
                client.send_to(there, b"again");
                assert_eq!(client.refresh(600), 0);
                counted(server) == before
            });
            assert!(resumed.is_some(), "the server does not use the route that is back");
            if !skip_on_coturn("counters") {
                assert_eq!(lost, PACKETS);
            }
        });
    });
}

/// Row 26: all of loopback, with clients and peers, goes down for a moment.
#[test]
fn allocations_survive_a_network_outage() {
    let _turn = alone();
    in_own_network(|| {
        let mut server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
        let mut waiting = client(&server);
        let call = Call::start(&server, 200);
        run("ip link set lo down");
        call.lasts(Duration::from_millis(500));
        run("ip link set lo up");
        call.lasts(Duration::from_millis(500));
        let (report, mut client) = call.hang_up();
        println!("row 26: half a second without a network: {report}");
        assert!(server.is_running());
        assert_eq!((client.refresh(600), waiting.refresh(600)), (0, 0));
        assert!(report.lost() > 0 && report.loss() < 0.9, "{report}");
    });
}
