//! Which names the admin pages answer to.
//!
//! A page of a stranger in a browser on this machine can ask loopback, and may read the answer once the stranger's own
//! name resolves to 127.0.0.1 (DNS rebinding). Such a request carries that name in its Host field, so only names that
//! no stranger can own are answered.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const REFUSAL: &str = "\
The admin pages answer to an IP address, to localhost, and to the names in the configuration.
To reach them by the name of this request, add it there and restart:
[admin]
names = [\"relay.example.org\"]
";

/// The names that the operator chose, besides IP addresses and `localhost`.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }

    /// Whether the request names a host that is answered. HTTP/1.0 may name none; a request with an absolute URI names
    /// it there too (RFC 9112 section 3.2.2).
    fn admit(&self, request: &Request) -> bool {
        let fields = request.headers().get_all(header::HOST);
        request.uri().authority().is_none_or(|authority| self.has(authority))
            && fields.iter().all(|field| {
                Authority::try_from(field.as_bytes()).is_ok_and(|authority| self.has(&authority))
            })
    }

    fn has(&self, authority: &Authority) -> bool {
        let host = authority.host();
        // Nothing but the host and a port: no user in front, no name behind an address in brackets.
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
