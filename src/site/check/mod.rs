//! The test page: tells a visitor which ways to the relay work from where they are.
//!
//! The page makes calls to itself through the relay. For that it asks `Check` for a login and for the ways to try, and it
//! leaves its result, which the operator finds by a short code. `rungs` names the ways, `interception` judges the visitor's
//! ClientHello, `limiter` limits both requests, `results` keeps what was found.

mod assets;
mod interception;
mod limiter;
mod report;
mod results;
mod rungs;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::asset::Files;
use super::redirect::to_directory;
use super::visitor::Visitor;
use crate::base::lock::lock;
use crate::system::clock;
use interception::Judgement;
use limiter::Limiter;
pub use results::{Found, Results};
pub use rungs::Rung;

/// Seconds that a login is valid: the test takes 15.
pub const LOGIN_SECONDS: u64 = 120;
/// Most bytes of a result. The page sends one KB.
const RESULT_BYTES_MAX: usize = 8 << 10;
/// A field that a page of another site cannot send without the consent of this one (CORS), which never comes.
const OWN_PAGE: HeaderName = HeaderName::from_static("x-check");
/// What newer browsers say about the page that asks (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The port of an origin that names none.
const HTTPS: u16 = 443;

/// A login for the relay.
pub struct Login {
    /// The user name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Makes a login that is valid for [`LOGIN_SECONDS`]; `None` if the relay has no user for it.
pub type MakeLogin = Arc<dyn Fn() -> Option<Login> + Send + Sync>;

/// The test page.
#[derive(Clone)]
pub struct Settings {
    /// Its path, without a slash at the end.
    pub path: String,
    /// The ways to try, the best first.
    pub rungs: Vec<Rung>,
    /// The public addresses of the relay; empty: the one that the visitor connected to.
    pub addresses: Vec<IpAddr>,
    /// A name in the relay's certificate, for visitors that use none.
    pub name: Option<String>,
    /// Makes logins.
    pub login: MakeLogin,
    /// What outlives these settings.
    pub kept: Kept,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("path", &self.path)
            .field("rungs", &self.rungs)
            .finish_non_exhaustive()
    }
}

/// What outlives a change of the settings. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The results.
    pub results: Results,
    logins: Arc<Mutex<Limiter>>,
    posts: Arc<Mutex<Limiter>>,
}

/// The test page and its two requests.
pub(super) struct Check {
    settings: Arc<Settings>,
    files: Files,
}

impl Check {
    pub fn new(settings: Arc<Settings>) -> Self {
        let files = assets::files(&settings.path);
        Self { settings, files }
    }

    /// Whether a path belongs to the test page.
    pub fn has(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&*self.settings.path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for a path that it has.
    pub async fn answer(&self, visitor: &Visitor, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        match path.strip_prefix(&*self.settings.path).unwrap_or_default() {
            "" => to_directory(&path),
            "/credentials" => match admit(&request, &self.settings.kept.logins, visitor) {
                Ok(()) => self.credentials(visitor, request.headers(), host(&request)),
                Err(refused) => *refused,
            },
            "/result" => match admit(&request, &self.settings.kept.posts, visitor) {
                Ok(()) => self.result(visitor, request).await,
                Err(refused) => *refused,
            },
            _ => match self.files.find(&path) {
                Some(file) => file.answer(request.method(), request.headers()),
                None => StatusCode::NOT_FOUND.into_response(),
            },
        }
    }

    /// Everything that the page needs for a test.
    fn credentials(&self, visitor: &Visitor, head: &HeaderMap, host: Option<String>) -> Response {
        let Some(login) = (self.settings.login)() else {
            let problem = json!({ "problem": "no_login" });
            return answer(StatusCode::SERVICE_UNAVAILABLE, &problem);
        };
        let Settings { rungs, addresses, name, .. } = &*self.settings;
        let used = host.unwrap_or_else(|| visitor.server.ip().to_string());
        let addresses = match (addresses.is_empty(), visitor.forwarded) {
            (true, false) => vec![visitor.server.ip().to_canonical()],
            _ => addresses.clone(),
        };
        let client = visitor.client.ip().to_canonical();
        answer(
            StatusCode::OK,
            &json!({
                "name": used,
                "addresses": addresses,
                "client": { "address": client, "family": if client.is_ipv4() { "ipv4" } else { "ipv6" } },
                "interception": judge(visitor, head, &used).json(),
                "user": login.name,
                "password": login.password,
                "seconds": LOGIN_SECONDS,
                "rungs": rungs::json(rungs, &used, name.as_deref()),
                "time": clock::unix_seconds(),
            }),
        )
    }

    /// Keeps the result of a test and answers with its code.
    async fn result(&self, visitor: &Visitor, request: Request) -> Response {
        let used = host(&request).unwrap_or_else(|| visitor.server.ip().to_string());
        let (parts, body) = request.into_parts();
        let judgement = judge(visitor, &parts.headers, &used);
        let bytes = to_bytes(body, RESULT_BYTES_MAX).await.unwrap_or_default();
        let known = rungs::ids(&self.settings.rungs);
        let agent = agent(&parts.headers);
        let Some(report) = report::Report::parse(&bytes, &known) else {
            return answer(StatusCode::BAD_REQUEST, &json!({ "problem": "not_a_result" }));
        };
        let found = Found {
            time: clock::unix_seconds(),
            network: results::prefix(visitor.client.ip()),
            browser: interception::browser(agent),
            is_intercepted: judgement.is_likely(),
            report,
        };
        match self.settings.kept.results.add(found) {
            Some(code) => answer(StatusCode::OK, &json!({ "code": code })),
            None => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "problem": "no_code" })),
        }
    }
}

/// Refuses requests that do not come from the page itself, and too many of them.
fn admit(request: &Request, limiter: &Mutex<Limiter>, visitor: &Visitor) -> Result<(), Box<Response>> {
    if request.method() != Method::POST {
        return Err(Box::new((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response()));
    }
    if !is_from_page(request, visitor) {
        return Err(Box::new(answer(StatusCode::FORBIDDEN, &json!({ "problem": "not_this_page" }))));
    }
    let taken = lock(limiter).take(clock::monotonic_nanos(), visitor.client.ip());
    taken.map_err(|seconds| {
        let mut refused =
            answer(StatusCode::TOO_MANY_REQUESTS, &json!({ "problem": "too_many", "seconds": seconds }));
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Box::new(refused)
    })
}

/// Whether a request comes from the page. Browsers let no other page send [`OWN_PAGE`], and newer ones say themselves who asks.
fn is_from_page(request: &Request, visitor: &Visitor) -> bool {
    let head = request.headers();
    let is_json =
        head.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let of_same_site = head.get_all(SEC_FETCH_SITE).iter().all(|site| site == "same-origin");
    let of_same_origin = head.get_all(header::ORIGIN).iter().all(|origin| is_own(origin, request, visitor));
    is_json && head.contains_key(OWN_PAGE) && of_same_site && of_same_origin
}

/// Whether an origin (RFC 6454) is that of the page. A web server in front may leave the port out of Host.
fn is_own(origin: &HeaderValue, request: &Request, visitor: &Visitor) -> bool {
    let text = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
    // An origin has no user part.
    let origin = text.filter(|text| !text.contains('@')).and_then(|text| text.parse::<Authority>().ok());
    let (Some(origin), Some(asked)) = (origin, authority(request)) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(HTTPS);
    origin.host().eq_ignore_ascii_case(asked.host()) && (visitor.forwarded || port(&origin) == port(&asked))
}

/// The host that the visitor's browser asked for, without the port: a name, an IPv4 address or an IPv6 address without
/// brackets.
fn host(request: &Request) -> Option<String> {
    let authority = authority(request)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let is_name =
        host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (!host.is_empty() && (is_name || host.parse::<IpAddr>().is_ok())).then_some(host)
}

/// The host and port of the request.
fn authority(request: &Request) -> Option<Authority> {
    match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request.headers().get(header::HOST)?.to_str().ok()?.parse().ok(),
    }
}

fn agent(head: &HeaderMap) -> &str {
    head.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default()
}

fn judge(visitor: &Visitor, head: &HeaderMap, used: &str) -> Judgement {
    let is_name = used.parse::<IpAddr>().is_err();
    interception::judge(visitor.hello.as_ref(), agent(head), is_name)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
