//! Connections that the relay splices to a web server, observed at both ends.

use crate::plan;
use crate::support::beside_others;
use crate::support::http;
use crate::support::nginx::Nginx;
use crate::support::plan::Transport;
use crate::support::server::Server;
use crate::support::stun;
use crate::support::tls::{self, TlsStream};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A relay with the test as its web server.
struct Rig {
    server: Server,
    listener: TcpListener,
}

impl Rig {
    fn start() -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let server = Server::start(&plan(&format!("[web]\nhttp1 = \"{address}\"")));
        Rig { server, listener }
    }

    fn connect(&self, alpn: &[&str]) -> TlsStream {
        tls::connect_as(self.server.v4(Transport::Tls), tls::client_for("localhost", alpn))
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("accept");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

fn read_exactly(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("bytes");
    assert_eq!(bytes, expected);
}

#[test]
fn both_directions_are_independent_and_end_separately() {
    let _turn = beside_others();
    let rig = Rig::start();
    let mut client = rig.connect(&["http/1.1"]);
    client.write_all(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").expect("write");
    let mut web = rig.accept();
    read_exactly(&mut web, b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    // As on a websocket, either side sends when it wants.
    web.write_all(b"\x81\x05first").expect("write");
    read_exactly(&mut client, b"\x81\x05first");
    client.write_all(b"\x81\x06second").expect("write");
    read_exactly(&mut web, b"\x81\x06second");
    // The client ends its direction and still gets the answer.
    client.conn.send_close_notify();
    client.flush().expect("close_notify");
    assert_eq!(web.read(&mut [0; 9]).expect("the end"), 0);
    web.write_all(b"the rest").expect("write");
    drop(web);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a close_notify");
    assert_eq!(rest, b"the rest");
}

#[test]
fn the_client_can_send_after_the_web_server_ended() {
    let _turn = beside_others();
    let rig = Rig::start();
    let mut client = rig.connect(&[]);
    client.write_all(b"POST / HTTP/1.1\r\n\r\n").expect("write");
    let mut web = rig.accept();
    read_exactly(&mut web, b"POST / HTTP/1.1\r\n\r\n");
    web.shutdown(std::net::Shutdown::Write).expect("half close");
    assert_eq!(client.read(&mut [0; 9]).expect("the end"), 0);
    client.write_all(b"and more").expect("write");
    read_exactly(&mut web, b"and more");
}

#[test]
fn a_truncated_answer_does_not_look_complete() {
    let _turn = beside_others();
    let rig = Rig::start();
    let mut client = rig.connect(&[]);
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut web = rig.accept();
    web.read_exact(&mut [0; 4]).expect("a request");
    web.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").expect("write");
    read_exactly(&mut client, b"HTTP/1.0 200 OK\r\n\r\nhalf");
    // Unread bytes make the kernel send a reset.
    drop(web);
    let error = client.read_to_end(&mut Vec::new()).expect_err("no close_notify");
    let kinds = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error}");
}

#[test]
fn a_slow_reader_stops_the_web_server() {
    let _turn = beside_others();
    let rig = Rig::start();
    let mut client = rig.connect(&[]);
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut web = rig.accept();
    web.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let chunk = vec![7; 1 << 20];
    let mut taken = 0;
    // Until the client reads, at most the kernel's buffers are filled.
    while let Ok(written) = web.write(&chunk) {
        taken += written;
        assert!(taken < 64 << 20, "the relay buffers without limit");
    }
    let mut received = vec![0; taken];
    client.read_exact(&mut received).expect("all that was taken");
    assert!(received.iter().all(|&byte| byte == 7));
}

/// What the kernel keeps for a client counts in the limits until the client has it, or does not take it for ten seconds.
#[test]
fn the_rest_of_an_answer_is_delivered_and_not_kept_for_a_client_that_reads_nothing() {
    let _turn = beside_others();
    let rig = Rig::start();
    let answer = vec![7; 300_000];
    let ask = || {
        let mut client = rig.connect(&[]);
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
        client.conn.send_close_notify();
        client.flush().expect("close_notify");
        let mut web = rig.accept();
        read_exactly(&mut web, b"GET / HTTP/1.0\r\n\r\n");
        web.write_all(&answer).expect("all fits in the buffers");
        client
    };
    let silent = ask();
    let mut reader = ask();
    let mut received = Vec::new();
    reader.read_to_end(&mut received).expect("a close_notify");
    assert!(received == answer);
    let closed = |reason: &str| {
        let sample = format!(
            "hallpass_connections_closed_total{{transport=\"tls\",stage=\"web\",reason=\"{reason}\"}} 1\n"
        );
        let begin = Instant::now();
        loop {
            let (_, metrics) = http::get(rig.server.admin(), "/metrics");
            if metrics.contains(&sample) {
                break;
            }
            assert!(begin.elapsed() < LIMIT, "{metrics}");
        }
    };
    closed("closed");
    closed("stuck");
    drop(silent);
}

/// A proxy may negotiate HTTP for a TURN client that is slow to send, so the first bytes decide, even if they come late. The
/// third client shows that the time limit of a silent client without HTTP has passed.
#[test]
fn first_bytes_decide_even_if_they_come_late() {
    let _turn = beside_others();
    let rig = Rig::start();
    let (mut turn, mut page) = (rig.connect(&["http/1.1"]), rig.connect(&["http/1.1"]));
    let mut silent = rig.connect(&["stun.turn"]);
    silent.sock.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(silent.read(&mut [0; 9]).expect("the end"), 0);
    turn.write_all(&stun::binding_request(7)).expect("write");
    assert_eq!(stun::read_message(&mut turn).expect("an answer").id, 7);
    page.write_all(b"GET /late").expect("write");
    read_exactly(&mut rig.accept(), b"GET /late");
}

#[test]
fn a_silent_client_without_alpn_is_closed() {
    let _turn = beside_others();
    let rig = Rig::start();
    let mut client = rig.connect(&["stun.turn"]);
    client.sock.set_read_timeout(Some(LIMIT)).unwrap();
    let begin = Instant::now();
    assert_eq!(client.read(&mut [0; 9]).expect("the end"), 0);
    assert!((8..14).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    rig.listener.set_nonblocking(true).unwrap();
    assert!(rig.listener.accept().is_err(), "the web server saw no connection");
}

#[test]
fn a_name_with_its_own_server_is_passed_through() {
    let _turn = beside_others();
    let nginx = Nginx::start(0);
    let web = format!("[web]\npassthrough = {{ \"Other.Test\" = \"{}\" }}", nginx.tls);
    let server = Server::start(&plan(&web));
    let address = server.v4(Transport::Tls);
    let shown = |name| {
        let stream = tls::connect_as(address, tls::client_for(name, &["http/1.1"]));
        tls::certificate(&stream.conn)
    };
    assert_ne!(shown("other.test"), shown("localhost"), "each has its own certificate");
    let mut client = tls::connect_as(address, tls::client_for("other.test", &[]));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut page = String::new();
    client.read_to_string(&mut page).expect("a page");
    assert!(page.ends_with("the other one"), "{page}");
    // A ClientHello in many segments is accepted, too.
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut connection = tls::client_for("other.test", &[]);
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a ClientHello");
    for piece in hello.chunks(7) {
        stream.write_all(piece).expect("write");
    }
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).expect("handshake");
    }
    assert_eq!(tls::certificate(&connection), shown("other.test"));
}
