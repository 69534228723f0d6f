//! The pages of the admin address: `/`, `/metrics`, `/healthz`, `/readyz`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::host::{self, Names};
use super::listener::{AdminLimits, BoundedListener};
use super::metrics::{self, MetricSource};
use super::readiness::Readiness;

/// Enough for a few scrapers and browsers. Further connections wait.
const LIMITS: AdminLimits =
    AdminLimits { connections: 64, request_bytes: 16 * 1024, time: Duration::from_secs(10) };

const INDEX: &str = "\
hallpass admin
/metrics  counters and gauges for Prometheus
/healthz  200 while the process runs
/readyz   200 when clients can be served, 503 with the reason if not
";

/// The data that the pages show.
#[derive(Clone)]
struct Pages {
    sources: Arc<[Arc<dyn MetricSource>]>,
    readiness: Readiness,
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
    sources: Vec<Arc<dyn MetricSource>>,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(LIMITS, listener, names, sources, readiness, stop).await
}

async fn serve_within(
    limits: AdminLimits,
    listener: TcpListener,
    names: Vec<String>,
    sources: Vec<Arc<dyn MetricSource>>,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(Pages { sources: sources.into(), readiness }, Names::new(names));
    axum::serve(BoundedListener::new(listener, limits), router).with_graceful_shutdown(stop).await
}

fn router(pages: Pages, names: Names) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready_page))
        .fallback(|| async { (StatusCode::NOT_FOUND, INDEX) })
        .layer(from_fn_with_state(names, host::admit))
        .layer(map_response(with_headers))
        .with_state(pages)
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    match metrics::render(&pages.sources) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics; see the log\n").into_response()
        }
    }
}

async fn ready_page(State(pages): State<Pages>) -> Response {
    match pages.readiness.check() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
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
