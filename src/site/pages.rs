//! The pages of the site. A new page is a route in [`router`].
//!
//! No page names the product: a scan for relays sees an ordinary small web server.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{StatusCode, Version};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::Visitor;

/// Seconds until a client should retry an unreachable web server.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// The default port of HTTPS, which URLs omit.
const HTTPS: u16 = 443;

/// A request body up to this size is read before the response, within this time: an HTTP/2 client that receives a
/// response while it is still sending may discard the response.
const BODY_MAX: usize = 16 << 10;
const BODY_TIME: Duration = Duration::from_millis(500);

/// Default fields of responses. None of them affects later visits: Strict-Transport-Security is a decision of the
/// domain's owner.
const FIELDS: [(HeaderName, HeaderValue); 3] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'")),
];

/// Returns the router with every page of the site.
pub(super) fn router() -> Router {
    within_rules(Router::new().fallback(not_found))
}

/// Adds the rules for every page: the request must name one host, a request without TLS is redirected, and while the web
/// server is unreachable the response is 502.
pub(super) fn within_rules(pages: Router) -> Router {
    let pages = pages.layer(from_fn(back_end_down)).layer(from_fn(to_https)).layer(from_fn(after_small_body));
    let pages = pages.layer(from_fn(one_host));
    pages.layer(map_response(with_fields))
}

/// Reads and discards a small body. A large or slow one is discarded at the end of the connection.
async fn after_small_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let _ = timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await;
    next.run(Request::from_parts(parts, Body::empty())).await
}

async fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, "There is no page at this address.")
}

/// Answers 502 if the web server is unreachable (RFC 9110 section 15.6.3).
async fn back_end_down(Extension(visitor): Extension<Visitor>, request: Request, next: Next) -> Response {
    if !visitor.down {
        return next.run(request).await;
    }
    let text = "The site behind this address does not answer at the moment. Try again in a minute.";
    ([(header::RETRY_AFTER, RETRY_AFTER)], page(StatusCode::BAD_GATEWAY, text)).into_response()
}

/// Redirects a request without TLS to the same page over HTTPS, on the same port.
async fn to_https(Extension(visitor): Extension<Visitor>, request: Request, next: Next) -> Response {
    if visitor.secure {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return page(StatusCode::BAD_REQUEST, "This request cannot be understood.").into_response();
    };
    let (host, port) = (host.host(), visitor.server.port());
    let place = if port == HTTPS { host.to_owned() } else { format!("{host}:{port}") };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let to = [(header::LOCATION, format!("https://{place}{path}")), (header::CONNECTION, "close".to_owned())];
    (to, page(StatusCode::MOVED_PERMANENTLY, "This page is reached over HTTPS.")).into_response()
}

/// Refuses an HTTP/1.1 request without exactly one Host field (RFC 9112 section 3.2).
async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if request.version() != Version::HTTP_11 || hosts == 1 {
        return next.run(request).await;
    }
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (close, page(StatusCode::BAD_REQUEST, "This request cannot be understood.")).into_response()
}

/// Adds the default fields.
async fn with_fields(mut response: Response) -> Response {
    let fields: &mut HeaderMap = response.headers_mut();
    for (name, value) in FIELDS {
        fields.entry(name).or_insert(value);
    }
    response
}

/// Builds a page with a status and one sentence.
fn page(status: StatusCode, text: &str) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{} {reason}</title></head>\n\
         <body><h1>{reason}</h1><p>{text}</p></body>\n</html>\n",
        status.as_u16()
    );
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], body)
        .into_response()
}
