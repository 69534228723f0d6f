//! The kernel's memory for TCP, which all connections of the machine share.

use crate::machine::{metric, unacknowledged_ends, until};
use crate::support::alone;
use crate::support::namespace::{Lab, SERVER};
use crate::support::plan::{Plan, Transport};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::binding_request;
use crate::support::tool::run_ok;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 20;

/// Sends a segment and more behind it on each connection. The router drops segments that begin with AAAA, so the others wait
/// behind a missing one in the server's kernel.
const ATTACK: &str = "\
import signal, socket, sys
connections = []
for _ in range(int(sys.argv[3])):
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.send(b'A' * 8)
    connection.send(b'B' * 40000)
    connections.append(connection)
print('sent', flush=True)
signal.pause()
";

/// Returns the received bytes with overhead that the kernel holds for the connections in this state.
fn held(lab: &Lab, state: &str) -> Vec<u64> {
    let listed = run_ok("ip", &["netns", "exec", &lab.server, "ss", "-Htmn", "state", state], LIMIT);
    let memory = listed.split("skmem:(r").skip(1);
    memory.filter_map(|text| text.split(',').next()?.parse().ok()).collect()
}

/// Without a reset the kernel keeps it for half a minute more if the client acknowledges nothing.
#[test]
fn segments_behind_a_missing_one_are_freed_when_the_connection_is_closed() {
    let _turn = alone();
    if skip_on_coturn("freeing the kernel's memory") {
        return;
    }
    let lab = Lab::new();
    let address = IpAddr::V4(SERVER);
    let plan = Plan {
        listeners: vec![(Transport::Tcp, address)],
        namespace: Some(lab.server.clone()),
        ..Plan::on(&[address], &[])
    };
    let mut server = Server::start(&plan);
    lab.firewall("filter hook forward priority 0", &["@th,256,32 0x41414141 drop"]);
    let to = server.v4(Transport::Tcp);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.client, "/usr/bin/python3", "-c", ATTACK]);
    command.args([to.ip().to_string(), to.port().to_string(), CONNECTIONS.to_string()]);
    let attack = Process::spawn(command);
    assert!(attack.wait_output(LIMIT, |output| output.contains("sent")), "{}", attack.output());
    let end = Instant::now() + LIMIT;
    let waiting = loop {
        let held = held(&lab, "established");
        if held.len() == CONNECTIONS && held.iter().all(|&bytes| bytes >= 8 << 10) {
            break held;
        }
        assert!(Instant::now() < end, "{held:?}");
    };
    // From now on nothing is acknowledged.
    lab.firewall("filter hook forward priority 1", &[&format!("ip saddr {SERVER} drop")]);
    server.signal("INT");
    assert!(server.wait_exit(LIMIT).is_some());
    let left = held(&lab, "fin-wait-1");
    println!(
        "{CONNECTIONS} connections with segments behind a missing one: {} KiB held, {} KiB after their end",
        waiting.iter().sum::<u64>() >> 10,
        left.iter().sum::<u64>() >> 10
    );
    assert_eq!(left, [0; 0]);
}

/// Requests of a client that reads no answers: more than fits into its buffer, less than is reset at once.
const REQUESTS: u64 = 100;

/// Opens a connection, sends this, reads no answer, and ends its sending direction. The receive buffer is as small as can be.
pub fn ended_without_reading(address: SocketAddr, sent: &[u8]) -> TcpStream {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(1).unwrap();
    client.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(client);
    client.write_all(sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client
}

/// What a client does not acknowledge counts in the limits while the kernel holds it, and that is five seconds at most, however slowly
/// it acknowledges.
#[test]
fn the_last_output_of_closed_connections_counts_and_ends() {
    let _turn = alone();
    if skip_on_coturn("the last output of closed connections") {
        return;
    }
    let server = Server::start(&Plan { limits: "workers = 1".into(), ..Plan::loopback() });
    let address = server.v4(Transport::Tcp);
    let requests: Vec<u8> = (0..REQUESTS).flat_map(binding_request).collect();
    let clients: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| ended_without_reading(address, &requests)).collect();
    let closed = || metric(&server, "hallpass_connections_closed_total", "reason=\"closed\"");
    assert!(until(LIMIT, || closed() >= CONNECTIONS as u64).is_some(), "{}", server.log());
    let held = unacknowledged_ends(address);
    let is_reset = |mut client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        client.read_to_end(&mut Vec::new()).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    };
    let released = until(LIMIT, || unacknowledged_ends(address) == 0).expect("it ends");
    println!(
        "{CONNECTIONS} closed connections with unread answers: {held} sockets, gone after {released:.1?}"
    );
    assert_eq!(held, CONNECTIONS);
    assert!(clients.iter().all(is_reset));
}
