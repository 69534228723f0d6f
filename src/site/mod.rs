//! The built-in site: answers web clients on a shared port if no web server is configured, or if the configured one is
//! unreachable.
//!
//! The site has no listener. [`BuiltInSite::serve`] receives each connection as one end of a socket pair. `pages`
//! finds the page for a request: those of `home`, the operator's own files, or the test page, `check`. `connection` serves a
//! connection and limits its time; `visits` decides which connection is closed to make room.
#![forbid(unsafe_code)]

mod asset;
pub mod check;
mod connection;
pub mod directory;
mod gzip;
mod home;
mod http_date;
mod language;
mod pages;
mod redirect;
mod settings;
mod visitor;
mod visits;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::UnixStream;
use tokio::runtime::Handle;

pub use asset::Files;
use connection::SiteLimits;
pub use connection::Stream;
pub use language::Language;
pub use settings::Settings;
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

/// Makes the stream on the runtime of the site.
pub type Open<S> = Box<dyn FnOnce() -> io::Result<S> + Send>;

/// A connection for the site to serve.
pub struct SiteConnection<S> {
    /// Makes the stream.
    pub stream: Open<S>,
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
    router: Arc<ArcSwap<Router>>,
    limits: SiteLimits,
    visits: Arc<Visits>,
}

impl BuiltInSite {
    /// Creates a site that serves its connections on `runtime`.
    pub fn new(runtime: Handle, settings: &Settings) -> Self {
        Self::with(runtime, pages::router(settings), LIMITS)
    }

    fn with(runtime: Handle, router: Router, limits: SiteLimits) -> Self {
        let router = Arc::new(ArcSwap::from_pointee(router));
        Self { runtime, router, limits, visits: Arc::new(Visits::new(limits.connections)) }
    }

    /// Uses these settings for connections that begin from now on.
    pub fn set(&self, settings: &Settings) {
        self.router.store(Arc::new(pages::router(settings)));
    }

    /// Serves a connection in the background. Callable from any thread; does not block. On a full site, closes a
    /// connection of the source that has the most. If none has at least two more than this client's source, closes the new
    /// connection and returns `false`.
    pub fn serve<S: Stream>(&self, connection: SiteConnection<S>) -> bool {
        let Some(visit) = self.visits.enter(connection.visitor.client.ip()) else { return false };
        let (router, limits) = (Router::clone(&self.router.load()), self.limits);
        self.runtime.spawn(async move {
            let SiteConnection { stream, http, visitor, place } = connection;
            // Fails only if the kernel lacks resources.
            if let Ok(stream) = stream() {
                tokio::select! {
                    () = connection::serve(stream, http, visitor, &visit, router, limits) => {}
                    () = visit.displaced() => {}
                }
            }
            // The stream's descriptor is closed before its place becomes free.
            drop((place, visit));
        });
        true
    }
}

/// Makes the stream of a socket in non-blocking mode.
pub fn unix(stream: std::os::unix::net::UnixStream) -> Open<UnixStream> {
    Box::new(move || UnixStream::from_std(stream))
}

impl fmt::Debug for BuiltInSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltInSite").field("visits", &self.visits.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
