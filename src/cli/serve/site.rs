//! The built-in site on the network's terms.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::net::front::first_bytes::{self, Visit};
use crate::net::stream::tls::Protocol;
use crate::site::{self, Http, Site, Visitor};

struct BuiltIn(Site);

/// The built-in site, served on `runtime`.
pub fn built_in(runtime: Handle) -> Arc<dyn first_bytes::Site> {
    Arc::new(BuiltIn(Site::new(runtime)))
}

impl first_bytes::Site for BuiltIn {
    fn visit(&self, visit: Visit) -> bool {
        let Visit { stream, client, server, protocol, secure, down, place } = visit;
        let http = match protocol {
            Protocol::H2 => Http::Two,
            Protocol::Http1 => Http::One,
            // It does not end here, so nobody can answer in it.
            Protocol::Tls => return false,
        };
        let visitor = Visitor { client, server, secure, down };
        self.0.visit(site::Visit { stream, http, visitor, place: Box::new(place) })
    }
}
