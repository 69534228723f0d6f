//! The handshake message at the start of a stream, which may be split into records (RFC 8446 section 5.1), and how it is read.

/// The most bytes of a stream that are examined. Today's largest ClientHellos have about 2 KB (post-quantum key shares);
/// the rest is for those split into many small records.
pub const MAX_PEEK: usize = 32 * 1024;

const RECORD_HEADER: usize = 5;
/// RFC 8446 section 5.1: a plaintext record carries at most 2^14 bytes.
pub(super) const MAX_RECORD: usize = 1 << 14;
const CONTENT_HANDSHAKE: u8 = 22;
pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const EXTENSION_SERVER_NAME: u16 = 0;
pub(super) const EXTENSION_ALPN: u16 = 16;

/// How much of the message has arrived.
pub(super) enum Progress {
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
pub(super) fn message_length(bytes: &[u8]) -> Progress {
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

pub(super) fn reassemble(bytes: &[u8], length: usize) -> Vec<u8> {
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

pub(super) fn protocols(content: &mut Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(content.vector16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector8()?.to_vec());
    }
    Some(protocols)
}

/// The bytes not read yet. Every step returns `None` instead of reading past the end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}
