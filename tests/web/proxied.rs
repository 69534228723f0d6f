//! Behind a proxy that sends PROXY headers: haproxy, and handwritten headers.

use crate::LIMIT;
use crate::support::files::Directory;
use crate::support::plan::{LOCAL_V4, Plan, Transport, free_port};
use crate::support::process::Process;
use crate::support::server::Server;
use crate::support::stun::{XOR_MAPPED_ADDRESS, binding_request, read_message};
use crate::support::{beside_others, http, tls};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

fn behind_proxies(trusted: &str) -> Server {
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.tcp = format!("proxy_protocol = [\"{trusted}\"]");
    plan.tls = plan.tcp.clone();
    Server::start(&plan)
}

/// Returns the client's address according to a Binding over `stream`.
fn mapped(stream: &mut (impl Read + Write)) -> SocketAddr {
    stream.write_all(&binding_request(3)).expect("write");
    let answer = read_message(stream).expect("an answer");
    answer.xor_address(XOR_MAPPED_ADDRESS).expect("an address")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn haproxy_announces_the_clients_address() {
    let _turn = beside_others();
    let server = behind_proxies("127.0.0.1");
    let files = Directory::new("haproxy");
    let mut config =
        "defaults\nmode tcp\ntimeout connect 5s\ntimeout client 20s\ntimeout server 20s\n".to_owned();
    let mut front = Vec::new();
    for (transport, version) in [
        (Transport::Tcp, "send-proxy"),
        (Transport::Tcp, "send-proxy-v2"),
        (Transport::Tls, "send-proxy-v2"),
        (Transport::Tls, "send-proxy-v2-ssl"),
    ] {
        let port = free_port();
        front.push((transport, SocketAddr::new(LOCAL_V4, port)));
        let to = server.v4(transport);
        config += &format!("listen l{port}\nbind 127.0.0.1:{port}\nserver s {to} {version}\n");
    }
    let config = files.write("haproxy.cfg", &config);
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config);
    let process = Process::spawn(command);
    for (transport, address) in front {
        let end = Instant::now() + LIMIT;
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "haproxy: {error}\n{}", process.output()),
            }
        };
        let own = stream.local_addr().expect("local");
        drop(stream);
        let seen = if transport == Transport::Tls {
            let mut stream = tls::connect(address);
            (stream.sock.local_addr().expect("local"), mapped(&mut stream))
        } else {
            let mut stream = connect(address);
            (stream.local_addr().expect("local"), mapped(&mut stream))
        };
        assert_eq!(seen.0, seen.1, "{transport:?} (an earlier connection came from {own})");
    }
}

#[test]
fn a_header_is_accepted_in_any_pieces_and_required() {
    let _turn = beside_others();
    let server = behind_proxies("127.0.0.1/32");
    let address = server.v4(Transport::Tcp);
    let mut stream = connect(address);
    for byte in b"PROXY TCP4 203.0.113.7 203.0.113.1 4711 443\r\n" {
        stream.write_all(&[*byte]).expect("write");
    }
    assert_eq!(mapped(&mut stream), "203.0.113.7:4711".parse().unwrap());
    // A health check of the proxy.
    let mut stream = connect(address);
    stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").expect("write");
    assert_eq!(mapped(&mut stream), stream.local_addr().unwrap());
    // A client that bypassed the proxy.
    let mut stream = connect(address);
    stream.write_all(&binding_request(1)).expect("write");
    assert_eq!(stream.read(&mut [0; 9]).expect("the end"), 0);
    let (_, metrics) = http::get(server.admin(), "/metrics");
    let line = "{transport=\"tcp\",stage=\"accepted\",reason=\"not_proxied\"} 1";
    assert!(metrics.contains(&format!("hallpass_connections_closed_total{line}")), "{metrics}");
}

#[test]
fn a_source_that_is_not_trusted_is_closed_and_counted() {
    let _turn = beside_others();
    let server = behind_proxies("127.0.0.77");
    for _ in 0..3 {
        let mut stream = connect(server.v4(Transport::Tcp));
        // The kernel may refuse the write of a connection that is closed already.
        let _ = stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let (_, metrics) = http::get(server.admin(), "/metrics");
    let counted = metrics.lines().find(|line| line.starts_with("hallpass_proxy_untrusted_total "));
    let count: u64 = counted.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count");
    assert!(count >= 3, "{metrics}");
    let logged = |log: &str| {
        log.contains("with proxy_protocol w") && log.contains("the last from 127.0.0.1: not one of")
    };
    assert!(server.wait_log(LIMIT, logged), "{}", server.log());
    let (_, overview) = http::get(server.admin(), "/overview");
    assert!(overview.contains("did not come from its proxy"), "{overview}");
}
