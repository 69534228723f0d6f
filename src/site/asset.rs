//! Files that the site serves, held in memory: their headers, compression and conditional requests.

use std::collections::HashMap;
use std::fmt;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::gzip::compress;
use super::http_date;

/// A file is compressed only if that saves at least this many bytes: below, the answer is one packet anyway.
const WORTH_COMPRESSING: usize = 200;
/// Browsers keep a file for this long, and then ask whether it has changed.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// A file.
#[derive(Clone)]
pub(super) struct Asset {
    body: Bytes,
    /// The same, compressed; `None` if that saves nothing.
    gzip: Option<Bytes>,
    kind: HeaderValue,
    /// The entity tags of both.
    tags: [HeaderValue; 2],
    modified: Option<HeaderValue>,
    policy: Option<&'static str>,
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({} bytes of {:?})", self.body.len(), self.kind)
    }
}

/// Files by their path, which begins with a slash.
#[derive(Clone, Debug, Default)]
pub struct Files {
    by_path: HashMap<String, Asset>,
}

impl Files {
    pub(super) fn add(&mut self, path: &str, asset: Asset) {
        self.by_path.insert(path.to_owned(), asset);
    }

    /// Returns the file at a path of a URL, still with its percent-encoding.
    pub(super) fn find(&self, path: &str) -> Option<&Asset> {
        self.by_path.get(path).or_else(|| self.by_path.get(&decoded(path)?))
    }

    /// Whether there is a page at this path if a slash is added.
    pub(super) fn is_directory(&self, path: &str) -> bool {
        !path.ends_with('/') && self.find(&format!("{path}/")).is_some()
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }
}

/// Decodes the percent-encoding of a path (RFC 3986 section 2.1). The result is a key of a map, never a name of a file.
fn decoded(path: &str) -> Option<String> {
    if !path.contains('%') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

impl Asset {
    /// Makes a file of this type.
    pub fn new(kind: &'static str, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let gzip = is_text(kind).then(|| compress(&body));
        let gzip = gzip.filter(|gzip| gzip.len() + WORTH_COMPRESSING < body.len()).map(Bytes::from);
        let hash = Sha256::digest(&body);
        let tag: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let tags = [format!("\"{tag}\""), format!("\"{tag}-gzip\"")];
        // Hexadecimal digits are always valid in a header.
        let tags = tags.map(|tag| HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\"")));
        Self { body, gzip, kind: HeaderValue::from_static(kind), tags, modified: None, policy: None }
    }

    /// Sets the time of the last change.
    pub fn modified(mut self, at: SystemTime) -> Self {
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.modified = HeaderValue::from_str(&http_date::text(seconds)).ok();
        self
    }

    /// Sets its own Content-Security-Policy.
    pub fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Answers a request for it: GET or HEAD, otherwise 405.
    pub fn answer(&self, method: &Method, request: &HeaderMap) -> Response {
        if method != Method::GET && method != Method::HEAD {
            let allow = [(header::ALLOW, "GET, HEAD")];
            return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
        }
        let zipped = self.gzip.as_ref().filter(|_| takes_gzip(request));
        let (body, tag) = match zipped {
            Some(gzip) => (gzip, &self.tags[1]),
            None => (&self.body, &self.tags[0]),
        };
        let status = if self.is_unchanged(request) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut response = match status {
            // hyper drops the body of an answer to HEAD and keeps its length.
            StatusCode::OK => Response::new(Body::from(body.clone())),
            _ => status.into_response(),
        };
        let fields = response.headers_mut();
        let mut set = |name: HeaderName, value: &HeaderValue| drop(fields.insert(name, value.clone()));
        set(header::ETAG, tag);
        set(header::CACHE_CONTROL, &KEPT);
        if self.gzip.is_some() {
            set(header::VARY, &HeaderValue::from_static("accept-encoding"));
        }
        if let Some(modified) = &self.modified {
            set(header::LAST_MODIFIED, modified);
        }
        if let Some(policy) = self.policy {
            set(header::CONTENT_SECURITY_POLICY, &HeaderValue::from_static(policy));
        }
        if status == StatusCode::OK {
            set(header::CONTENT_TYPE, &self.kind);
            if zipped.is_some() {
                set(header::CONTENT_ENCODING, &HeaderValue::from_static("gzip"));
            }
        }
        response
    }

    /// Whether the client has this version already (RFC 9110 section 13.2.2).
    fn is_unchanged(&self, request: &HeaderMap) -> bool {
        let mut asked = request.get_all(header::IF_NONE_MATCH).iter().peekable();
        if asked.peek().is_some() {
            let listed = |value: &HeaderValue| {
                value.to_str().is_ok_and(|list| {
                    let mut tags = list.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
                    tags.any(|tag| tag == "*" || self.tags.iter().any(|own| own == tag))
                })
            };
            return asked.any(listed);
        }
        // Browsers send back the text that they got.
        self.modified.is_some() && request.get(header::IF_MODIFIED_SINCE) == self.modified.as_ref()
    }
}

/// Whether a type is worth compressing.
fn is_text(kind: &str) -> bool {
    ["text/", "application/json", "application/xml", "image/svg+xml", "application/manifest"]
        .iter()
        .any(|start| kind.starts_with(start))
}

/// Whether the client decompresses gzip (RFC 9110 section 12.5.3).
fn takes_gzip(request: &HeaderMap) -> bool {
    let refused = |weight: &str| {
        let weight = weight.trim().strip_prefix("q=");
        weight.is_some_and(|weight| weight.parse().is_ok_and(|weight: f32| weight <= 0.0))
    };
    let mut values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';');
            let name = parts.next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case("gzip") && !parts.any(refused)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn long() -> Asset {
        Asset::new("text/html; charset=utf-8", "all the same ".repeat(100))
    }

    #[test]
    fn clients_that_take_gzip_get_it() {
        let get = |accept| {
            let answer = long().answer(&Method::GET, &head(&[(header::ACCEPT_ENCODING, accept)]));
            answer.headers().get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned())
        };
        for accept in ["gzip", "br, GZIP;q=0.5", "deflate, gzip, br, zstd"] {
            assert_eq!(get(accept).as_deref(), Some("gzip"), "{accept}");
        }
        for accept in ["br", "gzip;q=0", "gzip; q=0.0", "xgzip"] {
            assert_eq!(get(accept), None, "{accept}");
        }
        let short = Asset::new("text/plain", "short");
        let answer = short.answer(&Method::GET, &head(&[(header::ACCEPT_ENCODING, "gzip")]));
        assert_eq!(answer.headers().get(header::CONTENT_ENCODING), None);
        assert_eq!(answer.headers().get(header::VARY), None);
    }

    #[test]
    fn a_client_with_the_same_version_gets_no_body() {
        let asset = long().modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777));
        let first = asset.answer(&Method::GET, &HeaderMap::new());
        let tag = first.headers()[header::ETAG].clone();
        assert_eq!(first.headers()[header::LAST_MODIFIED], "Sun, 06 Nov 1994 08:49:37 GMT");
        let again = |name, value| {
            let request = HeaderMap::from_iter([(name, value)]);
            asset.answer(&Method::GET, &request).status().as_u16()
        };
        assert_eq!(again(header::IF_NONE_MATCH, tag), 304);
        assert_eq!(again(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"x\", *")), 304);
        assert_eq!(again(header::IF_NONE_MATCH, HeaderValue::from_static("\"another\"")), 200);
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(again(header::IF_MODIFIED_SINCE, date), 304);
        let both = HeaderMap::from_iter([
            (header::IF_NONE_MATCH, HeaderValue::from_static("\"another\"")),
            (header::IF_MODIFIED_SINCE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")),
        ]);
        assert_eq!(asset.answer(&Method::GET, &both).status(), 200, "the tag decides");
    }

    #[test]
    fn other_methods_are_not_allowed() {
        let answer = long().answer(&Method::PUT, &HeaderMap::new());
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
    }

    #[test]
    fn paths_are_decoded() {
        let mut files = Files::default();
        files.add("/a b/ü.html", long());
        files.add("/sub/", long());
        assert!(files.find("/a%20b/%C3%BC.html").is_some());
        for wrong in ["/a%20b/%C3", "/a%2", "/%zz", "/a%20b/%c3%28", "/../a b/ü.html"] {
            assert!(files.find(wrong).is_none(), "{wrong}");
        }
        assert!(files.is_directory("/sub") && !files.is_directory("/sub/") && !files.is_directory("/su"));
    }
}
