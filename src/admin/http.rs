//! The pages of the admin address: the dashboard, `/metrics`, `/healthz`, `/readyz`, `/sessions`, `/refusals`, `/checks`, and what the
//! dashboard reads besides: `/overview`, `/history`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use super::access::{self, Access, Source};
use super::checks::CheckSource;
use super::dashboard;
use super::history::{History, Reading, STEP, Span};
use super::host::{self, Names};
use super::listener::{AdminLimits, BoundedListener};
use super::metrics::{self, MetricSource};
use super::overview::{self, Parts};
use super::problems;
use super::readiness::Readiness;
use super::refusals::{self, Book};
use super::sessions::{self, SessionSource};
use super::state::{Program, StateSource};

/// Enough for a few scrapers and browsers. A browser opens at most six connections at a time.
const LIMITS: AdminLimits = AdminLimits {
    connections: 64,
    of_source: 16,
    request_bytes: 16 * 1024,
    head: Duration::from_secs(5),
    time: Duration::from_secs(10),
};

/// Interval of the checks whether the workers have started.
const STARTED_CHECK: Duration = Duration::from_millis(500);

const INDEX: &str = "\
hallpass admin
/dashboard  for a browser: is all well, charts, refusals, sessions
/metrics    counters and gauges for Prometheus
/healthz    200 while the process runs
/readyz     200 when clients can be served, 503 with the reason if not
/sessions   who is connected, as JSON; ?host=NAME and ?user=PART select
/refusals   who was refused lately and why, as JSON; ?host=NAME, ?user=PART and ?reason=REASON select
/checks     what visitors of the test page found, as JSON; ?code=CODE selects
/overview   state of the server and what is wrong with it, as JSON
/history    figures of the last hour or day, as JSON; ?span=hour or ?span=day, ?after=NUMBER the points after that one
";

/// The data that the pages show.
#[derive(Clone)]
pub struct Content {
    /// The metrics.
    pub metrics: Vec<Arc<dyn MetricSource>>,
    /// Whether clients can be served.
    pub readiness: Readiness,
    /// The sessions.
    pub sessions: Arc<dyn SessionSource>,
    /// The refusals.
    pub refusals: Book,
    /// The results of the test page.
    pub checks: Arc<dyn CheckSource>,
    /// Held while the sessions are read: one request at a time.
    pub reading: Arc<Mutex<()>>,
    /// The program.
    pub program: Program,
    /// The state of the server.
    pub state: Arc<dyn StateSource>,
    /// The recent past.
    pub history: Arc<History>,
}

/// Who may come in, and how.
#[derive(Clone, Default)]
pub struct Door {
    /// Host names that requests may use besides IP addresses and `localhost`. Not checked with a token: no web page can send
    /// it.
    pub names: Vec<String>,
    /// Requests need its token.
    pub access: Option<Access>,
    /// Connections use TLS.
    pub tls: Option<TlsAcceptor>,
}

/// What a page is to show; empty: everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection {
    host: String,
    user: String,
    reason: String,
}

impl Selection {
    /// Reads a selection from the query of a request.
    ///
    /// # Errors
    /// 400 if the query has another key.
    fn of(uri: &Uri) -> Result<Self, (StatusCode, String)> {
        let mut selection = Self::default();
        for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let field = match &*key {
                "host" => &mut selection.host,
                "user" => &mut selection.user,
                "reason" => &mut selection.reason,
                _ => {
                    let text = "the query may contain host=NAME, user=PART and reason=REASON\n";
                    return Err((StatusCode::BAD_REQUEST, text.to_owned()));
                }
            };
            *field = value.into_owned();
        }
        Ok(selection)
    }
}

/// Serves the admin pages on a listener until `stop` completes, and records the figures of the dashboard meanwhile. At most 64
/// connections are open at a time, 16 of one source. Each carries one request of at most 16 KiB, sent within five seconds, and
/// lasts at most ten seconds.
///
/// # Errors
/// The error of the listener.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    content: Content,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let recording = tokio::spawn(record(Arc::clone(&content.state), Arc::clone(&content.history)));
    let served = serve_within(LIMITS, listener, door, content, stop).await;
    recording.abort();
    served
}

async fn serve_within(
    limits: AdminLimits,
    listener: TcpListener,
    door: Door,
    content: Content,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = BoundedListener::new(listener, door.tls.clone(), limits);
    let service = router(content, door).into_make_service_with_connect_info::<Source>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await
}

/// Reads the figures as soon as there are any, and then every ten seconds. Reads counters only: no worker is asked.
async fn record(state: Arc<dyn StateSource>, history: Arc<History>) {
    // Counters are 0 at the start, so that what happens before the first reading counts too.
    history.record(state.monotonic(), Reading::default());
    let mut started = tokio::time::interval(STARTED_CHECK);
    let first = loop {
        started.tick().await;
        if let Some(reading) = state.reading() {
            break reading;
        }
    };
    history.record(state.monotonic(), first);
    let mut due = tokio::time::interval(STEP);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    due.reset();
    loop {
        due.tick().await;
        if let Some(reading) = state.reading() {
            history.record(state.monotonic(), reading);
        }
    }
}

fn router(content: Content, door: Door) -> Router {
    let mut router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .route("/sessions", get(sessions_page))
        .route("/refusals", get(refusals_page))
        .route("/checks", get(checks_page))
        .route("/overview", get(overview_page))
        .route("/history", get(history_page));
    for path in dashboard::paths() {
        router = router.route(path, get(|uri: Uri| async move { dashboard::file(uri.path()) }));
    }
    let router = router.fallback(|| async { (StatusCode::NOT_FOUND, INDEX) });
    let router = match door.access {
        Some(access) => router.layer(from_fn_with_state(access, access::check)),
        None => router.layer(from_fn_with_state(Names::new(door.names), host::admit)),
    };
    router.layer(map_response(with_headers)).layer(from_fn(note_request)).with_state(content)
}

/// Notes that the request has been read, before anything else is done.
async fn note_request(ConnectInfo(source): ConnectInfo<Source>, request: Request, next: Next) -> Response {
    source.request_read();
    next.run(request).await
}

/// The dashboard for a browser, the list of pages for all else.
async fn index(headers: HeaderMap) -> Response {
    let mut response = match dashboard::is_wanted(&headers) {
        true => dashboard::file("/dashboard"),
        false => INDEX.into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

async fn metrics_page(State(content): State<Content>) -> Response {
    match metrics::render(&content.metrics) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics; see the log\n").into_response()
        }
    }
}

async fn ready_page(State(content): State<Content>) -> Response {
    match content.readiness.check() {
        Ok(()) => {
            let warnings = content.state.state().map_or_else(Vec::new, |state| {
                let now = content.state.now();
                problems::of_certificates(&state, now)
            });
            let warnings = warnings.iter().map(|problem| format!("warning: {}\n", problem.text));
            ["ready\n".to_owned()].into_iter().chain(warnings).collect::<String>().into_response()
        }
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn sessions_page(State(content): State<Content>, uri: Uri) -> Response {
    let filter = match Selection::of(&uri) {
        Ok(Selection { host, user, .. }) => sessions::Filter { host, user },
        Err(refused) => return refused.into_response(),
    };
    // Reading blocks until the workers have answered. It goes on if the client has gone, and so does the lock.
    let reading = Arc::clone(&content.reading).lock_owned().await;
    let read = move || {
        let page = sessions::json(&*content.sessions, &filter, &content.refusals);
        drop(reading);
        page
    };
    let page = tokio::task::spawn_blocking(read).await;
    match page {
        Ok(page) => json(&page),
        Err(error) => {
            tracing::error!(%error, "cannot read the sessions");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot read the sessions; see the log\n").into_response()
        }
    }
}

async fn refusals_page(State(content): State<Content>, uri: Uri) -> Response {
    match Selection::of(&uri) {
        Ok(Selection { host, user, reason }) => {
            json(&content.refusals.json(&refusals::Filter { host, user, reason }))
        }
        Err(refused) => refused.into_response(),
    }
}

async fn checks_page(State(content): State<Content>, uri: Uri) -> Response {
    let mut code = None;
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if key != "code" {
            return (StatusCode::BAD_REQUEST, "the query may contain code=CODE\n").into_response();
        }
        code = Some(value);
    }
    json(&content.checks.checks(code.as_deref().filter(|code| !code.is_empty())))
}

async fn overview_page(State(content): State<Content>) -> Response {
    let (refusals, warnings) = content.refusals.summary();
    let parts = Parts {
        program: &content.program,
        not_ready: content.readiness.check().err(),
        source: &*content.state,
        history: &content.history,
        warnings: &warnings,
        refusals,
    };
    json(&overview::json(&parts))
}

async fn history_page(State(content): State<Content>, uri: Uri) -> Response {
    let (mut span, mut after) = (Some(Span::Hour), Some(0));
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "span" => span = Span::named(&value),
            "after" => after = value.parse::<u64>().ok(),
            _ => span = None,
        }
    }
    let (Some(span), Some(after)) = (span, after) else {
        let text = "the query may contain span=hour or span=day, and after=NUMBER\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let reading = content.state.reading();
    let page = content.history.json(span, after, content.state.monotonic(), reading.as_ref());
    // Without spaces and line breaks: it is mostly numbers.
    ([(header::CONTENT_TYPE, "application/json")], format!("{page}\n")).into_response()
}

fn json(page: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{page:#}\n")).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // One request per connection: the deadline and the byte limit of a connection depend on it.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // No other site may load a page, even as an image or a script.
    let own = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(own, HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests;
