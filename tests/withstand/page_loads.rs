//! A thousand loads of the test page in a minute from one address, and their effect on calls.

use crate::call::{Call, Report};
use crate::steady::undisturbed_within;
use crate::support::alone;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use hallpass::load::tls::AnyCertificate;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// 1,000 in a minute.
const PAUSE: Duration = Duration::from_millis(60);
const LOADS: u32 = 100;
/// How long the calls are measured without loads.
const QUIET: Duration = Duration::from_secs(4);
/// The visitor, another address than that of the callers.
const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const NAME: &str = "first.test";
/// What a browser fetches.
const FILES: [&str; 11] = [
    "",
    "style.css",
    "icon.svg",
    "main.js",
    "language.js",
    "letter.js",
    "media.js",
    "rung.js",
    "verdict.js",
    "view.js",
    "lang/en.json",
];
/// Logins that a source may take at once; then one a second.
const BURST: u32 = 60;
/// By so much the loads may delay the slowest packet of a hundred.
const DELAY: Duration = Duration::from_millis(1);
/// A call alone that is slower is disturbed by something else, and no measure for anything.
const CALM: Duration = Duration::from_millis(2);
/// On a processor whose witness wakes up later, a millisecond cannot be seen.
const STEADY: Duration = Duration::from_micros(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    /// HTTP/1.1: one for each request. HTTP/2: one for each load.
    New,
    One,
}

/// What the visitor got.
#[derive(Debug, Default)]
struct Seen {
    files: u32,
    logins: u32,
    refused: u32,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(server: SocketAddr, http: Http, tls: &TlsConnector) -> Connection {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(VISITOR.into(), 0)).unwrap();
        let stream = socket.connect(server).await.expect("a connection");
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream: TlsStream<TcpStream> = tls.connect(name, stream).await.expect("a handshake");
        let stream = TokioIo::new(stream);
        match http {
            Http::One => {
                let (sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::task::spawn_local(connection);
                Connection::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::task::spawn_local(connection);
                Connection::Two(sender)
            }
        }
    }

    /// Sends a request and returns the status and the Retry-After field.
    async fn ask(&mut self, server: SocketAddr, path: &str) -> (StatusCode, Option<String>) {
        let is_login = path == "credentials";
        let (method, body) = if is_login { (Method::POST, "{}") } else { (Method::GET, "") };
        let request = Request::builder().method(method);
        let request = match self {
            Connection::One(_) => request.uri(format!("/check/{path}")).header("host", NAME),
            Connection::Two(_) => request.uri(format!("https://{NAME}:{}/check/{path}", server.port())),
        };
        let request = match is_login {
            true => request.header("x-check", "1").header("content-type", "application/json"),
            false => request.header("accept-encoding", "gzip"),
        };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer: Response<_> = match self {
            Connection::One(sender) => {
                sender.ready().await.expect("an open connection");
                sender.send_request(request).await
            }
            Connection::Two(sender) => sender.send_request(request).await,
        }
        .unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = answer.status();
        let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        assert!(!body.is_empty(), "{path}: {status} without a body");
        (status, retry)
    }
}

/// Loads the page once, over `shared` if there is one.
async fn load(
    server: SocketAddr,
    http: Http,
    tls: TlsConnector,
    shared: Option<Rc<Mutex<Connection>>>,
) -> Seen {
    let mut seen = Seen::default();
    let mut own: Option<Connection> = None;
    for path in FILES.iter().copied().chain(["credentials"]) {
        let (status, retry) = match &shared {
            Some(shared) => shared.lock().await.ask(server, path).await,
            None => {
                let mut connection = match own.take() {
                    Some(connection) if http == Http::Two => connection,
                    _ => Connection::open(server, http, &tls).await,
                };
                let answer = connection.ask(server, path).await;
                own = Some(connection);
                answer
            }
        };
        match (path, status) {
            ("credentials", StatusCode::OK) => seen.logins += 1,
            ("credentials", StatusCode::TOO_MANY_REQUESTS) => {
                assert!(retry.is_some(), "a refusal without Retry-After");
                seen.refused += 1;
            }
            (path, StatusCode::OK) if path != "credentials" => seen.files += 1,
            (path, status) => panic!("{path}: {status}"),
        }
    }
    seen
}

/// Loads the page [`LOADS`] times, at the rate of 1,000 in a minute.
fn loads(server: SocketAddr, http: Http, connections: Connections) -> Seen {
    // The visitor is another computer: on this one it must not take the processor from the server.
    rustix::process::nice(19).expect("a thread may be nice");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::any(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![if http == Http::Two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    // Each new connection costs the server a whole handshake.
    config.resumption = Resumption::disabled();
    let tls = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let shared = match connections {
            Connections::One => Some(Rc::new(Mutex::new(Connection::open(server, http, &tls).await))),
            Connections::New => None,
        };
        let (start, mut all) = (Instant::now(), Vec::new());
        for number in 0..LOADS {
            sleep_until(start + PAUSE * number).await;
            all.push(tokio::task::spawn_local(load(server, http, tls.clone(), shared.clone())));
        }
        let mut sum = Seen::default();
        for one in all {
            let Seen { files, logins, refused } = one.await.expect("a load");
            sum.files += files;
            sum.logins += logins;
            sum.refused += refused;
        }
        sum
    })
}

/// Measures a call over UDP and one over TLS, first alone and then beside the loads. Returns whether they were undisturbed.
fn beside_loads(http: Http, connections: Connections) -> bool {
    let limits = "connections_exempt = []".to_owned();
    let server = Server::start(&Plan {
        limits,
        tls: "web = true".to_owned(),
        ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"])
    });
    let both = |during: &mut dyn FnMut(&Call)| -> Vec<Report> {
        let calls = [Transport::Udp, Transport::Tls].map(|transport| Call::over(&server, transport, 100));
        during(&calls[0]);
        calls.into_iter().map(Call::end).collect()
    };
    let alone = both(&mut |call| call.lasts(QUIET));
    let (mut seen, start) = (Seen::default(), Instant::now());
    let beside = both(&mut |call| {
        let address = server.v4(Transport::Tls);
        let visitor = thread::spawn(move || loads(address, http, connections));
        while !visitor.is_finished() {
            call.goes_on();
        }
        seen = visitor.join().expect("the loads end");
    });
    let seconds = start.elapsed().as_secs() as u32;
    for (transport, (alone, beside)) in ["UDP", "TLS"].iter().zip(alone.iter().zip(&beside)) {
        println!(
            "page loads, {http:?}, {connections:?}, over {transport}: alone {alone}; beside them {beside}"
        );
    }
    println!("page loads, {http:?}, {connections:?}: {seen:?}");
    assert_eq!(seen.files, LOADS * FILES.len() as u32);
    assert_eq!(seen.logins + seen.refused, LOADS);
    assert!((BURST..=BURST + seconds + 1).contains(&seen.logins), "{seen:?} in {seconds} s");
    alone.iter().zip(&beside).all(|(alone, beside)| {
        beside.lost() == 0 && beside.quantile(0.99) <= alone.quantile(0.99).min(CALM) + DELAY
    })
}

/// Over each version of HTTP, with new connections and with one.
#[test]
fn a_thousand_page_loads_a_minute_are_limited_and_delay_no_call() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    for http in [Http::One, Http::Two] {
        for connections in [Connections::New, Connections::One] {
            undisturbed_within(STEADY, "page loads", || beside_loads(http, connections));
        }
    }
}
