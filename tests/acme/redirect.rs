//! Plain HTTP on port 80.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::beside_others;
use crate::support::plan::{LOCAL_V4, Plan, free_port};
use crate::support::server::{Server, skip_on_coturn};

/// Returns the head of the answer.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that does not read everything may reset the connection.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

#[test]
fn port_80_redirects_the_names_of_the_certificate_to_https() {
    let _turn = beside_others();
    if skip_on_coturn("the redirect to https") {
        return;
    }
    let port = free_port();
    let server = Server::start(&Plan {
        tables: format!("[redirect]\naddress = \"127.0.0.1:{port}\"\n"),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    let address = SocketAddr::new(LOCAL_V4, port);
    let own = ask(address, "GET /check?x=1 HTTP/1.1\r\nHost: First.test:80\r\n\r\n");
    assert!(own.starts_with("HTTP/1.1 308 "), "{own}");
    assert!(own.contains("\r\nlocation: https://first.test/check?x=1\r\n"), "{own}");
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 404),
        ("GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: first.test\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: first.test\r\nContent-Length: 0\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: first.test\r\nX: \r\n y\r\n\r\n", 400),
    ] {
        let answer = ask(address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    // A head without an end, and one that is too large, end the connection.
    let large = format!("GET / HTTP/1.1\r\nHost: first.test\r\nX: {}\r\n\r\n", "x".repeat(10_000));
    let refused = ask(address, &large);
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
    let unfinished = ask(address, "GET / HTTP/1.1\r\nHost: fir");
    assert!(!unfinished.contains(" 308 "), "{unfinished}");
    drop(server);
}
