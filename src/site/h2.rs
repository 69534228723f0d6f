//! HTTP/2 (RFC 9113), as much of it as one page on one stream needs: it says that the web server does not answer, and
//! ends.

use super::{Answer, Page, Status};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The largest frame while we announce nothing else (section 4.2).
const FRAME_MAX: usize = 16_384;
/// Bytes before the first request is whole.
const RECEIVED_MAX: usize = 64 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// `:status: 404` and the name `:status` of HPACK's static table (RFC 7541 appendix A).
const STATUS_404: u8 = 13;
const STATUS_NAME: u8 = 8;
/// The longest length that fits one byte of an HPACK string without Huffman coding (RFC 7541 section 5.1).
const STRING_MAX: usize = 126;

/// Answers the first request of a connection, and ends it. `unix`: seconds since 1970.
pub fn h2(received: &[u8], unix: u64, status: Status) -> Answer {
    let reply = |bytes| Answer::Reply { bytes, close: true, consumed: received.len() };
    match first_request(received) {
        Progress::Whole { stream, acknowledge } => reply(page(&Page::of(status), stream, acknowledge, unix)),
        Progress::Unfinished if received.len() < RECEIVED_MAX => Answer::NeedMore,
        Progress::Unfinished | Progress::Never => {
            let mut bytes = Vec::new();
            frame(&mut bytes, SETTINGS, 0, 0, &[]);
            go_away(&mut bytes, 0, PROTOCOL_ERROR);
            reply(bytes)
        }
    }
}

enum Progress {
    /// The header of a request is whole.
    Whole {
        stream: u32,
        /// Whether the client's settings came.
        acknowledge: bool,
    },
    Unfinished,
    Never,
}

fn first_request(received: &[u8]) -> Progress {
    let begin = received.len().min(PREFACE.len());
    if received[..begin] != PREFACE[..begin] {
        return Progress::Never;
    }
    let mut rest = &received[begin..];
    let mut acknowledge = false;
    // The stream whose header block goes on in CONTINUATION frames.
    let mut unfinished = None;
    while let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER>() {
        let [a, b, c, kind, flags, id @ ..] = *header;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(id) & 0x7fff_ffff;
        if len > FRAME_MAX {
            return Progress::Never;
        }
        let Some(next) = after.get(len..) else { return Progress::Unfinished };
        match (kind, unfinished) {
            // Clients open odd streams (section 5.1.1).
            (HEADERS, None) if stream % 2 == 1 => unfinished = Some(stream),
            (CONTINUATION, Some(open)) if open == stream => {}
            // Nothing may come between the parts of a header block (section 6.10).
            (HEADERS | CONTINUATION, _) | (_, Some(_)) => return Progress::Never,
            (SETTINGS, None) => acknowledge |= flags & ACK == 0,
            _ => {}
        }
        if let Some(stream) = unfinished.filter(|_| flags & END_HEADERS != 0) {
            return Progress::Whole { stream, acknowledge };
        }
        rest = next;
    }
    Progress::Unfinished
}

fn page(page: &Page, stream: u32, acknowledge: bool, unix: u64) -> Vec<u8> {
    let body = page.body();
    let mut block = Vec::new();
    if page.code == 404 {
        block.push(0x80 | STATUS_404);
    } else {
        // Literal without indexing, the name by its index (RFC 7541 section 6.2.2).
        block.push(STATUS_NAME);
        string(&mut block, &page.code.to_string());
    }
    for (name, value) in page.fields(body.len(), unix) {
        block.push(0);
        string(&mut block, name);
        string(&mut block, &value);
    }
    let mut bytes = Vec::new();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    if acknowledge {
        frame(&mut bytes, SETTINGS, ACK, 0, &[]);
    }
    frame(&mut bytes, HEADERS, END_HEADERS, stream, &block);
    frame(&mut bytes, DATA, END_STREAM, stream, body.as_bytes());
    go_away(&mut bytes, stream, NO_ERROR);
    bytes
}

fn string(block: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= STRING_MAX, "{text:?} needs a longer form");
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // All of ours are far below FRAME_MAX.
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn go_away(bytes: &mut Vec<u8>, last: u32, error: u32) {
    let payload = [last.to_be_bytes(), error.to_be_bytes()].concat();
    frame(bytes, GOAWAY, 0, 0, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_735_689_600;
    const OTHER: u8 = 8;

    fn client(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        frames
            .iter()
            .for_each(|&(kind, flags, stream, payload)| frame(&mut bytes, kind, flags, stream, payload));
        bytes
    }

    /// Kind, flags, stream and payload of every frame.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER>() {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            all.push((header[3], header[4], stream, rest[..len].to_vec()));
            bytes = &rest[len..];
        }
        assert!(bytes.is_empty());
        all
    }

    fn reply(received: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        match h2(received, NOW, Status::BadGateway) {
            Answer::Reply { bytes, close: true, consumed } if consumed == received.len() => frames(&bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_request_gets_the_page() {
        let request = client(&[
            (SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
            (OTHER, 0, 0, &[0, 1, 0, 0]),
            (HEADERS, END_STREAM, 1, b"\x82"),
            (CONTINUATION, END_HEADERS, 1, b"\x87"),
        ]);
        for len in 0..request.len() {
            assert_eq!(h2(&request[..len], NOW, Status::BadGateway), Answer::NeedMore, "{len} bytes");
        }
        let frames = reply(&request);
        let shape: Vec<_> = frames.iter().map(|&(kind, flags, stream, _)| (kind, flags, stream)).collect();
        let expected = [
            (SETTINGS, 0, 0),
            (SETTINGS, ACK, 0),
            (HEADERS, END_HEADERS, 1),
            (DATA, END_STREAM, 1),
            (GOAWAY, 0, 0),
        ];
        assert_eq!(shape, expected);
        assert!(frames[2].3.starts_with(b"\x08\x03502\x00\x04date\x1dWed, 01 Jan 2025 00:00:00 GMT"));
        let length = format!("content-length{}{}", char::from(3), frames[3].3.len());
        assert!(frames[2].3.windows(length.len()).any(|window| window == length.as_bytes()));
        assert_eq!(frames[4].3, [0, 0, 0, 1, 0, 0, 0, 0]);
        let pinned = b"strict-transport-security";
        assert!(!frames[2].3.windows(pinned.len()).any(|window| window == pinned));
    }

    #[test]
    fn what_is_not_http_2_is_told_so_and_nothing_grows() {
        let refused = |received: &[u8]| {
            let frames = reply(received);
            assert_eq!(frames.last().expect("a frame").3, [0, 0, 0, 0, 0, 0, 0, 1]);
        };
        refused(b"GET / HTTP/1.1\r\n");
        refused(&client(&[(HEADERS, END_HEADERS, 2, b"\x82")]));
        refused(&client(&[(CONTINUATION, END_HEADERS, 1, b"\x82")]));
        refused(&client(&[(HEADERS, 0, 1, b"\x82"), (SETTINGS, 0, 0, b"")]));
        refused(&client(&[(DATA, 0, 1, &[0; FRAME_MAX + 1])]));
        let settings: (u8, u8, u32, &[u8]) = (OTHER, 0, 0, &[0; FRAME_MAX]);
        refused(&client(&[settings; 4]));
    }
}
