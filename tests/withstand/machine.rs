//! Measurements of a process and its metrics, and private network namespaces.

use crate::support::client::PATIENCE;
use crate::support::http::get;
pub use crate::support::proc::{descriptors, lasting_descriptors, memory};
use crate::support::server::Server;
use crate::support::tool::run_ok;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

/// Clock ticks in /proc, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Seconds of processor time since the start.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // Fields 14 and 15 of proc_pid_stat(5), counted from the end of the name, which may contain anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    let ticks = |at: usize| fields[at - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS_PER_SECOND
}

/// Pins this thread and all threads of the process to one core. Between two cores, the latency of a request depends
/// on their sleep states, which says nothing about the work.
pub fn share_one_core(pid: u32) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let value = |name| {
        status.lines().find_map(|line: &str| line.strip_prefix(name)).expect("a line of every Linux").trim()
    };
    let core = value("Cpus_allowed_list:").split([',', '-']).next().unwrap();
    run_ok("taskset", &["-p", "-c", core, value("Pid:")], PATIENCE);
    run_ok("taskset", &["-a", "-p", "-c", core, &pid.to_string()], PATIENCE);
}

/// Returns the sum of all samples of `name` whose labels contain `label`.
pub fn metric(server: &Server, name: &str, label: &str) -> u64 {
    let (status, body) = get(server.admin(), "/metrics");
    assert_eq!(status, 200, "{body}");
    let of_name = body.lines().filter_map(|line| line.strip_prefix(name));
    let samples = of_name.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// Returns how many messages were dropped for this reason.
pub fn drops(server: &Server, reason: &str) -> u64 {
    metric(server, "hallpass_drops_total", &format!("\"{reason}\""))
}

/// Waits until `holds` returns true and returns how long that took; `None` after `limit`.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return None;
        }
        thread::park_timeout(LOOK);
    }
    Some(start.elapsed())
}

/// Returns the bytes in the receive queue of `server` for the TCP connection from `client`; 0 once it is closed.
pub fn unread(server: SocketAddrV4, client: SocketAddrV4) -> u64 {
    // proc_net_tcp: the address is a number in host byte order.
    let name = |socket: SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(socket.ip().octets()), socket.port())
    };
    let (server, client) = (name(server), name(client));
    let table = fs::read_to_string("/proc/net/tcp").expect("every Linux has it");
    let row = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).find(|fields| {
        fields.get(1).is_some_and(|local| *local == server)
            && fields.get(2).is_some_and(|remote| *remote == client)
    });
    let queues = row.and_then(|fields| fields[4].split_once(':').map(|(_, received)| received.to_owned()));
    queues.map_or(0, |received| u64::from_str_radix(&received, 16).expect("hexadecimal"))
}

/// Returns how many sockets of processes have sent the end of a TCP connection from `server` that the client has not acknowledged.
pub fn unacknowledged_ends(server: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("every Linux has it");
    let port = format!(":{:04X}", server.port());
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // FIN_WAIT1 is 4, LAST_ACK is 9 (include/net/tcp_states.h); a socket that no process has open has inode 0.
    let ended = |row: &Vec<&str>| row.len() > 9 && ["04", "09"].contains(&row[3]) && row[9] != "0";
    rows.filter(|row| ended(row) && row[1].ends_with(&port)).count()
}

/// Raises the descriptor limit to the hard limit, which must be at least `needed`.
pub fn many_descriptors(needed: u64) {
    let limit = hallpass::system::limits::raise_open_files().after;
    assert!(limit >= needed, "{limit} descriptors are too few for {needed}: raise `ulimit -Hn`");
}

/// Runs `body` in a network namespace that has only loopback, so that no packet leaves it. Processes started by
/// `body` run there too, and the namespace ends with it.
pub fn in_own_network(body: impl FnOnce() + Send) {
    let inside = || {
        // SAFETY: takes no pointers; affects only this thread, which ends with `body`.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(alone, 0, "this test creates a network namespace: run `cargo test` as root (sudo -E)");
        run_ok("ip", &["link", "set", "lo", "up"], Duration::from_secs(20));
        body();
    };
    let ended = thread::scope(|scope| scope.spawn(inside).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
