//! The pages of the admin address: `/`, `/metrics`, `/healthz`, `/readyz`, `/sessions`, `/refusals`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::host::{self, Names};
use super::listener::{AdminLimits, BoundedListener};
use super::metrics::{self, MetricSource};
use super::readiness::Readiness;
use super::refusals::{self, Book};
use super::sessions::{self, SessionSource};

/// Enough for a few scrapers and browsers. Further connections wait.
const LIMITS: AdminLimits =
    AdminLimits { connections: 64, request_bytes: 16 * 1024, time: Duration::from_secs(10) };

const INDEX: &str = "\
hallpass admin
/metrics  counters and gauges for Prometheus
/healthz  200 while the process runs
/readyz   200 when clients can be served, 503 with the reason if not
/sessions who is connected, as JSON; ?host=NAME and ?user=PART select
/refusals who was refused lately and why, as JSON; ?host=NAME, ?user=PART and ?reason=REASON select
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
    /// Held while the sessions are read: one request at a time.
    pub reading: Arc<Mutex<()>>,
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

/// Serves the admin pages on a listener until `stop` completes. The host in a request must be an IP address,
/// `localhost` or one of `names`. At most 64 connections are open at a time. Each carries one request of at most 16 KiB
/// and lasts at most ten seconds.
///
/// # Errors
/// The error of the listener.
pub async fn serve(
    listener: TcpListener,
    names: Vec<String>,
    content: Content,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(LIMITS, listener, names, content, stop).await
}

async fn serve_within(
    limits: AdminLimits,
    listener: TcpListener,
    names: Vec<String>,
    content: Content,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(content, Names::new(names));
    axum::serve(BoundedListener::new(listener, limits), router).with_graceful_shutdown(stop).await
}

fn router(content: Content, names: Names) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .route("/sessions", get(sessions_page))
        .route("/refusals", get(refusals_page))
        .fallback(|| async { (StatusCode::NOT_FOUND, INDEX) })
        .layer(from_fn_with_state(names, host::admit))
        .layer(map_response(with_headers))
        .with_state(content)
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
        Ok(()) => "ready\n".into_response(),
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
        let page = sessions::json(&*content.sessions, &filter);
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

fn json(page: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{page:#}\n")).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // One request per connection: the deadline and the byte limit of a connection depend on it.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
