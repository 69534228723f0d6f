//! The built-in site: what a browser gets on the relay's own port 443 where no web server is configured, or the one
//! that is does not answer. Bytes in, bytes out; nothing here knows a socket.
#![forbid(unsafe_code)]

mod h2;
mod http1;

use std::time::{Duration, UNIX_EPOCH};

pub use h2::h2;
pub use http1::http1;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is nothing here (RFC 9110 section 15.5.5).
    NotFound,
    /// The web server behind us does not answer (RFC 9110 section 15.6.3).
    BadGateway,
}

/// What became of received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The request is not complete.
    NeedMore,
    /// An answer to the first `consumed` bytes.
    Reply {
        /// What to send.
        bytes: Vec<u8>,
        /// Whether the connection ends with it.
        close: bool,
        /// How many bytes were dealt with.
        consumed: usize,
    },
}

/// Seconds after which a web server is worth another try.
const RETRY_AFTER: &str = "10";
const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// One page and the fields that go with it.
struct Page {
    code: u16,
    reason: &'static str,
    text: &'static str,
    retry: bool,
}

impl Page {
    fn of(status: Status) -> Self {
        match status {
            Status::NotFound => Self {
                code: 404,
                reason: "Not Found",
                text: "There is no page at this address.",
                retry: false,
            },
            Status::BadGateway => Self {
                code: 502,
                reason: "Bad Gateway",
                text: "The site behind this address does not answer at the moment. Try again in a minute.",
                retry: true,
            },
        }
    }

    fn body(&self) -> String {
        let Self { code, reason, text, .. } = self;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{code} {reason}</title></head>\n\
             <body><h1>{reason}</h1><p>{text}</p></body>\n</html>\n"
        )
    }

    /// Header fields, names in lower case as HTTP/2 has them. `unix`: seconds since 1970. None of them outlives the page:
    /// how browsers reach this name tomorrow (Strict-Transport-Security) is for the owner of the domain to decide.
    fn fields(&self, length: usize, unix: u64) -> Vec<(&'static str, String)> {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix));
        let mut fields = vec![
            ("date", date),
            ("content-type", CONTENT_TYPE.to_owned()),
            ("content-length", length.to_string()),
            ("cache-control", "no-store".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
            ("content-security-policy", "default-src 'none'".to_owned()),
        ];
        if self.retry {
            fields.push(("retry-after", RETRY_AFTER.to_owned()));
        }
        fields
    }
}
