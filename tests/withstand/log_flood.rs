//! One user whose sessions start and end as fast as the server allows must not hide others from the log.

use crate::support::alone;
use crate::support::client::{Client, Link};
use crate::support::codec::UDP;
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{ALLOCATE, LIFETIME, Message, REFRESH, REQUESTED_TRANSPORT, Session};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Sockets of the flooding user.
const SOCKETS: usize = 32;
const OTHERS: usize = 20;
/// Length of the flood, in time and in sessions, before other users call: more than a log without budgets could hold.
const FLOOD: (Duration, u64) = (Duration::from_secs(3), 15_000);
/// Time limit of the flood, because rate limits may keep it below that number of sessions.
const FLOOD_MAX: Duration = Duration::from_secs(15);
/// Limit of the bytes that the flood may add to the log, including the lines of others.
const LOG_MAX: usize = 64 << 10;
const LIMIT: Duration = Duration::from_secs(30);

fn join(server: &Server, user: &str) -> Client {
    let session = Session::new(server.credentials(user), b"");
    Client::join(Link::open(Transport::Udp, server.v4(Transport::Udp)), &session)
}

/// Sends the same request from all of `clients` at once; returns how many succeeded. Requests beyond a rate limit get
/// no answer.
fn ask_all(clients: &mut [Client], kind: u16, attributes: &[(u16, &[u8])]) -> u64 {
    let mut send = |client: &mut Client| {
        let (id, request) = client.request(kind, attributes);
        client.link.send(&request).unwrap();
        id
    };
    let ids: Vec<u64> = clients.iter_mut().map(&mut send).collect();
    let mut succeeds = |(client, id): (&mut Client, u64)| {
        let mut answers = std::iter::from_fn(|| client.receive().ok());
        answers.find_map(|bytes| Some(Message::parse(&bytes)).filter(|answer| answer.id == id))
    };
    let answers = clients.iter_mut().zip(ids).filter_map(&mut succeeds);
    answers.filter(|answer| answer.error_code().is_none()).count() as u64
}

/// Creates and ends allocations until `stop`, and signals `enough` once it has lasted as long as [`FLOOD`] says; returns
/// how many ended.
fn flood(clients: &mut [Client], enough: SyncSender<()>, stop: &AtomicBool) -> u64 {
    let (start, mut ended) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        ask_all(clients, ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]);
        ended += ask_all(clients, REFRESH, &[(LIFETIME, &[0; 4])]);
        let lasted = start.elapsed();
        if lasted >= FLOOD.0 && ended >= FLOOD.1 || lasted >= FLOOD_MAX {
            // Only the first signal is awaited.
            let _ = enough.try_send(());
        }
    }
    ended
}

/// Makes a call of another user, with one packet each way.
fn call(client: &mut Client, peer: &Echo) {
    client.allocate().expect("an allocation");
    assert_eq!(client.bind(0x4000, peer.address()), 0);
    client.send_on(0x4000, &[1; 100]);
    assert_eq!(client.receive().expect("the echoed packet").len(), 104);
    assert_eq!(client.refresh(0), 0);
}

/// Counts the sessions of `user` with a line of their own.
fn lines_of(log: &str, user: &str) -> u64 {
    let user = format!(" user=\"{user}\" ");
    log.lines().filter(|line| line.contains("session: ended ") && line.contains(&user)).count() as u64
}

/// Sums the sessions that summary lines report.
fn summed_up(log: &str) -> u64 {
    let sums = log.lines().filter(|line| line.contains("more sessions ended"));
    let number = |line: &str| line.split_once(" sessions=")?.1.split(' ').next()?.parse::<u64>().ok();
    sums.map(|line| number(line).unwrap_or_else(|| panic!("no number in {line}"))).sum()
}

/// Rows 20 and 33.
#[test]
fn no_user_can_suppress_the_log_lines_of_others() {
    let _turn = alone();
    if skip_on_coturn("a budget of log lines for each user") {
        return;
    }
    let server = Server::start(&Plan { limits: "workers = 1".to_owned(), ..Plan::loopback() });
    let mut flooders: Vec<Client> = (0..SOCKETS).map(|_| join(&server, "w_flood")).collect();
    flooders.iter().for_each(|client| client.link.wait_at_most(Duration::from_millis(50)));
    let others: Vec<String> = (0..OTHERS).map(|number| format!("w_other{number}")).collect();
    let mut clients: Vec<Client> = others.iter().map(|user| join(&server, user)).collect();
    let peer = Echo::start(LOCAL_V4);
    let before = server.log().len();

    let stop = AtomicBool::new(false);
    let (enough, seen_enough) = sync_channel(1);
    let (ended, warned) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&mut flooders, enough, &stop));
        seen_enough.recv().expect("the flood is running");
        clients.iter_mut().for_each(|client| call(client, &peer));
        server.files().write("hallpass.toml", "realm = \n");
        server.signal("HUP");
        let warned = server.wait_log(LIMIT, |log| log.contains("the configuration in use stays"));
        stop.store(true, Ordering::Relaxed);
        (flood.join().expect("the flood ran to its end"), warned)
    });
    let told = |log: &str| lines_of(log, "w_flood") + summed_up(log);
    server.wait_log(LIMIT, |log| told(log) >= ended);
    let log = server.log();
    let (grown, told) = (log.len() - before, told(&log));
    let logged = others.iter().filter(|user| lines_of(&log, user) == 1).count();
    println!(
        "rows 20 and 33: {ended} sessions of one user: {grown} bytes of log, {} lines, {told} sessions reported; \
         {logged} of {OTHERS} lines of others; a failed reload logged: {warned}",
        lines_of(&log, "w_flood")
    );
    assert!(warned, "the failed reload is not logged");
    assert_eq!(logged, OTHERS, "lines of others");
    assert!(grown <= LOG_MAX, "{grown} bytes");
    assert!(ended > 100 && told >= ended, "{told} of {ended} reported");
    assert!(log.contains("most_of_user=\"w_flood\""), "the summary does not name the user:\n{log}");
}
