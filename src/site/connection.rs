//! One connection of the site, from its first byte to its end.

use std::future::{Future, pending, poll_fn};
use std::os::unix::net::UnixStream as StdStream;
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
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Http, Visitor};

/// Bytes and fields of a request's head. Browsers send below 4 KB, cookies included.
const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 100;
/// Requests at once on a connection of HTTP/2. A page of this site is one file or a few.
const STREAMS: u32 = 16;
/// Bytes of bodies that a client of HTTP/2 may send ahead, on each stream and in all. No page reads a body.
const STREAM_WINDOW: u32 = 16 << 10;
const CONNECTION_WINDOW: u32 = 64 << 10;
/// Bytes of an answer that wait for the client.
const UNSENT_MAX: usize = 64 << 10;
/// Bytes read after the last answer, of a request whose body nobody wants. The client waits with the rest.
const DRAINED_MAX: usize = 256 << 10;

/// Limits of the site and of each connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Over HTTP/1.1, from the last answer (or the beginning) to the end of the next request's head.
    pub head: Duration,
    /// From one request to the next, so for an answer too: a client that is slow to read it, or sends frames without a
    /// request, gets no more time.
    pub quiet: Duration,
    /// To complete what has begun when the connection is to end, and then for the client to leave.
    pub finish: Duration,
}

/// Serves the connection and closes it. Errors are the client's and end nothing else, so none are returned.
pub(super) async fn serve(stream: StdStream, http: Http, visitor: Visitor, router: Router, limits: Limits) {
    // It fails only when the process has no memory for the reactor.
    let Ok(stream) = UnixStream::from_std(stream) else { return };
    let mut io = TokioIo::new(stream);
    let requested = Arc::new(Notify::new());
    let pages = TowerToHyperService::new(router);
    let notify = Arc::clone(&requested);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        notify.notify_one();
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(visitor);
        pages.call(request)
    });
    let over = async {
        while timeout(limits.quiet, requested.notified()).await.is_ok() {
            if visitor.down {
                // The next connection may find the web server back.
                break;
            }
        }
    };
    match http {
        Http::One => {
            let connection = builder1(limits).keep_alive(!visitor.down).serve_connection(&mut io, service);
            run(connection, http1::Connection::graceful_shutdown, over, limits.finish).await;
        }
        Http::Two => {
            let connection = builder2().serve_connection(&mut io, service);
            run(connection, http2::Connection::graceful_shutdown, over, limits.finish).await;
        }
    }
    // Either it has ended or it has not in time.
    let _ = timeout(limits.finish, linger(io.into_inner())).await;
}

/// Drives a connection until it ends. When it is `over` it is told to `finish`, for which it has `time`.
async fn run<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    over: impl Future<Output = ()>,
    time: Duration,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = over => {}
    }
    finish(connection.as_mut());
    let _ = timeout(time, connection).await;
}

/// Ends our direction and reads what the client still sends: a stream that is closed with unread bytes is reset, and
/// takes the last answer with it. Returns when the client has ended too, or never.
async fn linger(mut stream: UnixStream) {
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    let mut left = DRAINED_MAX;
    let mut scratch = [0; 4096];
    while left > 0 {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut scratch) {
            Ok(0) => return,
            Ok(len) => left = left.saturating_sub(len),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    pending().await
}

fn builder1(limits: Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // A client that has no more to say is answered.
        .half_close(true)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX);
    builder
}

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
