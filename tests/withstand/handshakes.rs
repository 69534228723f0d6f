//! A flood of TLS handshakes with a slow key, and its effect on a call.

use crate::call::{Call, Report};
use crate::machine::metric;
use crate::steady::undisturbed;
use crate::support::alone;
use crate::support::certs::{self, Kind};
use crate::support::client::tcp_from;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tls;
use crate::support::tool::run_command;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// ClientHellos per second. One core computes about 200 signatures in that time.
const RATE: u32 = 700;
/// Connections that a flooding client holds at once.
const HELD: usize = 500;

/// Starts a server with one worker and a key whose signatures take milliseconds.
fn server() -> Server {
    let limits = "workers = 1\nconnections_exempt = []".to_owned();
    let server = Server::start(&Plan { limits, ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) });
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Rsa4096, "slow.test", cert, key);
    server.signal("USR2");
    let loaded = server.wait_log(Duration::from_secs(10), |log| log.contains("new certificate in use"));
    assert!(loaded, "{}", server.log());
    server
}

/// Sends the same ClientHello over and over, each on a new connection, and never continues.
fn flood(address: SocketAddr, sources: u32, stop: &AtomicBool) -> u32 {
    let (mut client, mut hello) = (tls::client(), Vec::new());
    while client.wants_write() {
        client.write_tls(&mut hello).unwrap();
    }
    let (start, pause) = (Instant::now(), Duration::from_secs(1) / RATE);
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let source = Ipv4Addr::from_bits(0x7F01_0001 + sent % sources);
        let mut stream = tcp_from(source.into(), address);
        // Reset on close, so that no port stays in TIME_WAIT.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        // The server may have closed the connection.
        let _ = stream.write_all(&hello);
        held.push_back(stream);
        if held.len() > HELD {
            held.pop_front();
        }
        sent += 1;
        thread::park_timeout((start + pause * sent).saturating_duration_since(Instant::now()));
    }
    sent
}

/// Returns the warning of `hallpass check` about the server's key, if any.
fn warning(server: &Server) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["check", "--config"]).arg(server.files().path("hallpass.toml"));
    let ended = run_command(command, Duration::from_secs(20));
    assert!(ended.success, "{}", ended.output);
    ended.output.lines().find(|line| line.contains("ECDSA P-256")).map(str::to_owned)
}

/// Returns the signature time in that warning.
fn signature_time(server: &Server) -> Duration {
    let warning = warning(server).unwrap_or_default();
    let (_, time) = warning.split_once("takes ").unwrap_or_default();
    let millis = time.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_secs_f64(millis.unwrap_or(0.0) / 1e3)
}

/// Runs a call during a flood from `sources` addresses; returns its report and the duration of one signature.
fn beside_flood(sources: u32) -> (Report, Duration) {
    let _turn = alone();
    let server = server();
    let signature = signature_time(&server);
    let call = Call::start(&server, 100);
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    let sent = thread::scope(|scope| {
        let flooder = scope.spawn(|| flood(server.v4(Transport::Tls), sources, &stop));
        call.lasts(Duration::from_secs(5));
        stop.store(true, Ordering::Relaxed);
        flooder.join().unwrap()
    });
    let rate = f64::from(sent) / start.elapsed().as_secs_f64();
    let report = call.end();
    let throttled = metric(&server, "hallpass_tls_handshakes_total", "throttled");
    println!(
        "row 33: {rate:.0} ClientHellos a second from {sources} sources, {throttled} refused, {signature:.1?} a \
         signature; a call: {report}"
    );
    (report, signature)
}

/// Row 33.
#[test]
fn handshakes_of_one_source_with_a_slow_key_delay_no_call() {
    undisturbed("handshakes of one source", || {
        let (report, signature) = beside_flood(1);
        // A packet that arrives during a signature waits for it.
        report.lost() == 0 && report.quantile(0.99) <= Duration::from_millis(20).max(4 * signature)
    });
}

/// Row 33. No source exceeds its limit, so every turn of the loop computes a signature.
#[test]
fn handshakes_of_many_sources_alternate_with_a_call() {
    undisturbed("handshakes of many sources", || {
        let (report, signature) = beside_flood(200);
        // A round trip waits for two or three signatures.
        report.lost() == 0 && report.quantile(0.99) <= Duration::from_millis(40).max(8 * signature)
    });
}

/// Row 33. Flooding sources wait in their own queues: a newcomer from elsewhere is served round-robin.
#[test]
fn a_handshake_flood_does_not_lock_newcomers_out() {
    let _turn = alone();
    let server = server();
    let (address, signature) = (server.v4(Transport::Tls), signature_time(&server));
    let stop = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        let flooder = scope.spawn(|| flood(address, 4, &stop));
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < Duration::from_secs(6) {
            let begun = Instant::now();
            // A new client each time; a handshake that takes longer than ten seconds fails the test.
            drop(tls::connect(address));
            times.push(begun.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        flooder.join().unwrap();
        times
    });
    let longest = times.iter().max().copied().unwrap_or_default();
    println!("row 33: {} newcomers beside four sources that flood, {longest:?} at most", times.len());
    assert!(times.len() >= 10 && longest < Duration::from_millis(500).max(50 * signature), "{times:?}");
}

/// Row 33.
#[test]
fn hallpass_check_warns_of_a_slow_key() {
    let _turn = alone();
    if skip_on_coturn("`hallpass check`") {
        return;
    }
    let server = Server::start(&Plan::on(&[LOCAL_V4], &[]));
    let fast = warning(&server);
    let (cert, key) = server.certificate_files();
    certs::write(Kind::Rsa4096, "slow.test", cert, key);
    let slow = warning(&server);
    println!("row 33: of an ECDSA key {fast:?}, of an RSA-4096 key {slow:?}");
    assert!(fast.is_none() && slow.is_some(), "{fast:?}, {slow:?}");
}
