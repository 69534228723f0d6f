//! Finds the page for a request, within the rules that hold for every page. A new built-in page is a file in
//! [`super::home`].
//!
//! No page names the product: a scan for relays sees an ordinary small web server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{StatusCode, Version};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::asset::Files;
use super::check::Check;
use super::language::Language;
use super::redirect::to_directory;
use super::settings::Settings;
use super::{Visitor, home};

/// Seconds until a client should retry an unreachable web server.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// The default port of HTTPS, which URLs omit.
const HTTPS: u16 = 443;

/// A request body up to this size is read before the response, within this time: an HTTP/2 client that receives a
/// response while it is still sending may discard the response.
const BODY_MAX: usize = 16 << 10;
const BODY_TIME: Duration = Duration::from_millis(500);

/// Default fields of responses.
const FIELDS: [(HeaderName, HeaderValue); 7] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    // Means the same as frame-ancestors, for scanners and old browsers.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// A month: an operator who gives up HTTPS is not locked out for longer (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=2592000");

/// What a web server of the operator names the client with.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Everything that the site answers with.
struct Pages {
    off: bool,
    language: Language,
    files: Arc<Files>,
    check: Option<Check>,
}

/// Returns the router with every page of the site.
pub(super) fn router(settings: &Settings) -> Router {
    let files = settings.files.clone().unwrap_or_else(|| Arc::new(home::files(settings)));
    let check = settings.check.clone().map(Check::new);
    let pages = Pages { off: settings.off, language: settings.language, files, check };
    let router = Router::new().fallback(answer).with_state(Arc::new(pages));
    let router = router.layer(from_fn_with_state(settings.hsts, with_hsts));
    within_rules(router)
}

/// Adds the rules for every page: the request must name one host, a request without TLS is redirected, and while the web
/// server is unreachable the response is 502.
pub(super) fn within_rules(pages: Router) -> Router {
    let pages = pages.layer(from_fn(back_end_down)).layer(from_fn(to_https)).layer(from_fn(after_small_body));
    let pages = pages.layer(from_fn(one_host)).layer(from_fn(name_client));
    pages.layer(map_response(with_fields))
}

async fn answer(
    State(pages): State<Arc<Pages>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    if pages.off {
        let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
        return (close, not_found(Language::En)).into_response();
    }
    let path = request.uri().path().to_owned();
    if let Some(check) = pages.check.as_ref().filter(|check| check.has(&path)) {
        return check.answer(&visitor, request).await;
    }
    if let Some(file) = pages.files.find(&path) {
        return file.answer(request.method(), request.headers());
    }
    match pages.files.is_directory(&path) {
        true => to_directory(&path),
        false => not_found(pages.language),
    }
}

/// Names the client of a request that a web server of the operator forwards.
async fn name_client(Extension(visitor): Extension<Visitor>, mut request: Request, next: Next) -> Response {
    if visitor.forwarded {
        let named = request.headers().get(X_REAL_IP).and_then(|value| value.to_str().ok());
        let named = named.and_then(|text| text.trim().parse::<IpAddr>().ok());
        let client = named.map_or(visitor.client, |ip| SocketAddr::new(ip.to_canonical(), 0));
        request.extensions_mut().insert(Visitor { client, ..visitor });
    }
    next.run(request).await
}

/// Reads a small body. A large or slow one is discarded at the end of the connection, and the page sees none.
async fn after_small_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await;
    let body = body.ok().and_then(Result::ok).map_or_else(Body::empty, Body::from);
    next.run(Request::from_parts(parts, body)).await
}

fn not_found(language: Language) -> Response {
    let words = language.words();
    page(StatusCode::NOT_FOUND, language.tag(), words.not_found, words.no_page)
}

/// Answers 502 if the web server is unreachable (RFC 9110 section 15.6.3).
async fn back_end_down(Extension(visitor): Extension<Visitor>, request: Request, next: Next) -> Response {
    if !visitor.down {
        return next.run(request).await;
    }
    let text = "The site behind this address does not answer at the moment. Try again in a minute.";
    ([(header::RETRY_AFTER, RETRY_AFTER)], error(StatusCode::BAD_GATEWAY, text)).into_response()
}

/// Redirects a request without TLS to the same page over HTTPS, on the same port.
async fn to_https(Extension(visitor): Extension<Visitor>, request: Request, next: Next) -> Response {
    if visitor.secure {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return error(StatusCode::BAD_REQUEST, "This request cannot be understood.");
    };
    let (host, port) = (host.host(), visitor.server.port());
    let place = if port == HTTPS { host.to_owned() } else { format!("{host}:{port}") };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let to = [(header::LOCATION, format!("https://{place}{path}")), (header::CONNECTION, "close".to_owned())];
    (to, error(StatusCode::MOVED_PERMANENTLY, "This page is reached over HTTPS.")).into_response()
}

/// Refuses an HTTP/1.1 request without exactly one Host field (RFC 9112 section 3.2).
async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if request.version() != Version::HTTP_11 || hosts == 1 {
        return next.run(request).await;
    }
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    (close, error(StatusCode::BAD_REQUEST, "This request cannot be understood.")).into_response()
}

/// Tells browsers to use HTTPS only.
async fn with_hsts(
    State(hsts): State<bool>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    // The headers of the operator's own web server are the operator's decision.
    if hsts && visitor.secure && !visitor.forwarded {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
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
fn error(status: StatusCode, text: &str) -> Response {
    page(status, Language::En.tag(), status.canonical_reason().unwrap_or_default(), text)
}

fn page(status: StatusCode, language: &str, title: &str, text: &str) -> Response {
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"{language}\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1><p>{text}</p></body>\n</html>\n"
    );
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], body)
        .into_response()
}
