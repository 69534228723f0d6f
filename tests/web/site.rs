//! What answers where no web server does, and what is no client at all.

use crate::support::beside_others;
use crate::support::http;
use crate::support::plan::{LOCAL_V4, Transport, free_port};
use crate::support::server::Server;
use crate::support::tls;
use crate::{curl, plan};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Status and protocol version that curl saw.
fn seen(protocol: &str, server: &Server) -> String {
    let url = format!("https://{}/any/page?a=b", server.v4(Transport::Tls));
    curl(&[protocol, &url, "-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
}

fn metrics(server: &Server) -> String {
    http::get(server.admin(), "/metrics").1
}

#[test]
fn a_plain_page_answers_where_no_web_server_is() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    assert_eq!(seen("--http1.1", &server), "404 1.1");
    // HTTP/2 is not offered, so curl is content with less.
    assert_eq!(seen("--http2", &server), "404 1.1");
    let url = format!("https://{}/", server.v4(Transport::Tls));
    let twice = curl(&[&url, &url, "-w", "|%{num_connects}|", "-I"]);
    assert!(twice.contains("|1|") && twice.contains("|0|"), "the connection is used again:\n{twice}");
    assert_eq!(curl(&["-d", "a=b", &url, "-o", "/dev/null", "-w", "%{http_code}"]), "404");
}

#[test]
fn a_web_server_that_is_down_is_a_502() {
    let _turn = beside_others();
    let [http1, h2] = [(); 2].map(|()| free_port());
    let server =
        Server::start(&plan(&format!("[web]\nhttp1 = \"{LOCAL_V4}:{http1}\"\nh2 = \"{LOCAL_V4}:{h2}\"")));
    assert_eq!(seen("--http1.1", &server), "502 1.1");
    assert_eq!(seen("--http2", &server), "502 2");
}

#[test]
fn garbage_is_closed_within_two_seconds() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let address = server.v4(Transport::Tls);
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n", &[0; 64]]
    {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).expect("write");
        // An alert may come first.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 16, "{garbage:?}: {rest:?}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{garbage:?} was kept");
    }
    // Inside of TLS it is the web's, which says that it is no request.
    let begin = Instant::now();
    let mut stream = tls::connect(address);
    stream.write_all(b"\x80\x81\x82 garbage\r\n\r\n").expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a whole answer");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(begin.elapsed() < Duration::from_secs(2));
    // And who does not leave is left, soon after.
    let gone = || metrics(&server).contains("hallpass_connections{transport=\"tls\"} 0\n");
    while !gone() {
        assert!(begin.elapsed() < Duration::from_secs(6), "the connection is kept:\n{}", metrics(&server));
    }
    drop(stream);
}
