//! Reads a TLS ClientHello before the handshake: server name (RFC 6066 section 3) and ALPN (RFC 7301).
//!
//! The server name decides which service of port 443 a connection is for, and rustls must know before the handshake whether
//! to offer ALPN.
//! The bytes are not consumed; the TLS library reads them again from the start.

mod records;
mod shape;

pub use records::MAX_PEEK;
use records::{
    EXTENSION_ALPN, EXTENSION_SERVER_NAME, Progress, Reader, message_length, protocols, reassemble,
};
pub use shape::{Alpn, Extension, Extensions, Shape, shape};

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

#[cfg(test)]
mod tests;
