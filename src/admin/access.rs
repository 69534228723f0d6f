//! The token that requests to the admin pages need, if the configuration has one.
//!
//! A browser asks its user for it as the password of HTTP Basic (RFC 7617), Prometheus and `hallpass sessions` send it as a
//! bearer token (RFC 6750). A source may guess a few times a minute: it is then refused without a comparison.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::listener::BoundedListener;
use super::places::Place;
use crate::base::lock::lock;
use crate::base::network::Network;

/// Wrong tokens of one source until it has to wait. An operator who mistypes it needs two or three.
const GUESSES: u32 = 10;
/// How long it then waits, and how long its guesses are remembered.
const PAUSE: Duration = Duration::from_secs(60);
/// Sources that are remembered. The one that guessed longest ago is forgotten first.
const SOURCES_MAX: usize = 1024;
/// Pages for load balancers, which usually cannot send a token. Without one they say only whether the server serves clients.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

const REFUSAL: &str = "\
This page needs the token in the [admin] token_file of the server.
A browser: as the password, with any user name. Prometheus: authorization: {credentials_file: FILE}.
hallpass sessions: --config FILE, or --token-file FILE.
";

/// The source of a request.
#[derive(Clone, Debug)]
pub(super) struct Source {
    address: SocketAddr,
    place: Option<Arc<Place>>,
}

impl Source {
    /// Notes that its request has been read.
    pub(super) fn request_read(&self) {
        if let Some(place) = &self.place {
            place.request_read();
        }
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for Source {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        let place = stream.io().get_ref().map(|stream| Arc::clone(stream.place()));
        Self { address: *stream.remote_addr(), place }
    }
}

/// Who may read the pages: requests with the token. Clones share the guesses.
#[derive(Clone)]
pub struct Access {
    token: Digested,
    guesses: Arc<Mutex<Guesses>>,
}

/// A digest has the same length for every token, so that a comparison shows nothing about the length either.
type Digested = [u8; 32];

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

impl Access {
    /// Admits requests with this token.
    pub fn new(token: &str) -> Self {
        Self { token: digest(token.as_bytes()), guesses: Arc::default() }
    }

    /// Judges the token of a request from `source`.
    fn judge(&self, source: IpAddr, headers: &HeaderMap, now: Instant) -> Verdict {
        let mut guesses = lock(&self.guesses);
        if let Some(wait) = guesses.wait(source, now) {
            return Verdict::Wait(wait);
        }
        match token(headers) {
            None => Verdict::NoToken,
            Some(token) if bool::from(digest(&token).ct_eq(&self.token)) => Verdict::Admitted,
            Some(_) => {
                guesses.add(source, now);
                Verdict::Wrong
            }
        }
    }
}

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The page.
    Admitted,
    /// 401.
    NoToken,
    /// 401, and it counts as a guess.
    Wrong,
    /// 429: too many guesses; the time until the next one.
    Wait(Duration),
}

/// Wrong tokens by source.
#[derive(Debug, Default)]
struct Guesses(HashMap<Network, Guessed>);

#[derive(Debug)]
struct Guessed {
    count: u32,
    /// The first of them, and from the tenth on the last.
    at: Instant,
}

impl Guesses {
    /// Returns how long a source must wait; `None` if it need not.
    fn wait(&mut self, source: IpAddr, now: Instant) -> Option<Duration> {
        let source = Network::customer(source);
        let guessed = self.0.get(&source)?;
        let until = guessed.at + PAUSE;
        if now >= until {
            self.0.remove(&source);
            return None;
        }
        (guessed.count >= GUESSES).then(|| until - now)
    }

    fn add(&mut self, address: IpAddr, now: Instant) {
        let source = Network::customer(address);
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&source) {
            self.0.retain(|_, guessed| now < guessed.at + PAUSE);
            let oldest = self.0.iter().min_by_key(|(_, guessed)| guessed.at).map(|(source, _)| *source);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= SOURCES_MAX) {
                self.0.remove(&oldest);
            }
        }
        let guessed = self.0.entry(source).or_insert(Guessed { count: 0, at: now });
        guessed.count += 1;
        if guessed.count == GUESSES {
            guessed.at = now;
            tracing::warn!(
                source = %address,
                "{GUESSES} wrong tokens for the admin pages: further requests from there are refused for {} s",
                PAUSE.as_secs()
            );
        }
    }
}

/// Returns the token of a request.
fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    let pair = STANDARD.decode(rest).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn digest(token: &[u8]) -> Digested {
    Sha256::digest(token).into()
}

/// Refuses requests without the token.
pub(super) async fn check(
    State(access): State<Access>,
    ConnectInfo(Source { address: source, .. }): ConnectInfo<Source>,
    request: Request,
    next: Next,
) -> Response {
    let verdict = access.judge(source.ip(), request.headers(), Instant::now());
    let is_open = OPEN.contains(&request.uri().path());
    match verdict {
        Verdict::Admitted => next.run(request).await,
        _ if is_open => status_alone(next.run(request).await),
        Verdict::NoToken | Verdict::Wrong => {
            let mut response = (StatusCode::UNAUTHORIZED, REFUSAL).into_response();
            let schemes = ["Basic realm=\"hallpass admin\", charset=\"UTF-8\"", "Bearer"];
            for scheme in schemes {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
            response
        }
        Verdict::Wait(wait) => {
            let seconds = wait.as_secs() + 1;
            let text = format!("too many wrong tokens from {}: wait {seconds} s\n", source.ip());
            let mut response = (StatusCode::TOO_MANY_REQUESTS, text).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            response
        }
    }
}

/// Removes the reason from an answer, which may name addresses of this machine.
fn status_alone(response: Response) -> Response {
    match response.status() {
        status @ StatusCode::SERVICE_UNAVAILABLE => (status, "not ready\n").into_response(),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "the-token-of-the-tests";

    fn headers(authorization: &str) -> HeaderMap {
        let value = HeaderValue::from_str(authorization).expect("a header");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn source(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[tokio::test]
    async fn the_token_comes_as_bearer_or_as_a_password() {
        let access = Access::new(TOKEN);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let now = Instant::now();
        let judge = |sent: &str| access.judge(source(1), &headers(sent), now);
        for sent in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            basic(&format!("admin:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ] {
            assert_eq!(judge(&sent), Verdict::Admitted, "{sent}");
        }
        for sent in [
            format!("Bearer {TOKEN}x"),
            "Bearer ".to_owned() + &TOKEN[1..],
            basic(&format!("{TOKEN}:")),
            basic("a:b:c"),
        ] {
            assert_eq!(judge(&sent), Verdict::Wrong, "{sent}");
        }
        for sent in [TOKEN.to_owned(), format!("Digest {TOKEN}"), "Basic %%%".to_owned(), basic("no colon")] {
            assert_eq!(judge(&sent), Verdict::NoToken, "{sent}");
        }
        assert_eq!(access.judge(source(1), &HeaderMap::new(), now), Verdict::NoToken);
    }

    #[tokio::test]
    async fn a_source_that_guesses_waits_and_others_do_not() {
        let access = Access::new(TOKEN);
        let (good, wrong) = (headers(&format!("Bearer {TOKEN}")), headers("Bearer guess"));
        let start = Instant::now();
        for _ in 0..GUESSES {
            assert_eq!(access.judge(source(1), &wrong, start), Verdict::Wrong);
        }
        assert_eq!(access.judge(source(1), &wrong, start), Verdict::Wait(PAUSE));
        assert_eq!(access.judge(source(1), &good, start), Verdict::Wait(PAUSE), "else it would be an answer");
        assert_eq!(access.judge(source(2), &good, start), Verdict::Admitted);
        assert_eq!(access.judge(source(1), &good, start + PAUSE), Verdict::Admitted);
        assert_eq!(access.judge(source(1), &wrong, start + PAUSE), Verdict::Wrong, "counted anew");
    }

    #[tokio::test]
    async fn the_table_of_sources_is_bounded_and_forgets_the_oldest() {
        let access = Access::new(TOKEN);
        let wrong = headers("Bearer guess");
        let start = Instant::now();
        for number in 0..SOURCES_MAX as u32 + 10 {
            let now = start + Duration::from_millis(number.into());
            assert_eq!(access.judge(IpAddr::from((number + 1).to_be_bytes()), &wrong, now), Verdict::Wrong);
        }
        let guesses = lock(&access.guesses);
        assert_eq!(guesses.0.len(), SOURCES_MAX);
        let first = Network::customer(IpAddr::from([0, 0, 0, 1]));
        assert!(!guesses.0.contains_key(&first));
    }
}
