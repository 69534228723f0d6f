//! The built-in site: answers web clients on a shared port if no web server is configured, or if the configured one is
//! unreachable.
//!
//! The site has no listener. [`BuiltInSite::serve`] receives each connection as one end of a socket pair. `pages`
//! contains the pages; `connection` serves a connection and limits its time; `visits` decides which connection is closed
//! to make room.
#![forbid(unsafe_code)]

mod connection;
mod pages;
mod visitor;
mod visits;

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::runtime::Handle;

use connection::SiteLimits;
pub use visitor::{Http, Visitor};
use visits::Visits;

/// A browser keeps one or two connections. An idle one takes 16 KiB with HTTP/1.1 and 25 KiB with HTTP/2: up to 13 MiB
/// in all.
const LIMITS: SiteLimits = SiteLimits {
    connections: 512,
    head: Duration::from_secs(10),
    quiet: Duration::from_secs(30),
    finish: Duration::from_secs(2),
};

/// A connection for the site to serve.
pub struct SiteConnection {
    /// The stream, in non-blocking mode. It carries HTTP without TLS.
    pub stream: UnixStream,
    /// The version of HTTP.
    pub http: Http,
    /// The client.
    pub visitor: Visitor,
    /// Dropped after the stream is closed.
    pub place: Box<dyn Send>,
}

/// The built-in site. Clones share its limits.
#[derive(Clone)]
pub struct BuiltInSite {
    runtime: Handle,
    router: Router,
    limits: SiteLimits,
    visits: Arc<Visits>,
}

impl BuiltInSite {
    /// Creates a site that serves its connections on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self::with(runtime, pages::router(), LIMITS)
    }

    fn with(runtime: Handle, router: Router, limits: SiteLimits) -> Self {
        Self { runtime, router, limits, visits: Arc::new(Visits::new(limits.connections)) }
    }

    /// Serves a connection in the background. Callable from any thread; does not block. On a full site, closes a
    /// connection of the source that has the most. If none has at least two more than this client's source, closes the new
    /// connection and returns `false`.
    pub fn serve(&self, connection: SiteConnection) -> bool {
        let Some(visit) = self.visits.enter(connection.visitor.client.ip()) else { return false };
        let (router, limits) = (self.router.clone(), self.limits);
        self.runtime.spawn(async move {
            let SiteConnection { stream, http, visitor, place } = connection;
            tokio::select! {
                () = connection::serve(stream, http, visitor, &visit, router, limits) => {}
                () = visit.displaced() => {}
            }
            // The stream's descriptor is closed before its place becomes free.
            drop((place, visit));
        });
        true
    }
}

impl fmt::Debug for BuiltInSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltInSite").field("visits", &self.visits.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
