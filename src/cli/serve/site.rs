//! Connects the built-in site to the network side.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::net::front::first_bytes::{self, Visit};
use crate::net::stream::tls::Protocol;
use crate::site::{BuiltInSite, Http, SiteConnection, Visitor};

/// Implements the network side's interface with the built-in site.
struct Adapter(BuiltInSite);

/// Returns the built-in site. Its connections are served on `runtime`.
pub fn built_in(runtime: Handle) -> Arc<dyn first_bytes::Site> {
    Arc::new(Adapter(BuiltInSite::new(runtime)))
}

impl first_bytes::Site for Adapter {
    fn visit(&self, visit: Visit) -> bool {
        let Visit { stream, client, server, protocol, secure, down, place } = visit;
        let http = match protocol {
            Protocol::H2 => Http::Two,
            Protocol::Http1 => Http::One,
            // TLS is not terminated here, so the site cannot answer.
            Protocol::Tls => return false,
        };
        let visitor = Visitor { client, server, secure, down };
        self.0.serve(SiteConnection { stream, http, visitor, place: Box::new(place) })
    }
}
