//! HTTP/1.1 (RFC 9112), as much of it as one page needs.

use std::fmt::Write;

use super::{Answer, Page, Status};

/// Bytes of a request's head. Browsers send below 4 KB, cookies included.
const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 100;

/// Answers one request. `unix`: seconds since 1970.
pub fn http1(received: &[u8], unix: u64, status: Status) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let consumed = match request.parse(received) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if received.len() <= HEAD_MAX => return Answer::NeedMore,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refusal(431, "Request Header Fields Too Large", received.len(), unix);
        }
        Err(_) => return refusal(400, "Bad Request", received.len(), unix),
    };
    if consumed > HEAD_MAX {
        return refusal(431, "Request Header Fields Too Large", received.len(), unix);
    }
    let field = |name: &str| request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    // RFC 9112 section 3.2: HTTP/1.1 without a Host is a 400.
    if request.version == Some(1) && field("host").is_none() {
        return refusal(400, "Bad Request", received.len(), unix);
    }
    let says_close = field("connection").is_some_and(|field| {
        field.value.split(|&b| b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    // Nobody reads what follows, so the connection ends with the answer.
    let has_body = field("transfer-encoding").is_some()
        || field("content-length").is_some_and(|field| field.value.trim_ascii() != b"0");
    // A web server that is back is to be found by the next request.
    let close = says_close || has_body || request.version != Some(1) || status == Status::BadGateway;
    let bytes = reply(&Page::of(status), request.method == Some("HEAD"), close, unix);
    Answer::Reply { bytes, close, consumed }
}

fn refusal(code: u16, reason: &'static str, received: usize, unix: u64) -> Answer {
    let page = Page { code, reason, text: "This request cannot be understood.", retry: false };
    Answer::Reply { bytes: reply(&page, false, true, unix), close: true, consumed: received }
}

fn reply(page: &Page, head_only: bool, close: bool, unix: u64) -> Vec<u8> {
    let body = page.body();
    let mut text = format!("HTTP/1.1 {} {}\r\n", page.code, page.reason);
    let connection = if close { "close" } else { "keep-alive" };
    let fields = page.fields(body.len(), unix);
    for (name, value) in
        fields.iter().map(|(name, value)| (*name, value.as_str())).chain([("connection", connection)])
    {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    if !head_only {
        text.push_str(&body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-01 00:00:00.
    const NOW: u64 = 1_735_689_600;

    fn answered(request: &str, status: Status) -> (String, bool, usize) {
        for len in 0..request.len() {
            assert_eq!(http1(&request.as_bytes()[..len], NOW, status), Answer::NeedMore, "{len} bytes");
        }
        match http1(request.as_bytes(), NOW, status) {
            Answer::Reply { bytes, close, consumed } => {
                (String::from_utf8(bytes).expect("text"), close, consumed)
            }
            Answer::NeedMore => panic!("no answer to {request:?}"),
        }
    }

    #[test]
    fn a_page_is_whole_and_the_connection_stays() {
        let request = "GET /any HTTP/1.1\r\nHost: relay.example.org\r\nAccept: */*\r\n\r\n";
        let (text, close, consumed) = answered(request, Status::NotFound);
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(
            head.starts_with("HTTP/1.1 404 Not Found\r\ndate: Wed, 01 Jan 2025 00:00:00 GMT\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\nconnection: keep-alive") && body.ends_with("</html>\n"));
        assert!(!head.contains("strict-transport-security"), "{head}");
        assert_eq!((close, consumed), (false, request.len()));
        // The next request is left for the next look.
        let two = format!("{request}{request}");
        assert!(
            matches!(http1(two.as_bytes(), NOW, Status::NotFound), Answer::Reply { consumed: c, .. } if c == consumed)
        );
    }

    #[test]
    fn the_end_is_said_where_it_comes() {
        for (request, close) in [
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            let (text, closes, _) = answered(request, Status::NotFound);
            assert_eq!(closes, close, "{request:?}");
            assert_eq!(text.contains("\r\nconnection: close\r\n"), close);
        }
        let (text, closes, _) = answered("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Status::BadGateway);
        assert!(closes && text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "the web server may be back");
        assert!(text.contains("\r\nretry-after: 10\r\n"));
        let (text, ..) = answered("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Status::NotFound);
        assert!(text.ends_with("\r\n\r\n") && !text.contains("content-length: 0"));
    }

    #[test]
    fn what_is_no_request_is_refused_and_bounded() {
        let code = |received: &[u8]| match http1(received, NOW, Status::NotFound) {
            Answer::Reply { bytes, close: true, consumed } if consumed == received.len() => {
                String::from_utf8(bytes[9..12].to_vec()).expect("a code")
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(code(b"\x80\x01\x02"), "400");
        assert_eq!(code(b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"), "400");
        assert_eq!(code(&[b"GET /".as_slice(), &[b'a'; HEAD_MAX]].concat()), "431");
        let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(code(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()), "431");
    }
}
