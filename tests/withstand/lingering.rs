//! Web clients of a shared port that end their connections and do not acknowledge the answer.

use crate::kernel_memory::ended_without_reading;
use crate::machine::{cpu, metric, until};
use crate::support::alone;
use crate::support::http::get_as;
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
/// The limit of all connections. Half of them may be those of web clients.
const CONNECTIONS: u64 = 200;
/// More than half of all connections.
const ENDED: u64 = 120;
const NEWCOMERS: usize = 20;

/// Row 32. Their places are free for other visitors, and waiting for the acknowledgement takes no time of the worker (row 30).
#[test]
fn unread_answers_of_ended_web_connections_keep_nobody_out() {
    let _turn = alone();
    if skip_on_coturn("a port shared with the web") {
        return;
    }
    let server = Server::start(&Plan {
        tls: "web = true".to_owned(),
        limits: format!("workers = 1\nconnections_total = {CONNECTIONS}"),
        ..Plan::loopback()
    });
    let address = server.v4(Transport::Tls);
    assert_eq!(get_as(address, "localhost", "/").0, 301, "the built-in site");
    // The answer is a redirect to the same path, longer than the receive buffer.
    let request = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1500));
    let ended: Vec<TcpStream> =
        (0..ENDED).map(|_| ended_without_reading(address, request.as_bytes())).collect();
    let closed = || metric(&server, "hallpass_connections_closed_total", "stage=\"web\"");
    assert!(until(LIMIT, || closed() > ENDED).is_some(), "{} closed", closed());
    let turns = || metric(&server, "hallpass_worker_wakeups_total", "");
    let (turns_before, cpu_before, start) = (turns(), cpu(server.pid()), Instant::now());
    while start.elapsed() < Duration::from_secs(1) {
        thread::park_timeout(Duration::from_secs(1));
    }
    let (turns, cpu) = (turns() - turns_before, cpu(server.pid()) - cpu_before);
    println!("row 30: {turns} turns and {cpu:.2} s of processor time in a second");
    assert!(turns < 500, "{turns} turns");

    // Some of them may have found all places taken, because they came at once.
    let refused = || metric(&server, "hallpass_connections_closed_total", "too_many");
    let refused_before = refused();
    let statuses: Vec<u16> = (0..NEWCOMERS).map(|_| get_as(address, "localhost", "/").0).collect();
    let refused = refused() - refused_before;
    println!(
        "row 32: {ENDED} web connections ended with unread answers: of {NEWCOMERS} newcomers {refused} refused"
    );
    assert_eq!(ended.len() as u64, ENDED);
    assert!(statuses.iter().all(|&status| status == 301) && refused == 0, "{statuses:?}");
}
