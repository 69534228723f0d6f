//! Clients of the relay's own subnet that do not exist: what is sent to them waits in the send buffer of the UDP listener.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use super::host::{Host, SERVER, Way};
use super::support::http::get;
use super::support::namespace::{self, shell, within};

/// The send buffer that a UDP listener requests.
const LISTENER_BUFFER: u64 = 4 << 20;
/// Binding requests with forged sources. Their answers need 12 MB of the send buffer, which has at most 8.
const FORGED: u32 = 16_000;
/// Packets from the peer, in bursts.
const PACKETS: usize = 200;
const BURST: usize = 20;
/// How long to wait for a packet that may be lost.
const LOSS_LIMIT: Duration = Duration::from_millis(300);

/// Sends Binding requests, 4,000 a second, from 20 addresses of the server's subnet that no machine has.
const FORGER: &str = "\
import socket, struct, sys, time
server, count = sys.argv[1], int(sys.argv[2])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
net = socket.inet_aton(server)[:3]
print('bound', flush=True)
start = time.monotonic()
for number in range(count):
    source = net + bytes([100 + number % 20])
    ip = struct.pack('!BBHHHBBH', 0x45, 0, 48, 0, 0, 64, 17, 0) + source + socket.inet_aton(server)
    udp = struct.pack('!HHHH', 20000 + number // 20 % 20000, 3478, 28, 0)
    binding = struct.pack('!HHIIII', 1, 0, 0x2112A442, 7, 7, number)
    raw.sendto(ip + udp + binding, (server, 0))
    time.sleep(max(0, start + number / 4000 - time.monotonic()))
print('all sent', flush=True)
";

/// Returns the bytes in the send buffer of the UDP listener on `[::]:3478`.
fn unsent(host: &Host) -> u64 {
    // The files in /proc/net are those of the thread's namespace; /proc/self would be the main thread's.
    let table =
        within(&host.lab.server, || fs::read_to_string("/proc/thread-self/net/udp6").expect("a table"));
    let listener = table.lines().find(|line| line.contains(":0D96 ")).expect("a listener");
    // proc_net_tcp: slot, local and remote address, state, tx_queue:rx_queue.
    let queues = listener.split_ascii_whitespace().nth(4).expect("a column");
    u64::from_str_radix(queues.split(':').next().expect("two queues"), 16).expect("hexadecimal")
}

/// A stranger without credentials forges addresses of the relay's subnet. The kernel keeps the answers until the
/// addresses are resolved, which this host tries for a minute. A call gets all of its packets meanwhile.
#[test]
fn forged_neighbours_take_a_quarter_of_the_send_buffer_at_most() {
    let patient =
        "sysctl -qw net.ipv4.neigh.up0.mcast_solicit=60 net.ipv4.neigh.up0.unres_qlen_bytes=4000000";
    let started =
        Host::start_with(|lab| shell(&lab.server, patient), |plan| plan.limits = "workers = 1".to_owned());
    let Some(host) = started else { return };
    let mut client = host.client(Way::Udp, SERVER);
    let relayed = client.allocate().expect("an allocation");
    let peer = within(&host.lab.peer, || UdpSocket::bind((namespace::PEER, 0)).expect("a peer"));
    assert_eq!(client.bind(0x4000, peer.local_addr().expect("local")), 0);

    let forger = host.lab.start_in_router(FORGER, &[&SERVER.to_string(), &FORGED.to_string()]);
    assert!(
        forger.wait_output(Duration::from_secs(60), |log| log.contains("all sent")),
        "{}",
        forger.output()
    );
    let held = unsent(&host);

    client.link.wait_at_most(LOSS_LIMIT);
    let mut received = 0;
    for _ in 0..PACKETS / BURST {
        (0..BURST).for_each(|_| assert_eq!(peer.send_to(b"media", relayed).expect("sent"), 5));
        let mut arrived = 0;
        while arrived < BURST {
            match client.receive() {
                Ok(_) => arrived += 1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        received += arrived;
    }
    let limit: u64 =
        fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a limit").trim().parse().expect("a number");
    // The kernel doubles the size that is requested.
    let buffer = 2 * limit.min(LISTENER_BUFFER);
    let (_, metrics) = within(&host.lab.server, || get(host.server.admin(), "/metrics"));
    let dropped = metrics.lines().find(|line| line.contains("\"send_backlog\"")).unwrap_or_default();
    println!("{held} of {buffer} bytes held, {received} of {PACKETS} packets arrived; {dropped}");
    assert!((buffer / 8..buffer / 2).contains(&held), "{held} of {buffer}");
    assert_eq!(received, PACKETS, "{held} of {buffer} bytes are held");
}
