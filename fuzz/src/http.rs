//! The built-in site over HTTP/1.1 and HTTP/2: requests in any pieces, answers that a client can read.

use hallpass::site::{Answer, Status, h2, http1};

use super::bytes::pieces;

const UNIX: u64 = 1_735_689_600;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte says what answers, and the sizes of the pieces; the rest is what the client sends.
pub fn http(data: &[u8]) {
    let Some((&choice, received)) = data.split_first() else { return };
    let status = if choice & 1 == 0 { Status::NotFound } else { Status::BadGateway };
    let sizes = [choice >> 1, choice >> 4, choice & 7];
    over_http1(received, &sizes, status);
    over_h2(received, status);
    over_h2(&[PREFACE, received].concat(), status);
}

/// What a connection got, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Served {
    answers: Vec<Vec<u8>>,
    closed: bool,
    refused: bool,
}

fn over_http1(received: &[u8], sizes: &[u8], status: Status) {
    let whole = serve([received].into_iter(), status);
    let pieced = serve(pieces(sizes, received), status);
    assert_eq!((whole.closed, whole.refused), (pieced.closed, pieced.refused));
    // Why a request is refused may be known earlier in one of the two.
    let good = |served: &Served| served.answers.len() - usize::from(served.refused);
    assert_eq!(whole.answers[..good(&whole)], pieced.answers[..good(&pieced)]);
}

fn serve<'a>(arriving: impl Iterator<Item = &'a [u8]>, status: Status) -> Served {
    let (mut buffer, mut served) = (Vec::new(), Served::default());
    for piece in arriving {
        buffer.extend_from_slice(piece);
        while let Answer::Reply { bytes, close, consumed } = http1(&buffer, UNIX, status) {
            assert!(0 < consumed && consumed <= buffer.len());
            let head_only = is_head(&buffer);
            served.refused = check_http1(&bytes, close, head_only, status);
            if !served.refused {
                let again = http1(&buffer[..consumed], UNIX, status);
                assert_eq!(again, Answer::Reply { bytes: bytes.clone(), close, consumed });
            }
            assert!(!served.refused || close);
            buffer.drain(..consumed);
            served.answers.push(bytes);
            served.closed = close;
            if close {
                return served;
            }
            if buffer.is_empty() {
                break;
            }
        }
    }
    served
}

/// Empty lines in front of a request are skipped (RFC 9112 section 2.2).
fn is_head(buffer: &[u8]) -> bool {
    let start = buffer.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(buffer.len());
    buffer[start..].starts_with(b"HEAD ")
}

/// Reads an answer as a client does; whether it is a refusal.
fn check_http1(bytes: &[u8], close: bool, head_only: bool, status: Status) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { panic!("unreadable") };
    let code = response.code.expect("complete");
    let field = |name: &str| {
        let mut found = response.headers.iter().filter(|field| field.name == name);
        let value = found.next().and_then(|field| std::str::from_utf8(field.value).ok());
        assert!(found.next().is_none(), "{name} once");
        value
    };
    assert_eq!(field("connection"), Some(if close { "close" } else { "keep-alive" }));
    let length: usize = field("content-length").and_then(|text| text.parse().ok()).expect("a length");
    let refused = !matches!((code, status), (404, Status::NotFound) | (502, Status::BadGateway));
    assert!(!refused || matches!(code, 400 | 431), "{code}");
    assert_eq!(bytes.len() - head, if head_only && !refused { 0 } else { length });
    assert!(close || status == Status::NotFound);
    refused
}

fn over_h2(received: &[u8], status: Status) {
    let whole = h2(received, UNIX, status);
    let mut decided = false;
    for end in (0..received.len().min(200)).chain((200..received.len()).step_by(97)) {
        match (h2(&received[..end], UNIX, status), &whole) {
            (Answer::NeedMore, _) => assert!(!decided, "an answer is for good"),
            (Answer::Reply { bytes, close, consumed }, Answer::Reply { bytes: last, .. }) => {
                assert!(close && consumed == end && &bytes == last);
                decided = true;
            }
            (Answer::Reply { .. }, Answer::NeedMore) => panic!("answered at {end} of {}", received.len()),
        }
    }
    if let Answer::Reply { bytes, close, consumed } = whole {
        assert!(close && consumed == received.len());
        check_h2(&bytes);
    }
}

/// SETTINGS come first and GOAWAY last; a page has its HEADERS and DATA on one stream of the client's.
fn check_h2(bytes: &[u8]) {
    let mut kinds = Vec::new();
    let mut streams = Vec::new();
    let mut rest = bytes;
    while let Some((&[a, b, c, kind, _, s0, s1, s2, s3], behind)) = rest.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        assert!(len <= 16_384);
        rest = behind.get(len..).expect("a whole frame");
        kinds.push(kind);
        if kind < 2 {
            streams.push(u32::from_be_bytes([s0, s1, s2, s3]));
        }
    }
    assert!(rest.is_empty());
    assert!(matches!(kinds[..], [4, 7] | [4, 1, 0, 7] | [4, 4, 1, 0, 7]), "{kinds:?}");
    assert!(streams.iter().all(|stream| stream % 2 == 1 && *stream == streams[0]));
}
