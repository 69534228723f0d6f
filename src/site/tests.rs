use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use axum::extract::Extension;
use axum::routing::get;
use tokio::sync::oneshot;

use super::*;

/// A test that waits longer than this fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Limits for tests without slow clients.
const AMPLE: SiteLimits =
    SiteLimits { connections: 4, head: PATIENCE, quiet: PATIENCE, finish: Duration::from_millis(200) };
/// Limits for tests of slow clients.
const SHORT: SiteLimits =
    SiteLimits { head: Duration::from_millis(200), quiet: Duration::from_millis(300), ..AMPLE };

const GET: &[u8] = b"GET /any?a=b HTTP/1.1\r\nHost: relay.example.org\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A site on its own runtime and thread, as in the server.
struct Rig {
    site: BuiltInSite,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The client's end of a connection.
struct Client {
    stream: UnixStream,
    place: Receiver<()>,
}

impl Rig {
    fn new(limits: SiteLimits) -> Self {
        Self::with(limits, pages::router(&Settings { files: Some(Arc::default()), ..Settings::default() }))
    }

    fn with(limits: SiteLimits, router: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let site = BuiltInSite::with(runtime.handle().clone(), router, limits);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { site, stop: Some(stop), thread: Some(thread) }
    }

    fn try_visit(&self, http: Http, down: bool) -> (bool, Client) {
        self.visit_from("192.0.2.1:5000", http, down)
    }

    fn visit_from(&self, client: &str, http: Http, down: bool) -> (bool, Client) {
        let (stream, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("nonblocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (held, place): (SyncSender<()>, _) = sync_channel(1);
        let [client, server] = [client, "192.0.2.2:443"].map(|text| text.parse().expect("an address"));
        let visitor = Visitor { client, server, secure: true, down, forwarded: false, hello: None };
        let taken =
            self.site.serve(SiteConnection { stream: unix(theirs), http, visitor, place: Box::new(held) });
        (taken, Client { stream, place })
    }

    fn connect(&self, http: Http, down: bool) -> Client {
        let (taken, client) = self.try_visit(http, down);
        assert!(taken, "the site is full");
        client
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The thread exits on the message, and also if the sender is gone.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
    }

    /// Reads the next response: its head in lower case, and its body.
    fn answer(&mut self, has_body: bool) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a head");
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
        let mut body = vec![0; if has_body { length } else { 0 }];
        self.stream.read_exact(&mut body).expect("a body");
        (head, String::from_utf8(body).expect("text"))
    }

    /// Reads until the site closes the connection.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an end");
        rest
    }

    fn status(&mut self, request: &[u8]) -> String {
        self.send(request);
        self.answer(true).0.split(' ').nth(1).expect("a status").to_owned()
    }

    /// Reads frames up to the first of this kind.
    fn frames_to(&mut self, kind: u8) -> Vec<(u8, u32, Vec<u8>)> {
        let mut received = Vec::new();
        loop {
            let mut frames = frames(&received);
            if let Some(at) = frames.iter().position(|(found, ..)| *found == kind) {
                frames.truncate(at + 1);
                return frames;
            }
            let mut piece = [0; 4096];
            let len = self.stream.read(&mut piece).expect("a frame");
            assert!(len > 0, "the connection ended after {frames:02x?}");
            received.extend_from_slice(&piece[..len]);
        }
    }

    /// Waits until the site has closed its end.
    fn wait_closed(&self) {
        assert_eq!(self.place.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "still open");
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Builds preface, settings and a GET on stream 1 (RFC 9113 section 6.2; RFC 7541 section 6.1).
fn h2_get() -> Vec<u8> {
    let block = b"\x82\x87\x84\x41\x01a";
    [PREFACE, &frame(4, 0, 0, b""), &frame(1, 0x5, 1, block)].concat()
}

/// Returns kind, stream and payload of each complete frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((&[a, b, c, kind, _, id @ ..], rest)) = bytes.split_first_chunk::<9>() {
        let Some((payload, rest)) = rest.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize) else {
            break;
        };
        all.push((kind, u32::from_be_bytes(id), payload.to_vec()));
        bytes = rest;
    }
    all
}

#[test]
fn a_page_is_complete_and_the_connection_stays_open() {
    let rig = Rig::new(AMPLE);
    let mut client = rig.connect(Http::One, false);
    client.send(GET);
    let (head, body) = client.answer(true);
    assert!(head.starts_with("http/1.1 404 not found\r\n"), "{head}");
    assert!(body.starts_with("<!DOCTYPE html>") && body.ends_with("</html>\n"), "{body}");
    for field in ["date: ", "content-type: text/html; charset=utf-8\r\n", "cache-control: no-store\r\n"] {
        assert_eq!(head.matches(&format!("\r\n{field}")).count(), 1, "{field} in {head}");
    }
    let all = format!("{head}{}", body.to_ascii_lowercase());
    for word in ["server", "strict-transport", "hallpass", "turn", "stun", "hyper", "axum", "retry"] {
        assert!(!all.contains(word), "{word} in {all}");
    }
    // A Content-Length without a body, then two requests in one write.
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer(false).0.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
    client.send(&[GET, GET].concat());
    assert_eq!((client.answer(true).1, client.answer(true).1), (body.clone(), body.clone()));
    for request in ["DELETE /x", "OPTIONS *", "CONNECT a:443", "PROPFIND /", "GET http://b/c"] {
        let request = format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.status(request.as_bytes()), "404", "{request}");
    }
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b");
    assert_eq!(client.answer(true).1, body);
    drop(client.stream);
    assert_eq!(client.place.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn the_client_can_close_the_connection() {
    let rig = Rig::new(AMPLE);
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n"] {
        let mut client = rig.connect(Http::One, false);
        client.send(request.as_bytes());
        assert!(client.answer(true).0.contains(" 404 not found\r\n"), "{request}");
        assert_eq!(client.rest(), b"", "{request}");
        client.wait_closed();
    }
    // A client that shuts down its direction is answered first.
    let mut client = rig.connect(Http::One, false);
    client.send(GET);
    client.stream.shutdown(std::net::Shutdown::Write).expect("half close");
    assert!(client.rest().starts_with(b"HTTP/1.1 404 Not Found\r\n"));
}

#[test]
fn an_unreachable_web_server_is_answered_with_one_502() {
    let rig = Rig::new(AMPLE);
    let mut client = rig.connect(Http::One, true);
    client.send(&[GET, GET].concat());
    let (head, body) = client.answer(true);
    assert!(head.starts_with("http/1.1 502 bad gateway\r\n") && body.contains("Try again"), "{head}{body}");
    assert!(head.contains("\r\nretry-after: 10\r\n") && head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(client.rest(), b"");

    let mut client = rig.connect(Http::Two, true);
    client.send(&h2_get());
    // The client acknowledges nothing, so the site waits for `finish` at most.
    let frames = frames(&client.rest());
    let (_, _, block) = frames.iter().find(|(kind, ..)| *kind == 1).expect("HEADERS");
    // `:status` by its index in the static table, then three digits in Huffman's code.
    assert_eq!((block[0] & 0x0f, block.len() > 20), (8, true), "{block:02x?}");
    assert!(
        frames
            .iter()
            .any(|(kind, stream, body)| *kind == 0 && *stream == 1 && body.starts_with(b"<!DOCTYPE"))
    );
    assert!(frames.iter().any(|(kind, ..)| *kind == 7), "no GOAWAY in {frames:02x?}");
    client.wait_closed();
}

#[test]
fn malformed_requests_are_refused_and_bounded() {
    let rig = Rig::new(AMPLE);
    let refused = |request: &[u8], code: &str| {
        let mut client = rig.connect(Http::One, false);
        client.send(request);
        let rest = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(rest.starts_with(&format!("HTTP/1.1 {code} ")), "{code} expected: {rest}");
        client.wait_closed();
    };
    refused(b"\x80\x01\x02 garbage\r\n\r\n", "400");
    refused(b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", "400");
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400");
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100)).as_bytes(), "431");
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\na: {}\r\n\r\n", "b".repeat(17 << 10)).as_bytes(), "431");
    // After a valid request.
    let mut client = rig.connect(Http::One, false);
    assert_eq!(client.status(GET), "404");
    client.send(b"\x00\xff\x00\xff\r\n\r\n");
    assert!(client.rest().starts_with(b"HTTP/1.1 400 "));
    // The client sends a whole body, which no page reads, before it reads the response.
    let mut client = rig.connect(Http::One, false);
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(&[b'x'; 200_000]);
    assert_eq!(client.answer(true).0.split(' ').nth(1), Some("404"));
    assert_eq!(client.rest(), b"");
    client.wait_closed();
}

#[test]
fn over_http_2_an_incomplete_body_does_not_block_the_response() {
    let rig = Rig::new(AMPLE);
    let mut client = rig.connect(Http::Two, false);
    // A POST with an incomplete body.
    let block = b"\x83\x87\x84\x41\x01a";
    let body = [0; 16_000];
    client.send(&[PREFACE, &frame(4, 0, 0, b""), &frame(1, 0x4, 1, block), &frame(0, 0, 1, &body)].concat());
    // RST_STREAM with NO_ERROR follows the complete response (RFC 9113 section 8.1).
    let frames = client.frames_to(3);
    let on_stream: Vec<u8> =
        frames.iter().filter(|(_, stream, _)| *stream == 1).map(|(kind, ..)| *kind).collect();
    assert_eq!((on_stream, frames.last().map(|(.., code)| &code[..])), (vec![1, 0, 3], Some(&[0; 4][..])));
    // The connection accepts the next request.
    client.send(&frame(1, 0x5, 3, b"\x82\x87\x84\x41\x01a"));
    assert!(client.frames_to(0).iter().any(|(kind, stream, _)| (*kind, *stream) == (1, 3)));
}

#[test]
fn garbage_over_http_2_ends_the_connection() {
    // After an error of one stream the connection ends because no request follows.
    let rig = Rig::new(SHORT);
    let settings = frame(4, 0, 0, b"");
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        [PREFACE, &frame(1, 0x4, 1, b"\x82")].concat(),
        [PREFACE, &settings, &frame(1, 0x5, 2, b"\x82")].concat(),
        [PREFACE, &settings, &frame(9, 0x4, 1, b"\x82")].concat(),
        [PREFACE, &settings, &frame(0, 0, 1, &[0; 16_385])].concat(),
        [&h2_get()[..], &frame(8, 0, 0, &[0; 4])].concat(),
        [PREFACE, &settings, &[0xff; 300]].concat(),
    ] {
        let mut client = rig.connect(Http::Two, false);
        // The site may close before it has read everything.
        let _ = client.stream.write_all(&garbage);
        let _ = client.stream.read_to_end(&mut Vec::new());
        client.wait_closed();
    }
}

#[test]
fn a_full_site_refuses_connections_until_one_closes() {
    let rig = Rig::new(AMPLE);
    let mut inside: Vec<Client> = (0..AMPLE.connections).map(|_| rig.connect(Http::One, false)).collect();
    let (taken, mut refused) = rig.try_visit(Http::One, false);
    assert!(!taken);
    assert_eq!(refused.rest(), b"");
    refused.wait_closed();
    let Client { stream, place } = inside.pop().expect("one");
    drop(stream);
    assert_eq!(place.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    // The site's own place is released a moment later, so this retries.
    let mut next = rig.try_visit(Http::One, false);
    while !next.0 {
        thread::yield_now();
        next = rig.try_visit(Http::One, false);
    }
    assert_eq!(next.1.status(GET), "404");
    assert!(inside.iter_mut().all(|client| client.status(GET) == "404"), "open connections are served");
}

/// One source has all places: visitors from other sources are served, and the connections that made room close at once.
#[test]
fn a_full_site_lets_other_sources_in() {
    let rig = Rig::new(AMPLE);
    let mut inside: Vec<Client> = (0..AMPLE.connections).map(|_| rig.connect(Http::One, false)).collect();
    assert!(inside.iter_mut().all(|client| client.status(GET) == "404"));
    // The first one sends another request, so it is not the least recent.
    assert_eq!(inside[0].status(GET), "404");
    for (http, request) in [(Http::One, GET.to_vec()), (Http::Two, h2_get())] {
        let (taken, mut elsewhere) = rig.visit_from("198.51.100.7:5000", http, false);
        assert!(taken);
        elsewhere.send(&request);
        assert!(elsewhere.stream.read(&mut [0; 16]).is_ok_and(|len| len > 0), "it is served");
        let mut displaced = inside.remove(1);
        assert_eq!(displaced.rest(), b"");
        displaced.wait_closed();
        inside.push(elsewhere);
    }
    let (taken, _) = rig.visit_from("198.51.100.7:5000", Http::One, false);
    assert!(!taken, "both sources have as many");
    assert_eq!(inside[0].status(GET), "404");
}

#[test]
fn silent_clients_are_closed() {
    let rig = Rig::new(SHORT);
    // Before a request, within one, and after one.
    for (request, answers) in [(&b""[..], false), (b"GET / HT", false), (GET, true)] {
        let mut client = rig.connect(Http::One, false);
        client.send(request);
        assert_eq!(client.rest().starts_with(b"HTTP/1.1 404 "), answers, "{request:?}");
        // The client does not close, and the site does not wait for it.
        client.wait_closed();
    }
    for (request, answers) in [(&b""[..], false), (PREFACE, false), (&h2_get(), true)] {
        let mut client = rig.connect(Http::Two, false);
        client.send(request);
        assert_eq!(frames(&client.rest()).iter().any(|(kind, ..)| *kind == 0), answers, "{request:?}");
        client.wait_closed();
    }
    rig.connect(Http::One, true).wait_closed();
}

#[test]
fn neither_frames_without_a_request_nor_unread_responses_keep_a_connection_open() {
    let rig = Rig::new(SHORT);
    let mut client = rig.connect(Http::Two, false);
    client.send(&h2_get());
    let ping = frame(6, 0, 0, &[7; 8]);
    let mut pings = 0_u64;
    // Every response is read, so the connection does not end for lack of buffer space.
    while client.stream.write_all(&ping).is_ok()
        && client.stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0)
    {
        pings += 1;
    }
    assert!(pings > 1, "{pings}");
    client.wait_closed();

    let mut client = rig.connect(Http::One, false);
    client.stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // Sends requests until the site stops because the responses are not read.
    while client.stream.write_all(GET).is_ok() {}
    client.wait_closed();
}

#[test]
fn a_handler_receives_the_clients_address() {
    async fn who(Extension(visitor): Extension<Visitor>) -> String {
        format!("{} at {}", visitor.client, visitor.server)
    }
    let rig = Rig::with(AMPLE, pages::within_rules(Router::new().route("/who", get(who))));
    let mut client = rig.connect(Http::One, false);
    client.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer(true).1, "192.0.2.1:5000 at 192.0.2.2:443");
    let mut client = rig.connect(Http::Two, false);
    let block = b"\x82\x87\x41\x01a\x04\x04/who";
    client.send(&[PREFACE, &frame(4, 0, 0, b""), &frame(1, 0x5, 1, block)].concat());
    let (.., body) = client.frames_to(0).pop().expect("DATA");
    assert_eq!(body, b"192.0.2.1:5000 at 192.0.2.2:443");
}
