//! Parsing of a ClientHello: independent of segments and records, and consistent with rustls.

use hallpass::wire::client_hello::{MAX_PEEK, Peek, peek};
use rustls::server::Acceptor;

/// Distance of the tested prefixes after the first 300.
const STEP: usize = 61;

/// The first bytes of a connection.
pub fn client_hello(data: &[u8]) {
    let whole = peek(data);
    for end in (0..data.len().min(300)).chain((300..data.len()).step_by(STEP)) {
        let part = peek(&data[..end]);
        assert!(part == Peek::NeedMore || part == whole, "{end} bytes: {part:?}, all: {whole:?}");
    }
    if let Peek::Found(hello) = &whole {
        if let Some(name) = &hello.server_name {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            assert!(name.len() <= 255 && name.chars().all(plain), "{name:?}");
        }
        assert!(hello.alpn.iter().all(|protocol| protocol.len() <= 255));
        in_other_records(data, &whole);
    }
    if data.len() >= MAX_PEEK {
        assert_ne!(whole, Peek::NeedMore);
    }
    second_opinion(data, &whole);
}

/// Splits the same handshake message into different records.
fn in_other_records(data: &[u8], whole: &Peek) {
    let mut message = Vec::new();
    let mut rest = data;
    while let Some((&[22, _, _, high, low], behind)) = rest.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        message.extend_from_slice(&behind[..len]);
        rest = &behind[len..];
    }
    // Up to the end of the message; bytes after it are ignored.
    let len = 4 + u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize;
    message.truncate(len);
    for size in [1 + usize::from(data[data.len() - 1]), 1 << 14] {
        let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        let cut: Vec<u8> = message.chunks(size).flat_map(record).collect();
        assert_eq!(&peek(&cut), whole, "records of {size}");
    }
}

/// Any ClientHello that rustls accepts is accepted here, with the same name and protocols.
fn second_opinion(data: &[u8], whole: &Peek) {
    let mut acceptor = Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Err(_) => return,
            Ok(Some(accepted)) => {
                let theirs = accepted.client_hello();
                let Peek::Found(ours) = whole else { panic!("rustls reads it, we say {whole:?}") };
                if let Some(name) = theirs.server_name() {
                    let name = name.trim_end_matches('.').to_ascii_lowercase();
                    assert_eq!(ours.server_name, Some(name));
                }
                let alpn: Vec<Vec<u8>> = theirs.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                assert_eq!(ours.alpn, alpn);
                return;
            }
        }
    }
}
