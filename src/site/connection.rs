//! Serves one connection of the site and limits its time.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::visits::Visit;
use super::{Http, Visitor};

/// Most bytes and fields in the head of a request. Browsers send less than 4 KB, cookies included.
const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 100;
/// Concurrent requests on an HTTP/2 connection. A page of this site needs one file or a few.
const STREAMS: u32 = 16;
/// Flow control windows of HTTP/2 for request bodies, per stream and per connection. No page reads a body.
const STREAM_WINDOW: u32 = 16 << 10;
const CONNECTION_WINDOW: u32 = 64 << 10;
/// Most bytes of responses that wait for the client.
const UNSENT_MAX: usize = 64 << 10;
/// Most bytes of request bodies that are read and discarded after the last response.
const DRAINED_MAX: usize = 256 << 10;

/// What carries HTTP without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Limits of the site and of each connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// HTTP/1.1: time from the last response, or from the start, to the end of the next request's head.
    pub head: Duration,
    /// Time from one request to the next. It covers the response: a client that reads slowly, or sends frames without a
    /// request, gets no more time.
    pub quiet: Duration,
    /// Time to complete responses when the connection ends, and again for the client to close.
    pub finish: Duration,
}

/// Serves the connection and closes it. Errors concern this client only, so none are returned.
pub(super) async fn serve(
    stream: impl Stream,
    http: Http,
    visitor: Visitor,
    visit: &Visit,
    router: Router,
    limits: SiteLimits,
) {
    let mut io = TokioIo::new(stream);
    let requested = Arc::new(Notify::new());
    let pages = TowerToHyperService::new(router);
    let notify = Arc::clone(&requested);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        notify.notify_one();
        visit.renew();
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(visitor);
        pages.call(request)
    });
    let idle = async {
        while timeout(limits.quiet, requested.notified()).await.is_ok() {
            if visitor.down {
                // End the connection: the server tries the web server again for the next one.
                break;
            }
        }
    };
    match http {
        Http::One => {
            let connection = builder1(limits).keep_alive(!visitor.down).serve_connection(&mut io, service);
            run(connection, http1::Connection::graceful_shutdown, idle, limits.finish).await;
        }
        Http::Two => {
            let connection = builder2().serve_connection(&mut io, service);
            run(connection, http2::Connection::graceful_shutdown, idle, limits.finish).await;
        }
    }
    // A client that does not close in time is cut off.
    let _ = timeout(limits.finish, linger(io.into_inner())).await;
}

/// Drives a connection until it ends. When `idle` completes, `finish` starts its shutdown, which may take `time`.
async fn run<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    idle: impl Future<Output = ()>,
    time: Duration,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = idle => {}
    }
    finish(connection.as_mut());
    let _ = timeout(time, connection).await;
}

/// Shuts down our direction and discards what the client still sends. Closing a stream with unread bytes would reset
/// it, and the client could lose the last response. Returns when the client closes; never if it sends too much.
async fn linger(mut stream: impl Stream) {
    let _ = stream.shutdown().await;
    let mut left = DRAINED_MAX;
    let mut scratch = [0; 4096];
    while left > 0 {
        match stream.read(&mut scratch).await {
            Ok(0) | Err(_) => return,
            Ok(len) => left = left.saturating_sub(len),
        }
    }
    pending().await
}

/// Settings for HTTP/1.1.
fn builder1(limits: SiteLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // Clients may shut down their direction after a request and still get the response.
        .half_close(true)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX);
    builder
}

/// Settings for HTTP/2.
fn builder2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_MAX as u32)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(UNSENT_MAX);
    builder
}
