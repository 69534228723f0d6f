//! The host names that requests to the admin pages may use.
//!
//! A web page in a browser on this machine can send requests to loopback, and it can read the response if the page's
//! own name resolves to 127.0.0.1 (DNS rebinding). Such a request carries that name in its Host field, so only names
//! that no attacker can own are answered.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const REFUSAL: &str = "\
The admin pages answer requests for an IP address, for localhost and for the names in the configuration.
To allow the name of this request, add it to the configuration and restart the server:
[admin]
names = [\"relay.example.org\"]
";

/// The names in the configuration, which are allowed besides IP addresses and `localhost`.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }

    /// Returns whether the request names an allowed host or none, as in HTTP/1.0. A request with an absolute URI names
    /// the host there too (RFC 9112 section 3.2.2).
    fn admit(&self, request: &Request) -> bool {
        let fields = request.headers().get_all(header::HOST);
        request.uri().authority().is_none_or(|authority| self.has(authority))
            && fields.iter().all(|field| {
                Authority::try_from(field.as_bytes()).is_ok_and(|authority| self.has(&authority))
            })
    }

    fn has(&self, authority: &Authority) -> bool {
        let host = authority.host();
        // Accept only a host and a port: no user before it, no name after an address in brackets.
        let rest = authority.as_str().strip_prefix(host);
        let port = rest.and_then(|rest| if rest.is_empty() { Some("0") } else { rest.strip_prefix(':') });
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return false;
        }
        if let Some(v6) = host.strip_prefix('[') {
            return v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        host.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// Answers requests for other hosts with 421 (RFC 9110 section 15.5.20).
pub(super) async fn admit(State(names): State<Names>, request: Request, next: Next) -> Response {
    if names.admit(&request) {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, REFUSAL).into_response()
    }
}
