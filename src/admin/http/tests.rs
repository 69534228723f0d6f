use super::*;
use crate::admin::history::Reading;
use crate::admin::sessions::Session;
use crate::admin::state::State as ServerState;
use crate::admin::{Latch, Snapshot};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::net::TcpStream;
use tokio::sync::oneshot;

/// A name in the configuration.
const NAME: &str = "relay.example.org";

struct Figures;

impl MetricSource for Figures {
    fn collect(&self, out: &mut Snapshot) {
        out.counter("hallpass_bindings_total", "Binding requests answered", &[("transport", "udp")], 5);
    }
}

struct NoChecks;
impl CheckSource for NoChecks {
    fn checks(&self, code: Option<&str>) -> Value {
        serde_json::json!({ "checks": [], "held": 0, "asked": code })
    }
}

struct NoSessions;

impl SessionSource for NoSessions {
    fn read(&self, _: &mut dyn FnMut(Session)) -> bool {
        true
    }

    fn allocations_per_user(&self) -> u32 {
        0
    }

    fn now(&self) -> u64 {
        0
    }
}

/// A server whose clock shows 50 s.
struct Running;

impl StateSource for Running {
    fn reading(&self) -> Option<Reading> {
        Some(Reading { users: 3, memory: 1000, ..Reading::default() })
    }

    fn state(&self) -> Option<ServerState> {
        Some(ServerState {
            descriptors_max: 100,
            hosts: vec!["<b>ping</b>".to_owned()],
            ..ServerState::default()
        })
    }

    fn now(&self) -> u64 {
        1_800_000_000
    }

    fn monotonic(&self) -> u64 {
        50_000_000_000
    }
}

struct Rig {
    address: SocketAddr,
    readiness: Readiness,
    latch: Option<Latch>,
    /// Holding it delays `/sessions`.
    reading: Arc<Mutex<()>>,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

async fn rig(limits: AdminLimits) -> Rig {
    rig_behind(limits, Door { names: vec![NAME.to_owned()], ..Door::default() }).await
}

async fn rig_behind(limits: AdminLimits, door: Door) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::default();
    let latch = Some(readiness.latch("listeners"));
    let (stop, stopped) = oneshot::channel::<()>();
    let reading = Arc::default();
    let content = Content {
        metrics: vec![Arc::new(Figures)],
        readiness: readiness.clone(),
        sessions: Arc::new(NoSessions),
        refusals: Book::default(),
        checks: Arc::new(NoChecks),
        reading: Arc::clone(&reading),
        program: Program { version: "1.2.3", revision: None, started: 1_799_999_000 },
        state: Arc::new(Running),
        history: Arc::default(),
    };
    content.history.record(40_000_000_000, Reading::default());
    let stopped = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve_within(limits, listener, door, content, stopped));
    Rig { address, readiness, latch, reading, stop, server }
}

/// Sends these bytes and reads until the server closes; errors count as a close.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let request = request.to_vec();
    let talk = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(&request);
        rest(stream)
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

/// Reads until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

async fn page(address: SocketAddr, path: &str) -> String {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn each_page_has_its_status_and_content() {
    let mut rig = rig(LIMITS).await;
    let index = page(rig.address, "/").await;
    assert!(index.starts_with("HTTP/1.1 200") && index.contains("/metrics") && index.contains("/readyz"));
    assert!(index.contains("connection: close"), "{index}");
    let metrics = page(rig.address, "/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.ends_with("hallpass_bindings_total{transport=\"udp\"} 5\n"), "{metrics}");
    let sessions = page(rig.address, "/sessions?host=ping&user=w%5fann").await;
    assert!(
        sessions.contains("content-type: application/json") && sessions.contains("\"total\": 0"),
        "{sessions}"
    );
    assert!(page(rig.address, "/refusals").await.contains("\"refusals\": []"));
    assert!(page(rig.address, "/sessions?hots=ping").await.starts_with("HTTP/1.1 400"));
    assert!(page(rig.address, "/healthz").await.starts_with("HTTP/1.1 200"));

    let starting = page(rig.address, "/readyz").await;
    assert!(
        starting.starts_with("HTTP/1.1 503") && starting.ends_with("waiting for listeners\n"),
        "{starting}"
    );
    rig.latch = None;
    assert!(page(rig.address, "/readyz").await.starts_with("HTTP/1.1 200"));
    rig.readiness.set_draining(true);
    let draining = page(rig.address, "/readyz").await;
    assert!(draining.starts_with("HTTP/1.1 503") && draining.ends_with("draining\n"));
    assert!(page(rig.address, "/healthz").await.starts_with("HTTP/1.1 200"), "alive while draining");

    assert!(page(rig.address, "/nothing").await.starts_with("HTTP/1.1 404"));
    let post =
        exchange(rig.address, b"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            .await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[tokio::test]
async fn names_that_an_attacker_may_own_are_refused_on_every_page() {
    let rig = rig(LIMITS).await;
    let ask = async |target: &str, host: &str| {
        exchange(rig.address, format!("GET {target} HTTP/1.1\r\n{host}\r\n").as_bytes()).await
    };
    let literal = format!("Host: {}\r\n", rig.address);
    let upper = format!("Host: {}\r\n", NAME.to_uppercase());
    for host in [
        &*literal,
        "Host: 127.0.0.1\r\n",
        "Host: 192.0.2.1:9641\r\n",
        "Host: [::1]:9641\r\n",
        "Host: LOCALHOST:9641\r\n",
        "Host: localhost.\r\n",
        "Host: relay.example.org:9641\r\n",
        &*upper,
    ] {
        let answer = ask("/metrics", host).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("hallpass_bindings"),
            "{host}: {answer}"
        );
    }
    for host in [
        "Host: rebound.example.net:9641\r\n",
        "Host: localhost.example.net\r\n",
        "Host: example.org\r\n",
        "Host: 127.0.0.1.example.net\r\n",
        "Host: localhost@example.net\r\n",
        "Host: [localhost]\r\n",
        "Host: [::1].example.net\r\n",
        "Host: eve@127.0.0.1\r\n",
        "Host: 127.0.0.1:x\r\n",
        "Host: 127.0.0.1\r\nHost: example.net\r\n",
        "Host: \r\n",
        "Host: \u{e9}\r\n",
    ] {
        for page in ["/metrics", "/", "/healthz", "/nothing"] {
            let answer = ask(page, host).await;
            assert!(!answer.contains(" 200 ") && !answer.contains("hallpass_bindings"), "{host}: {answer}");
        }
    }
    let refused = ask("/metrics", "Host: rebound.example.net\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{refused}");
    assert!(refused.contains("\r\nconnection: close\r\n"), "{refused}");
    assert!(refused.contains("[admin]\nnames = "), "{refused}");
    // The host of an absolute URI is checked too.
    let refused = ask("http://rebound.example.net/metrics", "Host: localhost\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    assert!(exchange(rig.address, b"GET /metrics HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn a_large_request_is_cut_off() {
    let rig = rig(LIMITS).await;
    let mut request = b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    request.resize(64 * 1024, b'y');
    request.extend(b"\r\n\r\n");
    let answer = exchange(rig.address, &request).await;
    assert!(!answer.contains(" 200 "), "{answer}");
}

/// Opens connections that send half a request, while the server accepts them.
async fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let open = move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        // An error if the server has closed it already.
        let _ = stream.write_all(b"GET / HT");
        stream
    };
    tokio::task::spawn_blocking(move || (0..count).map(open).collect()).await.unwrap()
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    // Deadlines that the test does not reach: the newcomer takes a place at once.
    let limits = AdminLimits {
        head: Duration::from_secs(600),
        time: Duration::from_secs(600),
        of_source: 4,
        ..LIMITS
    };
    let rig = rig(limits).await;
    let idle = idle(rig.address, 400).await;
    for _ in 0..8 {
        assert!(page(rig.address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
    drop(idle);
}

#[tokio::test]
async fn a_slow_request_is_ended_and_a_slow_answer_is_not() {
    let head = Duration::from_millis(100);
    let rig = rig(AdminLimits { head, time: Duration::from_secs(600), ..LIMITS }).await;
    let ended = async |streams: Vec<TcpStream>| {
        for stream in streams {
            let answer = tokio::task::spawn_blocking(move || rest(stream)).await.unwrap();
            assert!(!answer.contains(" 200 "), "{answer}");
        }
    };
    let busy = Arc::clone(&rig.reading).lock_owned().await;
    let mut waiting = TcpStream::connect(rig.address).unwrap();
    waiting.write_all(b"GET /sessions HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    // They are accepted after it: when their time is over, its own time for the head is over, too.
    ended(idle(rig.address, 2).await).await;
    drop(busy);
    let answer = tokio::task::spawn_blocking(move || rest(waiting)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_cut_off() {
    let time = Duration::from_millis(200);
    let rig = rig(AdminLimits { head: time / 2, time, ..LIMITS }).await;
    let _busy = Arc::clone(&rig.reading).lock_owned().await;
    assert_eq!(page(rig.address, "/sessions").await, "");
}

#[tokio::test]
async fn the_server_stops_on_request() {
    let rig = rig(LIMITS).await;
    assert!(page(rig.address, "/").await.starts_with("HTTP/1.1 200"));
    rig.stop.send(()).unwrap();
    rig.server.await.unwrap().unwrap();
    assert!(TcpStream::connect(rig.address).is_err());
}

#[tokio::test]
async fn browsers_get_the_dashboard_and_its_files_with_a_strict_policy() {
    let rig = rig(LIMITS).await;
    let ask = async |path: &str, accept: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
        exchange(rig.address, request.as_bytes()).await
    };
    for page in [ask("/", "text/html,*/*;q=0.8").await, ask("/dashboard", "*/*").await] {
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("<html lang=\"en\">"), "{page}");
        for header in [
            "content-type: text/html; charset=utf-8\r\n",
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "frame-ancestors 'none'",
            "referrer-policy: no-referrer\r\n",
            "cache-control: no-store\r\n",
            "x-content-type-options: nosniff\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
        ] {
            assert!(page.contains(header), "{header}: {page}");
        }
        assert!(!page.to_lowercase().contains("set-cookie"));
    }
    assert!(ask("/", "*/*").await.contains("hallpass admin\n"), "curl gets text");
    assert!(ask("/", "*/*").await.contains("vary: accept\r\n"));
    for path in dashboard::paths() {
        let file = ask(path, "*/*").await;
        assert!(file.starts_with("HTTP/1.1 200") && file.contains("script-src 'self'"), "{path}: {file}");
    }
    assert!(ask("/dashboard/absent.js", "*/*").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_dashboard_reads_state_and_past_as_json() {
    let rig = rig(LIMITS).await;
    let body = |answer: String| -> Value {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    };
    let overview = body(page(rig.address, "/overview").await);
    assert_eq!((&overview["version"], &overview["ready"]), (&"1.2.3".into(), &false.into()));
    assert_eq!(overview["problems"][0]["level"], "bad");
    assert_eq!(
        (&overview["levels"]["users"], &overview["state"]["descriptors_max"]),
        (&3.into(), &100.into())
    );
    assert_eq!(overview["state"]["hosts"][0], "<b>ping</b>");
    let history = body(page(rig.address, "/history?span=day&after=0").await);
    assert_eq!((&history["step"], &history["live"]["users"]), (&300.into(), &3.0.into()));
    for query in ["span=week", "after=-1", "spam=hour"] {
        let answer = page(rig.address, &format!("/history?{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{query}: {answer}");
    }
}

#[tokio::test]
async fn with_a_token_every_page_wants_it_but_health_and_readiness() {
    let door = Door { access: Some(Access::new("the-token-of-the-test")), ..Door::default() };
    let rig = rig_behind(LIMITS, door).await;
    let ask = async |path: &str, token: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: any.example\r\n{token}\r\n");
        exchange(rig.address, request.as_bytes()).await
    };
    let good = "authorization: Bearer the-token-of-the-test\r\n";
    let wrong = "authorization: Bearer another-token-of-the-test\r\n";
    for path in ["/", "/dashboard", "/metrics", "/sessions", "/refusals", "/overview", "/history", "/nothing"]
    {
        let refused = ask(path, "").await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{path}: {refused}");
        for scheme in ["Basic realm=\"hallpass admin\"", "Bearer\r\n"] {
            assert!(refused.contains(&format!("www-authenticate: {scheme}")), "{refused}");
        }
        assert!(!refused.contains("hallpass_bindings"));
    }
    assert!(ask("/metrics", good).await.contains("hallpass_bindings_total"), "any name is answered");
    assert!(ask("/healthz", "").await.ends_with("ok\n"));
    assert!(ask("/readyz", good).await.ends_with("waiting for listeners\n"));
    let posted = exchange(rig.address, b"POST /readyz HTTP/1.1\r\nhost: any.example\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405") && !posted.contains("not ready"), "{posted}");
    let without = ask("/readyz", "").await;
    assert!(without.starts_with("HTTP/1.1 503") && without.ends_with("not ready\n"), "{without}");

    for _ in 0..10 {
        assert!(ask("/metrics", wrong).await.starts_with("HTTP/1.1 401"));
    }
    let waiting = ask("/metrics", good).await;
    assert!(waiting.starts_with("HTTP/1.1 429") && waiting.contains("retry-after: "), "{waiting}");
    assert!(ask("/healthz", "").await.starts_with("HTTP/1.1 200"), "health is still answered");
}
