//! The built-in site, and streams that are neither TURN nor HTTP.

use crate::support::files::Directory;
use crate::support::http;
use crate::support::nginx::content;
use crate::support::plan::{LOCAL_V4, Transport, free_port};
use crate::support::server::Server;
use crate::support::tls;
use crate::support::{alone, beside_others};
use crate::{curl, plan};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Returns the status and the protocol version that curl saw.
fn seen(protocol: &str, server: &Server) -> String {
    let url = format!("https://{}/any/page?a=b", server.v4(Transport::Tls));
    curl(&[protocol, &url, "-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
}

fn metrics(server: &Server) -> String {
    http::get(server.admin(), "/metrics").1
}

#[test]
fn without_a_web_server_the_built_in_site_answers() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let url = format!("https://{}/", server.v4(Transport::Tls));
    for (protocol, version) in [("--http1.0", "1"), ("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(seen(protocol, &server), format!("404 {version}"));
        assert_eq!(curl(&[protocol, &url, "-o", "/dev/null", "-w", "%{http_code}"]), "200");
        assert_eq!(curl(&[protocol, "-d", "a=b", &url, "-o", "/dev/null", "-w", "%{http_code}"]), "405");
        let whole = curl(&[protocol, "-i", &url]).to_ascii_lowercase();
        let (head, page) = whole.split_once("\r\n\r\n").expect("head and page");
        assert!(head.contains("\r\ndate: ") && head.contains(&format!("\r\ncontent-length: {}", page.len())));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
        for word in ["server:", "strict-transport", "hallpass", "turn", "stun", "relay"] {
            assert!(!whole.contains(word), "{word} in {whole}");
        }
        let head_alone = curl(&[protocol, "--head", &url]).to_ascii_lowercase();
        assert!(head_alone.contains(&format!("content-length: {}\r\n", page.len())), "{head_alone}");
    }
    for protocol in ["--http1.1", "--http2"] {
        let thrice = curl(&[protocol, &url, &url, &url, "-w", "|%{num_connects}|", "-I"]);
        assert_eq!((thrice.matches("|1|").count(), thrice.matches("|0|").count()), (1, 2), "{thrice}");
    }
    // The site answers before it has read all of an unwanted body.
    let files = Directory::new("upload");
    let from = files.path("sent");
    fs::write(&from, content(3_000_000)).expect("a file");
    // Without an Expect field, curl sends the body at once.
    let upload = ["--http1.1", "-H", "Expect:", "-T", from.to_str().unwrap(), &url, "-o", "/dev/null"];
    // curl adds the name of the file to the path.
    assert_eq!(curl(&[&upload[..], &["-w", "%{http_code}"]].concat()), "404");
}

#[test]
fn an_unreachable_web_server_is_a_502() {
    let _turn = beside_others();
    let [http1, h2] = [(); 2].map(|()| free_port());
    let server =
        Server::start(&plan(&format!("[web]\nhttp1 = \"{LOCAL_V4}:{http1}\"\nh2 = \"{LOCAL_V4}:{h2}\"")));
    let url = format!("https://{}/", server.v4(Transport::Tls));
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(seen(protocol, &server), format!("502 {version}"));
        let head = curl(&[protocol, "-d", "a=b", "-i", &url]).to_ascii_lowercase();
        assert!(head.contains("\r\nretry-after: 10\r\n"), "{head}");
    }
    // This connection ends, because the next one may reach the web server.
    let twice = curl(&["--http1.1", &url, &url, "-w", "|%{num_connects}|", "-I"]);
    assert_eq!(twice.matches("|1|").count(), 2, "{twice}");
    assert!(metrics(&server).contains("hallpass_web_unavailable_total 6\n"), "{}", metrics(&server));
    // A web server for HTTP/1.1 only: HTTP/2 is not offered, or the site would answer in its place.
    let server = Server::start(&plan(&format!("[web]\nhttp1 = \"{LOCAL_V4}:{http1}\"")));
    assert_eq!(seen("--http2", &server), "502 1.1");
}

/// More silent visitors than the site accepts.
#[test]
fn a_full_site_refuses_visitors_and_closes_silent_ones() {
    const PLACES: usize = 512;
    const MORE: usize = 8;
    let _turn = alone();
    let server = Server::start(&plan(""));
    let address = server.v4(Transport::Tls);
    let mut visitors: Vec<_> = (0..PLACES + MORE).map(|_| tls::connect(address)).collect();
    // Each sends the start of a request, which makes it a visitor, and no more.
    let begin = Instant::now();
    for visitor in &mut visitors {
        visitor.write_all(b"GET / HTTP/1.1\r\n").expect("write");
    }
    let refused = "hallpass_connections_closed_total{transport=\"tls\",stage=\"web\",reason=\"too_many\"}";
    while !metrics(&server).contains(&format!("{refused} {MORE}\n")) {
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "the first visitors may have timed out by now:\n{}",
            metrics(&server)
        );
    }
    // Which ones are refused depends on the order of the workers.
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for visitor in &mut visitors {
        visitor.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).expect("a close_notify");
        answers.push(answer);
    }
    answers.retain(|answer| !answer.is_empty());
    let whole = |answer: &Vec<u8>| answer.starts_with(b"HTTP/1.1 502 Bad Gateway\r\n");
    assert!(answers.len() == MORE && answers.iter().all(whole), "{answers:?}");
    // None of them closes its connection; the server frees everything that they held.
    let left = |metrics: &str| metrics.contains("hallpass_connections{transport=\"tls\"} 0\n");
    let free = |metrics: &str| metrics.contains("hallpass_descriptors 0\n");
    let done = || Some(metrics(&server)).is_some_and(|metrics| left(&metrics) && free(&metrics));
    while !done() {
        assert!(
            begin.elapsed() < Duration::from_secs(25),
            "connections or descriptors leak:\n{}",
            metrics(&server)
        );
    }
    assert_eq!(seen("--http1.1", &server), "404 1.1");
    drop(visitors);
}

#[test]
fn garbage_behind_a_request_ends_the_connection() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let mut stream = tls::connect(server.v4(Transport::Tls));
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend_from_slice(&byte);
    }
    stream.write_all(b"\x16\x03\x01\x00\xff\r\n\r\n").expect("write");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a whole answer");
    assert!(rest.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&rest));
}

#[test]
fn garbage_is_closed_within_two_seconds() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let address = server.v4(Transport::Tls);
    for garbage in
        [b"\x16GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x80\x2e\x01\x00\x02", b"SSH-2.0-x\r\n", &[0; 64]]
    {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).expect("write");
        // A TLS alert or the site's answer may come first.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 16 || rest.starts_with(b"HTTP/1.1 400 "), "{garbage:?}: {rest:?}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{garbage:?} was kept");
    }
    // Inside TLS, garbage goes to the site, which answers 400.
    let begin = Instant::now();
    let mut stream = tls::connect(address);
    stream.write_all(b"\x80\x81\x82 garbage\r\n\r\n").expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a whole answer");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(begin.elapsed() < Duration::from_secs(2));
    // A client that does not close is disconnected soon after.
    let gone = || metrics(&server).contains("hallpass_connections{transport=\"tls\"} 0\n");
    while !gone() {
        assert!(begin.elapsed() < Duration::from_secs(6), "the connection is kept:\n{}", metrics(&server));
    }
    drop(stream);
}

/// A browser that sends HTTP without TLS to the shared port is redirected to the same page over HTTPS.
#[test]
fn plain_http_on_the_shared_port_is_redirected() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let address = server.v4(Transport::Tls);
    let answer = |request: &str| {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).expect("write");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer and the end");
        text
    };
    let text = answer("GET /a/page?q=1 HTTP/1.1\r\nHost: relay.test:1234\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 301 "), "{text}");
    let to = format!("location: https://relay.test:{}/a/page?q=1\r\n", address.port());
    assert!(text.to_lowercase().contains(&to), "{to} in {text}");
    for strange in ["GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        assert!(answer(strange).starts_with("HTTP/1.1 400 "), "{strange}");
    }
}
