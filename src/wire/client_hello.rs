//! Reads a TLS ClientHello before the handshake: server name (RFC 6066 section 3) and ALPN (RFC 7301).
//!
//! The server name decides which service of port 443 a connection is for, and rustls must know before the handshake whether
//! to offer ALPN.
//! The bytes are not consumed; the TLS library reads them again from the start.

mod shape;

pub use shape::{Alpn, Extension, Extensions, Shape, shape};

/// The most bytes of a stream that are examined. Today's largest ClientHellos have about 2 KB (post-quantum key shares);
/// the rest is for those split into many small records.
pub const MAX_PEEK: usize = 32 * 1024;

const RECORD_HEADER: usize = 5;
/// RFC 8446 section 5.1: a plaintext record carries at most 2^14 bytes.
const MAX_RECORD: usize = 1 << 14;
const CONTENT_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;

/// The result of looking at the first bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A whole ClientHello.
    Found(ClientHello),
    /// Not a usable ClientHello, no matter which bytes follow.
    NotTls,
    /// The beginning of one; more bytes are needed. Never returned for [`MAX_PEEK`] bytes or more.
    NeedMore,
}

/// The contents of a ClientHello. None of it is authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name of SNI in lower case, letters, digits, `-`, `_` and `.` only.
    pub server_name: Option<String>,
    /// The protocols offered, in the client's order; empty without the extension.
    pub alpn: Vec<Vec<u8>>,
}

/// Examines the bytes that have arrived so far, from the first byte of the stream on.
pub fn peek(bytes: &[u8]) -> Peek {
    match message_length(bytes) {
        Progress::Never => Peek::NotTls,
        Progress::Unfinished if bytes.len() >= MAX_PEEK => Peek::NotTls,
        Progress::Unfinished => Peek::NeedMore,
        Progress::Whole(length) => match parse(&reassemble(bytes, length)) {
            Some(hello) => Peek::Found(hello),
            None => Peek::NotTls,
        },
    }
}

enum Progress {
    /// The whole handshake message, of this many bytes with its header.
    Whole(usize),
    Unfinished,
    Never,
}

/// The fragments of handshake records, in order; the last one may be incomplete. Ends with `Err` at bytes that are not a
/// handshake record.
fn fragments(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], ()>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = &rest[..rest.len().min(RECORD_HEADER)];
        // RFC 8446 section 5.1: the version of a record is ignored, but rustls requires its first byte to be 3.
        let wrong = header.first().is_some_and(|&t| t != CONTENT_HANDSHAKE)
            || header.get(1).is_some_and(|&major| major != 3);
        if wrong {
            rest = &[];
            return Some(Err(()));
        }
        let &[_, _, _, high, low] = header else {
            rest = &[];
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_RECORD {
            rest = &[];
            return Some(Err(()));
        }
        let body = &rest[RECORD_HEADER..];
        let fragment = &body[..body.len().min(length)];
        rest = &body[fragment.len()..];
        Some(Ok(fragment))
    })
}

/// Whether the first handshake message has arrived. Does not copy, because it runs again for every segment.
fn message_length(bytes: &[u8]) -> Progress {
    let mut head = [0u8; 4];
    let mut have = 0;
    for fragment in fragments(bytes) {
        let Ok(fragment) = fragment else {
            return Progress::Never;
        };
        for (slot, &byte) in head.iter_mut().skip(have).zip(fragment) {
            *slot = byte;
        }
        have += fragment.len();
        if have > 0 && head[0] != CLIENT_HELLO {
            return Progress::Never;
        }
        if have >= head.len() {
            let length = head.len() + u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            if length > MAX_PEEK {
                return Progress::Never;
            }
            // Bytes after the message (early data, a second message) are left to the TLS library.
            if have >= length {
                return Progress::Whole(length);
            }
        }
    }
    Progress::Unfinished
}

fn reassemble(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(length);
    for fragment in fragments(bytes).map_while(Result::ok) {
        let missing = length - message.len();
        message.extend_from_slice(&fragment[..fragment.len().min(missing)]);
        if message.len() == length {
            break;
        }
    }
    message
}

/// Reads a ClientHello (RFC 8446 section 4.1.2; TLS 1.2 has the same layout); `None` if a length does not fit.
fn parse(message: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(message.get(4..)?);
    body.take(2 + 32)?; // legacy_version, random
    body.vector8()?; // legacy_session_id
    body.vector16()?; // cipher_suites
    body.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello); // TLS 1.2 without extensions
    }
    let mut extensions = Reader(body.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut content = Reader(extensions.vector16()?);
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = server_name(&mut content)?,
            EXTENSION_ALPN => hello.alpn = protocols(&mut content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The first host name of the list. An invalid name (an address, blanks) counts as missing, as with
/// rustls: such clients get the default certificate.
fn server_name(content: &mut Reader<'_>) -> Option<Option<String>> {
    let mut list = Reader(content.vector16()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == NAME_TYPE_HOST {
            return Some(host_name(name));
        }
    }
    Some(None)
}

fn host_name(name: &[u8]) -> Option<String> {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let fits = !name.is_empty() && name.len() <= 255 && name.iter().all(plain);
    let text = std::str::from_utf8(name).ok().filter(|_| fits)?;
    Some(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
}

fn protocols(content: &mut Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(content.vector16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector8()?.to_vec());
    }
    Some(protocols)
}

/// The bytes not read yet. Every step returns `None` instead of reading past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
