//! The HTTP proxy: its URL, and CONNECT (RFC 9110 section 9.3.6).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::Cause;
use crate::base::turn_url::{place, split};

/// The port of `http` URLs.
const DEFAULT_PORT: u16 = 80;
/// The longest head of an answer to CONNECT, in bytes.
const HEAD_MAX: usize = 16 << 10;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of Proxy-Authorization, which contains a password.
    authorization: Option<String>,
}

impl fmt::Display for Proxy {
    /// The URL without user name and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", place(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.to_string()).finish()
    }
}

/// Why a text is no usable proxy. `Display` says what to write; it contains nothing of the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxy(&'static str);

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadProxy {}

impl FromStr for Proxy {
    type Err = BadProxy;

    /// Parses `[http://][USER[:PASSWORD]@]HOST[:PORT][/]`.
    ///
    /// # Errors
    /// [`BadProxy`] if it is a proxy of another kind, or malformed.
    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(("https" | "HTTPS", _)) => {
                return Err(BadProxy(
                    "a proxy that is itself reached over TLS cannot be tested; only http://",
                ));
            }
            Some(_) => return Err(BadProxy("only HTTP proxies carry TURN in browsers: http://HOST:PORT")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = split(place).map_err(|_| BadProxy("write http://HOST:PORT"))?;
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut pair = percent_decoded(name);
            pair.push(b':');
            pair.extend(percent_decoded(password));
            format!("Basic {}", STANDARD.encode(pair))
        });
        Ok(Self { host, port: port.unwrap_or(DEFAULT_PORT), authorization })
    }
}

/// Decodes `%41`. Anything else stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

impl Proxy {
    /// Asks the proxy on this connection for a tunnel to the host.
    ///
    /// # Errors
    /// The proxy refuses, is no HTTP proxy, or the connection ended.
    pub async fn connect(&self, stream: &mut TcpStream, host: &str, port: u16) -> Result<(), Cause> {
        let to = place(host, port);
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        let failed = |error: std::io::Error| Cause::NoProxy(Box::new(Cause::of_error(&error)));
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // One byte at a time, so that nothing of what follows the head is read.
            head.push(stream.read_u8().await.map_err(failed)?);
            if head.len() >= HEAD_MAX || !has_status(&head) {
                return Err(Cause::NotAProxy);
            }
        }
        match status(&head) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(Cause::ProxyWantsLogin),
            Some(code) => Err(Cause::ProxyRefuses(code)),
            None => Err(Cause::NotAProxy),
        }
    }
}

/// Whether the head begins like an answer of HTTP.
fn has_status(head: &[u8]) -> bool {
    let start = b"HTTP/1.";
    let len = head.len().min(start.len());
    head[..len] == start[..len]
}

/// The status code: `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|code| (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        let parse = |text: &str| text.parse::<Proxy>().unwrap();
        assert_eq!(parse("http://proxy.school:3128").to_string(), "http://proxy.school:3128");
        assert_eq!(parse("proxy:8080/").to_string(), "http://proxy:8080");
        assert_eq!(parse("http://[::1]").to_string(), "http://[::1]:80");
        let with_login = parse("http://me:p%40ss%zz@proxy:1");
        assert_eq!(with_login.to_string(), "http://proxy:1");
        // base64 of "me:p@ss%zz"
        assert_eq!(with_login.authorization.as_deref(), Some("Basic bWU6cEBzcyV6eg=="));
        assert!(!format!("{with_login:?}").contains("bWU6"));
        for (wrong, said) in [
            ("socks5://proxy:1080", "only HTTP proxies"),
            ("https://proxy:443", "over TLS"),
            ("http://me:secret@", "http://HOST:PORT"),
            ("http://proxy:x", "http://HOST:PORT"),
        ] {
            let error = wrong.parse::<Proxy>().unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn answers_of_proxies() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 \r\n\r\n"), Some(407));
        assert_eq!(status(b"HTTP/1.1 9x9 \r\n\r\n"), None);
        assert_eq!(status(b"HTTP/1.1"), None);
        assert!(has_status(b"HT") && has_status(b"HTTP/1.1 2") && !has_status(b"SSH-2"));
    }
}
