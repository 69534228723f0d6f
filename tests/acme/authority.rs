//! An authority that does as it is told. It validates nothing, so it shows what a server does with bad answers.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::certs::{self, Kind};
use crate::support::files::Directory;

/// What the authority does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Issues what is ordered.
    Good,
    /// Refuses each order and asks for an hour's patience.
    Refuse,
    /// Accepts connections and says nothing.
    Silent,
    /// Closes each connection.
    Close,
    /// Issues for a key of its own.
    WrongKey,
    /// Issues for another name.
    OtherName,
    /// Sends text in the place of a certificate.
    Garbage,
    /// Issues for six days.
    SixDays,
    /// Sends a web page in the place of each answer.
    WebPage,
    /// Sends answers without an end.
    Endless,
    /// Sends everybody elsewhere.
    Elsewhere,
    /// Wants to be asked tomorrow whether the order is ready.
    Tomorrow,
    /// Reads a request and says nothing.
    NoHead,
    /// Begins an answer and goes on with a byte a second.
    SlowBody,
}

/// The profiles that it has.
const PROFILES: [&str; 2] = ["classic", "shortlived"];

type Tls = StreamOwned<ServerConnection, TcpStream>;

struct State {
    mode: Mode,
    /// The renewal window that it suggests, as RFC 3339.
    window: Option<[&'static str; 2]>,
    /// The content of each order.
    orders: Vec<Value>,
    /// The certificate of the last order.
    chain: String,
    /// Connections that nothing is said on.
    held: Vec<TcpStream>,
}

/// A running authority. It ends with the test process at the latest.
pub struct Authority {
    files: Arc<Directory>,
    state: Arc<Mutex<State>>,
    port: u16,
    ends: Arc<AtomicBool>,
}

impl Authority {
    pub fn start(window: Option<[&'static str; 2]>) -> Authority {
        let files = Arc::new(Directory::new("authority"));
        let made = certs::made(Kind::Good, "localhost");
        files.write("ca.pem", &made.ca);
        let subject = ["-subj", "/CN=An authority of the tests", "-days", "3650", "-nodes"];
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
        ];
        openssl(&files, &[&["req", "-x509"][..], &subject, &key].concat());
        let chain =
            CertificateDer::pem_slice_iter(made.cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state =
            State { mode: Mode::Good, window, orders: Vec::new(), chain: String::new(), held: Vec::new() };
        let authority = Authority {
            files,
            state: Arc::new(Mutex::new(state)),
            port,
            ends: Arc::new(AtomicBool::new(false)),
        };
        let (files, state, ends) =
            (Arc::clone(&authority.files), Arc::clone(&authority.state), Arc::clone(&authority.ends));
        let config = Arc::new(config);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (files, state, config) = (Arc::clone(&files), Arc::clone(&state), Arc::clone(&config));
                thread::spawn(move || serve(stream, config, &files, &state, port));
            }
        });
        authority
    }

    pub fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub fn orders(&self) -> Vec<Value> {
        self.state.lock().unwrap().orders.clone()
    }

    /// The lines of `[acme]` that name it.
    pub fn lines(&self) -> String {
        format!(
            "directory = \"https://localhost:{}/directory\"\nca_file = {:?}\n",
            self.port,
            self.files.path("ca.pem")
        )
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Runs openssl in the directory.
fn openssl(files: &Directory, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(files.path("")).output().expect("openssl");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves one request.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, files: &Directory, state: &Mutex<State>, port: u16) {
    let mode = state.lock().unwrap().mode;
    match mode {
        Mode::Silent => return state.lock().unwrap().held.push(stream),
        Mode::Close => return,
        _ => {}
    }
    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut reader = BufReader::new(tls);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    match mode {
        Mode::NoHead => return hold(reader.into_inner(), state),
        Mode::WebPage => {
            return send(reader.get_mut(), "200 OK", "<!DOCTYPE html>\n<title>Welcome</title>\n");
        }
        Mode::Elsewhere => {
            let status = format!("302 Found\r\nLocation: https://localhost:{port}/elsewhere");
            return send(reader.get_mut(), &status, "");
        }
        Mode::Endless => return pour(reader.get_mut()),
        Mode::SlowBody => return drip(reader.get_mut()),
        _ => {}
    }
    let payload = serde_json::from_slice::<Value>(&body).ok();
    let payload = payload.and_then(|jws| URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok());
    let payload = payload.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(Value::Null);
    let (status, headers, answer) = answer(&path, &payload, mode, files, state, port);
    let length = answer.len();
    let answer = if method == "HEAD" { String::new() } else { answer };
    let head = format!(
        "HTTP/1.1 {status} X\r\nReplay-Nonce: bm9uY2U\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let tls = reader.get_mut();
    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(answer.as_bytes()));
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn send(tls: &mut Tls, status: &str, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(body.as_bytes()));
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

/// Keeps the connection open.
fn hold(tls: Tls, state: &Mutex<State>) {
    state.lock().unwrap().held.push(tls.sock);
}

/// Sends until the client has had enough.
fn pour(tls: &mut Tls) {
    let head = "HTTP/1.1 200 OK\r\nReplay-Nonce: bm9uY2U\r\nContent-Type: application/json\r\n\r\n{\"a\": \"";
    if tls.write_all(head.as_bytes()).is_ok() {
        while tls.write_all(&[b'a'; 1 << 14]).is_ok() {}
    }
}

/// Sends a byte a second until the client has had enough.
fn drip(tls: &mut Tls) {
    let head = "HTTP/1.1 200 OK\r\nReplay-Nonce: bm9uY2U\r\nContent-Length: 10000\r\n\r\n";
    let mut sent = tls.write_all(head.as_bytes());
    while sent.is_ok() {
        thread::park_timeout(Duration::from_secs(1));
        sent = tls.write_all(b" ").and_then(|()| tls.flush());
    }
}

fn answer(
    path: &str,
    payload: &Value,
    mode: Mode,
    files: &Directory,
    state: &Mutex<State>,
    port: u16,
) -> (u16, String, String) {
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let order = |status: &str, replaces: &Value| {
        let mut order = json!({
            "status": status,
            "identifiers": [],
            "authorizations": [],
            "finalize": url("/finalize"),
            "certificate": url("/certificate"),
        });
        if !replaces.is_null() {
            order["replaces"] = replaces.clone();
        }
        order.to_string()
    };
    let location = |path: &str| format!("Location: {}\r\n", url(path));
    let mut state = state.lock().unwrap();
    match path {
        "/directory" => {
            let mut directory = json!({
                "newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/new-order"),
                "meta": { "profiles": PROFILES.map(|name| (name, "as its name says")).into_iter().collect::<HashMap<_, _>>() },
            });
            if state.window.is_some() {
                directory["renewalInfo"] = url("/renewal").into();
            }
            (200, String::new(), directory.to_string())
        }
        "/nonce" => (200, String::new(), String::new()),
        "/account" => (201, location("/account/1"), json!({ "status": "valid" }).to_string()),
        "/new-order" if mode == Mode::Refuse => {
            let problem = json!({
                "type": "urn:ietf:params:acme:error:rateLimited",
                "detail": "too many certificates for this domain",
            });
            (429, "Retry-After: 3600\r\n".to_owned(), problem.to_string())
        }
        "/new-order" if payload["profile"].as_str().is_some_and(|profile| !PROFILES.contains(&profile)) => {
            let problem =
                json!({ "type": "urn:ietf:params:acme:error:invalidProfile", "detail": "no such profile" });
            (400, String::new(), problem.to_string())
        }
        "/new-order" => {
            state.orders.push(payload.clone());
            (201, location("/order/1"), order("ready", &payload["replaces"]))
        }
        "/finalize" if mode == Mode::Tomorrow => {
            (200, "Retry-After: 86400\r\n".to_owned(), order("processing", &Value::Null))
        }
        "/finalize" => {
            let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
            let names = state.orders.last().unwrap()["identifiers"].as_array().unwrap().clone();
            state.chain = issue(files, &csr, &names, mode);
            (200, String::new(), order("processing", &Value::Null))
        }
        "/order/1" if mode == Mode::Tomorrow => {
            (200, "Retry-After: 86400\r\n".to_owned(), order("processing", &Value::Null))
        }
        "/order/1" => (200, String::new(), order("valid", &Value::Null)),
        "/certificate" => (200, String::new(), state.chain.clone()),
        _ if path.starts_with("/renewal/") => {
            let [start, end] = state.window.expect("asked for a window");
            let window = json!({ "suggestedWindow": { "start": start, "end": end } });
            (200, "Retry-After: 21600\r\n".to_owned(), window.to_string())
        }
        _ => (404, String::new(), "{}".to_owned()),
    }
}

fn issue(files: &Directory, csr: &[u8], names: &[Value], mode: Mode) -> String {
    if mode == Mode::Garbage {
        return "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n".to_owned();
    }
    std::fs::write(files.path("request.der"), csr).unwrap();
    let names: Vec<String> = match mode {
        Mode::OtherName => vec!["DNS:other.example.org".to_owned()],
        _ => names.iter().map(|name| format!("DNS:{}", name["value"].as_str().unwrap())).collect(),
    };
    files.write(
        "extensions",
        &format!("subjectAltName = {}\nauthorityKeyIdentifier = keyid\n", names.join(", ")),
    );
    let request = match mode {
        Mode::WrongKey => {
            let key =
                ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "other.key"];
            openssl(files, &[&["req", "-new", "-subj", "/CN=x", "-out", "other.pem"][..], &key].concat());
            ["-in", "other.pem", "-inform", "pem"]
        }
        _ => ["-in", "request.der", "-inform", "der"],
    };
    let days = if mode == Mode::SixDays { "6" } else { "30" };
    let by = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", days];
    openssl(
        files,
        &[&["x509", "-req", "-extfile", "extensions", "-out", "leaf.pem"][..], &request, &by].concat(),
    );
    let read = |name: &str| std::fs::read_to_string(Path::new(&files.path(name))).unwrap();
    read("leaf.pem") + &read("root.pem")
}
