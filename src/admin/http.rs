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
use super::listener::{BoundedListener, Limits};
use super::metrics::{self, Source};
use super::readiness::Readiness;

/// A scraper or two and somebody with a browser; whoever opens more waits.
const LIMITS: Limits = Limits { connections: 64, request_bytes: 16 * 1024, time: Duration::from_secs(10) };

const INDEX: &str = "\
hallpass admin
/metrics  counters and gauges for Prometheus
/healthz  200 while the process runs
/readyz   200 when every listener accepts, 503 while starting or draining
";

/// What the pages show.
#[derive(Clone)]
struct Pages {
    sources: Arc<[Arc<dyn Source>]>,
    readiness: Readiness,
}

/// Serves the admin pages on this listener until `stop` is done, to requests for an IP address, `localhost` or one of
/// `names`. At most 64 connections at once, one request each, of 16 KiB and ten seconds.
pub async fn serve(
    listener: TcpListener,
    names: Vec<String>,
    sources: Vec<Arc<dyn Source>>,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(LIMITS, listener, names, sources, readiness, stop).await
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    names: Vec<String>,
    sources: Vec<Arc<dyn Source>>,
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
            tracing::error!(%error, "the metrics could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered; see the log\n")
                .into_response()
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
    // One request a connection: what makes its deadline and byte limit hold.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
