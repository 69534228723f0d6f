//! The built-in site: the web server on the relay's own port 443 where none is configured, or the one that is does not
//! answer.
//!
//! Connections are handed to it one by one ([`Site::visit`]), each as one end of a pair of sockets; it listens nowhere.
//! What it says is in `pages`, how a connection is served and when it ends in `connection`.
#![forbid(unsafe_code)]

mod connection;
mod pages;

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use connection::Limits;

/// A browser keeps one or two connections. A silent one costs 16 KiB over HTTP/1.1 and 25 KiB over HTTP/2, all of them
/// 13 MiB.
const LIMITS: Limits = Limits {
    connections: 512,
    head: Duration::from_secs(10),
    quiet: Duration::from_secs(30),
    finish: Duration::from_secs(2),
};

/// A connection for the site to serve.
pub struct Visit {
    /// Non-blocking; carries HTTP without TLS.
    pub stream: UnixStream,
    /// What the client speaks.
    pub http: Http,
    /// Who is at the other end.
    pub visitor: Visitor,
    /// Dropped once the stream is closed.
    pub place: Box<dyn Send>,
}

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1 or 1.0.
    One,
    /// HTTP/2.
    Two,
}

/// Who is at the other end of a connection. Handlers get it as an `Extension`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub server: SocketAddr,
    /// Whether the client came over TLS. Others are redirected.
    pub secure: bool,
    /// Whether the client wants a web server that is down: one answer says so, and the connection ends.
    pub down: bool,
}

/// The site. Clones share its limits.
#[derive(Clone)]
pub struct Site {
    runtime: Handle,
    router: Router,
    limits: Limits,
    places: Arc<Semaphore>,
}

impl Site {
    /// A site whose connections are served on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self::with(runtime, pages::router(), LIMITS)
    }

    fn with(runtime: Handle, router: Router, limits: Limits) -> Self {
        Self { runtime, router, limits, places: Arc::new(Semaphore::new(limits.connections)) }
    }

    /// Takes over a connection, from any thread and without waiting; `false`, and it is closed, if the site is full.
    pub fn visit(&self, visit: Visit) -> bool {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else { return false };
        let (router, limits) = (self.router.clone(), self.limits);
        self.runtime.spawn(async move {
            let Visit { stream, http, visitor, place } = visit;
            connection::serve(stream, http, visitor, router, limits).await;
            // In this order: when a place is seen to be free, its descriptor is closed.
            drop((place, permit));
        });
        true
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("places", &self.places.available_permits()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
