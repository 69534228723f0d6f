//! The answer to one request.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};

/// Where the authority fetches the file for a token (RFC 8555 section 8.3).
const CHALLENGE: &str = "/.well-known/acme-challenge/";

/// What the answers depend on.
pub trait Rules: Send + Sync {
    /// Returns the content of the file for a token of HTTP-01.
    fn file(&self, token: &str) -> Option<String>;
    /// Whether this name in lower case, without a port, is the server's own.
    fn is_ours(&self, host: &str) -> bool;
    /// The port of the website.
    fn port(&self) -> u16;
}

/// Returns the answer: the file of a challenge, a permanent redirect to the same path at https, or an error.
pub fn to<B>(request: &Request<B>, rules: &dyn Rules) -> Response<Full<Bytes>> {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    if let Some(token) = request.uri().path().strip_prefix(CHALLENGE) {
        let Some(content) = rules.file(token) else { return not_found() };
        let mut answer = Response::new(Full::new(Bytes::from(content)));
        let kind = HeaderValue::from_static("application/octet-stream");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return answer;
    }
    let Some(host) = host(request).filter(|host| rules.is_ours(host)) else { return not_found() };
    let port = match rules.port() {
        443 => String::new(),
        port => format!(":{port}"),
    };
    // With an absolute URL the path may be empty.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{path}")) else {
        return not_found();
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    answer.headers_mut().insert(LOCATION, location);
    answer
}

/// Returns the name that the request is for, in lower case and without the port. An absolute URL in the request replaces the
/// header (RFC 9112 section 3.2.2). `None` without a name, and with several headers.
fn host<B>(request: &Request<B>) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut all = request.headers().get_all(HOST).iter();
            let first = all.next()?.to_str().ok()?;
            if all.next().is_some() {
                return None;
            }
            first
        }
    };
    let (name, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let name = name.strip_suffix('.').unwrap_or(name);
    is_port.then(|| name.to_ascii_lowercase())
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "404 Not Found\n")
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ours(u16);

    impl Rules for Ours {
        fn file(&self, token: &str) -> Option<String> {
            (token == "abc").then(|| "abc.thumb".to_owned())
        }

        fn is_ours(&self, host: &str) -> bool {
            host == "relay.example.org"
        }

        fn port(&self) -> u16 {
            self.0
        }
    }

    fn ask(method: &str, uri: &str, hosts: &[&str]) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let answer = to(&request.body(()).expect("a request"), &Ours(443));
        let location = answer.headers().get(LOCATION).map(|value| value.to_str().expect("text").to_owned());
        (answer.status().as_u16(), location.unwrap_or_default())
    }

    #[test]
    fn own_names_are_redirected_with_the_path() {
        let own = &["relay.example.org"][..];
        assert_eq!(ask("GET", "/a?b=c", own), (308, "https://relay.example.org/a?b=c".into()));
        assert_eq!(ask("HEAD", "/", &["Relay.Example.ORG.:80"]), (308, "https://relay.example.org/".into()));
        // The path stays a path of this server.
        assert_eq!(
            ask("GET", "//evil.example/", own),
            (308, "https://relay.example.org//evil.example/".into())
        );
        assert_eq!(ask("GET", "http://relay.example.org", own), (308, "https://relay.example.org/".into()));
        let other =
            to(&Request::builder().uri("/").header("host", own[0]).body(()).expect("made"), &Ours(5349));
        assert_eq!(other.headers()[LOCATION], "https://relay.example.org:5349/");
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        let own = "relay.example.org";
        for hosts in [
            &[][..],
            &["evil.example"],
            &["192.0.2.1"],
            &["[2001:db8::1]:80"],
            &["evil.example", own],
            &[own, own],
            &["relay.example.org@evil.example"],
            &["evil.example/relay.example.org"],
            &["relay.example.org:80:90"],
            &["relay.example.org:evil"],
        ] {
            assert_eq!(ask("GET", "/", hosts), (404, String::new()), "{hosts:?}");
        }
        assert_eq!(ask("GET", "http://evil.example/", &[own]).0, 404, "the URL counts, not the header");
        for method in ["POST", "PUT", "CONNECT", "OPTIONS", "TRACE"] {
            let uri = if method == "CONNECT" { "relay.example.org:443" } else { "/" };
            assert_eq!(ask(method, uri, &[own]).0, 405, "{method}");
        }
    }

    #[test]
    fn only_pending_tokens_have_a_file() {
        // The authority may use any name, and an address.
        assert_eq!(ask("GET", "/.well-known/acme-challenge/abc", &["other.example"]).0, 200);
        for path in ["abd", "", "abc/", "../acme-challenge/abc", "%61bc"] {
            let asked = ask("GET", &format!("/.well-known/acme-challenge/{path}"), &["relay.example.org"]);
            assert_eq!(asked.0, 404, "{path}");
        }
    }
}
