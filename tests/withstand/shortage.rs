//! A server limited to 256 open files.

use crate::call::Call;
use crate::machine::{cpu, many_descriptors, until};
use crate::support::alone;
use crate::support::client::{Client, Link, udp_from};
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use crate::support::stun::Session;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const NEWCOMERS: usize = 600;
/// A newcomer that gets no answer in this time counts as waiting.
const LOOK: Duration = Duration::from_millis(20);

/// Tries to get an allocation over UDP: granted, refused (508), or without an answer.
fn newcomer(server: &Server, session: &Session) -> Result<Client, Option<u16>> {
    let link = Link::Udp(udp_from([127, 0, 0, 1].into(), server.v4(Transport::Udp)));
    link.wait_at_most(LOOK);
    let Ok(mut client) = Client::try_join(link, session) else { return Err(None) };
    let answer = client.try_ask(
        crate::support::stun::ALLOCATE,
        &[(crate::support::stun::REQUESTED_TRANSPORT, &crate::support::codec::UDP)],
    );
    match answer.map(|answer| answer.error_code()) {
        Ok(None) => Ok(client),
        Ok(Some(code)) => Err(Some(code)),
        Err(_) => Err(None),
    }
}

/// Row 19: without free descriptors, calls continue and newcomers wait.
#[test]
fn without_descriptors_calls_continue_and_newcomers_wait() {
    let _turn = alone();
    many_descriptors(2500);
    let wrapper = ["prlimit", "--nofile=256:256", "--"].map(str::to_owned).to_vec();
    let plan = Plan {
        limits: "unauthenticated_per_source = 0".to_owned(),
        wrapper,
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    };
    let mut server = Server::start(&plan);
    let calls: Vec<Call> = (0..4).map(|_| Call::start(&server, 100)).collect();
    let over_tls = Call::over(&server, Transport::Tls, 100);
    let session = Session::new(server.credentials("newcomer"), b"");
    let (mut held, mut refused, mut waiting, mut others) = (Vec::new(), 0, 0, Vec::new());
    for _ in 0..NEWCOMERS {
        match newcomer(&server, &session) {
            Ok(client) => held.push(client),
            Err(Some(508)) => refused += 1,
            Err(None) => waiting += 1,
            Err(Some(code)) => others.push(code),
        }
    }
    // The kernel puts these connections into the backlog; the server cannot accept them.
    let address = server.v4(Transport::Tcp);
    let connect = |_| TcpStream::connect_timeout(&address, LOOK).ok();
    let streams: Vec<Option<TcpStream>> = (0..NEWCOMERS).map(connect).collect();
    let (cpu_before, start) = (cpu(server.pid()), Instant::now());
    calls[0].lasts(Duration::from_secs(3));
    let busy = (cpu(server.pid()) - cpu_before) / start.elapsed().as_secs_f64();
    let granted = held.len();
    // After all of them have left, new clients must be served.
    drop(streams);
    for client in &mut held {
        client.link.wait_at_most(crate::support::client::PATIENCE);
        assert_eq!(client.refresh(0), 0);
    }
    let start = Instant::now();
    let limit = Duration::from_secs(10);
    let udp = until(limit, || newcomer(&server, &session).is_ok_and(|mut client| client.refresh(0) == 0));
    let tcp = until(limit, || {
        let Ok(stream) = TcpStream::connect_timeout(&address, limit) else { return false };
        let link = Link::Tcp(stream);
        link.wait_at_most(Duration::from_secs(1));
        Client::try_join(link, &session).is_ok_and(|mut client| client.allocate().is_ok())
    });
    let recovered = start.elapsed();
    let log = server.log().len();
    let reports: Vec<_> = calls.into_iter().chain([over_tls]).map(Call::end).collect();
    println!(
        "row 19: of {NEWCOMERS} newcomers {granted} granted, {refused} refused (508), {waiting} unanswered, \
         other codes {others:?}; {:.0} % of a core, {log} bytes of log, recovered after {recovered:.1?}",
        busy * 100.0
    );
    for report in &reports {
        println!("row 19: a call: {report}");
    }
    assert!(server.is_running());
    assert!(others.is_empty() && granted + refused + waiting == NEWCOMERS, "{others:?}");
    assert!(reports.iter().all(|report| report.loss() <= 0.01), "a call lost packets");
    assert!(busy < 0.5, "{busy} of a core");
    assert!(log < 1_000_000, "{log} bytes of log");
    assert!(udp.is_some() && tcp.is_some() && recovered < Duration::from_secs(5), "{udp:?}, {tcp:?}");
}
